# SPDX-License-Identifier: Apache-2.0
"""Steps matrices that are cut between ranks: every rank averages its part of the momentum, one rank
maps the whole look-ahead, and each gets its part of the update back. Momentum stays where the
weight is.

Two messages a round of matrices to every other rank, each of as many entries as the weights have.
A shard of the long side (n of m x n, m <= n) needs less: the sum of the ranks' m x m Gram matrices
is all that Gram-space maps ask for. That path would branch off in step(), where a member's shard is
along its long side, and needs the map's polynomial of a given Gram matrix from the kernels.
"""

import math

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
        directions = look_ahead(self.items)
        mine = [self.items[k][0].shard for k in self.of[self.rank]]
        self.moving = self._exchange(
            [[directions[k] for k in owned] for owned in self.of],
            [[shard.entries_on(r) for shard in mine] for r in range(self.ranks)],
        )

    def compute(self) -> list[str]:
        """Maps the whole matrices of this rank; updates start on their way back."""
        owned = self.of[self.rank]
        shards = [self.items[k][0].shard for k in owned]
        wholes = self._joined(self.moving.finish(), shards)
        weights = _split(torch.zeros(sum(w.numel() for w in wholes), dtype=self.dtype,
                                     device=self.home), wholes)  # fmt: skip
        steps = torch.zeros(len(owned), dtype=torch.float32, device=self.home).unbind(0)
        work = []
        for k, whole, weight, step_ in zip(owned, wholes, weights, steps, strict=True):
            cell, _, state, _ = self.items[k]
            # its own momentum: 0 M + 1 D = D, entry by entry
            own = {"momentum_buffer": whole, "step": step_, "counters": state["counters"].clone()}
            work.append((_whole_cell(self.optimizer, cell, weight), whole, own))
        messages = self.optimizer.step_items(work)
        for (_, _, own), k in zip(work, owned, strict=True):
            self.items[k][2]["counters"][:3] = own["counters"][:3]
        sent = [
            [u.narrow(s.dim, s.bounds[r], s.bounds[r + 1] - s.bounds[r])
             for u, s in zip(weights, shards, strict=True)]
            for r in range(self.ranks)
        ]  # fmt: skip
        arriving = [
            [self.items[k][0].shard.entries_on(self.rank) for k in others] for others in self.of
        ]
        self.moving = self._exchange(sent, arriving)
        for cell, _, _ in work:
            cell.parameter = None  # the update is on its way
        return messages

    def _joined(self, parts: list, shards: list) -> list:
        """Whole look-aheads from the ranks' parts: those cut along rows in one copy."""
        sizes = [math.prod(shard.shape) for shard in shards]
        flat = torch.empty(sum(sizes), dtype=self.dtype, device=self.home)
        wholes = [x.view(s.shape) for x, s in zip(flat.split(sizes), shards, strict=True)]
        targets, sources = [], []
        for index, (whole, shard) in enumerate(zip(wholes, shards, strict=True)):
            pieces = [parts[r][index].view(shard.shape_on(r)) for r in range(self.ranks)]
            if shard.dim == 0:
                sources += pieces
                targets += whole.split([len(piece) for piece in pieces])
            else:
                torch.cat(pieces, shard.dim, out=whole)
        if targets:
            torch._foreach_copy_(targets, sources)
        return wholes

    def end(self):
        """Moves the weights by the updates that have come back."""
        parts, moves = self.moving.finish(), []
        for owned, pieces in zip(self.of, parts, strict=True):
            for k, update in zip(owned, pieces, strict=True):
                cell, _, state, active = self.items[k]
                moves.append((cell, state, update.view(cell.shard.shape_on(self.rank)), active))
                state["counters"][3] += 1
        move(moves)
        torch._foreach_add_([state["step"] for _, state, _, _ in moves], 1)
        self.moving = None


def _split(flat, like: list) -> list:
    return [x.view(w.shape) for x, w in zip(flat.split([w.numel() for w in like]), like,
                                            strict=True)]  # fmt: skip


