# SPDX-License-Identifier: Apache-2.0
"""pion.route on torch modules. Judgements themselves are tested with the C++ library."""

import gc

import pytest
import torch
from judges import mlp, run
from small_models import Block, Config, Language, decided
from torch import nn

import pion


def test_a_language_model_with_grouped_queries():
    got = decided(pion.route(Language()))
    assert got["embed_tokens.weight"][:2] == ("embedding", "adamw")
    assert got["lm_head.weight"][:2] == ("head", "adamw")
    assert got["layers.0.q_proj.weight"] == ("attention_q", "pion", [4], 0)
    assert got["layers.1.k_proj.weight"] == ("attention_k", "pion", [2], 0)
    assert got["layers.0.o_proj.weight"] == ("attention_o", "pion", [4], 1)
    assert got["layers.0.up_proj.weight"] == ("hidden_matrix", "pion", [1], 0)
    assert got["layers.0.up_proj.bias"][:2] == ("bias", "adamw")
    assert got["layers.0.input_layernorm.weight"][:2] == ("norm", "adamw")


def test_tied_embeddings_are_stepped_once_and_not_orthogonalized():
    routing = pion.route(Language(tied=True))
    got = decided(routing)
    assert got["embed_tokens.weight"][1] == got["lm_head.weight"][1] == "adamw"
    names = [n for g in routing.to_param_groups() for n, _ in g["params"]]
    assert "embed_tokens.weight" in names and "lm_head.weight" not in names
    model = Language(tied=True)
    pion.PionAdamW(pion.route(model)).step()


def test_groups_carry_heads():
    groups = pion.route(Language()).to_param_groups()
    by_name = {n: g for g in groups for n, _ in g["params"]}
    assert by_name["layers.0.q_proj.weight"]["heads"] == 4
    assert by_name["layers.0.k_proj.weight"]["heads"] == 2
    assert by_name["layers.0.o_proj.weight"]["head_axis"] == 1
    assert "heads" not in by_name["layers.0.up_proj.weight"]
    assert "lr" not in by_name["layers.0.up_proj.weight"]  # left to the optimizer


def test_the_table_is_printed_and_edited_as_toml():
    model = Language()
    routing = pion.route(model)
    assert "layers.0.q_proj.weight" in str(routing) and "attention_q" in repr(routing)
    text = routing.to_toml()
    assert decided(pion.Routing.from_toml(text, model)) == decided(routing)
    edited = text.replace('rule = "pion"', 'rule = "low_rank_muon"')
    with pytest.raises(ValueError, match="cutoff"):  # a key that the other rule has not
        pion.Routing.from_toml(edited, model)
    with pytest.raises(ValueError, match="lm_head"):
        pion.Routing.from_toml(text, mlp())
    optimizer = pion.PionAdamW(
        pion.Routing.from_toml(text.replace("lr = 0.001", "lr = 0.5"), model)
    )
    assert {g["lr"] for g in optimizer.param_groups} == {0.5}


def test_what_the_routing_sets_wins_over_the_arguments():
    rules = {"matrices": {"rule": "muon", "lr": 0.02}, "rest": {"betas": (0.8, 0.9)}}
    optimizer = pion.PionAdamW(pion.route(mlp(), rules=rules), lr=3e-4, weight_decay=0.1)
    muon, adamw = optimizer.param_groups
    assert (muon["rule"], muon["lr"], muon["weight_decay"]) == ("muon", 0.02, 0.1)
    assert (adamw["lr"], adamw["betas"]) == (3e-4, (0.8, 0.9))


@pytest.mark.parametrize("preset", ["paper-rlvr", "field-notes", "purejaxrl"])
def test_presets(preset):
    model = Language()
    optimizer = pion.PionAdamW(pion.route(model, preset=preset))
    run(optimizer, list(model.parameters()), 1)
    assert preset in [name for name, _, _ in pion.presets()]
    rates = {"paper-rlvr": 1e-6, "field-notes": 1e-5, "purejaxrl": 0.02}
    assert optimizer.param_groups[1]["lr"] == rates[preset] or (
        optimizer.param_groups[0]["lr"] == rates[preset]
    )


