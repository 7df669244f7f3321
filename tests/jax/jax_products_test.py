# SPDX-License-Identifier: Apache-2.0
"""Products of the jax.numpy path: their types on each platform, their number, their errors."""

import collections
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy
import pion.jax as pj
import pytest
from jax_judges import exact_map, gaussian
from pion._pion import Rule
from pion.jax import form, products, spectral

MAPS = {
    "muon": Rule("muon"),
    "pion": Rule("pion", {"promotion_steps": 2}),
    "polar_express": Rule("muon", {"coefficients": "polar_express"}),
}
FP16, BF16 = spectral._FP16, spectral._BF16


@functools.cache
def spectra(shape) -> numpy.ndarray:
    """Four matrices: Gaussian; singular values 1 / i, over seven decades, two and a tail."""
    m, n = shape
    left, _ = numpy.linalg.qr(gaussian((m, m), 1, numpy.float64))
    right, _ = numpy.linalg.qr(gaussian((n, m), 2, numpy.float64))
    i = numpy.arange(m)
    tail = 10 ** (-4 - 3 * numpy.random.default_rng(3).random(m))
    values = (
        1 / (i + 1),
        10 ** (-7 * i / (m - 1)),
        numpy.where(i == 0, 1, numpy.where(i == 1, 0.7, tail)),
    )
    return numpy.stack([gaussian(shape, 4, numpy.float64), *((left * s) @ right.T for s in values)])


@functools.cache
def factors(shape):
    """U, S, V^T of the matrices at Frobenius norm 1."""
    u, s, vt = numpy.linalg.svd(spectra(shape), full_matrices=False)
    return u, s / numpy.linalg.norm(s, axis=-1, keepdims=True), vt


def errors(found, map_, shape) -> numpy.ndarray:
    u, s, vt = factors(shape)
    s = s / map_.norm_margin
    for a, b, c in map_.coefficients:
        s = a * s + b * s**3 + c * s**5
    difference = numpy.asarray(found, numpy.float64) - (u * s[..., None, :]) @ vt
    return numpy.linalg.norm(difference, axis=(1, 2)) / numpy.linalg.norm(s, axis=-1)


def multiplied(map_, arithmetic, shape):
    x = jnp.asarray(spectra(shape), jnp.float32)
    x = x / spectral._power_of_two(jnp.abs(x).max((1, 2), keepdims=True), below=True)
    return jax.jit(functools.partial(spectral._multiplied, map_, arithmetic))(x)


@functools.partial(jax.jit, static_argnums=(1, 2))
def direct_bf16(x, coefficients, margin):
    """torch.optim.Muon's arithmetic: X, A and b A + c A^2 in bf16, sums in f32."""
    x = x / jnp.linalg.norm(x, axis=(1, 2), keepdims=True) / margin

    def times(a, b):
        return jnp.matmul(a, b, precision="highest")

    def rounded(a):
        return a.astype(jnp.bfloat16).astype(jnp.float32)

    x = rounded(x)
    for a, b, c in coefficients:
        gram = rounded(times(x, x.mT))
        x = rounded(a * x + times(rounded(b * gram + c * times(gram, gram)), x))
    return x


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("shape", [(128, 1024), (256, 1024), (384, 384)])
def test_errors_stay_below_those_of_direct_bf16(shape, name):
    map_ = MAPS[name].map(*shape)
    x = jnp.asarray(spectra(shape), jnp.float32)
    theirs = direct_bf16(x, tuple(map_.coefficients), map_.norm_margin)
    theirs = errors(theirs, map_, shape)
    fast = errors(multiplied(map_, FP16["fast"], shape), map_, shape)
    assert (fast <= theirs).all(), (fast, theirs)
    # X of 11 bits is what is left, which the order of its products changes little
    accurate = errors(multiplied(map_, FP16["accurate"], shape), map_, shape)
    assert (accurate <= 1.05 * fast).all(), (accurate, fast)
    # where there is no fp16, direct code in bf16 with a X in f32: alike but for the luck of its
    # roundings, which on Gaussian matrices are one and the same for all of the diagonal
    bf16 = errors(multiplied(map_, BF16["fast"], shape), map_, shape)
    assert (bf16 <= 2.5 * theirs).all(), (bf16, theirs)
    if shape == (128, 1024):  # 16 bits for 8
        split = errors(multiplied(map_, BF16["accurate"], shape), map_, shape)
        assert (split <= theirs / 8).all(), (split, theirs)


