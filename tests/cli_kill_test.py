# SPDX-License-Identifier: Apache-2.0
"""Killed runs, damaged checkpoints, full disks: what is saved stays, and resumes bit for bit."""

import json
import os
import resource
import signal
import subprocess

import pytest
import safetensors.numpy
from cli_command import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    ROOT,
    SLOW,
    has_checkpoint,
    is_saving,
    killed_run,
    model,
    needs_binary,
    newest,
    pion,
    same_weights,
    steps,
)

pytestmark = needs_binary


@pytest.mark.parametrize("when", [has_checkpoint, is_saving], ids=["training", "saving"])
def test_a_killed_run_resumes_to_the_weights_of_one_never_killed(folder, when):
    pion("train", *SLOW, "--out", "whole", "--no-report", cwd=folder, check=0)
    assert killed_run(folder, "cut", when, *SLOW) == -signal.SIGKILL
    assert not (folder / "cut/result.json").exists()
    assert has_checkpoint(folder / "cut")
    result = pion("train", "--resume", "--out", "cut", "--no-report", cwd=folder, check=0)
    assert "resumed at update" in result.stdout
    assert newest(folder / "cut").name == "step_3000"
    assert same_weights(model(folder / "whole"), model(folder / "cut"))
    assert steps(folder / "whole", "update") == steps(folder / "cut", "update")
    assert not list((folder / "cut/checkpoints").glob(".*"))
    results = [json.loads((folder / name / "result.json").read_text()) for name in ("whole", "cut")]
    assert results[0]["metrics"] == results[1]["metrics"]


def test_a_run_killed_before_its_first_checkpoint_starts_again(folder):
    words = ["small.toml", "--planted.width=64", "--planted.steps=2000", "--checkpoint_every=2000"]
    killed_run(folder, "cut", lambda run: (run / "metrics.jsonl").exists(), *words)
    assert not has_checkpoint(folder / "cut")
    pion("train", "--resume", "--out", "cut", "--no-report", cwd=folder, check=0)
    pion("train", *words, "--out", "whole", "--no-report", cwd=folder, check=0)
    assert same_weights(model(folder / "whole"), model(folder / "cut"))
    assert steps(folder / "whole", "update") == steps(folder / "cut", "update")


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_says_how_to_go_on(folder, kill):
    assert killed_run(folder, "cut", has_checkpoint, *SLOW, kill=kill) == INTERRUPTED
    assert steps(folder / "cut", "update")[-1] == int(newest(folder / "cut").name[5:])
    pion("train", "--resume", "--out", "cut", "--no-report", cwd=folder, check=0)
    pion("train", *SLOW, "--out", "whole", "--no-report", cwd=folder, check=0)
    assert same_weights(model(folder / "whole"), model(folder / "cut"))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "task.safetensors", "state.json"]
)
def test_a_truncated_checkpoint_is_named_and_an_earlier_one_serves(folder, name):
    assert (
        killed_run(folder, "cut", lambda run: len(list(run.glob("checkpoints/step_*"))) > 1, *SLOW)
        != 0
    )
    last = newest(folder / "cut")
    file = last / name
    file.write_bytes(file.read_bytes()[:-7])
    result = pion("train", "--resume", "--out", "cut", cwd=folder, check=BAD_INPUT)
    assert f"cut/checkpoints/{last.name}/{name}" in result.stderr
    assert "remove cut/checkpoints/" in result.stderr and "to resume from step" in result.stderr
    for each in last.iterdir():
        each.unlink()
    last.rmdir()
    pion("train", "--resume", "--out", "cut", "--no-report", cwd=folder, check=0)


def test_a_foreign_checkpoint_is_refused(folder):
    pion("train", "small.toml", "--out", "r", "--no-report", cwd=folder, check=0)
    pion(
        "train",
        "small.toml",
        "--planted.width=8",
        "--out",
        "other",
        "--no-report",
        cwd=folder,
        check=0,
    )
    (newest(folder / "other") / "model.safetensors").replace(
        newest(folder / "r") / "model.safetensors"
    )
    (folder / "r/result.json").unlink()
    result = pion("train", "--resume", "--out", "r", cwd=folder, check=BAD_INPUT)
    assert "model.safetensors" in result.stderr and "of another model" in result.stderr


def test_a_full_disk_keeps_what_is_saved(folder):
    # a file-size limit stands for the disk: 64 kB let state and metrics pass, not a 256 x 256 model
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64_000, 64_000))

    words = ["small.toml", "--planted.width=256", "--planted.steps=4", "--checkpoint_every=2"]
    pion("train", *words, "--out", "whole", "--no-report", cwd=folder, check=0)
    killed_run(folder, "cut", has_checkpoint, *words)
    saved = {
        path: path.read_bytes()
        for path in (folder / "cut/checkpoints").rglob("*")
        if path.is_file()
    }
    (folder / "cut/result.json").unlink(missing_ok=True)
    for path in list((folder / "cut/checkpoints").glob("step_4/*")):
        path.unlink()
    last = folder / "cut/checkpoints/step_4"
    if last.exists():
        last.rmdir()
    result = pion(
        "train",
        "--resume",
        "--out",
        "cut",
        "--no-report",
        cwd=folder,
        check=FAILED,
        preexec_fn=limit,
    )
    assert "not saved" in result.stderr and "free some space" in result.stderr
    left = {
        path: path.read_bytes()
        for path in (folder / "cut/checkpoints").rglob("*")
        if path.is_file()
    }
    assert left == {path: data for path, data in saved.items() if "step_2" in str(path)} != {}
    pion("train", "--resume", "--out", "cut", "--no-report", cwd=folder, check=0)
    assert same_weights(model(folder / "whole"), model(folder / "cut"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a small tmpfs")
def test_a_really_full_disk(folder):
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    try:
        # 256 x 256 f32: 256 KiB of weights and 256 KiB of momentum, so the second save does not fit
        words = ["small.toml", "--planted.width=256", "--planted.steps=4", "--checkpoint_every=2"]
        result = pion("train", *words, "--out", disk / "r", "--no-report", cwd=folder, check=FAILED)
        assert (
            "No space left" in result.stderr and "earlier checkpoints are intact" in result.stderr
        )
        assert [path.name for path in (disk / "r/checkpoints").iterdir()] == ["step_2"]
        assert safetensors.numpy.load_file(disk / "r/checkpoints/step_2/model.safetensors")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_killed_snake_run_resumes_to_the_same_weights(folder):
    recipe = ROOT / "lab/recipes/snake.toml"
    if not recipe.exists():
        pytest.skip("no recipe snake")
    words = [
        recipe,
        "--total-timesteps",
        40_960,
        "--env.environments=16",
        "--ppo.horizon=64",
        "--ppo.epochs=2",
        "--eval_episodes=4",
        "--checkpoint_every=4",
        "--d-model=32",
        "--num-layers=1",
    ]
    pion("train", *words, "--out", "whole", "--no-report", cwd=folder, check=0)
    assert killed_run(folder, "cut", has_checkpoint, *words) == -signal.SIGKILL
    pion("train", "--resume", "--out", "cut", "--no-report", cwd=folder, check=0)
    assert same_weights(model(folder / "whole"), model(folder / "cut"))
    assert steps(folder / "whole", "update") == steps(folder / "cut", "update")
