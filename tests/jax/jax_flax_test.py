# SPDX-License-Identifier: Apache-2.0
"""pion.jax under flax, both of its module systems."""

import jax
import jax.numpy as jnp
import optax
import pion.jax as pj
import pytest
from jax_judges import gaussian


def test_flax_linen(backend):
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (3, 3))(x).reshape(x.shape[0], -1)
            x = nn.relu(nn.Dense(16)(x))
            return nn.Dense(4)(x)

    net, x = Net(), jnp.asarray(gaussian((5, 4, 4, 3), 1))
    y = jnp.asarray(gaussian((5, 4), 2))
    params = net.init(jax.random.key(0), x)

    def error(p):
        return jnp.mean((net.apply(p, x) - y) ** 2)

    optimizer = pj.chain_with_muon(0.02, 1e-2, 1.0, backend=backend)
    state = optimizer.init(params)
    before = error(params)
    step = jax.jit(lambda p, s: optimizer.update(jax.grad(error)(p), s, p))
    for _ in range(25):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
    assert error(params) < 0.2 * before


def test_flax_nnx(backend):
    nnx = pytest.importorskip("flax.nnx")
    net = nnx.Linear(6, 9, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(
        net, pj.multi_transform_with_muon(0.1, 1e-2, backend=backend), wrt=nnx.Param
    )
    x = jnp.asarray(gaussian((5, 6), 1))

    @nnx.jit
    def step(net, optimizer):
        value, grads = nnx.value_and_grad(lambda n: jnp.mean((n(x) - 1) ** 2))(net)
        optimizer.update(net, grads)
        return value

    values = [float(step(net, optimizer)) for _ in range(20)]
    assert values[-1] < 0.5 * values[0]
