# SPDX-License-Identifier: Apache-2.0
"""Spectral maps by torch operations: what the kernels do, on any device.

"fast" multiplies fp16 matrices with sums in f32; X, A, T and Q (see map_forms) are kept in fp16,
each times a power of two that keeps it in range. Those are known beforehand, but for filters that
suppress a whole matrix: there the scale follows the norm, on the device. "accurate" keeps A, T and
Q as two fp16 matrices each, high and low, and multiplies them in three products. "f32" and f64
round nothing. Nothing here waits for the device, except for the maps by eigenvalues.
"""

import functools

import torch

from pion._pion import Rule
from pion.eigen_maps import by_eigenvalues, largest_singular_value
from pion.map_forms import form
from pion.tensor_products import (
    NARROW,
    has_symmetric_kernel,
    operand_type,
    product,
    symmetric_product,
    true_products,
)
from pion.threads import stepper

_TYPES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
# From here on four products of (m x m) a step cost less than two of (m x m x n) and one.
_GRAM_ASPECT = 1.5
# A rounding error of A, 2^-24 (f64: 2^-53) of its norm, may grow by this much before A is computed
# anew from X: to 6e-3 (1e-3). An eigenvalue near 0 grows by a^2 in every step.
_GROWTH = {torch.float32: 1e5, torch.float64: 1e13}
# Entries of f32 and f64 matrices from which a step of the direct form is done some columns at a
# time: below, three matrices fit into 64 MiB.
_SLABS = 1 << 22
_SPLIT_SLABS = 3 << 20  # the same of "accurate", of 22 bytes an entry
# A large matrix goes through Gram space there only from this aspect on, where (m x m) matrices of
# f32 are small beside it.
_LARGE_ASPECT = 4.0
# Where a filter leaves a whole matrix below this norm, it is scaled up to it; c A^2 counts for
# 2^-12 there, so that it may keep the scale of b A.
_FADED = 2.0**-6
_TOP_OF_T = 2.0**15  # Frobenius norm of T then, at most


class Map:
    """A SpectralMap of one shape as plain numbers, which torch.compile can hold as constants."""

    def __init__(self, map_, rows: int, cols: int):
        self.kind, self.coefficients = map_.kind, tuple(map_.coefficients)
        self.spectral_norm, self.norm_margin = map_.spectral_norm, map_.norm_margin
        self.precision, self.rank, self.cutoff = map_.precision, map_.rank, map_.cutoff
        self.key = (
            self.kind, self.coefficients, self.spectral_norm, self.norm_margin, self.precision,
            self.rank, self.cutoff,
        )  # fmt: skip
        self.form = None
        if self.kind == "polynomial":
            self.form = form(map_, rows, cols)


@functools.lru_cache(maxsize=4096)
def cached_map(rule: Rule, rows: int, cols: int) -> Map:
    return Map(rule.map(rows, cols), rows, cols)


def spectral_map(x: torch.Tensor, rule: Rule):
    """(result, statistics) of pion.spectral_map for a tensor."""
    if x.dtype not in _TYPES:
        raise ValueError(f"spectral_map: x must be float32, float64 or bfloat16, got {x.dtype}")
    if x.dim() < 2:
        raise ValueError(f"spectral_map: x must be (..., rows, cols), got shape {list(x.shape)}")
    rows, cols = x.shape[-2:]
    x = x.detach().contiguous()
    if x.numel() == 0:
        return torch.empty_like(x), []
    count = x.numel() // (rows * cols)
    if x.device.type == "cpu":
        result = torch.empty_like(x)
        what = stepper().map(
            rule, _TYPES[x.dtype], x.data_ptr(), result.data_ptr(), count, rows, cols
        )
        return result, what
    if not torch.isfinite(x).all():
        raise ValueError("spectral_map: x must be finite, got NaN or Inf")
    work = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    with true_products():
        result = apply(work.view(count, rows, cols), cached_map(rule, rows, cols))
    return result.to(x.dtype).view(x.shape), _statistics(work.view(count, rows, cols), result)


