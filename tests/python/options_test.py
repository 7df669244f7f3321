# SPDX-License-Identifier: Apache-2.0
"""What options may be: every one is taken or refused by name, none is passed over."""

import numpy as np
import pytest
import torch
from judges import gaussian, mlp, parameter, run

import pion


def after(**keys):
    weight = parameter((8, 6))
    run(pion.Muon([weight], lr=0.1, **keys), [weight], 2)
    return weight.detach()


def adamw(**keys):
    weight = parameter((8, 6))
    group = {"params": [weight], "rule": "adamw"}
    run(pion.PionAdamW([group], lr=0.1, **keys), [weight], 2)
    return weight.detach()


def test_a_tensor_stands_for_its_number(path):
    pairs = [
        ("momentum", 0.5, torch.tensor(0.5)),
        ("weight_decay", 0.5, torch.tensor([0.5])),
        ("steps", 3, torch.tensor(3)),
        ("steps", 3, np.int64(3)),
        ("nesterov", False, np.bool_(False)),
    ]
    for key, number, tensor in pairs:
        assert torch.equal(after(**{key: tensor}), after(**{key: number})), key
        assert not torch.equal(after(**{key: tensor}), after()), key
    betas = (torch.tensor(0.5), torch.tensor(0.75))
    assert torch.equal(adamw(betas=betas), adamw(betas=(0.5, 0.75)))
    assert torch.equal(adamw(eps=torch.tensor(0.25)), adamw(eps=0.25))
    assert not torch.equal(adamw(eps=0.25), adamw())


def test_a_tensor_put_into_a_group_becomes_its_number(path):
    weights = [parameter((8, 6)), parameter((8, 6))]
    optimizers = [pion.Muon([w], lr=0.1) for w in weights]
    for optimizer, value in zip(optimizers, (0.5, torch.tensor(0.5)), strict=True):
        optimizer.param_groups[0]["momentum"] = value
        run(optimizer, optimizer.param_groups[0]["params"], 2)
    assert torch.equal(*weights)
    assert type(optimizers[1].param_groups[0]["momentum"]) is float


def test_tensors_have_the_range_of_numbers_and_one_element():
    with pytest.raises(ValueError, match=r"steps must be in \[1, 64\]"):
        pion.Muon([parameter((8, 6))], steps=torch.tensor(999))
    for key in ("momentum", "lr"):
        with pytest.raises(ValueError, match=rf"{key} must be a number.*shape \[2\]"):
            pion.Muon([parameter((8, 6))], **{key: torch.tensor([0.5, 0.6])})


def test_the_rule_of_a_routing_is_not_passed_over():
    with pytest.raises(ValueError, match=r'pion.route\(model, rules=\{"matrices": "muon"\}\)'):
        pion.PionAdamW(pion.route(mlp()), lr=0.1, matrices="muon")
    routing = pion.route(mlp(), rules={"matrices": "muon"})
    pion.PionAdamW(routing, lr=0.1, matrices="muon", coefficients="cans")
    with pytest.raises(TypeError, match='no rule here has an option "cutoff"'):
        pion.PionAdamW(routing, lr=0.1, cutoff=0.1)
    with pytest.raises(TypeError, match='no rule here has an option "coefficients"'):
        pion.PionAdamW(pion.route(mlp()), lr=0.1, coefficients="cans")


def test_the_trainers_factory_routes_by_matrices():
    hosts = pytest.importorskip("pion.hosts.transformers")
    made = hosts.RoutedPionAdamW()(mlp(), lr=0.1, matrices="muon", coefficients="cans")
    assert {g["rule"] for g in made.param_groups} == {"muon", "adamw"}
    assert {g.get("coefficients") for g in made.param_groups} == {"cans", None}
    with pytest.raises(ValueError, match="chosen once"):
        hosts.RoutedPionAdamW()(mlp(), matrices="muon", rules={"matrices": "muon"})


