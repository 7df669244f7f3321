# SPDX-License-Identifier: Apache-2.0
"""Small language models that tests route, and what they ask of a routing."""

import json

import torch
from torch import nn


class Block(nn.Module):
    """A Llama-like block with grouped queries: 4 heads, 2 of keys and values, 8 wide."""

    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(32, 32, bias=False)
        self.k_proj = nn.Linear(32, 16, bias=False)
        self.v_proj = nn.Linear(32, 16, bias=False)
        self.o_proj = nn.Linear(32, 32, bias=False)
        self.up_proj = nn.Linear(32, 64)
        self.down_proj = nn.Linear(64, 32)
        self.input_layernorm = nn.RMSNorm(32)


class Config:
    def __init__(self, **keys):
        self.keys = keys

    def to_json_string(self, use_diff=True):
        return json.dumps(self.keys)


class Language(nn.Module):
    def __init__(self, tied=False, config=True):
        super().__init__()
        self.embed_tokens = nn.Embedding(100, 32)
        self.layers = nn.ModuleList([Block(), Block()])
        self.lm_head = nn.Linear(32, 100, bias=False)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight
        if config:
            self.config = Config(
                num_attention_heads=4, num_key_value_heads=2, head_dim=8, hidden_size=32
            )


def decided(routing):
    return {r.name: (r.role, r.rule, r.heads.heads, r.heads.axis) for r in routing.routes}


def names_of(optimizer):
    return [name for group in optimizer.param_groups for name in group["param_names"]]
