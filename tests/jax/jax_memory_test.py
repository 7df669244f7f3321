# SPDX-License-Identifier: Apache-2.0
"""Passes and scratch memory of the jax.numpy path; what is not finite."""

import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import pion.jax as pj
import pytest
from jax_judges import gaussian
from pion.jax import tensor_step


def test_scratch_memory_is_that_of_one_piece():
    """temp_size_in_bytes of a compiled step with donated weights and state, as XLA plans it for the
    CPU, where every fp16 operand takes the four bytes of an f32 one: an upper bound of what another
    device needs for the same order. In a process of its own, with XLA's own optimizations."""
    program = textwrap.dedent("""
        import functools, json, jax, jax.numpy as jnp, pion.jax as pj
        def scratch(shapes, numbers=None):
            made = pj.scale_by_muon(backend="jnp", dimension_numbers=numbers)
            tree = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
            @functools.partial(jax.jit, donate_argnums=(0, 1))
            def step(params, state, grads):
                updates, state = made.update(grads, state, params)
                return jax.tree.map(lambda p, u: p - 0.1 * u, params, updates), state
            program = step.lower(tree, jax.eval_shape(made.init, tree), tree).compile()
            return program.memory_analysis().temp_size_in_bytes / 2**20
        print(json.dumps([
            scratch([(1024, 1024)] * 6), scratch([(1024, 1024)] * 12), scratch([(512, 2048)] * 9),
            scratch([(512, 512)] * 40), scratch([(2048, 4096)] * 2), scratch([(2048, 4096)] * 3),
        ]))
    """)
    heard = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    six, twelve, wide, small, two, three = json.loads(heard)
    for scratch in (six, twelve, wide, small):
        assert scratch <= 64
    assert abs(twelve - six) <= 8  # two matrices: it does not grow with their number
    # one matrix of 32 MiB: X, a product and its sums, A and A^2, in f32 here
    assert three <= 6 * 32 and abs(three - two) <= 1


def sizes(jaxpr, primitive: str) -> list[int]:
    """Entries of the operands of every such operation, in inner programs too."""
    found = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == primitive:
            found.append(eqn.invars[0].aval.size)
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found += sizes(inner, primitive)
    return found


def test_finiteness_is_read_from_the_largest_value():
    for policy, elementwise in (("skip", 0), ("zero", 1)):
        made = pj.scale_by_muon(backend="jnp", nonfinite=policy)
        g = jax.ShapeDtypeStruct((40, 90), jnp.float32)
        program = jax.make_jaxpr(made.update)(g, jax.eval_shape(made.init, g)).jaxpr
        whole = [n for n in sizes(program, "is_finite") if n == 40 * 90]
        assert bool(whole) == bool(elementwise), policy
        reduced = [n for n in sizes(program, "reduce_max") if n == 40 * 90]
        assert len(reduced) == 1
        assert 40 * 90 not in sizes(program, "reduce_and")


@pytest.mark.parametrize("policy", ["skip", "zero"])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_momentum_that_is_not_finite_is_left_alone_and_counted(backend, policy, bad):
    made = pj.muon(0.1, weight_decay=0.1, nonfinite=policy, backend=backend)
    params = {"good": jnp.asarray(gaussian((6, 9), 1)), "bad": jnp.asarray(gaussian((6, 9), 2))}
    state = made.init(params)
    momenta = {k: v.at[2, 3].set(bad) if k == "bad" else v for k, v in state[0].mu.items()}
    state = (state[0]._replace(mu=momenta), *state[1:])
    for step in range(2):
        updates, state = jax.jit(made.update)(params, state, params)
        assert float(jnp.abs(updates["good"]).max()) > 0 and not updates["bad"].any()
        assert state[0].skipped == {"good": 0, "bad": step + 1}
        assert jnp.array_equal(state[0].mu["bad"], momenta["bad"], equal_nan=True)


SHAPES = {
    "stack": (6, 10, 24),
    "kernel": (10, 24),
    "qkv": (4, 24, 30),
    "tall": (24, 10),
    "x": (10, 24),
}
NUMBERS = {
    "stack": pj.DimensionNumbers(1, 2), "kernel": pj.DimensionNumbers(), "x": pj.DimensionNumbers(),
    "qkv": pj.DimensionNumbers(1, 2, heads=(2, 1, 1), sizes=(20, 5, 5)),
    "tall": pj.DimensionNumbers(heads=5),
}  # fmt: skip


def stepped(policy: str, bad: tuple = ()):
    made = pj.scale_by_pion(
        dimension_numbers=NUMBERS, nesterov=True, backend="jnp", nonfinite=policy
    )
    state = made.init({k: jnp.zeros(s) for k, s in SHAPES.items()})
    for step in range(3):
        g = {k: jnp.asarray(gaussian(s, 9 * step + len(k))) for k, s in SHAPES.items()}
        g["stack"] = g["stack"].at[1].set(0)
        if step == 1 and bad:
            g[bad[0]] = g[bad[0]].at[bad[1]].set(jnp.nan)
        updates, state = jax.jit(made.update)(g, state)
    return updates, state


@pytest.mark.parametrize(
    "most, policy, bad",
    [(1, "skip", ()), (250, "skip", ("qkv", (3, 1, 29))), (500, "zero", ("stack", (5, 0, 0)))],
)
def test_pieces_and_loops_change_nothing(monkeypatch, most, policy, bad):
    whole = stepped(policy, bad)
    monkeypatch.setattr(tensor_step, "_MOST", most)
    cut = stepped(policy, bad)
    for a, b in zip(*map(jax.tree.leaves, (whole, cut)), strict=True):
        # sums of f32 in another order, once rounded to fp16 differently: 2^-11 of an entry
        assert jnp.abs(a - b).max() <= 2.0**-10 * jnp.abs(a).max()


def test_a_loop_is_one_where_a_stack_is_large():
    def loops(count):
        made = pj.scale_by_muon(backend="jnp", dimension_numbers=pj.DimensionNumbers(1, 2))
        g = jax.ShapeDtypeStruct((count, 512, 1024), jnp.float32)
        text = jax.jit(made.update).lower(g, jax.eval_shape(made.init, g)).as_text()
        return text.count("stablehlo.while")

    assert loops(4) == 0 and loops(5) == loops(40) == 2
