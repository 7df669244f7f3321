# SPDX-License-Identifier: Apache-2.0
"""Tiny models of Hugging Face's families, made from their configs, and a batch for each."""

import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers

VOCABULARY = 64
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _language(family: str, config: str | None = None, **keys):
    torch.manual_seed(0)
    made = getattr(transformers, config or f"{family}Config")(**{**_SIZES, **keys})
    return getattr(transformers, f"{family}ForCausalLM")(made)


def llama():
    return _language("Llama")


def mistral():
    return _language("Mistral", head_dim=8)


def qwen2(**keys):
    """Qwen2.5 is of this class: biases on queries, keys and values; small ones tie their head."""
    return _language("Qwen2", tie_word_embeddings=True, **keys)


def qwen3(**keys):
    return _language("Qwen3", head_dim=16, **keys)  # heads wider than hidden / heads


def gemma2():
    return _language("Gemma2", head_dim=8, query_pre_attn_scalar=8)


def gemma3():
    return _language("Gemma3", "Gemma3TextConfig", head_dim=8, query_pre_attn_scalar=8)


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=1, n_head=4, n_positions=64, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def qwen3_moe():
    return _language(
        "Qwen3Moe", head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        decoder_sparse_step=1,
    )  # fmt: skip


def mixtral():
    return _language("Mixtral", num_local_experts=4, num_experts_per_tok=2)


def gpt_oss():
    """Experts stored (in, out)."""
    return _language("GptOss", head_dim=8, num_local_experts=4, num_experts_per_tok=2)


def llama4():
    """Experts stored (in, out), beside a shared one stored (out, in)."""
    return _language(
        "Llama4", "Llama4TextConfig", head_dim=8, num_local_experts=4, num_experts_per_tok=1,
        intermediate_size_mlp=48,
    )  # fmt: skip


# two value heads of 16 where the softmax attention has four heads of 8
_LINEAR = {
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def qwen3_next():
    shared = {"shared_expert_intermediate_size": 16}
    return _language("Qwen3Next", head_dim=8, **_LINEAR, **_MIXTURE, **shared)


def qwen3_5():
    return _language("Qwen3_5", "Qwen3_5TextConfig", head_dim=8, **_LINEAR)


def olmo_hybrid():
    return _language("OlmoHybrid", **_LINEAR)


def kimi_linear():
    linear = {"layer_types": _LINEAR["layer_types"], "linear_num_heads": 2, "linear_head_dim": 16}
    latent = {"kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
    mixture = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    return _language("KimiLinear", **linear, **latent, **mixture, num_hidden_layers=2)


def vit():
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
        image_size=16, patch_size=8, num_labels=5,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def pi0():
    """A vision-language-action model: SigLIP, Gemma, and an action expert that is called dit."""
    torch.manual_seed(0)
    gemma = {"model_type": "gemma", "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 8}
    gemma |= {"num_key_value_heads": 1}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48}
    vision |= {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    config = transformers.PI0Config(
        vlm_config={
            "model_type": "paligemma",
            "text_config": {**gemma, "hidden_size": 32, "intermediate_size": 48, "vocab_size": 64},
            "vision_config": {**vision, "vision_use_head": False},
            "projection_dim": 32,
            "image_token_id": 63,
        },
        dit_config={**gemma, "hidden_size": 16, "intermediate_size": 24},
        chunk_size=4,
        max_state_dim=6,
        max_action_dim=5,
    )
    return transformers.PI0ForConditionalGeneration(config)


def adapted(model, **keys):
    """The model under LoRA of rank 4 on every projection, by peft."""
    import peft

    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **keys)
    return peft.get_peft_model(model, config)


def batch(model) -> dict:
    """The same few examples every time."""
    generator = torch.Generator().manual_seed(3)
    config = getattr(model, "config", None)
    if config.model_type == "vit":
        images = torch.randn(4, 3, 16, 16, generator=generator)
        return {"pixel_values": images, "labels": torch.tensor([0, 1, 2, 3])}
    tokens = torch.randint(3, VOCABULARY - 1, (4, 12), generator=generator)
    if config.model_type != "pi0":
        return {"input_ids": tokens, "labels": tokens}
    tokens[:, :4] = 63  # one image of four patches
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "pixel_values": torch.randn(4, 1, 3, 16, 16, generator=generator),
        "pixel_attention_mask": torch.ones(4, 1, dtype=torch.bool),
        "state": torch.randn(4, 6, generator=generator),
        "actions": torch.randn(4, 4, 5, generator=generator),
        "noise": torch.randn(4, 4, 5, generator=generator),
        "timestep": torch.rand(4, generator=generator),
    }
