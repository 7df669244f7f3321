# SPDX-License-Identifier: Apache-2.0
"""Signals, removed directories and limits: every run ends with a word on how to go on."""

import fcntl
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import time

import pytest
from cli_command import (
    BAD_INPUT,
    BINARY,
    FAILED,
    INTERRUPTED,
    UNTRAINED,
    has_checkpoint,
    metrics,
    needs_binary,
    pion,
    started,
    wait_until,
)

pytestmark = needs_binary

# runs of some seconds each
LONG = ["--planted.width=64", "--planted.steps=60000", "--checkpoint_every=500"]
ONE_RUN = ["compare", "small.toml", "--optimizers", "muon", "--seeds", 1, *LONG, "--out", "c"]
RUN = "c/muon-lr0.001-seed1"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
# a policy that is trained first, and what begins with it
BASE = """\
task = "sft"
checkpoint_every = 20
[data]
kinds = "d?d"
[model]
hidden_size = 16
layers = 1
heads = 2
kv_heads = 1
head_dim = 8
mlp_size = 16
context = 64
[sft]
updates = 600
batch_size = 8
[eval]
problems = 4
max_new_tokens = 16
"""
RL = """\
task = "rlvr"
[data]
kinds = "d?d"
[model]
start = "base.toml"
[rl]
updates = 2
prompts = 2
samples = 2
max_new_tokens = 16
[eval]
problems = 4
max_new_tokens = 16
[compare]
optimizers = "adamw"
seeds = 1
[compare.grid]
adamw = [1e-3]
"""


def advised(output):
    """The words after "continue with: pion" in what a command printed."""
    return shlex.split(output.split("continue with: pion ")[1].splitlines()[0])


def output(folder):
    return (folder / "output").read_text()


def statuses(root):
    return {run["status"] for run in json.loads((root / "compare.json").read_text())["runs"]}


@pytest.mark.parametrize("kill", SIGNALS)
def test_a_run_is_saved_and_says_how_to_go_on(folder, kill):
    out = "a run's folder"  # the advice has to survive a shell
    process = started(folder, "train", "small.toml", *LONG, "--out", out, "--no-report")
    wait_until(lambda: has_checkpoint(folder / out), process)
    process.send_signal(kill)
    assert process.wait(timeout=60) == INTERRUPTED
    words = advised(output(folder))
    assert words == ["train", "--resume", "--out", out]
    again = started(folder, *words)
    wait_until(lambda: "resumed at update" in output(folder), again)
    again.kill()
    again.wait()


