# SPDX-License-Identifier: Apache-2.0
"""How transformers stores experts and cuts linear attention, and how pion.route reads it."""

import math
import re

import pytest

pytest.importorskip("transformers")

import torch
import zoo

import pion

pytestmark = pytest.mark.hosts


def experts(model):
    """{name: (outputs, inputs)} of every stack of experts, by how its module multiplies."""
    found = {}
    for prefix, module in model.named_modules():
        for own, weight in module.named_parameters(recurse=False):
            if weight.dim() == 3 and prefix.endswith("experts"):
                kind = type(module).__name__
                in_out = getattr(module, "is_transposed", kind == "Llama4TextExperts")
                shape = tuple(weight.shape[1:])
                found[f"{prefix}.{own}"] = shape[::-1] if in_out else shape
    return found


def printed_scales(routing, scale):
    rows = re.findall(rf"^(\S+) .* {scale} ([\d.]+)", str(routing), re.MULTILINE)
    return {name: float(value) for name, value in rows}


@pytest.mark.parametrize("name", ["gpt_oss", "llama4", "qwen3_moe", "mixtral", "qwen3_next"])
def test_experts_count_as_outputs_by_inputs(name):
    model = getattr(zoo, name)()
    wanted = experts(model)
    assert len(wanted) >= 2
    for scale, value in (
        ("spectral", lambda out, inp: math.sqrt(out / inp)),
        ("original", lambda out, inp: math.sqrt(max(1, out / inp))),
    ):
        rules = {"matrices": {"rule": "muon", "scale": scale}}
        routing = pion.route(model, rules=rules)
        saved = pion.Routing.from_toml(routing.to_toml(), model)
        for told in (printed_scales(routing, scale), printed_scales(saved, scale)):
            for stack, (out, inp) in wanted.items():
                assert told[stack] == pytest.approx(value(out, inp), rel=1e-3), stack


def test_experts_stored_in_out_are_stepped_as_their_transposes():
    model = zoo.gpt_oss()
    rules = {"matrices": {"rule": "muon", "scale": "spectral"}}
    optimizer = pion.PionAdamW(pion.route(model, rules=rules), lr=0.1, precision="f32")
    stack = model.model.layers[0].mlp.experts.gate_up_proj
    twins = [torch.nn.Parameter(one.t().contiguous()) for one in stack.detach()]
    single = pion.Muon(twins, lr=0.1, scale="spectral", precision="f32")
    stack.grad = torch.randn(stack.shape, generator=torch.Generator().manual_seed(1))
    for twin, gradient in zip(twins, stack.grad, strict=True):
        twin.grad = gradient.t().contiguous()
    before = stack.detach().clone()
    optimizer.step(), single.step()
    moved, wanted = stack.detach() - before, torch.stack([t.detach().t() for t in twins]) - before
    # a sum of 32 products of f32 in another order, five times, behind Muon's slope at 0 (3.4^5)
    assert (moved - wanted).abs().max() < 32 * 5 * 480 * 2.0**-24 * wanted.abs().max()


HEADS = {  # by layer: the linear attention's two heads of 16, the softmax attention's of 8
    "qwen3_next": {"0.linear_attn.out_proj": [2], "0.linear_attn.in_proj_qkvz": [1],
                   "1.self_attn.q_proj": [8], "1.self_attn.o_proj": [4]},
    "qwen3_5": {"0.linear_attn.out_proj": [2], "0.linear_attn.in_proj_qkv": [1],
                "1.self_attn.q_proj": [8], "1.self_attn.k_proj": [2]},
    "olmo_hybrid": {"0.linear_attn.q_proj": [2], "0.linear_attn.k_proj": [2],
                    "0.linear_attn.v_proj": [2], "0.linear_attn.o_proj": [2],
                    "1.self_attn.q_proj": [4], "1.self_attn.o_proj": [4]},
    "kimi_linear": {"0.self_attn.q_proj": [2], "0.self_attn.o_proj": [2],
                    "1.self_attn.kv_b_proj": [1]},
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_linear_attention_is_cut_by_its_own_heads(name):
    model = getattr(zoo, name)()
    found = {r.name: r for r in pion.route(model).routes}
    for part, heads in HEADS[name].items():
        route = found[f"model.layers.{part}.weight"]
        assert (route.heads.heads, route.rule) == (heads, "pion"), route.reason
    whole = pion.route(model, per_head=False)
    assert {tuple(r.heads.heads) for r in whole.routes if r.shape and len(r.shape) == 2} == {(1,)}


def test_counts_of_linear_attention_can_be_given():
    model = zoo.olmo_hybrid()
    found = {r.name: r for r in pion.route(model, attention=(4, 2, 8, 1, 4)).routes}
    layer = "model.layers.0.linear_attn."
    assert found[layer + "q_proj.weight"].heads.heads == [1]
    assert found[layer + "v_proj.weight"].heads.heads == [4]
    # three counts say nothing of linear attention: whole
    found = {r.name: r for r in pion.route(model, attention=(4, 2, 8)).routes}
    assert found[layer + "v_proj.weight"].heads.heads == [1]
    assert "linear attention, head count unknown" in found[layer + "v_proj.weight"].reason


def test_the_models_train():
    for name in ("gpt_oss", "qwen3_next"):
        model = getattr(zoo, name)()
        optimizer = pion.PionAdamW(pion.route(model, rules={"matrices": "muon"}), lr=3e-3)
        losses = []
        for _ in range(3):
            loss = model(**zoo.batch(model)).loss
            loss.backward()
            optimizer.step(), optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[2] < losses[0]
