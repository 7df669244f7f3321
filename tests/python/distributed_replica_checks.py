# SPDX-License-Identifier: Apache-2.0
"""Checks of pion.distribute that every rank runs."""

import contextlib
import copy
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from judges import gaussian, mlp, parameter, run, state_of
from pion.bench_gpu.record import Recorder

import pion
from pion import distributed_exchange, distributed_replicas


def parameters_of(optimizer):
    return [p for g in optimizer.param_groups for p in g["params"]]


def groups(dtype=torch.float32):
    """Every kind of rule, heads, a stack, a convolution, a bias, an empty parameter."""
    shapes = [(24, 16), (16, 40), (32, 24), (3, 8, 12), (8, 3, 3, 3), (20, 20)]
    matrices = [parameter(shape, seed, dtype) for seed, shape in enumerate(shapes)]
    rest = [parameter(shape, 50 + seed, dtype) for seed, shape in enumerate([(33,), (0,), (9, 7)])]
    return [
        {"params": matrices[:2], "rule": "pion"},
        {"params": matrices[2:3], "rule": "muon", "heads": 4},
        {"params": matrices[3:4], "rule": "muon", "nesterov": True, "fold": "stack"},
        {"params": matrices[4:5], "rule": "muon", "nesterov": True, "fold": "conv"},
        {"params": matrices[5:], "rule": "low_rank_muon", "rank": 4},
        {"params": rest[:2], "rule": "adamw"},
        {"params": rest[2:], "rule": "sgd", "momentum": 0.9},
    ]


def pair(dtype=torch.float32, **keys):
    """(plain optimizer, distributed optimizer) and the parameters of each."""
    keys = {"lr": 0.01, "weight_decay": 0.1} | keys
    plain, shared = (pion.PionAdamW(groups(dtype), **keys) for _ in range(2))
    return plain, parameters_of(plain), pion.distribute(shared), parameters_of(shared)


def assert_equal(a, b):
    for index, (x, y) in enumerate(zip(a, b, strict=True)):
        assert torch.equal(x, y), index


def assert_same_state(a, b):
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        assert all(torch.equal(x[key], y[key]) for key in x)


def check_weights_are_those_of_one_process(rank, ranks, folder):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        plain, a, shared, b = pair(dtype)
        assert_equal(run(plain, a, 3), run(shared, b, 3))
    plain, a, shared, b = pair()
    with pion.force_torch_path():
        # a bucket holds other matrices than in one process: products of other shapes
        for x, y in zip(run(plain, a, 2), run(shared, b, 2), strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-5)


def check_state_is_shared(rank, ranks, folder):
    _, _, shared, b = pair()
    run(shared, b, 2)
    own = sum(len(shared.state.get(p, {})) > 0 for p in b)
    total = torch.tensor(own)
    dist.all_reduce(total)
    assert total == sum(p.numel() > 0 for p in b)
    if ranks > 1:
        assert own < len(b) - 1
        with pytest.raises(ValueError, match="gather_state"):
            shared.state_dict()
        with pytest.raises(ValueError, match="gather_state"):
            copy.deepcopy(shared)
        with pytest.raises(ValueError, match="already"):
            pion.distribute(shared)


def check_gathering_and_loading(rank, ranks, folder):
    plain, a, shared, b = pair(torch.bfloat16)
    run(plain, a, 2), run(shared, b, 2)
    pion.gather_state(shared, rank=0)
    if rank == 0:
        full = [p for p in b if p.numel()]
        assert_same_state(state_of(plain, [p for p in a if p.numel()]), state_of(shared, full))
        shared.state_dict()
    elif ranks > 1:
        with pytest.raises(ValueError, match="gather_state"):
            shared.state_dict()
    assert_equal(run(plain, a, 1, first=2), run(shared, b, 1, first=2))
    held = torch.tensor(sum(len(shared.state.get(p, {})) > 0 for p in b))
    dist.all_reduce(held)
    assert held == sum(p.numel() > 0 for p in b)  # what others own has been forgotten again
    pion.gather_state(shared)
    saved = copy.deepcopy(shared.state_dict())
    assert saved["state"].keys() == plain.state_dict()["state"].keys()
    # from any number of ranks to one, and back
    again, c, other, d = pair(torch.bfloat16)
    for optimizer, weights in ((again, c), (other, d)):
        with torch.no_grad():
            for target, source in zip(weights, a, strict=True):
                target.copy_(source)
        optimizer.load_state_dict(saved)
    expected = run(plain, a, 2, first=3)
    assert_equal(run(again, c, 2, first=3), expected)
    assert_equal(run(other, d, 2, first=3), expected)
    fresh = pion.distribute(pion.PionAdamW(pion.route(mlp()), lr=0.01))
    pion.gather_state(fresh)  # before the first step
    fresh.load_state_dict(fresh.state_dict())


def check_missing_gradients(rank, ranks, folder):
    plain, a, shared, b = pair()
    for step in range(3):
        for optimizer, parameters in ((plain, a), (shared, b)):
            for index, p in enumerate(parameters):
                missing = (index + step) % 3 == 0
                p.grad = None if missing else gaussian(p.shape, 10 * step + index)
            optimizer.step()
    assert_equal(a, b)
    before = [p.detach().clone() for p in b]
    if ranks > 1:  # gradients that nobody has averaged
        if rank == 1:
            b[1].grad = None
        else:
            b[1].grad = gaussian(b[1].shape, 3)
        with pytest.raises(ValueError, match="on all ranks or on none"):
            shared.step()
        b[1].grad = None
        shared.collect_statistics(rank == 0)
        with pytest.raises(ValueError, match="collect_statistics"):
            shared.step()
        shared.collect_statistics(False)
    if rank == ranks - 1:  # an error of one rank
        b[0].grad = torch.eye(24, 16).to_sparse()
    with pytest.raises(ValueError if rank == ranks - 1 else RuntimeError):
        shared.step()
    assert_equal(b, before)
    assert_equal(run(plain, a, 1), run(shared, b, 1))