@pytest.mark.parametrize("value", ["false", "no", 1, 0, None, 0.0])
def test_switches_are_true_or_false(value):
    for key in ("maximize", "nesterov", "transposed"):
        with pytest.raises(ValueError, match=f"{key} must be True or False"):
            pion.Muon([parameter((8, 6))], **{key: value})
    for key in ("use_muon", "use_pion"):
        with pytest.raises(ValueError, match=f"{key} must be True or False"):
            pion.PionAdamW([{"params": [parameter((8, 6))], key: value}])


def test_numpys_switches_are_switches(path):
    assert torch.equal(after(maximize=np.True_), after(maximize=True))
    groups = [{"params": [parameter((8, 6))], "use_muon": np.False_}]
    assert pion.PionAdamW(groups).param_groups[0]["rule"] == "adamw"


@pytest.mark.parametrize(
    ("key", "here"),
    [("ns_steps", "steps"), ("adjust_lr_fn", "scale"), ("ns_coefficients", "coefficients")],
)
def test_names_of_torchs_muon_lead_to_ours(key, here):
    with pytest.raises(TypeError, match=f'"{key}"; it is called "{here}" here.*; keys are: lr'):
        pion.Muon([parameter((8, 6))], **{key: 5})
    with pytest.raises(TypeError, match="keys are: lr"):
        pion.Muon([parameter((8, 6))], eps=1e-8)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("lr", [None, "x", -1.0, float("nan")]),
        ("seed", [-1, 10**30, 1.5, "x", None]),
        ("heads", [None, 0.5, 0, "a", [2.5], True]),
        ("split_sizes", [4, "ab", [2.5]]),
        ("head_axis", ["x", None, 0.5, 2]),
        ("momentum", [[], None, "x", True]),
        ("low_precision", [[1], None]),
    ],
)
def test_wrong_values_are_refused_by_their_key(key, values):
    for value in values:
        with pytest.raises(ValueError, match=f"Muon: {key} must"):
            pion.Muon([parameter((8, 6))], **{key: value})
        optimizer = pion.Muon([parameter((8, 6))])
        optimizer.param_groups[0][key] = value
        with pytest.raises(ValueError, match=f"step: group 0: {key} must"):
            optimizer.step()


@pytest.mark.parametrize("betas", [0.9, (0.9,), (0.9, 0.99, 0.999), None, ("a", "b"), (0.9, 1.0)])
def test_betas_are_two_numbers(betas):
    with pytest.raises(ValueError, match="betas must be two numbers"):
        adamw(betas=betas)


def test_matrices_are_named():
    for value in (None, 3, "adamw", "x"):
        with pytest.raises(ValueError, match="matrices must be a rule for matrices"):
            pion.PionAdamW(mlp().named_parameters(), matrices=value)


def test_a_group_keeps_its_rule_and_keys():
    for make in (
        lambda p: pion.Pion([p]),
        lambda p: pion.PionAdamW([{"params": p, "rule": "pion"}]),
    ):
        optimizer = make(parameter((8, 6)))
        run(optimizer, optimizer.param_groups[0]["params"], 1)
        optimizer.param_groups[0]["rule"] = "low_pass_muon"
        with pytest.raises(ValueError, match='group 0: rule must stay "pion", got'):
            optimizer.step()
    optimizer = pion.Muon([parameter((8, 6))])
    del optimizer.param_groups[0]["momentum"]
    with pytest.raises(ValueError, match="must hold every key of rule \"muon\", got no 'momentum'"):
        optimizer.step()


CLASSES = (pion.PionAdamW, pion.Pion, pion.Muon, pion.LowRankMuon, pion.LowPassMuon)


