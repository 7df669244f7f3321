# SPDX-License-Identifier: Apache-2.0
"""What may be given to an optimizer as its parameters, and the refusal of everything else."""

from collections.abc import Mapping

import torch

_SHOWN = 80  # characters of what was given


def listed(params, where: str, whole_model: str) -> list:
    """The entries of `params`: parameters, (name, parameter) pairs or groups, of one kind.

    `whole_model` says what to write in the place of a module. Raises TypeError.
    """
    entries = _entries(params, where, whole_model)
    groups = [isinstance(entry, Mapping) for entry in entries]
    if any(groups) and not all(groups):
        other = entries[groups.index(False)]
        raise TypeError(
            f"{where}: params must be all parameters or all groups, got groups beside "
            f'{described(other)}; put it into a group, {{"params": [...]}}'
        )
    if not any(groups):
        check_entries(entries, f"{where}: params", whole_model)
    return entries


def in_group(group: dict, where: str, whole_model: str) -> list:
    """The parameters, or (name, parameter) pairs, of a group. Raises TypeError."""
    if "params" not in group:
        keys = ", ".join(map(str, group)) or "no key"
        raise TypeError(f'{where}: a group must have "params", a list of parameters, got {keys}')
    params = group["params"]
    if isinstance(params, torch.Tensor):
        return [params]
    entries = _entries(params, where, whole_model)
    check_entries(entries, f'{where}: "params"', whole_model)
    return entries


def check_entries(entries: list, where: str, whole_model: str):
    for index, entry in enumerate(entries):
        named = isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)
        if isinstance(entry[1] if named else entry, torch.Tensor):
            continue
        hint = f"; for a whole model {whole_model}" if isinstance(entry, torch.nn.Module) else ""
        raise TypeError(
            f"{where} must hold parameters (torch.Tensor) or (name, parameter) pairs, got "
            f"{described(entry)} at index {index}{hint}"
        )


def _entries(params, where: str, whole_model: str) -> list:
    wanted = f"{where}: params must be a list of parameters or of groups, got"
    if isinstance(params, torch.Tensor):
        raise TypeError(f"{wanted} {described(params)}; a list of one is [weight]")
    if isinstance(params, torch.nn.Module) and not isinstance(params, torch.nn.ParameterList):
        raise TypeError(f"{wanted} {described(params)}; {whole_model}")
    if isinstance(params, Mapping):
        remedy = "[group]" if "params" in params else "its items() where they are parameters"
        raise TypeError(f"{wanted} {described(params)}; give {remedy}")
    if isinstance(params, set | frozenset):
        raise TypeError(f"{wanted} a set, whose order changes from run to run; give a list")
    try:
        if isinstance(params, str | bytes):
            raise TypeError
        return list(params)
    except TypeError:
        raise TypeError(f"{wanted} {described(params)}; give model.parameters()") from None


def described(value) -> str:
    """Kind and a short text of what was given in the place of a parameter."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, torch.nn.Module):
        return f"a module, {type(value).__name__}"
    if isinstance(value, Mapping):
        return "a dict"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}"
