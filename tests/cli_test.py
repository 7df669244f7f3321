# SPDX-License-Identifier: Apache-2.0
"""The `pion` command from outside: bad input, what runs leave behind, comparisons, tracking."""

import json
import subprocess
import time

import numpy
import pytest
import safetensors.numpy
from cli_command import (
    BAD_INPUT,
    BINARY,
    FAILED,
    RECIPE,
    ROOT,
    metrics,
    model,
    needs_binary,
    newest,
    pion,
    same_weights,
)

pytestmark = needs_binary


# Bad input: message, exit code 1, nothing written.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], 'did you mean "train"?'),
        (["train"], "needs a RECIPE"),
        (["train", "smal"], "no file and no recipe"),
        (["train", "small.toml", "--ouut", "x"], 'did you mean "--out"?'),
        (["train", "small.toml", "--planted.stesp", "3"], 'did you mean "--planted.steps"?'),
        (["train", "small.toml", "--planted.steps", "0"], "planted.steps: must be in [1,"),
        (["train", "small.toml", "--planted.steps", "many"], "must be an integer"),
        (["train", "small.toml", "--muon-lr", "1e-2"], "--muon-lr: needs --use-muon"),
        (["train", "small.toml", "--optimizer", "pino"], 'did you mean "pion"?'),
        (["train", "small.toml", "--optimizer.matrices.cutof", "0.3"], 'did you mean "cutoff"?'),
        (["train", "small.toml", "--track", "mlflow"], "must be one of"),
        (["train", "small.toml", "--resume"], "no run directory"),
        (["compare", "small.toml", "--optimizers", "adamw,nuon"], 'did you mean "muon"?'),
        (["compare", "small.toml", "--grid", "adamw"], "must be OPTIMIZER=RATE"),
        (["compare", "small.toml", "--grid", "adamw="], "compare.grid.adamw: must be one"),
        (["compare", "small.toml", "--grid", "sgd=1e-3"], "there are: adamw, muon, pion"),
        (["compare", "small.toml", "--grid", "sgd=1", "--dry-run"], "is not compared"),
        (["compare", "small.toml", "--grid", "nope=1e-3"], 'unknown optimizer "nope"'),
        (["compare", "small.toml", "--optimizer.preset", "paper-rlvr"], "leave out"),
        (
            ["train", "small.toml", "--lr", "0.001", "--optimizer.preset=paper-rlvr"],
            "sets every rule itself",
        ),
        (["compare", "small.toml", "--resume"], "no comparison directory runs/small-compare"),
        (["compare", "--resume", "--out", "x"], "is no comparison directory"),
        (["compare"], "needs a RECIPE"),
        (["train", "small.toml", "--planted.steps"], "--planted.steps: needs a value"),
        (
            ["train", "small.toml", "--optimizer.final_lr_factor=0.1"]
            + ["--optimizer.schedule=constant"],
            "has no effect",
        ),
        (["inspect", "small.toml", "--samples", "-1"], "must be at least 0, got -1"),
        (["compare", "small.toml", "--jobs", "0"], "--jobs"),
        (["eval", "."], "no run directory"),
        (["report", "."], "report"),
        (["inspect", "missing.safetensors"], "no file"),
        (["inspect", "small.toml"], "safetensors"),
        (["recipes", "--sortt"], "unknown flag"),
    ],
)
def test_bad_input_says_what_and_how_to_mend(folder, words, message):
    result = pion(*words, cwd=folder, check=BAD_INPUT)
    assert message in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["small.toml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task = ", "bad.toml:1: is no TOML"),
        ("\x00\xff\x01", "is no TOML"),
        ("seed = 1", 'bad.toml: needs a key "task"'),
        ('task = "snak"', "bad.toml:1: "),
        (
            RECIPE.replace("rank = 2", "rnk = 2"),
            'bad.toml:6: unknown key "rnk" in [planted]; did you mean "planted.rank"?',
        ),
        (
            RECIPE.replace("rank = 2", 'rank = "two"'),
            "bad.toml:6: planted.rank: must be an integer",
        ),
        (
            RECIPE.replace("lr = 1e-3", "learning_rate = 1e-3"),
            'unknown key "learning_rate" in [optimizer.matrices]',
        ),
    ],
)
def test_a_bad_recipe_is_named_with_its_line(folder, text, message):
    (folder / "bad.toml").write_bytes(text.encode("latin-1"))
    assert message in pion("train", "bad.toml", cwd=folder, check=BAD_INPUT).stderr
    assert not (folder / "runs").exists()


