# SPDX-License-Identifier: Apache-2.0
"""Matrices of known models and the batches that are counted and measured."""

from typing import NamedTuple


class Model(NamedTuple):
    """Sizes of a public config.json, by its own names."""

    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocab_size: int
    source: str


MODELS = {
    "SmolLM2-135M": Model(30, 576, 1536, 9, 3, 64, 49152, "HuggingFaceTB/SmolLM2-135M"),
    "Qwen3-0.6B": Model(28, 1024, 3072, 16, 8, 128, 151936, "Qwen/Qwen3-0.6B"),
    "Qwen3-4B": Model(36, 2560, 9728, 32, 8, 128, 151936, "Qwen/Qwen3-4B"),
}


class Matrices(NamedTuple):
    """So many matrices of one shape, which a layout cuts into heads along an axis."""

    count: int
    rows: int
    cols: int
    heads: int = 1
    head_axis: int = 0  # 0: rows, as of Q, K and V; 1: columns, as of the output projection


class Case(NamedTuple):
    """What is stepped together: matrices under a matrix rule, and what is asked of it."""

    name: str
    matrices: tuple
    least: float = 1.0  # torch.optim.Muon's modelled time over ours, without Triton
    least_symmetric: float = 1.0  # with its symmetric products

    def weights(self) -> int:
        return sum(m.count * m.rows * m.cols for m in self.matrices)


def layer(model: Model, per_head: bool, layers: int) -> tuple:
    """The matrices of so many layers: Q, K, V, O, gate, up, down."""
    m = model
    queries, keys = m.heads * m.head_dim, m.key_value_heads * m.head_dim
    heads, fewer = (m.heads, m.key_value_heads) if per_head else (1, 1)
    return (
        Matrices(layers, queries, m.hidden_size, heads),
        Matrices(2 * layers, keys, m.hidden_size, fewer),
        Matrices(layers, m.hidden_size, queries, heads, 1),
        Matrices(2 * layers, m.intermediate_size, m.hidden_size),
        Matrices(layers, m.hidden_size, m.intermediate_size),
    )


# the ratios that a step without f32 products and with batched blocks should reach
SHAPES = (
    Case("square, 1024 x 1024", (Matrices(4, 1024, 1024),), 1.0, 1.4),
    Case("1 : 4, 1024 x 4096", (Matrices(4, 1024, 4096),), 1.5, 2.4),
    Case("large square, 4096 x 4096", (Matrices(1, 4096, 4096),), 1.0, 1.4),
    Case("large 1 : 4, 4096 x 16384", (Matrices(1, 4096, 16384),), 1.5, 2.4),
    Case("heads, 16 of 128 x 2048", (Matrices(1, 2048, 2048, 16),), 2.0, 3.0),
    Case("many, 256 of 64 x 64", (Matrices(256, 64, 64),), 2.0, 2.0),
)


def cases(layers: int | None = None) -> list[Case]:
    """All that is counted; `layers` limits how many of every model."""
    result = list(SHAPES)
    for name, model in MODELS.items():
        count = min(layers or model.layers, model.layers)
        for per_head in (False, True):
            how = "per head" if per_head else "whole"
            result.append(Case(f"{name}, {count} layers, {how}", layer(model, per_head, count)))
    return result
