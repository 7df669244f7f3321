# SPDX-License-Identifier: Apache-2.0
"""The two paths of a step: kernels on CPU tensors, torch operations elsewhere."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from judges import gaussian, mlp, parameter, run

import pion


def mixed(seed: int = 0, **keys):
    """Every rule, several shapes, heads, a stack."""
    shapes = [(32, 48), (32, 48), (48, 32), (64, 16), (3, 16, 24)]
    groups = [
        {
            "params": [parameter(s, seed + i) for i, s in enumerate(shapes)],
            "rule": "pion",
            "fold": "stack",
        },
        {"params": [parameter((32, 48), 7)], "rule": "pion", "heads": 4},
        {"params": [parameter((24, 24), 8)], "rule": "muon", "nesterov": False},
        {"params": [parameter((32,), 9), parameter((10, 6), 10)], "rule": "adamw"},
        {"params": [parameter((32,), 11)], "rule": "sgd"},
    ]
    optimizer = pion.PionAdamW(groups, lr=0.05, weight_decay=0.1, **keys)
    return optimizer, [p for g in optimizer.param_groups for p in g["params"]]


def test_both_paths_take_the_same_trajectory():
    # f32: four steps of 0.05 * 0.2 * sqrt(64) = 0.08 behind slopes of at most 485 (Muon), each off
    # by some 30 roundings; errors of weights do not feed back into gradients here
    tolerance = 4 * 0.08 * 485 * 30 * 2.0**-24
    optimizer, parameters = mixed(precision="f32")
    expected = run(optimizer, parameters, 4)
    optimizer, parameters = mixed(precision="f32")
    with pion.force_torch_path():
        got = run(optimizer, parameters, 4)
    for a, b in zip(got, expected, strict=True):
        assert (a - b).abs().max() <= tolerance


def test_the_number_of_threads_changes_nothing():
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            optimizer, parameters = mixed()
            results.append(run(optimizer, parameters, 3))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_environment_sets_the_number_of_threads(monkeypatch):
    from pion.threads import stepper, thread_count

    assert thread_count() == torch.get_num_threads()
    monkeypatch.setenv("PION_NUM_THREADS", "2")
    assert stepper().threads == 2
    monkeypatch.setenv("PION_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="PION_NUM_THREADS"):
        thread_count()


def test_optimizers_of_several_python_threads_do_not_meet():
    expected = {}
    for seed in range(3):
        optimizer, parameters = mixed(seed)
        expected[seed] = run(optimizer, parameters, 5)
    got = {}

    def work(seed):
        optimizer, parameters = mixed(seed)
        got[seed] = run(optimizer, parameters, 5)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for seed, weights in expected.items():
        assert all(torch.equal(a, b) for a, b in zip(got[seed], weights, strict=True))


FORK = """
import os, torch, pion
p = torch.nn.Parameter(torch.ones(64, 64)); p.grad = torch.randn(64, 64)
os.environ["PION_NUM_THREADS"] = "2"
optimizer = pion.Muon([p]); optimizer.step()
child = os.fork()
if child == 0:
    optimizer.step()
    raise SystemExit(7)
_, status = os.waitpid(child, 0)
optimizer.step()
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_process_steps_too():
    done = subprocess.run([sys.executable, "-c", FORK], timeout=120, check=False)
    assert done.returncode == 7


def test_importing_pion_imports_no_torch():
    code = "import sys, pion, numpy; pion.spectral_map(numpy.eye(3)); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_the_torch_path_compiles_to_one_graph(backend):
    torch.compiler.reset()
    results = []
    for compiled in (False, True):
        groups = [
            {"params": [parameter((16, 24), i) for i in range(2)], "rule": "pion", "heads": 2},
            {"params": [parameter((16, 16), 3)], "rule": "muon"},
            {"params": [parameter((16,), 4)], "rule": "adamw"},
        ]
        optimizer = pion.PionAdamW(groups, lr=0.05, weight_decay=0.1, precision="f32")
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        if compiled:
            optimizer.compile(backend=backend, fullgraph=True)
        with pion.force_torch_path():
            first = run(optimizer, parameters, 1)
            for group in optimizer.param_groups:
                group["lr"] *= 0.5
            # another rate is no other graph
            stance = "fail_on_recompile" if compiled else "default"
            with torch.compiler.set_stance(stance):
                results.append(first + run(optimizer, parameters, 1, first=1))
    # the same operations, fused in another order: as test_both_paths_take_the_same_trajectory
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() <= 2 * 0.08 * 485 * 30 * 2.0**-24


def test_a_compiled_step_is_the_step():
    torch.compiler.reset()
    results = []
    for compiled in (False, True):
        optimizer, parameters = mixed()
        step = torch.compile(lambda o=optimizer: o.step()) if compiled else optimizer.step
        for number in range(2):
            for index, p in enumerate(parameters):
                p.grad = gaussian(p.shape, 1000 * number + index)
            step()
        results.append([p.detach().clone() for p in parameters])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_meta_parameters_are_stepped_without_data():
    # what a device without kernels would do, by shapes alone
    model = mlp().to("meta")
    optimizer = pion.PionAdamW(pion.route(model), lr=0.1, nonfinite="zero")
    for p in model.parameters():
        p.grad = torch.empty_like(p)
    optimizer.step()
    assert all(s["step"].device.type == "meta" for s in optimizer.state.values())


def test_many_small_matrices_are_faster_than_torch():
    # ultralytics#25288: 126 matrices; peers take them one by one. Expected far below one half;
    # one is the bar, so that a busy machine cannot fail it.
    def fastest(make):
        parameters = [parameter((64, 64), i) for i in range(126)]
        optimizer, best = make(parameters), float("inf")
        for p in parameters:
            p.grad = gaussian(p.shape, 1)
        for _ in range(6):
            start = time.perf_counter()
            optimizer.step()
            best = min(best, time.perf_counter() - start)
        return best

    assert fastest(pion.Muon) < fastest(torch.optim.Muon)


def test_spectral_maps_of_tensors_and_arrays_are_the_same():
    x = gaussian((2, 3, 20, 30), 1)
    for rule in ("pion", "muon", "low_rank_muon"):
        result = pion.spectral_map(x, rule)
        assert isinstance(result, torch.Tensor) and result.shape == x.shape
        assert (result.numpy() == pion.spectral_map(x.numpy(), rule)).all()
        again, what = pion.spectral_map(x.mT[0].mT, rule, statistics=True)
        assert torch.equal(again, result[0]) and len(what) == 3
    assert pion.spectral_map(x.bfloat16()).dtype == torch.bfloat16
    for bad, message in (
        (torch.full((3, 3), float("nan")), "finite"), (torch.ones(3), "rows, cols"),
        (torch.ones(3, 3, dtype=torch.int64), "float32"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            pion.spectral_map(bad)
    with pytest.raises(ValueError, match="one for matrices"):
        pion.spectral_map(x, "adamw")
    assert pion.cpu_target() in os.environ.get("PION_CPU_TARGET", pion.cpu_target())
