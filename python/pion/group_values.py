# SPDX-License-Identifier: Apache-2.0
"""What the values of a group must be: numbers, texts, lists and None, each of its key's kind."""

import numbers
import operator

import torch

_PLAIN = (float, int, bool, str, type(None))  # by type() alone: numpy's floats derive from float


def read_tensors(group: dict, keys, where: str):
    """Turns one-element tensors and numpy's numbers under these keys into Python's, in place.

    A learning rate may stay a tensor. Raises ValueError for a larger one.
    """
    for key in keys:
        value = group.get(key)
        if type(value) in _PLAIN:
            continue
        if isinstance(value, tuple | list):
            if any(type(one) not in _PLAIN for one in value):
                group[key] = type(value)([_number(one, key, where) for one in value])
        elif key != "lr" or not isinstance(value, torch.Tensor) or value.numel() != 1:
            group[key] = _number(value, key, where)


def _number(value, key: str, where: str):
    if not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except (ValueError, RuntimeError):
        shape = list(getattr(value, "shape", ()))
        raise ValueError(
            f"{where}: {key} must be a number, got {type(value).__name__} of shape {shape}; give "
            "one element, or groups of their own for parameters with other values"
        ) from None


def check(group: dict, defaults: dict, where: str):
    """Raises ValueError for a value that no rule could take, by its key. Ranges are the rules'."""
    for key, default in defaults.items():
        value = group[key]
        if key == "betas":
            _check_betas(value, where)
        elif isinstance(default, bool):
            flag(value, key, where)
        elif value is None and default is not None:
            raise ValueError(
                f"{where}: {key} must have a value, got None; leave it out for the default, "
                f"{default!r}"
            )
        elif key == "seed":
            if not _is_integer(value) or not 0 <= value < 2**63:
                raise ValueError(f"{where}: seed must be an integer in [0, 2^63), got {value!r}")
        elif key in ("heads", "split_sizes", "head_axis"):
            _check_layout(value, key, where)
        elif not isinstance(value, (*_PLAIN, torch.Tensor)):
            raise ValueError(f"{where}: {key} must be a number or a text, got {value!r}")


def check_numbers(keys: dict, where: str):
    """Raises ValueError for a key of a rule that is neither number nor text."""
    for key, value in keys.items():
        if type(value) not in _PLAIN or value is None:
            raise ValueError(f"{where}: {key} must be a number or a text, got {value!r}")


def flag(value, key: str, where: str) -> bool:
    """The value, if it is one of True and False."""
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:  # numpy's
        value = value.item()
    if not isinstance(value, bool):
        raise ValueError(f"{where}: {key} must be True or False, got {value!r}")  # noqa: TRY004
    return value


def pair(betas, where: str) -> tuple:
    """(beta1, beta2)."""
    _check_betas(betas, where)
    return tuple(betas)


def _check_betas(value, where: str):
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(
            f"{where}: betas must be two numbers in [0, 1), as (0.9, 0.999), got {value!r}"
        )
    for one in value:
        if not isinstance(one, numbers.Real) or isinstance(one, bool) or not 0 <= one < 1:
            raise ValueError(f"{where}: betas must be two numbers in [0, 1), got {value!r}")


def _is_integer(value) -> bool:
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _check_layout(value, key: str, where: str):
    if key == "head_axis":
        right = _is_integer(value) and value in (0, 1)
        meant = "0 (output rows) or 1 (input columns)"
    elif key == "heads":
        counts = value if isinstance(value, tuple | list) and value else [value]
        right = all(_is_integer(count) and count > 0 for count in counts)
        meant = "a positive integer, or a list of them beside split_sizes"
    else:
        right = value is None or (
            isinstance(value, tuple | list) and all(_is_integer(n) and n > 0 for n in value)
        )
        meant = "a list of positive integers, the rows (or columns) of every part, or None"
    if not right:
        raise ValueError(f"{where}: {key} must be {meant}, got {value!r}")