def test_an_existing_run_directory_is_refused_and_untouched(folder):
    pion("train", "small.toml", "--out", "r", "--no-report", cwd=folder, check=0)
    before = {path: path.read_bytes() for path in (folder / "r").rglob("*") if path.is_file()}
    result = pion("train", "small.toml", "--out", "r", cwd=folder, check=BAD_INPUT)
    assert "--resume" in result.stderr and "--out" in result.stderr
    assert before == {
        path: path.read_bytes() for path in (folder / "r").rglob("*") if path.is_file()
    }


def test_a_resume_with_another_setting_is_refused(folder):
    pion("train", "small.toml", "--out", "r", "--no-report", cwd=folder, check=0)
    result = pion(
        "train",
        "small.toml",
        "--resume",
        "--out",
        "r",
        "--planted.steps",
        500,
        cwd=folder,
        check=BAD_INPUT,
    )
    assert "the run in r has 400" in result.stderr
    pion("train", "--resume", "--out", "r", "--planted.steps", 400, cwd=folder, check=0)


# What runs leave behind.


def test_a_dry_run_prints_recipe_and_routing_and_writes_nothing(folder):
    result = pion(
        "train", "small.toml", "--dry-run", "--use-muon", "--muon-lr", "0.02", cwd=folder, check=0
    )
    assert (
        'rule = "muon"' in result.stdout
        and "lr = 0.02" in result.stdout
        and "# Routing, 400 updates" in result.stdout
    )
    assert sorted(path.name for path in folder.iterdir()) == ["small.toml"]


def test_a_run_leaves_its_files_and_can_be_evaluated(folder):
    pion("train", "small.toml", "--seed", 3, cwd=folder, check=0)
    run = folder / "runs/small-pion-3"
    for name in (
        "recipe.toml",
        "routing.toml",
        "environment.json",
        "metrics.jsonl",
        "result.json",
        "report.html",
    ):
        assert (run / name).stat().st_size > 0, name
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "complete" and result["score_name"] == "excess_ratio"
    evaluated = json.loads(pion("eval", run, cwd=folder, check=0).stdout)
    assert evaluated["metrics"] == result["metrics"]
    # the saved recipe gives the same run
    pion("train", run / "recipe.toml", "--out", "again", "--no-report", cwd=folder, check=0)
    assert same_weights(model(run), model(folder / "again"))


def test_safetensors_agrees_with_the_python_package(folder):
    pion("train", "small.toml", "--out", "r", "--no-report", cwd=folder, check=0)
    path = newest(folder / "r") / "model.safetensors"
    weights = safetensors.numpy.load_file(path)  # ours, read by the package
    assert [value.shape for value in weights.values()] == [(16, 16)]
    (folder / "r/result.json").unlink()
    safetensors.numpy.save_file(weights, path)  # the package's, read by us
    pion("train", "--resume", "--out", "r", "--no-report", cwd=folder, check=0)
    assert same_weights(weights, model(folder / "r"))


