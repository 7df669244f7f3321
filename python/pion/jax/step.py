# SPDX-License-Identifier: Apache-2.0
"""One step of a matrix rule on all matrices of a tree: by the kernels, or by jax.numpy."""

import functools
import json
import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pion import _pion
from pion._pion import UNIT_RMS_FLOOR, Rule
from pion.jax import spectral
from pion.jax.dimensions import Layout
from pion.threads import thread_count

BACKENDS = ("auto", "kernels", "jnp")
_TARGET = "pion_step"


def has_kernels() -> bool:
    """Whether this build of pion has the handler that XLA calls the kernels by."""
    return hasattr(_pion, "jax_step_target")


@functools.cache
def _register() -> None:
    jax.ffi.register_ffi_target(_TARGET, _pion.jax_step_target, platform="cpu")


@functools.cache
def _warn_of_missing_kernels() -> None:
    warnings.warn(
        "pion.jax: steps on the CPU are computed by jax.numpy, many times slower than by the "
        "kernels: this build of pion has no XLA handler. Build it again with PION_JAX=1 in the "
        "environment: PION_JAX=1 pip install '.[jax]'",
        stacklevel=2,
    )


def checked_backend(where: str, backend: str) -> str:
    if backend not in BACKENDS:
        raise ValueError(f"{where}: backend must be one of {list(BACKENDS)}, got {backend!r}")
    if backend == "kernels" and not has_kernels():
        raise ValueError(
            f'{where}: backend "kernels" needs the handler that XLA calls the kernels by, which '
            "this build of pion lacks; build it again with PION_JAX=1 in the environment, or take "
            '"jnp"'
        )
    return backend


class Plan(NamedTuple):
    """What is fixed when a step is traced."""

    rule: Rule
    keys: dict  # of the rule, without rates
    layouts: tuple[Layout, ...]
    momentum: float | None  # None: traced, an argument of the step
    nesterov: bool
    zero_nonfinite: bool  # False: a parameter whose gradient is not finite is skipped


class Stepped(NamedTuple):
    updates: list[jax.Array]  # -s O: the change of a weight at learning rate 1
    momenta: list[jax.Array]
    report: jax.Array  # (n, 2): 1 if skipped; ||O||_F^2, the number of directions that passed


def run(plan: Plan, gradients, momenta, momentum, backend: str) -> Stepped:
    """Arrays are (count, rows, cols), momenta f32 or f64. `momentum` is None or a scalar."""
    by_jnp = functools.partial(_by_jnp, plan)
    if not gradients:
        return Stepped([], [], jnp.zeros((0, 2), jnp.float32))
    if backend == "jnp":
        return by_jnp(gradients, momenta, momentum)
    if backend == "auto" and not has_kernels():
        if jax.default_backend() == "cpu":
            _warn_of_missing_kernels()
        return by_jnp(gradients, momenta, momentum)
    by_kernels = _differentiable(plan)
    if backend == "kernels":
        return by_kernels(gradients, momenta, momentum)
    return jax.lax.platform_dependent(gradients, momenta, momentum, cpu=by_kernels, default=by_jnp)


# -- by the kernels


def _differentiable(plan: Plan):
    """The kernels' step, with the derivative of the formula in full precision."""
    exact = plan._replace(rule=_in_full_precision(plan))

    @jax.custom_jvp
    def step(gradients, momenta, momentum):
        return _by_kernels(plan, gradients, momenta, momentum)

    @step.defjvp
    def derivative(primals, tangents):
        _, moved = jax.jvp(functools.partial(_by_jnp, exact), primals, tangents)
        return step(*primals), moved

    return step


def _in_full_precision(plan: Plan) -> Rule:
    keys = {k: v for k, v in plan.keys.items() if k != "precision"}
    return Rule(plan.rule.name, keys, "pion.jax")


