# SPDX-License-Identifier: Apache-2.0
"""Checks of fully_shard and of distributed checkpoints that every rank runs."""

import contextlib
from unittest import mock

import torch
import torch.distributed.checkpoint as dcp
from judges import gaussian, mlp, state_of
from pion.bench_gpu.record import Recorder
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

import pion


def models(ranks: int):
    plain, sharded = mlp((12, 18, 18, 5)), mlp((12, 18, 18, 5))
    mesh = init_device_mesh("cpu", (ranks,))
    for layer in sharded:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    return plain, sharded


def optimizer_for(model, matrices="pion", **keys):
    routing = pion.route(model, rules={"matrices": matrices})
    return pion.PionAdamW(routing, **({"lr": 0.02} | keys))


def train(model, optimizer, steps, first=0):
    for step in range(first, first + steps):
        x = gaussian((8, 12), step)  # the same on all ranks: their mean is exact for 1, 2, 4
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def assert_models_alike(plain, sharded):
    for (name, p), q in zip(plain.named_parameters(), sharded.parameters(), strict=True):
        assert torch.equal(p, q.detach().full_tensor()), name


def check_fsdp2_trains_as_one_process(rank, ranks, folder):
    plain, sharded = models(ranks)
    optimizers = optimizer_for(plain), optimizer_for(sharded)
    for model, optimizer in zip((plain, sharded), optimizers, strict=True):
        train(model, optimizer, 4)
    assert_models_alike(plain, sharded)