def test_overrides_decide_and_must_match():
    got = decided(pion.route(Language(), overrides={"*.up_proj.weight": "rest"}))
    assert got["layers.1.up_proj.weight"][1] == "adamw"
    with pytest.raises(ValueError, match="must match a parameter"):
        pion.route(Language(), overrides={"nothing.*": "rest"})
    with pytest.raises(ValueError, match="rest must be"):
        pion.route(Language(), rules={"rest": "muon"})


def test_unknown_matrices_are_errors_unless_they_are_frozen():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.up_proj = nn.Linear(4, 4)
            self.table = nn.Parameter(torch.zeros(7, 5))

    model = Odd()
    with pytest.raises(ValueError, match=r"table  \[7, 5\]  in Odd"):
        pion.route(model)
    model.table.requires_grad_(False)
    routing = pion.route(model)  # as part of the rest, should it be unfrozen
    assert decided(routing)["table"][1] == "adamw"
    assert "frozen: 1 parameters, 35 numbers" in str(routing)


def test_head_counts_that_contradict_are_errors():
    with pytest.raises(ValueError, match="q_proj"):
        pion.route(Language(), attention=(5, 5, 8))


def test_a_residual_network_and_a_vision_transformer():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 8, 7)
            self.bn1 = nn.BatchNorm2d(8)
            self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
            self.fc = nn.Linear(8, 10)

    got = decided(pion.route(Residual()))
    assert got["layer1.0.weight"][:2] == ("convolution", "pion")
    assert got["fc.weight"][:2] == ("head", "adamw")
    assert got["bn1.weight"][:2] == ("norm", "adamw")
    groups = pion.route(Residual()).to_param_groups()
    assert next(g for g in groups if g["rule"] == "pion")["fold"] == "conv"

    encoder = nn.TransformerEncoderLayer(16, 2, 32)
    got = decided(pion.route(encoder, attention=(2, 2, 8)))
    assert got["self_attn.in_proj_weight"][:3] == ("attention_fused_qkv", "pion", [2, 2, 2])
    assert got["self_attn.out_proj.weight"][:2] == ("attention_o", "pion")


def test_an_expert_stack_is_one_matrix_an_expert():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_up_proj = nn.Parameter(torch.randn(4, 16, 8))
            self.down_proj = nn.Parameter(torch.randn(4, 8, 8))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(8, 4, bias=False)
            self.experts = Experts()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([Layer()])

    model = Model()
    got = decided(pion.route(model))
    assert got["layers.0.gate.weight"][:2] == ("router", "adamw")
    assert got["layers.0.experts.gate_up_proj"][:2] == ("expert_stack", "pion")
    optimizer = pion.PionAdamW(pion.route(model), lr=0.1, precision="f32")
    stack = model.layers[0].experts.gate_up_proj
    twin = nn.Parameter(stack.detach()[2].clone())
    single = pion.Pion([twin], lr=0.1, precision="f32")
    stack.grad = torch.randn(4, 16, 8)
    twin.grad = stack.grad[2].clone()
    optimizer.step(), single.step()
    assert torch.equal(stack.detach()[2], twin.detach())


def test_adapters():
    class Lora(nn.Module):
        def __init__(self):
            super().__init__()
            self.base_layer = nn.Linear(16, 16, bias=False)
            self.lora_A = nn.ModuleDict({"default": nn.Linear(16, 4, bias=False)})
            self.lora_B = nn.ModuleDict({"default": nn.Linear(4, 16, bias=False)})

    model = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"up_proj": Lora()})])})
    model["layers"][0]["up_proj"].base_layer.requires_grad_(False)
    got = decided(pion.route(model))
    assert got["layers.0.up_proj.lora_A.default.weight"][:2] == ("adapter_a", "adamw")
    assert got["layers.0.up_proj.lora_B.default.weight"][1] == "pion"
    (base,) = [line for line in str(pion.route(model)).splitlines() if "base_layer" in line]
    assert base.endswith("; frozen")


