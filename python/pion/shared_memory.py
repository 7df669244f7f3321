# SPDX-License-Identifier: Apache-2.0
"""Parameters that share memory are refused: a step would write it twice, in an order that depends
on threads."""

import torch

from pion import state as states


def new_parameters(group: dict, held: list, number: int, where: str) -> list:
    """The parameters of a group that is to become that number, as a list, names beside theirs where
    they have some. `held` are (name, parameter) of the groups before. Raises ValueError if one
    shares memory with another."""
    given = group["params"]
    if isinstance(given, set):
        return given  # torch.optim refuses it: sets have no order
    given = [given] if isinstance(given, torch.Tensor) else list(given)
    own = group.get("param_names") or []
    all_ = list(held)
    for index, one in enumerate(given):
        name, tensor = None, one
        if isinstance(one, tuple) and len(one) == 2:
            name, tensor = one
        elif index < len(own):
            name = own[index]
        if isinstance(tensor, torch.Tensor):  # else torch.optim says what it is
            all_.append((name or f"groups.{number}.params.{index}", tensor))
    _check_once(all_, len(held), where)
    _check_apart(all_, where)
    return given


def _check_once(parameters: list, held: int, where: str):
    seen = {}
    for index, (name, parameter) in enumerate(parameters):
        first = seen.setdefault(id(parameter), index)
        if first == index:
            continue
        message = f"{where}: a parameter must be given once, got {name} again"
        if first < held:
            message += "; some parameters appear in more than one parameter group"
        if parameters[first][0] != name:
            message += f", where it is {parameters[first][0]}"
        raise ValueError(message)


def _check_apart(parameters: list, where: str):
    memories = [
        (*memory, index)
        for index, (_, parameter) in enumerate(parameters)
        if (memory := _memory(parameter)) is not None
    ]
    device, last, furthest = None, 0, 0
    for own, begin, end, index in sorted(memories):
        if own == device and begin < last:
            first, second = (parameters[i][0] for i in sorted((index, furthest)))
            raise ValueError(
                f"{where}: every parameter must have memory of its own, got {second} in that of "
                f"{first}; give each parameter once, and tied ones as one"
            )
        if own != device or end > last:
            device, last, furthest = own, end, index


def _memory(parameter: torch.Tensor) -> tuple | None:
    """(device, first byte, last byte + 1), of memory with gaps the first entry alone; None where
    there is none, as of a meta tensor."""
    try:
        if states.is_sharded(parameter):
            parameter = parameter.to_local()
        entries, begin = parameter.numel(), parameter.data_ptr()
        shape, strides = parameter.shape, parameter.stride()
    except RuntimeError:  # without storage, or not yet made
        return None
    if entries == 0 or begin == 0:
        return None
    dense = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) == entries
    size = (entries if dense else 1) * parameter.element_size()
    return str(parameter.device), begin, begin + size
