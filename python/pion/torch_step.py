# SPDX-License-Identifier: Apache-2.0
"""Steps parameters on any device by torch operations: the formulas of pion/optim.

Parameters of one group, shape and type are stacked and stepped together; blocks of one shape go
through their map together, whatever their group. Nothing waits for the device, unless statistics
are collected. `update` is plain tensor code, for torch.compile too.
"""

import math
from typing import NamedTuple

import torch

from pion import torch_statistics
from pion._pion import UNIT_RMS_FLOOR, rounding_seed
from pion.state import work_type
from pion.tensor_map import Map, apply, cached_map

_MOST = 1 << 26  # entries that are stacked at a time: 256 MiB of f32


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


class Bucket:
    """Parameters that are stepped together."""

    def __init__(self, items: list):
        cell = items[0][0]
        self.items, self.plan, self.group = items, cell.plan, cell.group
        self.parameters = [item[0].parameter.detach() for item in items]
        self.gradients = [item[1] for item in items]
        self.states = [item[2] for item in items]
        self.shape = cell.shape  # (count, rows, cols) of one parameter
        self.masters = self.parameters[0].dtype == torch.bfloat16 and (
            self.plan.low_precision == "master"
        )
        self.numbers = numbers_of(self.plan.rule, self.group)._replace(stack=cell.stack)
        self.parts = _parts(self.plan, self.shape) if self.plan.rule.is_matrix else ()

    def tensors(self) -> dict:
        """Inputs of `update`, stacked: (parameters, *shape)."""
        work = work_type(self.parameters[0])
        result = {
            "weight": _stack(self.parameters).to(work),
            "gradient": _stack(self.gradients).to(work),
        }
        if self.masters:
            # where somebody else has written the weight since, the weight counts
            master, weight = _stack([s["master"] for s in self.states]), _stack(self.parameters)
            result["weight"] = torch.where(master.bfloat16() == weight, master, result["weight"])
        for name in ("momentum_buffer", "exp_avg", "exp_avg_sq", "step"):
            if name in self.states[0]:
                result[name] = _stack([s[name] for s in self.states])
        return result

    def write(self, results: dict):
        for name in ("momentum_buffer", "exp_avg", "exp_avg_sq", "step"):
            if name in results:
                _unstack([s[name] for s in self.states], results[name])
        weight = results["weight"]
        if self.masters:
            _unstack([s["master"] for s in self.states], weight)
        if self.parameters[0].dtype == torch.bfloat16 and self.plan.low_precision == "stochastic":
            self._round_stochastically(weight)
        else:
            _unstack(self.parameters, weight)

    def _round_stochastically(self, weight):
        for index, (cell, _, state) in enumerate(self.items):
            if state["counters"].device.type != "cpu":
                state["counters"] = state["counters"].cpu()
            seed = rounding_seed(self.plan.seed, cell.ordinal, int(state["counters"][3]))
            state["counters"][3] += 1
            self.parameters[index].copy_(rounded_stochastically(weight[index], seed))


def compute(work: list, compiled=None) -> list:
    """The step of (cell, gradient, state): (bucket, its tensors, the new ones), for write(), and
    nothing written yet. `compiled` is `update` as torch.compile made it."""
    buckets = _buckets(work)
    tensors = [bucket.tensors() for bucket in buckets]
    numbers = [bucket.numbers for bucket in buckets]
    if compiled is not None:  # a rate that changes must not be a constant of the graph
        numbers = [n._replace(lr=torch.as_tensor(n.lr, dtype=torch.float64)) for n in numbers]
    run = update if compiled is None else compiled
    results = run(tensors, numbers, [(b.shape, b.parts) for b in buckets])
    return list(zip(buckets, tensors, results, strict=True))


def write(results: list, collect: bool, statistics: list) -> list[str]:
    """Writes what compute() gave; appends statistics. Returns warnings: those of empty updates only
    while statistics are collected, since they wait for the device."""
    messages = []
    for bucket, _, after in results:
        bucket.write(after)
        for cell, _, _ in bucket.items:
            cell.begun += 1
    if not collect:
        return torch_statistics.skips([item for bucket, _, _ in results for item in bucket.items])
    for bucket, before, after in results:
        figures = torch_statistics.figures(bucket, before, after)
        statistics += figures
        messages += torch_statistics.observed(bucket, figures)
    return messages


