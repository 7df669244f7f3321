# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning and reinforcement learning by the command: arithmetic, and folders of transformers."""

import json
import signal

import numpy
import pytest
import safetensors.numpy
from cli_command import (
    BAD_INPUT,
    killed_run,
    metrics,
    model,
    needs_binary,
    pion,
    same_weights,
)

pytestmark = needs_binary

MODEL = """\
[model]
hidden_size = 16
layers = 1
heads = 2
kv_heads = 1
head_dim = 8
mlp_size = 16
context = 40
"""
EVAL = """\
[eval]
problems = 8
max_new_tokens = 14
shown = 2
"""
BASE = f"""\
task = "sft"
[data]
kinds = "d+d,d-d"
[sft]
updates = 60
batch_size = 8
[optimizer.matrices]
rule = "adamw"
lr = 2e-2
[optimizer.rest]
lr = 2e-2
{MODEL}{EVAL}"""
RL = f"""\
task = "rlvr"
checkpoint_every = 2
[data]
kinds = "d+d"
[model]
start = "tiny_base"
[rl]
updates = 4
prompts = 4
samples = 4
max_new_tokens = 14
reward_format = 0.25
[optimizer.matrices]
rule = "pion"
lr = 1e-2
[compare]
optimizers = "muon,frozen"
seeds = 1
[compare.settings.frozen]
rule = "sgd"
[compare.grid]
muon = [1e-3, 1e-2]
frozen = [0.0]
{EVAL}retention = "d-d"
retention_problems = 8
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Recipes, and one folder of start policies for the whole module."""
    folder = tmp_path_factory.mktemp("rlvr")
    (folder / "tiny_base.toml").write_text(BASE)
    (folder / "tiny_rl.toml").write_text(RL)
    return folder


@pytest.fixture
def run(place):
    environment = {"PION_RECIPES": str(place), "PION_BASES": str(place / "bases")}

    def call(*words, cwd=place, check=0):
        return pion(*words, cwd=cwd, check=check, environment=environment)

    return call


def start_policy(place):
    """The model that tiny_base as it stands makes."""
    found = [
        path.parent / "model"
        for path in (place / "bases").glob("*/recipe.toml")
        if "\nupdates = 60 " in path.read_text()
    ]
    assert len(found) == 1
    return found[0]


def last_evaluation(folder):
    return [line for line in metrics(folder) if line["kind"] == "evaluation"][-1]["metrics"]


def test_a_start_policy_is_trained_once_and_kept(run, place):
    first = run("train", "tiny_rl", "--out", "first").stdout
    assert "training tiny_base once" in first
    assert "training tiny_base once" not in run("train", "tiny_rl", "--out", "again").stdout
    bases = [path for path in (place / "bases").iterdir() if path.is_dir()]
    assert len(bases) == 1 and (bases[0] / "model/config.json").exists()
    assert same_weights(model(place / "first"), model(place / "again"))
    # another policy is another folder
    (place / "tiny_base.toml").write_text(BASE.replace("updates = 60", "updates = 61"))
    assert "training tiny_base once" in run("train", "tiny_rl", "--out", "other").stdout
    (place / "tiny_base.toml").write_text(BASE)


def test_a_start_policy_is_of_a_number_of_threads(run, place, tmp_path):
    bases = tmp_path / "bases"
    environment = {"PION_RECIPES": str(place), "PION_BASES": str(bases)}

    def trained(threads, out):
        words = ["train", "tiny_rl", "--rl.updates=1", "--threads", threads, "--out", out]
        text = pion(*words, "--no-report", cwd=tmp_path, check=0, environment=environment).stdout
        return "training tiny_base once" in text

    assert trained(1, "one")
    assert trained(2, "two")  # not what one thread made
    assert not trained(2, "three")
    folders = [path for path in bases.iterdir() if path.is_dir()]
    assert len(folders) == 2


