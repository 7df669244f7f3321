# SPDX-License-Identifier: Apache-2.0
"""pion.offload: the same trajectory as the optimizer on the device."""

import copy
import io

import pytest
import torch
from judges import gaussian, mlp, parameter, run

import pion
from pion import offloading

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device"))]  # fmt: skip


def pair(dtype=torch.float32, device="cpu", **keys):
    """(optimizer, parameters) twice: plain on the CPU, offloaded on the device."""
    result = []
    for where in ("cpu", device):
        model = mlp((12, 24, 24, 5)).to(where, dtype)
        optimizer = pion.PionAdamW(pion.route(model), lr=0.01, weight_decay=0.1, **keys)
        result.append((optimizer, [p for g in optimizer.param_groups for p in g["params"]]))
    pion.offload(result[1][0])
    return result


def assert_equal(a, b):
    assert all(torch.equal(x.cpu(), y.cpu()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_trajectory_is_that_of_the_plain_optimizer(dtype, device):
    (plain, a), (offloaded, b) = pair(dtype, device)
    for step in range(5):
        assert_equal(run(plain, a, 1, first=step), run(offloaded, b, 1, first=step))


def test_state_is_in_host_memory_and_holds_the_weights():
    _, (offloaded, parameters) = pair(torch.bfloat16)
    run(offloaded, parameters, 2)
    for p in parameters:
        own = offloaded.state[p]
        assert own["master"].dtype == torch.float32
        assert torch.equal(own["master"].bfloat16(), p)
        assert all(value.device.type == "cpu" for value in own.values())


def test_chunks_change_nothing(monkeypatch):
    (plain, a), (offloaded, b) = pair()
    monkeypatch.setattr(offloading, "_CHUNK", 100)
    assert len(offloading._chunks([(type("C", (), {"parameter": p}), None, None) for p in b])) > 2
    assert_equal(run(plain, a, 4), run(offloaded, b, 4))


def test_staging_memory_is_that_of_three_chunks(monkeypatch):
    monkeypatch.setattr(offloading, "_CHUNK", 2000)
    sizes = []
    for count in (4, 40):
        parameters = [parameter((30, 20), seed) for seed in range(count)]
        optimizer = pion.offload(pion.Muon(parameters, lr=0.01))
        run(optimizer, parameters, 2)
        (ring,) = optimizer.host._rings.values()
        sizes.append(ring.bytes())
        assert not optimizer.host._staged
    # three matrices a chunk, a gradient and a weight of each, in whole cache lines
    assert sizes[1] == 3 * 3 * 2 * (30 * 20 * 4 + 32)
    assert sizes[0] <= sizes[1]


def test_a_parameter_larger_than_a_chunk_and_types_side_by_side(monkeypatch):
    monkeypatch.setattr(offloading, "_CHUNK", 50)
    shapes = [(9, 7), (3, 3), (21, 5), (2, 2)]
    trajectories = []
    for change in (lambda optimizer: optimizer, pion.offload):
        parameters = [
            parameter(shape, seed, dtype)
            for dtype in (torch.float32, torch.bfloat16, torch.float64)
            for seed, shape in enumerate(shapes)
        ]
        optimizer = change(pion.Muon(parameters, lr=0.01, weight_decay=0.1))
        trajectories.append(run(optimizer, parameters, 4))
    assert_equal(*trajectories)


def test_a_rate_that_is_a_tensor_is_read_once_a_step():
    class Elsewhere(torch.Tensor):
        """As if on a device that has to be waited for."""

        device = torch.device("cuda")

        def item(self):
            reads.append(1)
            return super().item()

    rate, reads = torch.tensor(0.01).as_subclass(Elsewhere), []
    parameters = [parameter((6, 4), seed) for seed in range(20)]
    optimizer = pion.offload(pion.Muon([{"params": [p]} for p in parameters], lr=0.01))
    for group in optimizer.param_groups:
        group["lr"] = rate
    run(optimizer, parameters, 3)
    assert len(reads) == 3
    rate.fill_(0.0)
    before = [p.detach().clone() for p in parameters]
    run(optimizer, parameters, 1)
    assert_equal(before, parameters)


def test_foreign_writes_are_taken_over():
    (plain, a), (offloaded, b) = pair()
    run(plain, a, 2), run(offloaded, b, 2)
    with torch.no_grad():
        for p, q in zip(a, b, strict=True):
            p.fill_(0.5), q.fill_(0.5)
    assert_equal(run(plain, a, 2, first=2), run(offloaded, b, 2, first=2))
    for p, q in zip(a, b, strict=True):  # unseen by versions
        p.data.fill_(0.25), q.data.fill_(0.25)
    offloaded.host.refresh()
    assert_equal(run(plain, a, 1, first=4), run(offloaded, b, 1, first=4))


def test_a_running_optimizer_moves_over():
    (plain, a), _ = pair()
    (other, b), _ = pair()
    run(plain, a, 3), run(other, b, 3)
    pion.offload(other)
    assert_equal(run(plain, a, 3, first=3), run(other, b, 3, first=3))
    with pytest.raises(ValueError, match="already"):
        pion.offload(other)


def test_saving_going_on_schedulers_and_copies():
    (plain, a), (offloaded, b) = pair(torch.bfloat16)
    for optimizer, parameters in ((plain, a), (offloaded, b)):
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        for step in range(3):
            run(optimizer, parameters, 1, first=step)
            schedule.step()
    assert_equal(a, b)
    file = io.BytesIO()
    torch.save(offloaded.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(offloaded)
    others = [p for g in twin.param_groups for p in g["params"]]
    expected = run(plain, a, 2, first=3)
    assert_equal(run(twin, others, 2, first=3), expected)
    offloaded.state.clear()
    offloaded.load_state_dict(torch.load(file, weights_only=True))
    assert_equal(run(offloaded, b, 2, first=3), expected)


def test_not_finite_gradients_and_statistics():
    p = parameter((6, 6))
    optimizer = pion.offload(pion.Muon([p], lr=0.1))
    optimizer.collect_statistics()
    before = p.detach().clone()
    p.grad = torch.full((6, 6), float("nan"))
    with pytest.warns(pion.EmptyUpdateWarning, match="NaN"):
        optimizer.step()
    assert torch.equal(p, before) and optimizer.statistics()[0]["skipped"] == 1
    p.grad = gaussian((6, 6), 1)
    optimizer.step()
    assert optimizer.statistics()[0]["update_rms"] > 0
