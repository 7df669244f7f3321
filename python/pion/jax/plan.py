# SPDX-License-Identifier: Apache-2.0
"""What a step is told and what it gives back, by the kernels and by jax.numpy."""

from typing import NamedTuple

import jax

from pion._pion import Rule
from pion.jax.dimensions import Layout


class Plan(NamedTuple):
    """What is fixed when a step is traced."""

    rule: Rule
    keys: dict  # of the rule, without rates
    layouts: tuple[Layout, ...]
    momentum: float | None  # None: traced, an argument of the step
    nesterov: bool
    zero_nonfinite: bool  # entries of a gradient; else a parameter that has some is skipped


class Stepped(NamedTuple):
    updates: list[jax.Array]  # -s O: the change of a weight at learning rate 1
    momenta: list[jax.Array]
    report: jax.Array  # (n, 2): 1 if skipped; ||O||_F^2, the number of directions that passed