def test_metrics_evaluation_and_answers_of_a_run(run, place):
    if not (place / "first").exists():
        run("train", "tiny_rl", "--out", "first")
    updates = [line["metrics"] for line in metrics(place / "first") if line["kind"] == "update"]
    for update in updates:
        assert {"reward_mean", "format_rate", "entropy", "kl_to_start"} <= update.keys()
        assert 0 <= update["truncated"] <= 1 and update["answers"] % 16 == 0
    evaluation = last_evaluation(place / "first")
    for name in ("accuracy", "sampled_accuracy", "retention_accuracy", "kl_to_start"):
        assert evaluation[name] >= 0
    measures = json.loads((place / "first/result.json").read_text())["measures"]
    assert measures["retention_accuracy"] == evaluation["retention_accuracy"]
    # four updates: the last tenth is the fourth
    assert measures["reward_mean"] == updates[-1]["reward_mean"] and measures["update_rms"] > 0
    sample = json.loads((place / "first/sample.json").read_text())
    assert sample["kind"] == "answers" and len(sample["items"]) == 2
    assert {"text", "correct", "formatted"} <= sample["items"][0]["before"].keys()
    exported = safetensors.numpy.load_file(place / "first/model/model.safetensors")
    assert same_weights(exported, model(place / "first"))
    assert (place / "first/model/tokenizer.json").exists()
    assert "accuracy" in run("eval", "first").stdout


def test_a_killed_run_resumes_bit_for_bit(run, place, monkeypatch):
    monkeypatch.setenv("PION_RECIPES", str(place))
    monkeypatch.setenv("PION_BASES", str(place / "bases"))
    words = ["tiny_rl", "--rl.updates=12", "--rl.epochs=2"]
    run("train", *words, "--out", "whole", "--no-report")

    def begun(folder):
        return (folder / "checkpoints/step_2").exists()

    killed_run(place, "cut", begun, *words, kill=signal.SIGKILL)
    run("train", "--resume", "--out", "cut", "--no-report")
    assert same_weights(model(place / "whole"), model(place / "cut"))


