# SPDX-License-Identifier: Apache-2.0
"""Saving and going on: bit for bit, in three formats, from torch's own optimizers too."""

import copy
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from judges import mlp, parameter, run, state_of

import pion

ROOT = pathlib.Path(__file__).resolve().parents[2]


def made(dtype=torch.float32, **keys):
    model = mlp().to(dtype)
    optimizer = pion.PionAdamW(pion.route(model), lr=0.01, weight_decay=0.1, **keys)
    return model, optimizer, [p for g in optimizer.param_groups for p in g["params"]]


def save_torch(optimizer, path):
    torch.save(optimizer.state_dict(), path)


def load_torch(optimizer, path):
    optimizer.load_state_dict(torch.load(path, weights_only=True))


FORMATS = {
    "torch.save": (save_torch, load_torch),
    "safetensors": (pion.save_state, pion.load_state),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "dtype, mode",
    [(torch.float32, "master"), (torch.bfloat16, "master"), (torch.bfloat16, "stochastic")],
)
def test_going_on_is_bit_exact(form, dtype, mode, tmp_path):
    save, load = FORMATS[form]
    model, optimizer, parameters = made(dtype, low_precision=mode, seed=5)
    run(optimizer, parameters, 4)
    save(optimizer, tmp_path / "state")
    torch.save(model.state_dict(), tmp_path / "model")
    expected = run(optimizer, parameters, 4, first=4)

    model, again, parameters = made(dtype, low_precision=mode)
    model.load_state_dict(torch.load(tmp_path / "model"))
    load(again, tmp_path / "state")
    for p in parameters:
        for name in ("momentum_buffer", "exp_avg", "exp_avg_sq", "master"):
            held = again.state[p].get(name)
            assert held is None or held.dtype == torch.float32
    for a, b in zip(run(again, parameters, 4, first=4), expected, strict=True):
        assert torch.equal(a, b)


CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch, pion
from checkpoint_test import made, run
model, optimizer, parameters = made()
for step in range(10):
    run(optimizer, parameters, 1, first=step)
    pion.save_state(optimizer, sys.argv[2] + "/state")
    torch.save(model.state_dict(), sys.argv[2] + "/model")
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_goes_on(tmp_path):
    here = str(pathlib.Path(__file__).parent)
    child = subprocess.run([sys.executable, "-c", CHILD, here, str(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL
    model, optimizer, parameters = made()
    model.load_state_dict(torch.load(tmp_path / "model"))
    pion.load_state(optimizer, tmp_path / "state")
    got = run(optimizer, parameters, 5, first=5)
    _, whole, parameters = made()
    for a, b in zip(got, run(whole, parameters, 10), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_torch_muon_goes_on():
    # the buffers must be its own; what a step then does is compared at its bf16 elsewhere
    a, b = parameter((12, 8)), parameter((12, 8))
    theirs = torch.optim.Muon([a], lr=0.03, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    run(theirs, [a], 3)
    ours = pion.Muon([b], lr=0.1, scale="original")
    ours.load_state_dict(theirs.state_dict())
    (group,) = ours.param_groups
    assert (group["lr"], group["momentum"], group["scale"]) == (0.03, 0.9, "match_rms_adamw")
    assert group["steps"] == 5 and group["nesterov"] is True
    assert torch.equal(ours.state[b]["momentum_buffer"], theirs.state[a]["momentum_buffer"])
    run(ours, [b], 1)
    filtered = pion.Pion([parameter((12, 8))])
    filtered.load_state_dict(theirs.state_dict())
    assert filtered.param_groups[0]["cutoff"] == "auto"


@pytest.mark.parametrize(
    ("theirs", "here"),
    [(None, "original"), ("original", "original"), ("match_rms_adamw", "match_rms_adamw"),
     ("spectral_unclamped", "spectral")],
)  # fmt: skip
def test_every_scale_of_torchs_muon_has_its_counterpart(theirs, here):
    made = torch.optim.Muon([parameter((12, 8))])
    run(made, made.param_groups[0]["params"], 1)
    saved = made.state_dict()
    saved["param_groups"][0]["adjust_lr_fn"] = theirs  # the last is of torch 2.14
    for rule in (pion.Muon, pion.Pion):
        ours = rule([parameter((12, 8))])
        ours.load_state_dict(saved)
        assert ours.param_groups[0]["scale"] == here
        run(ours, ours.param_groups[0]["params"], 1)
    saved["param_groups"][0]["adjust_lr_fn"] = "of_the_future"
    with pytest.raises(ValueError, match="scale"):
        pion.Muon([parameter((12, 8))]).load_state_dict(saved)


def test_a_state_of_torch_adamw_goes_on_and_comes_back():
    a, b = parameter((12, 8)), parameter((12, 8))
    theirs = torch.optim.AdamW([a], lr=0.03, betas=(0.8, 0.9), weight_decay=0.2)
    run(theirs, [a], 3)
    ours = pion.PionAdamW([{"params": [b], "rule": "adamw"}])
    ours.load_state_dict(theirs.state_dict())
    b.data.copy_(a)
    run(theirs, [a], 3, first=3), run(ours, [b], 3, first=3)
    largest = float(a.detach().abs().max())
    # as test_adamw_agrees_with_torch_of_this_environment, three steps
    assert (a - b).abs().max() <= 3 * 2.0**-24 * (3 * largest + 128 * 0.03)
    assert ours.state[b]["step"] == 6
    back = torch.optim.AdamW([parameter((12, 8))])
    saved = ours.state_dict()
    for own in saved["state"].values():
        own.pop("counters")
    back.load_state_dict(
        {"state": saved["state"], "param_groups": back.state_dict()["param_groups"]}
    )
    run(back, back.param_groups[0]["params"], 1)


@pytest.mark.parametrize(
    "theirs, message",
    [
        (lambda p: torch.optim.AdamW([p], amsgrad=True), "amsgrad"),
        (lambda p: torch.optim.Adam([p], weight_decay=0.1), "decoupled"),
        (lambda p: torch.optim.Muon([p]), "torch.optim.Muon"),
        (lambda p: torch.optim.SGD([p]), "must be of pion"),
    ],
)
def test_foreign_states_that_do_not_fit_are_errors(theirs, message):
    ours = pion.PionAdamW([{"params": [parameter((4, 4))], "rule": "adamw"}])
    with pytest.raises(ValueError, match=message):
        ours.load_state_dict(theirs(parameter((4, 4))).state_dict())


def test_a_state_that_does_not_fit_changes_nothing():
    _, optimizer, parameters = made()
    run(optimizer, parameters, 2)
    before = state_of(optimizer, parameters)
    groups = [dict(g) for g in optimizer.param_groups]
    good = optimizer.state_dict()

    def broken(change):
        saved = {"state": {k: dict(v) for k, v in good["state"].items()},
                 "param_groups": [dict(g) for g in good["param_groups"]]}  # fmt: skip
        change(saved)
        return saved

    changes = [
        lambda s: s["state"][0].update(momentum_buffer=torch.zeros(3, 3)),
        lambda s: s["state"][0].pop("momentum_buffer"),
        lambda s: s["state"][0].update(other=torch.zeros(1)),
        lambda s: s["state"][0].update(counters=torch.zeros(1)),
        lambda s: s["param_groups"][0].update(rule="muon"),
        lambda s: s["param_groups"][0].update(momentum=2.0),
        lambda s: s["param_groups"].pop(),
    ]
    for change in changes:
        with pytest.raises(ValueError):
            optimizer.load_state_dict(broken(change))
        for own, old in zip(state_of(optimizer, parameters), before, strict=True):
            assert all(torch.equal(own[k], old[k]) for k in old)
        assert groups == optimizer.param_groups


def test_files_that_do_not_fit_change_nothing(tmp_path):
    from safetensors.torch import save_file

    _, optimizer, parameters = made()
    run(optimizer, parameters, 1)
    before = state_of(optimizer, parameters)
    seed = {"optimizer.seed": torch.tensor(0)}
    for tensors, message in (
        ({"x": torch.zeros(1)}, "optimizer.seed"),
        (seed | {"0.weight.momentum_buffer": torch.zeros(2, 2)}, "shape"),
        (seed | {"9.weight.momentum_buffer": torch.zeros(2, 2)}, "9.weight"),
        (seed | {"0.weight.step": torch.tensor(1)}, "momentum_buffer"),
    ):
        save_file(tensors, tmp_path / "bad")
        with pytest.raises(ValueError, match=message):
            pion.load_state(optimizer, tmp_path / "bad")
    for own, old in zip(state_of(optimizer, parameters), before, strict=True):
        assert all(torch.equal(own[k], old[k]) for k in old)


def test_missing_state_starts_afresh_and_eager_state_is_all_there():
    _, optimizer, parameters = made()
    optimizer.init_state()
    assert all(optimizer.state[p] for p in parameters)
    assert not any(p.grad is not None for p in parameters)
    _, other, others = made()
    other.load_state_dict(optimizer.state_dict())
    _, plain, untouched = made()
    for a, b in zip(run(other, others, 2), run(plain, untouched, 2), strict=True):
        assert torch.equal(a, b)


def test_distributed_checkpoints_of_one_process_save_and_load(tmp_path):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    model, optimizer, parameters = made()
    run(optimizer, parameters, 3)
    weights, state = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=tmp_path / "dcp")
    expected = run(optimizer, parameters, 2, first=3)

    model, again, parameters = made()
    weights, state = get_state_dict(model, again)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=tmp_path / "dcp")
    set_state_dict(model, again, model_state_dict=weights, optim_state_dict=state)
    for a, b in zip(run(again, parameters, 2, first=3), expected, strict=True):
        assert torch.equal(a, b)


BINARY = os.environ.get("PION_BINARY", str(ROOT / "build/release/apps/pion"))


@pytest.mark.skipif(not os.access(BINARY, os.X_OK), reason="needs the pion command: script/build")
def test_states_travel_between_python_and_the_command(tmp_path):
    # a run of the command is cut at step 2, its state goes through Python, and it goes on to the
    # same weights
    from safetensors.torch import load_file

    def command(*arguments):
        subprocess.run(
            [BINARY, "train", *arguments, "--no-report"], cwd=tmp_path, check=True,
            capture_output=True,
        )  # fmt: skip

    flags = ["--total_timesteps", "8192", "--eval_episodes", "2", "--checkpoint_every", "2"]
    command("snake", "--out", "run", *flags)
    checkpoints = tmp_path / "run/checkpoints"
    expected = load_file(checkpoints / "step_4/model.safetensors")
    shutil.rmtree(checkpoints / "step_4")
    (tmp_path / "run/result.json").unlink()
    file = checkpoints / "step_2/optimizer.safetensors"
    weights, state = load_file(checkpoints / "step_2/model.safetensors"), load_file(file)
    groups = {}
    for name, value in weights.items():
        rule = "adamw" if f"{name}.exp_avg" in state else "pion"
        groups.setdefault(rule, []).append((name, torch.nn.Parameter(value)))
    assert set(groups) == {"adamw", "pion"}
    optimizer = pion.PionAdamW([{"params": p, "rule": r} for r, p in groups.items()])
    pion.load_state(optimizer, file)
    file.unlink()
    pion.save_state(optimizer, file)
    written = load_file(file)
    assert written.keys() == state.keys()
    for name, value in written.items():
        assert value.dtype == state[name].dtype and torch.equal(value, state[name]), name
    command("--resume", "--out", "run")
    resumed = load_file(checkpoints / "step_4/model.safetensors")
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    run(optimizer, [p for group in groups.values() for _, p in group], 1)


def test_groups_survive_json(tmp_path):
    _, optimizer, parameters = made()
    run(optimizer, parameters, 2)
    saved = optimizer.state_dict()
    saved["param_groups"] = json.loads(json.dumps(saved["param_groups"]))
    _, again, others = made()
    again.load_state_dict(saved)
    for p, q in zip(others, parameters, strict=True):
        p.data.copy_(q)
    for a, b in zip(run(again, others, 2), run(optimizer, parameters, 2), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("rule", "changes", "told"),
    [
        ("adamw", {"step": ...}, "got none of step"),
        ("adamw", {"exp_avg_sq": ...}, "got none of exp_avg_sq"),
        ("adamw", {"step": -1}, "step of .* must be the number of steps taken"),
        ("adamw", {"step": torch.tensor(torch.nan)}, "step of .* must be the number"),
        ("adamw", {"step": torch.ones(2)}, "step of .* must be the number"),
        ("adamw", {"step": None}, "step of .* must be the number"),
        ("muon", {"step": 1.5}, "step of .* must be the number"),
        ("muon", {"momentum_buffer": None}, "momentum_buffer of .* must be a tensor, got NoneType"),
        ("muon", {"counters": 3}, "counters of .* must be a tensor, got int"),
    ],
)
def test_a_state_that_is_not_whole_changes_nothing(rule, changes, told):
    weights = [parameter((4, 3)) for _ in range(2)]
    made = [pion.PionAdamW([{"params": [w], "rule": rule}], lr=0.1) for w in weights]
    for optimizer, weight, steps in zip(made, weights, (3, 2), strict=True):
        run(optimizer, [weight], steps)
    saved = copy.deepcopy(made[0].state_dict())
    saved["param_groups"][0]["lr"] = 0.7
    own = saved["state"][0]
    own |= changes
    saved["state"][0] = {key: value for key, value in own.items() if value is not ...}
    before = copy.deepcopy(made[1].state_dict())
    with pytest.raises(ValueError, match=told):
        made[1].load_state_dict(saved)
    now = made[1].state_dict()
    assert now["param_groups"] == before["param_groups"]
    for key, value in before["state"][0].items():
        assert torch.equal(now["state"][0][key], value), key


def test_a_file_that_is_no_safetensors_file_is_named(tmp_path):
    (tmp_path / "junk").write_bytes(b"junk!")
    with pytest.raises(ValueError, match=f"{tmp_path}/junk must be a safetensors file"):
        pion.load_state(pion.Muon([parameter((4, 3))]), tmp_path / "junk")
