# SPDX-License-Identifier: Apache-2.0
"""Replicas: every rank has all parameters and all gradients; each steps the parameters that it
owns and sends them to the others."""

import torch
import torch.distributed as dist

from pion import distributed_plan
from pion import state as states
from pion.distributed_exchange import (
    Broadcast,
    Sharing,
    agree,
    agree_to_step,
    buckets,
    message_device,
)

_GATHERED = 1 << 22  # entries of state that travel at a time, if no buffer has more: 16 MiB of f32


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
        flags, _, error = agree_to_step(self.group, optimizer, met, flags, device)
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
        messages, alike = [], {}
        for item in work:
            parameter = item[0].parameter
            alike.setdefault((parameter.dtype, parameter.device), []).append(item)
        for (_, device), items in alike.items():
            lists = [[] for _ in range(self.ranks)]
            for item in items:
                lists[self.owner(item[0])].append(item)
            parameters = [[item[0].parameter for item in own] for own in lists]
            sharing = Sharing(parameters, self.group, message_device(self.group, device))
            mine, done = lists[self.rank], 0
            for index in range(len(sharing.rounds)):
                needed = max(done, sharing.needed(index))
                if mine[done:needed]:  # while the round before travels
                    messages += optimizer.step_items(mine[done:needed])
                done = needed
                sharing.send(index)
            sharing.finish()
        self.drop(optimizer)
        return messages

    def drop(self, optimizer):
        """Forgets the state of what others own."""
        for parameter, owner in self._owners.items():
            if owner != self.rank and parameter in optimizer.state:
                del optimizer.state[parameter]
        self._part = self.ranks > 1

    def gather(self, optimizer, rank: int | None):
        """The whole state on that rank, in host memory where others own it, or on all, each on its
        parameter's device; until the next step. A few buffers travel at a time, or one large one.
        What has none yet gets it, so that a distributed checkpoint can be read into it before the
        first step."""
        cells = [
            cell
            for cell in _plain_cells(optimizer)
            if cell.numel and (cell.parameter.requires_grad or cell.parameter in self._owners)
        ]
        self.assign(cells)
        parts, mine = self._part, rank in (None, self.rank)
        fields = []
        for cell in cells:
            own = self.owner(cell) == self.rank
            if own or (mine and (rank is None or not parts)):
                optimizer._fill(cell, optimizer.state[cell.parameter])
            elif mine:
                self._make(optimizer, cell, optimizer.state[cell.parameter], "cpu")
            held = optimizer.state[cell.parameter] if own or mine else {}
            if not held:
                self._make(optimizer, cell, held, "meta")
            fields += [(cell, held[key]) for key in self._fields(optimizer, cell)]
        if parts:
            for bucket in buckets(fields, lambda field: field[1].numel(), _GATHERED):
                Broadcast(
                    [tensor for _, tensor in bucket],
                    [self.owner(cell) for cell, _ in bucket],
                    self.group,
                    message_device(self.group, bucket[0][0].parameter.device),
                ).finish()
        self._part = parts and not mine
        if self._part:
            self.drop(optimizer)

    def _fields(self, optimizer, cell) -> list[str]:
        fields = [*states.buffers_of(cell.plan.rule, cell.group), "step", "counters"]
        if optimizer.host is not None or states.needs_master(cell.parameter, cell.group):
            fields.append("master")
        return fields

    def _make(self, optimizer, cell, state: dict, device: str):
        """State of a parameter that another rank owns, to be written, or of its shapes alone."""
        parameter, fields = cell.parameter.detach(), self._fields(optimizer, cell)
        if device == "meta":
            parameter = parameter.to("meta")
        buffers = states.buffers_of(cell.plan.rule, cell.group)
        states.fill(state, parameter, buffers, "master" in fields, device)
        if device == "meta":
            state["counters"] = state["counters"].to("meta")

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
    (largest, least), _ = agree(group, [number, -number], device)
    return largest == -least
