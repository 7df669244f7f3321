# SPDX-License-Identifier: Apache-2.0
"""Training with sharded weights and momentum (FSDP2) and distributed checkpoints.

torchrun --standalone --nproc-per-node 2 examples/torchrun_fsdp2.py --checkpoint /tmp/fsdp2
"""

import argparse
import os

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import pion


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--checkpoint", help="folder to go on from, if it is there, and to write")
    arguments = parser.parse_args()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    mesh = init_device_mesh(kind, (int(os.environ["WORLD_SIZE"]),))
    torch.manual_seed(0)
    layers = [nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 8)]
    model = nn.Sequential(*layers).to(kind)
    teacher = torch.randn(32, 8, device=kind) / 8
    for layer in layers[::2]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # after fully_shard: the optimizer's parameters are the shards
    optimizer = pion.PionAdamW(pion.route(model, rules={"matrices": "muon"}), lr=3e-3)
    if arguments.checkpoint and os.path.exists(arguments.checkpoint):
        weights, state = get_state_dict(model, optimizer)
        dcp.load({"model": weights, "optimizer": state}, checkpoint_id=arguments.checkpoint)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)

    torch.manual_seed(1 + mesh.get_rank())  # each rank its own part of the batch
    for step in range(arguments.steps):
        x = torch.randn(64, 32, device=kind)
        loss = nn.functional.mse_loss(model(x), torch.sin(x @ teacher))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if mesh.get_rank() == 0 and (step + 1) % 20 == 0:
            print(f"step {step + 1}  loss {loss.item():.4f}", flush=True)

    if arguments.checkpoint:  # every rank writes its shards; any number of ranks can read them
        weights, state = get_state_dict(model, optimizer)
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=arguments.checkpoint)
    dist.destroy_process_group()


main()