def test_a_hang_up_that_nohup_ignores_stops_nothing(folder):
    process = started(
        folder,
        *["train", "small.toml", *LONG, "--out", "r", "--no-report"],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_until(lambda: has_checkpoint(folder / "r"), process)
    process.send_signal(signal.SIGHUP)
    before = len(metrics(folder / "r"))
    wait_until(lambda: len(metrics(folder / "r")) > before + 20, process)
    process.kill()
    process.wait()


@pytest.mark.parametrize("kill", SIGNALS)
def test_a_comparison_cut_in_its_last_run_says_how_to_go_on(folder, kill):
    process = started(folder, *ONE_RUN)
    wait_until(lambda: has_checkpoint(folder / RUN), process)
    process.send_signal(kill)
    assert process.wait(timeout=60) == INTERRUPTED
    assert "none finished" not in output(folder) and not (folder / "c/report.html").exists()
    words = advised(output(folder))
    assert words == ["compare", "--resume", "--out", "c"]
    assert statuses(folder / "c") == {"pending"}
    again = started(folder, *words)
    wait_until(lambda: "resumed at update" in (folder / f"{RUN}.log").read_text(), again)
    again.send_signal(signal.SIGINT)
    assert again.wait(timeout=60) == INTERRUPTED


def test_a_comparison_that_is_killed_and_resumed_at_once_waits_for_its_child(folder):
    process = started(folder, *ONE_RUN)
    wait_until(lambda: has_checkpoint(folder / RUN), process)
    process.kill()
    process.wait()
    # this process stands for a child in a long update: longer than who starts a run waits
    child = os.open(folder / RUN, os.O_RDONLY)
    fcntl.flock(child, fcntl.LOCK_EX)
    again = started(folder, "compare", "--resume", "--out", "c")
    wait_until(lambda: f"waiting for {RUN}" in output(folder), again)
    time.sleep(4)
    assert again.poll() is None and "resumed" not in (folder / f"{RUN}.log").read_text()
    os.close(child)
    wait_until(lambda: "resumed at update" in (folder / f"{RUN}.log").read_text(), again)
    again.send_signal(signal.SIGINT)
    assert again.wait(timeout=60) == INTERRUPTED
    assert statuses(folder / "c") == {"pending"}


def test_who_waits_for_an_earlier_child_can_be_interrupted(folder):
    process = started(folder, *ONE_RUN)
    wait_until(lambda: has_checkpoint(folder / RUN), process)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    child = os.open(folder / RUN, os.O_RDONLY)
    fcntl.flock(child, fcntl.LOCK_EX)
    again = started(folder, "compare", "--resume", "--out", "c")
    wait_until(lambda: "waiting for" in output(folder), again)
    again.send_signal(signal.SIGINT)
    assert again.wait(timeout=60) == INTERRUPTED
    assert advised(output(folder)) == ["compare", "--resume", "--out", "c"]
    os.close(child)


@pytest.fixture
def with_start(folder):
    """rl.toml begins with what base.toml trains."""
    (folder / "base.toml").write_text(BASE)
    (folder / "rl.toml").write_text(RL)
    return folder


@pytest.mark.parametrize("kill", SIGNALS)
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_signal_while_the_start_policy_is_trained(with_start, command, kill):
    words = [command, "rl.toml", "--out", "r"]
    environment = {**os.environ, "PION_BASES": str(with_start / "bases")}
    process = started(with_start, *words, env=environment)
    wait_until(lambda: any(map(has_checkpoint, (with_start / "bases").glob("*/"))), process)
    process.send_signal(kill)
    assert process.wait(timeout=60) == INTERRUPTED
    assert "run the same command again" in output(with_start)
    assert not (with_start / "r").exists()  # which would refuse that command
    # so few updates find no reward
    result = pion(*words, cwd=with_start, check=(0, UNTRAINED), environment=environment)
    assert "resumed at update" in result.stdout
    assert (with_start / "r/compare.json" if command == "compare" else with_start / "r").exists()


def test_a_comparison_can_be_interrupted_after_its_start_policy(with_start):
    environment = {**os.environ, "PION_BASES": str(with_start / "bases")}
    words = ["compare", "rl.toml", "--rl.updates=5000", "--out", "c"]
    process = started(with_start, *words, env=environment)
    wait_until(lambda: list((with_start / "c").glob("*/metrics.jsonl")), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == INTERRUPTED
    assert advised(output(with_start)) == ["compare", "--resume", "--out", "c"]


def test_who_waits_for_a_start_policy_can_be_interrupted(with_start):
    environment = {**os.environ, "PION_BASES": str(with_start / "bases")}
    maker = started(with_start, "train", "rl.toml", "--out", "r", env=environment)
    wait_until(lambda: any(map(has_checkpoint, (with_start / "bases").glob("*/"))), maker)
    maker.send_signal(signal.SIGSTOP)
    other = started(with_start, "compare", "rl.toml", "--out", "c", env=environment)
    wait_until(lambda: "waiting for" in output(with_start), other)
    other.send_signal(signal.SIGINT)
    assert other.wait(timeout=60) == INTERRUPTED
    assert "run the same command again" in output(with_start)
    maker.kill()
    maker.wait()


# Directories that go away.


def test_a_run_whose_directory_is_removed_is_no_complete_one(folder):
    process = started(folder, "train", "small.toml", *LONG, "--out", "r", "--no-report")
    wait_until(lambda: has_checkpoint(folder / "r"), process)
    while (folder / "r").exists():  # a checkpoint may be made meanwhile
        shutil.rmtree(folder / "r", ignore_errors=True)
    assert process.wait(timeout=60) == FAILED
    assert "run directory r was removed or renamed" in output(folder)
    assert "complete" not in output(folder)
    assert not (folder / "r").exists()


def test_a_comparison_whose_directory_is_removed_ends_by_an_error(folder):
    process = started(folder, *ONE_RUN)
    wait_until(lambda: has_checkpoint(folder / RUN), process)
    while (folder / "c").exists():
        shutil.rmtree(folder / "c", ignore_errors=True)
    assert process.wait(timeout=60) == FAILED
    assert "run directory c was removed or renamed" in output(folder)


def test_a_metrics_file_that_is_removed_is_noticed(folder):
    process = started(folder, "train", "small.toml", *LONG, "--out", "r", "--no-report")
    wait_until(lambda: has_checkpoint(folder / "r"), process)
    (folder / "r/metrics.jsonl").unlink()
    assert process.wait(timeout=60) == FAILED
    assert "r/metrics.jsonl: it was removed" in output(folder)


def test_a_kill_between_result_and_report_is_made_good_on_resume(folder):
    pion("train", "small.toml", "--out", "r", "--no-report", cwd=folder, check=0)
    (folder / "r/result.json.tmp123").write_text("{")  # of an earlier kill
    pion("train", "--resume", "--out", "r", "--no-report", cwd=folder, check=0)
    assert not (folder / "r/report.html").exists()
    pion("train", "--resume", "--out", "r", cwd=folder, check=0)
    assert (folder / "r/report.html").stat().st_size > 0
    assert not list((folder / "r").glob("*.tmp*"))


# What is wrong is said before anything is written.


def limited():
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "small.toml", "--threads=1024"], "threads: must be a number of threads that"),
        (["train", "snake", "--env.threads=1024"], "lower env.threads, or raise the limit"),
        (["compare", "small.toml", "--threads=1024"], "threads: must be a number of threads that"),
    ],
)
def test_threads_that_cannot_be_started_are_refused(folder, words, message):
    result = pion(*words, "--out", "r", cwd=folder, check=BAD_INPUT, preexec_fn=limited)
    assert message in result.stderr
    assert not (folder / "r").exists()