def test_filters_that_suppress_a_whole_matrix_do_not_underflow():
    # equal singular values far below the cutoff: the result has norm 1e-10 and less, its squares
    # are no f32 numbers. Rounding is 2^-11 behind an exponent of 27, a rounding of the trace
    # included.
    for shape in ((96, 96), (96, 400), (400, 96)):
        u, _, vt = numpy.linalg.svd(gaussian(shape, 1, numpy.float64), full_matrices=False)
        for steps in ((2, 5), (0, 3), (1, 4), (6, 7)):
            keys = {"promotion_steps": steps[0], "steps": steps[1]}
            map_ = Rule("pion", keys).map(*shape)
            found = numpy.asarray(
                pj.spectral_map(jnp.asarray(u @ vt), "pion", backend="jnp", **keys)
            )
            expected = exact_map(u @ vt, map_.coefficients)
            if numpy.linalg.norm(expected) < 1e-36:
                assert numpy.abs(found).max() < 1e-36
                continue
            error = numpy.linalg.norm(found - expected) / numpy.linalg.norm(expected)
            assert error <= 3 * 27 * 2.0**-12, (shape, steps)


def test_the_size_of_a_matrix_does_not_matter():
    x = gaussian((40, 100), 1)
    for rule in ("muon", "pion"):
        mapped = functools.partial(pj.spectral_map, rule=rule, backend="jnp")
        expected = mapped(jnp.asarray(x))
        for power in (-100, -60, 60, 120):
            assert jnp.array_equal(mapped(jnp.asarray(x * 2.0**power)), expected), power


def test_products_of_narrow_operands_are_sums_in_f32():
    # entries over thirty binades, so that a sum in fp16 would be off by 2^-11
    x = gaussian((2, 50, 700), 1) * 2.0 ** numpy.random.default_rng(2).integers(
        -14, 6, (2, 50, 700)
    )
    for kind in (jnp.float16, jnp.bfloat16):
        operand = products.Arithmetic(kind, 1, 1, 0).rounded(jnp.asarray(x, jnp.float32), 1.0, 1)
        found = jax.jit(lambda o: products._product(o, o, 2))(operand.parts[0])
        assert found.dtype == jnp.float32
        rounded = numpy.asarray(operand.parts[0], numpy.float64)
        assert numpy.abs(rounded - x).max() > 0
        exact = rounded @ rounded.swapaxes(1, 2)
        bound = 700 * 2.0**-24 * (numpy.abs(rounded) @ numpy.abs(rounded).swapaxes(1, 2))
        assert (numpy.abs(numpy.asarray(found) - exact) <= bound).all()


def test_two_parts_hold_twice_the_bits():
    x = jnp.asarray(gaussian((1, 30, 40), 1))
    for kind, bits in ((jnp.float16, 22), (jnp.bfloat16, 16)):
        operand = products.Arithmetic(kind, 2, 2, 0).rounded(x, 2.0**9, 2)
        assert jnp.abs(operand.value() - x).max() <= 2.0**-bits * jnp.abs(x).max()


# -- what is lowered

SHAPES = {"w": (256, 64), "square": (48, 48), "wide": (32, 512)}


def lowered(rule, platforms, backend="auto", shapes=None, **keys) -> str:
    made = pj.scale_by_rule(rule, backend=backend, **keys)
    grads = {k: jax.ShapeDtypeStruct(s, jnp.float32) for k, s in (shapes or SHAPES).items()}
    traced = jax.jit(made.update).trace(grads, jax.eval_shape(made.init, grads))
    return traced.lower(lowering_platforms=platforms).as_text()


def dots(text: str) -> list[tuple[str, str, str, float]]:
    """(type, type, type of the result, FLOP) of every product."""
    found = []
    for line in text.splitlines():
        if "stablehlo.dot_general" not in line:
            continue
        a, b, c = re.search(r": \(tensor<(.*?)>, tensor<(.*?)>\) -> tensor<(.*?)>", line).groups()
        axes = [int(x) for x in a.split("x")[:-1]]
        over = int(re.search(r"contracting_dims = \[(\d+)\]", line).group(1))
        size = math.prod(int(x) for x in c.split("x")[:-1])
        found.append((*(t.split("x")[-1] for t in (a, b, c)), 2.0 * size * axes[over]))
    return found


