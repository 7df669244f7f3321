# SPDX-License-Identifier: Apache-2.0
"""pion.jax inside what JAX users wrap around an optimizer."""

import contextlib
import functools
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy
import optax
import pion.jax as pj
import pytest
from jax.sharding import AxisType
from jax_judges import gaussian

# One f32 formula in another order: a few units of rounding, 2^-24, behind slopes of 485 in one
# step, squared in Gram space, at lr 0.1 on entries of O below 1.
CLOSE = 0.1 * 2.0**-24 * 485 * 20


def tree(seed: int, shapes=None):
    shapes = shapes or {"q": (12, 12), "up": (12, 20), "down": (20, 12)}
    return {k: jnp.asarray(gaussian(s, seed + i)) for i, (k, s) in enumerate(shapes.items())}


def loss(params, x):
    hidden = jax.nn.relu(x @ params["q"] @ params["up"])
    return jnp.mean((hidden @ params["down"] - x) ** 2)


def close(a, b, tolerance=CLOSE):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(bool(jnp.abs(x - y).max() <= tolerance) for x, y in pairs)


def equal(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(bool(jnp.array_equal(x, y)) for x, y in pairs)


def stepping(optimizer, x):
    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, x)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    return step


def test_jit_scan_and_eager_agree(backend):
    optimizer = pj.muon(0.1, weight_decay=0.1, precision="f32", backend=backend)
    params, x = tree(0), jnp.asarray(gaussian((8, 12), 9))
    step = stepping(optimizer, x)
    eager = jitted = (params, optimizer.init(params))
    compiled = jax.jit(step)
    for _ in range(3):
        eager, _ = step(eager, None)
        jitted, _ = compiled(jitted, None)
    scanned, _ = jax.jit(lambda c: jax.lax.scan(step, c, length=3))(
        (params, optimizer.init(params))
    )
    assert scanned[1][0].count == 3
    # gradients differ by rounding when they are fused otherwise
    assert close(eager[0], jitted[0], 3 * CLOSE) and close(scanned[0], jitted[0], 3 * CLOSE)


def test_vmap_is_a_loop(backend):
    optimizer = pj.pion(0.1, nesterov=True, weight_decay=0.1, backend=backend)
    runs = [tree(s) for s in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *runs)
    grads = [tree(50 + s) for s in range(3)]
    grads[1]["up"] = grads[1]["up"].at[0, 0].set(jnp.nan)  # skipped in the second run only
    together = jax.tree.map(lambda *x: jnp.stack(x), *grads)
    state = jax.vmap(optimizer.init)(stacked)
    updates, state = jax.jit(jax.vmap(optimizer.update))(together, state, stacked)
    updates, state = jax.jit(jax.vmap(optimizer.update))(together, state, stacked)
    assert state[0].skipped["up"].tolist() == [0, 2, 0]
    for i, params in enumerate(runs):
        alone = optimizer.init(params)
        for _ in range(2):
            update, alone = optimizer.update(grads[i], alone, params)
        assert close(update, jax.tree.map(lambda x, i=i: x[i], updates))


def test_vmap_over_hyperparameters(backend):
    grads, params = tree(5), tree(0)

    def change(lr, momentum):
        optimizer = pj.muon(lr, momentum=momentum, precision="f32", backend=backend)
        state = optimizer.init(params)
        for g in (tree(3), grads):
            updates, state = optimizer.update(g, state)
        return updates

    lrs, momenta = jnp.array([0.01, 0.1]), jnp.array([0.9, 0.5])
    both = jax.jit(jax.vmap(change))(lrs, momenta)
    for i in range(2):
        alone = change(float(lrs[i]), float(momenta[i]))
        # a momentum that is traced is f32: 1 - mu is off by 2^-24, that is by 6e-7 of 0.1
        assert close(alone, jax.tree.map(lambda x, i=i: x[i], both), 10 * CLOSE)


