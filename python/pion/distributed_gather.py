# SPDX-License-Identifier: Apache-2.0
"""Steps matrices that are cut between ranks: every rank averages its part of the momentum, one rank
maps the whole look-ahead, and each gets its part of the update back. Momentum stays where the
weight is.

Two messages a round of matrices to every other rank, each of as many entries as the weights have.
A shard of the long side (n of m x n, m <= n) needs less: the sum of the ranks' m x m Gram matrices
is all that Gram-space maps ask for. That path would branch off in step(), where a member's shard is
along its long side, and needs the map's polynomial of a given Gram matrix from the kernels.
"""

import torch

from pion import distributed_plan, distributed_shards
from pion._pion import rounding_seed
from pion.cell import Cell
from pion.distributed_exchange import AllToAll, buckets
from pion.stochastic_rounding import rounded_stochastically

# A step of these keys on zeros, of the look-ahead as gradient, leaves -lr s O as the weight.
_MAP_ONLY = {
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "maximize": False,
    "nonfinite": "skip",
}


def step(optimizer, members: list) -> list[str]:
    """Steps (cell, this rank's gradient, its state, active), the same list of cells on all ranks.
    `active` is None, or of a stack true for every matrix that has a gradient: (..., 1, 1)."""
    rounds = []
    for dtype in (torch.float32, torch.float64):
        alike = [item for item in members if item[2]["momentum_buffer"].dtype == dtype]
        for bucket in buckets(alike, lambda item: item[0].numel // item[0].shard.ranks + 1):
            rounds.append(_Round(optimizer, bucket, dtype))
    messages = []
    rounds[0].send()
    for index, one in enumerate(rounds):
        if index + 1 < len(rounds):
            rounds[index + 1].send()  # travels while this one is computed
        messages += one.compute()
        if index:
            rounds[index - 1].end()
    rounds[-1].end()
    return messages


class _Round:
    """Matrices whose look-aheads and updates travel together."""

    def __init__(self, optimizer, items: list, dtype):
        self.optimizer, self.items, self.dtype = optimizer, items, dtype
        shard = items[0][0].shard
        self.group, self.rank, self.ranks, self.device = (
            *(shard.group, shard.rank, shard.ranks),
            shard.device,
        )
        self.home = items[0][0].parameter.to_local().device
        owners = distributed_plan.owners([distributed_plan.cost(i[0]) for i in items], self.ranks)
        self.of = [[k for k in range(len(items)) if owners[k] == r] for r in range(self.ranks)]

    def _exchange(self, sent: list, arriving: list) -> AllToAll:
        return AllToAll(sent, arriving, self.group, self.dtype, self.device, self.home)

    def send(self):
        """Moves the momentum; look-aheads go to their owners."""
        directions = [look_ahead(*item) for item in self.items]
        mine = [self.items[k][0].shard for k in self.of[self.rank]]
        self.moving = self._exchange(
            [[directions[k] for k in owned] for owned in self.of],
            [[shard.entries_on(r) for shard in mine] for r in range(self.ranks)],
        )

    def compute(self) -> list[str]:
        """Maps the whole matrices of this rank; updates start on their way back."""
        parts, work = self.moving.finish(), []
        for index, k in enumerate(self.of[self.rank]):
            cell, _, state, _ = self.items[k]
            shard = cell.shard
            pieces = [parts[r][index].view(shard.shape_on(r)) for r in range(self.ranks)]
            whole = torch.cat(pieces, dim=shard.dim)
            # its own momentum: 0 M + 1 D = D, entry by entry
            own = {
                "momentum_buffer": whole,
                "step": torch.zeros((), dtype=torch.float32, device=whole.device),
                "counters": state["counters"].clone(),
            }
            work.append((_whole_cell(self.optimizer, cell, torch.zeros_like(whole)), whole, own))
        messages = self.optimizer.step_items(work)
        for (_, _, own), k in zip(work, self.of[self.rank], strict=True):
            self.items[k][2]["counters"][:3] = own["counters"][:3]
        updates = [(cell.parameter, self.items[k][0].shard) for (cell, _, _), k in
                   zip(work, self.of[self.rank], strict=True)]  # fmt: skip
        sent = [
            [u.narrow(s.dim, s.bounds[r], s.bounds[r + 1] - s.bounds[r]) for u, s in updates]
            for r in range(self.ranks)
        ]
        arriving = [
            [self.items[k][0].shard.entries_on(self.rank) for k in owned] for owned in self.of
        ]
        self.moving = self._exchange(sent, arriving)
        for cell, _, _ in work:
            cell.parameter = None  # the update is on its way
        return messages

    def end(self):
        """Moves the weights by the updates that have come back."""
        parts = self.moving.finish()
        for owned, pieces in zip(self.of, parts, strict=True):
            for k, update in zip(owned, pieces, strict=True):
                cell, _, state, active = self.items[k]
                move(cell, state, update.view(cell.shard.shape_on(self.rank)), active)
                state["step"] += 1
                state["counters"][3] += 1
        self.moving = None


def look_ahead(cell, gradient, state: dict, active):
    """M <- mu M + (1 - mu) G; returns D, zeros where a matrix of a stack is left alone. Roundings
    are the kernels': a product each, and a sum."""
    group, momentum = cell.group, state["momentum_buffer"]
    gradient = gradient.to(momentum.dtype)
    if group["nonfinite"] == "zero":
        gradient = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
    mu = group["momentum"]
    share = gradient * (mu - 1.0 if group["maximize"] else 1.0 - mu)
    if active is None:
        momentum.mul_(mu).add_(share)
        return momentum * mu + share if group["nesterov"] else momentum
    momentum.copy_(torch.where(active, momentum * mu + share, momentum))
    direction = momentum * mu + share if group["nesterov"] else momentum
    return torch.where(active, direction, 0.0)


def move(cell, state: dict, update, active):
    """W <- (1 - lr weight_decay) W + update, on this rank's part."""
    weight, group = cell.parameter.to_local(), cell.group
    wide = weight
    if "master" in state and cell.dtype == torch.bfloat16:
        # where somebody else has written the weight since, the weight counts
        wide = state["master"]
        wide.copy_(torch.where(wide.bfloat16() == weight, wide, weight.float()))
    elif cell.dtype == torch.bfloat16:
        wide = weight.float()
    decay = 1.0 - float(group["lr"]) * group["weight_decay"]
    if decay != 1.0 and active is not None:  # matrices that are left alone do not decay
        wide.mul_(torch.ones_like(active, dtype=wide.dtype).masked_fill_(active, decay))
    elif decay != 1.0:
        wide.mul_(decay)
    wide.add_(update)
    if wide is weight:
        return
    if cell.plan.low_precision == "stochastic":
        ordinal = cell.ordinal + (cell.shard.rank << 32)
        seed = rounding_seed(cell.plan.seed, ordinal, int(state["counters"][3]))
        weight.copy_(rounded_stochastically(wide, seed))
    else:
        weight.copy_(wide)


def _whole_cell(optimizer, cell, weight) -> Cell:
    """A cell of the whole matrix whose step is the map alone."""
    found = cell.shard_cells.get("whole")
    if found is None:
        plan = distributed_shards.variant(cell.plan, cell.group, _MAP_ONLY, optimizer._variants)
        found = Cell(weight, cell.group | _MAP_ONLY, plan, cell.name, cell.ordinal)
        cell.shard_cells["whole"] = found
    found.parameter = weight
    distributed_shards.follow_rate(found, cell)
    return found
