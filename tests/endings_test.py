# SPDX-License-Identifier: Apache-2.0
"""How runs end that learned nothing: diverged, collapsed, untrained, alone and in comparisons."""

import json

import pytest
from cli_command import BAD_INPUT, metrics, needs_binary, pion

pytestmark = needs_binary
NOTHING_LEARNED = 3

# A tiny policy of random weights on one-digit sums, which it never gets right.
POLICY = """\
task = "rlvr"
[data]
kinds = "d+d"
[model]
hidden_size = 16
layers = 1
heads = 2
kv_heads = 1
head_dim = 8
mlp_size = 16
context = 40
initializer_range = 0.2
[rl]
updates = 3
prompts = 4
samples = 4
max_new_tokens = 8
[optimizer.matrices]
rule = "adamw"
lr = 1e-3
[eval]
problems = 8
max_new_tokens = 8
shown = 1
"""
# Nothing is right, but answers are worth 0.35 or 0.7.
GRADED = """\
def score(prompt, response, reference, extra):
    return {"correct": False, "formatted": False, "reward": 0.35 * (1 + len(response) % 2)}
"""
# Worth something only while it says different things.
VARIED = """\
def score(prompt, response, reference, extra):
    return {"correct": False, "formatted": False, "reward": float(len(set(response)) > 3)}
"""
DIVERGES = ["least_squares", "--optimizer=sgd", "--optimizer.matrices.lr=1e20"]


@pytest.fixture
def policies(tmp_path):
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "graded.py").write_text(GRADED)
    (tmp_path / "varied.py").write_text(VARIED)
    return tmp_path


def result_of(run):
    return json.loads((run / "result.json").read_text())


def warnings_of(run):
    return [line["message"] for line in metrics(run) if line["kind"] == "warning"]


def updates_of(run):
    return [line["metrics"] for line in metrics(run) if line["kind"] == "update"]


def test_a_run_that_diverged_says_so(folder):
    words = ["train", *DIVERGES, "--out", "r"]
    said = pion(*words, cwd=folder, check=NOTHING_LEARNED)
    result = result_of(folder / "r")
    assert result["status"] == "diverged"
    assert result["score"] is None
    assert f"diverged: r ({result['reason']})" in said.stdout
    assert any("the run is diverged" in each for each in warnings_of(folder / "r"))
    assert "SGD diverged on least_squares" in (folder / "r/report.html").read_text()
    # asked again it has not learned anything meanwhile
    again = pion("train", "--resume", "--out", "r", cwd=folder, check=NOTHING_LEARNED)
    assert "diverged: r" in again.stdout


def test_a_run_that_changed_no_weight_is_untrained(folder):
    words = ["train", "small.toml", "--optimizer=sgd", "--optimizer.matrices.lr=0", "--out", "r"]
    said = pion(*words, "--no-report", cwd=folder, check=NOTHING_LEARNED)
    assert "untrained: r (no update changed a weight)" in said.stdout
    assert result_of(folder / "r")["status"] == "untrained"
    assert result_of(folder / "r")["score"] is not None


def test_comparisons_count_what_diverged_and_do_not_fail(folder):
    words = ["compare", "least_squares", "--optimizers=sgd,muon", "--seeds=2"]
    grids = ["--grid", "sgd=1e20", "--grid", "muon=1e-3"]
    said = pion(*words, *grids, "--out", "c", cwd=folder, check=0).stdout
    assert "FAILED" not in said
    assert "0/2, 2 diverged" in said
    comparison = json.loads((folder / "c/compare.json").read_text())
    statuses = {run["optimizer"]: run["status"] for run in comparison["runs"]}
    assert statuses == {"sgd": "diverged", "muon": "complete"}
    page = (folder / "c/report.html").read_text()
    assert "SGD: 2 of 2 runs diverged." in page
    assert "2 of 4 runs diverged" in page
    # a whole grid that diverged is an outcome too
    grids = ["--grid", "sgd=1e20,1e21", "--grid", "muon=1e-3"]
    said = pion(*words, *grids, "--out", "d", cwd=folder, check=0).stdout
    assert "sgd: no rate of its grid has a score, 2 diverged" in said


def test_rewards_without_spread_train_nothing(policies):
    words = ["train", "policy.toml", "--rl.updates=12", "--log_every=1", "--out", "r"]
    said = pion(*words, "--no-report", cwd=policies, check=NOTHING_LEARNED).stdout
    assert "untrained: r" in said
    assert all(update["skipped_steps"] == 2 for update in updates_of(policies / "r"))
    assert "the last 10 updates trained nothing" in " ".join(warnings_of(policies / "r"))


def test_dynamic_sampling_that_finds_no_group_says_so(policies):
    words = ["train", "policy.toml", "--rl.method=dapo", "--rl.refills=1", "--out", "r"]
    pion(*words, "--log_every=1", "--no-report", cwd=policies, check=NOTHING_LEARNED)
    for update in updates_of(policies / "r"):
        assert update["steps"] == 0
        assert update["skipped_steps"] == 2  # one pass, two minibatches
        assert update["rejected_groups"] == 8
    first, *_ = warnings_of(policies / "r")
    assert first == (
        "rlvr: dynamic sampling found no group to train on among 8, so this update trained nothing"
    )


def test_graded_rewards_train_where_the_filter_looks_at_them(policies):
    words = ["train", "policy.toml", "--rl.method=dapo", "--rl.verifier=graded:score"]
    words += ["--log_every=1", "--no-report"]
    pion(*words, "--out", "correct", cwd=policies, check=NOTHING_LEARNED)
    assert 'rl.filter_metric = "reward" trains on those' in warnings_of(policies / "correct")[0]
    pion(*words, "--rl.filter_metric=reward", "--out", "reward", cwd=policies, check=0)
    assert warnings_of(policies / "reward") == []
    for update in updates_of(policies / "reward"):
        assert update["trained_answers"] >= 4
        assert update["zero_spread_groups"] <= update["rejected_groups"]
    flags = ["train", "policy.toml", "--rl.filter_metric=reward"]
    says = pion(*flags, cwd=policies, check=BAD_INPUT)
    assert "filter_metric has no effect without dynamic_sampling" in says.stderr


def test_a_policy_whose_logits_are_not_finite_has_diverged(policies):
    words = ["train", "policy.toml", "--rl.verifier=graded:score", "--out", "r"]
    words += ["--optimizer.matrices.lr=1e25", "--optimizer.rest.lr=1e25", "--no-report"]
    said = pion(*words, cwd=policies, check=NOTHING_LEARNED).stdout
    result = result_of(policies / "r")
    assert result["status"] == "diverged"
    assert result["score"] is None
    assert "must be finite" in result["reason"] and result["reason"] in said
    assert not (policies / "r/model").exists()


def test_a_policy_that_says_one_thing_for_certain_has_collapsed(policies):
    words = ["train", "policy.toml", "--rl.verifier=varied:score", "--rl.updates=40"]
    words += ["--optimizer.matrices.lr=3", "--optimizer.rest.lr=3", "--log_every=1"]
    said = pion(*words, "--out", "r", cwd=policies, check=NOTHING_LEARNED).stdout
    updates = updates_of(policies / "r")
    assert updates[0]["entropy"] > 0.1
    assert updates[-1]["entropy"] < 0.01
    assert "collapsed: r (the policy's entropy fell" in said
    assert result_of(policies / "r")["status"] == "collapsed"
    assert result_of(policies / "r")["score"] == 0
    assert "AdamW collapsed on rlvr" in (policies / "r/report.html").read_text()