@pytest.mark.parametrize("command", ["train", "compare"])
@pytest.mark.parametrize(
    ("name", "value", "words", "message"),
    [
        ("PION_CPU_TARGET", "nope", [], "must be one of those that this machine supports"),
        ("PION_REPORT_ASSETS", "nowhere", [], "assets must be in nowhere, got no page.html"),
        ("PION_PYTHON", "/bin/false", ["--track", "wandb"], "-m pip install wandb"),
    ],
)
def test_what_the_environment_says_is_checked_before_anything_is_written(
    folder, command, name, value, words, message
):
    result = pion(
        *[command, "small.toml", "--out", "r", *words],
        cwd=folder,
        check=BAD_INPUT,
        environment={name: value},
    )
    assert message in result.stderr
    assert not (folder / "r").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizer.overrides=w*=matrix", "--optimizer.overrides=w*=rest"], "leave one out"),
        (["--optimizer.overrides=w*=nonsense"], 'must be "matrix", "rest" or a rule'),
        (["--compare.grid.nope=1e-3"], 'compare.grid.nope: unknown optimizer "nope"'),
        ([b"--compare.optimizers=\xff"], "compare.optimizers: must be UTF-8"),
    ],
)
def test_flags_that_would_leave_an_unreadable_recipe_are_refused(folder, words, message):
    result = subprocess.run(
        [BINARY, "train", "small.toml", *words, "--out", "r"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert result.returncode == BAD_INPUT
    assert message in result.stderr.decode(errors="replace")
    assert not (folder / "r").exists()


def test_a_flag_replaces_the_recipes_own_override(folder):
    with (folder / "small.toml").open("a") as recipe:
        recipe.write('[optimizer.overrides]\n"w*" = "rest"\n')
    words = ["train", "small.toml", "--optimizer.overrides=w*=matrix", "--out", "r"]
    pion(*words, "--no-report", cwd=folder, check=0)
    assert 'rule = "pion"' in (folder / "r/routing.toml").read_text()
    pion("train", "--resume", "--out", "r", cwd=folder, check=0)


def test_a_message_quotes_a_long_value_shortened(folder):
    for words in (["--planted.steps=" + "9" * 126_000], ["--" + "x" * 126_000]):
        result = pion("train", "small.toml", *words, cwd=folder, check=BAD_INPUT)
        assert len(result.stderr) < 1000
        assert "bytes ...]" in result.stderr
