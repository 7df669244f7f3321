# SPDX-License-Identifier: Apache-2.0
"""Arguments as callers have them: numbers of Python, numpy and JAX, schedules; trees, or functions
that make one. None of them may change the types of updates and state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pion._pion import Rule


def plain(value):
    """numpy's scalars as Python's, which do not widen what they are multiplied with."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value


def checked(where: str, rule: str, key: str, value):
    """The value of a rule's key as plain() gives it. Raises ValueError out of its range, which of a
    tracer nobody knows; schedules pass."""
    value = plain(value)
    if isinstance(value, np.ndarray | jax.Array) and value.ndim:
        raise ValueError(f"{where}: {key} must be a scalar, got shape {list(value.shape)}")
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
        Rule(rule, {key: float(value)}, where)
    elif isinstance(value, int | float):
        Rule(rule, {key: value}, where)
    return value


def is_zero(value) -> bool:
    """Whether it is the number 0, and not an array that may become another one."""
    return isinstance(value, int | float) and value == 0


def is_function(value) -> bool:
    """Whether a tree, or a function that makes one, is the function. Trees may be callable too, as
    the modules of equinox are: then not all of their leaves are."""
    if not callable(value) or isinstance(value, functools.partial):
        return callable(value)
    leaves = jax.tree.leaves(value, is_leaf=lambda x: x is None)
    return bool(leaves) and all(callable(leaf) for leaf in leaves)


def keeping_types(transform) -> optax.GradientTransformationExtraArgs:
    """The transform with updates in the gradients' types and a state that keeps its own, whatever
    the types of its hyperparameters."""
    transform = optax.with_extra_args_support(transform)

    def like(new, old):
        return jnp.asarray(new).astype(jnp.result_type(old))

    def update(updates, state, params=None, **extra):
        changed, after = transform.update(updates, state, params, **extra)
        return jax.tree.map(like, changed, updates), jax.tree.map(like, after, state)

    return optax.GradientTransformationExtraArgs(transform.init, update)


def clip_by_global_norm(max_norm) -> optax.GradientTransformation:
    """optax's, which wants updates of the type of a norm that is an array."""
    clip = optax.clip_by_global_norm(max_norm)
    if not isinstance(max_norm, jax.Array):
        return clip

    def update(updates, state, params=None):
        wide = jax.tree.map(
            lambda g: g.astype(jnp.promote_types(jnp.result_type(g), max_norm.dtype)), updates
        )
        return clip.update(wide, state, params)

    return keeping_types(optax.GradientTransformation(clip.init, update))
