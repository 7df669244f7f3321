# SPDX-License-Identifier: Apache-2.0
"""Bad input is told at trace time, with the parameter's name and a remedy."""

import re
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import optax
import pion._pion
import pion.jax as pj
import pytest
from pion.jax import step as step_module

D = pj.DimensionNumbers


def told(message, make, *arguments, **keys):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        make(*arguments, **keys)
    return str(error.value)


def shapes_of(**shapes):
    return {k: jnp.zeros(s) for k, s in shapes.items()}


def test_four_axes_are_a_convolution_by_name_only():
    """A stack of stacks is none without a word."""
    step = pj.muon(0.1)
    step.init({"Conv_0": {"kernel": jnp.zeros((3, 3, 4, 8))}})
    message = told(
        "dimension_numbers must be given for experts of shape [2, 4, 8, 16]",
        step.init,
        shapes_of(experts=(2, 4, 8, 16)),
    )
    assert "DimensionNumbers(2, 3)" in message and "DimensionNumbers((0, 1, 2), 3)" in message
    pj.muon(0.1, dimension_numbers=D(2, 3)).init(shapes_of(experts=(2, 4, 8, 16)))


@pytest.mark.parametrize("make", [pj.muon, pj.pion])
def test_wrong_ranks(make):
    text = told("got layer/bias of shape [7]", make(0.1).init, {"layer": {"bias": jnp.zeros(7)}})
    assert "multi_transform_with_muon" in text
    text = told("kernel of shape [3, 4, 5]", make(0.1).init, shapes_of(kernel=(3, 4, 5)))
    assert "DimensionNumbers(1, 2)" in text
    told("scalar of shape []", make(0.1).init, {"scalar": jnp.zeros(())})
    told("bias of shape [7]", make(0.1, dimension_numbers=D()).init, shapes_of(bias=(7,)))


def test_dimension_numbers_that_do_not_fit():
    def init(numbers, **shapes):
        return pj.muon(0.1, dimension_numbers=numbers).init(shapes_of(**shapes))

    told(
        "reduction_axis must lie in [-2, 2) for w of shape [4, 6], got [2]", init, D(2, 1), w=(4, 6)
    )
    told("output_axis must lie in [-2, 2) for w", init, D(0, ()), w=(4, 6))
    told("must not share an axis, got [0] and [0]", init, D(0, -2), w=(4, 6))
    told(
        'head_axis must be "output" or "reduction", got \'rows\'',
        init,
        D(0, 1, 2, "rows"),
        w=(4, 6),
    )
    text = told("w of shape [4, 6]", init, D(0, 1, heads=4), w=(4, 6))
    assert "4" in text and "6" in text
    told("w of shape [4, 6]", init, D(0, 1, heads=(1, 1), sizes=(3, 2)), w=(4, 6))
    told("must have an entry for b", init, {"a": D()}, a=(4, 6), b=(4, 6))
    told("must be given for b, got None", init, {"a": D(), "b": None}, a=(4, 6), b=(4, 6))
    told("got 3 for 0", lambda: pj.muon(0.1, dimension_numbers=[3]).init([jnp.zeros((2, 2))]))
    numbers = optax.contrib.MuonDimensionNumbers(0, 3)
    told("output_axis must lie in [-2, 2)", init, numbers, w=(4, 6))
    # partition: the same when labels are made
    mixed = pj.multi_transform_with_muon(0.1, 0.1, dimension_numbers={"w": D(0, 5)})
    told("output_axis must lie in", mixed.init, shapes_of(w=(4, 6)))


def test_mixed_types():
    optimizer = pj.muon(0.1)
    with jax.enable_x64(True):
        state = optimizer.init({"w": jnp.zeros((4, 6), jnp.float32)})
        g = {"w": jnp.zeros((4, 6), jnp.float64)}
        text = told("the gradient of w must fit its momentum's type, float32, got float64",
                    jax.jit(optimizer.update), g, state)  # fmt: skip
        assert "cast it" in text
    told("got w of int32", optimizer.init, {"w": jnp.zeros((4, 6), jnp.int32)})
    told("got w of complex64", optimizer.init, {"w": jnp.zeros((4, 6), jnp.complex64)})
    told("mu_dtype must be a floating type, got int8", pj.muon, 0.1, mu_dtype=jnp.int8)
    told("x must be float32 or float64", pj.spectral_map, jnp.zeros((3, 3), jnp.bfloat16))


