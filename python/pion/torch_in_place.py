# SPDX-License-Identifier: Apache-2.0
"""Steps large parameters by torch operations, in place: nothing is stacked, every entry is read and
written as few times as torch's own kernels allow, and a piece is written before the next begins.

The finiteness of a gradient comes from its largest entry, that of a direction from the norm which
the map needs. What is left alone (a parameter, or a matrix of a stack) has a flag for that, on the
device. Bytes of an f32 weight and step beside products: matrix rules 38, with Nesterov 46, AdamW
32, SGD with momentum 28; 4 of them are for finiteness under nonfinite "skip".
"""

import functools
import math

import torch

from pion import fused_updates
from pion._pion import UNIT_RMS_FLOOR
from pion.tensor_map import input_scale, input_type, mapped

MOST = 1 << 22  # entries of a piece, unless it is one matrix: at most 16 bytes each, 64 MiB


def step(bucket, measure: bool, collect: bool) -> torch.Tensor:
    """Steps a bucket; returns its table (see torch_statistics), on the device."""
    flags = _Flags(bucket)
    piece_of = _matrices if bucket.parts else _entries
    pieces = _pieces(bucket)
    columns = [piece_of(bucket, flags, *piece, measure, collect) for piece in pieces]
    # skipped, idle, the largest entry or norm, of the update, directions passed, energy kept
    unknown = -1.0 if bucket.parts and not (measure or collect) else 0.0
    rows = pieces[-1][1]
    filled = functools.cache(lambda value: torch.full((rows,), value, device=bucket.device))
    columns = [
        filled(default) if own[0] is None else own[0] if len(own) == 1 else torch.cat(own)
        for own, default in zip(
            zip(*columns, strict=True), (0.0, 0.0, 1.0, 0.0, unknown, 0.0), strict=True
        )
    ]
    if bucket.parts:
        skipped, count = columns[0], len(bucket.items)
        skipped = skipped if rows == count else skipped.view(count, -1).amax(1)
        torch._foreach_add_([s["step"] for s in bucket.states], list((1.0 - skipped).unbind(0)))
    return torch.stack(columns, 1)


