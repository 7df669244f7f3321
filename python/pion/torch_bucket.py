# SPDX-License-Identifier: Apache-2.0
"""Parameters that torch operations step together, and what a group says of them as numbers."""

from typing import NamedTuple

import torch

from pion.state import work_type
from pion.stochastic_rounding import next_seeds, round_into, round_stacked
from pion.tensor_map import Map, cached_map

# Entries from which a parameter is stepped in place: below, stacking moves 100 bytes an entry more
# and saves two launches a parameter, of 5 us each.
LARGE = 1 << 16
BUFFERS = ("momentum_buffer", "exp_avg", "exp_avg_sq")


class Numbers(NamedTuple):
    """A group's hyperparameters, as constants."""

    rule: str
    lr: float | torch.Tensor
    weight_decay: float
    nonfinite: str
    maximize: bool
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0
    betas: tuple = (0.0, 0.0)
    eps: float = 0.0
    unit_rms: bool = False
    stack: bool = False  # a matrix whose gradient is zero is left alone


class Part(NamedTuple):
    """One part of a head layout in (count, rows, cols), as a batch of its blocks."""

    axis: int
    offset: int
    size: int
    heads: int
    scale: float
    map: Map

    def blocks(self, x):
        """The blocks of one (rows, cols), as a view (heads, r, c)."""
        part = x.narrow(self.axis, self.offset, self.size)
        if self.axis == 0:
            return part.unflatten(0, (self.heads, -1))
        return part.unflatten(1, (self.heads, -1)).transpose(0, 1)

    def cut(self, x):
        count, rows, cols = x.shape
        part = x.narrow(1 + self.axis, self.offset, self.size)
        if self.axis == 0:
            return part.reshape(count * self.heads, self.size // self.heads, cols)
        part = part.reshape(count, rows, self.heads, self.size // self.heads).transpose(1, 2)
        return part.reshape(count * self.heads, rows, self.size // self.heads)

    def join(self, blocks, count: int):
        if self.axis == 0:
            return blocks.reshape(count, self.size, blocks.shape[2])
        parts = blocks.reshape(count, self.heads, blocks.shape[1], blocks.shape[2])
        return parts.transpose(1, 2).reshape(count, blocks.shape[1], self.size)


class Unit(NamedTuple):
    """A matrix of a parameter: all of it, or one of a stack; views where that is possible."""

    row: int  # among the bucket's matrices
    weight: torch.Tensor  # of the step's type, or bf16
    gradient: torch.Tensor
    momentum: torch.Tensor


class Bucket:
    """Parameters of one group, shape and type."""

    def __init__(self, items: list, amp: tuple):
        cell = items[0][0]
        self.items, self.plan, self.group = items, cell.plan, cell.group
        self.parameters = [item[0].parameter.detach() for item in items]
        self.gradients = [item[1].detach() for item in items]
        self.states = [item[2] for item in items]
        self.shape, self.entries = cell.shape, cell.numel  # (count, rows, cols) of one parameter
        self.device, self.work = cell.parameter.device, work_type(cell.parameter)
        narrow = cell.parameter.dtype == torch.bfloat16
        self.masters = narrow and self.plan.low_precision == "master"
        self.stochastic = narrow and self.plan.low_precision == "stochastic"
        numbers = numbers_of(self.plan.rule, self.group, self.device, self.work)
        self.numbers = numbers._replace(stack=cell.stack)
        self.parts = _parts(self.plan, self.shape) if self.plan.rule.is_matrix else ()
        self.unscale, self.found = amp  # of a GradScaler: 1 / its scale, and its flag
        # of a step in place: seeds; contiguous copies of weights; whose masters are up to date
        self._seeds, self._copies, self._fresh = None, {}, set()

    @property
    def large(self) -> bool:
        return self.entries >= LARGE

    @property
    def copies(self) -> bool:
        """Whether a step in place works on copies of the gradients."""
        typed = self.gradients[0].dtype == self.work
        return not typed or self.numbers.nonfinite == "zero" or self.unscale is not None

    def forget(self):
        """Gradients and copies, which the step has used."""
        self.gradients, self._copies = [], {}
        self.items = [(cell, None, state) for cell, _, state in self.items]

    # stacked

    def tensors(self) -> dict:
        """Inputs of `update`, stacked: (parameters, *shape)."""
        gradient = stack(self.gradients).to(self.work)
        result = {"gradient": gradient if self.unscale is None else gradient * self.unscale}
        weights = self._followed(0, len(self.items)) if self.masters else self.parameters
        result["weight"] = stack(weights).to(self.work)
        if self.found is not None:
            result["found"] = self.found
        for name in (*BUFFERS, "step"):
            if name in self.states[0]:
                result[name] = stack([s[name] for s in self.states])
        return result

    def write(self, results: dict):
        for name in (*BUFFERS, "step"):
            if name in results:
                unstack([s[name] for s in self.states], results[name])
        weight = results["weight"]
        if self.masters:
            unstack([s["master"] for s in self.states], weight)
        if self.stochastic:
            round_stacked(weight, next_seeds(self.items), self.parameters)
        else:
            unstack(self.parameters, weight)

    # in place

    def weights(self, first: int, end: int) -> list:
        """Weights of parameters first..end in the step's type: themselves, masters or copies,
        which put() writes back."""
        if self.masters:
            return self._followed(first, end)
        return [
            p if p.dtype == self.work and p.is_contiguous() else p.to(self.work).contiguous()
            for p in self.parameters[first:end]
        ]

    def put(self, weights: list, first: int, end: int):
        items, targets = self.items[first:end], self.parameters[first:end]
        if self.stochastic:
            for target, weight, seed in zip(targets, weights, next_seeds(items), strict=True):
                _round_whole(target, weight, seed)
            return
        pairs = [(t, w) for t, w in zip(targets, weights, strict=True) if t is not w]
        if pairs:
            torch._foreach_copy_([t for t, _ in pairs], [w for _, w in pairs])

    def units(self, first: int, end: int) -> list[Unit]:
        """Matrices first..end of all parameters; put_units() writes back what moved."""
        count, result, views = self.shape[0], [], {}
        for row in range(first, end):
            k, inner = divmod(row, count)
            if k not in views:
                momentum, gradient = self.states[k]["momentum_buffer"], self.gradients[k]
                views[k] = [self._matrices(t) for t in (self._home(k), gradient, momentum)]
            result.append(Unit(row, *(own[inner] for own in views[k])))
        return result

    def put_units(self, units: list[Unit], weights: list):
        count = self.shape[0]
        if self.stochastic and self._seeds is None:
            self._seeds = next_seeds(self.items)
        targets, values = [], []
        for unit, weight in zip(units, weights, strict=True):
            k, inner = divmod(unit.row, count)
            parameter = self.parameters[k]
            if self.masters or parameter.dtype != self.work:
                if parameter.is_contiguous():
                    target = self._matrices(parameter)[inner]
                else:
                    target = self._copies[k].view(self.shape).unbind(0)[inner]
                if self.stochastic:
                    first = inner * weight.numel()
                    round_into(target, weight, self._seeds[k], first)
                else:
                    targets.append(target)
                    values.append(weight)
            if k in self._copies and inner + 1 == count:
                if targets:
                    torch._foreach_copy_(targets, values)
                    targets, values = [], []
                parameter.copy_(self._copies.pop(k))
        if targets:
            torch._foreach_copy_(targets, values)

    def _home(self, k: int):
        """What holds the weights of parameter k while it is stepped."""
        parameter = self.parameters[k]
        if not parameter.is_contiguous() and k not in self._copies:
            self._copies[k] = parameter.contiguous()
        if not self.masters:
            return self._copies.get(k, parameter)
        if k not in self._fresh:
            self._fresh.add(k)
            self._followed(k, k + 1)
        return self.states[k]["master"]

    def _matrices(self, tensor):
        return tensor.reshape(self.shape).unbind(0)

    def _followed(self, first: int, end: int) -> list:
        """Masters; where somebody else has written the weight since, the weight counts."""
        masters = [s["master"] for s in self.states[first:end]]
        for master, weight in zip(masters, self.parameters[first:end], strict=True):
            for m, w in _slabs(master, weight):
                m.copy_(torch.where(m.to(w.dtype) == w, m, w))
        return masters


def _slabs(master, weight):
    """(part of master, the same of weight), of at most 8 Mi entries each."""
    most = 1 << 23
    if master.numel() <= most or not weight.is_contiguous():
        yield master, weight
        return
    yield from zip(master.view(-1).split(most), weight.view(-1).split(most), strict=True)


def _round_whole(target, weight, seed: int):
    own = target if target.is_contiguous() else torch.empty_like(
        target, memory_format=torch.contiguous_format
    )
    round_into(own, weight, seed)
    if own is not target:
        target.copy_(own)


def numbers_of(rule, group: dict, device, work) -> Numbers:
    lr = group["lr"]
    keys = {k: group[k] for k in ("momentum", "nesterov", "dampening", "eps") if k in group}
    return Numbers(
        rule.name,
        rate_on(lr, device, work) if isinstance(lr, torch.Tensor) else float(lr),
        group["weight_decay"],
        group["nonfinite"],
        group["maximize"],
        betas=tuple(group.get("betas", (0.0, 0.0))),
        unit_rms=group.get("scale") == "unit_rms",
        **keys,
    )


def rate_on(lr: torch.Tensor, device, work):
    """A tensor rate as a scalar on the device, without waiting; one in host memory as a number."""
    if lr.device.type == "cpu" and device.type != "cpu":
        return float(lr)
    return lr.detach().reshape(()).to(device, work, non_blocking=True)


def _parts(plan, shape) -> tuple:
    _, rows, cols = shape
    layout = plan.layout
    parts, offset = [], 0
    sizes = layout.sizes or [cols if layout.axis else rows]
    for size, heads in zip(sizes, layout.heads, strict=True):
        block = (rows, size // heads) if layout.axis else (size // heads, cols)
        scale = plan.rule.scale(*(reversed(block) if layout.transposed else block))
        parts.append(Part(layout.axis, offset, size, heads, scale, cached_map(plan.rule, *block)))
        offset += size
    return tuple(parts)


def stack(tensors: list):
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


def unstack(targets: list, value):
    torch._foreach_copy_(targets, list(value.unbind(0)))