def test_gradients_of_another_shape_or_structure():
    optimizer = pj.muon(0.1)
    state = optimizer.init(shapes_of(w=(4, 6)))
    told("must have the shape that init saw, [4, 6], got [6, 4]",
         jax.jit(optimizer.update), shapes_of(w=(6, 4)), state)  # fmt: skip
    told("must have the structure", optimizer.update, shapes_of(v=(4, 6)), state)
    decayed = pj.muon(0.1, weight_decay=0.1)
    told("weight_decay needs params", decayed.update, shapes_of(w=(4, 6)), state)


def test_hyperparameters():
    told("lr must be", pj.muon, -1.0)
    told("momentum must be", pj.muon, 0.1, momentum=1.0)
    told("weight_decay must be", pj.pion, 0.1, weight_decay=-1.0)
    told("steps must be", pj.pion, 0.1, steps=0)
    told("classic", pj.muon, 0.1, coefficients="cubik")
    told("promotion_steps must be", pj.pion, 0.1, promotion_steps=2, cutoff=0.3)
    told("lr is not part of the direction", pj.scale_by_rule, "muon", lr=1.0)
    told("adam", pj.scale_by_rule, "adam")
    told("the rule must be one for matrices", pj.scale_by_rule, "adamw")
    told('nonfinite must be "skip" or "zero"', pj.muon, 0.1, nonfinite="raise")
    told('rule must be "muon" or "pion"', pj.multi_transform_with_muon, 0.1, 0.1, rule="sgd")
    told('labels must be "matrix" or "rest", got \'adam\'',
         pj.multi_transform_with_muon(0.1, 0.1, labels={"w": "adam"}).init,
         shapes_of(w=(4, 6)))  # fmt: skip
    told("max_grad_norm must be > 0", pj.chain_with_muon, 0.1, 0.1, 0.0)
    told("backend must be one of", pj.muon, 0.1, backend="gpu")
    told("unknown key", pj.scale_by_rule, "pion", coefficients="cubic")
    injected = optax.inject_hyperparams(pj.pion)(learning_rate=0.1, steps=4)
    text = told("steps must be a Python value", injected.init, shapes_of(w=(4, 6)))
    assert 'static_args=("steps",)' in text


def test_a_cutoff_that_the_steps_cannot_reach():
    optimizer = pj.scale_by_pion(cutoff="noise_edge", steps=1)
    w = jnp.ones((400, 400))
    told("noise_edge", jax.jit(optimizer.update), w, optimizer.init(w))


def test_a_missing_target(monkeypatch):
    monkeypatch.delattr(pion._pion, "jax_step_target")
    assert not pj.has_kernels()
    text = told('backend "kernels" needs the handler', pj.muon, 0.1, backend="kernels")
    assert "PION_JAX=1" in text
    step_module._warn_of_missing_kernels.cache_clear()
    w = jnp.ones((4, 6))
    optimizer = pj.muon(0.1)
    with pytest.warns(UserWarning, match="no XLA handler"):
        a, _ = optimizer.update(w, optimizer.init(w))
    by_jnp = pj.muon(0.1, backend="jnp")
    assert jnp.array_equal(a, by_jnp.update(w, by_jnp.init(w))[0])


@pytest.mark.parametrize("missing", ["jax", "optax"])
def test_a_missing_package(missing):
    program = textwrap.dedent(f"""
        import sys
        sys.modules[{missing!r}] = None
        import pion
        try:
            import pion.jax
        except ModuleNotFoundError as error:
            print(error)
    """)
    heard = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert f"pion.jax needs {missing}" in heard and "pion-optim[jax]" in heard


def test_importing_pion_imports_no_jax():
    program = "import sys, pion; print('jax' in sys.modules, 'torch' in sys.modules)"
    heard = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert heard.split() == ["False", "False"]


def test_a_damaged_plan_is_an_error_not_a_crash():
    # the target checks what it is handed, as a program compiled elsewhere might
    g = jnp.ones((1, 4, 6))
    pj.muon(0.1).update(g[0], pj.muon(0.1).init(g[0]))  # registers it
    shape = jax.ShapeDtypeStruct(g.shape, g.dtype)
    report = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    call = jax.ffi.ffi_call("pion_step", [shape, shape, report], vmap_method="broadcast_all")
    for plan in ("", "{}", '{"rule":"muon","keys":{},"traced_momentum":false,"layouts":[]}'):
        with pytest.raises(Exception, match="pion_step|parse|key"):
            jax.block_until_ready(call(g, g, plan=plan))
