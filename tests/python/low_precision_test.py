# SPDX-License-Identifier: Apache-2.0
"""bf16 weights and gradients."""

import pytest
import torch
from judges import gaussian, parameter, run

import pion


@pytest.mark.parametrize("mode", ["master", "stochastic", "nearest"])
def test_bfloat16_weights(mode, path):
    # steps of about 0.2 * 2^-10 on weights of 1: a quarter of half a unit (2^-8), so plain
    # rounding loses all of them and the other two none on average
    weight = torch.nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
    optimizer = pion.Muon([weight], lr=2.0**-10, low_precision=mode, scale="unit_rms", seed=3)
    gradient = gaussian((64, 64), 1).bfloat16()
    for _ in range(16):
        weight.grad = gradient
        optimizer.step()
    moved = -(weight.detach().double() - 1) * gradient.sign().double()
    if mode == "nearest":
        assert (weight == 1).double().mean() > 0.9
    else:
        # 16 steps of RMS 2^-10 in one direction: about 2^-6 * E|x| = 0.8 * 2^-6
        assert moved.mean() > 0.25 * 2.0**-6
    assert ("master" in optimizer.state[weight]) == (mode == "master")


def test_stochastic_rounding_has_the_same_bits_on_both_paths():
    results = []
    for forced in (False, True):
        weight = parameter((33, 21), 1, torch.bfloat16)
        group = {"params": [weight], "rule": "sgd", "low_precision": "stochastic", "momentum": 0.0}
        optimizer = pion.PionAdamW([group], lr=2.0**-6, seed=11)
        if forced:
            with pion.force_torch_path():
                results += run(optimizer, [weight], 3)
        else:
            results += run(optimizer, [weight], 3)
    assert torch.equal(*results)


def test_a_master_copy_follows_foreign_writes(path):
    weight = parameter((8, 8), 1, torch.bfloat16)
    optimizer = pion.Muon([weight], lr=0.01)
    run(optimizer, [weight], 1)
    with torch.no_grad():
        weight.fill_(3.0)
    run(optimizer, [weight], 1, first=1)
    assert (weight.float() - 3).abs().max() < 0.1


def test_an_f32_weight_takes_a_bfloat16_gradient(path):
    a, b = parameter((9, 7)), parameter((9, 7))
    gradient = gaussian((9, 7), 3).bfloat16()
    a.grad, b.grad = gradient.float(), None
    b.grad_dtype = None
    b.grad = gradient
    for p in (a, b):
        pion.Muon([p], lr=0.1).step()
    assert torch.equal(a, b)
