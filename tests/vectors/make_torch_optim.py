# SPDX-License-Identifier: Apache-2.0
"""Trajectories of torch.optim.AdamW, SGD and Muon, for pion/torch/torch_judges_test.cc.

Run: .venv/bin/python tests/vectors/make_torch_optim.py   (writes torch_optim.json beside it)

Weights and gradients are multiples of 2^-15 from an integer recurrence, so that the test makes
the same ones bit for bit without storing them; only the weights after every step are stored.
"""

import json
import pathlib

import torch

STEPS = 20


def numbers(count: int, seed: int) -> torch.Tensor:
    """`count` multiples of 2^-15 in [-1, 1)."""
    state, values = (seed * 2654435761 + 12345) % 2**32, []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append(((state >> 16) - 32768) / 32768)
    return torch.tensor(values, dtype=torch.float32)


def trajectory(rule: str, shape: list[int], keys: dict) -> dict:
    weight = torch.nn.Parameter(numbers(torch.Size(shape).numel(), 1).reshape(shape))
    keys = dict(keys)
    decoupled = keys.pop("decoupled_weight_decay", 0.0)
    optimizer = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "muon": torch.optim.Muon}[
        rule
    ]([weight], **keys)
    weights = []
    for step in range(STEPS):
        if decoupled:  # torch's SGD adds its weight decay to the gradient instead
            weight.data.mul_(1 - keys["lr"] * decoupled)
        weight.grad = numbers(weight.numel(), 100 + step).reshape(shape)
        optimizer.step()
        weights.append([float(f"{value:.9g}") for value in weight.detach().flatten().tolist()])
    if decoupled:
        keys["decoupled_weight_decay"] = decoupled
    return {"rule": rule, "shape": shape, "keys": keys, "weights": weights}


def cases():
    for shape in ([16, 8], [7], [4, 3, 2, 2]):
        for keys in (
            {"lr": 1e-2, "weight_decay": 0.0},
            {"lr": 1e-2, "weight_decay": 0.1},
            {"lr": 3e-3, "weight_decay": 0.01, "betas": [0.8, 0.95], "eps": 1e-10},
            {"lr": 1e-2, "weight_decay": 0.1, "maximize": True},
        ):
            yield "adamw", shape, keys
        for keys in (
            {"lr": 1e-2, "momentum": 0.0},
            {"lr": 1e-2, "momentum": 0.9},
            {"lr": 1e-2, "momentum": 0.9, "nesterov": True, "decoupled_weight_decay": 0.1},
            {"lr": 1e-2, "momentum": 0.9, "dampening": 0.1, "maximize": True},
        ):
            yield "sgd", shape, keys
    for shape in ([12, 8], [8, 12], [16, 16]):
        for adjust in ("original", "match_rms_adamw"):
            for nesterov in (True, False):
                yield (
                    "muon",
                    shape,
                    {
                        "lr": 0.05,
                        "weight_decay": 0.1,
                        "momentum": 0.95,
                        "nesterov": nesterov,
                        "adjust_lr_fn": adjust,
                    },
                )


def main():
    document = {
        "torch": torch.__version__,
        "cases": [trajectory(rule, shape, keys) for rule, shape, keys in cases()],
    }
    path = pathlib.Path(__file__).with_name("torch_optim.json")
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(f"{path.name}: {len(document['cases'])} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
