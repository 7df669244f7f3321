# SPDX-License-Identifier: Apache-2.0
"""Checks of DTensor parameters that every rank runs."""

import contextlib
import warnings

import pytest
import torch
from judges import UNIT, gaussian, parameter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor import distribute_tensor as scattered

import pion

# (shape, sharded dimension, keys): uneven and empty shards on 2 and 4 ranks among them
CASES = [
    ((24, 16), 0, {"rule": "pion"}),
    ((24, 16), 1, {"rule": "pion", "nesterov": True}),
    ((5, 7), 0, {"rule": "muon", "maximize": True}),
    ((3, 40), 0, {"rule": "muon", "scale": "unit_rms", "scale_factor": 0.1}),
    ((1, 9), 0, {"rule": "muon"}),
    ((32, 20), 0, {"rule": "muon", "heads": 4}),  # whole heads on a rank
    ((20, 32), 1, {"rule": "muon", "heads": 8, "head_axis": 1}),
    ((24, 20), 0, {"rule": "pion", "heads": 3}),  # heads cut between 2 and 4 ranks
    ((32, 12), 0, {"rule": "muon", "heads": [2, 2, 4], "split_sizes": [8, 8, 16]}),
    ((30, 12), 0, {"rule": "muon", "heads": [2, 1, 1], "split_sizes": [16, 8, 6]}),
    ((4, 10, 6), 0, {"rule": "muon", "fold": "stack"}),  # experts
    ((3, 10, 6), 1, {"rule": "muon", "fold": "stack"}),
    ((3, 10, 6), 2, {"rule": "muon", "fold": "stack"}),
    ((8, 6, 3, 3), 0, {"rule": "muon", "fold": "conv"}),
    ((8, 6, 3, 3), 1, {"rule": "muon", "fold": "conv"}),
    ((8, 6, 3, 4), 3, {"rule": "muon", "fold": "conv"}),
    ((12, 9), 0, {"rule": "low_rank_muon", "rank": 3}),
    ((33,), 0, {"rule": "adamw"}),
    ((3, 6), 1, {"rule": "adamw"}),
    ((7, 5), 0, {"rule": "sgd", "momentum": 0.9}),
    ((96, 274), 0, {"rule": "pion"}),  # more than one tile of the kernels, wide and tall
    ((274, 96), 0, {"rule": "muon", "precision": "f32"}),
]


def distribute_tensor(tensor, mesh, placements):
    """Every rank cuts its part of the same numbers; nothing travels."""
    return scattered(tensor, mesh, placements, src_data_rank=None)


class Pair:
    """The same weights twice: plain under one optimizer, DTensors under another."""

    def __init__(self, cases, mesh, dtype=torch.float32, placements=None, **keys):
        keys = {"lr": 0.05} | keys
        shapes = [shape for shape, _, _ in cases]
        self.plain = [parameter(shape, i, dtype) for i, shape in enumerate(shapes)]
        self.mesh = mesh
        self.placements = [placements or [Shard(dim)] for _, dim, _ in cases]
        self.sharded = [
            torch.nn.Parameter(distribute_tensor(p.detach().clone(), mesh, where))
            for p, where in zip(self.plain, self.placements, strict=True)
        ]
        self.optimizers = [
            pion.PionAdamW(
                [{"params": [p]} | case for p, (_, _, case) in zip(own, cases, strict=True)], **keys
            )
            for own in (self.plain, self.sharded)
        ]

    def gradients(self, step: int, dtype=None):
        for index, (p, q) in enumerate(zip(self.plain, self.sharded, strict=True)):
            if dtype is not None:
                p.grad_dtype = q.grad_dtype = dtype
            p.grad = gaussian(p.shape, 1000 * step + index).to(dtype or p.dtype)
            q.grad = distribute_tensor(p.grad.clone(), self.mesh, self.placements[index])

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def run(self, steps: int, first: int = 0):
        for step in range(first, first + steps):
            self.gradients(step)
            self.step()

    def assert_alike(self, steps: int = 0):
        """Bit for bit; after `steps` with weight decay to rounding: there the kernels may round
        (1 - lr wd) W - lr s O once, a rank (1 - lr wd) W and the difference. That is half an ulp
        of |W| and at most one more of the result a step."""
        for index, (p, q) in enumerate(zip(self.plain, self.sharded, strict=True)):
            whole = q.detach().full_tensor()
            if steps == 0:
                assert torch.equal(p, whole), index
                continue
            atol = 3 * steps * UNIT * float(p.detach().abs().max())
            torch.testing.assert_close(whole, p.detach(), rtol=0, atol=atol)

    def assert_same_state(self):
        for p, q in zip(self.plain, self.sharded, strict=True):
            own, others = self.optimizers[0].state[p], self.optimizers[1].state[q]
            assert own.keys() == others.keys()
            assert own["step"] == others["step"]
            for key in ("momentum_buffer", "exp_avg", "exp_avg_sq", "master"):
                if key in own:
                    assert others[key].placements == q.placements
                    assert torch.equal(own[key], others[key].full_tensor()), key


