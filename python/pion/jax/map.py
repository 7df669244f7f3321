# SPDX-License-Identifier: Apache-2.0
"""spectral_map: what Muon and Pion do to the singular values, on JAX arrays."""

import math

import jax
import jax.numpy as jnp

from pion._pion import Rule
from pion.jax.dimensions import DimensionNumbers, layout_of
from pion.jax.plan import Plan
from pion.jax.step import checked_backend, run


def spectral_map(x: jax.Array, rule: str = "pion", *, backend: str = "auto", **keys) -> jax.Array:
    """U f(S / norm) V^T of every matrix X = U S V^T in `x`, (..., rows, cols), f32 or f64: see
    pion.spectral_map. Works under jit, vmap and grad. An entry that is not finite makes the whole
    result NaN, since a compiled program cannot raise."""
    where = "pion.jax.spectral_map"
    checked_backend(where, backend)
    keys = {**keys, "momentum": 0.0, "nesterov": False, "scale": "spectral"}
    made = Rule(rule, keys, where)
    if not made.is_matrix:
        raise ValueError(f'{where}: the rule must be one for matrices, got "{rule}"')
    x = jnp.asarray(x)
    if x.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"{where}: x must be float32 or float64, got {x.dtype}")
    if x.ndim < 2:
        raise ValueError(f"{where}: x must be (..., rows, cols), got shape {list(x.shape)}")
    if x.size == 0:
        return x
    flat = x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
    # rows are the outputs here
    layout = layout_of(where, "x", flat.shape, DimensionNumbers(2, 1))
    plan = Plan(made, keys, (layout,), 0.0, False, False)
    updates, _, report = run(plan, [flat], [jnp.zeros_like(flat)], None, backend)
    mapped = updates[0] / -made.scale(*x.shape[-2:])
    return jnp.where(report[0, 0] > 0, jnp.nan, mapped).reshape(x.shape)