def _statistics(x, result) -> list[dict]:
    wide = torch.float32 if x.device.type in ("mps", "xpu") else torch.float64  # what they have
    x, result = x.to(wide), result.to(wide)
    norm, size = torch.linalg.matrix_norm(x), torch.linalg.matrix_norm(result)
    sigma = torch.linalg.matrix_norm(x, 2)
    inner = (x * result).sum((1, 2))
    energy = torch.nan_to_num((inner / (norm * size)) ** 2)
    stable = torch.nan_to_num((norm / sigma) ** 2)
    names = ("frobenius_norm", "sigma_max", "stable_rank", "directions_passed", "energy_kept")
    table = torch.stack((norm, sigma, stable, size**2, energy), 1).tolist()
    return [dict(zip(names, row, strict=True)) for row in table]


def apply(x: torch.Tensor, map_: Map) -> torch.Tensor:
    """The map of every matrix of x (batch, rows, cols), f32 or f64; zero stays zero."""
    # the largest entry first, so that no square under- or overflows
    largest = x.abs().amax((1, 2), keepdim=True)
    x = x / torch.where(largest > 0, largest, 1)
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    dtype = input_type(x, map_)
    xs = [(x * (input_scale(map_, dtype) / torch.where(norm > 0, norm, 1))).to(dtype)]
    out, scale, faded = mapped(xs, map_)
    if faded is not None:
        out.mul_(torch.exp2(-faded).view(-1, 1, 1))
    return out if scale == 1.0 else out.mul_(scale)


def input_type(x, map_: Map) -> torch.dtype:
    """What X is rounded to before the map."""
    if map_.kind != "polynomial" or map_.precision == "f32" or x.dtype == torch.float64:
        return x.dtype
    return operand_type(x.device)


def input_scale(map_: Map, dtype) -> float:
    """What a matrix of Frobenius norm 1 is multiplied by before it is rounded to `dtype`: the
    margin of its map, and what keeps squares of its entries within fp16."""
    if map_.kind != "polynomial" or map_.spectral_norm:
        return _unit(map_, dtype)
    return _unit(map_, dtype) / map_.norm_margin


def _unit(map_: Map, dtype) -> float:
    """What stands for 1 in X."""
    return map_.form.steps[0].x_scale if dtype in NARROW else 1.0


def mapped(xs: list, map_: Map):
    """(out, scale, faded): the map is out * scale / 2^faded. xs holds x alone, which is freed as
    soon as it may be: input_scale() / norm times the matrix, of input_type(). out is f32 (f64);
    faded None or f32 of `batch` entries."""
    x = xs.pop()
    if map_.kind != "polynomial":
        return by_eigenvalues(x, map_), 1.0, None
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    if map_.spectral_norm:
        x = _of_spectral_norm(x, map_)
    xs.append(x)
    if x.dtype not in NARROW:
        del x
        return _exactly(xs, map_, tall), 1.0, None
    in_gram_space = map_.form.in_gram_space(has_symmetric_kernel(x.device))
    if map_.precision == "accurate" and x.numel() > _SPLIT_SLABS:
        in_gram_space = in_gram_space and map_.form.aspect >= _LARGE_ASPECT
    del x
    return (_in_gram_space if in_gram_space else _directly)(xs, map_, tall)


def _of_spectral_norm(x, map_: Map):
    """x scaled so that its largest singular value is that of its scale, over the margin."""
    sigma = largest_singular_value(x)
    wanted = _unit(map_, x.dtype) / map_.norm_margin
    return (x * (wanted / torch.where(sigma > 0, sigma, 1))).to(x.dtype)


# 16-bit products


def _split(value, narrow, parts: int) -> tuple:
    """f32 as one or two 16-bit matrices that add up to it; the second takes its memory."""
    high = value.to(narrow)
    return (high,) if parts == 1 else (high, value.sub_(high).to(narrow))


def _times(a: tuple, b: tuple, alpha: float, narrow) -> tuple:
    """alpha a b of symmetric matrices that commute, in as many parts."""
    if len(a) == 1:
        return (symmetric_product(a[0], b[0], alpha=alpha, dtype=narrow),)
    total = symmetric_product(a[0], b[0], alpha=alpha, dtype=torch.float32)
    total.add_(symmetric_product(a[0], b[1], alpha=alpha, dtype=torch.float32))
    total.add_(symmetric_product(a[1], b[0], alpha=alpha, dtype=torch.float32))
    return _split(total, narrow, 2)


