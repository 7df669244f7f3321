# SPDX-License-Identifier: Apache-2.0
"""The step of an optimizer whose parameters or work are spread over processes.

First all ranks agree: which parameters have a gradient somewhere, which are not finite, and whether
a rank has met an error. So every rank sends the same messages whatever its own gradients are.
"""

import math

import torch

from pion import distributed_gather, distributed_shards, distributed_statistics
from pion.cell import Cell, check_finite
from pion.distributed_exchange import agree_to_step

_SKIPPED = (
    "step: the gradient of {} holds NaN or Inf; the parameter was skipped, and will be whenever "
    "this happens again. Lower the learning rate or look for a division by zero"
)


def step(optimizer) -> list[str]:
    """Steps all parameters; returns warnings. If a rank cannot, all raise and none has written."""
    plain, gradients, failure = [], {}, None
    try:
        if optimizer.host is not None and any(c.shard for _, c in optimizer.named_cells()):
            raise ValueError(
                "step: an offloaded optimizer must have plain parameters, got a DTensor; use "
                "fully_shard(offload_policy=CPUOffloadPolicy()), which steps on the CPU too"
            )
        for cell, gradient, state in optimizer._work():
            if cell.shard is None:
                plain.append((cell, gradient, state))
            else:
                gradients[cell] = cell.shard.gradient(gradient)
        check_finite(plain)
        # gradients of DTensors are looked at below, on all ranks together
        sharded = [(cell, g, optimizer.state[cell.parameter]) for cell, g in gradients.items()]
        check_finite(sharded, gradients=False)
    except Exception as error:  # noqa: BLE001 raised below, when the others have heard of it
        failure = error
    verdicts, active, replicas = {}, {}, optimizer.replicas
    met = [failure]  # also of those whose messages we have seen; every group must hear of one
    if replicas is not None:
        met.append(replicas.agree(optimizer, plain, met))
    for cells in _by_group(optimizer).values():
        met.append(_agree(optimizer, cells, gradients, met, verdicts, active))
    for error in met:
        if error is not None:
            raise error
    _refuse_nonfinite(verdicts)
    if replicas is None:
        messages = optimizer.step_items(plain)
    else:
        messages = replicas.step(optimizer, plain)
    messages += _step_sharded(optimizer, gradients, verdicts, active)
    if optimizer._collect:
        distributed_statistics.merge(optimizer, gradients, verdicts)
    return messages


def _by_group(optimizer) -> dict:
    """Cells of DTensors by the processes that they are sharded over, in order."""
    groups = {}
    for _, cell in optimizer.named_cells():
        if cell.shard is not None:
            groups.setdefault(cell.shard.group, []).append(cell)
    return groups


def _agree(optimizer, cells: list, gradients: dict, met: list, verdicts: dict, active: dict):
    """Fills verdicts: "step" or "nonfinite" for every cell with a gradient on any rank. A rank
    without one has zeros. Fills active, of stacks whose matrices are cut between ranks: for every
    matrix whether its gradient has an entry that is not zero. Returns an error, if a rank has met
    one. The host waits once."""
    shard = cells[0].shard
    own = [gradients.get(cell) for cell in cells]
    home = cells[0].parameter.to_local().device
    stacks = [cell for cell in cells if cell.stack and _keys(cell) is None]
    found = torch.cat(
        [_nonfinite(own, home), *(_nonzero(cell, gradients.get(cell), home) for cell in stacks)]
    )
    given, error = [int(g is not None) for g in own], None
    if shard.group is None:
        flags, table = given + found.tolist(), found
    else:
        flags, table, error = agree_to_step(shard.group, optimizer, met, given, shard.device, found)
        table = table.to(home)
    for index, cell in enumerate(cells):
        if flags[index]:
            bad = flags[len(cells) + index] and cell.group["nonfinite"] != "zero"
            verdicts[cell] = "nonfinite" if bad else "step"
    first = len(cells)
    for cell in stacks:
        mask = table.narrow(0, first, cell.shape[0]) != 0
        active[cell], first = mask.view(*cell.parameter.shape[:-2], 1, 1), first + cell.shape[0]
    return error


def _nonzero(cell, gradient, home) -> torch.Tensor:
    """For every matrix of a stack 1 if this rank's part of its gradient is not all zeros."""
    if gradient is None or gradient.numel() == 0:
        return torch.zeros(cell.shape[0], dtype=torch.int32, device=home)
    if cell.group["nonfinite"] == "zero":
        gradient = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
    return (gradient != 0).flatten(-2).any(-1).flatten().int()


def _nonfinite(gradients: list, home) -> torch.Tensor:
    """1 for every gradient that holds NaN or Inf: then so does its largest entry."""
    none = torch.zeros((), device=home)
    largest, alike = [none] * len(gradients), {}
    for index, gradient in enumerate(gradients):
        if gradient is not None and gradient.numel():
            alike.setdefault(gradient.dtype, []).append(index)
    for indices in alike.values():
        norms = torch._foreach_norm([gradients[i] for i in indices], math.inf)
        for index, norm in zip(indices, norms, strict=True):
            largest[index] = norm.to(home)
    return (~torch.isfinite(torch.stack(largest))).int()


def _refuse_nonfinite(verdicts: dict):
    for cell, verdict in verdicts.items():
        if verdict == "nonfinite" and cell.group["nonfinite"] == "raise":
            raise ValueError(
                f"step: every gradient must be finite, got NaN or Inf in that of {cell.name}; "
                'nothing was written. To go on without such parameters, set nonfinite to "skip"'
            )


def _step_sharded(optimizer, gradients: dict, verdicts: dict, active: dict) -> list[str]:
    messages, items, gathered, empty = [], [], {}, []
    for cell, verdict in verdicts.items():
        state = optimizer.state[cell.parameter]
        optimizer._fill(cell, state)
        own, weight = distributed_shards.local_state(state), cell.parameter.to_local()
        if verdict == "nonfinite":
            messages += _skip(cell, own)
            continue
        gradient = gradients.get(cell)
        if gradient is None:  # others have one
            gradient = torch.zeros_like(weight)
        if _keys(cell) is None:
            item = (cell, gradient, own, active.get(cell))
            gathered.setdefault(cell.shard.group, []).append(item)
        elif weight.numel():
            items.append((_local_cell(optimizer, cell, weight), gradient, own))
        else:
            own["counters"][3] += 1
            empty.append(own["step"])
    if empty:
        torch._foreach_add_(empty, 1)
    messages += optimizer.step_items(items)
    for members in gathered.values():
        messages += distributed_gather.step(optimizer, members)
    return messages


def _skip(cell, state: dict) -> list[str]:
    counters = state["counters"]
    counters[3] += 1
    if counters[2]:
        return []
    counters[2] = 1
    return [_SKIPPED.format(cell.name)]


def _keys(cell) -> dict | None:
    if "keys" not in cell.shard_cells:
        cell.shard_cells["keys"] = distributed_shards.local_group(cell)
    return cell.shard_cells["keys"]


def _local_cell(optimizer, cell, weight) -> Cell:
    """The cell of this rank's part as a parameter of its own."""
    found = cell.shard_cells.get("local")
    if found is None or found.parameter is not weight:
        keys = _keys(cell)
        group, plan = cell.group, cell.plan
        if keys:
            plan = distributed_shards.variant(plan, group, keys, optimizer._variants)
            group = group | keys
        # ranks that round stochastically take different random numbers
        ordinal = cell.ordinal + (cell.shard.rank << 32)
        found = cell.shard_cells["local"] = Cell(weight, group, plan, cell.name, ordinal)
    distributed_shards.follow_rate(found, cell)
    return found