# stacks: whole experts on a rank, and cut along rows and columns
EXPERTS = [
    ((4, 10, 6), 0, {"rule": "muon", "fold": "stack"}),
    ((3, 10, 6), 1, {"rule": "muon", "nesterov": True, "fold": "stack"}),
    ((3, 10, 6), 2, {"rule": "pion", "heads": 2, "fold": "stack"}),
    ((2, 2, 10, 6), 2, {"rule": "muon", "fold": "stack"}),
]


def check_experts_without_gradient(rank, ranks, folder):
    pair = Pair(EXPERTS, mesh_of(ranks), weight_decay=0.5)
    for optimizer in pair.optimizers:
        optimizer.collect_statistics()
    steps = 3
    for step in range(steps):
        pair.gradients(step)
        for index, (p, q) in enumerate(zip(pair.plain, pair.sharded, strict=True)):
            if step:  # the second expert had no tokens
                before = p.detach().clone()
                p.grad[1] = 0.0
                q.grad = distribute_tensor(p.grad.clone(), pair.mesh, pair.placements[index])
        pair.step()
    pair.assert_alike(steps)
    assert torch.equal(pair.plain[-1][1], before[1])  # no decay either
    for one, other in zip(*(o.statistics() for o in pair.optimizers), strict=True):
        assert one["idle"] == other["idle"] > 0, (one["name"], other["idle"])
        idle = [[m["idle"] for m in each["matrices"]] for each in (one, other)]
        assert idle[0] == idle[1]
        assert other["directions_passed"] == pytest.approx(one["directions_passed"], rel=1e-4)
    for p, q in zip(pair.plain, pair.sharded, strict=True):
        own, others = pair.optimizers[0].state[p], pair.optimizers[1].state[q]
        assert torch.equal(own["momentum_buffer"], others["momentum_buffer"].full_tensor())


def check_a_spoiled_momentum_is_refused_on_all_ranks(rank, ranks, folder):
    pair = Pair([((8, 6), 0, {"rule": "muon"}), ((24, 16), 1, {"rule": "pion"})], mesh_of(ranks),
                nonfinite="zero")  # fmt: skip
    pair.run(1)
    weights = [q.detach().to_local().clone() for q in pair.sharded]
    spoiled = pair.optimizers[1].state[pair.sharded[1]]
    whole = spoiled["momentum_buffer"].full_tensor().clone()
    whole[0, 0] = float("nan")
    spoiled["momentum_buffer"] = distribute_tensor(whole, pair.mesh, pair.placements[1])
    pair.gradients(1)
    with pytest.raises((ValueError, RuntimeError), match="nothing was written"):
        pair.optimizers[1].step()
    for q, before in zip(pair.sharded, weights, strict=True):
        assert torch.equal(q.to_local(), before)


def mesh_of(ranks: int):
    return init_device_mesh("cpu", (ranks,))


def check_every_sharding_gives_the_whole_matrix_result(rank, ranks, folder):
    pair = Pair(CASES, mesh_of(ranks))
    pair.assert_alike()
    pair.run(4)
    pair.assert_alike()
    pair.assert_same_state()
    pair = Pair(CASES, mesh_of(ranks), weight_decay=0.3)
    pair.run(4)
    pair.assert_alike(steps=4)


