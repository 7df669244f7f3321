# SPDX-License-Identifier: Apache-2.0
"""statistics() of steps that several ranks have shared: every rank gets all of them."""

import math

import torch
import torch.distributed as dist

_MEANS = ("stable_rank", "energy_kept")  # over blocks
_EXTREMES = ("sigma_max", "half_pass", "skipped")
_SUMS = ("directions", "directions_passed")


def merge(optimizer, gradients: dict, verdicts: dict):
    """Replaces optimizer._statistics, which hold this rank's steps, by those of all parameters, in
    their order. `verdicts` are the DTensors that had a gradient somewhere."""
    cells = [cell for _, cell in optimizer.named_cells()]
    own = {figures["name"]: figures for figures in optimizer._statistics}
    sharded = {cell.name for cell in verdicts}
    found = {name: figures for name, figures in own.items() if name not in sharded}
    if optimizer.replicas is not None:
        for others in _all(found, optimizer.replicas.group):
            found |= others
    groups = {}
    for cell, verdict in verdicts.items():
        groups.setdefault(cell.shard.group, []).append((cell, verdict))
    for group, members in groups.items():
        part = {
            cell.name: _contribution(cell, gradients.get(cell), own.get(cell.name))
            for cell, _ in members
        }
        parts = [part] if group is None else _all(part, group)
        for cell, verdict in members:
            found[cell.name] = _merged(cell, verdict, [p[cell.name] for p in parts])
    optimizer._statistics = [found[cell.name] for cell in cells if cell.name in found]


def _all(part: dict, group) -> list[dict]:
    parts = [None] * dist.get_world_size(group)
    dist.all_gather_object(parts, part, group=group)
    return parts


def _contribution(cell, gradient, figures: dict | None) -> tuple:
    """(squares of the gradient's part, entries stepped here, blocks, figures)."""
    squares = 0.0
    if gradient is not None and gradient.numel():
        clean = torch.nan_to_num(gradient.double(), 0.0, 0.0, 0.0)
        squares = float((clean**2).sum())
    if figures is None:
        return squares, 0, 0, None
    one = cell.shard_cells.get("local") or cell.shard_cells["whole"]
    blocks = 1
    if one.plan.rule.is_matrix:
        blocks = one.shape[0] * len(one.plan.layout.blocks(*one.shape[1:]))
    return squares, one.numel, blocks, figures


def _merged(cell, verdict: str, parts: list[tuple]) -> dict:
    stepped = [part for part in parts if part[3] is not None]
    result = {"name": cell.name, "rule": cell.plan.rule.name, "lr": float(cell.group["lr"])}
    if verdict == "nonfinite" or not stepped:
        return result | {"skipped": 1.0, "gradient_norm": 0.0, "update_rms": 0.0}
    entries = sum(part[1] for part in stepped)
    blocks = sum(part[2] for part in stepped)
    result["gradient_norm"] = math.sqrt(sum(part[0] for part in parts))
    moved = sum(figures["update_rms"] ** 2 * n for _, n, _, figures in stepped)
    result["update_rms"] = math.sqrt(moved / entries)
    first = stepped[0][3]
    for key in first:
        values = [figures[key] for _, _, _, figures in stepped]
        if key in _MEANS:
            result[key] = sum(v * part[2] for v, part in zip(values, stepped, strict=True)) / blocks
        elif key in _EXTREMES:
            result[key] = max(values)
        elif key in _SUMS:
            result[key] = sum(values)
        elif key == "head_spread" and len(stepped) == 1:  # needs the norms of all blocks
            result[key] = values[0]
    return result
