# SPDX-License-Identifier: Apache-2.0
"""Spectral maps by jax.numpy: what the kernels do, on any device.

Products outside of precision "f32" and of f64 have 16-bit operands and f32 sums: fp16 on GPUs, and
on CPUs for the same numbers; bf16 elsewhere, as on TPUs. docs/jax.md has the errors of each.
"""

import functools

import jax
import jax.numpy as jnp

from pion.jax.form import form
from pion.jax.products import Arithmetic, Operand, product

# Growth in Gram space is of an error of 2^-11: to .1 by 196, which is three steps of
# "polar_express" (165) or "cans" (170), or four promotions of Pion (153).
_FP16 = {
    "fast": Arithmetic(jnp.float16, 1, 1, 196.0),
    "accurate": Arithmetic(jnp.float16, 2, 1, 196.0),
}
# In bf16 T loses the bits of P beside a I. One part is no further off than direct code in bf16 only
# where X is multiplied in every step.
_BF16 = {
    "fast": Arithmetic(jnp.bfloat16, 1, 1, 0.0, apart=True),
    "accurate": Arithmetic(jnp.bfloat16, 2, 2, 196.0),
}
# Errors of 2^-24 and 2^-53 may grow to 6e-3 and 1e-3.
_WHOLE = {"float32": Arithmetic(None, 1, 1, 1e5), "float64": Arithmetic(None, 1, 1, 1e13)}

# X comes with entries below 2. Later ones, A, T and Q have entries of 119 at most: Q, by 14 in all
# steps of a piece but the last and by 8.5, the largest coefficient, in that.
_SCALE_OF_INPUT, _SCALE = 2.0**14, 2.0**9
# Where a map suppresses, all matrices are brought below 1 on the way.
_SCALE_OF_SUPPRESSED = 2.0**14


def apply(x: jax.Array, largest: jax.Array, map_) -> jax.Array:
    """A pion._pion.SpectralMap of every matrix of x (batch, rows, cols), f32 or f64. `largest` are
    the largest absolute values, (batch, 1, 1). Zero stays zero; of a matrix that is not finite the
    result is zero too."""
    x = jnp.where(jnp.isfinite(largest), x, 0) / _power_of_two(largest, below=True)
    if map_.kind != "polynomial":
        return _exact(x, map_)
    if x.shape[1] > x.shape[2]:
        return _polynomial(x.mT, map_).mT
    return _polynomial(x, map_)


