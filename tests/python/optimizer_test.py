# SPDX-License-Identifier: Apache-2.0
"""The optimizers behave as torch.optim's do.

Pains of users (see the names of the tests) and where their proof is:

    1 wrong parameters orthogonalized      routing_test.py
    2 a filter that passes nothing         numerics_test.py: test_a_filter_that_passes_nothing_...
    3 scale and learning rate              numerics_test.py: test_the_update_has_the_size_...
    4 heads                                shapes_test.py
    5 more than two dimensions             shapes_test.py
    6 steps on the CPU, offloading         offload_test.py, paths_test.py
    7 many small matrices                  paths_test.py: test_many_small_matrices_...
    8 resume                               checkpoint_test.py
    9 distributed                          open: a DTensor is refused
    10 numerics, aliasing, NaN             numerics_test.py
    11 gradient clipping                   numerics_test.py: test_clipping_gradients_...
    12 plugging in                         this file; the hosts' own are open
"""

import copy
import json
import pickle

import pytest
import torch
from judges import gaussian, mlp, parameter, run

import pion

RULES = [pion.Pion, pion.Muon, pion.LowRankMuon, pion.LowPassMuon]


@pytest.mark.parametrize("optimizer", RULES)
def test_every_key_is_an_argument_and_a_group_key(optimizer):
    import inspect

    signature = inspect.signature(optimizer)
    one = optimizer([parameter((4, 4))])
    group = one.param_groups[0]
    keys = set(group) - {"params", "rule"}
    assert keys == set(signature.parameters) - {"params", "unsupported"}
    for key in keys:
        assert signature.parameters[key].default == group[key], key
        assert key in optimizer.__doc__, key


def test_groups_keep_what_they_set_and_take_the_rest_from_the_arguments():
    a, b, c = (parameter((4, 4), seed) for seed in range(3))
    optimizer = pion.Pion(
        [{"params": [a], "weight_decay": 0.0}, {"params": [b], "cutoff": 0.2}],
        lr=0.1,
        weight_decay=0.2,
        promotion_steps=2,
    )
    optimizer.add_param_group({"params": c, "lr": 0.5, "steps": 9})
    first, second, third = optimizer.param_groups
    assert first["weight_decay"] == 0.0 and first["promotion_steps"] == 2  # 0 is a value
    assert second["cutoff"] == 0.2 and second["promotion_steps"] is None  # its own ends the other
    assert third["lr"] == 0.5 and third["steps"] == 9 and third["weight_decay"] == 0.2


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: pion.Pion([p], lr=-1), "lr must be >= 0, got -1"),
        (lambda p: pion.Pion([p], momentum=1.0), "momentum must be in [0, 1), got 1"),
        (lambda p: pion.Pion([p], scale="orignal"), 'did you mean "original"'),
        (lambda p: pion.Pion([p], cutoff=0.3, promotion_steps=1), "got both"),
        (lambda p: pion.Pion([p], cutoff=0.001), "raise cutoff or steps"),
        (lambda p: pion.Pion([{"params": [p], "learning_rate": 1}]), 'did you mean "lr"'),
        (lambda p: pion.Muon([p], foreach=True), "foreach must be off"),
        (lambda p: pion.Muon([p], capturable=True, nonfinite="raise"), "capturable must be off"),
        (lambda p: pion.LowRankMuon([p], capturable=True), "waits for eigenvalues"),
        (lambda p: pion.Muon([{"params": [p], "differentiable": True}]), "differentiable must"),
        (lambda p: pion.Muon([p], heads=3), "3"),
        (lambda p: pion.Muon([parameter((4,))]), "two dimensions or more"),
        (lambda p: pion.Muon([parameter((4, 4), dtype=torch.complex64)]), "complex64"),
        (lambda p: pion.Muon([parameter((4, 4), dtype=torch.float16)]), "float16"),
        (lambda p: pion.Muon([{"params": [p], "rule": "adamw"}]), "pion.PionAdamW"),
        (lambda p: pion.PionAdamW([p]), "neither"),
        (lambda p: pion.PionAdamW([{"params": [p], "rule": "moun"}]), 'did you mean "muon"'),
        (lambda p: pion.PionAdamW([{"params": [p], "rule": "pion"}], fold="x"), "fold"),
        (lambda p: pion.Pion([p, p]), "must be given once"),
    ],
)
def test_what_cannot_be_honoured_is_an_error_that_says_so(make, message):
    p = parameter((4, 4))
    with pytest.raises(ValueError) as error:
        make(p)
    assert message in str(error.value)