def test_the_derivative_of_a_step(backend):
    # forward and reverse, against central differences in f64: curvature h^2 and rounding / h
    with jax.enable_x64(True):
        g = jnp.asarray(gaussian((5, 8), 1, numpy.float64))
        direction = jnp.asarray(gaussian((5, 8), 2, numpy.float64))
        weights = jnp.asarray(gaussian((5, 8), 3, numpy.float64))
        optimizer = pj.pion(0.1, promotion_steps=3, backend=backend)
        # a momentum, so that the step depends on more than the direction of g
        state = optimizer.update(weights, optimizer.init(g))[1]

        def outer(t, lr_factor=1.0):
            updates, _ = optimizer.update(g + t * direction, state)
            return jnp.sum(weights * updates * lr_factor)

        h = 1e-5
        expected = (outer(h) - outer(-h)) / (2 * h)
        assert abs(jax.jvp(outer, (0.0,), (1.0,))[1] - expected) <= 1e-7
        assert abs(jax.grad(outer)(0.0) - expected) <= 1e-7
        assert abs(jax.jit(jax.grad(outer))(0.0) - expected) <= 1e-7


def test_schedules_and_injected_hyperparameters(backend):
    params, grads = tree(0), tree(3)
    schedule = optax.linear_schedule(0.1, 0.0, 4)
    scheduled = pj.muon(schedule, backend=backend)
    injected = optax.inject_hyperparams(pj.muon, static_args=("steps",))(
        learning_rate=schedule,
        momentum=0.9,
        weight_decay=0.1,
        steps=4,
        precision="f32",
        backend=backend,
    )
    plain = pj.muon(0.1, backend=backend)
    states = [o.init(params) for o in (scheduled, injected, plain)]
    for i in range(3):
        a, states[0] = jax.jit(scheduled.update)(grads, states[0], params)
        b, states[1] = jax.jit(injected.update)(grads, states[1], params)
        c, states[2] = plain.update(grads, states[2], params)
        assert close(a, jax.tree.map(lambda x, i=i: x * (1 - i / 4), c))
        fixed = pj.muon(
            0.1 * (1 - i / 4),
            momentum=0.9,
            weight_decay=0.1,
            steps=4,
            precision="f32",
            backend=backend,
        )
        # constant gradients: the direction is that of the first step
        d, _ = fixed.update(grads, fixed.init(params), params)
        assert close(b, d, 10 * CLOSE)
    assert float(states[1].hyperparams["momentum"]) == pytest.approx(0.9)
    states[1].hyperparams["weight_decay"] = jnp.asarray(0.0)
    injected.update(grads, states[1], params)


def test_masks_and_partitions(backend):
    params = tree(0) | {"bias": jnp.ones(3), "embedding": jnp.ones((7, 5))}
    grads = tree(3) | {"bias": jnp.ones(3), "embedding": jnp.ones((7, 5))}
    mask = {"q": True, "up": True, "down": True, "bias": False, "embedding": False}
    masked = optax.masked(pj.muon(0.1, backend=backend), mask)
    updates, _ = masked.update(grads, masked.init(params), params)
    alone = pj.muon(0.1, backend=backend)
    expected, _ = alone.update(tree(3), alone.init(tree(0)))
    assert close({k: updates[k] for k in expected}, expected)
    assert equal(updates["bias"], grads["bias"])

    numbers = {k: pj.DimensionNumbers(heads=2) if k == "q" else None for k in params}
    numbers["up"] = numbers["down"] = pj.DimensionNumbers()
    mixed = pj.multi_transform_with_muon(0.1, 1e-3, dimension_numbers=numbers, backend=backend)
    by_label = pj.multi_transform_with_muon(
        0.1, 1e-3, dimension_numbers=lambda p: numbers,
        labels={k: "matrix" if m else "rest" for k, m in mask.items()}, backend=backend,
    )  # fmt: skip
    adam = optax.adam(1e-3)
    for optimizer in (mixed, by_label):
        updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
        adams, _ = adam.update(grads, adam.init(params))
        assert close(
            {k: updates[k] for k in ("up", "down")}, {k: expected[k] for k in ("up", "down")}
        )
        assert not close(updates["q"], expected["q"])  # per head
        assert close(updates["bias"], adams["bias"]) and close(
            updates["embedding"], adams["embedding"]
        )
    by_rank = pj.multi_transform_with_muon(0.1, 1e-3, backend=backend)
    updates, _ = by_rank.update(grads, by_rank.init(params), params)
    assert close(updates["q"], expected["q"]) and close(updates["bias"], adams["bias"])


