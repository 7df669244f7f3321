# SPDX-License-Identifier: Apache-2.0
"""Numbers of pion.jax: the table that all front ends share, definitions in double, other packages."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy
import optax
import pion.jax as pj
import pytest
from jax_judges import CLASSIC, DOWN, UNIT, UP, exact_map, exact_muon, gaussian, rule_of, table

# A unit of rounding in f64 behind the largest slope of a map at 0 (485: Muon's; 533: Pion's with
# five promotions), on 15 products of at most 64 terms that are at most 10.25 times their result.
# Gram space squares the slope: see tests/python/numerics_test.py.
DIRECT = 2.0**-53 * (64 * 15 * 10.25 + 3 * 533)
GRAM_SPACE = 2.0**-53 * 533**2 * 20


def test_every_map_of_the_shared_table(backend):
    with jax.enable_x64(True):
        checked = 0
        for case in table()["cases"]:
            rule, keys = rule_of(case)
            x = numpy.array(case["input"]).reshape(case["rows"], case["cols"])
            expected = numpy.array(case["expected"]).reshape(x.shape)
            keys["normalization"] = case["normalization"]
            result = pj.spectral_map(x, rule, backend=backend, **keys)
            # a spectral norm is an estimate, to 1 % at most, behind slopes of at most 5 above
            # the noise
            allowed = 0.01 * 5 if case["normalization"] == "spectral" else GRAM_SPACE
            error = numpy.linalg.norm(numpy.asarray(result) - expected)
            assert error <= allowed * max(1.0, numpy.linalg.norm(expected)), case["map"]
            checked += 1
        assert checked == 170


@pytest.mark.parametrize("stored", ["out_in", "in_out"])
def test_every_head_of_the_shared_table(backend, stored):
    with jax.enable_x64(True):
        for case in table()["per_head"]:
            rule, keys = rule_of(case)
            shape = (case["rows"], case["cols"])  # (out, in)
            g = numpy.array(case["input"]).reshape(shape)
            expected = numpy.array(case["expected"]).reshape(shape)
            axes = (1, 0) if stored == "out_in" else (0, 1)
            head_axis = ("output", "reduction")[case["head_axis"]]
            numbers = pj.DimensionNumbers(*axes, case["heads"], head_axis)
            made = pj.scale_by_rule(
                rule, dimension_numbers=numbers, backend=backend, momentum=0.0, nesterov=False,
                scale="spectral", **keys,
            )  # fmt: skip
            g = jnp.asarray(g if stored == "out_in" else g.T)
            update, _ = made.update(g, made.init(g))
            update = numpy.asarray(update if stored == "out_in" else update.T)
            rows, cols = shape
            rows, cols = (rows // 4, cols) if case["head_axis"] == 0 else (rows, cols // 3)
            error = numpy.linalg.norm(update / math.sqrt(rows / cols) - expected)
            assert error <= GRAM_SPACE * max(1.0, numpy.linalg.norm(expected)), case


def trajectory(optimizer, weight, gradients):
    params = jnp.asarray(weight)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    for g in gradients:
        params, state = step(params, state, jnp.asarray(g))
        yield numpy.asarray(params)


@pytest.mark.parametrize(
    ("shape", "nesterov", "scale"),
    [
        ((24, 90), False, "original"),
        ((90, 24), True, "match_rms_adamw"),
        ((3, 20, 20), True, "spectral"),
        ((90, 24), False, "spectral"),
    ],
)
def test_muon_is_its_definition_step_by_step(shape, nesterov, scale, backend):
    keys = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1, "scale": scale}
    weight = gaussian(shape, 1, numpy.float64)
    gradients = [gaussian(shape, 10 + i, numpy.float64) for i in range(6)]
    numbers = pj.DimensionNumbers(-2, -1)
    with jax.enable_x64(True):
        ours = pj.muon(0.05, dimension_numbers=numbers, backend=backend, **keys)
        found = list(trajectory(ours, weight, gradients))
    for a, b in zip(found, exact_muon(weight, gradients, lr=0.05, **keys), strict=True):
        assert numpy.abs(a - b).max() <= 6 * GRAM_SPACE


@pytest.mark.parametrize(
    ("shape", "consistent_rms"), [((16, 48), None), ((48, 16), 0.2), ((32, 32), None)]
)
def test_muon_is_optax_muon_step_by_step(shape, consistent_rms, backend):
    # Where the rules coincide: without Nesterov, whose look-ahead optax mixes from two bias
    # corrections. Both in f64; optax adds 1e-8 to a norm of about 0.1 sqrt(512), which moves
    # singular values by 1e-8 / 2, behind slopes of 485.
    weight = gaussian(shape, 1, numpy.float64)
    gradients = [gaussian(shape, 10 + i, numpy.float64) for i in range(8)]
    shared = {"nesterov": False, "weight_decay": 0.1}
    with jax.enable_x64(True):
        theirs = optax.contrib.muon(0.05, beta=0.9, consistent_rms=consistent_rms, **shared)
        scale = "original" if consistent_rms is None else "match_rms_adamw"
        ours = pj.muon(0.05, momentum=0.9, scale=scale, backend=backend, **shared)
        pairs = zip(
            trajectory(ours, weight, gradients), trajectory(theirs, weight, gradients), strict=True
        )
        for step, (a, b) in enumerate(pairs, 1):
            assert numpy.abs(a - b).max() <= step * (GRAM_SPACE + 0.05 * 2 * 485 * 1e-8), step


def test_dimension_numbers_of_optax_mean_the_same():
    # one step of each layout that optax knows against optax itself; bound as above
    numbers = optax.contrib.MuonDimensionNumbers
    layouts = [
        ((5, 6, 10), numbers(1, 2)),  # a stack
        ((12, 4, 5), numbers(0, 2)),  # heads between
        ((12, 4, 5), numbers(0, (1, 2))),  # heads as one matrix
        ((4, 5, 12), numbers((0, 1), 2)),  # an output projection
        ((3, 3, 6, 8), numbers((0, 1, 2), 3)),  # a convolution
        ((20, 6), numbers(1, 0)),  # stored (out, in)
        ((6, 7, 2), numbers(0, 1)),  # a stack behind
        ((6, 2, 7), numbers(-1, 0)),
    ]
    with jax.enable_x64(True):
        tree = {str(i): n for i, (_, n) in enumerate(layouts)}
        g = {
            str(i): jnp.asarray(gaussian(shape, i, numpy.float64))
            for i, (shape, _) in enumerate(layouts)
        }
        theirs = optax.contrib.muon(1.0, nesterov=False, muon_weight_dimension_numbers=tree)
        expected, _ = jax.jit(theirs.update)(g, theirs.init(g), g)
        for backend in ("kernels", "jnp"):
            ours = pj.muon(
                1.0, nesterov=False, scale="original", dimension_numbers=tree, backend=backend
            )
            found, _ = jax.jit(ours.update)(g, ours.init(g))
            for i, (shape, n) in enumerate(layouts):
                error = jnp.abs(found[str(i)] - expected[str(i)]).max()
                assert error <= GRAM_SPACE + 4 * 485 * 1e-8, (shape, n)


def test_pytorch_and_jax_step_alike():
    # The kernels are the same and so are the roundings: the updates of PyTorch's front end at
    # learning rate 1 from zero weights, bit for bit, of every rule and precision.
    torch = pytest.importorskip("torch")
    import pion

    cases = [
        ("pion", {"cutoff": 0.2}), ("pion", {"promotion_steps": 2, "nesterov": True}),
        ("pion", {"precision": "fast"}), ("muon", {"precision": "f32"}), ("muon", {}),
        ("muon", {"coefficients": "cubic", "steps": 9, "scale": "original"}),
        ("pion", {"scale": "unit_rms", "scale_factor": 0.5}),
        ("pion", {"normalization": "spectral", "promotion_steps": 1}),
        ("low_rank_muon", {"rank": 3}), ("low_pass_muon", {"cutoff": 0.2}),
    ]  # fmt: skip
    shape = (48, 80)  # (out, in)
    for rule, keys in cases:
        ours = pj.scale_by_rule(
            rule, dimension_numbers=pj.DimensionNumbers(1, 0, 3), backend="kernels", **keys
        )
        state = ours.init(jnp.zeros(shape))
        weight = torch.nn.Parameter(torch.zeros(shape))
        theirs = pion.PionAdamW([{"params": [weight], "heads": 3, "rule": rule, **keys}], lr=1.0)
        for step in range(3):
            g = gaussian(shape, step)
            weight.data.zero_()
            weight.grad = torch.from_numpy(g)
            theirs.step()
            momentum = theirs.state[weight]["momentum_buffer"]
            update, state = ours.update(jnp.asarray(g), state)
            assert numpy.array_equal(-weight.detach().numpy(), numpy.asarray(update)), (rule, keys)
            assert numpy.array_equal(momentum.numpy(), numpy.asarray(state.mu))


@pytest.mark.parametrize("precision", ["fast", "accurate", "f32"])
@pytest.mark.parametrize("shape", [(64, 64), (48, 128), (128, 48)])
def test_precisions_stay_as_close_to_the_map_as_they_say(shape, precision, backend):
    # The bounds of tests/python/numerics_test.py, where they are derived.
    bound = {"fast": 10.25 * 2.0**-9 * math.sqrt(15) + 0.03, "accurate": 0.03, "f32": 2e-4}
    x = gaussian((shape[0], 4), 1) @ gaussian((4, shape[1]), 2) + 0.3 * gaussian(shape, 3)
    found = pj.spectral_map(x, "pion", promotion_steps=2, precision=precision, backend=backend)
    expected = exact_map(x, [UP] * 2 + [DOWN] * 3)
    error = numpy.linalg.norm(numpy.asarray(found) - expected)
    assert error <= bound[precision] * numpy.linalg.norm(expected)


def test_the_two_backends_agree_on_every_rule_and_scale():
    # f64, one formula in another order; a spectral norm is an estimate in both, to 0.3 %
    rules = [
        ("pion", {"cutoff": "noise_edge", "edge_factor": 1.5}),
        ("pion", {"normalization": "spectral", "promotion_steps": 3}),
        ("pion", {"scale": "unit_rms", "nesterov": True}), ("muon", {"coefficients": "cans"}),
        ("muon", {"coefficients": "polar_express", "steps": 7, "nonfinite": "zero"}),
        ("low_rank_muon", {"rank": 3, "scale": "official"}), ("low_pass_muon", {"cutoff": 0.2}),
    ]  # fmt: skip
    shapes = {"a": (20, 50), "b": (2, 20, 10), "c": (50, 20), "d": (20, 30)}
    numbers = {
        "a": pj.DimensionNumbers(heads=5), "b": pj.DimensionNumbers(1, 2),
        "c": pj.DimensionNumbers(heads=(1, 1), sizes=(10, 10)),
        "d": pj.DimensionNumbers(heads=3, head_axis="reduction", reduction_axis=1, output_axis=0),
    }  # fmt: skip
    with jax.enable_x64(True):
        for rule, keys in rules:
            results = []
            for chosen in ("kernels", "jnp"):
                made = pj.scale_by_rule(rule, dimension_numbers=numbers, backend=chosen, **keys)
                update = jax.jit(made.update)
                params = {k: jnp.zeros(s) for k, s in shapes.items()}
                state = made.init(params)
                for step in range(2):
                    g = {
                        k: jnp.asarray(gaussian(s, 7 * step + i, numpy.float64))
                        for i, (k, s) in enumerate(shapes.items())
                    }
                    if keys.get("nonfinite"):
                        g["b"] = g["b"].at[0, 3, 4].set(jnp.nan)
                    updates, state = update(g, state)
                results.append((updates, state))
            allowed = 0.01 if keys.get("normalization") == "spectral" else 20 * GRAM_SPACE
            for a, b in zip(*map(jax.tree.leaves, results), strict=True):
                size = float(jnp.abs(a).max())
                # `passed` is kept in f32: an eighth of a unit for squares of 40 directions
                kept = allowed if a.ndim else max(allowed, 2.0**-22) * 40
                assert jnp.abs(a - b).max() <= kept * max(1.0, size), (rule, keys)


def test_types(backend):
    # bf16 and f16 gradients: f32 arithmetic and momenta, an update in the gradient's type
    x = gaussian((24, 40), 3)
    exact = exact_map(x, CLASSIC) * 0.2 * math.sqrt(40)
    for dtype, unit in ((jnp.bfloat16, 2.0**-8), (jnp.float16, 2.0**-11), (jnp.float32, UNIT)):
        made = pj.scale_by_muon(momentum=0.0, precision="f32", backend=backend)
        g = jnp.asarray(x, dtype)
        update, state = made.update(g, made.init(g))
        assert update.dtype == dtype and state.mu.dtype == jnp.float32
        # what rounding G does is amplified by at most 485 in its weakest direction, but only by
        # about 1 / smallest singular value (0.02 of the norm) in the mean
        error = numpy.linalg.norm(numpy.asarray(update, numpy.float64) - exact)
        assert error <= (50 * unit + 2e-4) * numpy.linalg.norm(exact), dtype
    made = pj.scale_by_muon(mu_dtype=jnp.bfloat16, backend=backend)
    update, state = made.update(jnp.asarray(x), made.init(jnp.asarray(x)))
    assert state.mu.dtype == jnp.bfloat16 and update.dtype == jnp.float32


def test_gradients_that_are_not_finite(backend):
    for policy in ("skip", "zero"):
        made = pj.muon(0.1, weight_decay=0.1, nonfinite=policy, backend=backend)
        params = {"good": jnp.asarray(gaussian((4, 4), 1)), "bad": jnp.asarray(gaussian((4, 4), 2))}
        state = made.init(params)
        for bad in (jnp.nan, jnp.inf):
            g = {"good": params["bad"], "bad": params["good"].at[0, 0].set(bad)}
            update, after = made.update(g, state, params)
            matrix = after[0]
            assert float(jnp.abs(update["good"]).max()) > 0
            if policy == "skip":
                assert not update["bad"].any() and not matrix.mu["bad"].any()
                assert matrix.skipped == {"good": 0, "bad": 1} and matrix.passed["bad"] == 0
            else:
                assert jnp.isfinite(update["bad"]).all() and float(matrix.mu["bad"][0, 0]) == 0
                assert matrix.skipped == {"good": 0, "bad": 0}


def test_what_passed_is_reported(backend):
    # rank 3 with equal singular values: 0.577 of the norm each, above the cutoff of 0.3
    left, right = (numpy.linalg.qr(gaussian((40, 3), s, numpy.float64))[0] for s in (1, 2))
    made = pj.scale_by_pion(cutoff=0.3, precision="f32", backend=backend)
    g = jnp.asarray(left @ right.T, jnp.float32)
    _, state = made.update(g, made.init(g))
    assert float(state.passed) == pytest.approx(3, abs=0.01)  # the filter's softness: 1e-3


def test_a_zero_gradient_only_decays(backend):
    made = pj.pion(0.1, weight_decay=0.5, backend=backend)
    w = jnp.ones((6, 5))
    updates, _ = made.update(jnp.zeros((6, 5)), made.init(w), w)
    assert jnp.allclose(updates, -0.05, rtol=2 * UNIT, atol=0)


def test_defaults_are_those_of_the_library():
    from pion._pion import Rule

    g = jnp.asarray(gaussian((30, 50), 1))
    for name, made in (("pion", pj.scale_by_pion), ("muon", pj.scale_by_muon)):
        rule = Rule(name, {}, "")
        keys = {k: v for k, _, v in rule.key_table() if v is not None}
        keys = {k: v for k, v in keys.items() if k not in ("lr", "weight_decay")}
        a, b = made(), functools.partial(made, **keys)()
        assert jnp.array_equal(a.update(g, a.init(g))[0], b.update(g, b.init(g))[0])
