# SPDX-License-Identifier: Apache-2.0
"""What the arguments of pion.route must be, and the library's refusals in Python's words."""

import operator
from collections.abc import Iterable, Mapping

import torch

from pion.group_values import pair as two_betas
from pion.group_values import read_tensors
from pion.parameter_lists import described


def named_parameters(model) -> list:
    """(name, parameter) pairs, from pairs or a mapping."""
    wanted = "route: model must be a torch.nn.Module or (name, parameter) pairs, got"
    instead = "give the model itself or model.named_parameters()"
    try:
        pairs = list(model.items()) if isinstance(model, Mapping) else list(model)
    except TypeError:  # cannot be iterated
        raise TypeError(f"{wanted} {described(model)}; {instead}") from None
    for entry in pairs:
        pair = isinstance(entry, tuple | list) and len(entry) == 2
        if not (pair and isinstance(entry[0], str) and isinstance(entry[1], torch.Tensor)):
            raise TypeError(f"{wanted} {described(entry)} in place of a pair; {instead}")
    return pairs


def rules_of(rules) -> dict:
    """{"matrices": keys, "rest": keys}, of what was given; keys have "rule" if a name was."""
    if rules is not None and not isinstance(rules, Mapping):
        raise TypeError(
            f'route: rules must be a dict such as {{"matrices": "muon"}}, got {rules!r}'
        )
    result = {}
    for part, chosen in (rules or {}).items():
        if part not in ("matrices", "rest"):
            raise ValueError(f'route: rules must have "matrices" or "rest", got "{part}"')
        keys = {"rule": chosen} if isinstance(chosen, str) else chosen
        if not isinstance(keys, Mapping) or not isinstance(keys.get("rule", ""), str):
            raise TypeError(
                f'route: rules["{part}"] must be a rule\'s name or a dict of its keys with "rule", '
                f"got {chosen!r}"
            )
        keys = dict(keys)
        if "betas" in keys:
            keys["beta1"], keys["beta2"] = two_betas(keys.pop("betas"), f'route: rules["{part}"]')
        result[part] = keys
    return result


def overrides_of(overrides) -> list[tuple[str, str]]:
    """(glob, decision) pairs, from a dict or pairs."""
    if isinstance(overrides, Mapping):
        overrides = overrides.items()
    if isinstance(overrides, str) or not isinstance(overrides or (), Iterable):
        raise TypeError(
            'route: overrides must be a dict such as {"*.proj.weight": "matrix"}, '
            f"got {overrides!r}"
        )
    pairs = list(overrides or ())
    for entry in pairs:
        if not isinstance(entry, tuple | list) or len(entry) != 2:
            raise TypeError(
                f"route: overrides must be (glob on the name, decision) pairs, got {entry!r}"
            )
        glob, decision = entry
        if not isinstance(glob, str) or not isinstance(decision, str):
            raise TypeError(
                f'route: overrides[{glob!r}] must be "matrix", "rest" or a rule\'s name, '
                f"got {decision!r}; keys of a rule are given in rules="
            )
    return [tuple(entry) for entry in pairs]


def rates_of(lr_by_role) -> list[tuple[str, float]]:
    """(role, rate) pairs."""
    if not isinstance(lr_by_role, Mapping | None):
        raise TypeError(
            f'route: lr_by_role must be a dict such as {{"embedding": 3e-4}}, got {lr_by_role!r}'
        )
    rates = dict(lr_by_role or {})
    read_tensors(rates, rates, "route: lr_by_role")
    for role, rate in rates.items():
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not isinstance(role, str) or not number:
            raise TypeError(
                f"route: lr_by_role must have rates by the names of roles, got {role!r}: {rate!r}"
            )
    return [(role, float(rate)) for role, rate in rates.items()]


def attention_of(counts, option: str) -> tuple[int, ...]:
    """(heads, kv_heads, head_dim), and those of linear attention if given; 0 for unknown."""
    right = isinstance(counts, tuple | list) and len(counts) in (3, 5)
    try:
        right = right and all(operator.index(count) >= 0 for count in counts)
    except TypeError:
        right = False
    if not right:
        raise ValueError(
            f"route: {option} must be three counts (heads, kv_heads, head_dim), or five with "
            f"(..., linear_key_heads, linear_value_heads), 0 for unknown, got {counts!r}"
        )
    return tuple(operator.index(count) for count in counts)


def attention_by_name_of(by_name) -> list:
    if not isinstance(by_name, Mapping | None):
        raise TypeError(
            "route: attention_by_name must be a dict of globs and counts such as "
            f'{{"text.*": (8, 2, 64)}}, got {by_name!r}'
        )
    return [
        (glob, attention_of(counts, f"attention_by_name[{glob!r}]"))
        for glob, counts in (by_name or {}).items()
    ]


def in_python(message: str) -> str:
    """The library's message with overrides and routing files as Python writes them."""
    head, found, rest = message.rpartition(': {"')
    if not found or "(Routing::to_toml)" not in rest:
        return message
    name, _, decision = rest.split('"')[:3]
    return (
        f'{head}: overrides={{"{name}": "{decision}"}}; or write the decisions into a routing '
        "file: routing.to_toml() of one that is routed so, to be edited and read by "
        "pion.Routing.from_toml(text, model)"
    )