def check_types(rank, ranks, folder):
    for dtype in (torch.float64, torch.bfloat16):
        pair = Pair(CASES, mesh_of(ranks), dtype)
        pair.run(3)
        pair.assert_alike()
        pair.assert_same_state()
    pair = Pair(CASES, mesh_of(ranks), torch.float32)
    for step in range(2):
        pair.gradients(step, torch.bfloat16)
        pair.step()
    pair.assert_alike()
    for rounding in ("nearest", "stochastic"):
        pair = Pair(CASES, mesh_of(ranks), torch.bfloat16, low_precision=rounding)
        pair.run(2)
        if rounding == "nearest":
            pair.assert_alike()
            continue
        for p, q in zip(pair.plain, pair.sharded, strict=True):
            # other random numbers: an ulp of bf16 a step, 2^-7 of the weight
            atol = 2 * 2 * 2**-7 * float(p.detach().abs().max())
            torch.testing.assert_close(q.detach().full_tensor(), p.detach(), rtol=0, atol=atol)


@contextlib.contextmanager
def no_exchange():
    from pion import distributed_gather

    before = distributed_gather.AllToAll
    distributed_gather.AllToAll = None  # calling it raises TypeError
    try:
        yield
    finally:
        distributed_gather.AllToAll = before


def check_whole_heads_and_experts_stay_where_they_are(rank, ranks, folder):
    local = [CASES[i] for i in (5, 6, 10, 17, 18, 19)]
    with no_exchange():
        pair = Pair(local, mesh_of(ranks), weight_decay=0.3)
        pair.run(3)
        pair.assert_alike()  # the same kernels on the same heads: bit for bit with decay too
        pair = Pair([((1, 9), 0, {"rule": "muon"})], mesh_of(ranks))
        pair.run(1)
        if ranks > 1:
            with pytest.raises(TypeError):
                Pair([CASES[0]], mesh_of(ranks)).run(1)


def check_torch_operations(rank, ranks, folder):
    with pion.force_torch_path():
        pair = Pair(CASES, mesh_of(ranks), torch.float64, weight_decay=0.3)
        pair.run(3)
    for p, q in zip(pair.plain, pair.sharded, strict=True):
        # products of other batches: f64 rounding, grown by at most 3.4445^5 a step
        torch.testing.assert_close(q.detach().full_tensor(), p.detach(), rtol=0, atol=1e-11)


def check_missing_gradients(rank, ranks, folder):
    pair = Pair(CASES, mesh_of(ranks))
    pair.run(1)
    for step in (1, 2, 3):
        pair.gradients(step)
        for index, (p, q) in enumerate(zip(pair.plain, pair.sharded, strict=True)):
            if (index + step) % 3 == 0:  # on all ranks
                p.grad = q.grad = None
            elif (index + step) % 3 == 1:  # on the last rank: its part counts as zeros
                local = q.grad.to_local()
                if rank == ranks - 1:
                    local.zero_()
                p.grad = q.grad.full_tensor()
                if rank == ranks - 1 and ranks > 1:
                    q.grad = None
        pair.step()
    pair.assert_alike()
    pair.assert_same_state()


def check_errors_of_one_rank_reach_all(rank, ranks, folder):
    pair = Pair([CASES[0], CASES[2], CASES[17]], mesh_of(ranks))
    pair.run(1)
    pair.gradients(1)
    other = pair.sharded[1].grad
    if rank == ranks - 1:
        del pair.sharded[1].grad
        pair.sharded[1].grad = distribute_tensor(torch.ones(5, 7), pair.mesh, [Shard(1)])
    if ranks == 1:
        return
    with pytest.raises(ValueError if rank == ranks - 1 else RuntimeError):
        pair.optimizers[1].step()
    pair.assert_alike()
    pair.sharded[1].grad = other
    pair.step()
    pair.assert_alike()


