# SPDX-License-Identifier: Apache-2.0
"""Pion and Muon as optax gradient transformations.

    M <- mu M + (1 - mu) G
    D  = nesterov ? mu M + (1 - mu) G : M
    update = -lr (s map(D / norm(D)) + weight_decay W)

Names, defaults and ranges are the C++ library's: `None` stands for its default.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pion._pion import Rule
from pion.jax.dimensions import layout_of, name_of, numbers_by_path, numbers_of
from pion.jax.plan import Plan
from pion.jax.rates import checked, is_function, is_zero, keeping_types, plain
from pion.jax.step import checked_backend, run

_RATES = ("lr", "momentum", "nesterov", "weight_decay")


class MatrixState(NamedTuple):
    """State of a matrix rule. `skipped` and `passed` report, and change no later step."""

    count: jax.Array  # steps
    mu: Any  # momenta, in the parameters' shapes; f32, or f64 for f64 parameters
    skipped: Any  # per parameter: steps left out because the gradient held NaN or Inf
    passed: Any  # per parameter: ||O||_F^2 of the last step, the number of directions passed


def _is_traced(value) -> bool:
    return isinstance(value, jax.Array)


def _static_keys(where: str, rule: str, keys: dict) -> dict:
    """Keys that were given; all but momentum decide the program, so they cannot be traced."""
    given = {name: plain(value) for name, value in keys.items() if value is not None}
    for name, value in given.items():
        if name != "momentum" and _is_traced(value):
            raise ValueError(
                f"{where}: {name} must be a Python value, got a JAX array; under "
                f'inject_hyperparams name it in static_args=("{name}",)'
            )
    if given.get("nonfinite") == "raise":
        raise ValueError(
            f'{where}: nonfinite must be "skip" or "zero", got "raise": a compiled step cannot '
            "raise; set jax_debug_nans to find the operation that made a NaN"
        )
    return {name: value for name, value in given.items() if not _is_traced(value)}


def _work_type(where: str, name: str, dtype):
    """The type that a step computes in."""
    if dtype == jnp.float64:
        return jnp.float64
    if dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        return jnp.float32
    raise ValueError(
        f"{where}: a parameter must be float32, float64, bfloat16 or float16, got {name} of {dtype}"
    )


class _Transform:
    """init and update of one matrix rule."""

    def __init__(
        self, where, rule, keys, dimension_numbers, mu_dtype, backend, decay=None, decay_mask=None
    ):
        self.where, self.dimension_numbers = where, dimension_numbers
        self.backend = checked_backend(where, backend)
        self.traced = keys.get("momentum") if _is_traced(keys.get("momentum")) else None
        if self.traced is not None and self.traced.ndim:
            raise ValueError(
                f"{where}: momentum must be a scalar, got shape {list(self.traced.shape)}"
            )
        if self.traced is not None:
            checked(where, rule, "momentum", self.traced)
        self.keys = _static_keys(where, rule, keys)
        self.rule = Rule(rule, self.keys, where)
        if not self.rule.is_matrix:
            raise ValueError(f'{where}: the rule must be one for matrices, got "{rule}"')
        defaults = {name: value for name, _, value in self.rule.key_table()}
        self.momentum = None if self.traced is not None else defaults["momentum"]
        self.nesterov = defaults["nesterov"]
        self.zero_nonfinite = defaults["nonfinite"] == "zero"
        self.decay, self.decay_mask = decay, decay_mask
        self.mu_dtype = None if mu_dtype is None else jnp.dtype(mu_dtype)
        if self.mu_dtype is not None and not jnp.issubdtype(self.mu_dtype, jnp.floating):
            raise ValueError(f"{where}: mu_dtype must be a floating type, got {self.mu_dtype}")

    def layouts(self, leaves, tree):
        known = numbers_by_path(self.where, self.dimension_numbers, tree)
        result = []
        for path, leaf in leaves:
            numbers = None if known is None else numbers_of(self.where, known, path)
            if known is not None and numbers is None:
                raise ValueError(
                    f"{self.where}: dimension numbers must be given for {name_of(path)}, got "
                    "None, which leaves it to another rule: multi_transform_with_muon"
                )
            result.append(layout_of(self.where, name_of(path), jnp.shape(leaf), numbers))
        return tuple(result)

    def init(self, params):
        leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        self.layouts(leaves, params)
        momenta = []
        for path, leaf in leaves:
            work = _work_type(self.where, name_of(path), jnp.result_type(leaf))
            momenta.append(jnp.zeros_like(leaf, dtype=self.mu_dtype or work))

        def each(make):
            return treedef.unflatten([make() for _ in leaves])

        return MatrixState(
            count=jnp.zeros([], jnp.int32),
            mu=treedef.unflatten(momenta),
            skipped=each(lambda: jnp.zeros([], jnp.int32)),
            passed=each(lambda: jnp.zeros([], jnp.float32)),
        )

    def update(self, updates, state, params=None):
        leaves, treedef = jax.tree_util.tree_flatten_with_path(updates)
        layouts = self.layouts(leaves, updates)
        momenta = self._momenta(leaves, treedef, state)
        gradients = [
            layout.to_matrices(_kernel_type(_gathered(g)))
            for layout, (_, g) in zip(layouts, leaves, strict=True)
        ]
        plan = Plan(
            self.rule, {k: v for k, v in self.keys.items() if k != "lr"}, layouts, self.momentum,
            self.nesterov, self.zero_nonfinite,
        )  # fmt: skip
        traced = None if self.traced is None else self.traced.astype(jnp.float32)
        stored = [
            layout.to_matrices(_gathered(m)) for layout, m in zip(layouts, momenta, strict=True)
        ]
        changes, moved, report = run(plan, gradients, stored, traced, self.backend)
        results = [
            _spread(-layout.from_matrices(change), g)
            for layout, change, (_, g) in zip(layouts, changes, leaves, strict=True)
        ]
        if self.decay is not None:
            results = self._decayed(results, report, params, treedef, self._active(layouts, leaves))
        results = [r.astype(g.dtype) for r, (_, g) in zip(results, leaves, strict=True)]
        old = treedef.flatten_up_to(state.mu)
        after = [
            _spread(layout.from_matrices(m), o).astype(o.dtype)
            for layout, m, o in zip(layouts, moved, old, strict=True)
        ]
        skipped = treedef.flatten_up_to(state.skipped)
        skips = report[:, 0].astype(jnp.int32)
        counted = [s + skips[i] for i, s in enumerate(skipped)]
        passed = [report[i, 1] for i in range(len(leaves))]
        new = (treedef.unflatten(x) for x in (after, counted, passed))
        return treedef.unflatten(results), MatrixState(optax.safe_increment(state.count), *new)

    def _momenta(self, leaves, treedef, state):
        """In the type that the step computes in."""
        try:
            stored = treedef.flatten_up_to(state.mu)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.where}: the gradients must have the structure of the parameters that "
                f"init saw: {error}"
            ) from None
        result = []
        for (path, g), m in zip(leaves, stored, strict=True):
            name = name_of(path)
            if jnp.shape(g) != m.shape:
                raise ValueError(
                    f"{self.where}: the gradient of {name} must have the shape that init saw, "
                    f"{list(m.shape)}, got {list(jnp.shape(g))}"
                )
            work = _work_type(self.where, name, jnp.result_type(g))
            if self.mu_dtype is None and work != m.dtype:
                raise ValueError(
                    f"{self.where}: the gradient of {name} must fit its momentum's type, "
                    f"{m.dtype}, got {jnp.result_type(g)}; cast it, or call init with parameters "
                    "of that type"
                )
            result.append(m.astype(work))
        return result

    def _active(self, layouts, leaves):
        """By parameter: None, or of a stack which of its matrices are stepped."""
        gradients = [
            jnp.where(jnp.isfinite(g), g, 0) if layout.batch and self.zero_nonfinite else g
            for layout, (_, g) in zip(layouts, leaves, strict=True)
        ]
        return [layout.active(g) for layout, g in zip(layouts, gradients, strict=True)]

    def _decayed(self, results, report, params, treedef, active):
        if params is None:
            raise ValueError(f"{self.where}: weight_decay needs params, got update(grads, state)")
        weights = treedef.flatten_up_to(params)
        mask = self.decay_mask(params) if is_function(self.decay_mask) else self.decay_mask
        if mask is None:
            chosen = [True] * len(weights)
        else:
            chosen = jax.tree.leaves(jax.tree.broadcast(mask, treedef.unflatten(weights)))
        return [
            r + self._decay_of(w, report[i, 0] > 0, active[i]).astype(r.dtype) if chosen[i] else r
            for i, (r, w) in enumerate(zip(results, weights, strict=True))
        ]

    def _decay_of(self, weight, skipped, active):
        """Zero for a skipped parameter, and for a matrix of a stack that is left alone."""
        decay = jnp.where(skipped, 0, self.decay * weight)
        return decay if active is None else jnp.where(active, decay, 0)


# Axes that a mesh shards explicitly are gathered by hand: a map needs whole matrices. Where the
# compiler shards (AxisType.Auto) it does the same.
def _gathered(x):
    return jax.sharding.reshard(x, jax.P()) if any(_explicit(x)) else x


def _spread(x, like):
    return jax.sharding.reshard(x, jax.P(*_explicit(like))) if any(_explicit(like)) else x


def _explicit(x):
    return jax.typeof(x).sharding.spec


def _kernel_type(gradient):
    return gradient.astype(jnp.float32) if gradient.dtype == jnp.float16 else gradient


def scale_by_rule(
    rule: str, *, momentum=None, nesterov=None, cutoff=None, edge_factor=None,
    promotion_steps=None, coefficients=None, rank=None, steps=None, normalization=None, scale=None,
    scale_factor=None, precision=None, nonfinite=None, lr=None, weight_decay=None,
    dimension_numbers=None, mu_dtype=None, backend: str = "auto",
) -> optax.GradientTransformation:  # fmt: skip
    """The step of a matrix rule at learning rate 1, before its sign: s O.

    rule               "pion", "muon", "low_rank_muon" or "low_pass_muon"
    dimension_numbers  which axes are the matrix: DimensionNumbers, or optax's
                       MuonDimensionNumbers, for all; a tree or a prefix of them; or a callable
                       that makes one from the parameters. By default two dimensions are
                       (in, out), four under a name with "conv" (height, width, in,
                       out)
    mu_dtype           what momenta are stored in; f32 (f64 for f64 parameters) by default
    backend            "kernels", the C++ kernels on the CPU; "jnp", jax.numpy; "auto", kernels
                       where the program runs on a CPU and jax.numpy elsewhere
    The others are keys of the rule, as in pion.Pion and pion.Muon; lr and weight_decay, which are
    no part of a direction, are refused.
    """
    keys = {**_keys(locals()), "weight_decay": weight_decay}
    del keys["rule"]
    return _transform(f"scale_by_{rule}", rule, keys, dimension_numbers, mu_dtype, backend)


def _transform(where, rule, keys, dimension_numbers, mu_dtype, backend, decay=None, mask=None):
    for name in ("lr", "weight_decay"):
        if keys.get(name) is not None:
            raise ValueError(
                f"{where}: {name} is not part of the direction, got {keys[name]!r}; chain "
                "optax.scale_by_learning_rate or take pion() or muon()"
            )
    made = _Transform(
        f"pion.jax.{where}", rule, keys, dimension_numbers, mu_dtype, backend, decay, mask
    )
    return optax.GradientTransformation(made.init, made.update)


def scale_by_pion(
    *, momentum=None, nesterov=None, cutoff=None, edge_factor=None, promotion_steps=None,
    steps=None, normalization=None, scale=None, scale_factor=None, precision=None, nonfinite=None,
    dimension_numbers=None, mu_dtype=None, backend: str = "auto",
) -> optax.GradientTransformation:  # fmt: skip
    """Pion's direction times its scale, s O: see scale_by_rule and help(pion.Pion)."""
    keys = _keys(locals())
    return _transform("scale_by_pion", "pion", keys, dimension_numbers, mu_dtype, backend)


