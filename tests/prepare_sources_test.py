# SPDX-License-Identifier: Apache-2.0
"""What `python -m pion.prepare` reads: layouts, tasks, boxes, and files that are none."""

import decimal
import json

import pytest

pytest.importorskip("transformers", reason="pip install transformers")
pytest.importorskip("pyarrow", reason="pip install pyarrow")

import pyarrow
import pyarrow.parquet
from prepare_fixture import (
    CHAT,
    byte_level,
    prepare,
    prepare_process,
    prepared,
    read,
    save,
    write_lines,
)
from transformers import AutoTokenizer

from pion import prepare_sources, reward_worker

ROWS = [
    {"question": f"What is {i} + {i}?", "answer": f"{i} twice.\n#### {2 * i}"} for i in range(80)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder whose tokenizer has a chat template."""
    return save(byte_level(), tmp_path_factory.mktemp("model"), CHAT)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save(byte_level(), tmp_path_factory.mktemp("plain"))


def test_gsm_symbolic_whose_metadata_hold_fractions(plain, tmp_path):
    reasoning_gym = pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    words = ["--count", 60, "--seed", 7]
    problems, _ = prepared("reasoning-gym:gsm_symbolic", plain, *words, cwd=tmp_path)
    entries = reasoning_gym.create_dataset("gsm_symbolic", size=60, seed=7)
    kinds = {
        type(value).__name__ for each in entries for value in each["metadata"]["variables"].values()
    }
    assert "Fraction" in kinds  # else another seed
    for problem, entry in zip(problems, entries, strict=True):
        stored = json.loads(problem["extra"])["entry"]
        assert entries.score_answer(entry["answer"], stored) == 1.0
        for name, value in entry["metadata"]["variables"].items():
            if type(value).__name__ == "Fraction":
                assert stored["metadata"]["variables"][name] == str(value)


def test_every_task_of_reasoning_gym_can_be_prepared():
    """All but composite: their scorers pay an entry that went through JSON as they do its original."""
    reasoning_gym = pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    from reasoning_gym.factory import DATASETS

    assert len(DATASETS) > 100
    for task in sorted(set(DATASETS) - {"composite"}):
        records = list(prepare_sources.reasoning_gym_records(task, 3, 1, {}))
        score = reasoning_gym.get_score_answer_fn(task)
        originals = reasoning_gym.create_dataset(task, size=3, seed=1)
        for record, original in zip(records, originals, strict=True):
            entry = json.loads(record.extra)["entry"]
            entry = reward_worker.tuples(entry) if task in reward_worker.GYM_TUPLES else entry
            assert score(record.answer, entry) == score(record.answer, original), task
            if original["answer"] is not None:
                assert score(record.answer, entry) == 1.0, task


def test_parquet_columns_that_nobody_asked_for(plain, tmp_path):
    """A nanosecond is no Python value, and to read what is not used costs memory."""
    table = pyarrow.table(
        {
            "prompt": [f"{i}+{i}?" for i in range(40)],
            "answer": [2 * i for i in range(40)],
            "when": pyarrow.array([1] * 40, pyarrow.timestamp("ns")),
            "took": pyarrow.array([10**12 + 1] * 40, pyarrow.duration("ns")),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    words = ["--held-out", 0.2]
    problems, _ = prepared("t.parquet", plain, *words, cwd=tmp_path)
    assert [problem["answer"] for problem in problems] == [str(2 * i) for i in range(40)]
    asked = ["t.parquet", "--tokenizer", plain, "--out", "out", *words, "--answer-column"]
    error = prepare(*asked, "when", cwd=tmp_path, check=1).stderr
    assert "t.parquet, row 0: " in error
    # where pandas, which knows nanoseconds, is not installed, pyarrow raises
    (tmp_path / "pandas.py").write_text("raise ImportError")
    code = "import sys, pion.prepare; sys.exit(pion.prepare.main())"
    done = prepare_process(*asked, "when", cwd=tmp_path, code=code)
    assert done.returncode == 1
    assert done.stderr.startswith("pion.prepare: t.parquet, row 0: Nanosecond resolution")
    # all columns are named, though not all were read
    error = prepare(*asked, "gold", cwd=tmp_path, check=1).stderr
    assert "there are: answer, prompt, took, when" in error


def test_decimals_of_parquet_are_answers(plain, tmp_path):
    prices = [decimal.Decimal(i) / 100 for i in range(1, 41)]
    table = pyarrow.table({"prompt": [f"{i}?" for i in range(40)], "answer": prices})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    problems, _ = prepared("t.parquet", plain, "--held-out", 0.2, cwd=tmp_path)
    assert [problem["answer"] for problem in problems] == [f"{price:.2f}" for price in prices]


VERL = [
    {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": f"What is {i}+{i}? Box it."}],
        "reward_model": {"ground_truth": str(2 * i), "style": "rule"},
        "extra_info": {"index": i},
    }
    for i in range(40)
]


def test_verl_layout(model, tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(VERL), tmp_path / "t.parquet")
    problems, metadata = prepared("t.parquet", model, "--held-out", 0.2, cwd=tmp_path)
    assert (metadata["name"], metadata["verifier"]) == ("t", "boxed")
    assert json.loads(metadata["wording"])["instruction"] == ""  # its prompts have theirs
    tokenizer = AutoTokenizer.from_pretrained(model)
    for row, problem in zip(VERL, problems, strict=True):
        wanted = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=False
        )
        assert problem["prompt"] == wanted
        assert problem["answer"] == row["reward_model"]["ground_truth"]
    # the same by the names of its columns, and as JSON lines
    names = ["--prompt-column", "prompt", "--answer-column", "reward_model.ground_truth"]
    named, _ = prepared(
        "t.parquet", model, *names, "--instruction", "", "--held-out", 0.2, cwd=tmp_path
    )
    assert named == problems
    write_lines(tmp_path / "t.jsonl", VERL)
    assert prepared("t.jsonl", model, "--held-out", 0.2, cwd=tmp_path)[0] == problems
    for row in VERL:
        row["prompt"][0]["content"] += ' Answer after "####".'
    write_lines(tmp_path / "t.jsonl", VERL)
    assert prepared("t.jsonl", model, "--held-out", 0.2, cwd=tmp_path)[1]["verifier"] == "hash"


def test_lists_of_answers(plain, tmp_path):
    rows = [
        {"prompt": f"{i}?", "gold": {"target": [i, f"{i}.0", f"no. {i}", i]}} for i in range(40)
    ]
    rows[3]["gold"]["target"] = ["three"]
    write_lines(tmp_path / "t.jsonl", rows)
    words = ["--answer-column", "gold.target", "--held-out", 0.2]
    problems, _ = prepared("t.jsonl", plain, *words, cwd=tmp_path)
    assert problems[7]["answer"] == "7"
    assert json.loads(problems[7]["extra"]) == {"alternatives": ["7.0", "no. 7"]}
    assert (problems[3]["answer"], problems[3]["extra"]) == ("three", "")


BOXES = {  # lab/rewards/answer_test.cc has the same
    "so $\\boxed 2$.": "2",
    "so \\boxed 2.": "2",
    "so \\boxed2": "2",
    "\\(\\boxed -3\\)": "-3",
    "\\boxed{1} or \\boxed 2": "2",
    "\\boxed 1 or \\boxed{2}": "2",
    "{\\boxed 2}": "2",
    "\\boxed{\\boxed{5}}": "5",
    "\\boxed{5 then \\boxed{6}": "6",
    "\\boxed{5} \\boxed{6": "5",
    "{{{ \\boxed{7}": "7",
    "\\boxed{\\{1, 2\\}}": "\\{1, 2\\}",
    "\\boxed{a \\\\{b}} c": "a \\\\{b}",
    "\\\\boxed 72": None,
    "\\\\boxed{72}": None,
    "\\boxed 2\\frac{1}{2}": None,
    "\\boxed x{2}": None,
    "\\boxed .": None,
    "\\boxed ": None,
    "\\boxedx{72}": None,
    "\\boxed{ }": None,
    "}{": None,
}


@pytest.mark.parametrize("text", BOXES)
def test_boxes_are_found_as_the_verifier_finds_them(text):
    assert prepare_sources.last_boxed(text) == BOXES[text]


def test_hidden_files_of_a_folder_are_left_out(plain, tmp_path):
    folder = tmp_path / "data"
    for place in ("", ".cache", "__MACOSX", "more/.ipynb_checkpoints"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / "._t.jsonl").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    (folder / "x.json").mkdir()
    write_lines(folder / "t.jsonl", ROWS[:40])
    write_lines(folder / "more" / "u.jsonl", ROWS[40:])
    write_lines(folder / "more/.ipynb_checkpoints/u.jsonl", ROWS)
    problems, _ = prepared("data", plain, cwd=tmp_path)
    assert sorted(p["text"] for p in problems) == sorted(row["question"] for row in ROWS)
    # one that is named is read
    (folder / "._t.jsonl").unlink()
    write_lines(folder / ".t.jsonl", ROWS)
    assert len(prepared("data/.t.jsonl", plain, cwd=tmp_path)[0]) == 80


def test_whole_files_that_cannot_be_read_are_broken_rows(plain, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_lines(folder / "b.jsonl", ROWS)
    (folder / "a.json").write_text("[1, 2")
    (folder / "c.parquet").write_text("PAR1 rubbish")
    (folder / "d.json").symlink_to("nowhere")
    words = ["data", "--tokenizer", plain, "--out", "out"]
    assert "a.json: is no JSON" in prepare(*words, cwd=tmp_path, check=1).stderr
    shown = prepare(*words, "--skip-broken", cwd=tmp_path).stdout
    assert "left out: 3 (broken)" in shown
    for wanted in ("a.json: is no JSON", "c.parquet: is no Parquet", "d.json: No such file"):
        assert wanted in shown
    assert len(read(tmp_path / "out")[0]) == 80
    # without --skip-broken a file that cannot be opened has its own exit status
    (folder / "a.json").unlink()
    (folder / "c.parquet").unlink()
    assert "d.json: No such file" in prepare(*words, cwd=tmp_path, check=2).stderr
