# SPDX-License-Identifier: Apache-2.0
"""For transformers' Trainer (5.0 or newer) and what derives from it.

Trainer(..., optimizer_cls_and_kwargs=(RoutedPionAdamW, {"lr": 1e-3, "weight_decay": 0.01}))
"""

import sys

from torch import nn

from pion.optimizers import PionAdamW
from pion.routing import Routing, route

ROUTE_KEYS = ("preset", "rules", "overrides", "per_head", "attention", "attention_by_name")
NO_DECAY = ("norm", "bias")  # roles that the Trainer itself keeps out of weight decay


class RoutedPionAdamW:
    """A factory, as the Trainer takes it in place of an optimizer class: made without arguments,
    called with the model. Keys of pion.route go there, `matrices` too, as the rule of matrices; the
    rest goes to PionAdamW. Norms and biases get no weight decay, as with the Trainer's own
    optimizers. Of TrainingArguments weight_decay holds for what has any, and adam_beta1,
    adam_beta2 and adam_epsilon for AdamW's part, unless given here. The learning rate is `lr`
    here, not TrainingArguments.learning_rate; schedulers start from it."""

    def __call__(self, model: nn.Module, **keys) -> PionAdamW:
        told = _told_by_trainer()
        chosen = {key: keys.pop(key) for key in ROUTE_KEYS if key in keys}
        if "matrices" in keys:
            rules = dict(chosen.get("rules") or {})
            if "matrices" in rules:
                raise ValueError(
                    "RoutedPionAdamW: the rule of matrices must be chosen once, got matrices= and "
                    'rules={"matrices": ...}'
                )
            chosen["rules"] = rules | {"matrices": keys["matrices"]}
        routing = route(model, **chosen)
        if all(r.rule != "adamw" for r in routing.routes):
            told = {key: value for key, value in told.items() if key == "weight_decay"}
        return PionAdamW(_without_decay(routing), **(told | keys))


def _told_by_trainer() -> dict:
    """Keys of the TrainingArguments of the Trainer that calls, which hands its factories the model
    and the keys of optimizer_cls_and_kwargs alone; none outside of one."""
    frame = sys._getframe(2)
    while frame is not None:
        caller = frame.f_locals.get("self")
        args = getattr(caller, "args", None)
        if hasattr(caller, "optimizer_cls_and_kwargs") and hasattr(args, "weight_decay"):
            return {
                "weight_decay": args.weight_decay,
                "betas": (args.adam_beta1, args.adam_beta2),
                "eps": args.adam_epsilon,
            }
        frame = frame.f_back
    return {}


def _without_decay(routing: Routing) -> list[dict]:
    spared = {r.name for r in routing.routes if r.role in NO_DECAY}
    groups = []
    for group in routing.to_param_groups():
        kept = [pair for pair in group["params"] if pair[0] not in spared]
        rest = [pair for pair in group["params"] if pair[0] in spared]
        if kept:
            groups.append({**group, "params": kept})
        if rest:
            groups.append({**group, "params": rest, "weight_decay": 0.0})
    return groups
