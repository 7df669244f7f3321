# SPDX-License-Identifier: Apache-2.0
"""Files that come from elsewhere run no code: docs/security.md, by the command.

How a worker is confined is tested in lab/rewards/confinement_test.cc.
"""

import importlib.util
import json

import numpy
import pytest
import safetensors.numpy
from cli_command import BAD_INPUT, UNTRAINED, needs_binary, pion

pytestmark = needs_binary

ENDED = (0, UNTRAINED)  # so few updates may find no reward to learn from
CHARACTERS = [*"0123456789+=:\\{}boxedanswr<>/\n", ""]  # the last one ends a text
END = len(CHARACTERS) - 1
MODEL = """\
[model]
hidden_size = 16
layers = 1
heads = 2
kv_heads = 1
head_dim = 8
mlp_size = 16
context = 40
[eval]
problems = 4
max_new_tokens = 8
shown = 1
"""
SFT = "updates = 1\nbatch_size = 4\n"
RL = "updates = 1\nprompts = 2\nsamples = 2\nmax_new_tokens = 8\n"
RULE = '[optimizer.matrices]\nrule = "adamw"\nlr = 1e-3\n'


def column(name, rows, dtype):
    offsets = numpy.cumsum([0, *map(len, rows)]).astype(numpy.int64)
    flat = numpy.array([value for row in rows for value in row], dtype)
    return {name: flat, name + "_offsets": offsets}


def write_problems(path, verifier, extra=""):
    """Sums of digits as `python -m pion.prepare` writes them; the verifier is what it is."""

    def tokens(text):
        return [CHARACTERS.index(character) for character in text]

    sums = [(a, b) for a in range(1, 7) for b in range(1, 5)]
    texts = [f"{a}+{b}" for a, b in sums]
    solutions = [[*tokens(f"\\boxed{{{a + b}}}"), END] for a, b in sums]
    content = {
        **column("prompt", [tokens(text + "\n") for text in texts], numpy.int32),
        **column("solution", solutions, numpy.int32),
        **column("answer", [str(a + b).encode() for a, b in sums], numpy.uint8),
        **column("extra", [extra.encode()] * len(sums), numpy.uint8),
        **column("text", [text.encode() for text in texts], numpy.uint8),
        **column("vocabulary", [each.encode() for each in CHARACTERS], numpy.uint8),
        "split": numpy.array([i % 4 == 0 for i in range(len(sums))], numpy.uint8),
    }
    metadata = {"format": "pion-problems", "version": "1", "name": "sums", "verifier": verifier}
    metadata |= {"stop_tokens": json.dumps([END]), "pad_token": "[]", "strip": "none"}
    metadata |= {"tokenizer": "", "source": "", "wording": ""}
    path.write_bytes(safetensors.numpy.save(content, metadata))


@pytest.fixture
def place(tmp_path):
    """Recipes, a file that is as it should be, and one that names a module which leaves a trace."""
    write_problems(tmp_path / "good.safetensors", "boxed")
    write_problems(tmp_path / "bad.safetensors", "trace:score")
    (tmp_path / "trace.py").write_text("open('TRACE', 'w').close()\nscore = len\n")
    (tmp_path / "mine.py").write_text("def score(*arguments):\n    return 1.0\n")
    source = '[data]\nsource = "good.safetensors"\n'
    for name, table in (("sft", SFT), ("rl", RL)):
        task = {"sft": "sft", "rl": "rlvr"}[name]
        text = f'task = "{task}"\n{source}[{name}]\n{table}{RULE}{MODEL}'
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


def refused(place, *words, says):
    """`words` end with bad input and say why; no trace was left, though nothing confined it."""
    result = pion(*words, "--unconfined", cwd=place, check=BAD_INPUT)
    assert says in result.stderr, result.stderr
    assert not (place / "TRACE").exists()


ONLY = "a file may name the verifier boxed, hash, last_number, math_verify or reasoning_gym"


@pytest.mark.parametrize(
    "verifier", ["trace:score", "os:execl", "reasoning_gym+countdown", "\x1b[2J"]
)
def test_a_problem_file_names_no_function(place, verifier):
    write_problems(place / "bad.safetensors", verifier)
    for recipe in ("rl.toml", "sft.toml"):
        words = ["train", recipe, "--out", "run"]
        refused(place, *words, "--data.source=bad.safetensors", says=ONLY)
        refused(place, *words, "--eval.retention=bad.safetensors", says=ONLY)
        refused(place, *words, "--data.source=bad.safetensors", "--dry-run", says=ONLY)
    assert "\x1b" not in pion("train", "rl.toml", "--data.source=bad.safetensors", cwd=place).stderr
    assert not (place / "run").exists()


def test_nor_does_one_in_an_evaluation_or_a_comparison(place):
    pion("train", "rl.toml", "--out", "run", "--no-report", cwd=place, check=ENDED)
    refused(place, "eval", "run", "--eval.retention=bad.safetensors", says=ONLY)
    write_problems(place / "good.safetensors", "trace:score")  # exchanged under the run
    refused(place, "eval", "run", says=ONLY)
    words = ["--optimizers=adamw", "--grid=adamw=1e-3", "--seeds=1", "--unconfined"]
    result = pion("compare", "rl.toml", "--out", "compared", *words, cwd=place)
    assert result.returncode != 0 and ONLY in result.stdout + result.stderr
    assert not (place / "TRACE").exists()


