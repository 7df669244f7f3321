# SPDX-License-Identifier: Apache-2.0
"""verl's optimizer factory with PionAdamW. verl itself trains on GPUs only; this runs the part that
makes the optimizer, as the FSDP engine does. What goes into a run's configuration:

    actor_rollout_ref.model.external_lib=pion.hosts.verl
    actor_rollout_ref.actor.optim.optimizer_impl=pion
    actor_rollout_ref.actor.optim.optimizer=PionAdamW

pip install '.[torch]' verl transformers && python examples/verl_optimizer.py"""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from verl.workers.config.optimizer import FSDPOptimizerConfig, build_optimizer

import pion

torch.manual_seed(0)
model = Qwen3ForCausalLM(
    Qwen3Config(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2,
    )
)  # fmt: skip
config = FSDPOptimizerConfig(
    optimizer_impl="pion",
    optimizer="PionAdamW",
    lr=3e-3,
    weight_decay=0.01,
    betas=(0.9, 0.99),
    override_optimizer_config={"matrices": "muon", "steps": 5},
)
try:
    build_optimizer(model.parameters(), config)
except ValueError as error:
    print(f"without names: {error}\n")

pion.bind_names(model)  # pion.hosts.verl does this in the engine
optimizer = build_optimizer(model.parameters(), config)
for step in range(40):
    tokens = (torch.randint(64, (16, 1)) + torch.randint(1, 9, (16, 1)) * torch.arange(24)) % 64
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad)
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 9:
        print(f"step {step}  loss {loss.item():.3f}")