def test_a_comparison_has_the_control_and_the_columns(run, place):
    result = run("compare", "tiny_rl", "--out", "compared")
    assert "reward mean" in result.stdout and "KL to start" in result.stdout
    comparison = json.loads((place / "compared/compare.json").read_text())
    assert comparison["columns"][0] == {"metric": "reward_mean", "title": "reward mean"}
    assert comparison["columns"][-1]["metric"] == "loss"
    final = {r["optimizer"]: r["metrics"] for r in comparison["runs"] if r["phase"] == "final"}
    assert final["frozen"]["update_rms"] == 0
    assert final["muon"]["update_rms"] > 0
    start = safetensors.numpy.load_file(start_policy(place) / "model.safetensors")
    frozen = safetensors.numpy.load_file(
        next((place / "compared").glob("frozen-*/model/model.safetensors"))
    )
    for name, weight in start.items():
        assert numpy.array_equal(weight, frozen[name]) == name.endswith("_proj.weight"), name


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--rl.method=gmpo", "--rl.aggregation=token_mean"], "gmpo"),
        (["--rl.samples=1"], "at least 2"),
        (["--rl.max_new_tokens=39"], "context of 40"),
        (["--model.hidden_size=64"], "has no effect"),
        (["--data.source=nowhere", "--data.kinds=dd?dd?dd"], "does not exist"),
        (["--rl.verifier=no_such_module:score"], "no_such_module"),
        (["--rl.unit_rms", "--optimizer.matrices.weight_decay=0.1"], "weight_decay must be 0"),
        (["--model.start=nobody"], "nobody"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(run, place, flags, says):
    result = run("train", "tiny_rl", "--out", "refused", *flags, check=BAD_INPUT)
    assert says in result.stderr, result.stderr
    assert not (place / "refused").exists()


def test_a_dry_run_trains_no_start_policy(run, place, tmp_path):
    result = pion(
        "train",
        "tiny_rl",
        "--dry-run",
        cwd=tmp_path,
        check=0,
        environment={"PION_RECIPES": str(place), "PION_BASES": str(tmp_path / "none")},
    )
    assert "q_proj" in result.stdout
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module", params=["Qwen2", "Qwen3"])
def foreign(request, tmp_path_factory):
    """A tiny random model of transformers with a byte-level tokenizer trained on the spot."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from prepare_fixture import CHAT, byte_level, save

    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = byte_level()
    save(tokenizer, folder, CHAT)
    torch.manual_seed(1)
    config = getattr(transformers, request.param + "Config")(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        tie_word_embeddings=request.param == "Qwen3",
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=0,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    rows = [
        {"problem": f"{a}+{b}", "answer": str(a + b), "solution": f"\\boxed{{{a + b}}}"}
        for a in range(10)
        for b in range(10)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder.parent / f"{request.param}.jsonl").write_text(lines)
    return folder


def test_a_folder_of_transformers_goes_through_and_back(foreign, tmp_path):
    import torch
    from prepare_fixture import prepare, read
    from transformers import AutoModelForCausalLM, AutoTokenizer

    data = tmp_path / "problems.safetensors"
    columns = ["--prompt-column", "problem", "--answer-column", "answer"]
    columns += ["--solution-column", "solution", "--verifier", "boxed"]
    source = foreign.parent / f"{foreign.name.rstrip('0')}.jsonl"
    prepare(source, "--tokenizer", foreign, "--out", data, *columns, cwd=tmp_path)
    evaluation = "\n[eval]\nproblems = 8\nmax_new_tokens = 12\nshown = 1\n"
    source_keys = f'[data]\nsource = "{data}"\n'
    (tmp_path / "sft.toml").write_text(
        f'task = "sft"\n{source_keys}[model]\nfolder = "{foreign}"\n[sft]\nupdates = 30\n'
        f'batch_size = 16\n[optimizer.matrices]\nrule = "adamw"\nlr = 1e-2\n'
        f"[optimizer.rest]\nlr = 1e-2\n{evaluation}"
    )
    (tmp_path / "rl.toml").write_text(
        f'task = "rlvr"\n{source_keys}[model]\nfolder = "tuned/model"\n[rl]\nupdates = 2\n'
        f"prompts = 4\nsamples = 4\nmax_new_tokens = 12\nreward_format = 0.5\n"
        f'[optimizer.matrices]\nrule = "muon"\nlr = 1e-2\n{evaluation}'
    )
    pion("train", "sft.toml", "--out", "tuned", cwd=tmp_path, check=0)
    pion("train", "rl.toml", "--out", "reinforced", cwd=tmp_path, check=0)
    evaluated = json.loads(pion("eval", "reinforced", cwd=tmp_path, check=0).stdout)
    assert 0 <= evaluated["metrics"]["accuracy"] <= 1

    final = tmp_path / "reinforced/model"
    weights = model(tmp_path / "reinforced")
    again = AutoModelForCausalLM.from_pretrained(final, dtype=torch.float32)
    for name, parameter in again.named_parameters():
        assert numpy.array_equal(parameter.detach().numpy(), weights[name]), name
    tokenizer = AutoTokenizer.from_pretrained(final)
    first = AutoTokenizer.from_pretrained(foreign)
    assert tokenizer("12+34").input_ids == first("12+34").input_ids
    # what pion answers greedily is what transformers answers
    sample = json.loads((tmp_path / "reinforced/sample.json").read_text())["items"][0]
    problem = next(problem for problem in read(data)[0] if problem["split"] == 1)
    assert problem["text"] == sample["prompt"]
    prompt = torch.tensor([problem["prompt"]])
    answer = again.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == sample["after"]["text"]


@pytest.mark.parametrize("foreign", ["Qwen2"], indirect=True)
def test_a_users_reward_and_answers_that_are_no_utf8(foreign, tmp_path):
    """A policy that knows nothing yet speaks in bytes; --reward names the user's own function."""
    from prepare_fixture import prepare

    data = tmp_path / "problems.safetensors"
    columns = ["--prompt-column", "problem", "--answer-column", "answer"]
    source = foreign.parent / f"{foreign.name.rstrip('0')}.jsonl"
    prepare(source, "--tokenizer", foreign, "--out", data, *columns, cwd=tmp_path)
    (tmp_path / "mine.py").write_text(
        "def score(prompt, response, reference, extra):\n"
        '    return {"correct": int(reference) % 2, "reward": len(response) % 2}\n'
    )
    (tmp_path / "rl.toml").write_text(
        f'task = "rlvr"\n[data]\nsource = "{data}"\n[model]\nfolder = "{foreign}"\n'
        f"[rl]\nupdates = 1\nprompts = 4\nsamples = 4\nmax_new_tokens = 12\n"
        f"[eval]\nproblems = 8\nmax_new_tokens = 12\nshown = 8\n"
    )
    pion("train", "rl.toml", "--reward=mine:score", "--out", "run", cwd=tmp_path, check=0)
    items = json.loads((tmp_path / "run/sample.json").read_text())["items"]
    assert any("\ufffd" in item["after"]["text"] for item in items)
    odd = [sum(map(int, item["prompt"].split("+"))) % 2 == 1 for item in items]
    assert [item["after"]["correct"] for item in items] == odd and len(set(odd)) == 2
