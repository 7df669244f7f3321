# SPDX-License-Identifier: Apache-2.0
"""Files from elsewhere, by the command and the Python package: deep nesting, names that lead out
of a folder, links in the place of files, and what a terminal would obey."""

import json
import os

import numpy
import pytest
import safetensors.numpy
from cli_command import BAD_INPUT, FAILED, RECIPE, needs_binary, pion

from pion import outside_text

DEEP = "[" * 100_000
DOTTED = ".".join(["a"] * 30_000)


# The Python package.


def test_json_of_any_kind_is_a_value_or_the_error_that_was_asked_for():
    assert outside_text.json_value('{"a": [1]}', "x.json") == {"a": [1]}
    for text, said in (
        (DEEP, "x.json: nests too deep"),
        ("{", "x.json: is no JSON"),
        (b"\xff", "x.json: is no JSON"),
    ):
        with pytest.raises(KeyError, match=said):
            outside_text.json_value(text, "x.json", KeyError)


def test_what_a_terminal_obeys_is_shown():
    plain = "a\tb\nc é 漢 🙂 \\x1b"
    assert outside_text.printable(plain) == plain
    shown = outside_text.printable("\x1b[31m\a\r\x7f \x9b \u202e \ud800\0")
    assert shown == "\\x1b[31m\\x07\\x0d\\x7f \\u009b \\u202e \\ud800\\x00"


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_prepare_names_a_deep_file_of_the_model(name, tmp_path):
    prepare_fixture = pytest.importorskip("prepare_fixture")
    model = prepare_fixture.save(prepare_fixture.byte_level(), tmp_path / "m")
    (model / name).write_text('{"max_position_embeddings": ' + DEEP)
    rows = [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(60)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("a.jsonl", "--tokenizer", "m", "--out", "o.safetensors", "--held-out", 0.3)
    error = prepare_fixture.prepare(*words, cwd=tmp_path, check=1).stderr
    assert "deep" in error or "recursion" in error  # transformers reads config.json before us
    assert "Traceback" not in error
    assert not (tmp_path / "o.safetensors").exists()


def test_prepare_prints_no_escapes_and_writes_through_no_link(tmp_path):
    prepare_fixture = pytest.importorskip("prepare_fixture")
    rows = [{"question": f"\x1b[2J{i}?", "answer": f"#### {i}"} for i in range(60)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(text + '{"question": "\\u001b[1m", "answer": "\x7f"}\n')
    words = ("a.jsonl", "--tokenizer", "characters", "--out", "o.safetensors", "--held-out", 0.3)
    error = prepare_fixture.prepare(*words, cwd=tmp_path, check=1).stderr
    assert "\x1b" not in error
    assert "\x7f" not in error
    (tmp_path / "a.jsonl").write_text(text)
    out = prepare_fixture.prepare(*words, cwd=tmp_path).stdout
    assert "\x1b" not in out
    kept = tmp_path / "o-tokenizer/tokenizer_config.json"
    (tmp_path / "mine").write_text("mine")
    kept.unlink()
    kept.symlink_to(tmp_path / "mine")
    error = prepare_fixture.prepare(*words, cwd=tmp_path, check=1).stderr
    assert "is a link" in error
    assert (tmp_path / "mine").read_text() == "mine"


# The command.


@needs_binary
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[compare.settings."../../x"]\nrule = "muon"', "an optimizer's name must be"),
        ('"../x" = [1]', "an optimizer's name must be"),  # RECIPE ends with its grids
        ('[compare.settings."\\u001b[2J"]\nrule = "muon"', "an optimizer's name must be"),
        (f"{DOTTED} = 1", "nest too deep"),
        (f"x = {DEEP}", "nest too deep"),
        ("é = 1", "only texts and comments may hold"),
    ],
)
def test_a_recipe_from_elsewhere_writes_nothing(more, message, folder):
    (folder / "bad.toml").write_text(f"{RECIPE}\n{more}\n")
    for words in (("compare", "bad.toml", "--out", "a/b/c"), ("train", "bad.toml")):
        said = pion(*words, cwd=folder, check=BAD_INPUT).stderr
        assert message in said
        assert "\x1b" not in said
    assert sorted(path.name for path in folder.iterdir()) == ["bad.toml", "small.toml"]


@needs_binary
def test_names_of_compared_optimizers_are_no_paths(folder):
    for words in (["--optimizers", "muon,../x"], ["--grid", "a/x=1"]):
        said = pion("compare", "small.toml", *words, cwd=folder, check=BAD_INPUT).stderr
        assert "an optimizer's name must be" in said


