# SPDX-License-Identifier: Apache-2.0
"""How a polynomial map of one shape is multiplied out in 16-bit products: by which form, from which
step anew, and by which powers of two everything is scaled. Host arithmetic, once a rule and shape.

A polynomial of X is one of the Gram matrix A = X X^T, times X. The direct form computes
X <- T X, T = a I + b A + c A^2, in every step; Gram space multiplies the T out to Q and touches X
twice. Work in units of 2 m^3, for X of m x n, r = n / m, and K steps in segments of k:

                      all products whole         symmetric ones by half
    direct            K (2 r + 1)                K (3 r + 1) / 2
    Gram space        sum of 2 r + 4 k - 3       sum of (3 r + 4 k - 3) / 2

A segment is what Gram space does between two computations of A from X. It ends before the linear
coefficients of its steps but the last have grown by more than 13: rounding errors of A grow as
they do. Pion's filters (4 promotions grow 12.4) are one segment, five steps of Muon two (2 + 3).
"""

import math

# As in pion/spectral/tile_policy.cc. The last three steps of "polar_express" have 12.9 without the
# very last, two steps of Muon 11.9 and three 40.9; those of "cans", 13.02, are further off in one
# segment than bf16 code.
_SEGMENT_GROWTH = 13.0
# Below this aspect Gram space would save less than a tenth, and squares of Polar Express are as far
# off in it as in direct bf16 code.
_GRAM_ASPECT = 1.25
_TOP = 2.0**15  # entries of what is kept in fp16, which ends at 65504: twice that is room
_LEAST = 2.0**-14  # below it fp16 has fewer bits
_POINTS = 512


class Step:
    """One polynomial and its largest values on what comes into it; scales are powers of two."""

    def __init__(self, p: tuple, x: list, q: list):
        self.a, self.b, self.c = p
        values = [self.at(v) for v in x]
        self.into = _largest(x)  # of the singular values that come in
        self.out = [v * t for v, t in zip(x, values, strict=True)]
        self.q = [before * t for before, t in zip(q, values, strict=True)]
        self.x_scale = min(2.0**7, _power(math.sqrt(_TOP) / self.into))
        self.gram_scale = min(2.0**14, _power(_TOP / self.into**2))
        self.t_scale = _power(_TOP / _largest(values))
        self.q_scale = _power(_TOP / _largest(self.q))
        # T A, on the way to the next A = T A T
        self.w_scale = _power(_TOP / _largest([t * v * v for t, v in zip(values, x, strict=True)]))
        # T / A at least, where a is 0
        self.slope = min(self.b + self.c * v * v for v in x)

    def at(self, s: float) -> float:
        square = s * s
        return self.a + square * (self.b + square * self.c)


class Form:
    """The steps of a map on matrices of this shape, and what was decided for them."""

    def __init__(self, coefficients: tuple, rows: int, cols: int, spectral: bool, margin: float):
        short, long = min(rows, cols), max(rows, cols)
        self.aspect = long / short
        self.segments = _segments(coefficients)
        top = (1.004 if spectral else 1.0) / margin  # a spectral norm may be estimated .3 % low
        grid = [top * i / _POINTS for i in range(_POINTS + 1)]
        flat = top if spectral else top / math.sqrt(short)  # all singular values alike
        self.steps, self.fades = [], False
        x, ends = grid, {end for _, end in self.segments}
        q = [1.0] * len(grid)
        for index, p in enumerate(coefficients):
            step = Step(p, x, q)
            self.steps.append(step)
            if step.gram_scale * flat * flat < _LEAST * math.sqrt(long):
                self.fades = True  # fp16 could not hold A without looking at it
            x, flat = step.out, flat * abs(step.at(flat))
            q = [1.0] * len(x) if index + 1 in ends else step.q
        # largest powers of T do without the rest of these checks in the direct form
        self._thin = self.fades or self._loses_bits(short, long, spectral, top)

    def _loses_bits(self, short: int, long: int, spectral: bool, top: float) -> bool:
        """Whether Q or T A of a matrix whose singular values are all alike fall below fp16."""
        flat, q = top if spectral else top / math.sqrt(short), 1.0
        starts = {start for start, _ in self.segments}
        for index, step in enumerate(self.steps):
            t = abs(step.at(flat))
            q = t if index in starts else q * t
            if step.q_scale * q < _LEAST * math.sqrt(short):
                return True
            if step.w_scale * t * flat * flat < _LEAST * math.sqrt(long):
                return True
            flat *= t
        return False

    def in_gram_space(self, halved: bool) -> bool:
        """Whether Gram space is less work; `halved`: where symmetric products cost one half."""
        if self._thin or self.aspect < _GRAM_ASPECT:
            return False
        r, steps = self.aspect, len(self.steps)
        wide = 3 * r if halved else 4 * r
        gram = sum(wide + (1 if halved else 2) * (4 * (e - s) - 3) for s, e in self.segments)
        direct = steps * (wide + (1 if halved else 2))
        return gram < direct


def _segments(coefficients: tuple) -> list[tuple[int, int]]:
    """(first, end) of the steps of every segment, the last one as long as it may be."""
    segments, end = [], len(coefficients)
    while end > 0:
        start, growth = end - 1, 1.0
        while start > 0 and growth * max(abs(coefficients[start - 1][0]), 1.0) <= _SEGMENT_GROWTH:
            start -= 1
            growth *= max(abs(coefficients[start][0]), 1.0)
        segments.append((start, end))
        end = start
    return segments[::-1]


def _largest(values: list) -> float:
    return max(max(abs(v) for v in values), 2.0**-40)


def _power(value: float) -> float:
    """The largest power of two that is no more."""
    return 2.0 ** math.floor(math.log2(value))
