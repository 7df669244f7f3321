# SPDX-License-Identifier: Apache-2.0
"""What a parameter group holds: keys, defaults, and the rule that they come to.

Names, defaults, ranges and messages of a rule's keys are those of the C++ library; this file adds
the keys that belong to no rule. Groups stay JSON-clean: numbers, texts, lists, None.
"""

import functools
import math

import torch

from pion import group_values
from pion._pion import HeadLayout, Rule, nearest_name

# How a weight becomes matrices; a rule for matrices only.
LAYOUT_KEYS = {
    "heads": 1,  # blocks, each with its own norm, map and scale; a list beside split_sizes
    "head_axis": 0,  # 0 cuts output rows (Q, K, V), 1 input columns (O)
    "split_sizes": None,  # fused QKV: rows (or columns) of every part
    "transposed": False,  # stored (in, out), as GPT-2's Conv1D
    "fold": "auto",  # of more than two dimensions "conv": (out, rest) or "stack": the last two
}
# Any rule.
SHARED_KEYS = {
    "low_precision": "master",  # bf16: f32 "master" copy, "stochastic" rounding, "nearest"
    "maximize": False,  # step along the gradient
    "seed": 0,  # of stochastic rounding
}
FOLDS = ("auto", "conv", "stack")
LOW_PRECISIONS = ("master", "stochastic", "nearest")
# What torch.optim's own classes may hold; taken when off, refused when on.
REFUSED = {
    "foreach": "steps are batched by shape anyway",
    "differentiable": "a step of pion cannot be differentiated",
    "amsgrad": "no rule of pion has it",
}
# torch.optim.Muon's names
COUNTERPARTS = {"ns_steps": "steps", "adjust_lr_fn": "scale", "ns_coefficients": "coefficients"}
SCALES = {None: "original", "spectral_unclamped": "spectral"}  # adjust_lr_fn; others are the same
# What schedulers, hosts and users write into groups beside an optimizer's keys. They are kept and
# saved, and mean nothing to a step; so are keys that begin with "_".
NOTES = {
    *("params", "param_names", "rule", "name", "group_name"),
    *("initial_lr", "max_lr", "min_lr", "swa_lr"),  # torch's schedulers
    *("base_momentum", "max_momentum"),
    *("lr_scale", "lr_mult", "wd_mult", "layer_id"),  # timm, Megatron: their schedulers' factors
    *("is_decoupled_lr", "is_expert_parallel", "default_config"),  # Megatron
    *("rho", "adaptive", "use_gc", "perturb_eps"),  # SAM, which wraps an optimizer's groups
}


@functools.cache
def _rule_keys(rule: str) -> dict:
    # a name that is none raises with the nearest
    return {name: value for name, _, value in Rule(str(rule)).key_table()}


@functools.cache
def _group_defaults(rule: str) -> dict:
    keys = dict(_rule_keys(rule))
    if "beta1" in keys:  # torch.optim's form
        betas = (keys.pop("beta1"), keys.pop("beta2"))
        keys = {"lr": keys.pop("lr"), "betas": betas, **keys}
    if Rule(rule).is_matrix:
        keys |= LAYOUT_KEYS
    return keys | SHARED_KEYS


def group_defaults(rule: str) -> dict:
    """Every key of a group of that rule, with its default."""
    return dict(_group_defaults(rule))


def with_betas(keys: dict) -> dict:
    """beta1 and beta2, as routing files have them, as torch's betas."""
    if "beta1" not in keys and "beta2" not in keys:
        return keys
    keys = dict(keys)
    old = group_values.pair(keys.get("betas", _group_defaults("adamw")["betas"]), "keys")
    keys["betas"] = (keys.pop("beta1", old[0]), keys.pop("beta2", old[1]))
    return keys


def refuse(keys: dict, where: str):
    """Raises for an option of torch.optim that pion does not have; drops it if it is off."""
    for key, why in REFUSED.items():
        if keys.pop(key, None):
            raise ValueError(f"{where}: {key} must be off, got {key}=True: {why}")


def asked(keys: dict) -> dict:
    """Takes `fused` and `capturable` out of the keys: what torch.optim's classes are told, and what
    steps are anyway, unless the check of a group says otherwise."""
    return {key: bool(keys.pop(key)) for key in ("fused", "capturable") if key in keys}


def check_capturable(group: dict, parameters: list, where: str):
    """Raises ValueError if a step of the group cannot be part of a CUDA graph."""
    reasons = {
        'nonfinite "raise" asks the host': group["nonfinite"] == "raise",
        f'rule "{group["rule"]}" waits for eigenvalues': group["rule"]
        in ("low_rank_muon", "low_pass_muon"),
        "stochastic rounding takes its seeds from the host": group["low_precision"] == "stochastic"
        and any(p.dtype == torch.bfloat16 for p in parameters),
    }
    for why, holds in reasons.items():
        if holds:
            raise ValueError(f"{where}: capturable must be off, got capturable=True: {why}")


_rates = []  # (tensor, number) of this step