def _gram(x, step, scale: float, parts: int) -> tuple:
    """A = X X^T by gram_scale; x is by `scale`."""
    alpha = step.gram_scale / scale**2
    if parts == 1:
        return (symmetric_product(x, x, alpha=alpha, dtype=x.dtype),)
    return _split(symmetric_product(x, x, alpha=alpha, dtype=torch.float32), x.dtype, 2)


def _quintic(gram: tuple, step, narrow) -> tuple:
    """T = a I + b A + c A^2 by t_scale."""
    t, g = step.t_scale, step.gram_scale
    beta, alpha, gamma = step.b * t / g, step.c * t / g**2, step.a * t
    if len(gram) == 1:
        own = gram[0]
        if step.c == 0.0:
            result = own * beta
            result.diagonal(dim1=1, dim2=2).add_(gamma)
            return (result,)
        return (
            symmetric_product(
                own, own, c=own, alpha=alpha, beta=beta, gamma=gamma, dtype=narrow
            ),
        )
    if gram[0].numel() > _SPLIT_SLABS:
        return _quintic_by_rows(gram, beta, alpha, gamma, narrow)
    wide = gram[0].float().add_(gram[1]).mul_(beta)
    if step.c != 0.0:
        wide.add_(symmetric_product(gram[0], gram[0], alpha=alpha, dtype=torch.float32))
        wide.add_(symmetric_product(gram[0], gram[1], alpha=2 * alpha, dtype=torch.float32))
    wide.diagonal(dim1=1, dim2=2).add_(gamma)
    return _split(wide, narrow, 2)


