# SPDX-License-Identifier: Apache-2.0
"""pion.route on the models that people train: the table, name by name, and two steps of each.

A row of a table: name, role, and where a matrix rule steps it, blocks and the shape of one:
"4 rows 8x32" is four heads along the rows. The scale is derived from the block.
"""

import math
import re

import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
import zoo

import pion

pytestmark = pytest.mark.hosts


def rows(text: str, prefix: str = "") -> dict:
    """{name: (role, blocks)}"""
    table = {}
    for line in text.strip().splitlines():
        name, role, *blocks = line.split(maxsplit=2)
        table[prefix + name] = (role, blocks[0].strip() if blocks else None)
    return table


def under(prefix: str, table: dict) -> dict:
    return {prefix + name: row for name, row in table.items()}


MLP = """
mlp.gate_proj.weight  hidden_matrix  1 rows 48x32
mlp.up_proj.weight    hidden_matrix  1 rows 48x32
mlp.down_proj.weight  hidden_matrix  1 rows 32x48
"""
ATTENTION = """
self_attn.q_proj.weight  attention_q  4 rows 8x32
self_attn.k_proj.weight  attention_k  2 rows 8x32
self_attn.v_proj.weight  attention_v  2 rows 8x32
self_attn.o_proj.weight  attention_o  4 cols 32x8
"""
NORMS = """
input_layernorm.weight           norm
post_attention_layernorm.weight  norm
"""
LAYER = under("model.layers.0.", rows(ATTENTION) | rows(MLP) | rows(NORMS))
ENDS = rows("""
model.embed_tokens.weight  embedding
model.norm.weight          norm
lm_head.weight             head
""")
LLAMA = ENDS | LAYER
QK_NORMS = """
model.layers.0.self_attn.q_norm.weight  norm
model.layers.0.self_attn.k_norm.weight  norm
"""
GEMMA_NORMS = """
model.layers.0.pre_feedforward_layernorm.weight   norm
model.layers.0.post_feedforward_layernorm.weight  norm
"""
QWEN2 = LLAMA | rows("""
model.layers.0.self_attn.q_proj.bias  bias
model.layers.0.self_attn.k_proj.bias  bias
model.layers.0.self_attn.v_proj.bias  bias
""")
# head_dim 16 of its own: q_proj is (64, 32), o_proj (32, 64)
QWEN3 = LLAMA | rows(QK_NORMS) | rows("""
model.layers.0.self_attn.q_proj.weight  attention_q  4 rows 16x32
model.layers.0.self_attn.k_proj.weight  attention_k  2 rows 16x32
model.layers.0.self_attn.v_proj.weight  attention_v  2 rows 16x32
model.layers.0.self_attn.o_proj.weight  attention_o  4 cols 32x16
""")  # fmt: skip
GEMMA2 = LLAMA | rows(GEMMA_NORMS)
GEMMA3 = GEMMA2 | rows(QK_NORMS)
# Conv1D stores (in, out): heads of outputs are columns, those of inputs are rows
GPT2 = rows("""
transformer.wte.weight              embedding
transformer.wpe.weight              embedding
transformer.h.0.ln_1.weight         norm
transformer.h.0.ln_1.bias           bias
transformer.h.0.attn.c_attn.weight  attention_fused_qkv  4+4+4 cols 32x8
transformer.h.0.attn.c_attn.bias    bias
transformer.h.0.attn.c_proj.weight  attention_o          4 rows 8x32
transformer.h.0.attn.c_proj.bias    bias
transformer.h.0.ln_2.weight         norm
transformer.h.0.ln_2.bias           bias
transformer.h.0.mlp.c_fc.weight     hidden_matrix        1 rows 32x128
transformer.h.0.mlp.c_fc.bias       bias
transformer.h.0.mlp.c_proj.weight   hidden_matrix        1 rows 128x32
transformer.h.0.mlp.c_proj.bias     bias
transformer.ln_f.weight             norm
transformer.ln_f.bias               bias
lm_head.weight                      head
""")
MOE_ENDS = ENDS | under("model.layers.0.", rows(ATTENTION) | rows(NORMS))
# an expert's gate and up stand above one another in one matrix, as the model multiplies them
QWEN3_MOE = MOE_ENDS | rows(QK_NORMS) | rows("""
model.layers.0.mlp.gate.weight           router
model.layers.0.mlp.experts.gate_up_proj  expert_stack  4 rows 32x32
model.layers.0.mlp.experts.down_proj     expert_stack  4 rows 32x16
""")  # fmt: skip
MIXTRAL = MOE_ENDS | rows("""
model.layers.0.mlp.gate.weight           router
model.layers.0.mlp.experts.gate_up_proj  expert_stack  4 rows 96x32
model.layers.0.mlp.experts.down_proj     expert_stack  4 rows 32x48
""")
VIT = rows("""
vit.embeddings.cls_token                           embedding
vit.embeddings.position_embeddings                 embedding
vit.embeddings.patch_embeddings.projection.weight  embedding
vit.embeddings.patch_embeddings.projection.bias    bias
vit.layers.0.attention.q_proj.weight   attention_q    4 rows 8x32
vit.layers.0.attention.q_proj.bias     bias
vit.layers.0.attention.k_proj.weight   attention_k    4 rows 8x32
vit.layers.0.attention.k_proj.bias     bias
vit.layers.0.attention.v_proj.weight   attention_v    4 rows 8x32
vit.layers.0.attention.v_proj.bias     bias
vit.layers.0.attention.o_proj.weight   attention_o    4 cols 32x8
vit.layers.0.attention.o_proj.bias     bias
vit.layers.0.layernorm_before.weight   norm
vit.layers.0.layernorm_before.bias     bias
vit.layers.0.layernorm_after.weight    norm
vit.layers.0.layernorm_after.bias      bias
vit.layers.0.mlp.fc1.weight            hidden_matrix  1 rows 48x32
vit.layers.0.mlp.fc1.bias              bias
vit.layers.0.mlp.fc2.weight            hidden_matrix  1 rows 32x48
vit.layers.0.mlp.fc2.bias              bias
vit.layernorm.weight                   norm
vit.layernorm.bias                     bias
classifier.weight                      head
classifier.bias                        bias
""")
GEMMA_LAYER = rows("""
layers.0.self_attn.q_proj.weight          attention_q    4 rows 8x{w}
layers.0.self_attn.k_proj.weight          attention_k    1 rows 8x{w}
layers.0.self_attn.v_proj.weight          attention_v    1 rows 8x{w}
layers.0.self_attn.o_proj.weight          attention_o    4 cols {w}x8
layers.0.mlp.gate_proj.weight             hidden_matrix  1 rows {m}x{w}
layers.0.mlp.up_proj.weight               hidden_matrix  1 rows {m}x{w}
layers.0.mlp.down_proj.weight             hidden_matrix  1 rows {w}x{m}
layers.0.input_layernorm.weight           norm
layers.0.post_attention_layernorm.weight  norm
norm.weight                               norm
embed_tokens.weight                       embedding
""")


