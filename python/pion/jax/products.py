# SPDX-License-Identifier: Apache-2.0
"""Products of matrices in the types that accelerators multiply fast.

An operand is rounded to fp16 or bf16, or split into two such numbers, behind a power of two; sums
are f32. On a CPU XLA multiplies such operands as f32, which holds each of their products exactly.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Operand(NamedTuple):
    """sum(parts) / scale."""

    parts: tuple[jax.Array, ...]
    scale: float

    def value(self) -> jax.Array:
        """In the type of sums."""
        if self.scale == 1:
            return self.parts[0]
        return sum(part.astype(jnp.float32) for part in self.parts) * (1 / self.scale)


class Arithmetic(NamedTuple):
    """What the operands of products are rounded to."""

    type: Any  # None: not at all
    square_parts: int  # of (m x m) operands; two parts have twice the bits
    wide_parts: int  # of X
    growth: float  # in Gram space, see form.pieces; 0: never there
    apart: bool = False  # a X of T X = a X + P X stays out of the product

    def rounded(self, x: jax.Array, scale: float, parts: int) -> Operand:
        """Entries must stay below 65504 / scale in fp16, and have fewer bits below 2^-14 / scale."""
        if self.type is None:
            return Operand((x,), 1)
        scaled = x * scale
        first = scaled.astype(self.type)
        if parts == 1:
            return Operand((first,), scale)
        return Operand((first, (scaled - first.astype(x.dtype)).astype(self.type)), scale)


def product(a: Operand, b: Operand, over: int = 2) -> jax.Array:
    """A B^T of all (batch, rows, cols), or A B if `over`, the axis of B that is summed over, is 1."""
    total = None
    # the smallest first; that of both second parts is less than what was rounded away
    for i, j in ((1, 0), (0, 1), (0, 0)):
        if i < len(a.parts) and j < len(b.parts):
            one = _product(a.parts[i], b.parts[j], over)
            total = one if total is None else total + one
    scale = a.scale * b.scale
    return total if scale == 1 else total * (1 / scale)


def _product(a, b, over: int):
    wide = a.dtype in (jnp.float32, jnp.float64)
    return jax.lax.dot_general(
        a, b, (((2,), (over,)), ((0,), (0,))),
        # never what jax_default_matmul_precision says: TF32 is no f32
        precision=jax.lax.Precision.HIGHEST if wide else jax.lax.Precision.DEFAULT,
        preferred_element_type=a.dtype if wide else jnp.float32,
    )  # fmt: skip


def products_of(a_parts: int, b_parts: int) -> int:
    """How many products one of operands in so many parts takes."""
    return a_parts + b_parts - 1
