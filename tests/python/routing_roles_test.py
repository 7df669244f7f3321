# SPDX-License-Identifier: Apache-2.0
"""Keys of pion.route that go by role: rates, and vectors without decay."""

import pytest
from torch import nn

import pion


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(20, 8)
        self.up_proj = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.lm_head = nn.Linear(16, 20, bias=False)


def test_roles_have_their_rates_and_vectors_no_decay():
    model = Language()
    routing = pion.route(model, decay_vectors=False, lr_by_role={"embedding": 3e-4})
    optimizer = pion.PionAdamW(routing, lr=1e-3, weight_decay=0.1)
    seen = {}
    for group in optimizer.param_groups:
        for name in group["param_names"]:
            seen[name] = (group["lr"], group["weight_decay"])
    for route in routing.routes:
        vector = route.role in ("norm", "bias", "vector")
        lr = 3e-4 if route.role == "embedding" else 1e-3
        assert seen[route.name] == (lr, 0.0 if vector else 0.1), route.name
    assert {route.role for route in routing.routes} >= {"norm", "bias", "embedding"}
    # without the keys as before
    for group in pion.PionAdamW(pion.route(model), lr=1e-3, weight_decay=0.1).param_groups:
        assert (group["lr"], group["weight_decay"]) == (1e-3, 0.1)
    again = pion.Routing.from_toml(routing.to_toml(), model)
    assert str(again) == str(routing)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("decay_vectors", 0),
        ("lr_by_role", 1e-3),
        ("lr_by_role", {"embeding": 1e-3}),
        ("lr_by_role", {"router": 1e-3}),
        ("lr_by_role", {"norm": "1e-3"}),
        ("lr_by_role", {"norm": -1.0}),
    ],
)
def test_arguments_are_refused_by_name(option, value):
    with pytest.raises((TypeError, ValueError), match=f"^route: {option}"):
        pion.route(Language(), **{option: value})
