# SPDX-License-Identifier: Apache-2.0
"""Spectral maps by torch operations: what the kernels do, on any device.

A polynomial of X is one of the Gram matrix A = X X^T, times X. Where X is wide that polynomial is
multiplied out first and X touched twice ("Gram space").
"""

import functools

import torch

from pion._pion import Rule
from pion.threads import stepper

_TYPES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
# From here on four products of (m x m) a step cost less than two of (m x m x n) and one.
_GRAM_ASPECT = 1.5
# A rounding error of A, 2^-24 (f64: 2^-53) of its norm, may grow by this much before A is computed
# anew from X: to 6e-3 (1e-3). An eigenvalue near 0 grows by a^2 in every step.
_GROWTH = {torch.float32: 1e5, torch.float64: 1e13}


class Map:
    """A SpectralMap as plain numbers, which torch.compile can hold as constants."""

    def __init__(self, map_):
        self.kind, self.coefficients = map_.kind, tuple(map_.coefficients)
        self.spectral_norm, self.norm_margin = map_.spectral_norm, map_.norm_margin
        self.precision, self.rank, self.cutoff = map_.precision, map_.rank, map_.cutoff
        self.key = (
            self.kind, self.coefficients, self.spectral_norm, self.norm_margin, self.precision,
            self.rank, self.cutoff,
        )  # fmt: skip


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
    result = apply(work.view(count, rows, cols), Map(rule.map(rows, cols)))
    return result.to(x.dtype).view(x.shape), _statistics(work.view(count, rows, cols), result)


def _statistics(x, result) -> list[dict]:
    x, result = x.double(), result.double()
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
    x = x / torch.where(norm > 0, norm, 1)
    if map_.kind != "polynomial":
        return _exact(x, map_)
    if x.shape[1] > x.shape[2]:
        return _polynomial(x.mT, map_).mT
    return _polynomial(x, map_)


def _polynomial(x, map_: Map):
    narrow = x.dtype == torch.float32 and map_.precision != "f32"
    if map_.spectral_norm:
        sigma = largest_eigenvalue(x @ x.mT).sqrt()
        x = x / torch.where(sigma > 0, sigma, 1)
    if map_.norm_margin != 1:
        x = x / map_.norm_margin
    if narrow:  # both: X of 8 significant bits; "accurate" computes in f32 from there
        x = x.bfloat16()
        if map_.precision == "accurate":
            x = x.float()
    if x.shape[2] < _GRAM_ASPECT * x.shape[1]:
        for p in map_.coefficients:
            x = _quintic(_gram(x), p).to(x.dtype) @ x
        return x.float() if narrow else x
    return _in_gram_space(x, map_.coefficients).to(torch.float32 if narrow else x.dtype)


def _gram(x):
    """X X^T, of bf16 in f32: an error of 2^-9 would grow over the steps, to infinity where
    singular values far apart make it as large as what is to be kept."""
    wide = x.float() if x.dtype == torch.bfloat16 else x
    return wide @ wide.mT


def _quintic(gram, p):
    """a I + b A + c A^2."""
    a, b, c = p
    result = b * gram if c == 0 else torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal(dim1=1, dim2=2).add_(a)
    return result


def _in_gram_space(x, coefficients):
    gram, product, growth = _gram(x), None, 1.0
    limit = _GROWTH[gram.dtype]
    for i, p in enumerate(coefficients):
        factor = _quintic(gram, p)
        product = factor if product is None else factor @ product
        if i + 1 == len(coefficients):
            break
        growth *= max(p[0] * p[0], 1.0)
        if growth > limit:
            x = product.to(x.dtype) @ x
            gram, product, growth = _gram(x), None, 1.0
        else:
            gram = factor @ gram @ factor
    return product.to(x.dtype) @ x


def largest_eigenvalue(gram):
    """tr(A P) / tr(P) with P = A^q, q = 2^12: at most (1 + ln m) / q too small, 0.23 % at 4096.
    (batch, 1, 1). No start vector, and nothing to wait for."""

    def normalized(a):
        norm = torch.linalg.vector_norm(a, dim=(1, 2), keepdim=True)
        return a / torch.where(norm > 0, norm, 1)

    power = normalized(gram)
    for _ in range(12):
        power = normalized(power @ power)
    trace = power.diagonal(dim1=1, dim2=2).sum(-1).view(-1, 1, 1)
    return (gram * power).sum((1, 2), keepdim=True) / torch.where(trace > 0, trace, 1)


def _exact(x, map_: Map):
    """By SVD; x has Frobenius norm 1. Values within rounding of 0 count as 0."""
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    zero = max(x.shape[1:]) * torch.finfo(x.dtype).eps
    keep = s > zero * s[:, :1]
    if map_.kind == "low_rank":
        keep = keep & (torch.arange(s.shape[1], device=s.device) < map_.rank)
    else:
        keep = keep & (s < map_.cutoff)
    return (u * keep.unsqueeze(1)) @ vt


@functools.lru_cache(maxsize=4096)
def cached_map(rule: Rule, rows: int, cols: int) -> Map:
    return Map(rule.map(rows, cols))