def scale_by_muon(
    *, momentum=None, nesterov=None, coefficients=None, steps=None, normalization=None,
    scale=None, scale_factor=None, precision=None, nonfinite=None, dimension_numbers=None,
    mu_dtype=None, backend: str = "auto",
) -> optax.GradientTransformation:  # fmt: skip
    """Muon's direction times its scale, s O: see scale_by_rule and help(pion.Muon)."""
    keys = _keys(locals())
    return _transform("scale_by_muon", "muon", keys, dimension_numbers, mu_dtype, backend)


def pion(
    learning_rate, *, momentum=None, nesterov=None, weight_decay=0.0, weight_decay_mask=None,
    cutoff=None, edge_factor=None, promotion_steps=None, steps=None, normalization=None,
    scale=None, scale_factor=None, precision=None, nonfinite=None, dimension_numbers=None,
    mu_dtype=None, backend: str = "auto",
) -> optax.GradientTransformation:  # fmt: skip
    """Pion for a tree of matrices: a high-pass filter on the singular values of the momentum.

    learning_rate is a number, a schedule, a JAX scalar or None, the default; momentum and
    weight_decay may be JAX scalars too, as inject_hyperparams makes them. weight_decay is decoupled
    and multiplied by the learning rate, not by the scale. Other arguments: scale_by_rule,
    help(pion.Pion). Parameters that are no matrices belong to another rule:
    multi_transform_with_muon(rule="pion").
    """
    keys = _keys(locals())
    numbers = (dimension_numbers, mu_dtype, backend)
    return _stepping("pion", keys, numbers, learning_rate, weight_decay, weight_decay_mask)