def gemma_layer(width: int, middle: int) -> dict:
    return {
        name: (role, blocks and blocks.format(w=width, m=middle))
        for name, (role, blocks) in GEMMA_LAYER.items()
    }


SIGLIP = rows("""
embeddings.patch_embedding.weight           embedding
embeddings.patch_embedding.bias             bias
embeddings.position_embedding.weight        embedding
encoder.layers.0.layer_norm1.weight         norm
encoder.layers.0.layer_norm1.bias           bias
encoder.layers.0.self_attn.q_proj.weight    attention_q    2 rows 16x32
encoder.layers.0.self_attn.q_proj.bias      bias
encoder.layers.0.self_attn.k_proj.weight    attention_k    2 rows 16x32
encoder.layers.0.self_attn.k_proj.bias      bias
encoder.layers.0.self_attn.v_proj.weight    attention_v    2 rows 16x32
encoder.layers.0.self_attn.v_proj.bias      bias
encoder.layers.0.self_attn.out_proj.weight  attention_o    2 cols 32x16
encoder.layers.0.self_attn.out_proj.bias    bias
encoder.layers.0.layer_norm2.weight         norm
encoder.layers.0.layer_norm2.bias           bias
encoder.layers.0.mlp.fc1.weight             hidden_matrix  1 rows 48x32
encoder.layers.0.mlp.fc1.bias               bias
encoder.layers.0.mlp.fc2.weight             hidden_matrix  1 rows 32x48
encoder.layers.0.mlp.fc2.bias               bias
post_layernorm.weight                       norm
post_layernorm.bias                         bias
""")
PI0 = (
    under("model.dit.", gemma_layer(16, 24))
    | under("model.vlm.language_model.", gemma_layer(32, 48))
    | under("model.vlm.vision_tower.", SIGLIP)
    | rows("""
model.vlm.multi_modal_projector.linear.weight  hidden_matrix  1 rows 32x32
model.vlm.multi_modal_projector.linear.bias    bias
embed_action_time.action_in_proj.weight        embedding
embed_action_time.action_in_proj.bias          bias
embed_action_time.state_proj.weight            embedding
embed_action_time.state_proj.bias              bias
embed_action_time.action_time_mlp_in.weight    hidden_matrix  1 rows 16x32
embed_action_time.action_time_mlp_in.bias      bias
embed_action_time.action_time_mlp_out.weight   hidden_matrix  1 rows 16x16
embed_action_time.action_time_mlp_out.bias     bias
action_out_proj.weight                         head
action_out_proj.bias                           bias
""")
)
MODELS = {
    "llama": (zoo.llama, LLAMA),
    "mistral": (zoo.mistral, LLAMA),
    "qwen2": (zoo.qwen2, QWEN2),
    "qwen3": (zoo.qwen3, QWEN3),
    "gemma2": (zoo.gemma2, GEMMA2),
    "gemma3": (zoo.gemma3, GEMMA3),
    "gpt2": (zoo.gpt2, GPT2),
    "qwen3_moe": (zoo.qwen3_moe, QWEN3_MOE),
    "mixtral": (zoo.mixtral, MIXTRAL),
    "vit": (zoo.vit, VIT),
    "pi0": (zoo.pi0, PI0),
}


