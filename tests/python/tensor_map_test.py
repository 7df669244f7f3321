# SPDX-License-Identifier: Apache-2.0
"""The maps of the torch path against their definition in f64, beside direct bf16 code."""

import pytest
import torch

from pion._pion import Rule
from pion.eigen_maps import largest_singular_value
from pion.tensor_map import apply, cached_map

MAPS = {
    "muon": ("muon", {}),
    "pion": ("pion", {"promotion_steps": 2}),
    "default": ("pion", {}),
    "polar_express": ("muon", {"coefficients": "polar_express"}),
    "cans": ("muon", {"coefficients": "cans"}),
}
SHAPES = [(128, 1024), (256, 1024), (384, 384)]


def of_spectrum(values, rows: int, cols: int, seed: int):
    source = torch.Generator().manual_seed(seed)

    def orthogonal(n):
        drawn = torch.randn(n, rows, generator=source, dtype=torch.float64)
        return torch.linalg.qr(drawn)[0]

    return (orthogonal(rows) * values) @ orthogonal(cols).T


def spectra(rows: int, cols: int) -> dict:
    """Singular values far apart and close together; f64."""
    source = torch.Generator().manual_seed(rows + cols)
    place = torch.arange(rows, dtype=torch.float64)
    tail = 10 ** (-4 - 3 * place / (rows - 1))
    tail[:2] = torch.tensor([1.0, 0.7])
    return {
        "gaussian": torch.randn(rows, cols, generator=source, dtype=torch.float64),
        "1 / i": of_spectrum(1 / (place + 1), rows, cols, 1),
        "seven decades": of_spectrum(10 ** (-7 * place / (rows - 1)), rows, cols, 2),
        "two and a tail": of_spectrum(tail, rows, cols, 3),
    }


def exact(x, made):
    """By SVD in f64."""
    u, s, vt = torch.linalg.svd(x / x.norm() / made.norm_margin, full_matrices=False)
    for a, b, c in made.coefficients:
        s = s * (a + s * s * (b + s * s * c))
    return (u * s) @ vt


def in_bfloat16(x, made):
    """torch.optim.Muon's arithmetic: every product and sum rounded to bf16."""

    def rounded(value):
        return value.bfloat16().float()

    x = rounded((x / x.norm() / made.norm_margin).float())
    for a, b, c in made.coefficients:
        gram = rounded(x @ x.mT)
        x = rounded(a * x + rounded(b * gram + c * (gram @ gram)) @ x)
    return x


def error(result, expected) -> float:
    return float(torch.linalg.norm(result.double() - expected) / torch.linalg.norm(expected))


# Largest errors of a row's spectra measured, each rounded up by a fifth: what docs/python.md says.
BOUNDS = {
    ("muon", "fast"): 0.10, ("muon", "accurate"): 0.10,
    ("pion", "fast"): 3e-3, ("pion", "accurate"): 1.1e-3,
    ("default", "fast"): 3.5e-3, ("default", "accurate"): 1.1e-3,
    ("polar_express", "fast"): 0.18, ("polar_express", "accurate"): 0.18,
    ("cans", "fast"): 0.26, ("cans", "accurate"): 0.18,
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_errors_are_never_those_of_bfloat16(name, shape):
    rule, keys = MAPS[name]
    for spectrum, x in spectra(*shape).items():
        made = cached_map(Rule(rule, keys), *shape)
        expected = exact(x, made)
        direct = error(in_bfloat16(x, made), expected)
        for precision in ("fast", "accurate"):
            made = cached_map(Rule(rule, {**keys, "precision": precision}), *shape)
            for side, wanted in ((x, expected), (x.T, expected.T)):  # of a tall one the same
                own = error(apply(side.float()[None], made)[0], wanted)
                what = (spectrum, precision, own, direct)
                assert own < direct, what
                assert own <= BOUNDS[name, precision], what


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_largest_singular_value_is_right_to_half_a_percent(dtype):
    # (ln m) / 1024 at most of its square, and the rounding of X to fp16, 2^-11
    for shape in ((40, 40), (96, 300)):
        for spectrum, x in spectra(*shape).items():
            x = x / x.norm()
            found = float(largest_singular_value(x[None].to(dtype)))
            right = float(torch.linalg.matrix_norm(x, 2))
            assert abs(found / right - 1) <= 0.005, (spectrum, dtype)


@pytest.mark.parametrize("keys", [{"rank": 5}, {"rank": 30}])
def test_low_rank_keeps_the_largest_directions_whatever_the_spectrum(keys):
    # an f32 matrix has singular vectors right to 2^-24 over their gap, here a tenth of s or more;
    # down to s = 1e-4 of the largest that is 2^-24 * 1e4 * 10 each
    rows, cols = 48, 80
    values = 10 ** (-torch.arange(rows, dtype=torch.float64) / 10)
    x = of_spectrum(values, rows, cols, 4)
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    expected = u[:, : keys["rank"]] @ vt[: keys["rank"]]
    made = cached_map(Rule("low_rank_muon", keys), rows, cols)
    for side, wanted in ((x, expected), (x.T, expected.T)):
        own = apply(side.float()[None], made)[0]
        assert error(own, wanted) <= 2.0**-24 * 10 ** (keys["rank"] / 10) * 10 * 5
