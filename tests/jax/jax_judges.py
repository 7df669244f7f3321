# SPDX-License-Identifier: Apache-2.0
"""What the tests of pion.jax share: inputs, and the rules by their definition in double."""

import json
import math
import pathlib

import numpy

VECTORS = pathlib.Path(__file__).resolve().parent.parent / "vectors"
UNIT = 2.0**-24  # rounding of f32
CLASSIC = [(3.4445, -4.7750, 2.0315)] * 5
UP, DOWN = (1.875, -1.25, 0.375), (0.0, 2.5, -1.5)


def table() -> dict:
    return json.loads((VECTORS / "spectral_maps.json").read_text())


def rule_of(case: dict) -> tuple[str, dict]:
    """The rule and keys that ask for a case of the table."""
    name, steps = case["map"], len(case["coefficients"])
    if name.startswith("pion_kp"):
        return "pion", {"promotion_steps": int(name[7:]), "steps": steps}
    if name.startswith("cutoff_"):
        return "pion", {"cutoff": float(name.split("_")[1]), "steps": steps}
    sequence = {"muon": "classic", "muon_you": "quintic", "muon_cubic": "cubic"}[name]
    return "muon", {"coefficients": sequence, "steps": steps}


def gaussian(shape, seed: int, dtype=numpy.float32) -> numpy.ndarray:
    return numpy.random.default_rng(seed).standard_normal(shape).astype(dtype)


def exact_map(x: numpy.ndarray, coefficients) -> numpy.ndarray:
    """U f(S / ||X||_F) V^T of the last two axes, in double."""
    u, s, vt = numpy.linalg.svd(x.astype(numpy.float64), full_matrices=False)
    norm = numpy.sqrt((s * s).sum(-1, keepdims=True))
    s = s / numpy.where(norm > 0, norm, 1)
    for a, b, c in coefficients:
        s = a * s + b * s**3 + c * s**5
    return (u * s[..., None, :]) @ vt


def exact_muon(weight, gradients, *, lr, momentum, nesterov, weight_decay=0.0, scale="original"):
    """Weights of (..., in, out) after every step, by the definition, in double."""
    weight, mu = weight.astype(numpy.float64), numpy.zeros(weight.shape)
    fan_in, fan_out = weight.shape[-2:]
    s = {
        "original": math.sqrt(max(1, fan_out / fan_in)),
        "match_rms_adamw": 0.2 * math.sqrt(max(fan_in, fan_out)),
        "spectral": math.sqrt(fan_out / fan_in),
    }[scale]
    for g in gradients:
        mu = momentum * mu + (1 - momentum) * g
        d = momentum * mu + (1 - momentum) * g if nesterov else mu
        weight = (1 - lr * weight_decay) * weight - lr * s * exact_map(d, CLASSIC)
        yield weight
