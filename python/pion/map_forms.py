# SPDX-License-Identifier: Apache-2.0
"""How a polynomial map of one shape is multiplied out in 16-bit products: by which form, from which
step anew, and by which powers of two everything is scaled. pion/spectral/map_form.h decides and has
the model of work; here are its numbers, which torch.compile can hold as constants."""

from typing import NamedTuple


class Step(NamedTuple):
    """One polynomial T = a I + b A + c A^2, and powers of two for what is kept in fp16 around it."""

    a: float
    b: float
    c: float
    into: float  # the largest singular value that comes in
    x_scale: float
    gram_scale: float
    t_scale: float
    q_scale: float
    w_scale: float  # of W = T A
    slope: float  # T / A at least, where a is 0


class Form(NamedTuple):
    steps: tuple[Step, ...]
    segments: tuple[tuple[int, int], ...]  # (first, end) of steps
    aspect: float  # n / m of X, (m x n)
    fades: bool  # suppressed matrices are too small for fp16 unless scaled up
    gram: bool  # Gram space is less work
    gram_by_halves: bool  # the same where symmetric products cost one half

    def in_gram_space(self, halved: bool) -> bool:
        return self.gram_by_halves if halved else self.gram


def form(map_, rows: int, cols: int) -> Form:
    """Of a pion._pion.SpectralMap, a polynomial."""
    steps, segments, *rest = map_.form(rows, cols)
    return Form(tuple(Step(*step) for step in steps), tuple(segments), *rest)
