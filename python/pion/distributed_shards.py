# SPDX-License-Identifier: Apache-2.0
"""Shards: which part of a DTensor lies on which rank, and what of a step is local to it."""

import math

import torch
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor import Shard as ShardPlacement

from pion import groups as group_keys


class Shard:
    """The part of a DTensor parameter that lies on this rank; the rest is on others of `group`."""

    def __init__(self, parameter: DTensor, name: str):
        mesh, placements = parameter.device_mesh, parameter.placements
        cut = [i for i, placement in enumerate(placements) if type(placement) is ShardPlacement]
        if len(cut) > 1 or any(
            type(placement) not in (ShardPlacement, Replicate) for placement in placements
        ):
            raise ValueError(
                "pion: a DTensor must be sharded over one dimension of its mesh at most and "
                f"replicated over the others, as by fully_shard, got {name} with placements "
                f"{tuple(placements)}; tensor parallel layers must keep their own optimizer"
            )
        self.shape, self.name = tuple(parameter.shape), name
        self.dim = placements[cut[0]].dim % parameter.dim() if cut else 0
        self.group = mesh.get_group(cut[0]) if cut else None
        self.rank = mesh.get_local_rank(cut[0]) if cut else 0
        self.ranks = mesh.size(cut[0]) if cut else 1
        length = self.shape[self.dim] if self.shape else 1
        chunk = -(-length // self.ranks)  # as torch.chunk
        self.bounds = [min(length, chunk * r) for r in range(self.ranks)] + [length]
        self.device = torch.device(mesh.device_type)  # where messages travel
        if mesh.device_type == "cuda":
            self.device = torch.device("cuda", torch.cuda.current_device())
        if tuple(parameter.to_local().shape) != self.shape_on(self.rank):
            raise ValueError(
                f"pion: rank {self.rank} must hold {list(self.shape_on(self.rank))} of "
                f"{list(self.shape)} of {name}, as torch.chunk cuts it, got "
                f"{list(parameter.to_local().shape)}"
            )

    def shape_on(self, rank: int) -> tuple[int, ...]:
        if not self.shape:
            return ()
        length = self.bounds[rank + 1] - self.bounds[rank]
        return self.shape[: self.dim] + (length,) + self.shape[self.dim + 1 :]

    def entries_on(self, rank: int) -> int:
        return math.prod(self.shape_on(rank))

    def gradient(self, gradient: DTensor | None) -> torch.Tensor | None:
        """This rank's part of the gradient."""
        if gradient is None:
            return None
        local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
        if tuple(local.shape) != self.shape_on(self.rank):
            raise ValueError(
                f"step: the gradient of {self.name} must be sharded as the parameter is, "
                f"{list(self.shape_on(self.rank))} on this rank, got {list(local.shape)}"
            )
        return local


def zeros(parameter: DTensor, dtype) -> DTensor:
    local = parameter.to_local()
    return _like(parameter, torch.zeros(local.shape, dtype=dtype, device=local.device))


def copied(value, parameter, dtype, device):
    """`value`, whole or a DTensor, as `parameter` is laid out, in new memory. Where both are
    DTensors of different layouts all ranks must take part."""
    if not isinstance(parameter, DTensor):
        whole = value.full_tensor()
        return torch.empty(parameter.shape, dtype=dtype, device=device).copy_(whole)
    local = parameter.to_local()
    if isinstance(value, DTensor):
        if value.placements != parameter.placements or value.device_mesh != parameter.device_mesh:
            value = value.redistribute(parameter.device_mesh, parameter.placements)
        part = value.to_local()
    else:  # every rank has all of it and takes its own
        shard = Shard(parameter, "a parameter")
        if shard.shape:
            first = shard.bounds[shard.rank]
            part = value.narrow(shard.dim, first, shard.bounds[shard.rank + 1] - first)
        else:
            part = value
    return _like(parameter, torch.empty(local.shape, dtype=dtype, device=local.device).copy_(part))


def _like(parameter: DTensor, local: torch.Tensor) -> DTensor:
    whole = torch.empty(parameter.shape, device="meta")  # contiguous: its strides
    return DTensor.from_local(
        local,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=whole.shape,
        stride=whole.stride(),
    )


def local_group(cell) -> dict | None:
    """The keys that make the group one for this rank's part, if no block of the weight is cut
    between ranks (whole heads, whole experts, or all of it on one rank); else None."""
    shard, plan = cell.shard, cell.plan
    if not plan.rule.is_matrix or shard.ranks == 1:
        return {}
    axis, unit = _axis_of(shard, plan.fold)
    if axis == "count":
        return {}
    edges, blocks = {0}, []
    if axis is not None:
        length = cell.shape[2] if axis else cell.shape[1]
        blocks = _blocks_along(plan.layout, cell.shape, axis) or [length]
        for size in blocks:
            edges.add(max(edges) + size)
    if axis is None or not all(bound * unit in edges for bound in shard.bounds):
        whole = shard.shape[shard.dim]
        alone = all(bound in (0, whole) for bound in shard.bounds)
        return {} if alone else None
    if len(blocks) == 1:
        return {}
    first, last = (shard.bounds[shard.rank + i] * unit for i in (0, 1))
    return _layout_keys(blocks, first, last)


def _axis_of(shard: Shard, fold: str):
    """What of (count, rows, cols) the shard cuts, and how many rows or columns are one entry of
    the dimension: ("count" or 0 or 1 or None, unit). None: columns that lie apart."""
    dims = len(shard.shape)
    if dims > 2 and fold == "stack":
        return ("count", 1) if shard.dim < dims - 2 else (shard.dim - (dims - 2), 1)
    if shard.dim > 1:
        return None, 1
    return shard.dim, math.prod(shard.shape[2:]) if shard.dim == 1 else 1


def _blocks_along(layout, shape, axis: int) -> list[int]:
    """Lengths of the blocks along the axis, in order; none if heads are cut along the other."""
    blocks = layout.blocks(shape[1], shape[2])
    if layout.axis != axis:
        return [] if len(blocks) == 1 else [shape[2] if axis else shape[1]]
    return [block[2 + axis] for block in sorted(blocks, key=lambda block: block[axis])]


def _layout_keys(blocks: list[int], first: int, last: int) -> dict:
    """heads and split_sizes of the blocks within [first, last)."""
    runs, position = [], 0
    for size in blocks:
        if first <= position < last:
            if runs and runs[-1][0] == size:
                runs[-1][1] += 1
            else:
                runs.append([size, 1])
        position += size
    if not runs:  # nothing of it is here
        return {}
    if len(runs) == 1:
        return {"heads": runs[0][1], "split_sizes": None}
    return {
        "heads": [count for _, count in runs],
        "split_sizes": [size * count for size, count in runs],
    }


def local_state(state: dict) -> dict:
    """The state with this rank's part of every DTensor."""
    return {
        key: value.to_local() if isinstance(value, DTensor) else value
        for key, value in state.items()
    }


def variant(plan, group: dict, changes: dict, known: dict):
    """The group's plan with other keys; one object for equal ones. `known` holds those made."""
    key = (id(plan), repr(sorted(changes.items())))
    found = known.get(key)
    if found is None or found[0] is not plan:
        found = known[key] = (plan, group_keys.Plan(group | changes, (), "step"))
    return found[1]


def follow_rate(cell, original):
    """The learning rate is the one key that changes between steps."""
    lr = original.group["lr"]
    cell.group["lr"] = lr
    if not isinstance(lr, torch.Tensor):
        cell.plan.rule.lr = lr