def update(tensors: list[dict], numbers: list[Numbers], shapes: list) -> list[dict]:
    """The step of every bucket as new tensors: weight, state, finite and, of matrices, direction
    and output. shapes: ((count, rows, cols), parts) of every bucket."""
    results = [_moved(own, n) for own, n in zip(tensors, numbers, strict=True)]
    blocks = []
    for result, (shape, parts) in zip(results, shapes, strict=True):
        if parts:
            direction = result["direction"].reshape(-1, shape[1], shape[2])
            blocks += [(part, part.cut(direction)) for part in parts]
    outputs = iter(_mapped(blocks))
    for own, n, (shape, parts), result in zip(tensors, numbers, shapes, results, strict=True):
        weight = own["weight"]
        if parts:
            count = weight.numel() // (shape[1] * shape[2])
            joined = [part.join(_scaled(next(outputs), part, n), count) for part in parts]
            result["output"] = torch.cat(joined, 1 + parts[0].axis).reshape(weight.shape)
            result["update"] = result["output"] * n.lr
        moved = weight * (1.0 - n.lr * n.weight_decay) - result["update"]
        if n.stack:
            moved = torch.where(result["active"], moved, weight)
        result["weight"] = _masked(result["finite"], moved, weight)
        result["step"] = own["step"] + (
            1.0 if result["finite"] is None else result["finite"].view(-1)
        )
    return results


def _moved(own: dict, n: Numbers) -> dict:
    """New state, and the update (element-wise rules) or the direction (matrices)."""
    gradient = -own["gradient"] if n.maximize else own["gradient"]
    over = tuple(range(1, gradient.dim()))
    finite = None
    if n.nonfinite == "skip":
        finite = (
            torch.isfinite(gradient).all()
            if not over
            else torch.isfinite(gradient).flatten(1).all(1)
        )
        finite = finite.view(-1, *[1] * len(over))
    elif n.nonfinite == "zero":
        gradient = torch.nan_to_num(gradient, 0.0, 0.0, 0.0)
    if n.rule == "adamw":
        return _adamw(own, n, gradient, finite)
    if n.rule == "sgd":
        return _sgd(own, n, gradient, finite)
    old = own["momentum_buffer"]
    momentum = old * n.momentum + gradient * (1.0 - n.momentum)
    direction = momentum
    if n.nesterov:
        direction = momentum * n.momentum + gradient * (1.0 - n.momentum)
    active = None
    if n.stack:  # (parameters, ..., 1, 1), one for every matrix
        active = (gradient != 0).flatten(-2).any(-1)[..., None, None]
        momentum = torch.where(active, momentum, old)
        direction = torch.where(active, direction, 0.0)
    if finite is not None:
        finite = finite & torch.isfinite(direction).flatten(1).all(1).view(finite.shape)
        direction = torch.where(finite, direction, 0.0)  # an SVD of NaN may throw
    return {
        "finite": finite,
        "gradient": gradient,
        "direction": direction,
        "active": active,
        "momentum_buffer": _masked(finite, momentum, old),
    }


def _adamw(own: dict, n: Numbers, gradient, finite) -> dict:
    m = own["exp_avg"] * n.betas[0] + gradient * (1.0 - n.betas[0])
    v = own["exp_avg_sq"] * n.betas[1] + gradient * gradient * (1.0 - n.betas[1])
    t = (own["step"] + 1.0).double().view(-1, *[1] * (gradient.dim() - 1))
    first = (1.0 - n.betas[0] ** t).to(m.dtype)
    second = (1.0 - n.betas[1] ** t).sqrt().to(m.dtype)
    return {
        "finite": finite,
        "gradient": gradient,
        "update": _masked(finite, n.lr / first * (m / (v.sqrt() / second + n.eps)), 0.0),
        "exp_avg": _masked(finite, m, own["exp_avg"]),
        "exp_avg_sq": _masked(finite, v, own["exp_avg_sq"]),
    }


