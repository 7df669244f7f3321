# SPDX-License-Identifier: Apache-2.0
"""Spectral maps by jax.numpy: what the kernels do, on any device.

A polynomial of X is one of the Gram matrix A = X X^T, times X. Where X is wide that polynomial is
multiplied out first and X touched twice ("Gram space").
"""

import jax
import jax.numpy as jnp

# From here on four products of (m x m) a step cost less than two of (m x m x n) and one.
_GRAM_ASPECT = 1.5
# A rounding error of A, 2^-24 (f64: 2^-53) of its norm, may grow by this much before A is computed
# anew from X: to 6e-3 (1e-3). An eigenvalue near 0 grows by a^2 in every step.
_GROWTH = {"float32": 1e5, "float64": 1e13}


def apply(x: jax.Array, map_) -> jax.Array:
    """A pion._pion.SpectralMap of every matrix of x (batch, rows, cols), f32 or f64; zero stays
    zero."""
    # the largest entry first, so that no square under- or overflows
    largest = jnp.max(jnp.abs(x), axis=(1, 2), keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    x = x / safe_sqrt(jnp.sum(x * x, axis=(1, 2), keepdims=True))
    if map_.kind != "polynomial":
        return _exact(x, map_)
    if x.shape[1] > x.shape[2]:
        return _polynomial(x.mT, map_).mT
    return _polynomial(x, map_)


def safe_sqrt(squares):
    """The root, or 1 where there is none: its derivative is finite at 0 too."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 1)


def _product(a, b):
    # full precision of the type also where a device's default is less
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _polynomial(x, map_):
    narrow = x.dtype == jnp.float32 and map_.precision != "f32"
    if map_.spectral_norm:
        x = x / safe_sqrt(largest_eigenvalue(_product(x, x.mT)))
    if map_.norm_margin != 1:
        x = x / map_.norm_margin
    if narrow:  # both: X of 8 significant bits; "accurate" computes in f32 from there
        x = x.astype(jnp.bfloat16)
        if map_.precision == "accurate":
            x = x.astype(jnp.float32)
    if x.shape[2] < _GRAM_ASPECT * x.shape[1]:
        for p in map_.coefficients:
            x = _product(_quintic(_gram(x), p).astype(x.dtype), x)
        return x.astype(jnp.float32) if narrow else x
    return _in_gram_space(x, map_.coefficients).astype(jnp.float32 if narrow else x.dtype)


def _gram(x):
    """X X^T, of bf16 in f32: an error of 2^-9 would grow over the steps, to infinity where
    singular values far apart make it as large as what is to be kept."""
    wide = x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
    return _product(wide, wide.mT)


def _quintic(gram, p):
    """a I + b A + c A^2."""
    a, b, c = p
    result = b * gram if c == 0 else b * gram + c * _product(gram, gram)
    return result + a * jnp.eye(gram.shape[-1], dtype=gram.dtype)


def _in_gram_space(x, coefficients):
    gram, product, growth = _gram(x), None, 1.0
    limit = _GROWTH[jnp.dtype(gram.dtype).name]
    for i, p in enumerate(coefficients):
        factor = _quintic(gram, p)
        product = factor if product is None else _product(factor, product)
        if i + 1 == len(coefficients):
            break
        growth *= max(p[0] * p[0], 1.0)
        if growth > limit:
            x = _product(product.astype(x.dtype), x)
            gram, product, growth = _gram(x), None, 1.0
        else:
            gram = _product(_product(factor, gram), factor)
    return _product(product.astype(x.dtype), x)


def largest_eigenvalue(gram):
    """tr(A P) / tr(P) with P = A^q, q = 2^12: at most (1 + ln m) / q too small, 0.23 % at 4096.
    (batch, 1, 1). No start vector, and no loop that waits for its result."""

    def normalized(a):
        return a / safe_sqrt(jnp.sum(a * a, axis=(1, 2), keepdims=True))

    power = normalized(gram)
    for _ in range(12):
        power = normalized(_product(power, power))
    trace = jnp.trace(power, axis1=1, axis2=2)[:, None, None]
    weighted = jnp.sum(gram * power, axis=(1, 2), keepdims=True)
    return weighted / jnp.where(trace > 0, trace, 1)


def _exact(x, map_):
    """By SVD; x has Frobenius norm 1. Values within rounding of 0 count as 0."""
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    zero = max(x.shape[1:]) * jnp.finfo(x.dtype).eps
    keep = s > zero * s[:, :1]
    if map_.kind == "low_rank":
        keep = keep & (jnp.arange(s.shape[1]) < map_.rank)
    else:
        keep = keep & (s < map_.cutoff)
    return _product(u * keep[:, None, :], vt)