def described(routing) -> dict:
    """{name: (role, blocks)} of a routing, in the tables' words."""
    table = {}
    for r in routing.routes:
        blocks = None
        if r.is_matrix:
            shape = list(r.shape[-2:])
            count, axis = r.heads.heads, r.heads.axis
            if r.role != "expert_stack":
                shape[axis] //= sum(count)
            blocks = f"{'+'.join(map(str, count))} {('rows', 'cols')[axis]} {shape[0]}x{shape[1]}"
        table[r.name] = (r.role, blocks)
    return table


def printed_scales(routing) -> dict:
    """The scale column of the printed table, by name; AdamW has none."""
    found = re.findall(
        r"^(\S+) .*(?:match_rms_adamw|official) ([\d.]+)", str(routing), re.MULTILINE
    )
    return {name: float(scale) for name, scale in found}


def expected_scales(table: dict) -> dict:
    """0.2 sqrt(the block's longer side)."""
    sides = {n: map(int, b.split()[2].split("x")) for n, (_, b) in table.items() if b}
    return {name: 0.2 * math.sqrt(max(pair)) for name, pair in sides.items()}


def train(model, optimizer, steps: int = 2) -> list[float]:
    """Losses of the same batch before and after every step."""
    model.train()
    batch, losses = zoo.batch(model), []
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return [*losses, model(**batch).loss.item()]


