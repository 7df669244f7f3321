# SPDX-License-Identifier: Apache-2.0
"""What is refused before anything is written, and what is no longer warned of."""

import warnings

import pytest
import torch
from judges import gaussian, parameter

import pion


def views(*ranges):
    """Parameters on one piece of memory."""
    memory = gaussian((40,), 1)
    return [torch.nn.Parameter(memory[a:b].view(-1, 2)) for a, b in ranges]


def test_a_parameter_given_twice_is_refused():
    w, b = parameter((4, 4)), parameter((4,))
    for make in (
        lambda: pion.Muon([w, w]),
        lambda: pion.Muon(p for p in (w, w)),
        lambda: pion.Muon([{"params": [w, w]}]),
        lambda: pion.Muon([("a", w), ("b", w)]),
        lambda: pion.PionAdamW([{"params": [b, b], "rule": "adamw"}]),
    ):
        with pytest.raises(ValueError, match="must be given once"):
            make()
    # what is routed by names is tied then, and stepped once
    tied = pion.PionAdamW([("layers.0.up.weight", w), ("layers.1.up.weight", w)])
    assert [len(group["params"]) for group in tied.param_groups] == [1]


def test_so_is_one_in_two_groups_or_added_again():
    w = parameter((4, 4))
    with pytest.raises(ValueError, match=r"groups.1.params.0 again.*where it is groups.0.params.0"):
        pion.PionAdamW([{"params": [w], "rule": "muon"}, {"params": [w], "rule": "pion"}])
    optimizer = pion.Muon([w])
    with pytest.raises(ValueError, match="appear in more than one parameter group"):
        optimizer.add_param_group({"params": [w]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("ranges", [((0, 16), (0, 16)), ((0, 16), (14, 30)), ((8, 12), (0, 40))])
def test_parameters_that_share_memory_are_refused(ranges):
    with pytest.raises(ValueError, match="memory of its own, got groups.0.params.1 in that of"):
        pion.Muon(views(*ranges))
    first, second = views(*ranges)
    optimizer = pion.Muon([("first", first)])
    with pytest.raises(ValueError, match="got second in that of first"):
        optimizer.add_param_group({"params": [("second", second)]})


def test_a_tied_transpose_is_refused_and_parts_of_one_memory_are_taken():
    w = gaussian((4, 6), 1)
    with pytest.raises(ValueError, match="memory of its own"):
        pion.Muon([torch.nn.Parameter(w), torch.nn.Parameter(w.T)])
    pion.Muon([torch.nn.Parameter(w[:2]), torch.nn.Parameter(w[2:])])
    pion.Muon([torch.nn.Parameter(w[:, :3]), torch.nn.Parameter(w[:, 3:])])
    pion.Muon([torch.nn.Parameter(torch.empty(4, 4, device="meta")) for _ in range(2)])
    pion.Muon([parameter((0, 4)), parameter((0, 4))])


def test_what_comes_to_share_memory_later_is_refused_in_the_step():
    a, b = parameter((4, 4), 1), parameter((4, 4), 2)
    optimizer = pion.Muon([("a", a), ("b", b)])
    b.data = a.data
    a.grad, b.grad = gaussian(a.shape, 1), gaussian(a.shape, 2)
    before = a.detach().clone()
    with pytest.raises(ValueError, match=r"\(b\): its weight and state.*\(a\) writes too"):
        optimizer.step()
    assert torch.equal(a, before)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 4, 4), (3, 0, 4)])
