# SPDX-License-Identifier: Apache-2.0
"""statistics() of steps that several ranks have shared: every rank gets all of them."""

import math

import torch
import torch.distributed as dist

_MEANS = ("stable_rank", "energy_kept")  # over blocks
_EXTREMES = ("sigma_max", "half_pass", "skipped")
_SUMS = ("directions", "directions_passed", "idle")


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
    """(squares of the gradient's part; of a stack that is cut between ranks those of every matrix;
    entries stepped here, blocks, figures)."""
    squares, cut = [0.0], cell.stack and cell.shard_cells.get("keys", {}) is None
    if gradient is not None and gradient.numel():
        clean = torch.nan_to_num(gradient.double(), 0.0, 0.0, 0.0)
        sums = (clean**2).flatten(-2).sum(-1) if cut else (clean**2).sum()
        squares = sums.flatten().tolist()
    if figures is None:
        return squares, 0, 0, None
    one = cell.shard_cells.get("local") or cell.shard_cells["whole"]
    blocks = 1
    if one.plan.rule.is_matrix:
        count = one.shape[0] - int(figures.get("idle", 0))  # those that were stepped
        blocks = count * len(one.plan.layout.blocks(*one.shape[1:]))
    return squares, one.numel, blocks, figures


def _merged(cell, verdict: str, parts: list[tuple]) -> dict:
    stepped = [part for part in parts if part[3] is not None]
    result = {"name": cell.name, "rule": cell.plan.rule.name, "lr": float(cell.group["lr"])}
    if verdict == "nonfinite" or not stepped:
        return result | {"skipped": 1.0, "gradient_norm": 0.0, "update_rms": 0.0}
    entries = sum(part[1] for part in stepped)
    blocks = sum(part[2] for part in stepped)
    result["gradient_norm"] = math.sqrt(sum(sum(part[0]) for part in parts))
    moved = sum(figures["update_rms"] ** 2 * n for _, n, _, figures in stepped)
    result["update_rms"] = math.sqrt(moved / entries)
    first = stepped[0][3]
    for key in first:
        values = [figures[key] for _, _, _, figures in stepped]
        if key in _MEANS:
            total = sum(v * part[2] for v, part in zip(values, stepped, strict=True))
            result[key] = total / max(1, blocks)
        elif key in _EXTREMES:
            result[key] = max(values)
        elif key in _SUMS:
            result[key] = sum(values)
        elif key == "matrices":  # in the order of the ranks, as they are cut
            result[key] = [matrix for part in values for matrix in part]
            if len(stepped) == 1 and len(parts) > 1:  # mapped by one rank; gradients lie on all
                _fill_norms(result[key], [part[0] for part in parts])
        elif key == "head_spread" and len(stepped) == 1:  # needs the norms of all blocks
            result[key] = values[0]
    return result


def _fill_norms(matrices: list[dict], squares: list[list]):
    """||G||_F of every matrix of a stack, from the squares of the ranks' parts, if they are by
    matrix; a rank without a part has one zero."""
    parts = [part for part in squares if len(part) == len(matrices)]
    for k, matrix in enumerate(matrices if parts else []):
        if not matrix["idle"] and not matrix["skipped"]:
            matrix["gradient_norm"] = math.sqrt(sum(part[k] for part in parts))