def _quintic_by_rows(gram: tuple, beta: float, alpha: float, gamma: float, narrow) -> tuple:
    """The same for large matrices, some rows at a time, as little of it as possible in f32."""
    result = tuple(torch.empty_like(part) for part in gram)
    rows = gram[0].shape[1]
    size = -(-rows // 8)
    for first in range(0, rows, size):
        count = min(size, rows - first)
        high, low = (part.narrow(1, first, count) for part in gram)
        wide = high.float().add_(low).mul_(beta)
        if alpha != 0.0:
            for a, b in ((high, gram[0]), (high, gram[1]), (low, gram[0])):
                wide.add_(product(a, b, torch.float32, alpha))
        wide.diagonal(offset=first, dim1=1, dim2=2).add_(gamma)
        for into, own in zip(result, _split(wide, narrow, 2), strict=True):
            into.narrow(1, first, count).copy_(own)
    return result


def _onto(q: tuple, x, alpha: float, dtype, tall: bool = False):
    """alpha Q X, rounded once; its transpose, X^T Q, where X was tall."""
    if len(q) == 1:
        return product(x.mT, q[0], dtype, alpha) if tall else product(q[0], x, dtype, alpha)
    result = torch.empty(x.mT.shape if tall else x.shape, dtype=dtype, device=x.device)
    slabs = 8 if x.numel() > _SPLIT_SLABS else 1
    for first in range(0, x.shape[2], size := -(-x.shape[2] // slabs)):
        own = x.narrow(2, first, min(size, x.shape[2] - first))
        high, low = (
            product(*((own.mT, p) if tall else (p, own)), torch.float32, alpha) for p in q
        )
        result.narrow(1 if tall else 2, first, own.shape[2]).copy_(high.add_(low))
    return result


def _directly(xs: list, map_: Map, tall: bool):
    """X <- T X in every step. (out, scale, faded) of mapped()."""
    x = xs.pop()
    steps, narrow = map_.form.steps, x.dtype
    parts = 2 if map_.precision == "accurate" else 1
    faded = None
    for index, step in enumerate(steps):
        factor = _quintic(_gram(x, step, step.x_scale, parts), step, narrow)
        if faded is not None and step.a == 0.0:  # T X is b A X, of the third degree
            faded = 3.0 * faded
        if index + 1 == len(steps):
            out = _onto(factor, x, 1.0, torch.float32, tall)
            return out, 1.0 / (step.x_scale * step.t_scale), faded
        if map_.form.fades and step.a == 0.0:
            factor, more = _unfaded(factor, step)
            faded = more if faded is None else faded + more
        following = steps[index + 1].x_scale
        x = _onto(factor, x, following / (step.x_scale * step.t_scale), narrow)
        del factor
    raise AssertionError("a map has steps")


def _unfaded(factor: tuple, step):
    """T scaled up so that T X is not below _FADED, and by which power of two."""
    size = torch.linalg.vector_norm(factor[0], dim=(1, 2), dtype=torch.float32) / step.t_scale
    # ||T X|| <= ||T|| ||X||, ||X||^2 <= ||A|| <= ||T|| / slope
    into = torch.sqrt(size / max(step.slope, 2.0**-4)).clamp_max(step.into)
    most = _TOP_OF_T / (step.t_scale * size)
    scale = torch.minimum(_FADED / (size * into), most).clamp(1.0, 2.0**100)
    more = torch.log2(scale).floor()
    scale = torch.exp2(more).view(-1, 1, 1)
    return tuple(part.mul_(scale) for part in factor), more


def _in_gram_space(xs: list, map_: Map, tall: bool):
    x = xs.pop()
    steps, narrow = map_.form.steps, x.dtype
    parts = 2 if map_.precision == "accurate" else 1
    for start, end in map_.form.segments:
        scale = steps[start].x_scale
        q = _multiplied_out(_gram(x, steps[start], scale, parts), steps[start:end], narrow)
        total = scale * steps[end - 1].q_scale
        if end == len(steps):
            return _onto(q, x, 1.0, torch.float32, tall), 1.0 / total, None
        x = _onto(q, x, steps[end].x_scale / total, narrow)
    raise AssertionError("a map has segments")


def _multiplied_out(gram: tuple, steps: list, narrow) -> tuple:
    """Q = T_k ... T_1 of a segment, by its last q_scale."""
    q, before = None, 1.0
    for index, step in enumerate(steps):
        factor = _quintic(gram, step, narrow)
        if q is None:
            q, before = factor, step.t_scale
        else:
            q = _times(factor, q, step.q_scale / (step.t_scale * before), narrow)
            before = step.q_scale
        if index + 1 == len(steps):
            break
        w = _times(factor, gram, step.w_scale / (step.t_scale * step.gram_scale), narrow)
        following = steps[index + 1].gram_scale
        gram = _times(w, factor, following / (step.w_scale * step.t_scale), narrow)
    if before != steps[-1].q_scale:  # of one step
        q = tuple(part.mul_(steps[-1].q_scale / before) for part in q)
    return q


# products of f32 and f64


def _exactly(xs: list, map_: Map, tall: bool):
    x = xs.pop()
    if x.shape[2] >= (_LARGE_ASPECT if x.numel() > _SLABS else _GRAM_ASPECT) * x.shape[1]:
        return _exactly_in_gram_space(x, map_.coefficients, tall)
    for p in map_.coefficients:
        gram = torch.bmm(x, x.mT)
        if x.numel() > _SLABS:
            _exact_step_in_place(x, gram, p)
        else:
            gram = _exact_quintic(gram, p)
            x = torch.bmm(gram, x)
        del gram
    return x.mT if tall else x


def _exact_step_in_place(x, gram, p):
    """X <- a X + A (b X + c A X), some columns at a time: as much work as by T where X is square,
    and X and A are all that lies in memory."""
    a, b, c = p
    for columns in x.split(max(1, -(-x.shape[2] // 32)), 2):
        inner = columns * b
        if c != 0.0:
            inner.baddbmm_(gram, columns, alpha=c)
        columns.mul_(a).baddbmm_(gram, inner)


def _exact_quintic(gram, p):
    """a I + b A + c A^2."""
    a, b, c = p
    result = b * gram if c == 0 else torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal(dim1=1, dim2=2).add_(a)
    return result


def _exactly_in_gram_space(x, coefficients, tall: bool):
    gram, q, growth = torch.bmm(x, x.mT), None, 1.0
    limit = _GROWTH[gram.dtype]
    for i, p in enumerate(coefficients):
        factor = _exact_quintic(gram, p)
        q = factor if q is None else torch.bmm(factor, q)
        if i + 1 == len(coefficients):
            break
        growth *= max(p[0] * p[0], 1.0)
        if growth > limit:
            x = _exactly_onto(q, x)
            gram, q, growth = torch.bmm(x, x.mT), None, 1.0
        else:
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    x = _exactly_onto(q, x)
    return x.mT if tall else x


def _exactly_onto(q, x):
    """Q X; where X is large in its memory."""
    if x.numel() <= _SLABS:
        return torch.bmm(q, x)
    for columns in x.split(max(1, -(-x.shape[2] // 32)), 2):
        columns.copy_(torch.bmm(q, columns))
    return x
