# SPDX-License-Identifier: Apache-2.0
"""The step of an optimizer whose parameters or work are spread over processes.

First all ranks agree: which parameters have a gradient somewhere, which are not finite, and whether
a rank has met an error. So every rank sends the same messages whatever its own gradients are.
"""

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
    one."""
    shard = cells[0].shard
    own = [gradients.get(cell) for cell in cells]
    flags = [*(int(g is not None) for g in own), *_nonfinite(own)]
    stacks = [cell for cell in cells if cell.stack and _keys(cell) is None]
    for cell in stacks:
        flags += _nonzero(cell, gradients.get(cell))
    error = None
    if shard.group is not None:
        flags, error = agree_to_step(shard.group, optimizer, met, flags, shard.device)
    for index, cell in enumerate(cells):
        if flags[index]:
            bad = flags[len(cells) + index] and cell.group["nonfinite"] != "zero"
            verdicts[cell] = "nonfinite" if bad else "step"
    first = 2 * len(cells)
    for cell in stacks:
        count = cell.shape[0]
        active[cell], first = flags[first : first + count], first + count
    return error


def _nonzero(cell, gradient) -> list[int]:
    """For every matrix of a stack whether this rank's part of its gradient is not all zeros."""
    if gradient is None or gradient.numel() == 0:
        return [0] * cell.shape[0]
    if cell.group["nonfinite"] == "zero":
        gradient = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
    return (gradient != 0).flatten(-2).any(-1).flatten().int().tolist()


def _nonfinite(gradients: list) -> list[int]:
    """1 for every gradient that holds NaN or Inf: then so does its largest entry."""
    asked = [i for i, g in enumerate(gradients) if g is not None and g.numel()]
    result = [0] * len(gradients)
    if not asked:
        return result
    largest = [torch.linalg.vector_norm(gradients[i], torch.inf).double() for i in asked]
    largest = torch.stack([x.to(largest[0].device) for x in largest])
    for index, finite in zip(asked, torch.isfinite(largest).tolist(), strict=True):
        result[index] = int(not finite)
    return result


def _refuse_nonfinite(verdicts: dict):
    for cell, verdict in verdicts.items():
        if verdict == "nonfinite" and cell.group["nonfinite"] == "raise":
            raise ValueError(
                f"step: every gradient must be finite, got NaN or Inf in that of {cell.name}; "
                'nothing was written. To go on without such parameters, set nonfinite to "skip"'
            )


def _step_sharded(optimizer, gradients: dict, verdicts: dict, active: dict) -> list[str]:
    messages, items, gathered = [], [], {}
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
            mask = None
            if cell in active:
                mask = torch.tensor(active[cell], dtype=torch.bool, device=weight.device)
                mask = mask.view(*weight.shape[:-2], 1, 1)
            gathered.setdefault(cell.shard.group, []).append((cell, gradient, own, mask))
        elif weight.numel():
            items.append((_local_cell(optimizer, cell, weight), gradient, own))
        else:
            own["step"] += 1
            own["counters"][3] += 1
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
