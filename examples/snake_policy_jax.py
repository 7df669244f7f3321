# SPDX-License-Identifier: Apache-2.0
"""The network of lab/models/transformer_policy.h in JAX: a dict of arrays and two functions."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Network(NamedTuple):
    height: int
    width: int
    planes: int
    patch: int = 2  # side of a patch in cells
    d_model: int = 64
    num_layers: int = 1
    num_heads: int = 4
    mlp_ratio: float = 2.0
    actions: int = 4

    @property
    def tokens(self) -> int:
        return (self.height // self.patch) * (self.width // self.patch)


def checked(net: Network) -> Network:
    if net.d_model % net.num_heads:
        raise ValueError(
            f"snake: num_heads must divide d_model = {net.d_model}, got {net.num_heads}"
        )
    if net.height % net.patch or net.width % net.patch:
        raise ValueError(
            f"snake: patch must divide the board, {net.height} x {net.width}, got {net.patch}"
        )
    return net


def init(net: Network, key: jax.Array) -> dict:
    """Kernels are (in, out). Gains as in C++, which says why."""
    keys = iter(jax.random.split(key, 5 + 6 * net.num_layers))
    d, hidden = net.d_model, round(net.mlp_ratio * net.d_model)

    def linear(fan_in, fan_out, gain, bias=True):
        kernel = jax.nn.initializers.orthogonal(gain)(next(keys), (fan_in, fan_out))
        return {"kernel": kernel, "bias": jnp.zeros(fan_out)} if bias else {"kernel": kernel}

    def norm():
        return {"scale": jnp.ones(d), "bias": jnp.zeros(d)}

    residual = 1 / math.sqrt(2 * net.num_layers)
    params = {
        "patch_projection": linear(net.patch**2 * net.planes, d, math.sqrt(2)),
        "position": 0.1 * jax.random.normal(next(keys), (1 + net.tokens, d)),
        "final_norm": norm(),
        "policy_head": linear(d, net.actions, 0.01),
        "value_head": linear(d, 1, 1.0),
    }
    for i in range(net.num_layers):
        params[f"layer{i}"] = {
            "attention_norm": norm(),
            "q_proj": linear(d, d, 1.0, False),
            "k_proj": linear(d, d, 1.0, False),
            "v_proj": linear(d, d, 1.0, False),
            "o_proj": linear(d, d, residual, False),
            "mlp_norm": norm(),
            "up_proj": linear(d, hidden, math.sqrt(2)),
            "down_proj": linear(hidden, d, residual),
        }
    return params


def _linear(layer, x):
    return x @ layer["kernel"] + layer.get("bias", 0)


def _norm(layer, x):
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return x * layer["scale"] + layer["bias"]


def _attention(net, layer, x, queries):
    def split(y):
        return y.reshape(*y.shape[:2], net.num_heads, net.d_model // net.num_heads)

    q = split(_linear(layer["q_proj"], x[:, :queries]))
    k, v = split(_linear(layer["k_proj"], x)), split(_linear(layer["v_proj"], x))
    read = jax.nn.dot_product_attention(q, k, v)
    return _linear(layer["o_proj"], read.reshape(*read.shape[:2], net.d_model))


def forward(net: Network, params: dict, observations: jax.Array):
    """(logits, value) of (batch, cells, planes)."""
    batch, p = observations.shape[0], net.patch
    rows, cols = net.height // p, net.width // p
    patches = observations.reshape(batch, rows, p, cols, p, net.planes)
    patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, net.tokens, -1)
    tokens = _linear(params["patch_projection"], patches) + params["position"][1:]
    readout = jnp.broadcast_to(params["position"][0], (batch, 1, net.d_model))
    x = jnp.concatenate((readout, tokens), 1)
    for i in range(net.num_layers):
        layer = params[f"layer{i}"]
        # of the last layer only the token that reads out
        queries = x.shape[1] if i + 1 < net.num_layers else 1
        y = x[:, :queries] + _attention(net, layer, _norm(layer["attention_norm"], x), queries)
        hidden = jax.nn.gelu(_linear(layer["up_proj"], _norm(layer["mlp_norm"], y)))
        x = y + _linear(layer["down_proj"], hidden)
    x = _norm(params["final_norm"], x[:, 0])
    return _linear(params["policy_head"], x), _linear(params["value_head"], x)[:, 0]