def _pieces(bucket) -> list[tuple[int, int]]:
    """(first, end) of the rows that are stepped together: matrices, or parameters of entries."""
    rows = len(bucket.items) * (bucket.shape[0] if bucket.parts else 1)
    most = max(1, _most(bucket) // (bucket.entries // (bucket.shape[0] if bucket.parts else 1)))
    return [(first, min(first + most, rows)) for first in range(0, rows, most)]


def _most(bucket) -> int:
    """Entries of a piece."""
    if bucket.work == torch.float64 or bucket.group.get("precision") == "accurate":
        return MOST // 2
    parts = bucket.parts
    copies = bucket.copies or bucket.numbers.maximize or bucket.parameters[0].dtype != bucket.work
    if copies or bucket.group.get("precision") != "fast" or len(parts) != 1:
        return MOST
    # a direction in f32 and X in fp16, or X, four (m x m) of fp16 and O in f32
    part = parts[0]
    if part.axis == 1 and part.heads > 1:
        return MOST
    block = part.size / part.heads, bucket.shape[2 - part.axis]
    return int(16 * MOST / (6.0 + 8.0 * min(block) / max(block)))


class _Flags:
    """What of a bucket is left alone, by its gradients: a row for every matrix (or parameter)."""

    def __init__(self, bucket):
        n, count = bucket.numbers, bucket.shape[0] if bucket.numbers.stack else 1
        # f32 flags of rows, where one may have to stay as it is, or be one of these
        self.stays = self.skipped = self.idle = self.largest = None
        # whether the norms of directions tell, which saves a pass over the gradients
        self.late = bool(bucket.parts) and n.nonfinite == "skip" and n.nesterov and not n.stack
        if self.late or (n.nonfinite != "skip" and not n.stack and bucket.found is None):
            if bucket.found is not None:
                found = (bucket.found.to(bucket.device) > 0).float()
                self.skipped = found.view(1).expand(len(bucket.items))
            return
        largest = _largest(bucket.gradients, count)
        self.largest = largest
        bad = (largest < math.inf).logical_not_()
        if n.nonfinite != "skip":
            bad = torch.zeros_like(bad)
        if n.nonfinite == "skip" and bucket.parts:
            for row, (cell, _, state) in enumerate(bucket.items):
                if cell.sound is not state["momentum_buffer"]:  # loaded
                    one = _largest([state["momentum_buffer"]], count)
                    bad.narrow(0, row * count, count).logical_or_((one < math.inf).logical_not_())
        bad = bad.view(-1, count).any(1)
        if bucket.found is not None:
            bad = bad | (bucket.found.to(bad.device) > 0)
        self.skipped = bad.repeat_interleave(count).float() if count > 1 else bad.float()
        self.stays = self.skipped
        if n.stack:
            self.idle = (largest == 0).float()
            self.stays = torch.maximum(self.skipped, self.idle)


def _largest(tensors: list, count: int):
    """The largest entry of every tensor, or of every matrix of stacks: NaN if there is one."""
    if count == 1:
        norms = torch._foreach_norm(tensors, math.inf)
        return (norms[0].view(1) if len(norms) == 1 else torch.stack(norms)).float()
    rows = [torch.linalg.vector_norm(t.reshape(count, -1), math.inf, dim=1) for t in tensors]
    return (rows[0] if len(rows) == 1 else torch.cat(rows)).float()


def _of(rows, first: int, end: int):
    return None if rows is None else rows.narrow(0, first, end - first)


def _listed(flags):
    return None if flags is None else list(flags.unbind(0))


def _own_gradients(bucket, gradients: list, sign: bool) -> tuple[list, bool]:
    """Gradients of the step's type, and whether they are copies that may be written."""
    n, work, inverse, copies = bucket.numbers, bucket.work, bucket.unscale, bucket.copies
    if copies:
        own = [torch.empty(g.shape, dtype=work, device=g.device) for g in gradients]
        torch._foreach_copy_(own, gradients)
        if inverse is not None:
            torch._foreach_mul_(own, inverse)
        if n.nonfinite == "zero":
            for g in own:
                g.nan_to_num_(0.0, 0.0, 0.0)
        gradients = own
    if sign and n.maximize:
        if copies:
            torch._foreach_neg_(gradients)
        else:
            gradients = list(torch._foreach_neg(gradients))
        copies = True
    return gradients, copies


# rules of entries


def _entries(bucket, flags, first: int, end: int, measure: bool, collect: bool):
    n, states = bucket.numbers, bucket.states[first:end]
    given = [g.reshape(p.shape) for g, p in zip(
        bucket.gradients[first:end], bucket.parameters[first:end], strict=True)]  # fmt: skip
    gradients, _ = _own_gradients(bucket, given, n.rule == "sgd")
    steps, skipped = [s["step"] for s in states], _of(flags.skipped, first, end)
    found = _listed(_of(flags.stays, first, end))
    if flags.stays is None:
        torch._foreach_add_(steps, 1.0)
    else:
        torch._foreach_add_(steps, list((1.0 - skipped).unbind(0)))
    weights = bucket.weights(first, end)
    if n.rule == "adamw":
        firsts, seconds = ([s[key] for s in states] for key in ("exp_avg", "exp_avg_sq"))
        fused_updates.adamw(weights, gradients, firsts, seconds, steps, n, found)
        updates = firsts
    else:
        updates = _sums(n, gradients, states, steps, found)
        fused_updates.moved(weights, updates, n.lr, n.weight_decay, found)
    largest, update = _of(flags.largest, first, end), None
    if collect:
        largest = _norms(gradients)
        size = [_update_size(n, u, s) for u, s in zip(updates, states, strict=True)]
        update = torch.stack(size) * n.lr
    bucket.put(weights, first, end)
    return skipped, _of(flags.idle, first, end), largest, update, None, None


def _sums(n, gradients: list, states: list, steps: list, found) -> list:
    """SGD's directions; moves the momentum."""
    if n.momentum == 0:
        return gradients
    buffers = [s["momentum_buffer"] for s in states]
    fused_updates.sums(buffers, gradients, n._replace(maximize=False), steps, found)
    return torch._foreach_add(gradients, buffers, alpha=n.momentum) if n.nesterov else buffers


def _update_size(n, update, state: dict):
    """The norm of an update without its rate."""
    total = torch.zeros((), dtype=torch.float32, device=update.device)
    for start in range(0, update.numel(), MOST // 4):
        length = min(MOST // 4, update.numel() - start)
        u = update.reshape(-1).narrow(0, start, length)
        if n.rule == "adamw":
            v = state["exp_avg_sq"].view(-1).narrow(0, start, length)
            step_ = state["step"].to(v.dtype)
            root = (v / fused_updates.bias_correction(step_, n.betas[1])).sqrt_().add_(n.eps)
            u = u / fused_updates.bias_correction(step_, n.betas[0]) / root
        total += torch.linalg.vector_norm(u).square()
    return total.sqrt()


# rules of matrices


def _matrices(bucket, flags, first: int, end: int, measure: bool, collect: bool):
    n = bucket.numbers
    units = bucket.units(first, end)
    gradients, own = _own_gradients(bucket, [u.gradient for u in units], True)
    norm = _norms(gradients) if collect else _of(flags.largest, first, end)
    momenta = [u.momentum for u in units]
    skipped, idle = _of(flags.skipped, first, end), _of(flags.idle, first, end)
    stays = _of(flags.stays, first, end)
    directions = None
    if flags.late:  # D = mu M' + (1 - mu) G of the M' to come: its norm tells for both
        directions = list(torch._foreach_lerp(momenta, gradients, 1.0 - n.momentum**2))
        sizes = [_block_norms(directions, part, bucket.shape) for part in bucket.parts]
        skipped = stays = _with_broken(skipped, sizes, len(units))
        norm = _norms(gradients) if collect else _largest_of(sizes, len(units))
    fused_updates.averaged(momenta, gradients, 1.0 - n.momentum, _listed(stays))
    if directions is None:
        directions = _directions(n, gradients, momenta, own)
        sizes = [_block_norms(directions, part, bucket.shape) for part in bucket.parts]
        if n.nonfinite == "skip":
            skipped = _with_broken(skipped, sizes, len(units))
            stays = skipped if idle is None else torch.maximum(skipped, idle)
    del gradients
    passed = _move_weights(bucket, units, directions, sizes, stays, measure, collect)
    return skipped, idle, norm, *passed


def _directions(n, gradients: list, momenta: list, own: bool) -> list:
    """D of momenta that have moved; in the gradients' memory, if that is ours."""
    if not n.nesterov:
        return list(momenta)
    if not own:
        return list(torch._foreach_lerp(momenta, gradients, 1.0 - n.momentum))
    torch._foreach_lerp_(gradients, momenta, n.momentum)
    return list(gradients)


def _direction(bucket, unit):
    """D of a matrix whose momentum has moved, as it was in its step."""
    gradients, own = [unit.gradient], False
    if bucket.numbers.nesterov:
        gradients, own = _own_gradients(bucket, gradients, True)
    return _directions(bucket.numbers, gradients, [unit.momentum], own)[0]


def _with_broken(skipped, sizes: list, units: int):
    """The flags, and 1 where a norm of a matrix is not finite."""
    for size in sizes:
        broken = (size * 0.0).nan_to_num_(1.0).float()
        broken = broken if len(broken) == units else broken.view(units, -1).amax(1)
        skipped = broken if skipped is None else torch.maximum(skipped, broken)
    return skipped


def _largest_of(sizes: list, units: int):
    """The largest norm of a block of every matrix."""
    own = [size if len(size) == units else size.view(units, -1).amax(1) for size in sizes]
    return (own[0] if len(own) == 1 else torch.stack(own).amax(0)).float()


def _move_weights(bucket, units, directions: list, sizes: list, stays, measure, collect):
    """Maps the directions, part by part, and moves the weights. Returns norms of the updates,
    directions passed and energy kept."""
    n, parts = bucket.numbers, bucket.parts
    weights, found = None, _listed(stays)
    sums = None
    if measure or collect or n.unit_rms:
        sums = [torch.zeros(len(units), device=bucket.device) for _ in range(3)]
    blocks, whole = 0, None
    if parts[0].axis == 1 and (len(parts) > 1 or parts[0].heads > 1):
        whole = [None] * len(units)
    for index, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        last = index + 1 == len(parts)
        xs = [_normalized(directions, part, size, last)]
        out, scale, faded = mapped(xs, part.map)
        factor, own = _factor(out, scale, faded, part, n, measure or collect)
        blocks += part.heads
        if own is not None:
            _add_figures(sums, bucket, units, part, out, own, size, collect)
        if factor is not None:
            out.mul_(factor)
        host = 1.0 if factor is not None else part.scale * scale
        if collect:
            updates = torch.linalg.vector_norm(out, dim=(1, 2)).float() * (host * n.lr)
            sums[0] += updates.square().view(len(units), -1).sum(1)
        outs = _joined(out, part, len(units))
        del out
        if whole is not None:
            whole = _into_whole(whole, outs, part, host, bucket)
            continue
        weights = weights or _wide(units, bucket.work)
        places = weights
        if len(parts) > 1:
            places = [w.narrow(0, part.offset, part.size) for w in weights]
        fused_updates.moved(places, outs, n.lr * host, n.weight_decay / host, found)
    if whole is not None:
        weights = _wide(units, bucket.work)
        fused_updates.moved(weights, whole, n.lr, n.weight_decay, found)
    bucket.put_units(units, weights)
    if not (measure or collect):
        return None, None, None
    return sums[0].sqrt(), sums[1], sums[2] / max(blocks, 1)


def _wide(units: list, work) -> list:
    """Weights of the step's type: themselves or copies."""
    return [u.weight if u.weight.dtype == work else u.weight.to(work) for u in units]


def _norms(tensors: list):
    norms = torch._foreach_norm(tensors)
    return (norms[0].view(1) if len(norms) == 1 else torch.stack(norms)).float()


def _block_norms(directions: list, part, shape):
    """Frobenius norms of the blocks of a part: (matrices * heads)."""
    if part.heads == 1 and part.size == shape[1 + part.axis]:
        norms = torch._foreach_norm(directions)
        return norms[0].view(1) if len(norms) == 1 else torch.stack(norms)
    norms = [torch.linalg.vector_norm(part.blocks(d), dim=(1, 2)) for d in directions]
    return norms[0] if len(norms) == 1 else torch.cat(norms)


def _normalized(directions: list, part, size, free: bool):
    """Blocks over their norms, as the map takes them; 0 where a norm is 0 or not finite. `free`:
    the directions are not needed any more."""
    like = part.blocks(directions[0])
    dtype = input_type(like, part.map)
    factor = (input_scale(part.map, dtype) / size).nan_to_num_(0.0, 0.0, 0.0).view(-1, 1, 1)
    shape = (len(directions) * part.heads, *like.shape[1:])
    x = torch.empty(shape, dtype=dtype, device=like.device)
    for index, d in enumerate(directions):
        place = (0, index * part.heads, part.heads)
        torch.mul(part.blocks(d), factor.narrow(*place), out=x.narrow(*place))
    if part.map.kind != "polynomial":  # eigenvalues of NaN may throw
        x.nan_to_num_(0.0, 0.0, 0.0)
    if free:
        directions.clear()
    return x


def _factor(out, scale: float, faded, part, n, look: bool):
    """(factor, norms): what makes s O of `out` where that is on the device, else None; and norms of
    O, if they are asked for or needed. A batch of blocks each."""
    small = None if faded is None else torch.exp2(-faded) * scale
    norms = None
    if look or n.unit_rms:
        norms = torch.linalg.vector_norm(out, dim=(1, 2)) * (scale if small is None else small)
    if n.unit_rms:
        entries = math.sqrt(out.shape[1] * out.shape[2])
        factor = (part.scale * entries / (norms + UNIT_RMS_FLOOR)) * (
            scale if small is None else small
        )
    elif small is not None:
        factor = small * part.scale
    else:
        return None, norms
    return factor.view(-1, 1, 1), norms


def _joined(out, part, count: int) -> list:
    """Blocks (count * heads, r, c) as one (rows, size) or (size, cols) for every matrix."""
    if part.heads == 1:
        return list(out.contiguous().unbind(0))
    own = out.view(count, part.heads, *out.shape[1:])
    if part.axis == 1:
        return list(own.transpose(1, 2).unbind(0))
    return list(own.reshape(count, part.size, -1).unbind(0))


def _into_whole(whole: list, outs: list, part, host: float, bucket) -> list:
    rows, cols = bucket.shape[1:]
    for index, out in enumerate(outs):
        if whole[index] is None:
            whole[index] = torch.empty((rows, cols), dtype=bucket.work, device=bucket.device)
        place = whole[index].narrow(1, part.offset, part.size)
        if part.heads > 1:
            place = place.unflatten(1, (part.heads, -1))
        torch.mul(out, host, out=place)
    return whole


def _add_figures(sums: list, bucket, units, part, out, norms, sizes, collect: bool):
    """Adds directions passed and, with statistics, <D, O>^2 / (|D|^2 |O|^2) of a part."""
    sums[1] += norms.float().square().view(len(units), -1).sum(1)
    if not collect:
        return
    inner = []
    for index, unit in enumerate(units):
        own = out.narrow(0, index * part.heads, part.heads)
        d = part.blocks(_direction(bucket, unit))
        inner.append(torch.stack([
            torch.dot(a.reshape(-1), b.reshape(-1))
            for a, b in zip(d.unbind(0), own.unbind(0), strict=True)
        ]))  # fmt: skip
    size = torch.linalg.vector_norm(out, dim=(1, 2)) * sizes
    kept = torch.nan_to_num((torch.cat(inner) / size).square(), 0.0).clamp_max(1.0)
    sums[2] += kept.float().view(len(units), -1).sum(1)