def check_fsdp2_shards_of_columns(rank, ranks, folder):
    plain, sharded = mlp((12, 16, 8)), mlp((12, 16, 8))
    mesh = init_device_mesh("cpu", (ranks,))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    fully_shard(
        sharded, mesh=mesh, mp_policy=policy,
        shard_placement_fn=lambda p: Shard(p.dim() - 1),
    )  # fmt: skip
    for model in (plain, sharded):
        train(model, optimizer_for(model, matrices="muon"), 3)
    assert sharded[0].weight.to_local().shape == (16, 12 // ranks)
    assert_models_alike(plain, sharded)


def check_hybrid_sharding(rank, ranks, folder):
    if ranks != 4:
        return
    plain, sharded = mlp((12, 18, 5)), mlp((12, 18, 5))
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    fully_shard(sharded, mesh=mesh)
    for model in (plain, sharded):
        train(model, optimizer_for(model), 3)
    assert len(sharded[0].weight.placements) == 2
    assert_models_alike(plain, sharded)


def check_parameters_that_a_host_swaps_for_shards(rank, ranks, folder):
    """As accelerate does: the optimizer is made first, and its groups get the shards then."""
    plain, sharded = mlp((12, 18, 5)), mlp((12, 18, 5))
    a, b = optimizer_for(plain), optimizer_for(sharded)
    fully_shard(sharded, mesh=init_device_mesh("cpu", (ranks,)))
    shards = dict(sharded.named_parameters())
    for group in b.param_groups:
        group["params"] = [shards[name] for name in group["param_names"]]
    train(plain, a, 3), train(sharded, b, 3)
    assert_models_alike(plain, sharded)


def check_checkpoints_at_another_world_size(rank, ranks, folder):
    plain, sharded = models(ranks)
    a, b = optimizer_for(plain), optimizer_for(sharded)
    train(plain, a, 2), train(sharded, b, 2)
    saved = {"optimizer": get_optimizer_state_dict(sharded, b)}
    dcp.save(saved, checkpoint_id=folder / "many")
    if rank == 0:
        one = {"optimizer": get_optimizer_state_dict(plain, a)}
        dcp.save(one, checkpoint_id=folder / "one", no_dist=True)
    torch.distributed.barrier()
    # one process reads what many have written; before the first step
    again = mlp((12, 18, 18, 5))
    again.load_state_dict(plain.state_dict())
    c = optimizer_for(again)
    state = {"optimizer": get_optimizer_state_dict(again, c)}
    dcp.load(state, checkpoint_id=folder / "many", no_dist=True)
    set_optimizer_state_dict(again, c, state["optimizer"])
    # many read what one has written
    _, other = models(ranks)
    for p, q in zip(other.parameters(), sharded.parameters(), strict=True):
        p.to_local().data.copy_(q.to_local())
    d = optimizer_for(other)
    assert all(d.state[p]["step"] == 0 for p in other.parameters())  # made with the optimizer
    state = {"optimizer": get_optimizer_state_dict(other, d)}
    dcp.load(state, checkpoint_id=folder / "one")
    set_optimizer_state_dict(other, d, state["optimizer"])
    assert all(d.state[p]["step"] == 2 for p in other.parameters())
    train(plain, a, 2, first=2)
    for model, optimizer in ((sharded, b), (again, c), (other, d)):
        train(model, optimizer, 2, first=2)
    assert_models_alike(plain, sharded), assert_models_alike(plain, other)
    assert all(map(torch.equal, plain.parameters(), again.parameters()))


def check_whole_states_and_files(rank, ranks, folder):
    plain, sharded = models(ranks)
    a, b = optimizer_for(plain), optimizer_for(sharded)
    train(plain, a, 2), train(sharded, b, 2)
    whole = get_optimizer_state_dict(sharded, b, options=StateDictOptions(full_state_dict=True))
    for name, p in plain.named_parameters():
        for key in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
            if key in a.state[p]:
                assert torch.equal(a.state[p][key], whole["state"][name][key])
    # a plain optimizer's state is cut for the shards, and a file holds whole matrices
    _, other = models(ranks)
    d = optimizer_for(other)
    d.load_state_dict(a.state_dict())
    for p, q in zip(sharded.parameters(), other.parameters(), strict=True):
        mine, theirs = b.state[p], d.state[q]
        assert all(
            torch.equal(mine[k].full_tensor(), theirs[k].full_tensor())
            for k in mine
            if hasattr(mine[k], "full_tensor")
        )
    pion.save_state(b, folder / "state.safetensors")
    torch.distributed.barrier()
    again = optimizer_for(mlp((12, 18, 18, 5)))
    pion.load_state(again, folder / "state.safetensors")
    loaded = [p for g in again.param_groups for p in g["params"]]
    own = [p for g in a.param_groups for p in g["params"]]
    for x, y in zip(state_of(a, own), state_of(again, loaded), strict=True):
        assert all(torch.equal(x[k], y[k]) for k in x if k != "counters")


def check_saving_holds_one_whole_buffer_at_a_time(rank, ranks, folder):
    """On ranks that write nothing; on the first, whose memory is the host's, all in the end."""
    network = mlp((12, *[48] * 10, 5))
    fully_shard(network, mesh=init_device_mesh("cpu", (ranks,)))
    optimizer = optimizer_for(network)
    train(network, optimizer, 1)
    sizes = [4 * p.numel() for p in network.parameters()]
    with Recorder("cpu") as record:
        pion.save_state(optimizer, folder / "one.safetensors")
    if rank:
        # a buffer, and what its gathering takes to join its parts
        assert record.peak_bytes <= 3 * max(sizes) < sum(sizes) / 2, record.peak_bytes


def check_waits_of_a_step(rank, ranks, folder):
    _, sharded = models(ranks)
    optimizer = optimizer_for(sharded)
    train(sharded, optimizer, 1)
    reads = []

    def counted(name):
        before = getattr(torch.Tensor, name)
        return mock.patch.object(
            torch.Tensor, name, lambda *args: reads.append(name) or before(*args)
        )

    with contextlib.ExitStack() as stack, pion.force_torch_path():
        for name in ("tolist", "item", "__float__", "__int__", "__bool__", "cpu", "numpy"):
            stack.enter_context(counted(name))
        optimizer.step()
    assert reads == ["tolist"], reads


def check_distributed_checkpoints_of_replicas(rank, ranks, folder):
    plain, model, other, again = (mlp((12, 18, 5)) for _ in range(4))
    a, b = optimizer_for(plain), pion.distribute(optimizer_for(model))
    train(plain, a, 2), train(model, b, 2)
    pion.gather_state(b)
    saved = {"optimizer": get_optimizer_state_dict(model, b)}
    dcp.save(saved, checkpoint_id=folder / "replicas")
    # before the first step: replicas again, then shards of other ranks
    fully_shard(again, mesh=init_device_mesh("cpu", (ranks,)))
    c, d = pion.distribute(optimizer_for(other)), optimizer_for(again)
    pion.gather_state(c)
    for network, optimizer in ((other, c), (again, d)):
        state = {"optimizer": get_optimizer_state_dict(network, optimizer)}
        dcp.load(state, checkpoint_id=folder / "replicas")
        set_optimizer_state_dict(network, optimizer, state["optimizer"])
    with torch.no_grad():
        for p, q, r in zip(plain.parameters(), other.parameters(), again.parameters(), strict=True):
            q.copy_(p)
            r.copy_(distribute_tensor(p, r.device_mesh, r.placements, src_data_rank=None))
    for network, optimizer in ((plain, a), (other, c), (again, d)):
        train(network, optimizer, 2, first=2)
    assert all(map(torch.equal, plain.parameters(), other.parameters()))
    assert_models_alike(plain, again)
