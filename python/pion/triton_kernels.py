# SPDX-License-Identifier: Apache-2.0
"""The kernel of triton_products. Imports Triton; so nothing but triton_products imports it."""

import triton
import triton.language as tl


@triton.jit
def _symmetric_product(
    a, b, c, out, scale, alpha, beta, gamma, rows, depth,
    a_batch, a_row, a_col, b_batch, b_row, b_col, c_batch, c_row, c_col,
    HAS_C: tl.constexpr, HAS_SCALE: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One tile (i, j), j <= i, of one matrix, and its mirror image. Programs of one matrix follow
    each other, row of tiles by row of tiles, so that its operands stay in L2."""
    side = tl.cdiv(rows, TILE)
    tiles = side * (side + 1) // 2
    matrix = (tl.program_id(0) // tiles).to(tl.int64)
    index = tl.program_id(0) % tiles
    # index = i (i + 1) / 2 + j; the root is right to one
    i = ((tl.sqrt(8.0 * index + 1.0) - 1.0) * 0.5).to(tl.int32)
    i = tl.where(i * (i + 1) // 2 > index, i - 1, i)
    i = tl.where((i + 1) * (i + 2) // 2 <= index, i + 1, i)
    j = index - i * (i + 1) // 2

    own = i * TILE + tl.arange(0, TILE)
    other = j * TILE + tl.arange(0, TILE)
    inner = tl.arange(0, DEPTH)
    wide_own, wide_other = own.to(tl.int64), other.to(tl.int64)
    left = a + matrix * a_batch + wide_own[:, None] * a_row + inner[None, :] * a_col
    right = b + matrix * b_batch + wide_other[None, :] * b_row + inner[:, None] * b_col
    total = tl.zeros((TILE, TILE), dtype=tl.float32)
    for begin in range(0, depth, DEPTH):
        inside = begin + inner < depth
        x = tl.load(left, mask=(own[:, None] < rows) & inside[None, :], other=0.0)
        y = tl.load(right, mask=(other[None, :] < rows) & inside[:, None], other=0.0)
        total = tl.dot(x, y, total)
        left += DEPTH * a_col
        right += DEPTH * b_col

    within = (own[:, None] < rows) & (other[None, :] < rows)
    result = alpha * total
    if HAS_C:
        added = c + matrix * c_batch + wide_own[:, None] * c_row + wide_other[None, :] * c_col
        result += beta * tl.load(added, mask=within, other=0.0).to(tl.float32)
    if HAS_SCALE:
        result *= tl.load(scale + matrix)
    result = tl.where(own[:, None] == other[None, :], result + gamma, result)
    if i == j:  # both triangles are here: the lower one counts
        result = tl.where(own[:, None] >= other[None, :], result, tl.trans(result))
    result = result.to(out.dtype.element_ty)
    out += matrix * rows * rows
    tl.store(out + wide_own[:, None] * rows + other[None, :], result, mask=within)
    if i != j:
        mirrored = out + wide_other[:, None] * rows + own[None, :]
        tl.store(mirrored, tl.trans(result), mask=tl.trans(within))


def symmetric_product(a, b, c, out, scale, alpha, beta, gamma, tile: int):
    """Fills out (batch, m, m), contiguous, as triton_products.symmetric_product says."""
    batch, rows, depth = a.shape
    if out.numel() == 0:
        return
    side = triton.cdiv(rows, tile)
    # an absent matrix is never read; the kernel wants an address all the same
    c_strides = (0, 0, 0) if c is None else c.stride()
    _symmetric_product[(batch * side * (side + 1) // 2,)](
        a, b, out if c is None else c, out, out if scale is None else scale,
        float(alpha), float(beta), float(gamma), rows, depth,
        *a.stride(), *b.stride(), *c_strides,
        HAS_C=c is not None, HAS_SCALE=scale is not None, TILE=tile, DEPTH=64,
        num_warps=8 if tile == 128 else 4, num_stages=3,
    )  # fmt: skip
