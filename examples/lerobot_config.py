# SPDX-License-Identifier: Apache-2.0
"""LeRobot's optimizer configuration with PionAdamW: parsed as its command line does, built from a
policy's parameters, saved and loaded by LeRobot's own functions.

pip install '.[torch]' lerobot && python examples/lerobot_config.py --optimizer.lr=3e-3"""

import dataclasses
import pathlib
import sys
import tempfile

import draccus
import pion.hosts.lerobot
import torch
from lerobot.optim.optimizers import OptimizerConfig, load_optimizer_state, save_optimizer_state
from torch import nn


@dataclasses.dataclass
class Run:
    optimizer: OptimizerConfig


class Policy(nn.Module):
    """Observations to a chunk of eight actions."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 64), nn.GELU())
        self.action_expert = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
        self.action_head = nn.Linear(64, 8 * 4)

    def forward(self, observation):
        return self.action_head(self.action_expert(self.encoder(observation))).unflatten(1, (8, 4))


torch.manual_seed(0)
config = draccus.parse(Run, args=["--optimizer.type=pion", *sys.argv[1:]]).optimizer
policy, target = Policy(), torch.randn(8, 4)
pion.bind_names(policy)  # LeRobot gives names to few optimizers, and module types to none
optimizer = config.build(policy.parameters())
with tempfile.TemporaryDirectory() as folder:
    for step in range(60):
        observation = torch.randn(64, 12)
        loss = nn.functional.mse_loss(policy(observation), observation[:, :1, None] * target)
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), config.grad_clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 19:
            save_optimizer_state(optimizer, pathlib.Path(folder))
            optimizer = load_optimizer_state(optimizer, pathlib.Path(folder))
            print(f"step {step}  loss {loss.item():.3f}")