def forget_rates():
    """Rates on a device are read again from here on."""
    _rates.clear()


def rate_of(lr: torch.Tensor) -> float:
    """A tensor rate as a number; one on a device is waited for once a step."""
    if lr.device.type == "cpu":
        return lr.item()
    for tensor, number in list(_rates):
        if tensor is lr:
            return number
    _rates.append((lr, lr.item()))
    return _rates[-1][1]


def remedy(key: str, known) -> str:
    """What to write in the place of an unknown key, and the keys that there are."""
    meant, text = COUNTERPARTS.get(key), ""
    if meant in known:
        also = ' ("spectral_unclamped" is "spectral")' if key == "adjust_lr_fn" else ""
        text = f'it is called "{meant}" here{also}; '
    elif near := nearest_name(key, list(known)):
        text = f'did you mean "{near}"? '
    return f"{text}keys are: {' '.join(known)}"


def merge(own: dict, defaults: dict, rule: str, where: str) -> dict:
    """A group's keys: its own, then the defaults'. Of two keys that exclude one another, the
    group's own ends the default's."""
    own = with_betas(own)
    known = group_defaults(rule)
    for key in own:
        if key not in known and key not in NOTES and not key.startswith("_"):
            raise ValueError(
                f'{where}: unknown key "{key}" for rule "{rule}"; {remedy(key, known)}; '
                'one that is a note for other code begins with "_"'
            )
    merged = {key: defaults.get(key, value) for key, value in known.items()}
    for chosen, ended in (
        ("cutoff", "promotion_steps"),
        ("promotion_steps", "cutoff"),
        ("scale", "scale_factor"),
    ):
        if own.get(chosen) is not None and ended in merged and chosen in merged:
            merged[ended] = known[ended]
    merged |= own
    group_values.read_tensors(merged, known, where)
    return merged


def make_rule(group: dict, where: str) -> Rule:
    """The rule that a group's keys come to. A learning rate that is a tensor is left out."""
    keys = {}
    for key in _rule_keys(group["rule"]):
        if key in ("beta1", "beta2"):
            value = group["betas"][key == "beta2"]
        else:
            value = group[key]
        if isinstance(value, torch.Tensor):
            continue
        if value is not None:
            keys[key] = value
    try:
        return Rule(group["rule"], keys, where)
    except ValueError as error:
        raise ValueError(str(error).replace("set_rule_key:", f"{where}:", 1)) from None


def set_rate(rule: Rule, lr, where: str):
    """Gives the rule its learning rate, the one key that changes between steps."""
    try:
        rule.lr = lr
    except (TypeError, ValueError):  # also NaN and infinity
        raise ValueError(f"{where}: lr must be a number >= 0, got {lr!r}") from None


def is_stack(shape, fold: str) -> bool:
    """Whether a weight is a stack of matrices, be it of one: its last two dimensions are each."""
    return len(shape) > 2 and fold == "stack"


def matrix_shape(shape, fold: str) -> tuple[int, int, int]:
    """(count, rows, cols) of the matrices in a weight, one after the other in memory."""
    if not is_stack(shape, fold):
        return 1, shape[0], math.prod(shape[1:])
    return math.prod(shape[:-2]), shape[-2], shape[-1]


class Plan:
    """A group's keys, checked: what a step needs of them."""

    __slots__ = ("fingerprint", "fold", "layout", "low_precision", "maximize", "rule", "seed")

    def __init__(self, group: dict, fingerprint: tuple, where: str):
        self.fingerprint = fingerprint
        group_values.check(group, group_defaults(group["rule"]), where)
        self.rule = make_rule(group, where)
        self.low_precision = _one_of(group, "low_precision", LOW_PRECISIONS, where)
        self.maximize, self.seed = group["maximize"], group["seed"]
        self.fold, self.layout = "auto", HeadLayout()
        if self.rule.is_matrix:
            self.fold = _one_of(group, "fold", FOLDS, where)
            heads = group["heads"]
            self.layout = HeadLayout(
                group["head_axis"],
                list(group["split_sizes"] or []),
                [heads] if isinstance(heads, int) else list(heads),
                group["transposed"],
            )


def read_tensors(group: dict, where: str):
    """Tensors and numpy's numbers among the group's keys become Python's, in place; a tensor
    learning rate stays."""
    group_values.read_tensors(group, _group_defaults(group["rule"]), where)


def fingerprint(group: dict, where: str) -> tuple:
    """All keys but the learning rate, in a form that can be compared."""
    defaults = _group_defaults(group["rule"])
    try:
        return (
            group["rule"],
            *(_frozen(group[key]) for key in defaults if key != "lr"),
        )
    except KeyError as error:
        raise ValueError(
            f'{where} must hold every key of rule "{group["rule"]}", got no {error}; the rule of '
            "a group is chosen when it is made"
        ) from None


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value


def _one_of(group: dict, key: str, choices: tuple, where: str) -> str:
    if group[key] not in choices:
        names = " ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{where}: {key} must be one of {names}, got {group[key]!r}")
    return group[key]