def test_unknown_arguments_are_type_errors():
    for make in (pion.Pion, lambda p, **k: pion.PionAdamW([{"params": p, "rule": "pion"}], **k)):
        with pytest.raises(TypeError, match="wieght_decay"):
            make([parameter((4, 4))], wieght_decay=0.1)


def test_a_routing_belongs_to_the_optimizer_of_all_parameters():
    with pytest.raises(TypeError, match="PionAdamW"):
        pion.Pion(pion.route(mlp()))


def test_a_model_that_has_changed_is_refused_before_memory_is_touched():
    p = parameter((4, 4))
    optimizer = pion.Muon([p])
    run(optimizer, [p], 1)
    p.data = p.data[:2].clone()
    p.grad = None
    p.grad = gaussian((2, 4), 1)
    with pytest.raises(ValueError, match="after changing the model"):
        optimizer.step()


def test_a_model_may_change_its_type():
    p = parameter((4, 4))
    optimizer = pion.Muon([p], lr=0.1)
    run(optimizer, [p], 1)
    p.data = p.data.bfloat16()
    p.grad = None
    run(optimizer, [p], 1, first=1)
    assert optimizer.state[p]["master"].dtype == torch.float32
    p.data, p.grad = p.data.double(), None
    p.grad = gaussian((4, 4), 3, torch.float64)
    with pytest.raises(ValueError, match="momentum_buffer"):
        optimizer.step()


def test_a_bad_group_is_not_added():
    optimizer = pion.Muon([parameter((4, 4))])
    with pytest.raises(ValueError):
        optimizer.add_param_group({"params": [parameter((3,))]})
    assert len(optimizer.param_groups) == 1
    run(optimizer, optimizer.param_groups[0]["params"], 1)


