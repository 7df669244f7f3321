# SPDX-License-Identifier: Apache-2.0
"""Rounding f32 to bf16 at random on any device, with the bits of pion/optim/rounding.cc: a counter
hashed with a seed. Seeds are mixed on the host, in integers; nothing waits for the device."""

import torch

from pion._pion import rounding_seed, rounding_start

_STRIDE = 0x9E3779B97F4A7C15
_SLAB = 1 << 20  # entries at a time: 24 MiB of i64


def next_seeds(items: list) -> list[int]:
    """The seeds of a step of (cell, gradient, state), and counts it."""
    seeds = []
    for cell, _, state in items:
        if state["counters"].device.type != "cpu":
            state["counters"] = state["counters"].cpu()
        begun = int(state["counters"][3])
        seeds.append(rounding_seed(cell.plan.seed, cell.ordinal, begun))
        state["counters"][3] = begun + 1
    return seeds


def round_stacked(value, seeds: list[int], targets: list):
    """Rounds value (parameters, ...) to the targets, one for every seed."""
    starts = torch.tensor([[_signed(rounding_start(seed))] for seed in seeds], dtype=torch.int64)
    if value.is_cuda and torch.cuda.is_available():
        starts = starts.pin_memory()
    flat = value.reshape(len(seeds), -1)
    rounded = _rounded(flat, starts.to(value.device, non_blocking=True), 0)
    torch._foreach_copy_(targets, [r.view(t.shape) for r, t in zip(rounded.unbind(0), targets)])


def round_into(target, value, seed: int, first: int = 0):
    """Rounds value to target, both contiguous: entries `first` and following of a parameter."""
    source, into, start = value.view(-1), target.view(-1), _signed(rounding_start(seed))
    for begin in range(0, source.numel(), _SLAB):
        length = min(_SLAB, source.numel() - begin)
        own = _rounded(source.narrow(0, begin, length), start, first + begin)
        into.narrow(0, begin, length).copy_(own)


def rounded_stochastically(value, seed: int):
    """round_stochastically of the C++ library, with the same random bits."""
    value = value.contiguous()
    result = torch.empty(value.shape, dtype=torch.bfloat16, device=value.device)
    round_into(result, value, seed)
    return result


def _rounded(flat, start, first: int):
    index = torch.arange(first, first + flat.shape[-1], device=flat.device)
    random = _shifted(_mix(index * _signed(_STRIDE) + start), 48).to(torch.int32)
    rounded = (flat.view(torch.int32) + random) & -65536  # 0xffff0000
    return torch.where(torch.isfinite(flat), rounded.view(torch.float32), flat).bfloat16()


def _shifted(z, by: int):
    """A shift to the right of i64 as of u64."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _mix(z):
    """The finalizer of splitmix64 on i64 tensors, which wrap."""
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)