def test_a_flattened_model_is_an_error():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self._flat_param = nn.Parameter(torch.randn(1000))

    with pytest.raises(ValueError, match=r"flat|FSDP"):
        pion.route(Flat())


def test_an_action_head_takes_the_preset_of_its_paper():
    class Vla(nn.Module):
        def __init__(self):
            super().__init__()
            self.language = Language(config=False)
            self.action_expert = nn.ModuleDict({"layers": nn.ModuleList([Block()])})

    got = decided(pion.route(Vla(), preset="paper-vla"))
    assert got["action_expert.layers.0.up_proj.weight"][1] == "pion"
    assert got["language.layers.0.up_proj.weight"][1] == "muon"


def test_bare_parameters_are_refused_until_names_are_bound():
    model = Language()
    with pytest.raises(ValueError, match="bind_names"):
        pion.PionAdamW(model.parameters(), lr=1e-4)
    pion.bind_names(model)
    optimizer = pion.PionAdamW(model.parameters(), lr=1e-4, weight_decay=0.01, betas=(0.9, 0.95))
    names = {n: g for g in optimizer.param_groups for n in g["param_names"]}
    assert names["layers.0.q_proj.weight"]["heads"] == 4
    assert names["embed_tokens.weight"]["rule"] == "adamw"
    assert names["embed_tokens.weight"]["betas"] == (0.9, 0.95)
    # groups without rules, as hosts make them for weight decay
    decay = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = pion.PionAdamW(groups, lr=1e-4, matrices="muon")
    assert {g["rule"] for g in optimizer.param_groups if g["weight_decay"]} == {"muon", "adamw"}


def test_names_alone_are_enough_where_they_say_it():
    named = [(n, p) for n, p in Language().named_parameters() if "lm_head" not in n]
    optimizer = pion.PionAdamW(named)
    assert {g["rule"] for g in optimizer.param_groups} == {"pion", "adamw"}


def test_binding_names_keeps_no_model_alive():
    import weakref

    model = pion.bind_names(mlp())
    seen = weakref.ref(next(model.parameters()))
    del model
    gc.collect()
    assert seen() is None


def test_groups_of_hosts_carry_keys_of_adamw_and_notes():
    """Each rule takes its own keys; notes of schedulers are kept, misspelt keys are errors."""
    model = pion.bind_names(Language())
    group = {"params": list(model.parameters()), "betas": (0.8, 0.9), "eps": 1e-6, "lr": 1e-3}
    notes = {"name": "policy", "initial_lr": 1e-3, "wd_mult": 0.5, "_mine": [1]}
    off = {"fused": None, "foreach": False, "amsgrad": False}
    optimizer = pion.PionAdamW([{**group, **notes, **off}])
    by_rule = {g["rule"]: g for g in optimizer.param_groups}
    assert by_rule["adamw"]["betas"] == (0.8, 0.9)
    assert "betas" not in by_rule["pion"]
    for kept in by_rule.values():
        assert {key: kept[key] for key in notes} == notes
    again = pion.PionAdamW([dict(group)])
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[0]["_mine"] == [1]
    told = pion.PionAdamW([{**group, "fused": True}])  # as steps are anyway
    assert not any("fused" in g for g in told.param_groups)
    for wrong in ({"weight_deacy": 0.1}, {"dampening": 0.5}, {"foreach": True}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            pion.PionAdamW([{**group, **wrong}])


def test_what_cannot_be_placed_is_told_in_python():
    odd = nn.Module()
    odd.table = nn.Parameter(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="every parameter must be placed") as told:
        pion.route([("odd.table", odd.table), ("x.table", torch.zeros(3, 2, 2, 2, 2))])
    assert 'overrides={"' in str(told.value)
    assert "routing.to_toml()" in str(told.value)
    assert "::" not in str(told.value)


def test_a_config_of_many_head_counts_is_asked_only_where_it_is_needed():
    model = Language()
    model.config = Config(num_heads=[3, 6], hidden_size=32)  # Swin
    with pytest.raises(ValueError, match=r"per_head=False"):
        pion.route(model)
    assert decided(pion.route(model, per_head=False))["layers.0.q_proj.weight"][2] == [1]
    given = decided(pion.route(model, attention=(4, 2, 8)))
    assert given["layers.0.q_proj.weight"][2] == [4]
    assert given["layers.0.k_proj.weight"][2] == [2]
    by_name = decided(pion.route(model, attention_by_name={"layers.1.*": (4, 2, 8)}))
    assert by_name["layers.1.q_proj.weight"][2] == [4]
    assert by_name["layers.0.q_proj.weight"][2] == [1]


def test_an_override_of_a_tied_name_is_not_passed_over():
    model = Language(tied=True)
    with pytest.raises(ValueError, match="embed_tokens.weight, got lm_head.weight, which is tied"):
        pion.route(model, overrides={"lm_head.weight": "sgd"})
    pion.route(model, overrides={"lm_head.weight": "rest"})  # as it is stepped anyway
    both = pion.route(model, overrides={"embed_tokens.weight": "sgd", "lm_head.weight": "sgd"})
    assert both.to_param_groups()[0]["rule"] == "sgd"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("overrides", {"*q_proj*": {"rule": "sgd"}}),
        ("overrides", {"*q_proj*": None}),
        ("overrides", "muon"),
        ("attention", (4, 2)),
        ("attention", 4),
        ("attention_by_name", {"layers.*": (4, 2)}),
        ("rules", "muon"),
        ("rules", {"matrices": None}),
        ("rules", {"matrices": {"rule": "muon", "momentum": []}}),
        ("rules", {"rest": {"betas": 0.9}}),
        ("rules", {"rest": {"betas": (0.9, 0.99, 0.999)}}),
        ("preset", 3),
        ("per_head", "no"),
    ],
)
def test_arguments_are_refused_by_name(option, value):
    with pytest.raises((TypeError, ValueError), match=f"^route: ({option}|matrices: momentum)"):
        pion.route(Language(), **{option: value})