@pytest.mark.parametrize("rule", ["muon", "pion"])
@pytest.mark.parametrize("normalization", ["frobenius", "spectral"])
def test_no_product_has_f32_operands_outside_of_f32(rule, normalization):
    wanted = {"cuda": "f16", "rocm": "f16", "tpu": "bf16"}
    for platform, kind in wanted.items():
        for precision in ("fast", "accurate"):
            text = lowered(rule, (platform,), precision=precision, normalization=normalization)
            assert {d[:3] for d in dots(text)} == {(kind, kind, "f32")}, (platform, precision)
            assert "pion_step" not in text
        text = lowered(rule, (platform,), precision="f32", normalization=normalization)
        assert {d[:3] for d in dots(text)} == {("f32", "f32", "f32")}
        calls = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        assert all("precision = [HIGHEST, HIGHEST]" in line for line in calls)


def test_a_default_precision_of_the_user_changes_nothing():
    with jax.default_matmul_precision("bfloat16"):
        rough = lowered("muon", ("cuda",), precision="f32")
    assert rough == lowered("muon", ("cuda",), precision="f32")
    with jax.default_matmul_precision("highest"):
        assert lowered("muon", ("tpu",)) == lowered("muon", ("tpu",))


def test_a_program_for_several_platforms_has_the_path_of_each():
    made = pj.scale_by_muon()
    g = jax.ShapeDtypeStruct((32, 96), jnp.float32)
    state = jax.eval_shape(made.init, g)
    exported = jax.export.export(jax.jit(made.update), platforms=("cuda", "tpu"))(g, state)
    kinds = collections.Counter(d[:3] for d in dots(exported.mlir_module()))
    assert set(kinds) == {("f16", "f16", "f32"), ("bf16", "bf16", "f32")}
    assert "pion_step" in lowered("muon", ("cpu",))
    assert "f16" not in lowered("muon", ("cpu",))


@pytest.mark.parametrize("rule", ["muon", "pion"])
@pytest.mark.parametrize("precision", ["fast", "accurate", "f32"])
def test_work_is_what_the_cost_model_says(rule, precision):
    arithmetic = FP16[precision] if precision != "f32" else spectral._WHOLE["float32"]
    for m, n in ((64, 64), (64, 72), (64, 128), (64, 1024)):
        text = lowered(rule, ("cuda",), shapes={"w": (m, n)}, precision=precision)
        sequence = Rule(rule, {"precision": precision}).map(m, n).coefficients
        chosen = form.form(sequence, n / m, arithmetic)
        flop = sum(d[3] for d in dots(text))
        assert flop == pytest.approx(2.0 * m**3 * form.work(chosen, n / m, arithmetic))
        direct = form.work([[p] for p in sequence], n / m, arithmetic)
        assert (flop < 2.0 * m**3 * direct) == (len(chosen) < len(sequence)), (m, n)


def test_forms():
    def lengths(rule, keys, aspect, arithmetic):
        sequence = Rule(rule, keys).map(64, int(64 * aspect)).coefficients
        return [len(piece) for piece in form.form(sequence, aspect, arithmetic)]

    fast = FP16["fast"]
    for name in ("classic", "quintic", "polar_express", "cans"):
        assert lengths("muon", {"coefficients": name}, 4, fast) == [2, 3], name
        assert lengths("muon", {"coefficients": name}, 1, fast) == [1] * 5
        assert lengths("muon", {"coefficients": name}, 4, BF16["fast"]) == [1] * 5
    for promotions in range(5):
        assert lengths("pion", {"promotion_steps": promotions}, 4, fast) == [5]
    assert lengths("muon", {}, 4, spectral._WHOLE["float32"]) == [5]
    # 10 r + 5 and 4 r + 14: equal at 1.5
    assert lengths("muon", {}, 1.5, fast) == [1] * 5 and lengths("muon", {}, 1.75, fast) == [2, 3]
    many = lengths("muon", {"steps": 20}, 64, fast)
    assert sum(many) == 20 and max(many) == 3


