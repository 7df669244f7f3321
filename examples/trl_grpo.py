# SPDX-License-Identifier: Apache-2.0
"""TRL's GRPOTrainer with PionAdamW: a model is rewarded for answering with even digits.

pip install '.[torch]' trl && python examples/trl_grpo.py"""

import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

import pion

words = ["<pad>", "<eos>", "<unk>", *"0123456789"]
split = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
split.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=split, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
    padding_side="left",
)  # fmt: skip
torch.manual_seed(0)
model = Qwen3ForCausalLM(
    Qwen3Config(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        head_dim=8, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, eos_token_id=1,
    )
)  # fmt: skip


def even_digits(completions, **_):
    return [sum(text.count(d) for d in "02468") / 8 for text in completions]


with tempfile.TemporaryDirectory() as folder:
    # GRPOTrainer takes the optimizer itself; None: its own schedule on it
    optimizer = pion.PionAdamW(pion.route(model), lr=1e-2)
    trainer = GRPOTrainer(
        model,
        even_digits,
        GRPOConfig(
            folder, max_steps=15, per_device_train_batch_size=16, num_generations=8, report_to=[],
            max_completion_length=8, logging_steps=5, use_cpu=True, bf16=False, disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list([{"prompt": str(i)} for i in range(10)]),
        processing_class=tokenizer,
        optimizers=(optimizer, None),
    )  # fmt: skip
    trainer.train()