def check_nonfinite_and_statistics(rank, ranks, folder):
    plain, a, shared, b = pair()
    for optimizer, parameters in ((plain, a), (shared, b)):
        optimizer.collect_statistics()
        for index, p in enumerate(parameters):
            p.grad = gaussian(p.shape, index)
        parameters[2].grad[0, 0] = torch.nan
    with pytest.warns(pion.EmptyUpdateWarning):
        plain.step()
    if ranks == 1 or shared.replicas is None:
        shared.step()
    else:
        with pytest.warns() if _owned(shared, b[2]) else _nothing():
            shared.step()
    assert_equal(a, b)
    assert plain.statistics() == shared.statistics()


@contextlib.contextmanager
def messages():
    """Collectives within it, by name."""
    collectives = [(dist, name) for name in ("broadcast", "all_reduce", "all_to_all_single")]
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(mock.patch.object(where, name, wraps=getattr(where, name)))
            for where, name in (*collectives, (distributed_exchange, "_all_gather"))
        }


def check_a_step_is_one_message_a_bucket(rank, ranks, folder):
    _, _, shared, b = pair()
    run(shared, b, 1)
    with messages() as sent:
        run(shared, b, 1, first=1)
    counts = {name: collective.call_count for name, collective in sent.items()}
    if ranks > 1:  # who has gradients; all weights
        one = {"all_reduce": 1, "_all_gather": 1}
        assert counts == {"broadcast": 0, "all_to_all_single": 0, **one}


def check_weights_of_any_strides_travel(rank, ranks, folder):
    weights = []
    for make in (lambda optimizer: optimizer, pion.distribute):
        parameters = [torch.nn.Parameter(parameter((6, 4, 3, 3), s).detach()) for s in range(5)]
        for p in parameters[::2]:
            p.data = p.data.to(memory_format=torch.channels_last)
        groups = [{"params": parameters, "rule": "muon", "fold": "conv"}]
        run(make(pion.PionAdamW(groups, lr=0.01)), parameters, 2)
        weights.append(parameters)
    assert_equal(*weights)


def check_gathering_holds_a_few_buffers_at_a_time(rank, ranks, folder):
    """On ranks that are not asked for the state; the first has it all in the end."""
    if ranks == 1:
        return
    before, distributed_replicas._GATHERED = distributed_replicas._GATHERED, 1000
    try:
        parameters = [parameter((40, 50), seed) for seed in range(12)]
        shared = pion.distribute(pion.Muon(parameters, lr=0.01))
        run(shared, parameters, 1)
        with Recorder("cpu") as record:
            pion.gather_state(shared, rank=0)
        if rank:
            # a message and, on its owner, the buffer that it is made of; steps and counters
            assert record.peak_bytes <= 3 * 4 * 2000 + 12 * 1024 < 12 * 4 * 2000
        else:
            assert all(shared.state[p]["momentum_buffer"].device.type == "cpu" for p in parameters)
            assert all(shared.state[p]["momentum_buffer"].any() for p in parameters)
    finally:
        distributed_replicas._GATHERED = before


def _owned(optimizer, parameter):
    """The owner warns; its cost puts the parameter where it is, so ask after a dry assignment."""
    replicas = optimizer.replicas
    replicas.assign([cell for _, cell in optimizer.named_cells() if cell.numel])
    return replicas.rank == replicas._owners[parameter]


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def check_many_messages(rank, ranks, folder):
    before, distributed_exchange.BUCKET = distributed_exchange.BUCKET, 300
    try:
        plain, a, shared, b = pair()
        assert_equal(run(plain, a, 3), run(shared, b, 3))
        pion.gather_state(shared)
        assert_same_state(state_of(plain, a[:6]), state_of(shared, b[:6]))
    finally:
        distributed_exchange.BUCKET = before


def check_offloaded_replicas_and_new_groups(rank, ranks, folder):
    plain, a, shared, b = pair()
    pion.offload(shared)
    for optimizer, parameters in ((plain, a), (shared, b)):
        run(optimizer, parameters, 1)
        added = parameter((12, 12), 77)
        optimizer.add_param_group({"params": [added], "rule": "muon"})
        parameters.append(added)
    assert_equal(run(plain, a, 2, first=1), run(shared, b, 2, first=1))


def check_models_that_differ(rank, ranks, folder):
    if ranks == 1:
        return
    optimizer = pion.Muon([parameter((4, 4 + (rank == 0)))])
    with pytest.raises(ValueError, match="same parameters"):
        pion.distribute(optimizer)


def check_ddp(rank, ranks, folder):
    plain_model, model = mlp((12, 16, 5)), mlp((12, 16, 5))
    plain = pion.PionAdamW(pion.route(plain_model), lr=0.01)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    shared = pion.distribute(pion.PionAdamW(pion.route(model), lr=0.01))
    for step in range(3):
        x = gaussian((8, 12), step)  # the same on all ranks: their mean is exact for 1, 2, 4
        for network, optimizer in ((plain_model, plain), (wrapped, shared)):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
    assert_equal(list(plain_model.parameters()), list(model.parameters()))