def test_entries_of_all_operands_fit_fp16():
    """The static scale: over all singular values that a piece may meet."""
    for rule, keys in (
        *(("muon", {"coefficients": c, "steps": s}) for s in (3, 5, 9, 20)
          for c in ("classic", "quintic", "polar_express", "cans", "cubic")),
    ):  # fmt: skip
        map_ = Rule(rule, keys).map(64, 64)
        s = numpy.linspace(0, 1.0 / map_.norm_margin, 4001)
        for piece in form.pieces(map_.coefficients, FP16["fast"].growth):
            q = numpy.ones_like(s)
            for a, b, c in piece:
                t = a + b * s**2 + c * s**4
                q, before, s = q * t, s, s * t
                largest = max(abs(v).max() for v in (q, t, before, before**2, t * before**2, s))
                assert largest * spectral._SCALE * 1.05 < 65504, keys


# -- derivatives, norms, singular vectors


@pytest.mark.parametrize("rule", ["muon", "pion"])
def test_the_derivative_is_that_of_the_formula(rule):
    x, v = (jnp.asarray(gaussian((12, 30), seed)) for seed in (1, 2))
    mapped = {
        p: functools.partial(pj.spectral_map, rule=rule, backend="jnp", precision=p)
        for p in ("fast", "f32")
    }
    moved = [jax.jvp(mapped[p], (x,), (v,))[1] for p in ("fast", "f32")]
    assert jnp.array_equal(*moved)
    back = [jax.grad(lambda y, p=p: jnp.vdot(mapped[p](y), v))(x) for p in ("fast", "f32")]
    # the product rule of the norm is taken at another value of the map in neither of them
    assert jnp.abs(back[0] - back[1]).max() <= 1e-5 * jnp.abs(back[1]).max()


def test_the_largest_eigenvalue():
    # The bound of the docstring on spectra without a gap: Gaussian squares, and all alike but one
    shapes = [gaussian((2, m, n), m) for m, n in ((200, 200), (64, 512), (300, 310))]
    flat = numpy.linalg.qr(gaussian((2, 128, 128), 5))[0]
    flat[:, 0] *= 1.01
    for x in (*shapes, flat):
        expected = numpy.linalg.norm(x.astype(numpy.float64), 2, axis=(1, 2)) ** 2
        gram = jnp.asarray(x @ x.swapaxes(1, 2))
        for arithmetic in (FP16["fast"], BF16["fast"], spectral._WHOLE["float32"]):
            chain = spectral._Chain(arithmetic, True)
            found = numpy.asarray(spectral._largest_eigenvalue(gram, chain)).ravel()
            bits = {jnp.float16: 2.0**-10, jnp.bfloat16: 2.0**-7}.get(arithmetic.type, 2.0**-20)
            low = math.log(x.shape[1]) / 1024 + bits
            assert ((found <= (1 + bits) * expected) & (found >= (1 - low) * expected)).all()
    zero = spectral._largest_eigenvalue(jnp.zeros((1, 8, 8)), chain)
    assert float(zero[0, 0, 0]) == 0


@pytest.mark.parametrize("shape", [(40, 90), (90, 40)])
def test_singular_vectors_by_eigenvalues_where_there_is_f64(shape):
    # values from 1 to 1e-4: vectors of f32 matrices are off by 2^-24 over the value
    m = min(shape)
    left, right = (numpy.linalg.qr(gaussian((k, m), k, numpy.float64))[0] for k in shape)
    s = numpy.logspace(0, -4, m)
    x = ((left * s) @ right.T).astype(numpy.float32)
    with jax.enable_x64(True):
        for rule, keys, keep in (
            ("low_rank_muon", {"rank": 7}, numpy.arange(m) < 7),
            ("low_pass_muon", {"cutoff": 0.05}, s / numpy.linalg.norm(s) < 0.05),
        ):
            text = str(jax.make_jaxpr(lambda y, r=rule, k=keys: pj.spectral_map(
                y, r, backend="jnp", **k))(jnp.asarray(x)))  # fmt: skip
            assert "eigh" in text and "svd" not in text
            found = pj.spectral_map(jnp.asarray(x), rule, backend="jnp", **keys)
            assert found.dtype == jnp.float32
            expected = (left * keep) @ right.T
            least = s[keep].min()
            error = numpy.linalg.norm(numpy.asarray(found) - expected) / math.sqrt(keep.sum())
            assert error <= 8 * 2.0**-24 / least, rule