def test_inspect_shows_routing_and_spectra(folder):
    tensors = {
        "model.embed_tokens.weight": numpy.ones((10, 4), numpy.float32),
        "model.layers.0.mlp.up_proj.weight": numpy.diag([4.0, 2.0, 1.0, 0.0]).astype(numpy.float32),
        "model.layers.0.input_layernorm.weight": numpy.ones(4, numpy.float32),
        "model.layers.0.mlp.experts.down_proj": numpy.ones((2, 4, 6), numpy.float32),
        "model.layers.1.mlp.experts.down_proj": numpy.ones((2, 2, 4, 6), numpy.float32),
    }
    safetensors.numpy.save_file(tensors, folder / "m.safetensors")
    text = pion("inspect", "m.safetensors", "--spectra", cwd=folder, check=0).stdout
    spectra = text.split("Singular values")[1]
    row = next(line for line in spectra.splitlines() if "up_proj" in line).split()
    assert float(row[3]) == 4.0  # sigma_max
    assert float(row[4]) == pytest.approx(21 / 16, abs=0.05)  # (16 + 4 + 1) / 16, one decimal
    assert "embed_tokens" not in spectra
    for layer, matrices in ((0, "2"), (1, "4")):  # every expert is one whole matrix
        row = next(r for r in spectra.splitlines() if f"{layer}.mlp.experts" in r).split()
        assert row[1:3] == [matrices, "4x6"]
    # the same model in two shards
    names = list(tensors)
    for i, part in enumerate((names[:1], names[1:])):
        safetensors.numpy.save_file(
            {name: tensors[name] for name in part}, folder / f"shard{i}.safetensors"
        )
    index = {
        "weight_map": {name: f"shard{0 if name in names[:1] else 1}.safetensors" for name in names}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (
        spectra
        == pion("inspect", folder, "--spectra", cwd=folder, check=0).stdout.split(
            "Singular values"
        )[1]
    )
    data = (folder / "m.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(data[:-5])
    assert "truncated" in pion("inspect", "cut.safetensors", cwd=folder, check=BAD_INPUT).stderr


def test_lists_and_version(folder):
    assert "planted_low_rank" in pion("recipes", cwd=folder, check=0).stdout
    keys = pion("recipes", "rlvr_arithmetic", cwd=folder, check=0).stdout
    for part in ("reinforce_plus_plus", "rl.kl_coefficient", "low_var_kl", "data.source"):
        assert part in keys
    assert "did you mean" in pion("recipes", "rlvr_aritmetic", cwd=folder, check=BAD_INPUT).stderr
    text = pion("optimizers", cwd=folder, check=0).stdout
    for name in ("pion", "muon", "adamw", "sgd", "cutoff", "paper-rlvr"):
        assert name in text
    assert pion("--version", cwd=folder, check=0).stdout.startswith("pion 0.")
    assert "--use-muon" in pion("train", "--help", cwd=folder, check=0).stdout


# Comparisons.


def test_a_comparison_tunes_then_runs_the_best_on_fresh_seeds(folder):
    words = ["compare", "small.toml", "--optimizers", "adamw,muon", "--seeds", 2, "--jobs", 2]
    result = pion(*words, cwd=folder, check=0)
    root = folder / "runs/small-compare"
    comparison = json.loads((root / "compare.json").read_text())
    runs = comparison["runs"]
    tuned = {run["lr"]: run["score"] for run in runs if run["phase"] == "tune"}
    assert set(tuned) == {1e-3, 1e-2}  # muon's grid has one rate
    assert comparison["best"] == {"adamw": min(tuned, key=tuned.get), "muon": 1e-3}
    assert (
        comparison["at_edge"]["adamw"] in ("lower", "upper") and "edge of its grid" in result.stdout
    )
    final = [(run["optimizer"], run["seed"]) for run in runs if run["phase"] == "final"]
    assert sorted(final) == [("adamw", 1), ("adamw", 2), ("muon", 1), ("muon", 2)]
    scores = [
        run["score"] for run in runs if run["phase"] == "final" and run["optimizer"] == "muon"
    ]
    assert f"{numpy.mean(scores):.5g} +- {numpy.std(scores, ddof=1) / 2**0.5:.5g}" in result.stdout
    assert (root / "report.html").exists()
    assert "--resume" in pion(*words, cwd=folder, check=BAD_INPUT).stderr
    # resumed: nothing runs again
    times = {path: path.stat().st_mtime_ns for path in root.glob("*/result.json")}
    pion(*words, "--resume", cwd=folder, check=0)
    assert times == {path: path.stat().st_mtime_ns for path in root.glob("*/result.json")}
    changed = pion(
        "compare", "small.toml", "--resume", "--planted.steps=7", cwd=folder, check=BAD_INPUT
    )
    assert "was started without it" in changed.stderr


def test_a_resume_of_the_wrong_kind_is_refused(folder):
    one_rate = ["--optimizers", "muon", "--seeds", 1, "--planted.steps=20"]
    pion("compare", "small.toml", *one_rate, "--out", "c", cwd=folder, check=0)
    run = next((folder / "c").glob("muon-*/")).relative_to(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def refusal(*words):
        return pion(*words, cwd=folder, check=BAD_INPUT).stderr

    assert "pion compare --resume --out c" in refusal("train", "--resume", "--out", "c")
    assert "pion compare --resume --out c" in refusal("train", "c", "--resume")
    assert f"one of its runs, as {run}" in refusal("eval", "c")
    assert "is a single run" in refusal("compare", "small.toml", "--resume", "--out", run)
    (folder / "other.toml").write_text('task = "least_squares"\n')
    message = refusal("compare", "other.toml", "--resume", "--out", "c")
    assert 'is of task "planted_regression", the recipe of "least_squares"' in message
    (folder / "other.toml").write_text(RECIPE.replace("rank = 2", "rank = 3"))
    message = refusal("compare", "other.toml", "--resume", "--out", "c")
    assert "another recipe than other.toml" in message
    (folder / "other.toml").unlink()
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    # the directory is enough, as for train; its name stays
    for words in (["c", "--resume"], ["--resume", "--out", "c"]):
        pion("compare", *words, cwd=folder, check=0)
        assert json.loads((folder / "c/compare.json").read_text())["recipe"] == "small"


def test_the_script_may_be_reached_by_a_link(folder):
    (folder / "pion").symlink_to(ROOT / "script/pion")
    result = subprocess.run(
        ["bash", "-x", folder / "pion", "--version"], capture_output=True, text=True, check=False
    )
    assert f"command={ROOT}/build/release/apps/pion" in result.stderr


def test_a_killed_comparison_resumes(folder):
    words = [
        "compare",
        "small.toml",
        "--optimizers",
        "adamw,muon",
        "--seeds",
        2,
        "--planted.steps=3000",
    ]
    words += [
        "--optimizer.overrides=w*=matrix",
        "--optimizer.overrides=*t=matrix",
    ]  # both must come back
    process = subprocess.Popen([BINARY, *map(str, words)], cwd=folder, stdout=subprocess.DEVNULL)
    root = folder / "runs/small-compare"
    while not list(root.glob("*/result.json")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    pion(*words, "--resume", cwd=folder, check=0)
    runs = json.loads((root / "compare.json").read_text())["runs"]
    assert {run["status"] for run in runs} == {"complete"}
    assert '"w*" = "matrix"' in (root / runs[-1]["dir"] / "recipe.toml").read_text()
    assert '"*t" = "matrix"' in (root / runs[-1]["dir"] / "recipe.toml").read_text()


def test_a_failing_run_is_reported_and_kept_apart(folder):
    # a rank above the width is an error of that task, seen only when it runs
    words = [
        "compare",
        "small.toml",
        "--optimizers",
        "adamw,muon",
        "--seeds",
        1,
        "--planted.rank=17",
        "--grid",
        "adamw=1e-3",
    ]
    result = pion(*words, cwd=folder, check=FAILED)
    assert "FAILED: exit status 1" in result.stdout and "none finished" in result.stdout


# Tracking.


def test_tensorboard_mirrors_the_metrics(folder):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pion(
        "train",
        "small.toml",
        "--out",
        "r",
        "--no-report",
        "--track",
        "tensorboard",
        cwd=folder,
        check=0,
    )
    events = reader.EventAccumulator(str(folder / "r/tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    mirrored = [(event.step, event.value) for event in events.Scalars("train/excess_ratio")]
    written = [
        (line["step"], line["metrics"]["excess_ratio"])
        for line in metrics(folder / "r")
        if line["kind"] == "update"
    ]
    assert [step for step, _ in mirrored] == [step for step, _ in written]
    # event files hold f32
    assert [value for _, value in mirrored] == [numpy.float32(value) for _, value in written]
    assert "eval/excess_ratio" in events.Tags()["scalars"]


def test_a_missing_tracker_is_refused_before_anything_is_written(folder):
    python = folder / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    result = pion(
        "train",
        "small.toml",
        "--out",
        "r",
        "--track",
        "wandb",
        cwd=folder,
        check=BAD_INPUT,
        environment={"PION_PYTHON": str(python)},
    )
    assert "-m pip install wandb" in result.stderr
    assert not (folder / "r").exists()
