# SPDX-License-Identifier: Apache-2.0
"""Cell: what an optimizer knows of one parameter between steps; and what a parameter and its
gradient must be."""

import math

import torch

from pion import groups as group_keys
from pion import state as states

_TYPES = (torch.float32, torch.float64, torch.bfloat16)


class Cell:
    """One parameter: what of it and its group stays the same from step to step."""

    __slots__ = (
        *("dtype", "group", "name", "numel", "ordinal", "parameter", "plan", "shape", "stack"),
        *("aimed", "slot", "slot_type", "weight_address", "sound", "watch", "begun", "empty"),
        *("shard", "shard_cells"),
    )

    def __init__(self, parameter, group: dict, plan, name: str, ordinal: int):
        self.parameter, self.group, self.plan = parameter, group, plan
        self.name, self.ordinal = name, ordinal
        check_parameter(parameter, name)
        self.dtype = parameter.dtype
        self.shape, self.numel = checked_shape(parameter, plan, name), parameter.numel()
        # a matrix of a stack whose gradient is zero is left alone
        self.stack = plan.rule.is_matrix and group_keys.is_stack(parameter.shape, plan.fold)
        self.sound = None  # the momentum that is known to be finite
        # of torch_step: what has been said of the steps, how many have begun, and whether the last
        # one that was looked at was empty
        self.watch, self.begun, self.empty = None, 0, False
        # of cpu_step: the C++ side, and (key, tensor, address) of what it is aimed at
        self.slot = self.slot_type = self.weight_address = None
        self.aimed = ()
        # of a DTensor: what of it lies here; cells for that and for the whole, made by
        # distributed_step
        self.shard, self.shard_cells = shard_of(parameter, name), {}


def check_parameter(parameter: torch.Tensor, name: str):
    if parameter.dtype not in _TYPES:
        raise ValueError(
            f"pion: a parameter must be float32, float64 or bfloat16, got {name} of "
            f"{str(parameter.dtype).removeprefix('torch.')}"
        )
    if parameter.layout != torch.strided:
        raise ValueError(
            f"pion: a parameter must be dense, got {name} with layout {parameter.layout}"
        )


def shard_of(parameter: torch.Tensor, name: str):
    if not states.is_sharded(parameter):
        return None
    from pion import distributed_shards

    return distributed_shards.Shard(parameter, name)


def checked_shape(parameter: torch.Tensor, plan, name: str) -> tuple[int, int, int]:
    """(count, rows, cols) as the rule sees the parameter."""
    if not plan.rule.is_matrix:
        return 1, 1, parameter.numel()
    if parameter.dim() < 2:
        raise ValueError(
            f"pion: a parameter under rule {plan.rule.name} must have two dimensions or more, "
            f"got {name} of shape {list(parameter.shape)}; put it in a group of rule "
            '"adamw" or "sgd", as pion.PionAdamW(pion.route(model)) does'
        )
    if parameter.dim() > 2 and plan.fold == "auto":
        raise ValueError(
            f"pion: fold must be chosen for a weight of more than two dimensions, got {name} of "
            f"shape {list(parameter.shape)}: a stack of matrices and a convolution look alike; "
            'give its group fold="stack" or fold="conv", or pion.PionAdamW a routing, which tells '
            "by module and name"
        )
    shape = group_keys.matrix_shape(parameter.shape, plan.fold)
    if parameter.numel() == 0:
        return shape
    try:
        blocks = plan.layout.blocks(shape[1], shape[2])
        for rows, cols in {(b[2], b[3]) for b in blocks}:
            plan.rule.map(rows, cols)
    except ValueError as error:
        raise ValueError(f"{error} (parameter {name} of shape {list(parameter.shape)})") from None
    return shape


def check_finite(work: list, gradients: bool = True):
    """Looks at everything that may not be NaN or Inf before anything is written: gradients under
    nonfinite "raise", and momenta that no step has left behind under "raise" and "zero"."""
    asked, vouched = [], []
    for cell, gradient, state in work:
        policy = cell.group["nonfinite"]
        if policy == "skip":
            continue
        if gradients and policy == "raise":
            asked.append((cell, "gradient", gradient))
        momentum = state.get("momentum_buffer") if cell.plan.rule.is_matrix else None
        if momentum is not None and momentum is not cell.sound:
            local = momentum.to_local() if states.is_sharded(momentum) else momentum
            asked.append((cell, "momentum", local))
            vouched.append((cell, momentum))
    if not asked:
        return
    for (cell, what, _), finite in zip(asked, _are_finite([a[2] for a in asked]), strict=True):
        if not finite:
            raise ValueError(_NOT_FINITE[what].format(cell.name))
    for cell, momentum in vouched:
        cell.sound = momentum


def _are_finite(tensors: list) -> list[bool]:
    """Whether each has neither NaN nor Inf, by its largest entry: one launch and one transfer for
    all of a device and type."""
    alike, result = {}, [True] * len(tensors)
    for index, tensor in enumerate(tensors):
        if tensor.numel():
            alike.setdefault((tensor.device, tensor.dtype), []).append(index)
    for indices in alike.values():
        norms = torch._foreach_norm([tensors[i] for i in indices], math.inf)
        for index, finite in zip(indices, torch.isfinite(torch.stack(norms)).tolist(), strict=True):
            result[index] = finite
    return result


_NOT_FINITE = {
    "gradient": (
        "step: every gradient must be finite, got NaN or Inf in that of {}; nothing was written. "
        'To go on without such parameters, set nonfinite to "skip"'
    ),
    "momentum": (
        "step: the momentum must be finite, got NaN or Inf in that of {}; nothing was written. "
        "Load another state, or restart it from zeros"
    ),
}
