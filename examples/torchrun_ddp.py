# SPDX-License-Identifier: Apache-2.0
"""Data parallel training whose optimizer step is shared by the ranks.

torchrun --standalone --nproc-per-node 2 examples/torchrun_ddp.py --checkpoint /tmp/ddp.pt
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn

import pion


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--checkpoint", help="file to go on from, if there, and to write")
    arguments = parser.parse_args()
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, device = dist.get_rank(), "cpu"
    if cuda:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    layers = [nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 8)]
    model = nn.Sequential(*layers).to(device)
    teacher = torch.randn(32, 8, device=device) / 8
    wrapped = nn.parallel.DistributedDataParallel(model)
    routing = pion.route(model, rules={"matrices": "muon"})  # its names, without DDP's "module."
    optimizer = pion.distribute(pion.PionAdamW(routing, lr=3e-3))
    first = 0
    if arguments.checkpoint and os.path.exists(arguments.checkpoint):
        saved = torch.load(arguments.checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]

    for step in range(first, first + arguments.steps):
        torch.manual_seed(1000 * step + rank)  # each rank its own part of the batch
        x = torch.randn(64, 32, device=device)
        loss = nn.functional.mse_loss(wrapped(x), torch.sin(x @ teacher))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == 0 and (step + 1) % 20 == 0:
            print(f"step {step + 1}  loss {loss.item():.4f}", flush=True)

    if arguments.checkpoint:
        pion.gather_state(optimizer, rank=0)  # on every rank
        if rank == 0:
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(states | {"step": first + arguments.steps}, arguments.checkpoint)
    dist.destroy_process_group()


main()