@needs_binary
def test_deep_files_end_in_messages(folder):
    model = folder / "model"
    model.mkdir()
    safetensors.numpy.save_file({"a.weight": numpy.ones((4, 4), "f4")}, model / "x.safetensors")
    index = model / "model.safetensors.index.json"
    index.write_text('{"weight_map": ' + "{" * 100_000)
    assert "weight_map" in pion("inspect", model, cwd=folder, check=BAD_INPUT).stderr
    index.write_text('{"weight_map": {"a.weight": "../model/x.safetensors"}}')
    assert "files of this folder" in pion("inspect", model, cwd=folder, check=BAD_INPUT).stderr
    (model / "config.json").write_text('{"a":' + DEEP)
    said = pion("inspect", model / "x.safetensors", cwd=folder, check=BAD_INPUT).stderr
    assert "100 levels" in said
    said = pion("generate", model, "--tokens", "1", cwd=folder, check=BAD_INPUT).stderr
    assert "100 levels" in said
    (folder / "bench.json").write_text(DEEP)
    said = pion("bench", "--from", "bench.json", cwd=folder, check=BAD_INPUT).stderr
    assert "nests too deep" in said
    run = folder / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text(DEEP + "\n")
    for name in ("result.json", "sample.json", "environment.json"):
        (run / name).write_text('{"a":' + DEEP)
    (run / "recipe.toml").write_text(DOTTED + " = 1")
    (run / "routing.toml").write_text(DOTTED + " = 1")
    pion("report", run, cwd=folder, check=0)
    (run / "compare.json").write_text('{"runs":' + DEEP)
    assert "compare.json must" in pion("report", run, cwd=folder, check=BAD_INPUT).stderr


@needs_binary
def test_no_escapes_of_a_file_are_printed(folder):
    name = "a\x1b[31m\u202e.weight"
    safetensors.numpy.save_file({name: numpy.ones((4, 4), "f4")}, folder / "m.safetensors")
    shown = pion("inspect", "m.safetensors", cwd=folder)
    assert "a\\x1b[31m\\u202e.weight" in shown.stdout + shown.stderr
    assert "\x1b" not in shown.stdout + shown.stderr
    (folder / "bad.toml").write_text('"\\u001b[2J" = 1\n' + RECIPE)
    said = pion("train", "bad.toml", cwd=folder, check=BAD_INPUT).stderr
    assert "\\x1b[2J" in said
    assert "\x1b" not in said


@needs_binary
def test_links_in_a_run_are_not_followed(folder):
    pion("train", "small.toml", "--out", "r", cwd=folder, check=0)
    kept = folder / "kept"
    kept.write_text("kept\n")
    run = folder / "r"
    for name in ("report.html", "report.html.partial"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(kept)
    pion("report", "r", cwd=folder, check=0)
    assert not (run / "report.html").is_symlink()
    # a run that goes on
    (run / "result.json").unlink()
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(kept)
    said = pion("train", "--resume", "--out", "r", cwd=folder, check=FAILED).stderr
    assert "metrics.jsonl: it is a link" in said
    (run / "metrics.jsonl").unlink()
    (run / "checkpoints").rename(folder / "elsewhere")
    (run / "checkpoints").symlink_to(folder / "elsewhere")
    before = sorted(os.listdir(folder / "elsewhere"))
    said = pion("train", "--resume", "--out", "r", cwd=folder, check=BAD_INPUT).stderr
    assert "checkpoints must be a folder of the run itself, got a link" in said
    assert sorted(os.listdir(folder / "elsewhere")) == before
    assert kept.read_text() == "kept\n"


@needs_binary
def test_a_comparison_from_elsewhere_reads_no_other_folder(folder):
    secret, comparison = folder / "secret", folder / "c/deep"
    secret.mkdir()
    comparison.mkdir(parents=True)
    (secret / "recipe.toml").write_text('task = "of-somebody-else"\n')
    (secret / "environment.json").write_text('{"command": "of-somebody-else"}')
    for path in (str(secret), "../../secret"):
        run = {"dir": path, "optimizer": "muon", "lr": 1, "seed": 1, "phase": "final",
               "status": "complete", "score": 1.0}  # fmt: skip
        (comparison / "compare.json").write_text(
            json.dumps({"optimizers": ["muon"], "best": {"muon": 1}, "runs": [run]})
        )
        pion("report", comparison, cwd=folder, check=0)
        assert "of-somebody-else" not in (comparison / "report.html").read_text()