def check_nonfinite_gradients(rank, ranks, folder):
    for policy in ("skip", "zero", "raise"):
        pair = Pair(CASES, mesh_of(ranks), nonfinite=policy)
        pair.run(1)
        pair.gradients(1)
        for index in (0, 1, 5, 8, 17, 19):  # on one rank
            p, q = pair.plain[index], pair.sharded[index]
            p.grad.view(-1)[-1] = torch.inf
            q.grad = distribute_tensor(p.grad.clone(), pair.mesh, pair.placements[index])
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if policy == "raise":
                for optimizer in pair.optimizers:
                    with pytest.raises(ValueError, match="finite"):
                        optimizer.step()
            else:
                pair.step()
        if policy == "skip":
            assert sum("groups.5." in str(w.message) for w in said) == 2  # plain and sharded
        pair.assert_alike()
        pair.run(1, first=2)
        pair.assert_alike()
        pair.assert_same_state()


def assert_same_figures(own: dict, expected: dict):
    for key, value in own.items():
        if isinstance(value, float):  # sums of f32 squares in another order
            assert value == pytest.approx(expected[key], rel=1e-5), (own, key)
        elif key != "matrices":
            assert value == expected[key], (own, key)


def check_statistics(rank, ranks, folder):
    pair = Pair(CASES, mesh_of(ranks), weight_decay=0.1)
    for optimizer in pair.optimizers:
        optimizer.collect_statistics()
    pair.gradients(0)
    pair.plain[3].grad[0, 0] = torch.nan
    pair.sharded[3].grad = distribute_tensor(pair.plain[3].grad, pair.mesh, [Shard(0)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair.step()
    plain, sharded = (optimizer.statistics() for optimizer in pair.optimizers)
    assert [s["name"] for s in sharded] == [s["name"] for s in plain]
    for own, expected in zip(sharded, plain, strict=True):
        assert_same_figures(own, expected)
        rows = zip(own.get("matrices", []), expected.get("matrices", []), strict=True)
        for one, other in rows:
            assert_same_figures(one, other)
        assert expected["skipped"] or {"gradient_norm", "update_rms", "lr"} <= own.keys()


def check_other_placements(rank, ranks, folder):
    mesh = mesh_of(ranks)
    pair = Pair(CASES, mesh, placements=[Replicate()])
    pair.run(2)
    pair.assert_alike()
    partial = torch.nn.Parameter(DTensor.from_local(torch.ones(4, 4), mesh, [Partial()]))
    with pytest.raises(ValueError, match="Partial"):
        pion.Muon([partial])
    if ranks != 4:
        return
    square = init_device_mesh("cpu", (2, 2))
    for dim in (0, 1):
        cases = [case for case in CASES if len(case[0]) > dim]
        pair = Pair(cases, square, placements=[Replicate(), Shard(dim)])  # HSDP
        pair.run(2)
        pair.assert_alike()
    both = torch.nn.Parameter(distribute_tensor(torch.ones(4, 4), square, [Shard(0), Shard(1)]))
    with pytest.raises(ValueError, match="one dimension"):
        pion.Muon([both])


def check_rates_and_keys_that_change(rank, ranks, folder):
    pair = Pair(CASES, mesh_of(ranks), lr=torch.tensor(0.05))
    pair.run(1)
    for step, changes in enumerate(
        [{"lr": 0.02}, {"momentum": 0.5}, {"lr": torch.tensor(0.01)}], 1
    ):
        for optimizer in pair.optimizers:
            for group in optimizer.param_groups:
                group.update({key: value for key, value in changes.items() if key in group})
        pair.run(1, first=step)
        pair.assert_alike()


def check_rounds(rank, ranks, folder):
    from pion import distributed_exchange

    before, distributed_exchange.BUCKET = distributed_exchange.BUCKET, 150
    try:
        pair = Pair(CASES, mesh_of(ranks))
        pair.run(3)
        pair.assert_alike()
    finally:
        distributed_exchange.BUCKET = before


def check_offloading_is_refused(rank, ranks, folder):
    pair = Pair([CASES[0]], mesh_of(ranks))
    pion.offload(pair.optimizers[1])
    pair.gradients(0)
    with pytest.raises(ValueError, match="CPUOffloadPolicy"):
        pair.optimizers[1].step()