def _by_kernels(plan: Plan, gradients, momenta, momentum) -> Stepped:
    _register()
    _pion.set_jax_threads(thread_count())
    n = len(gradients)
    text = json.dumps(
        {
            "rule": plan.rule.name,
            "keys": plan.keys,
            "traced_momentum": momentum is not None,
            "layouts": [layout.as_json() for layout in plan.layouts],
        }
    )
    shapes = [jax.ShapeDtypeStruct(m.shape, m.dtype) for m in momenta]
    call = jax.ffi.ffi_call(
        _TARGET,
        [*shapes, *shapes, jax.ShapeDtypeStruct((n, 2), jnp.float32)],
        vmap_method="broadcast_all",
        input_output_aliases={n + i: n + i for i in range(n)},
    )
    scalars = [] if momentum is None else [momentum]
    results = call(*gradients, *momenta, *scalars, plan=text)
    return Stepped(list(results[:n]), list(results[n : 2 * n]), results[2 * n])


# -- by jax.numpy


def _by_jnp(plan: Plan, gradients, momenta, momentum) -> Stepped:
    mu = plan.momentum if momentum is None else momentum
    directions, moved, sound = [], [], []
    for layout, g, m in zip(plan.layouts, gradients, momenta, strict=True):
        g = g.astype(m.dtype)
        finite = jnp.isfinite(g)
        clean = jnp.where(finite, g, 0)
        # in the momentum's type, as the kernels compute: no promotion by a traced scalar
        keep, share = jnp.asarray(mu, m.dtype), jnp.asarray(1 - mu, m.dtype)
        ok = jnp.all(jnp.isfinite(m))
        if not plan.zero_nonfinite:
            ok = ok & jnp.all(finite)
        before = jnp.where(ok, m, 0)
        after = keep * before + share * clean
        direction = keep * after + share * clean if plan.nesterov else after
        if layout.batch:  # a matrix of a stack whose gradient is zero is left alone
            active = jnp.any(clean != 0, axis=(1, 2), keepdims=True)
            after, direction = jnp.where(active, after, m), jnp.where(active, direction, 0)
        directions.append(direction)
        moved.append(jnp.where(ok, after, m))
        sound.append(ok)
    updates, passed = _mapped(plan, directions)
    updates = [jnp.where(ok, -u, 0) for ok, u in zip(sound, updates, strict=True)]
    report = [
        jnp.stack((1 - ok.astype(jnp.float32), jnp.where(ok, p, 0).astype(jnp.float32)))
        for ok, p in zip(sound, passed, strict=True)
    ]
    return Stepped(updates, moved, jnp.stack(report))


def _mapped(plan: Plan, directions):
    """(s O, ||O||_F^2) of every direction; blocks of one shape go through their map together."""
    groups: dict[tuple, list] = {}
    for i, (layout, d) in enumerate(zip(plan.layouts, directions, strict=True)):
        for j, part in enumerate(layout.parts()):
            block = part.block(d.shape[1], d.shape[2])
            key = (block, layout.transposed, d.dtype)
            groups.setdefault(key, []).append((i, j, part.cut(d)))
    scaled: dict[tuple[int, int], tuple] = {}
    for (block, _, _), members in groups.items():
        layout = plan.layouts[members[0][0]]
        x = jnp.concatenate([cut for _, _, cut in members]) if len(members) > 1 else members[0][2]
        o = spectral.apply(x, plan.rule.map(*block)) if x.size else x
        squares = jnp.sum(o * o, axis=(1, 2))
        o = o * _scale(plan, layout, block, squares)
        first = 0
        for i, j, cut in members:
            end = first + cut.shape[0]
            scaled[i, j] = o[first:end], jnp.sum(squares[first:end])
            first = end
    results, passed = [], []
    for i, (layout, d) in enumerate(zip(plan.layouts, directions, strict=True)):
        parts = layout.parts()
        joined = [part.join(scaled[i, j][0], d.shape[0]) for j, part in enumerate(parts)]
        results.append(jnp.concatenate(joined, 1 + layout.axis) if len(parts) > 1 else joined[0])
        passed.append(sum(scaled[i, j][1] for j in range(len(parts))))
    return results, passed


def _scale(plan: Plan, layout: Layout, block, squares):
    scale = layout.scale(plan.rule, block)
    if plan.keys.get("scale") != "unit_rms":
        return scale
    norm = spectral.safe_sqrt(squares) * (squares > 0)
    return (scale * math.sqrt(block[0] * block[1]) / (norm + UNIT_RMS_FLOOR))[:, None, None]
