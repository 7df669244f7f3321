# SPDX-License-Identifier: Apache-2.0
"""What torch operations know of singular values: the largest one, without waiting, and the maps
that choose among them, by eigenvalues of the smaller Gram matrix, which wait for the device."""

import torch

from pion.tensor_products import NARROW, product, symmetric_product

_SQUARINGS, _ITERATIONS, _COLUMNS = 5, 16, 8
_NO_F64 = ("mps", "xpu")
_SLAB = 1 << 20  # entries that are f64 at a time


def largest_singular_value(x):
    """The largest singular value of every matrix of x (batch, m, n), m <= n, f32 or f64 of (batch,
    1, 1); of 16-bit ones in f32.

    Power iteration by A^32, A = X X^T, on eight vectors: v^T A v / v^T v, v = A^512 v_0, is at most
    ln(m) / 1024 too small, 0.8 % at 4096 and its root 0.4 %, if the spectrum is as bad as it can
    be. Nothing waits.
    """
    narrow = x.dtype in NARROW
    wide = torch.float32 if narrow else x.dtype
    gram = symmetric_product(x, x, dtype=wide)
    size = _norm(gram)
    gram = (gram / size).to(x.dtype)
    power = gram
    for _ in range(_SQUARINGS):
        power = symmetric_product(power, power, dtype=wide)
        power = (power / _norm(power)).to(x.dtype)
    v = _start(x.shape[1], x.device, wide).expand(len(x), -1, -1)
    for _ in range(_ITERATIONS):
        v = product(power, v.to(x.dtype), wide)
        norm = torch.linalg.vector_norm(v, dim=1, keepdim=True)
        v = v / torch.where(norm > 0, norm, 1)
    rounded = v.to(x.dtype)
    forward, own = product(gram, rounded, wide), rounded.to(wide)
    length = (own * own).sum(1)
    ritz = (forward * own).sum(1) / torch.where(length > 0, length, 1)
    return (ritz.amax(1).view(-1, 1, 1) * size).clamp_min(0).sqrt()


def _norm(a):
    norm = torch.linalg.vector_norm(a, dim=(1, 2), keepdim=True)
    return torch.where(norm > 0, norm, 1)


def _start(rows: int, device, dtype):
    """(1, rows, columns): numbers that look random and are the same everywhere."""
    index = torch.arange(rows * _COLUMNS, device=device, dtype=torch.int64)
    bits = (index * 2654435761) >> 7  # Knuth's multiplicative hash
    return ((bits & 0xFFF).to(dtype) / 2048 - 1).view(1, rows, _COLUMNS)


def by_eigenvalues(x, map_):
    """low_rank and low_pass of x (batch, rows, cols), f32 or f64, of Frobenius norm 1: U_k V_k^T =
    W diag(1 / s) W^T X, W the eigenvectors of the smaller Gram matrix whose values are kept.

    An eigenvalue is right to an ulp of the largest, so s to u / s^2: in f64 of f32 matrices to
    their own 2^-24 for all s above 2^-15. Values within rounding of 0 count as 0.
    """
    tall = x.shape[1] > x.shape[2]
    own = x.mT if tall else x
    square, w = torch.linalg.eigh(_gram(own))  # ascending
    s = square.clamp_min(0).sqrt()
    unit = torch.finfo(x.dtype).eps
    zero = max(x.shape[1:]) * unit
    if square.dtype == x.dtype:  # squares are off by a unit of the largest
        zero = max(zero, (x.shape[1] * unit) ** 0.5)
    keep = s > zero * s[:, -1:]
    if map_.kind == "low_rank":
        count = s.shape[1]
        keep = keep & (torch.arange(count, device=s.device) >= count - map_.rank)
    else:
        keep = keep & (s < map_.cutoff)
    factor = torch.where(keep, 1 / s, 0).unsqueeze(1)
    projector = torch.bmm(w * factor, w.mT).to(x.dtype)
    return torch.bmm(x, projector) if tall else torch.bmm(projector, x)


def _gram(x):
    """X X^T, in f64 where the device has it; of f32 a slab of columns at a time."""
    if x.dtype == torch.float64 or x.device.type in _NO_F64:
        return torch.bmm(x, x.mT)
    columns = max(1, _SLAB // (len(x) * x.shape[1]))
    total = torch.zeros((len(x), x.shape[1], x.shape[1]), dtype=torch.float64, device=x.device)
    for slab in x.split(columns, 2):
        wide = slab.double()
        total.baddbmm_(wide, wide.mT)
    return total
