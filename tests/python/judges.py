# SPDX-License-Identifier: Apache-2.0
"""What the Python tests share: numbers without a generator, trajectories, definitions in double."""

import itertools
import json
import math
import pathlib

import torch

VECTORS = pathlib.Path(__file__).resolve().parent.parent / "vectors"
UNIT = 2.0**-24  # rounding of f32
CLASSIC = (3.4445, -4.7750, 2.0315)


def numbers(shape, seed: int) -> torch.Tensor:
    """Multiples of 2^-15 in [-1, 1); as in tests/vectors/make_torch_optim.py."""
    state, values = (seed * 2654435761 + 12345) % 2**32, []
    for _ in range(math.prod(shape)):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append(((state >> 16) - 32768) / 32768)
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


def gaussian(shape, seed: int, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def parameter(shape, seed: int = 1, dtype=torch.float32) -> torch.nn.Parameter:
    return torch.nn.Parameter(gaussian(shape, seed, dtype))


def cases(rule: str) -> list[dict]:
    document = json.loads((VECTORS / "torch_optim.json").read_text())
    return [case for case in document["cases"] if case["rule"] == rule]


def run(optimizer, parameters, steps: int, first: int = 0):
    """Steps on gradients that depend on the step and the parameter's index alone."""
    for step in range(first, first + steps):
        for index, p in enumerate(parameters):
            p.grad = gaussian(p.shape, 1000 * step + index).to(p.dtype).to(p.device)
        optimizer.step()
    return [p.detach().clone() for p in parameters]


def exact_map(x: torch.Tensor, function) -> torch.Tensor:
    """U f(S / ||X||_F) V^T in double."""
    u, s, vt = torch.linalg.svd(x.double(), full_matrices=False)
    norm = torch.linalg.matrix_norm(x.double())
    return u @ torch.diag(function(s / norm if norm > 0 else s)) @ vt


def composed(coefficients):
    def function(s):
        for a, b, c in coefficients:
            s = a * s + b * s**3 + c * s**5
        return s

    return function


def state_of(optimizer, parameters):
    return [{k: v.clone() for k, v in optimizer.state[p].items()} for p in parameters]


def mlp(widths=(8, 16, 16, 4), seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])