def safe_sqrt(squares):
    """The root, or 1 where there is none: its derivative is finite at 0 too."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 1)


def _power_of_two(x, below: bool = False):
    """The least power of two that is larger than x, or the largest one that is not; 1 for 0 and
    for what is not finite. A constant to derivatives."""
    x = jax.lax.stop_gradient(x)
    _, exponent = jnp.frexp(x)  # x < 2^exponent <= 2 x
    usable = jnp.isfinite(x) & (x > 0)
    least = jnp.finfo(x.dtype).minexp  # the powers below are no normal numbers
    exponent = jnp.where(usable, jnp.maximum(exponent - below, least), 0)
    return jnp.ldexp(jnp.ones_like(x), exponent)


def _polynomial(x, map_):
    if map_.precision == "f32" or x.dtype == jnp.float64:
        return _multiplied(map_, _WHOLE[x.dtype.name], x)
    return _narrow(map_)(x)


def _narrow(map_):
    """The map in 16-bit products, with the derivative of the formula in full precision."""

    @jax.custom_jvp
    def mapped(x):
        fp16 = functools.partial(_multiplied, map_, _FP16[map_.precision])
        bf16 = functools.partial(_multiplied, map_, _BF16[map_.precision])
        return jax.lax.platform_dependent(x, cpu=fp16, cuda=fp16, rocm=fp16, default=bf16)

    @mapped.defjvp
    def derivative(primals, tangents):
        whole = functools.partial(_multiplied, map_, _WHOLE["float32"])
        return mapped(*primals), jax.jvp(whole, primals, tangents)[1]

    return mapped


def _multiplied(map_, arithmetic: Arithmetic, x):
    """x (batch, m, n), m <= n, with entries below 2."""
    pieces = form(map_.coefficients, x.shape[2] / x.shape[1], arithmetic)
    # scales follow the data where the map makes small singular values smaller
    follows = arithmetic.type is not None and any(p[0] < 1 for p in map_.coefficients)
    chain = _Chain(arithmetic, follows)
    operand = chain.wide(x, _SCALE_OF_INPUT)
    gram = product(operand, operand)
    squares = _largest_eigenvalue(gram, chain) if map_.spectral_norm else _trace(gram)
    norm = safe_sqrt(squares) * map_.norm_margin
    gram = gram / (norm * norm)
    # X is this times the operand, over `norm`
    sigma = jnp.where(squares > 0, 1.0, 0.0).astype(gram.dtype) if follows else 1.0
    for index, piece in enumerate(pieces):
        if index > 0:
            operand, norm = chain.wide(x), 1.0
            gram = product(operand, operand)
        if arithmetic.apart and len(piece) == 1:
            x, sigma = _stepped(piece[0], operand, gram, norm, sigma, chain)
            continue
        q, factor, sigma = _multiplied_out(piece, gram, sigma, chain)
        x = product(chain.square(q), operand, 1) * (factor / norm)
    return x * sigma if follows else x


class _Chain:
    """Operands of one map. `follows`: matrices are brought below 1, and what they were divided by
    is kept beside them."""

    def __init__(self, arithmetic: Arithmetic, follows: bool):
        self.arithmetic, self.follows = arithmetic, follows
        self.scale = _SCALE_OF_SUPPRESSED if follows else _SCALE

    def wide(self, x, scale: float | None = None) -> Operand:
        return self.arithmetic.rounded(x, scale or self.scale, self.arithmetic.wide_parts)

    def square(self, x) -> Operand:
        return self.arithmetic.rounded(x, self.scale, self.arithmetic.square_parts)

    def normalized(self, gram):
        """(A / root^2 of a trace in [1/4, 1), root), a power of two."""
        if not self.follows:
            return gram, 1.0
        root = _power_of_two(safe_sqrt(_trace(gram)))
        return gram / (root * root), root

    def factor(self, gram: Operand, p, sigma):
        """(a, P, size): size (a I + P) = T = a I + b sigma^2 A + c sigma^4 A^2."""
        (a, b, c), size = p, 1.0
        if self.follows:
            square = sigma * sigma
            # where a is 0 a factor stands before T, for sigma^4 soon is too small for f32
            size, b, c = (square, b, c * square) if a == 0 else (1.0, b * square, c * square**2)
            bound = _power_of_two(abs(a) + abs(b) + abs(c))  # of T: the trace of A is below 1
            a, b, c, size = a / bound, b / bound, c / bound, size * bound
        rest = b * gram.value()
        return a, rest if p[2] == 0 else rest + c * product(gram, gram), size


def _stepped(p, operand: Operand, gram, norm, sigma, chain: _Chain):
    """(X, sigma) after X <- a X + P X."""
    # read as it was rounded: a compiler may compute it again, from all that it was computed from
    operand = Operand(jax.lax.optimization_barrier(operand.parts), operand.scale)
    gram, root = chain.normalized(gram)
    sigma = sigma * root
    a, rest, size = chain.factor(chain.square(gram), p, sigma)
    x = product(chain.square(rest), operand, 1)
    if p[0] != 0:
        x = x + a * operand.value()
    return x * (1 / (root * norm)), sigma * size


def _multiplied_out(piece, gram, sigma, chain: _Chain):
    """(Q, factor, sigma): factor Q times the operand is what the piece makes of it, over the new
    sigma. T is rounded with its a I: of matrices whose singular values are alike it is near a
    multiple of I, and P is as near to a larger one."""
    q, factor = None, 1.0
    for index, p in enumerate(piece):
        gram, root = chain.normalized(gram)
        sigma = sigma * root
        factor = factor / root
        a_gram = chain.square(gram)
        a, rest, size = chain.factor(a_gram, p, sigma)
        t = rest + a * jnp.eye(gram.shape[-1], dtype=gram.dtype)
        a_t = chain.square(t)
        sigma = sigma * size
        q = t if q is None else product(a_t, chain.square(q))
        if chain.follows:  # Q is positive semidefinite: no entry is above its trace
            bound = _power_of_two(_trace(q))
            q, factor = q / bound, factor * bound
        if index + 1 < len(piece):
            gram = product(chain.square(product(a_t, a_gram)), a_t)
    return q, factor, sigma


def _trace(a):
    return jnp.sum(jnp.diagonal(a, axis1=1, axis2=2), axis=1)[:, None, None]


_SQUARINGS, _ITERATIONS, _COLUMNS = 5, 16, 8


def _largest_eigenvalue(gram, chain: _Chain):
    """(batch, 1, 1). Power iteration by A^32 on eight vectors: v^T A v / v^T v, v = A^512 v_0, is
    at most ln(m) / 1024 too small, .8 % at 4096. No loop waits for its result."""

    def normalized(a, axis):
        return a / safe_sqrt(jnp.sum(a * a, axis=axis, keepdims=True))

    gram_trace = _trace(gram)
    gram = chain.square(gram / jnp.where(gram_trace > 0, gram_trace, 1))
    power = gram
    for _ in range(_SQUARINGS):
        power = chain.square(normalized(product(power, power), (1, 2)))
    # columns that look random and are the same everywhere: Knuth's multiplicative hash
    rows = gram.parts[0].shape[1]
    index = jnp.arange(rows * _COLUMNS, dtype=jnp.uint32) * jnp.uint32(2654435761)
    start = ((index >> 7) & 0xFFF).astype(gram_trace.dtype) / 2048 - 1
    v = jnp.broadcast_to(start.reshape(1, rows, _COLUMNS), (len(gram_trace), rows, _COLUMNS))
    for _ in range(_ITERATIONS):
        v = normalized(product(power, chain.square(v), 1), 1)
    v = chain.square(v)
    forward, own = product(gram, v, 1), v.parts[0].astype(gram_trace.dtype) / v.scale
    ritz = jnp.sum(forward * own, axis=1) / safe_sqrt(jnp.sum(own * own, axis=1)) ** 2
    return jnp.max(ritz, axis=1)[:, None, None] * gram_trace


def _exact(x, map_):
    """By singular vectors. Values within rounding of 0 count as 0."""
    x = x / safe_sqrt(jnp.sum(x * x, axis=(1, 2), keepdims=True))
    zero = max(x.shape[1:]) * jnp.finfo(x.dtype).eps
    if x.dtype == jnp.float32 and jax.config.jax_enable_x64:
        return _by_eigenvalues(x, map_, zero)
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    keep = (s > zero * s[:, :1]) & _wanted(s, jnp.arange(s.shape[1]), map_)
    return jnp.matmul(u * keep[:, None, :], vt, precision=jax.lax.Precision.HIGHEST)


def _wanted(s, rank, map_):
    return rank < map_.rank if map_.kind == "low_rank" else s < map_.cutoff


def _by_eigenvalues(x, map_, zero):
    """W diag(1 / s) W^T X, W the eigenvectors of the smaller Gram matrix that are kept. In f64 an
    eigenvalue of it is off by 2^-53 of the largest: s of f32 matrices by their own 2^-24 down to
    2^-15 of the largest. Without f64 squares would lose half of the bits."""
    if x.shape[1] > x.shape[2]:
        return _by_eigenvalues(x.mT, map_, zero).mT
    wide = x.astype(jnp.float64)
    squares, w = jnp.linalg.eigh(jnp.matmul(wide, wide.mT, precision=jax.lax.Precision.HIGHEST))
    s = jnp.sqrt(jnp.maximum(squares, 0))  # ascending
    rank = s.shape[1] - 1 - jnp.arange(s.shape[1])
    keep = (s > zero * s[:, -1:]) & _wanted(s, rank, map_)
    factor = jnp.where(keep, 1 / jnp.where(keep, s, 1), 0)
    projector = jnp.matmul(w * factor[:, None, :], w.mT, precision=jax.lax.Precision.HIGHEST)
    return jnp.matmul(projector.astype(x.dtype), x, precision=jax.lax.Precision.HIGHEST)