@pytest.mark.parametrize("make", CLASSES)
def test_what_is_no_list_of_parameters_is_refused_by_its_name(make):
    weight, name = parameter((8, 6)), make.__name__
    for wrong, got, remedy in (
        (weight, r"a tensor of shape \[8, 6\]", r"\[weight\]"),
        (mlp(), r"a module, \w+", r"give pion.route\(model\)"),
        ({"params": [weight]}, "a dict", r"\[group\]"),
        ({"w": weight}, "a dict", r"items\(\)"),
        ({weight}, "a set", "give a list"),
        ("weight", "str 'weight'", r"model.parameters\(\)"),
        (None, "NoneType None", r"model.parameters\(\)"),
        (3, "int 3", r"model.parameters\(\)"),
    ):
        message = f"^{name}: params must be a list.*got {got}[;,] .*{remedy}"
        with pytest.raises(TypeError, match=message):
            make(wrong)


@pytest.mark.parametrize("make", CLASSES)
def test_an_entry_that_is_no_parameter_is_named_with_its_place(make):
    weight, name = parameter((8, 6)), make.__name__
    for entries, got in (
        (["a"], "str 'a' at index 0"),
        ([weight, np.ones((8, 6))], "ndarray array.* at index 1"),
        ([("w", weight), ("b", 1.0)], "tuple .*'b', 1.0.* at index 1"),
        ([mlp()], r"a module, \w+ at index 0; for a whole model give pion.route"),
        ([None], "NoneType None at index 0"),
        (["x" * 126_000], r"str 'x+\.\.\. at index 0"),
    ):
        message = f"^{name}: params must hold parameters.*got {got}"
        with pytest.raises(TypeError, match=message) as refusal:
            make(iter(entries))
        assert len(str(refusal.value)) < 400
    with pytest.raises(TypeError, match="all parameters or all groups"):
        make([weight, {"params": [parameter((8, 6))]}])


@pytest.mark.parametrize("rule", [{}, {"rule": "muon"}])
def test_the_parameters_of_a_group_are_held_to_the_same(rule):
    weight = parameter((8, 6))
    optimizers = [pion.PionAdamW([{"params": [weight], "rule": "muon"}]), pion.Muon([weight])]
    for optimizer in optimizers:
        for wrong, message in (
            ({"params": mlp()}, r"a module, \w+"),
            ({"params": ["a"]}, '"params" must hold parameters .*str .a. at index 0'),
            ({"params": {weight}}, "a set"),
            ({"weights": [weight]}, 'must have "params"'),
        ):
            with pytest.raises(TypeError, match=message):
                optimizer.add_param_group(wrong | rule)
        for wrong in (weight, [weight], "a"):
            with pytest.raises(TypeError, match='must be a dict with "params"'):
                optimizer.add_param_group(wrong)
        assert len(optimizer.param_groups) == 1


def test_lists_that_torch_takes_are_taken():
    weight = parameter((8, 6))
    for params in (
        (weight,),
        iter([weight]),
        torch.nn.ParameterList([weight]),
        [("w", weight)],
        [{"params": weight}],
        [{"params": iter([weight])}],
    ):
        assert pion.Muon(params).param_groups[0]["params"] == [weight]


def test_functions_for_pions_optimizers_refuse_others(tmp_path):
    other = torch.optim.SGD([parameter((8, 6))])
    pion.gather_state(other)
    for call in (
        pion.distribute,
        pion.offload,
        lambda o: pion.save_state(o, tmp_path / "x"),
        lambda o: pion.load_state(o, tmp_path / "x"),
    ):
        with pytest.raises(TypeError, match=r"must be one of pion.*torch.optim.sgd.SGD"):
            call(other)


def test_help_names_the_sequences():
    for name in pion.optimizers.SEQUENCES:
        pion.Muon([parameter((8, 6))], coefficients=name)
        assert f'"{name}"' in pion.Muon.__doc__
    assert "muon_sequence" not in pion.Muon.__doc__


def test_a_warning_is_placed_at_the_line_that_steps():
    weight = parameter((8, 6))
    optimizer = pion.Muon([weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)  # wraps step() once more
    weight.grad = gaussian((8, 6), 1) * torch.nan
    with pytest.warns(pion.EmptyUpdateWarning) as heard:
        optimizer.step()
    schedule.step()
    assert [w.filename for w in heard] == [__file__]