def look_ahead(items: list) -> list:
    """M <- mu M + (1 - mu) G of (cell, gradient, state, active); returns every D, zeros where a
    matrix of a stack is left alone. Roundings are the kernels': a product each, and a sum."""
    directions, alike = [None] * len(items), {}
    for index, (cell, _, _, active) in enumerate(items):
        keys = (cell.group["momentum"], cell.group["maximize"], cell.group["nesterov"])
        alike.setdefault((*keys, active is None), []).append(index)
    for (mu, maximize, nesterov, together), indices in alike.items():
        momenta = [items[i][2]["momentum_buffer"] for i in indices]
        factor = mu - 1.0 if maximize else 1.0 - mu
        shares = torch._foreach_mul(_clean(items, indices, momenta[0].dtype), factor)
        own = momenta
        if together:
            torch._foreach_mul_(momenta, mu)
            torch._foreach_add_(momenta, shares)
        else:
            masks = [items[i][3] for i in indices]
            for momentum, share, mask in zip(momenta, shares, masks, strict=True):
                momentum.copy_(torch.where(mask, momentum * mu + share, momentum))
        if nesterov:
            own = torch._foreach_mul(momenta, mu)
            torch._foreach_add_(own, shares)
        if not together:
            own = [torch.where(mask, d, 0.0) for mask, d in zip(masks, own, strict=True)]
        for index, direction in zip(indices, own, strict=True):
            directions[index] = direction
    return directions


def _clean(items: list, indices: list, dtype) -> list:
    """Gradients in the momentum's type, without NaN and Inf under nonfinite "zero"."""
    gradients = [items[i][1] for i in indices]
    if any(gradient.dtype != dtype for gradient in gradients):
        wide = [torch.empty_like(g, dtype=dtype) for g in gradients]
        torch._foreach_copy_(wide, gradients)
        gradients = wide
    for position, index in enumerate(indices):
        if items[index][0].group["nonfinite"] == "zero":
            gradients[position] = torch.nan_to_num(gradients[position], 0.0, 0.0, 0.0)
    return gradients


def move(items: list):
    """W <- (1 - lr weight_decay) W + update of (cell, state, update, active), on this rank's parts."""
    weights = [cell.parameter.to_local() for cell, _, _, _ in items]
    wide = _wide([(cell, state) for cell, state, _, _ in items], weights)
    alike, alone = {}, {}
    for index, (cell, _, _, active) in enumerate(items):
        alike.setdefault((id(cell.group), wide[index].dtype), []).append(index)
        if active is not None:
            alone[index] = active
    for indices in alike.values():
        decay = _decay(items[indices[0]][0].group, wide[indices[0]].dtype)
        decayed = [wide[i] for i in indices if i not in alone]
        if decay is not None and decayed:
            torch._foreach_mul_(decayed, decay)
        for i in indices:
            if decay is not None and i in alone:  # matrices that are left alone do not decay
                kept = torch.ones_like(alone[i], dtype=wide[i].dtype)
                wide[i].mul_(kept.masked_fill_(alone[i], decay))
        torch._foreach_add_([wide[i] for i in indices], [items[i][2] for i in indices])
    _narrow(items, weights, wide)


def _decay(group: dict, dtype):
    """1 - lr weight_decay, None if there is none; a tensor on the rate's device where reading the
    rate would wait for it."""
    lr, decay = group["lr"], group["weight_decay"]
    if decay == 0.0:
        return None
    if isinstance(lr, torch.Tensor) and lr.device.type != "cpu":
        return 1.0 - lr.detach().reshape(()).to(dtype) * decay
    return 1.0 - float(lr) * decay


def _wide(items: list, weights: list) -> list:
    """What is moved: the weights; of bf16 ones their masters, or copies in f32."""
    wide, masters, copies = list(weights), [], []
    for index, (cell, state) in enumerate(items):
        if cell.dtype != torch.bfloat16:
            continue
        if "master" in state:
            wide[index] = state["master"]
            masters.append(index)
        else:
            wide[index] = torch.empty_like(weights[index], dtype=torch.float32)
            copies.append(index)
    if copies:
        torch._foreach_copy_([wide[i] for i in copies], [weights[i] for i in copies])
    if masters:
        # where somebody else has written the weight since, the weight counts
        own = [wide[i] for i in masters]
        master = torch.cat([x.reshape(-1) for x in own])
        weight = torch.cat([weights[i].reshape(-1) for i in masters])
        torch.where(master.bfloat16() == weight, master, weight.float(), out=master)
        torch._foreach_copy_(own, _split(master, own))
    return wide


def _narrow(items: list, weights: list, wide: list):
    """Rounds what was moved to the weights."""
    nearest = []
    for index, (cell, state, _, _) in enumerate(items):
        if wide[index] is weights[index]:
            continue
        if cell.plan.low_precision == "stochastic":
            ordinal = cell.ordinal + (cell.shard.rank << 32)
            seed = rounding_seed(cell.plan.seed, ordinal, int(state["counters"][3]) - 1)
            weights[index].copy_(rounded_stochastically(wide[index], seed))
        else:
            nearest.append(index)
    if nearest:
        torch._foreach_copy_([weights[i] for i in nearest], [wide[i] for i in nearest])


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