@pytest.mark.parametrize("rule", ["muon", "pion", "adamw", "sgd"])
def test_parameters_without_entries(shape, rule, path):
    none, w = parameter(shape), parameter((4, 4))
    elementwise = rule in ("adamw", "sgd")
    fold = {} if elementwise or len(shape) == 2 else {"fold": "stack"}
    optimizer = pion.PionAdamW(
        [{"params": [parameter((3,)), none, w][not elementwise :], "rule": rule} | fold], lr=0.1
    )
    none.grad, w.grad = torch.zeros(shape), gaussian((4, 4), 1)
    before = w.detach().clone()
    optimizer.step()
    assert not torch.equal(w, before)
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("policy", ["raise", "zero"])
@pytest.mark.parametrize("offloaded", [False, True])
def test_a_spoiled_momentum_is_refused_before_anything_is_written(policy, offloaded, path):
    first, second, bias = parameter((8, 6), 1), parameter((8, 6), 2), parameter((6,), 3)
    optimizer = pion.PionAdamW(
        [
            {"params": [("first", first), ("second", second)], "rule": "muon"},
            {"params": [("bias", bias)], "rule": "adamw"},
        ],
        lr=0.1,
        nonfinite=policy,
    )
    if offloaded:
        pion.offload(optimizer)
    for p in (first, second, bias):
        p.grad = gaussian(p.shape, 7)
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][1]["momentum_buffer"][0, 0] = float("nan")
    optimizer.load_state_dict(state)
    before = [p.detach().clone() for p in (first, second, bias)]
    steps = [float(optimizer.state[p]["step"]) for p in (first, bias)]
    with pytest.raises(ValueError, match="in that of second; nothing was written"):
        optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip((first, second, bias), before, strict=True))
    assert [float(optimizer.state[p]["step"]) for p in (first, bias)] == steps


def test_a_foreign_state_is_refused_before_another_chunk_is_written(monkeypatch):
    from pion import offloading

    monkeypatch.setattr(offloading, "_CHUNK", 10)
    a, b = parameter((4, 4), 1), parameter((4, 4), 2)
    optimizer = pion.offload(pion.Muon([a, b], lr=0.1))
    optimizer.init_state()
    optimizer.state[b]["momentum_buffer"] = torch.zeros(3)
    a.grad, b.grad = gaussian(a.shape, 1), gaussian(a.shape, 2)
    before = a.detach().clone()
    with pytest.raises(ValueError, match="momentum_buffer of groups.0.params.1 must be"):
        optimizer.step()
    assert torch.equal(a, before)


@pytest.mark.parametrize("rule", ["muon", "pion", "low_rank_muon"])
def test_a_gradient_of_rank_one_is_no_empty_update(rule, path):
    """Muon's classic coefficients take the one singular value to 0.6965, whose square is 0.485."""
    w, column = parameter((8, 6)), parameter((8, 1))
    optimizer = pion.PionAdamW([{"params": [w, column], "rule": rule}], lr=0.1)
    optimizer.collect_statistics()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(30):
            w.grad = torch.outer(torch.ones(8), torch.ones(6))
            column.grad = torch.ones(8, 1)
            optimizer.step()
    assert all(one["directions_passed"] > 0.4 for one in optimizer.statistics())


def test_the_torch_path_tells_of_a_skipped_gradient_in_the_next_step():
    good, bad = parameter((4, 4), 1), parameter((4, 4), 2)
    optimizer = pion.Muon([("good", good), ("bad", bad)], lr=0.1)
    heard = []
    with pion.force_torch_path():
        for step in range(5):
            good.grad = torch.ones(4, 4)
            bad.grad = torch.full((4, 4), float("nan") if step == 2 else 1.0)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                optimizer.step()
            heard.append([str(w.message) for w in caught])
    assert [len(said) for said in heard] == [0, 0, 0, 1, 0]
    assert "the gradient of bad holds NaN" in heard[3][0]
    assert optimizer.state[bad]["counters"][2] == 1


@pytest.mark.parametrize("size", [64, 288])
def test_the_torch_path_tells_of_empty_updates_without_statistics(size):
    """Stacked and stepped in place: 20 empty updates, told of in the 21st step, once."""
    w = parameter((size, size))
    optimizer = pion.Pion([("w", w)], lr=0.1, promotion_steps=0)
    with pion.force_torch_path(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(40):
            w.grad = gaussian(w.shape, step)
            optimizer.step()
            assert len(caught) == (step >= 20)
    assert str(caught[0].message).startswith("w: the last 20 updates were empty")


def test_the_torch_path_warns_while_statistics_are_collected():
    w, bad = parameter((64, 64)), parameter((8, 8))
    optimizer = pion.Pion([("w", w), ("bad", bad)], lr=0.1, promotion_steps=0)
    optimizer.collect_statistics()
    said = []
    with pion.force_torch_path(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(25):
            w.grad, bad.grad = gaussian(w.shape, step), torch.full((8, 8), float("nan"))
            optimizer.step()
        said = [str(w.message) for w in caught]
    assert len(said) == 2
    assert "gradient of bad holds NaN" in said[0]
    assert said[1].startswith("w: the last 20 updates were empty")
