# SPDX-License-Identifier: Apache-2.0
"""Accelerate with PionAdamW: prepare, accumulate gradients, clip, save and load everything.

pip install '.[torch]' accelerate transformers && python examples/accelerate_loop.py"""

import tempfile

import torch
from accelerate import Accelerator
from transformers import LlamaConfig, LlamaForCausalLM

import pion

torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )
)  # fmt: skip
optimizer = pion.PionAdamW(pion.route(model), lr=5e-3, weight_decay=0.01)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)
starts, strides = torch.randint(64, (512, 1)), torch.randint(1, 9, (512, 1))
tokens = (starts + strides * torch.arange(24)) % 64
loader = torch.utils.data.DataLoader(tokens, batch_size=16, shuffle=True)
model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)


def epoch() -> float:
    for batch in loader:
        with accelerator.accumulate(model):
            loss = model(input_ids=batch, labels=batch).loss
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                # the clip reaches AdamW's part; a matrix rule has a step of fixed size anyway
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return loss.item()


with tempfile.TemporaryDirectory() as folder:
    print(f"epoch 1  loss {epoch():.3f}")
    accelerator.save_state(folder)
    print(f"epoch 2  loss {epoch():.3f}")
    accelerator.load_state(folder)
    print(f"epoch 2  loss {epoch():.3f}  again, from the saved state")