def test_the_user_names_what_judges_in_every_task(place):
    words = ["--data.source=bad.safetensors", "--reward=mine:score", "--no-report"]
    words += ["--eval.retention=bad.safetensors", "--eval.retention_verifier=mine:score"]
    for recipe in ("rl.toml", "sft.toml"):
        out = recipe.partition(".")[0]
        pion("train", recipe, *words, "--out", out, cwd=place, check=ENDED)
        metrics = json.loads((place / out / "result.json").read_text())["metrics"]
        assert metrics["accuracy"] == metrics["retention_accuracy"] == 1.0
    assert not (place / "TRACE").exists()


def test_a_runs_own_recipe_names_nobody_without_the_user(place):
    pion("train", "rl.toml", "--reward=mine:score", "--out=run", "--no-report", cwd=place, check=ENDED)
    again = "you name it again: --rl.verifier=mine:score"
    refused(place, "eval", "run", says=again)
    refused(place, "train", "--resume", "--out=run", says=again)
    refused(place, "train", "run", "--resume", says=again)
    refused(place, "train", "--resume", "--out=run", "--dry-run", says=again)
    refused(place, "train", "run/recipe.toml", "--resume", "--out=run", says=again)
    refused(place, "train", "rl.toml", "--resume", "--out=run", says=again)
    for words in (["eval", "run"], ["train", "--resume", "--out=run"]):
        pion(*words, "--reward=mine:score", cwd=place, check=ENDED)
    # judged by what is built in, nobody else is asked
    pion("eval", "run", "--reward=boxed", cwd=place, check=ENDED)
    # a recipe that the user hands over speaks for him
    text = (place / "rl.toml").read_text().replace("[rl]\n", '[rl]\nverifier = "mine:score"\n')
    (place / "rl.toml").write_text(text)
    pion("train", "rl.toml", "--resume", "--out=run", cwd=place, check=ENDED)
    # an arm of the saved recipe, named by a flag, is still the recipe's word
    recipe = place / "run/recipe.toml"
    text = recipe.read_text().replace("mine:score", "boxed")
    text += '\n[compare.settings.evil]\nrule = "adamw"\n"rl.verifier" = "trace:score"\n'
    recipe.write_text(text)
    refused(place, "eval", "run", "--optimizer=evil", says="--rl.verifier=trace:score")


def test_a_comparison_is_resumed_with_the_users_word(place):
    grid = ["--optimizers=adamw", "--grid=adamw=1e-3", "--seeds=1"]
    words = ["compare", "rl.toml", "--out=compared"]
    pion(*words, *grid, "--reward=mine:score", cwd=place, check=ENDED)
    resume = ["compare", "--resume", "--out=compared"]
    refused(place, *resume, says="you name it again: --rl.verifier=mine:score")
    refused(place, *resume, "--reward=other:score", says="--rl.verifier=mine:score")
    (place / "compared/adamw-lr0.001-seed1/result.json").unlink()  # as if it were killed
    pion(*resume, "--reward=mine:score", cwd=place, check=ENDED)
    path = place / "compared/compare.json"
    path.write_text(path.read_text().replace("mine:score", "trace:score"))
    refused(place, *resume, "--reward=mine:score", says="--rl.verifier=trace:score")


def test_a_start_policys_recipe_names_no_function(place):
    text = (place / "sft.toml").read_text()
    (place / "start.toml").write_text(text.replace("[sft]\n", '[sft]\nverifier = "trace:score"\n'))
    flags = ["--model.start=start.toml", "--out=run"]
    recipe = (place / "rl.toml").read_text()
    (place / "rl.toml").write_text(recipe.partition("[model]")[0] + "[eval]\nproblems = 4\n")
    refused(place, "train", "rl.toml", *flags, says='has sft.verifier = "trace:score"')


def test_no_file_lifts_the_confinement(place):
    text = (place / "rl.toml").read_text()
    (place / "rl.toml").write_text("unconfined = true\n" + text)
    refused(place, "train", "rl.toml", says='unknown key "unconfined"')


def test_a_key_without_effect_is_refused(place):
    says = "eval.retention_verifier = boxed has no effect"
    refused(place, "train", "rl.toml", "--eval.retention_verifier=boxed", says=says)


@pytest.mark.skipif(not importlib.util.find_spec("reasoning_gym"), reason="needs reasoning-gym")
def test_scorers_that_evaluate_are_refused_at_the_start_unless_named(place):
    entry = {"question": "", "answer": "3", "metadata": {"numbers": [1, 2], "target": 3}}
    extra = json.dumps({"dataset": "countdown", "entry": entry})
    write_problems(place / "gym.safetensors", "reasoning_gym", extra)
    words = ["train", "rl.toml", "--data.source=gym.safetensors", "--dry-run"]
    refused(place, *words, says="--reward reasoning_gym+countdown")
    pion(*words, "--reward=reasoning_gym+countdown", cwd=place, check=ENDED)
