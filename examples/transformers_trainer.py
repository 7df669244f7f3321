# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer with PionAdamW: a tiny Qwen3 learns to continue sequences of equal steps.

pip install '.[torch]' transformers accelerate && python examples/transformers_trainer.py"""

import tempfile

import torch
from pion.hosts.transformers import RoutedPionAdamW
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

torch.manual_seed(0)
model = Qwen3ForCausalLM(
    Qwen3Config(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2,
    )
)  # fmt: skip
starts, strides = torch.randint(64, (512, 1)), torch.randint(1, 9, (512, 1))
tokens = (starts + strides * torch.arange(24)) % 64
data = [{"input_ids": row, "labels": row} for row in tokens]

with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        model,
        TrainingArguments(
            folder, max_steps=60, per_device_train_batch_size=16, logging_steps=20, report_to=[],
            lr_scheduler_type="cosine", warmup_steps=5, use_cpu=True, disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=data,
        # the rate is given here; "preset", "rules", "overrides" of pion.route may stand here too
        optimizer_cls_and_kwargs=(RoutedPionAdamW, {"lr": 5e-3, "weight_decay": 0.01}),
    )  # fmt: skip
    trainer.train()