def test_weight_decay_mask(backend):
    params, grads = tree(0), tree(3)
    mask = {"q": True, "up": False, "down": False}
    plain = pj.muon(0.1, backend=backend)
    base, _ = plain.update(grads, plain.init(params))
    for chosen in (mask, lambda p: mask):
        decayed = pj.muon(0.1, weight_decay=0.5, weight_decay_mask=chosen, backend=backend)
        updates, _ = decayed.update(grads, decayed.init(params), params)
        assert close(updates["q"], base["q"] - 0.1 * 0.5 * params["q"])
        assert close(updates["up"], base["up"])


def test_chain_with_muon_is_clip_then_muon_then_adam(backend):
    params = tree(0) | {"bias": jnp.zeros(4)}
    grads = tree(3) | {"bias": 100 * jnp.ones(4)}
    ours = pj.chain_with_muon(0.02, 1e-3, 0.5, 0.9, False, backend=backend)
    theirs = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.contrib.muon(0.02, beta=0.9, nesterov=False, adam_learning_rate=1e-3, adam_b2=0.999),
    )
    a, b = ours.init(params), theirs.init(params)
    for _ in range(3):
        x, a = jax.jit(ours.update)(grads, a, params)
        y, b = jax.jit(theirs.update)(grads, b, params)
        # "accurate" rounds X to bf16, 2^-9, behind slopes that average below 10; eps of Adam
        # differs: 1e-5 beside gradients of 0.25
        for k in params:
            size = float(jnp.linalg.norm(y[k]))
            assert float(jnp.linalg.norm(x[k] - y[k])) <= 0.05 * size, k


def test_multi_steps(backend):
    params = tree(0)
    muon = pj.muon(0.1, precision="f32", backend=backend)
    optimizer = optax.MultiSteps(muon, every_k_schedule=2)
    state = optimizer.init(params)
    first, state = jax.jit(optimizer.update)(tree(3), state, params)
    second, state = jax.jit(optimizer.update)(tree(6), state, params)
    assert all(not x.any() for x in jax.tree.leaves(first))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, tree(3), tree(6))
    expected, _ = muon.update(mean, muon.init(params))
    assert close(second, expected, 10 * CLOSE)  # the mean is rounded otherwise


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_sharded_arrays(backend, axis_type):
    assert jax.device_count() == 4
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(axis_type, axis_type))
    spec = {
        "q": jax.P("x", "y"), "up": jax.P(None, "y"), "down": jax.P("x"), "stack": jax.P("x"),
    }  # fmt: skip
    shapes = {"q": (12, 12), "up": (12, 20), "down": (20, 12), "stack": (4, 6, 10)}
    params, grads = tree(0, shapes), tree(5, shapes)
    optimizer = pj.muon(
        0.1, weight_decay=0.1, dimension_numbers=pj.DimensionNumbers(-2, -1), backend=backend,
        precision="f32",
    )  # fmt: skip
    expected, _ = optimizer.update(grads, optimizer.init(params), params)

    def place(x):
        return {k: jax.device_put(v, jax.NamedSharding(mesh, spec[k])) for k, v in x.items()}

    params, grads = place(params), place(grads)
    inside = jax.set_mesh(mesh) if axis_type == AxisType.Explicit else contextlib.nullcontext()
    with inside:
        state = jax.jit(optimizer.init)(params)
        updates, after = jax.jit(optimizer.update)(grads, state, params)
        again, _ = jax.jit(optimizer.update)(grads, after, params)
    assert close(updates, expected) and close(again, expected, 10 * CLOSE)
    if axis_type == AxisType.Explicit:
        assert updates["up"].sharding.spec == spec["up"]
    assert close(after[0].mu, jax.tree.map(lambda g: 0.05 * g, grads))

    # work shared by hand: every device has whole matrices of the stack
    stacks = jax.NamedSharding(mesh, jax.P(("x", "y")))
    g = jax.device_put(jnp.asarray(gaussian((4, 6, 10), 8)), stacks)
    single = pj.scale_by_muon(dimension_numbers=pj.DimensionNumbers(1, 2), backend=backend)

    def direction(x):
        return single.update(x, single.init(x))[0]

    if axis_type == AxisType.Explicit:
        return
    everywhere = jax.shard_map(
        direction, mesh=mesh, in_specs=jax.P(("x", "y")), out_specs=jax.P(("x", "y")),
        check_vma=False,
    )  # fmt: skip
    found = jax.jit(everywhere)(g)
    assert found.sharding.is_equivalent_to(stacks, 3)
    found, g = (jax.device_put(x, jax.devices()[0]) for x in (found, g))
    assert close(found, direction(g), 10 * CLOSE)


