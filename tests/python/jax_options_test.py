# SPDX-License-Identifier: Apache-2.0
"""Arguments of pion.jax: None is the default, and optax's wrappers see every name."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp
import pion.jax as pj
from pion._pion import Rule

PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
GRADIENTS = {"w": jnp.arange(12.0).reshape(4, 3) - 5, "b": jnp.array([1.0, -2.0, 3.0])}


def update(made, only=None):
    gradients, params = GRADIENTS, PARAMS
    if only:
        gradients, params = {only: gradients[only]}, {only: params[only]}
    return made.update(gradients, made.init(params), params)[0]


def agree(one, other, tolerance=1e-6):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=1e-7)


def default(rule):
    return {name: value for name, _, value in Rule(rule).key_table()}["lr"]


@pytest.mark.parametrize("rule", ["muon", "pion"])
def test_no_rate_is_the_librarys(rule):
    make = getattr(pj, rule)
    agree(update(make(None), "w"), update(make(default(rule)), "w"))
    agree(update(make(None, weight_decay=None), "w"), update(make(default(rule)), "w"))


def test_no_rates_of_a_model_are_the_librarys():
    rates = (default("muon"), default("adamw"))
    agree(
        update(pj.multi_transform_with_muon(None, None, b1=None, eps=None)),
        update(pj.multi_transform_with_muon(*rates)),
    )


@pytest.mark.parametrize(
    ("make", "rates"),
    [
        (pj.multi_transform_with_muon, {"muon_lr": 0.1, "aux_lr": 0.2}),
        (pj.chain_with_muon, {"muon_lr": 0.1, "aux_lr": 0.2, "max_grad_norm": 1.0}),
    ],
)
def test_hyperparameters_can_be_injected(make, rates):
    # f32: a traced clip rounds otherwise, which a bf16 rounding may make 2^-9 of an entry
    injected = optax.inject_hyperparams(make)(**rates, precision="f32")
    agree(update(injected), update(make(**rates, precision="f32")), 1e-4)
    assert injected.init(PARAMS).hyperparams["muon_lr"] == jnp.float32(0.1)


def test_hyperparameters_of_a_direction_can_be_injected():
    injected = optax.inject_hyperparams(pj.scale_by_rule)("muon", momentum=0.5)
    agree(update(injected, "w"), update(pj.scale_by_rule("muon", momentum=0.5), "w"))


def test_numpys_switches_are_switches():
    agree(update(pj.muon(0.1, nesterov=np.False_), "w"), update(pj.muon(0.1, nesterov=False), "w"))


def test_keys_of_another_rule_are_refused():
    with pytest.raises(TypeError, match="cutoff"):
        pj.multi_transform_with_muon(0.1, 0.1, cutoff=0.1)
