# SPDX-License-Identifier: Apache-2.0
"""One optimizer for a whole model, which learns to continue sequences of equal steps, in seconds.

pip install '.[torch]' && python examples/quickstart.py"""

import torch
from torch import nn

import pion


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.up_proj = nn.Linear(width, 4 * width, bias=False)
        self.down_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        h = self.norm1(x)
        parts = (self.q_proj(h), self.k_proj(h), self.v_proj(h))
        q, k, v = (part.unflatten(-1, (4, 16)).transpose(1, 2) for part in parts)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o_proj(mixed.transpose(1, 2).flatten(2))
        return x + self.down_proj(nn.functional.silu(self.up_proj(self.norm2(x))))


class Model(nn.Module):
    def __init__(self, vocabulary: int = 64, width: int = 64):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.Sequential(Block(width), Block(width))
        self.norm = nn.RMSNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.layers(self.embed_tokens(tokens))
        return self.lm_head(self.norm(x))


torch.manual_seed(0)
model = Model()
routing = pion.route(
    model, attention=(4, 4, 16)
)  # heads: read from model.config where there is one
print(routing)
optimizer = pion.PionAdamW(routing, lr=3e-3, weight_decay=0.01)
for step in range(200):
    start, stride = torch.randint(64, (2, 32, 1))
    tokens = (start + (1 + stride % 8) * torch.arange(33)) % 64
    logits = model(tokens[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 50 == 49:
        print(f"step {step:3d}  loss {loss.item():.3f}")