def test_sparse_gradients_are_refused_before_anything_is_written():
    table = torch.nn.Embedding(8, 4, sparse=True)
    other = parameter((4, 4))
    before = other.detach().clone()
    optimizer = pion.PionAdamW(
        [{"params": [other], "rule": "pion"}, {"params": table.parameters(), "rule": "adamw"}]
    )
    other.grad = gaussian((4, 4), 1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse=False"):
        optimizer.step()
    assert torch.equal(other, before)


def test_the_closure_runs_with_gradients_on_and_its_loss_is_returned():
    p = parameter((3, 3))
    optimizer = pion.Muon([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert (p * p).sum() < loss


def test_parameters_without_gradient_and_gradients_stay_as_they_are():
    with_gradient, without = parameter((6, 4)), parameter((6, 4), 2)
    optimizer = pion.Pion([with_gradient, without], lr=0.1, weight_decay=0.5, nesterov=True)
    with_gradient.grad = gaussian((6, 4), 3)
    gradient, old = with_gradient.grad.clone(), without.detach().clone()
    optimizer.step()
    assert torch.equal(with_gradient.grad, gradient)
    assert torch.equal(without, old)
    assert without not in optimizer.state


def test_names_come_with_named_parameters():
    model = mlp()
    matrices = [(n, p) for n, p in model.named_parameters() if p.dim() == 2]
    optimizer = pion.Muon(matrices)
    assert optimizer.param_groups[0]["param_names"] == [n for n, _ in matrices]
    optimizer.collect_statistics()
    run(optimizer, [p for _, p in matrices], 1)
    assert [s["name"] for s in optimizer.statistics()] == [n for n, _ in matrices]
    assert all(s["update_rms"] > 0 and s["directions"] > 0 for s in optimizer.statistics())


def test_learning_rates_may_be_tensors():
    a, b = parameter((5, 7)), parameter((5, 7))
    rate = torch.tensor(0.1)
    plain, tensor = pion.Pion([a], lr=float(rate)), pion.Pion([b], lr=rate)
    run(plain, [a], 2), run(tensor, [b], 2)
    rate.fill_(0.05)
    plain.param_groups[0]["lr"] = float(rate)
    run(plain, [a], 2, first=2), run(tensor, [b], 2, first=2)
    assert torch.equal(a, b)
    with pion.force_torch_path():
        run(tensor, [b], 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    ],
)
def test_schedulers_reach_every_group(make):
    p, q = parameter((4, 4)), parameter((4, 4), 2)
    optimizer = pion.Pion([{"params": [p]}, {"params": [q], "lr": 0.2}], lr=0.1)
    scheduler = make(optimizer)
    rates = []
    for step in range(4):
        run(optimizer, [p, q], 1, first=step)
        scheduler.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert rates[0] != rates[-1]
    state = scheduler.state_dict()
    make(optimizer).load_state_dict(state)


def test_reduce_on_plateau_and_one_cycle_reach_mixed_groups():
    groups = [
        {"params": [parameter((4, 4))], "rule": "pion"},
        {"params": [parameter((4,))], "rule": "adamw"},
    ]
    optimizer = pion.PionAdamW(groups, lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    plateau.step(1.0), plateau.step(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.05]
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=5, cycle_momentum=False)


def test_hooks_run():
    optimizer, seen = pion.Muon([parameter((3, 3))]), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda o, d: seen.append("saved"))
    optimizer.register_load_state_dict_pre_hook(lambda o, d: seen.append("loading"))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
    run(optimizer, optimizer.param_groups[0]["params"], 1)
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before", "after", "saved", "loading", "loaded"]


def test_maximize_goes_along_the_gradient():
    a, b = parameter((5, 3)), parameter((5, 3))
    up, down = pion.Muon([a], lr=0.1, maximize=True), pion.Muon([b], lr=0.1)
    gradient = gaussian((5, 3), 4)
    a.grad, b.grad = gradient.clone(), -gradient
    up.step(), down.step()
    assert torch.equal(a, b)
    assert torch.equal(a.grad, gradient)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_go_on_as_the_original(copied):
    model = mlp()
    optimizer = pion.PionAdamW(pion.route(model), lr=0.01, weight_decay=0.1)
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    run(optimizer, parameters, 3)
    twin = copied(optimizer)
    others = [p for g in twin.param_groups for p in g["params"]]
    expected = run(optimizer, parameters, 3, first=3)
    assert all(torch.equal(a, b) for a, b in zip(run(twin, others, 3, first=3), expected))
    twin.add_param_group({"params": [("new", parameter((3,)))], "rule": "adamw"})
    assert twin.param_groups[-1]["weight_decay"] == 0.1


def test_groups_are_json_and_state_is_tensors():
    optimizer = pion.PionAdamW(pion.route(mlp()), lr=0.01)
    parameters = [p for g in optimizer.param_groups for p in g["params"]]
    run(optimizer, parameters, 1)
    saved = optimizer.state_dict()
    assert json.loads(json.dumps(saved["param_groups"])) is not None
    for own in saved["state"].values():
        assert all(isinstance(value, torch.Tensor) for value in own.values())


def test_groups_by_use_muon():
    w, b = parameter((4, 4)), parameter((4,))
    groups = [{"params": [w], "use_muon": True}, {"params": [b], "use_muon": False, "lr": 3e-4}]
    optimizer = pion.PionAdamW(groups, lr=0.02, betas=(0.8, 0.9), nesterov=False)
    assert [g["rule"] for g in optimizer.param_groups] == ["muon", "adamw"]
    assert optimizer.param_groups[0]["nesterov"] is False
    assert optimizer.param_groups[1]["betas"] == (0.8, 0.9)
    assert [g["lr"] for g in optimizer.param_groups] == [0.02, 3e-4]


def test_automatic_mixed_precision_scaler_drives_the_step():
    p = parameter((4, 4))
    optimizer = pion.Muon([p], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = p.detach().clone()
    scaler.scale((p * p).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert not torch.equal(p, before)
    after = p.detach().clone()
    p.grad = torch.full((4, 4), float("inf"))
    scaler.step(optimizer)
    assert torch.equal(p, after)


def test_a_step_is_seen_by_autograd():
    p = parameter((4, 4))
    optimizer = pion.Muon([p], lr=0.1)
    loss = (p * p).sum()
    p.grad = gaussian((4, 4), 1)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
