# SPDX-License-Identifier: Apache-2.0
"""In which form a map multiplies. With A = X X^T and T = a I + b A + c A^2 of every step it is
either direct, X <- T X, or in Gram space: A <- T A T and Q <- T Q of several steps, then X <- Q X.

Work in units of 2 m^3, for X of (m x n), r = n / m, K steps in pieces of k, each product once:

    direct       K (2 r + 1)
    Gram space   sum over pieces of 2 r + 4 k - 3
"""

import math

from pion.jax.products import Arithmetic, products_of

# Below that aspect Gram space saves less than a tenth, and is further off on squares than direct
# code in bf16: "polar_express" on Gaussian matrices 1.2e-2, direct 1.0e-2.
_LEAST_ASPECT = 1.25


def pieces(coefficients, growth: float) -> list[list]:
    """The steps, divided where A is computed anew from X. A rounding error of A grows by a^2 in
    every step of a piece but its last one, where A has eigenvalues near 0: by `growth` at most. The
    last piece is as long as that allows, then the one before it."""
    result, grown = [], math.inf
    for p in reversed(coefficients):
        grown *= max(p[0] * p[0], 1.0)
        if grown > growth:
            result.insert(0, [])
            grown = 1.0
        result[0].insert(0, p)
    return result


def work(divided: list[list], aspect: float, arithmetic: Arithmetic) -> float:
    """Of pieces; a direct map is one of pieces of one step."""
    square, wide = arithmetic.square_parts, arithmetic.wide_parts
    ends = aspect * (products_of(wide, wide) + products_of(square, wide))
    squares = sum(1 for piece in divided for p in piece if p[2] != 0)
    between = sum(3 * (len(piece) - 1) for piece in divided)
    return ends * len(divided) + products_of(square, square) * (squares + between)


def form(coefficients, aspect: float, arithmetic: Arithmetic) -> list[list]:
    """The pieces that are less work: one step each, or those of Gram space."""
    direct = [[p] for p in coefficients]
    gram = pieces(coefficients, arithmetic.growth)
    if aspect < _LEAST_ASPECT or work(gram, aspect, arithmetic) >= work(direct, aspect, arithmetic):
        return direct
    return gram