def test_several_threads_step_at_once(backend):
    import concurrent.futures

    optimizer = pj.muon(0.1, backend=backend)
    update = jax.jit(optimizer.update)
    params = tree(0, {"w": (64, 96)})
    state = optimizer.init(params)
    grads = [tree(i, {"w": (64, 96)}) for i in range(8)]
    alone = [update(g, state, params)[0] for g in grads]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda g: update(g, state, params)[0], grads * 3))
    for i, found in enumerate(together):
        assert equal(found, alone[i % 8])


def test_thread_counts_change_nothing():
    # in processes of their own: the count is read when the step is traced
    program = textwrap.dedent("""
        import hashlib, jax, jax.numpy as jnp, pion.jax as pj
        made = pj.scale_by_pion(backend="kernels", dimension_numbers=pj.DimensionNumbers(heads=4))
        g = jax.random.normal(jax.random.key(1), (96, 256))
        print(hashlib.sha256(jax.device_get(made.update(g, made.init(g))[0]).tobytes()).hexdigest())
    """)
    found = set()
    for threads in ("1", "3"):
        environment = {"PION_NUM_THREADS": threads, "JAX_PLATFORMS": "cpu", "PATH": ""}
        found.add(
            subprocess.run(
                [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
                check=True,
            ).stdout
        )  # fmt: skip
    assert len(found) == 1


def test_one_call_steps_all_matrices():
    optimizer = pj.muon(0.1, backend="kernels")
    params = tree(0)
    text = jax.jit(optimizer.update).lower(tree(3), optimizer.init(params), params).as_text()
    assert text.count("@pion_step") == 1


def test_momenta_are_stepped_where_they_lie():
    # donated, the state keeps its memory: nothing is copied
    optimizer = pj.muon(0.1, backend="kernels")
    params = tree(0, {"w": (256, 256)})
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = step(params, state, tree(3, {"w": (256, 256)}))
    before = state[0].mu["w"].unsafe_buffer_pointer()
    params, state = step(params, state, tree(4, {"w": (256, 256)}))
    assert state[0].mu["w"].unsafe_buffer_pointer() == before


def test_a_state_can_be_saved_and_goes_on(backend, tmp_path):
    optimizer = pj.chain_with_muon(0.02, 1e-3, 1.0, backend=backend)
    params = tree(0) | {"bias": jnp.zeros(4)}
    grads = [tree(3 + i) | {"bias": jnp.ones(4)} for i in range(4)]
    update = jax.jit(optimizer.update)
    state = optimizer.init(params)
    for g in grads[:2]:
        _, state = update(g, state, params)
    leaves, treedef = jax.tree.flatten(state)
    numpy.savez(tmp_path / "state.npz", *leaves)
    with numpy.load(tmp_path / "state.npz") as file:
        read = treedef.unflatten([jnp.asarray(file[f"arr_{i}"]) for i in range(len(leaves))])
    for g in grads[2:]:
        a, state = update(g, state, params)
        b, read = update(g, read, params)
        assert equal(a, b)