@pytest.mark.parametrize("name", MODELS)
def test_the_table_name_by_name(name):
    make, table = MODELS[name]
    routing = pion.route(make())
    assert described(routing) == table
    matrices = {n for n, (_, blocks) in table.items() if blocks}
    for r in routing.routes:
        assert r.rule == ("pion" if r.name in matrices else "adamw"), r.name
    assert printed_scales(routing) == pytest.approx(expected_scales(table), rel=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_two_steps(name):
    model = MODELS[name][0]()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = pion.PionAdamW(pion.route(model, rules={"matrices": "muon"}), lr=3e-3)
    losses = train(model, optimizer)
    assert losses[2] < losses[1] < losses[0]
    for parameter_name, parameter in model.named_parameters():
        # the vision-language part of PI0 ends in keys and values: what comes after moves nothing
        moved = not torch.equal(parameter, before[parameter_name])
        assert moved == (parameter.grad is None and parameter in optimizer.state), parameter_name
        assert torch.isfinite(parameter).all()


def test_tied_heads_stay_tied():
    for make, tied in ((zoo.qwen2, True), (zoo.gpt2, True), (zoo.gemma3, True), (zoo.llama, False)):
        model = make()
        routing = pion.route(model)
        (head,) = [r for r in routing.routes if r.name == "lm_head.weight"]
        assert bool(head.parameter.tied_to) == tied
        names = [n for g in routing.to_param_groups() for n, _ in g["params"]]
        assert ("lm_head.weight" in names) != tied
        train(model, pion.PionAdamW(routing, lr=1e-2), 1)
        embedded = model.get_input_embeddings().weight
        assert (model.get_output_embeddings().weight.data_ptr() == embedded.data_ptr()) == tied


def test_the_fused_weight_of_gpt2_is_stepped_as_its_twelve_heads():
    """Conv1D's (in, 3 out) against the same blocks as parameters of their own."""
    model = zoo.gpt2()
    optimizer = pion.PionAdamW(pion.route(model), lr=0.1, precision="f32", weight_decay=0.1)
    fused = model.transformer.h[0].attn.c_attn.weight
    heads = [torch.nn.Parameter(b.T.contiguous()) for b in fused.detach().split(8, 1)]
    assert len(heads) == 12
    separate = pion.Pion(heads, lr=0.1, precision="f32", weight_decay=0.1)
    model(**zoo.batch(model)).loss.backward()
    for head, gradient in zip(heads, fused.grad.split(8, 1), strict=True):
        head.grad = gradient.T.contiguous()
    optimizer.step(), separate.step()
    # transposing reorders sums of 32 products of f32: a few units in the last place of the map
    joined = torch.cat([head.detach().T for head in heads], 1)
    assert (fused.detach() - joined).abs().max() < 32 * 2.0**-24 * joined.abs().max()


def test_adapters_step_b_as_matrices_and_a_by_adamw():
    model = zoo.adapted(zoo.qwen3(), modules_to_save=["lm_head"], use_dora=True)
    routing = pion.route(model)
    groups = routing.to_param_groups()
    rule = {n: g["rule"] for g in groups for n, _ in g["params"]}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained < set(rule)  # frozen ones too: they have no gradient
    for name in trained:
        assert rule[name] == ("pion" if ".lora_B." in name else "adamw"), name
    roles = {r.name: r.role for r in routing.routes}
    (head,) = [n for n in trained if "modules_to_save" in n]
    assert roles[head] == "head"
    assert {roles[n] for n in trained if "magnitude" in n} == {"vector"}
    assert {roles[n] for n in trained if ".lora_A." in n} == {"adapter_a"}
    optimizer = pion.PionAdamW(routing, lr=1e-2)
    losses = train(model, optimizer, 3)
    assert losses[3] < losses[0]
    assert len(optimizer.state) == len(trained)


def test_adapters_of_embeddings_and_of_stored_in_out():
    model = zoo.gpt2()
    import peft

    config = peft.LoraConfig(r=4, target_modules=["c_attn", "wte"], fan_in_fan_out=True)
    model = peft.get_peft_model(model, config)
    trained = {r.name: r for r in pion.route(model).routes if "lora" in r.name}
    b = [r for n, r in trained.items() if "lora_B" in n]
    assert [(r.role, r.shape, r.heads.axis) for r in b] == [("hidden_matrix", [96, 4], 0)]
    assert all(not r.is_matrix for n, r in trained.items() if "embedding" in n)
    everywhere = pion.route(model, overrides={"*lora_B*": "rest"})
    assert not [r for r in everywhere.routes if r.is_matrix and not r.parameter.frozen]


def test_an_action_expert_takes_pion_and_the_towers_muon():
    model = zoo.pi0()
    routing = pion.route(model, preset="paper-vla")
    # to the authors what reads states and actions is of the action module
    table = PI0 | rows("""
embed_action_time.action_in_proj.weight  hidden_matrix  1 rows 16x5
embed_action_time.state_proj.weight      hidden_matrix  1 rows 16x6
""")
    for r in routing.routes:
        expected = "adamw"
        if table[r.name][1]:
            action = r.name.startswith(("model.dit.", "embed_action_time."))
            expected = "pion" if action else "muon"
        assert r.rule == expected, r.name
    assert described(routing) == table
    # the authors' scale in this recipe is 0.2 sqrt(longer side) too
    assert printed_scales(routing) == pytest.approx(expected_scales(table), rel=1e-3)
    losses = train(model, pion.PionAdamW(routing))
    assert losses[2] < losses[0]
