# SPDX-License-Identifier: Apache-2.0
"""Replicas: every rank has all parameters and all gradients; each steps the parameters that it
owns and sends them to the others."""

import torch
import torch.distributed as dist

from pion import distributed_plan
from pion.distributed_exchange import Broadcast, agree, agree_to_step, buckets
from pion.state import buffers_of, needs_master


class Replicas:
    """Owners of an optimizer's parameters, which have their state, on the ranks of `group`."""

    def __init__(self, group):
        self.group = group
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)
        self._owners = {}  # by parameter
        self._loads = [0.0] * self.ranks  # seconds
        self._part = False  # of the state is not here

    def owner(self, cell) -> int:
        return self._owners[cell.parameter]

    def assign(self, cells: list):
        """Gives parameters without owner one; the same on all ranks for the same calls. An owner
        stays, and the state with it."""
        new = [cell for cell in cells if cell.parameter not in self._owners]
        costs = [distributed_plan.cost(cell) for cell in new]
        chosen = distributed_plan.owners(costs, self.ranks, self._loads)
        for cell, seconds, rank in zip(new, costs, chosen, strict=True):
            self._owners[cell.parameter] = rank
            self._loads[rank] += seconds

    def agree(self, optimizer, work: list, met: list):
        """An error if a rank has met one, or if not all have the same gradients; else None."""
        cells = _plain_cells(optimizer)
        if not cells:
            return None
        present = {cell for cell, _, _ in work}
        flags = [int(cell in present) for cell in cells]
        flags += [int(cell not in present) for cell in cells]
        device = cells[0].parameter.device
        flags, error = agree_to_step(self.group, optimizer, met, flags, device)
        for index, cell in enumerate(cells):
            if error is None and flags[index] and flags[len(cells) + index]:
                error = ValueError(
                    f"step: {cell.name} must have a gradient on all ranks or on none, got one on "
                    "some: gradients of a distributed optimizer must be averaged, as "
                    "DistributedDataParallel does (find_unused_parameters=True if parts of the "
                    "model are left out). Nothing was written"
                )
        return error

    def step(self, optimizer, work: list) -> list[str]:
        """Steps this rank's parameters and takes the others' results."""
        self.assign([cell for cell, _, _ in work])
        messages, sending = [], []
        for bucket in buckets(work, lambda item: item[0].numel):
            mine = [item for item in bucket if self.owner(item[0]) == self.rank]
            if mine:
                messages += optimizer.step_items(mine)
            sending.append(
                Broadcast(
                    [cell.parameter for cell, _, _ in bucket],
                    [self.owner(cell) for cell, _, _ in bucket],
                    self.group,
                    bucket[0][0].parameter.device,
                )
            )
            if len(sending) > 1:  # one travels while the next is computed
                sending.pop(0).finish()
        for last in sending:
            last.finish()
        self.drop(optimizer)
        return messages

    def drop(self, optimizer):
        """Forgets the state of what others own."""
        for parameter, owner in self._owners.items():
            if owner != self.rank and parameter in optimizer.state:
                del optimizer.state[parameter]
        self._part = self.ranks > 1

    def gather(self, optimizer, rank: int | None):
        """The whole state on that rank, or on all; until the next step. What has none yet gets it,
        so that a distributed checkpoint can be read into it before the first step."""
        cells = [
            cell
            for cell in _plain_cells(optimizer)
            if cell.numel and (cell.parameter.requires_grad or cell.parameter in self._owners)
        ]
        self.assign(cells)
        parts, mine = self._part, rank in (None, self.rank)
        for bucket in buckets(cells, lambda cell: cell.numel):
            if parts or mine:
                for cell in bucket:
                    optimizer._fill(cell, optimizer.state[cell.parameter])
            if parts:
                fields = [(cell, key) for cell in bucket for key in self._fields(optimizer, cell)]
                Broadcast(
                    [optimizer.state[cell.parameter][key] for cell, key in fields],
                    [self.owner(cell) for cell, _ in fields],
                    self.group,
                    bucket[0].parameter.device,
                ).finish()
                if not mine:
                    self.drop(optimizer)
        self._part = parts and not mine

    def _fields(self, optimizer, cell) -> list[str]:
        fields = [*buffers_of(cell.plan.rule, cell.group), "step", "counters"]
        if optimizer.host is not None or needs_master(cell.parameter, cell.group):
            fields.append("master")
        return fields

    def loaded(self):
        """All of the state has been put into this rank's optimizer."""
        self._part = False

    def check_whole(self, where: str):
        if self._part:
            raise ValueError(
                f"{where}: this rank must have the whole state, got the part that it steps; call "
                "pion.gather_state(optimizer) on every rank first"
            )


def _plain_cells(optimizer) -> list:
    return [cell for _, cell in optimizer.named_cells() if cell.shard is None]


def check_group(group) -> bool:
    """Whether there are other processes; raises if there should be and they are not known."""
    import os

    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size(group) > 1
    asked = os.environ.get("WORLD_SIZE", "1")
    if asked != "1":
        raise ValueError(
            f"distribute: torch.distributed must be initialized where WORLD_SIZE is {asked}; call "
            "torch.distributed.init_process_group() first"
        )
    return False


def parameters_alike(optimizer, group) -> bool:
    """Whether all ranks have parameters of the same shapes and types, in the same order."""
    import hashlib

    told = repr([(tuple(c.parameter.shape), str(c.dtype), c.plan.rule.name, c.shard is None)
                 for _, c in optimizer.named_cells()])  # fmt: skip
    number = int.from_bytes(hashlib.sha256(told.encode()).digest()[:3], "big")
    cells = _plain_cells(optimizer)
    device = cells[0].parameter.device if cells else torch.device("cpu")
    largest, least = agree(group, [number, -number], device)
    return largest == -least
