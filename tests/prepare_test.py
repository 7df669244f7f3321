# SPDX-License-Identifier: Apache-2.0
"""`python -m pion.prepare`: what goes into its file, with the real tokenizers and readers."""

import json
import resource

import pytest

pytest.importorskip("transformers", reason="pip install transformers")
pytest.importorskip("pyarrow", reason="pip install pyarrow")

import pyarrow
import pyarrow.parquet
from prepare_fixture import (
    BAD_LINES,
    BAD_WORDS,
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

from pion import reward_worker

ROWS = [
    {
        "question": f"Weng earns ${i} an hour. What does she earn in 2 hours? 你好",
        "answer": f"She earns 2*{i}=<<2*{i}={2 * i}>>{2 * i}.\n#### {2 * i:,}",
    }
    for i in range(1, 81)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder whose tokenizer has a chat template."""
    return save(byte_level(), tmp_path_factory.mktemp("model"), CHAT)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save(byte_level(), tmp_path_factory.mktemp("plain"))


@pytest.fixture
def gsm8k(tmp_path):
    return write_lines(tmp_path / "train.jsonl", ROWS)


# ---- sources


def test_gsm8k(gsm8k, model, tmp_path):
    problems, metadata = prepared(gsm8k, model, cwd=tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert len(problems) == 80
    assert metadata["name"] == "gsm8k"
    assert metadata["verifier"] == "hash"
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert json.loads(metadata["stop_tokens"]) == [stop, tokenizer.eos_token_id]
    instruction = json.loads(metadata["wording"])["instruction"]
    assert "####" in instruction
    for row, problem in zip(ROWS, problems, strict=True):
        assert problem["text"] == row["question"]
        assert problem["answer"] == row["answer"].split("#### ")[1]
        number = problem["answer"].replace(",", "")
        steps = f"She earns 2*{int(number) // 2}={number}.\n#### {problem['answer']}"
        assert tokenizer.decode(problem["solution"][:-1]) == steps
        assert problem["solution"][-1] == stop
        message = {"role": "user", "content": row["question"] + "\n" + instruction}
        wanted = tokenizer.apply_chat_template(
            [message], add_generation_prompt=True, return_dict=False
        )
        assert problem["prompt"] == wanted


def test_the_box_replaces_the_mark_if_it_is_what_is_judged(gsm8k, plain, tmp_path):
    problems, metadata = prepared(gsm8k, plain, "--verifier", "boxed", cwd=tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(plain)
    assert metadata["verifier"] == "boxed"
    shown = prepare(gsm8k, "--tokenizer", plain, "--out", "b", cwd=tmp_path).stdout
    assert shown.endswith(f"\n  asked as    {ROWS[0]['question'] + chr(10)!r}\n")
    assert tokenizer.decode(problems[3]["solution"]) == "She earns 2*4=8.\n\\boxed{8}<|endoftext|>"
    # without a template the prompt is the text
    assert tokenizer.decode(problems[3]["prompt"]) == ROWS[3]["question"] + "\n"


def test_parquet_gives_the_same_file(gsm8k, model, tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "train.parquet")
    assert (
        prepared(gsm8k, model, cwd=tmp_path)[0] == prepared("train.parquet", model, cwd=tmp_path)[0]
    )


def test_math_folder(model, tmp_path):
    for i in range(40):
        folder = tmp_path / "MATH" / ("algebra" if i % 2 else "geometry")
        folder.mkdir(parents=True, exist_ok=True)
        solution = f"First \\boxed{{no}}. Then $x=\\boxed{{\\frac{{{i}}}{{7}}}}$."
        (folder / f"{i}.json").write_text(
            json.dumps(
                {"problem": f"Find x, {i}", "solution": solution, "level": "Level 5", "type": "A"}
            )
        )
    problems, metadata = prepared("MATH", model, "--held-out", 0.2, cwd=tmp_path)
    assert (metadata["name"], metadata["verifier"]) == ("math", "math_verify")
    answers = {problem["text"]: problem["answer"] for problem in problems}
    assert answers == {f"Find x, {i}": f"\\frac{{{i}}}{{7}}" for i in range(40)}
    assert json.loads(problems[0]["extra"]) == {"level": "Level 5", "type": "A"}
    lines = [json.loads(file.read_text()) for file in sorted((tmp_path / "MATH").rglob("*.json"))]
    write_lines(tmp_path / "math.jsonl", lines)
    assert prepared("math.jsonl", model, "--held-out", 0.2, cwd=tmp_path)[0] == problems


def test_named_columns_and_conversations(model, plain, tmp_path):
    rows = [
        {"ask": f"{i}+{i}?", "say": 2 * i, "why": f"twice {i}: \\boxed{{{2 * i}}}"}
        for i in range(60)
    ]
    names = ["--prompt-column", "ask", "--answer-column", "say", "--solution-column", "why"]
    problems, metadata = prepared(
        write_lines(tmp_path / "sums.jsonl", rows), plain, *names, cwd=tmp_path
    )
    tokenizer = AutoTokenizer.from_pretrained(plain)
    assert (metadata["name"], metadata["verifier"]) == ("sums", "boxed")
    assert problems[7]["answer"] == "14"
    assert tokenizer.decode(problems[7]["solution"]) == "twice 7: \\boxed{14}<|endoftext|>"

    for row in rows:
        row["ask"] = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": row["ask"]},
        ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "chat.parquet")
    problems, _ = prepared("chat.parquet", model, *names, "--instruction", "", cwd=tmp_path)
    assert tokenizer.decode(problems[7]["prompt"]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n7+7?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert problems[7]["text"] == "7+7?"


def test_reasoning_gym(plain, tmp_path):
    reasoning_gym = pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    words = ["--count", 50, "--seed", 3, "--config", '{"max_terms": 3}', "--held-out", 0.2]
    problems, metadata = prepared("reasoning-gym:chain_sum", plain, *words, cwd=tmp_path)
    assert (metadata["name"], metadata["verifier"]) == ("chain_sum", "reasoning_gym")
    expected = reasoning_gym.create_dataset("chain_sum", size=50, seed=3, max_terms=3)
    tokenizer = AutoTokenizer.from_pretrained(plain)
    for problem, entry in zip(problems, expected, strict=True):
        assert problem["text"] == entry["question"]
        extra = json.loads(problem["extra"])
        assert extra == {"dataset": "chain_sum", "entry": json.loads(json.dumps(entry))}
        assert expected.score_answer(problem["answer"], extra["entry"]) == 1.0
        solution = tokenizer.decode(problem["solution"][:-1])
        assert solution == f"<answer>{entry['answer']}</answer>"
    assert prepared("reasoning-gym:chain_sum", plain, *words, cwd=tmp_path)[0] == problems


# ---- wording


def test_system_instruction_and_options_of_the_template(gsm8k, model, tmp_path):
    words = ["--system", "Be terse.", "--instruction", "Box it.", "--limit", 60]
    words += ["--template-options", '{"lead": "<think>"}']
    problems, _ = prepared(gsm8k, model, *words, cwd=tmp_path)
    assert len(problems) == 60
    assert AutoTokenizer.from_pretrained(model).decode(problems[0]["prompt"]) == (
        f"<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\n{ROWS[0]['question']}\nBox it."
        "<|im_end|>\n<|im_start|>assistant\n<think>"
    )


def test_stop_tokens_come_from_the_template_the_model_and_the_user(gsm8k, model, tmp_path):
    folder = save(byte_level(), tmp_path / "m", CHAT)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 7]}))
    _, metadata = prepared(gsm8k, folder, "--stop", "<think>", cwd=tmp_path)
    think = AutoTokenizer.from_pretrained(model).convert_tokens_to_ids("<think>")
    assert json.loads(metadata["stop_tokens"]) == [think, 2, 0, 7]


# ---- splits


def splits(problems):
    return {problem["text"]: problem["split"] for problem in problems}


def test_the_split_is_by_content(gsm8k, model, plain, tmp_path):
    first = splits(prepared(gsm8k, model, "--held-out", 0.3, cwd=tmp_path)[0])
    assert 10 <= sum(first.values()) <= 38  # binomial(80, 0.3), 3.5 standard deviations
    write_lines(tmp_path / "train.jsonl", ROWS[::-1] + ROWS[:5])
    again = prepared(gsm8k, plain, "--held-out", 0.3, cwd=tmp_path)[0]
    assert splits(again) == first
    assert len(again) == 85
    fewer = splits(prepared(gsm8k, plain, "--held-out", 0.1, cwd=tmp_path)[0])
    assert all(first[text] for text, held_out in fewer.items() if held_out)  # nested


def test_another_source_may_be_held_out(gsm8k, model, tmp_path):
    write_lines(tmp_path / "test.jsonl", [*ROWS[:3], {"question": "1+1?", "answer": "#### 2"}])
    result = prepare(
        gsm8k, "--tokenizer", model, "--out", "out", "--held-out-from", "test.jsonl", cwd=tmp_path
    )
    problems, _ = read(tmp_path / "out")
    assert "left out: 3 (also held out)" in result.stdout
    assert sorted(p["text"] for p in problems if p["split"] == 1) == sorted(
        [*(row["question"] for row in ROWS[:3]), "1+1?"]
    )
    assert sum(p["split"] == 0 for p in problems) == 77


# ---- what is wrong


@pytest.mark.parametrize("case", BAD_LINES)
def test_broken_lines_are_named_or_left_out(case, gsm8k, plain, tmp_path):
    line, wanted = BAD_LINES[case]
    lines = gsm8k.read_bytes().split(b"\n")
    lines.insert(3, line.encode() if isinstance(line, str) else line)
    gsm8k.write_bytes(b"\n".join(lines))
    words = [gsm8k, "--tokenizer", plain, "--out", "out"]
    error = prepare(*words, cwd=tmp_path, check=1).stderr
    assert wanted in error
    assert len(error) < 500
    assert not (tmp_path / "out").exists()
    shown = prepare(*words, "--skip-broken", cwd=tmp_path).stdout
    assert "left out: 1 (broken)" in shown
    assert wanted in shown
    assert len(read(tmp_path / "out")[0]) == 80


@pytest.mark.parametrize("case", range(len(BAD_WORDS)))
def test_other_errors_say_what_to_do(case, gsm8k, plain, tmp_path):
    words, wanted = BAD_WORDS[case]
    if words[0].startswith("reasoning-gym"):
        pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    write_lines(tmp_path / "other.jsonl", [{"a": 1, "b": 2}])
    write_lines(tmp_path / "nested.jsonl", [{"prompt": "a", "r": {"t": [], "u": {}}}])
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9", "answer": 1}\n')
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "bad.parquet").write_text("PAR1 rubbish")
    result = prepare(*words, "--tokenizer", plain, "--out", "out", cwd=tmp_path, check=1)
    assert wanted in result.stderr
    assert result.stderr.startswith("pion.prepare: ")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_broken_first_row_does_not_hide_the_format(plain, tmp_path):
    rows = [{"problem": f"{i}?", "solution": f"\\boxed{{{i}}}"} for i in range(40)]
    write_lines(tmp_path / "t.jsonl", [{"problem": "a", "solution": "none"}, *rows])
    words = ["t.jsonl", "--tokenizer", plain, "--out", "out", "--held-out", 0.2]
    assert "t.jsonl:1: neither GSM8K" in prepare(*words, cwd=tmp_path, check=1).stderr
    shown = prepare(*words, "--skip-broken", cwd=tmp_path).stdout
    assert shown.startswith("math: 40 problems")
    assert "t.jsonl:1: the solution must hold a \\boxed{answer}" in shown


NUMBERS = {  # as JSON has them: what a verifier can read
    "2e-7": "0.0000002",
    "1e22": "10000000000000000000000",
    "-1.50E+3": "-1500",
    "9007199254740993.0": "9007199254740993.0",
    "72": "72",
    "0.10": "0.10",
}


def test_numbers_are_plain_decimals(plain, tmp_path):
    lines = [f'{{"prompt": "{number}?", "answer": {number}}}\n' for number in NUMBERS]
    (tmp_path / "t.jsonl").write_text("".join(lines))
    problems, _ = prepared("t.jsonl", plain, "--held-out", 0.5, cwd=tmp_path)
    assert {p["text"][:-1]: p["answer"] for p in problems} == NUMBERS
    # Parquet gives floats
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"prompt": f"{i}?", "answer": i * 1e-7} for i in range(1, 30)]),
        tmp_path / "t.parquet",
    )
    problems, _ = prepared("t.parquet", plain, "--held-out", 0.5, cwd=tmp_path)
    assert problems[1]["answer"] == "0.0000002"


@pytest.mark.parametrize("out", ["train.jsonl", "link", "m/tokenizer.json", "m", "other", "out"])
def test_what_is_no_file_of_problems_is_not_overwritten(out, gsm8k, tmp_path):
    save(byte_level(), tmp_path / "m")
    (tmp_path / "link").symlink_to(gsm8k)
    (tmp_path / "other").write_text("of somebody else")
    (tmp_path / "out-tokenizer").mkdir()
    (tmp_path / "out-tokenizer/tokenizer.json").write_text('{"model": {"vocab": {"<pad>": 3}}}')
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    model = "characters" if out == "out" else "m"
    error = prepare(gsm8k, "--tokenizer", model, "--out", out, cwd=tmp_path, check=1).stderr
    wanted = {
        "m": "--out m: is a folder; name a file, such as m/problems.safetensors",
        "out": "would be kept in out-tokenizer, which is something else",
    }
    assert wanted.get(out, f"--out {out}: exists and is no file of problems") in error
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == before


def test_characters_as_tokens(gsm8k, tmp_path):
    problems, metadata = prepared(gsm8k, "characters", cwd=tmp_path)
    folder = next(tmp_path.glob("*-tokenizer"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert json.loads(metadata["stop_tokens"]) == [tokenizer.eos_token_id]
    assert json.loads(metadata["pad_token"]) == [tokenizer.pad_token_id]
    for row, problem in zip(ROWS, problems, strict=True):
        assert len(problem["prompt"]) == len(row["question"]) + 1
        assert tokenizer.decode(problem["prompt"]) == row["question"] + "\n"
    # the same problems by the folder that was kept
    again = prepared(gsm8k, folder, cwd=tmp_path)
    assert again[0] == problems
    assert again[1]["tokenizer"] == metadata["tokenizer"]
    # what it does not know is an error and not dropped
    write_lines(gsm8k, [{"question": "¿what?", "answer": "#### 1"}])
    words = [gsm8k, "--tokenizer", folder, "--out", "out"]
    assert "--tokenizer characters" in prepare(*words, cwd=tmp_path, check=1).stderr


def test_characters_leave_nothing_behind_when_the_problems_are_bad(gsm8k, tmp_path):
    gsm8k.write_text('{"question": "a"}')
    words = [gsm8k, "--tokenizer", "characters", "--out", "out/sums.safetensors"]
    prepare(*words, cwd=tmp_path, check=1)
    assert not (tmp_path / "out").exists()


def test_folders_without_a_tokenizer(gsm8k, tmp_path):
    words = [gsm8k, "--out", "out", "--tokenizer"]
    assert "no such folder" in prepare(*words, "nowhere", cwd=tmp_path, check=1).stderr
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("{}")
    error = prepare(*words, "m", cwd=tmp_path, check=1).stderr
    assert "holds no tokenizer.json; there are: config.json" in error
    (tmp_path / "m/tokenizer.json").write_text("rubbish")
    assert "m: cannot be loaded" in prepare(*words, "m", cwd=tmp_path, check=1).stderr


def test_prompts_longer_than_the_context(gsm8k, tmp_path):
    folder = save(byte_level(), tmp_path / "m")
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 50}))
    rows = [*ROWS, {"question": "long " * 60, "answer": "#### 1"}]
    rows = [{**row, "question": row["question"].split(".")[0]} for row in rows]
    write_lines(gsm8k, rows)
    words = [gsm8k, "--tokenizer", "m", "--out", "out"]
    error = prepare(*words, cwd=tmp_path, check=1).stderr
    assert "1 of 81 prompts leave no room in the context of 50 tokens" in error
    assert "--max-prompt-tokens N" in error
    shown = prepare(*words, "--max-prompt-tokens", 50, cwd=tmp_path).stdout
    assert "left out: 1 (prompt too long)" in shown
    problems, _ = read(tmp_path / "out")
    assert len(problems) == 80
    assert max(len(problem["prompt"]) for problem in problems) < 50


def test_a_template_that_refuses_says_so(model, tmp_path):
    messages = [{"role": "tool", "content": "x"}, {"role": "user", "content": "1+1?"}]
    write_lines(tmp_path / "t.jsonl", [{"prompt": messages, "answer": 2}])
    result = prepare("t.jsonl", "--tokenizer", model, "--out", "out", cwd=tmp_path, check=1)
    assert "chat template refuses the conversation: no tools" in result.stderr


@pytest.mark.parametrize("score", [1e300, -1e39, float("inf"), float("nan")])
def test_a_score_beyond_float32_is_no_score(score):
    assert reward_worker.verdict(3e38)["score"] == 3e38
    with pytest.raises(ValueError, match="score must be finite in float32, got"):
        reward_worker.verdict(score)


def test_a_full_disk_leaves_the_old_file(gsm8k, model, tmp_path):
    words = [gsm8k, "--tokenizer", model, "--out", "out.safetensors"]
    prepare(*words, cwd=tmp_path)
    before = (tmp_path / "out.safetensors").read_bytes()
    files = sorted(tmp_path.iterdir())

    def small_files():  # as a disk that fills up in the middle of the file
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    result = prepare_process(*words, "--limit", 70, cwd=tmp_path, preexec_fn=small_files)
    assert result.returncode == 2
    assert "out.safetensors: File too large" in result.stderr
    assert (tmp_path / "out.safetensors").read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files
