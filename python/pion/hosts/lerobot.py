# SPDX-License-Identifier: Apache-2.0
"""For LeRobot: importing this module registers the optimizer type "pion".

    import pion.hosts.lerobot          # before the configuration is parsed
    --use_policy_training_preset=false --optimizer.type=pion --optimizer.lr=1e-4

LeRobot hands over named parameters, groups, or policy.parameters() alone, by policy; for the last
two call pion.bind_names(policy) once the policy is made. save_optimizer_state and
load_optimizer_state keep pion's state.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from lerobot.optim.optimizers import OptimizerConfig

from pion.optimizers import PionAdamW


@OptimizerConfig.register_subclass("pion")
@dataclass
class PionConfig(OptimizerConfig):
    """PionAdamW: `matrices` is the rule of hidden matrices, AdamW steps the rest."""

    lr: float = 1e-4
    weight_decay: float = 1e-2
    grad_clip_norm: float = 10.0  # by LeRobot's loop, before the step
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    matrices: str = "pion"
    keys: dict[str, Any] = field(default_factory=dict)  # any other key of PionAdamW

    def build(self, params) -> PionAdamW:
        if isinstance(params, dict):
            for name, value in params.items():
                if not isinstance(value, torch.Tensor):
                    raise TypeError(
                        "PionConfig.build: params must be one model's parameters, got "
                        f'{type(value).__name__} for "{name}"; build one optimizer for each part, '
                        "as policies of several optimizers do"
                    )
            params = params.items()
        return PionAdamW(
            params, lr=self.lr, weight_decay=self.weight_decay, betas=self.betas, eps=self.eps,
            matrices=self.matrices, **self.keys,
        )  # fmt: skip
