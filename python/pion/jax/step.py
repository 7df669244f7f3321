# SPDX-License-Identifier: Apache-2.0
"""One step of a matrix rule on all matrices of a tree: by the kernels, or by jax.numpy."""

import functools
import json
import warnings

import jax
import jax.numpy as jnp

from pion import _pion
from pion._pion import Rule
from pion.jax import tensor_step
from pion.jax.plan import Plan, Stepped
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


def run(plan: Plan, gradients, momenta, momentum, backend: str) -> Stepped:
    """Arrays are (count, rows, cols), momenta f32 or f64. `momentum` is None or a scalar."""
    by_jnp = functools.partial(tensor_step.step, plan)
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
        _, moved = jax.jvp(functools.partial(tensor_step.step, exact), primals, tangents)
        return step(*primals), moved

    return step


def _in_full_precision(plan: Plan) -> Rule:
    has_precision = any(name == "precision" for name, _, _ in plan.rule.key_table())
    keys = {**plan.keys, "precision": "f32"} if has_precision else plan.keys
    return Rule(plan.rule.name, keys, "pion.jax")


def _by_kernels(plan: Plan, gradients, momenta, momentum) -> Stepped:
    _register()
    _pion.set_jax_threads(thread_count())
    n = len(gradients)
    keys = plan.keys
    if plan.zero_nonfinite:
        # The kernels refuse a momentum that is not finite together with this policy, which would
        # end the program. Behind clean gradients "skip" is about momenta alone.
        gradients = [jnp.where(jnp.isfinite(g), g, 0) for g in gradients]
        keys = {**keys, "nonfinite": "skip"}
    text = json.dumps(
        {
            "rule": plan.rule.name,
            "keys": keys,
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