def muon(
    learning_rate, *, momentum=None, nesterov=None, weight_decay=0.0, weight_decay_mask=None,
    coefficients=None, steps=None, normalization=None, scale=None, scale_factor=None,
    precision=None, nonfinite=None, dimension_numbers=None, mu_dtype=None, backend: str = "auto",
) -> optax.GradientTransformation:  # fmt: skip
    """Muon for a tree of matrices. `coefficients` names its sequence: "classic" (the default),
    "quintic", "polar_express", "cans", or "cubic", the textbook iteration
    X <- 3/2 X - 1/2 X X^T X. Other arguments as in pion()."""
    keys = _keys(locals())
    numbers = (dimension_numbers, mu_dtype, backend)
    return _stepping("muon", keys, numbers, learning_rate, weight_decay, weight_decay_mask)


def or_default(value, rule: str, key: str):
    """The value; the library's default of that rule for None."""
    if value is not None:
        return value
    return next(default for name, _, default in Rule(rule).key_table() if name == key)


def _keys(arguments: dict) -> dict:
    """The arguments that are keys of the rule."""
    other = (
        "learning_rate", "weight_decay", "weight_decay_mask", "dimension_numbers", "mu_dtype",
        "backend",
    )  # fmt: skip
    return {k: v for k, v in arguments.items() if k not in other}


def _stepping(rule, keys, numbers, learning_rate, weight_decay, mask):
    where = f"pion.jax.{rule}"
    learning_rate = checked(where, rule, "lr", or_default(learning_rate, rule, "lr"))
    weight_decay = or_default(weight_decay, rule, "weight_decay")
    weight_decay = checked(where, rule, "weight_decay", weight_decay)
    return optax.chain(
        _transform(
            rule, rule, keys, *numbers, None if is_zero(weight_decay) else weight_decay, mask
        ),
        keeping_types(optax.scale_by_learning_rate(learning_rate)),
    )
