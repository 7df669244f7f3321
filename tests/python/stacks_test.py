# SPDX-License-Identifier: Apache-2.0
"""Stacks of matrices, as of experts: one without a gradient is left alone, and is named."""

import warnings

import pytest
import torch
from judges import gaussian, parameter

import pion

RULES = [
    {"rule": "muon"},
    {"rule": "muon", "precision": "f32"},
    {"rule": "pion", "nesterov": True},
    {"rule": "low_rank_muon", "rank": 2},
]


def gradients(step: int, shape=(3, 10, 6)):
    """No token went to the second expert after the first step."""
    g = gaussian(shape, 50 + step)
    if step:
        g[1] = 0.0
    return g


def stepped(optimizer, weight, steps: int = 4):
    for step in range(steps):
        weight.grad = gradients(step, weight.shape).to(weight.dtype)
        optimizer.step()
    return weight.detach()


def stepped_apart(keys: dict, dtype=torch.float32, steps: int = 4):
    """The experts as parameters of their own, which have no gradient where the stack has zeros."""
    experts = [torch.nn.Parameter(w) for w in parameter((3, 10, 6), dtype=dtype).detach().clone()]
    optimizer = pion.PionAdamW([{"params": experts} | keys], lr=0.1, weight_decay=0.5)
    for step in range(steps):
        for k, expert in enumerate(experts):
            own = gradients(step)[k].to(dtype)
            expert.grad = own if own.any() else None
        optimizer.step()
    return torch.stack([e.detach() for e in experts]), optimizer, experts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("keys", RULES, ids=str)
def test_an_expert_without_gradient_is_as_a_parameter_without_one(keys, dtype, path):
    weight = parameter((3, 10, 6), dtype=dtype)
    before = weight.detach().clone()
    optimizer = pion.PionAdamW(
        [{"params": [weight], "fold": "stack"} | keys], lr=0.1, weight_decay=0.5
    )
    got = stepped(optimizer, weight)
    expected, others, experts = stepped_apart(keys, dtype)
    if path == "kernels":
        assert torch.equal(got, expected)
    else:  # products of other batches round differently, in bf16 weights once more
        unit = {torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: 2.0**-6}[dtype]
        torch.testing.assert_close(got, expected, rtol=0, atol=unit)
        assert torch.equal(got[1], expected[1]) or dtype != torch.float64
    momentum = optimizer.state[weight]["momentum_buffer"]
    alone = others.state[experts[1]]["momentum_buffer"]
    torch.testing.assert_close(momentum[1], alone, rtol=1e-6, atol=1e-7)
    assert not torch.equal(got[1], before[1])  # the first step moved it


def test_a_stack_of_one_and_one_without_any_gradient(path):
    one = parameter((1, 8, 6))
    optimizer = pion.Muon([one], lr=0.1, weight_decay=0.5, fold="stack")
    one.grad = gaussian(one.shape, 3)
    optimizer.step()
    before = one.detach().clone()
    one.grad = torch.zeros_like(one)
    optimizer.step()
    assert torch.equal(one, before)


def test_a_matrix_that_is_no_stack_goes_on_by_its_momentum(path):
    weight = parameter((8, 6))
    optimizer = pion.Muon([weight], lr=0.1, fold="stack")
    weight.grad = gaussian(weight.shape, 3)
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert not torch.equal(weight, before)


def test_a_stack_of_four_dimensions(path):
    """(layers, experts, rows, cols) under fold "stack"; as a convolution it is one matrix."""
    for fold, alone in (("stack", True), ("conv", False)):
        weight = parameter((2, 3, 8, 6))
        optimizer = pion.Muon([weight], lr=0.1, fold=fold)
        for step in range(2):
            weight.grad = gaussian(weight.shape, step)
            weight.grad[1, 2] *= step == 0
            before = weight.detach().clone()
            optimizer.step()
        assert torch.equal(weight[1, 2], before[1, 2]) == alone
        assert not torch.equal(weight[0, 2], before[0, 2])


def test_a_compiled_step_leaves_it_alone_too():
    weight, plain = parameter((3, 10, 6)), parameter((3, 10, 6))
    compiled, optimizer = (
        pion.Muon([p], lr=0.1, weight_decay=0.5, fold="stack") for p in (weight, plain)
    )
    compiled.compile(backend="eager")
    with pion.force_torch_path():
        assert torch.equal(stepped(compiled, weight), stepped(optimizer, plain))


def test_statistics_tell_the_experts_apart(path):
    weight = parameter((3, 10, 6))
    optimizer = pion.Muon([weight], lr=0.1, fold="stack")
    optimizer.collect_statistics()
    stepped(optimizer, weight, 2)
    (one,) = optimizer.statistics()
    assert one["idle"] == 1
    assert [m["idle"] for m in one["matrices"]] == [0, 1, 0]
    assert one["directions"] == 12
    assert [m["directions"] for m in one["matrices"]] == [6, 0, 6]
    for key in ("directions_passed", "directions"):
        assert sum(m[key] for m in one["matrices"]) == pytest.approx(one[key])
    norms = gradients(1).flatten(1).norm(dim=1).tolist()
    assert [m["gradient_norm"] for m in one["matrices"]] == pytest.approx(norms, rel=1e-5)
    # two of three moved, each by 0.2 lr per entry at full rank: f(s) of Muon within .68 and 1.14
    rms = one["update_rms"] / (0.2 * 0.1 * (2 / 3) ** 0.5)
    assert 0.65 < rms < 1.15


def test_trackers_get_numbers_of_every_expert():
    from pion_track.scalars import statistics_scalars

    weight = parameter((2, 10, 6))
    optimizer = pion.Muon([("experts", weight)], lr=0.1, fold="stack")
    optimizer.collect_statistics()
    weight.grad = gaussian(weight.shape, 1)
    weight.grad[0] = 0
    optimizer.step()
    values = statistics_scalars(optimizer.statistics())
    assert values["optimizer/idle/experts"] == 1
    assert values["optimizer/directions/experts.1"] == 6
    assert all(isinstance(value, float) for value in values.values())


@pytest.mark.parametrize("threads", [1, 3])
def test_the_warning_names_the_expert(threads, path, monkeypatch):
    """Noise in all directions passes no published filter; a matrix of rank 1 does."""
    monkeypatch.setenv("PION_NUM_THREADS", str(threads))
    weight = parameter((3, 64, 64))
    optimizer = pion.Pion(
        [("experts", weight)], lr=0.1, promotion_steps=0, momentum=0.0, fold="stack"
    )
    optimizer.collect_statistics()
    said = []
    for step in range(30):
        weight.grad = gaussian(weight.shape, step)
        weight.grad[[0, 2]] = torch.outer(gaussian((64,), step), torch.ones(64))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.step()
        said += [str(w.message) for w in caught]
    assert len(said) == 1
    assert "experts, matrix 1 of 3" in said[0]