def test_parameters_without_names_are_told_apart_from_a_model():
    with pytest.raises(TypeError, match=r"give the model itself or model.named_parameters\(\)"):
        pion.route(Language().parameters())
    weight = torch.ones(4, 3)
    for wrong, got in (
        (None, "NoneType None"),
        (weight, r"a tensor of shape \[3\] in place"),
        ("model", "str 'm' in place"),
        ([("w", 1.0)], r"tuple \('w', 1.0\) in place"),
    ):
        with pytest.raises(TypeError, match=f"^route: model must be.*got {got}.*give the model"):
            pion.route(wrong)


def test_several_ends_of_a_model_are_asked_for():
    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc21 = nn.Linear(784, 400), nn.Linear(400, 20)
            self.fc22, self.fc3 = nn.Linear(400, 20), nn.Linear(20, 400)
            self.fc4 = nn.Linear(400, 784)

    with pytest.raises(ValueError, match="every parameter must be placed, got 3") as told:
        pion.route(Vae())
    for name in ("fc21.weight", "fc22.weight", "fc4.weight"):
        assert f"{name}  [" in str(told.value)
    got = decided(pion.route(Vae(), overrides={"fc2?.weight": "rest", "fc4.weight": "rest"}))
    assert {n: got[f"{n}.weight"][1] for n in ("fc1", "fc3")} == {"fc1": "pion", "fc3": "pion"}


def test_stacks_and_convolutions_are_decided_by_overrides():
    named = {"odd.table": nn.Parameter(torch.randn(3, 8, 4))}
    with pytest.raises(ValueError, match=r'overrides={"odd.table": "stack"}'):
        pion.route(named)
    for decision, keys in (
        ("stack", {"fold": "stack"}),
        ("stack_in_out", {"fold": "stack", "transposed": True}),
        ("convolution", {"fold": "conv"}),
    ):
        (group,) = pion.route(named, overrides={"odd.*": decision}).to_param_groups()
        assert {k: v for k, v in group.items() if k not in ("params", "rule")} == keys
        pion.PionAdamW([group], lr=0.1)
    with pytest.raises(ValueError, match="stack of matrices"):
        pion.route(named, overrides={"odd.*": "muon"})
