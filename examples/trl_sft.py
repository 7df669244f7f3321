# SPDX-License-Identifier: Apache-2.0
"""TRL's SFTTrainer with PionAdamW on sums of digits; model and tokenizer are made here.

pip install '.[torch]' trl && python examples/trl_sft.py"""

import tempfile

import torch
from datasets import Dataset
from pion.hosts.transformers import RoutedPionAdamW
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import SFTConfig, SFTTrainer

words = ["<pad>", "<eos>", "<unk>", *"0123456789+="]
split = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
split.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=split, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
)
torch.manual_seed(0)
model = Qwen3ForCausalLM(
    Qwen3Config(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        head_dim=16, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, eos_token_id=1,
    )
)  # fmt: skip
data = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(10) for b in range(10)]

with tempfile.TemporaryDirectory() as folder:
    trainer = SFTTrainer(
        model,
        SFTConfig(
            folder, max_steps=40, per_device_train_batch_size=16, logging_steps=10, report_to=[],
            use_cpu=True, bf16=False, disable_tqdm=True, save_strategy="no",
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        optimizer_cls_and_kwargs=(RoutedPionAdamW, {"lr": 3e-3, "weight_decay": 0.01}),
    )  # fmt: skip
    trainer.train()
