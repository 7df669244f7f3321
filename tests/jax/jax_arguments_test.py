# SPDX-License-Identifier: Apache-2.0
"""Arguments as JAX users have them: trees that are callable, scalars of numpy and JAX, stacks."""

import functools

import jax
import jax.numpy as jnp
import numpy
import optax
import pion.jax as pj
import pytest
from jax_judges import gaussian

D = pj.DimensionNumbers


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["kernel", "bias"], meta_fields=[]
)
class Module:
    """A parameter tree that is callable, as the modules of equinox are."""

    def __init__(self, kernel, bias):
        self.kernel, self.bias = kernel, bias

    def __call__(self, x):
        raise AssertionError("a tree was called as if it were a function")


def module(seed: int, dtype=jnp.float32):
    return Module(
        jnp.asarray(gaussian((6, 8), seed), dtype), jnp.asarray(gaussian((8,), seed + 1), dtype)
    )


def moved(optimizer, params, grads):
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return updates


def alike(a, b):
    return all(
        x.dtype == y.dtype and bool(jnp.array_equal(x, y))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize(
    ("tree", "function"),
    [
        ({"labels": Module("matrix", "rest")}, {"labels": lambda p: Module("matrix", "rest")}),
        ({"dimension_numbers": Module(D(), None)},
         {"dimension_numbers": lambda p: Module(D(), None)}),
        ({"labels": Module("rest", "rest")},
         {"labels": jax.tree_util.Partial(lambda p: Module("rest", "rest"))}),
    ],
)  # fmt: skip
def test_a_callable_tree_is_a_tree(tree, function):
    params, grads = module(1), module(5)
    expected = moved(pj.multi_transform_with_muon(0.1, 0.01, **function), params, grads)
    assert alike(moved(pj.multi_transform_with_muon(0.1, 0.01, **tree), params, grads), expected)


def test_a_callable_mask_is_a_mask():
    params, grads = module(1), module(5)
    params.bias, grads.bias = params.kernel.T, grads.kernel.T
    by_tree = pj.muon(0.1, weight_decay=0.5, weight_decay_mask=Module(True, False))
    by_function = pj.muon(0.1, weight_decay=0.5, weight_decay_mask=lambda p: Module(True, False))
    assert alike(moved(by_tree, params, grads), moved(by_function, params, grads))
    assert not alike(moved(by_tree, params, grads),
                     moved(pj.muon(0.1, weight_decay=0.5), params, grads))  # fmt: skip


SCALARS = [numpy.float32, numpy.float64, numpy.array, jnp.float32, jnp.asarray]


@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_scalars_of_other_libraries_change_no_type(scalar, dtype):
    params, grads = module(1, dtype), module(5, dtype)
    for make, numbers in (
        (lambda lr, wd: pj.multi_transform_with_muon(
            lr, lr, weight_decay=wd, aux_weight_decay=wd), (0.1, 0.25)),
        (lambda lr, norm: pj.chain_with_muon(lr, lr, norm), (0.1, 0.5)),
    ):  # fmt: skip
        plain, other = make(*numbers), make(*(scalar(x) for x in numbers))
        state, expected = other.init(params), plain.init(params)
        for _ in range(2):
            updates, after = jax.jit(other.update)(grads, state, params)
            wanted, expected = jax.jit(plain.update)(grads, expected, params)
            assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
            for u, w in zip(jax.tree.leaves(updates), jax.tree.leaves(wanted), strict=True):
                # lr is rounded to the updates' type or not: half a unit, and that of the product
                rounding = 3 * float(jnp.finfo(dtype).eps) * float(jnp.abs(w).max())
                assert jnp.abs(u.astype(jnp.float32) - w.astype(jnp.float32)).max() <= rounding
            types = [
                [(x.dtype, x.shape) for x in jax.tree.leaves(each)] for each in (state, after)
            ]
            assert types[0] == types[1]
            state = after


@pytest.mark.parametrize("scalar", [float, *SCALARS])
def test_a_negative_rate_is_refused(scalar):
    bad = scalar(-0.1)
    for make in (
        lambda: pj.muon(bad),
        lambda: pj.pion(0.1, weight_decay=bad),
        lambda: pj.pion(0.1, momentum=bad),
        lambda: pj.multi_transform_with_muon(0.1, bad),
        lambda: pj.multi_transform_with_muon(bad, 0.1),
        lambda: pj.multi_transform_with_muon(0.1, 0.1, aux_weight_decay=bad),
    ):
        with pytest.raises(ValueError, match=r"must be (in \[0, 1\)|>= 0)"):
            make()
    with pytest.raises(ValueError, match="must be a scalar, got shape"):
        pj.muon(numpy.array([0.1, 0.2]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_injected_hyperparameters_keep_the_tree_of_the_state(dtype):
    params, grads = module(1, dtype), module(5, dtype)
    for keys in ({}, {"aux_weight_decay": 0.1, "weight_decay": 0.1}):
        injected = optax.inject_hyperparams(pj.multi_transform_with_muon)(0.1, 0.01, **keys)
        plain = pj.multi_transform_with_muon(0.1, 0.01, **keys)
        state, own = injected.init(params), plain.init(params)

        def step(state, _):
            updates, state = injected.update(grads, state, params)
            return state, updates

        state, updates = jax.lax.scan(step, state, length=3)
        for _ in range(3):
            expected, own = plain.update(grads, own, params)
        assert jax.tree.structure(state.inner_state) == jax.tree.structure(own)
        for u, w in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
            tolerance = 4e-2 if dtype == jnp.bfloat16 else 1e-5  # rates are rounded, docs/jax.md
            assert jnp.abs(u[-1] - w).max() <= tolerance * jnp.abs(w).max()


def test_hyperparam_dtype_keeps_rates_exact():
    params, grads = {"w": module(1, jnp.bfloat16).kernel}, {"w": module(5, jnp.bfloat16).kernel}
    make = functools.partial(optax.inject_hyperparams(pj.muon, hyperparam_dtype=jnp.float32))
    injected, plain = make(0.003, momentum=0.95), pj.muon(0.003)
    expected = moved(plain, params, grads)["w"].astype(jnp.float32)
    got = moved(injected, params, grads)["w"]
    assert got.dtype == jnp.bfloat16
    # the sole rounding that is left is that of the update, twice at most
    assert jnp.abs(got.astype(jnp.float32) - expected).max() <= 2.0**-7 * jnp.abs(expected).max()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_arrays_without_entries(shape, backend):
    params = {"none": jnp.zeros(shape), "w": jnp.asarray(gaussian((4, 4), 1))}
    updates = moved(pj.muon(0.1, weight_decay=0.1, backend=backend), params, params)
    assert updates["none"].shape == shape and jnp.abs(updates["w"]).max() > 0


def test_an_expert_without_gradient_is_left_alone(backend):
    """Its updates are zero, without decay, and its momentum stays; the others' are as before."""
    keys = {"momentum": 0.9, "weight_decay": 0.5, "backend": backend, "precision": "f32"}
    stack = pj.muon(0.1, dimension_numbers=D(1, 2), **keys)
    alone = pj.muon(0.1, **keys)
    params = {"w": jnp.asarray(gaussian((3, 6, 10), 1))}
    experts = [{"w": w} for w in params["w"]]
    state, own = stack.init(params), [alone.init(e) for e in experts]
    for step in range(3):
        grads = jnp.asarray(gaussian((3, 6, 10), 20 + step))
        if step:
            grads = grads.at[1].set(0.0)
        updates, state = jax.jit(stack.update)({"w": grads}, state, params)
        for k, expert in enumerate(experts):
            if step and k == 1:
                assert not updates["w"][k].any()
                continue
            expected, own[k] = jax.jit(alone.update)({"w": grads[k]}, own[k], expert)
            # products of other batches: roundings of O's entries, below 1, at lr 0.1
            assert jnp.abs(updates["w"][k] - expected["w"]).max() <= 0.1 * 2.0**-24 * 485 * 20
        expected = jnp.stack([o[0].mu["w"] for o in own])
        assert jnp.abs(state[0].mu["w"] - expected).max() <= 1e-6


def test_one_matrix_without_gradient_goes_on_by_its_momentum(backend):
    optimizer = pj.muon(0.1, backend=backend)
    params = {"w": jnp.asarray(gaussian((6, 10), 1))}
    _, state = optimizer.update(params, optimizer.init(params), params)
    updates, _ = optimizer.update({"w": jnp.zeros((6, 10))}, state, params)
    assert updates["w"].any()
