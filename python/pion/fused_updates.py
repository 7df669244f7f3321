# SPDX-License-Identifier: Apache-2.0
"""Updates of many tensors in place by torch's fused multi-tensor kernels, each under a flag.

w <- w - rate (u + decay w) is torch's SGD without momentum: the momentum of a matrix rule,
decoupled decay and an update are all of that form. `found` is None or a flag a tensor: f32, 1 where
the tensor stays as it is. A flag costs a launch a tensor, since the kernels take one for all.
Devices without fused kernels take the same formulas, tensor by tensor.
"""

import math

import torch
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices


def has_fused(device: str) -> bool:
    return device in _get_fused_kernels_supported_devices()


def moved(weights: list, updates: list, rate, decay: float, found=None, maximize: bool = False):
    """w <- w - rate (u + decay w); with `maximize` u counts as -u. rate: a number or a tensor."""
    keys = {"weight_decay": decay, "momentum": 0.0, "dampening": 0.0, "nesterov": False}
    keys |= {"lr": rate, "maximize": maximize, "is_first_step": False}
    if not has_fused(weights[0].device.type):
        for index, (w, u) in enumerate(zip(weights, updates, strict=True)):
            step = (decay * w - u if maximize else u + decay * w) * rate
            _under(None if found is None else found[index], w, w - step)
    elif found is None:
        torch._fused_sgd_(weights, updates, [], **keys)
    else:
        for w, u, flag in zip(weights, updates, found, strict=True):
            torch._fused_sgd_([w], [u], [], found_inf=flag, **keys)


def averaged(averages: list, values: list, share: float, found=None, maximize: bool = False):
    """m <- m + share (v - m)."""
    moved(averages, values, -share, -1.0, found, maximize)


def adamw(weights, gradients, firsts, seconds, steps, numbers, found=None):
    """torch.optim.AdamW; `steps` counts this one already, where it is taken."""
    keys = {"lr": numbers.lr, "beta1": numbers.betas[0], "beta2": numbers.betas[1]}
    keys |= {"weight_decay": numbers.weight_decay, "eps": numbers.eps, "amsgrad": False}
    keys["maximize"] = numbers.maximize
    lists = (weights, gradients, firsts, seconds)
    if not has_fused(weights[0].device.type):
        for index, tensors in enumerate(zip(*lists, steps, strict=True)):
            _adamw(*tensors, numbers, None if found is None else found[index])
    elif found is None:
        torch._fused_adamw_(*lists, [], steps, **keys)
    else:
        for *tensors, step, flag in zip(*lists, steps, found, strict=True):
            torch._fused_adamw_(*([t] for t in tensors), [], [step], found_inf=flag, **keys)


def _adamw(w, g, first, second, step, n, flag):
    g = -g if n.maximize else g
    m = torch.lerp(first, g, 1.0 - n.betas[0])
    v = second * n.betas[1] + g * g * (1.0 - n.betas[1])
    root = (v / bias_correction(step, n.betas[1])).sqrt_().add_(n.eps)
    step_by = m / bias_correction(step, n.betas[0]) / root + n.weight_decay * w
    for target, value in ((w, w - n.lr * step_by), (first, m), (second, v)):
        _under(flag, target, value)


def bias_correction(step, beta: float):
    """1 - beta^step, in the type of step: no f64, and no cancellation in the first steps."""
    return -torch.expm1(step * _log(beta))


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf


def _under(flag, target, value):
    target.copy_(value if flag is None else torch.where(flag > 0, target, value))


def sums(buffers: list, gradients: list, n, steps: list, found=None):
    """SGD's momentum b <- mu b + (1 - dampening) g, but g in the first step (steps counts it)."""
    if n.dampening == 0.0:  # zeros at the start: the same
        moved(buffers, gradients, -1.0, n.momentum - 1.0, found, n.maximize)
        return
    for index, (b, g, step) in enumerate(zip(buffers, gradients, steps, strict=True)):
        share = torch.where(step > 1, 1.0 - n.dampening, 1.0)
        value = b * n.momentum + g * (-share if n.maximize else share)
        _under(None if found is None else found[index], b, value)
