# SPDX-License-Identifier: Apache-2.0
"""Steps parameters on any device by torch operations: the formulas of pion/optim.

Small parameters of one group, shape and type are stacked and stepped together, blocks of one shape
go through their map together, whatever their group; large ones are stepped in place
(torch_in_place). One piece is written before the next begins, so that a step needs 64 MiB beside
weights, gradients and state, or two f32 buffers of the largest matrix. What can be refused is
refused by prepare(), before the first is written. Nothing waits for the device, unless statistics
are collected. `update` is plain tensor code, for torch.compile too.
"""

import math

import torch

from pion import torch_in_place, torch_statistics
from pion._pion import UNIT_RMS_FLOOR
from pion.fused_updates import bias_correction
from pion.state import work_type
from pion.tensor_map import apply
from pion.tensor_products import true_products
from pion.torch_bucket import BUFFERS, LARGE, Bucket, Numbers, Part

# Entries of a stacked piece: at most 60 bytes each, 60 MiB.
_MOST = 1 << 20


def prepare(work: list, amp: tuple = (None, None)) -> list[list[Bucket]]:
    """The pieces of a step of (cell, gradient, state). Raises ValueError for what cannot be
    stepped; what is merely on another device than its weight is moved there."""
    for cell, gradient, state in work:
        _check(cell, gradient, state)
    return _pieces(work, amp)


def run(pieces: list, collect: bool, watch, compiled=None) -> tuple[list[str], list[dict]]:
    """Steps the pieces; returns warnings and, if collected, statistics. `compiled` is `update` as
    torch.compile made it; `watch` a torch_statistics.Watcher."""
    tables = []
    with true_products():
        for piece in pieces:
            measure = collect or watch.is_due(piece)
            try:
                own = _step(piece, measure, collect, compiled)
            except torch.OutOfMemoryError as error:
                raise torch.OutOfMemoryError(_no_room(piece, error)) from error
            tables += zip(piece, own, strict=True)
            for bucket in piece:
                for cell, _, _ in bucket.items:
                    cell.begun += 1
                bucket.forget()
    if collect:
        return torch_statistics.collected(tables)
    watch.keep(tables)
    return [], []


def _step(piece: list, measure: bool, collect: bool, compiled) -> list:
    if piece[0].large:
        return [torch_in_place.step(bucket, measure, collect) for bucket in piece]
    return _stacked(piece, measure, collect, compiled)


def _no_room(piece: list, error) -> str:
    bucket = max(piece, key=lambda b: b.entries)
    count, rows, cols = bucket.shape
    matrix = (rows * cols if bucket.parts else bucket.entries) * bucket.work.itemsize
    return (
        f"step: memory must hold two buffers of the largest matrix beside weights, gradients and "
        f"state, {2 * matrix / 2**20:.0f} MiB for {bucket.items[0][0].name} of "
        f"{[count, rows, cols]}, or 64 MiB, got an allocation that failed; what came before it has "
        f"been stepped. Free memory, or use pion.offload, which steps on the host ({error})"
    )


def _check(cell, gradient, state: dict):
    parameter = cell.parameter
    if gradient.device != parameter.device:
        raise ValueError(
            f"step: the gradient of {cell.name} must be on its device, {parameter.device}, got "
            f"{gradient.device}"
        )
    work = work_type(parameter)
    for key in (*BUFFERS, "master", "step"):
        tensor = state.get(key)
        if tensor is None:
            continue
        shape, dtype = (parameter.shape, work) if key != "step" else ((), torch.float32)
        if tensor.shape != shape or tensor.dtype != dtype:
            raise ValueError(
                f"step: {key} of {cell.name} must be {dtype} of shape {list(shape)}, got "
                f"{tensor.dtype} of {list(tensor.shape)}; load a state of this model"
            )
        if tensor.device != parameter.device:  # the model has moved since
            state[key] = tensor = tensor.to(parameter.device, non_blocking=True)
        if not tensor.is_contiguous():
            state[key] = tensor.contiguous()


def _pieces(work: list, amp: tuple) -> list[list[Bucket]]:
    """Large parameters by the bucket; of the small ones as many as fit, shapes alike first."""
    alike = {}
    for item in work:
        cell, gradient, _ = item
        parameter = cell.parameter
        key = (id(cell.plan), parameter.shape, parameter.dtype, parameter.device, gradient.dtype)
        alike.setdefault(key, []).append(item)
    pieces, small = [], []
    for items in alike.values():
        if items[0][0].numel >= LARGE:
            pieces.append([Bucket(items, amp)])
            continue
        most = max(1, _most_of(items[0][0]) // items[0][0].numel)
        small += [items[i : i + most] for i in range(0, len(items), most)]
    small.sort(key=lambda items: (str(items[0][0].parameter.device), items[0][0].shape[1:]))
    room = 0
    for items in small:
        cell, entries = items[0][0], len(items) * items[0][0].numel
        if entries > room or cell.parameter.device != pieces[-1][-1].device:
            pieces.append([])
            room = _most_of(cell)
        pieces[-1].append(Bucket(items, amp))
        room -= entries
    return pieces


def _most_of(cell) -> int:
    return _MOST // (2 if cell.parameter.dtype == torch.float64 else 1)


def _stacked(piece: list, measure: bool, collect: bool, compiled) -> list:
    tensors = [bucket.tensors() for bucket in piece]
    numbers = [bucket.numbers for bucket in piece]
    if compiled is not None:  # a rate that changes must not be a constant of the graph
        numbers = [
            n._replace(lr=torch.as_tensor(n.lr, dtype=b.work))
            for n, b in zip(numbers, piece, strict=True)
        ]
    step = update if compiled is None else compiled
    results = step(tensors, numbers, [(b.shape, b.parts) for b in piece])
    for bucket, after in zip(piece, results, strict=True):
        bucket.write(after)
    return [
        torch_statistics.table(bucket, after, measure, collect)
        for bucket, after in zip(piece, results, strict=True)
    ]


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
        finite = torch.isfinite(gradient)
        finite = finite.flatten(1).all(1).view(-1, *[1] * len(over)) if over else finite
    if "found" in own:
        found = (own["found"] <= 0).expand(len(gradient)).view(-1, *[1] * len(over))
        finite = found if finite is None else finite & found
    if n.nonfinite == "zero":
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
    t = (own["step"] + 1.0).to(m.dtype).view(-1, *[1] * (gradient.dim() - 1))
    first, second = (bias_correction(t, beta) for beta in n.betas)
    second = second.sqrt()
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