def _sgd(own: dict, n: Numbers, gradient, finite) -> dict:
    result = {"finite": finite, "gradient": gradient}
    direction = gradient
    if n.momentum > 0:
        old = own["momentum_buffer"]
        first = (own["step"] == 0).view(-1, *[1] * (gradient.dim() - 1))
        buffer = torch.where(first, gradient, old * n.momentum + gradient * (1.0 - n.dampening))
        direction = gradient + buffer * n.momentum if n.nesterov else buffer
        result["momentum_buffer"] = _masked(finite, buffer, old)
    return result | {"update": _masked(finite, direction * n.lr, 0.0)}


def _mapped(blocks: list) -> list:
    """The map of every (part, batch of blocks); equal maps on equal shapes in one batch."""
    together = {}
    for index, (part, x) in enumerate(blocks):
        wide = x if x.shape[1] <= x.shape[2] else x.mT
        together.setdefault((part.map.key, wide.shape[1:], x.dtype, x.device), []).append(index)
    outputs = [None] * len(blocks)
    for indices in together.values():
        wide = [x if x.shape[1] <= x.shape[2] else x.mT for x in (blocks[i][1] for i in indices)]
        out = apply(wide[0] if len(wide) == 1 else torch.cat(wide), blocks[indices[0]][0].map)
        for i, piece in zip(indices, out.split([len(x) for x in wide]), strict=True):
            tall = blocks[i][1].shape[1] > blocks[i][1].shape[2]
            outputs[i] = piece.mT if tall else piece
    return outputs


def _scaled(output, part: Part, n: Numbers):
    """s O."""
    if not n.unit_rms:
        return output * part.scale
    size = torch.linalg.vector_norm(output, dim=(1, 2), keepdim=True)
    entries = math.sqrt(output.shape[1] * output.shape[2])
    return output * (part.scale * entries / (size + UNIT_RMS_FLOOR))


def _masked(finite, new, old):
    return new if finite is None else torch.where(finite, new, old)


def numbers_of(rule, group: dict) -> Numbers:
    lr = group["lr"]
    keys = {k: group[k] for k in ("momentum", "nesterov", "dampening", "eps") if k in group}
    return Numbers(
        rule.name,
        lr if isinstance(lr, torch.Tensor) else float(lr),
        group["weight_decay"],
        group["nonfinite"],
        group["maximize"],
        betas=tuple(group.get("betas", (0.0, 0.0))),
        unit_rms=group.get("scale") == "unit_rms",
        **keys,
    )


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


def _buckets(work: list) -> list[Bucket]:
    alike = {}
    for item in work:
        cell, gradient, _ = item
        parameter = cell.parameter
        key = (id(cell.plan), parameter.shape, parameter.dtype, parameter.device, gradient.dtype)
        alike.setdefault(key, []).append(item)
    buckets = []
    for items in alike.values():
        most = max(1, _MOST // items[0][0].parameter.numel())
        buckets += [Bucket(items[i : i + most]) for i in range(0, len(items), most)]
    return buckets


def _stack(tensors: list):
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


def _unstack(targets: list, value):
    if len(targets) == 1:
        targets[0].copy_(value[0])
    else:
        torch._foreach_copy_(targets, list(value.unbind(0)))


def _shifted(z, by: int):
    """A shift to the right of i64 as of u64."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _mix(z):
    """The finalizer of splitmix64 on i64 tensors, which wrap; as in pion/optim/rounding.cc."""
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def rounded_stochastically(value, seed: int):
    """round_stochastically of the C++ library, with the same random bits."""
    stride = 0x9E3779B97F4A7C15
    flat = value.contiguous().view(-1)
    start = _mix(torch.tensor(_signed(seed + stride)))
    index = torch.arange(flat.numel(), device=value.device)
    word = _mix(index * _signed(stride) + start.to(value.device))
    random = _shifted(word, 48).to(torch.int32)
    rounded = (flat.view(torch.int32) + random) & -65536  # 0xffff0000
    result = torch.where(torch.isfinite(flat), rounded.view(torch.float32), flat)
    return result.to(torch.bfloat16).view(value.shape)
