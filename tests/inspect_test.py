# SPDX-License-Identifier: Apache-2.0
"""`pion inspect` on models of many tensors and of many types."""

import json
import os

import numpy
import pytest
import safetensors.numpy
from cli_command import needs_binary, pion

pytestmark = needs_binary


def test_inspect_names_what_no_optimizer_steps(tmp_path):
    torch = pytest.importorskip("torch")
    import safetensors.torch

    weight = torch.ones(8, 8)
    narrow = {
        "points": torch.ones(8, dtype=torch.uint8),
        "packed": torch.ones(8, 4, dtype=torch.int8),
        "bits": torch.ones(8, 2, dtype=torch.uint32),
        "index": torch.ones(8, dtype=torch.int64),
        "mask": torch.ones(3, dtype=torch.bool),
        "e4m3": weight.to(torch.float8_e4m3fn),
        "e5m2": weight.to(torch.float8_e5m2),
    }
    names = ["U8", "I8", "U32", "I64", "BOOL", "F8_E4M3", "F8_E5M2"]
    mlp = "model.layers.0.mlp.up_proj.weight"
    safetensors.torch.save_file({mlp: weight, **narrow}, tmp_path / "narrow.safetensors")
    text = pion("inspect", "narrow.safetensors", "--spectra", cwd=tmp_path, check=0).stdout
    routed, rest = text.split("Left out, since no optimizer steps numbers of these types:\n")
    assert mlp in routed
    listed = {line.split()[0]: line.split() for line in rest.split("\n\n")[0].splitlines()}
    for (name, tensor), tag in zip(narrow.items(), names, strict=True):
        assert name not in routed
        assert " ".join(listed[name][1:]) == f"{list(tensor.shape)} {tag}"


# Four times as many tensors may take four times as long, and noise; in quadratic time 24,000
# took 11 s, 16 times as long as 6,000.
def test_inspect_takes_time_in_proportion_to_tensors(tmp_path):
    def seconds(layers):
        square = ("mlp.up_proj.weight", "self_attn.q_proj.weight")
        parts = {**dict.fromkeys(square, (2, 2)), "norm.weight": (2,)}
        tensors = {
            f"model.layers.{i}.{name}": numpy.ones(shape, numpy.float32)
            for i in range(layers)
            for name, shape in parts.items()
        }
        safetensors.numpy.save_file(tensors, tmp_path / f"many{layers}.safetensors")
        index = {"weight_map": dict.fromkeys(tensors, f"many{layers}.safetensors")}
        (tmp_path / f"many{layers}.json").write_text(json.dumps(index))
        times = []
        for _ in range(3):
            before = os.times()
            pion("inspect", f"many{layers}.json", cwd=tmp_path, check=0)
            after = os.times()
            times.append(after.children_user - before.children_user)
        return min(times)

    empty = seconds(1)
    assert seconds(8000) - empty <= 10 * (seconds(2000) - empty) + 1.5
