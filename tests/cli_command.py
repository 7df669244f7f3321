# SPDX-License-Identifier: Apache-2.0
"""Drives the `pion` command for the tests beside this file.

PION_BINARY names the command; default build/release/apps/pion.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy
import pytest
import safetensors.numpy

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("PION_BINARY", ROOT / "build/release/apps/pion"))
needs_binary = pytest.mark.skipif(not BINARY.exists(), reason=f"{BINARY} is not built")

BAD_INPUT, FAILED, UNTRAINED, INTERRUPTED = 1, 2, 3, 130
RECIPE = """\
task = "planted_regression"
checkpoint_every = 50

[planted]
width = 16
rank = 2
batch = 8
steps = 400

[optimizer]
schedule = "linear"

[optimizer.matrices]
rule = "pion"
lr = 1e-3

[compare.grid]
adamw = [1e-3, 1e-2]
muon = [1e-3]
"""


def pion(*words, cwd, check=None, environment=None, **options):
    result = subprocess.run(
        [BINARY, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **(environment or {})},
        **options,
    )
    if check is not None:
        allowed = check if isinstance(check, tuple) else (check,)
        assert result.returncode in allowed, result.stdout + result.stderr
    return result


def newest(run):
    return max((run / "checkpoints").glob("step_*"), key=lambda path: int(path.name[5:]))


def model(run):
    return safetensors.numpy.load_file(newest(run) / "model.safetensors")


def same_weights(a, b):
    return a.keys() == b.keys() and all(numpy.array_equal(a[name], b[name]) for name in a)


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def steps(run, kind):
    return [line["step"] for line in metrics(run) if line["kind"] == kind]


def killed_run(folder, out, when, *words, kill=signal.SIGKILL):
    """Starts a run and kills it once when(run) holds; returns its exit code."""
    command = [BINARY, "train", *map(str, words), "--out", out, "--no-report"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and not when(folder / out) and time.monotonic() < deadline:
        time.sleep(0.0005)
    if process.poll() is None:
        process.send_signal(kill)
    return process.wait(timeout=120)


SLOW = [
    "small.toml",
    "--planted.width=64",
    "--planted.steps=3000",
    "--checkpoint_every=20",
    "--log_every=1",
]


def started(folder, *words, **options):
    """A `pion` that runs on; its output is in the file output of the folder."""
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            [BINARY, *map(str, words)],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            **options,
        )


def wait_until(holds, process):
    """Until holds() is true; fails if the process ends before that, or in two minutes."""
    deadline = time.monotonic() + 120
    while not holds():
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline, "nothing happened for two minutes"
        time.sleep(0.005)


def has_checkpoint(run):
    return (run / "checkpoints").exists() and any((run / "checkpoints").glob("step_*"))


def is_saving(run):
    """A checkpoint stands and the next one is being written."""
    return has_checkpoint(run) and any((run / "checkpoints").glob(".unfinished_*"))
