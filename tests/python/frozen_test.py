# SPDX-License-Identifier: Apache-2.0
"""Parameters that are frozen when the model is routed."""

import pytest
import torch
from judges import mlp, run
from small_models import Language, names_of
from torch import nn

import pion


def test_a_parameter_that_is_unfrozen_later_is_stepped():
    """As torch.optim does: what has a gradient takes a step."""
    model, twin = Language(), Language()
    twin.load_state_dict(model.state_dict())
    frozen = [p for n, p in model.named_parameters() if "layers.0" in n or "embed" in n]
    for p in frozen:
        p.requires_grad_(False)
    routing = pion.route(model)
    optimizer = pion.PionAdamW(routing, lr=1e-2)
    optimizer.init_state()
    assert not any(p in optimizer.state for p in frozen)
    count = sum(p.numel() for p in frozen)
    assert f"frozen: {len(frozen)} parameters, {count} numbers" in str(routing)
    for p in frozen:
        p.requires_grad_(True)
    other = pion.PionAdamW(pion.route(twin), lr=1e-2)
    run(optimizer, list(model.parameters()), 2), run(other, list(twin.parameters()), 2)
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_frozen_parameters_of_other_types_are_left_out():
    model = Language()
    model.layers[0].half()
    for p in model.layers[0].parameters():
        p.requires_grad_(False)
    model.layers[1].up_proj.weight = nn.Parameter(
        torch.zeros(64, 32, dtype=torch.uint8), requires_grad=False
    )
    optimizer = pion.PionAdamW(pion.route(model), lr=1e-3)
    left_out = {n for n, p in model.named_parameters() if p.dtype != torch.float32}
    assert set(names_of(optimizer)) == {n for n, _ in model.named_parameters()} - left_out


def test_a_state_without_frozen_parameters_is_matched_by_names():
    """As states were saved where frozen parameters were left out of the groups."""
    model = Language()
    for n, p in model.named_parameters():
        p.requires_grad_("layers.1" in n)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    groups = pion.route(model).to_param_groups()
    without = [{**g, "params": [(n, p) for n, p in g["params"] if n in trained]} for g in groups]
    old = pion.PionAdamW([g for g in without if g["params"]], lr=0.5)
    run(old, list(trained.values()), 1)
    saved = old.state_dict()
    new = pion.PionAdamW(pion.route(model), lr=1e-3)
    new.load_state_dict(saved)
    assert {group["lr"] for group in new.param_groups} == {0.5}
    for p in trained.values():
        kept, own = old.state[p], new.state[p]
        assert kept.keys() == own.keys()
        assert all(torch.equal(kept[key], own[key]) for key in kept)
    assert len(new.state) == len(trained)
    # what is trained has to be in it, and be of this model
    model.layers[0].up_proj.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="must have"):
        new.load_state_dict(saved)
    other = pion.PionAdamW(pion.route(mlp()), lr=1e-3)
    with pytest.raises(ValueError, match="must have"):
        other.load_state_dict(saved)
