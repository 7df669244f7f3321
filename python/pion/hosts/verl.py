# SPDX-License-Identifier: Apache-2.0
"""For verl, whose build_optimizer hands an optimizer `module.parameters()`, without names.

Importing this module makes verl's FSDP engine call pion.bind_names on its model before it builds
the optimizer; nothing else changes. Workers import it by configuration:

    actor_rollout_ref.model.external_lib=pion.hosts.verl
    actor_rollout_ref.actor.optim.optimizer_impl=pion
    actor_rollout_ref.actor.optim.optimizer=PionAdamW
    +actor_rollout_ref.actor.optim.override_optimizer_config.matrices=muon

verl passes lr, weight_decay and, since the class has "adam" in its name, betas; what else
PionAdamW takes goes into override_optimizer_config. With code of your own around build_optimizer,
call pion.bind_names(model) yourself. Without either PionAdamW raises ValueError: embeddings and
hidden matrices cannot be told apart by shape.
"""

import functools

from verl.workers.engine.fsdp.transformer_impl import FSDPEngine

from pion.routing import bind_names


def _bind_first(build):
    @functools.wraps(build)
    def build_optimizer(self, module):
        bind_names(module)
        return build(self, module)

    return build_optimizer


FSDPEngine._build_optimizer = _bind_first(FSDPEngine._build_optimizer)
