# SPDX-License-Identifier: Apache-2.0
"""What is counted and measured: pion's optimizers and others' on the matrices of a case. All start
from the same weights; others step heads as parameters of their own, which is the same map."""

import importlib
from typing import NamedTuple

import torch

import pion
from pion.bench_gpu.shapes import Case


class Contender(NamedTuple):
    """An optimizer: made of a case on a device; `package` must be importable."""

    name: str
    make: object  # (case, device, dtype) -> optimizer
    package: str = "torch"


def blocks(case: Case, device, dtype) -> list:
    """The matrices, heads apart."""
    result = []
    for m in case.matrices:
        rows, cols = m.rows, m.cols
        if m.head_axis == 0:
            rows //= m.heads
        else:
            cols //= m.heads
        result += [_parameter((rows, cols), device, dtype) for _ in range(m.count * m.heads)]
    return result


def groups(case: Case, device, dtype) -> list[dict]:
    """The matrices as groups of pion, which cut the heads themselves."""
    return [
        {
            "params": [_parameter((m.rows, m.cols), device, dtype) for _ in range(m.count)],
            "heads": m.heads,
            "head_axis": m.head_axis,
        }
        for m in case.matrices
    ]


def _parameter(shape, device, dtype):
    parameter = torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype).normal_())
    parameter.grad = torch.empty_like(parameter).normal_()
    return parameter


def _ours(rule: str, **keys):
    def make(case: Case, device, dtype):
        own = [group | {"rule": rule} for group in groups(case, device, dtype)]
        return pion.PionAdamW(own, lr=1e-3, **keys)

    return make


def _torch_muon(case: Case, device, dtype):
    return torch.optim.Muon(blocks(case, device, dtype), lr=1e-3)


def _elementwise(optimizer, **keys):
    def make(case: Case, device, dtype):
        return optimizer([{"params": blocks(case, device, dtype)} | keys], lr=1e-3)

    return make


def _other(module: str, name: str, **keys):
    """An optimizer of a package that may be here or not."""

    def make(case: Case, device, dtype):
        made = getattr(importlib.import_module(module), name)
        return made(blocks(case, device, dtype), lr=1e-3, **keys)

    return make


MAIN = (Contender("pion Muon", _ours("muon")), Contender("pion Pion", _ours("pion")))
MATRIX = (
    *MAIN,
    Contender("pion Polar Express", _ours("muon", coefficients="polar_express")),
    Contender("pion Muon, accurate", _ours("muon", precision="accurate")),
    Contender("pion Muon, f32", _ours("muon", precision="f32")),
)
PEER = Contender("torch.optim.Muon", _torch_muon)
ELEMENTWISE = (
    (
        Contender("pion AdamW", _elementwise(pion.PionAdamW, rule="adamw")),
        Contender("torch.optim.AdamW(fused)", _elementwise(torch.optim.AdamW, fused=True)),
    ),
    (
        Contender("pion SGD, momentum", _elementwise(pion.PionAdamW, rule="sgd", momentum=0.9)),
        Contender(
            "torch.optim.SGD(fused), momentum",
            _elementwise(torch.optim.SGD, momentum=0.9, fused=True),
        ),
    ),
)
# measured where their packages are; names and arguments as of August 2026
OTHERS = (
    Contender("dion Muon, Triton", _other("dion", "Muon", use_triton=True), "dion"),
    Contender(
        "Emerging-Optimizers Muon, syrk",
        _other("emerging_optimizers.orthogonalized_optimizers", "Muon", use_syrk=True),
        "emerging_optimizers",
    ),
    Contender("Dao-AILab Gram Muon", _other("gram_newton_schulz", "Muon"), "gram_newton_schulz"),
)
