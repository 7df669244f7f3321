# SPDX-License-Identifier: Apache-2.0
"""python -m pion.reward_worker with the real math-verify and reasoning-gym.

What a worker may do wrong is tested in lab/rewards/worker_test.cc.
"""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

WORKER = pathlib.Path(__file__).resolve().parent.parent / "python" / "pion" / "reward_worker.py"


def worker_module():
    """The worker's file as a module."""
    spec = importlib.util.spec_from_file_location("reward_worker_as_module", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ask(name, requests, *arguments, cwd=None, worker=WORKER, confined=()):
    """The first line and the replies to `requests`."""
    lines = [
        {"id": i, "prompt": "", "reference": "", "extra": "", "boxed": None, **request}
        for i, request in enumerate(requests)
    ]
    done = subprocess.run(
        [sys.executable, *confined, worker, name, *arguments],
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        check=False,
    )
    first, *replies = map(json.loads, done.stdout.splitlines())
    assert [reply["id"] for reply in replies] == list(range(len(replies)))
    return first, replies, done


def boxed(answer, reference):
    return {"response": f"so \\boxed{{{answer}}}", "boxed": answer, "reference": reference}


def test_math_verify_judges_latex_by_meaning():
    pytest.importorskip("math_verify", reason="pip install math-verify")
    right = [
        ("\\frac{1}{2}", "0.5"),
        ("\\dfrac{2}{4}", "$\\frac{1}{2}$"),
        ("1+x", "x+1"),
        ("(x+1)^2", "x^2+2x+1"),
        ("\\sqrt{8}", "2\\sqrt{2}"),
        ("(1, 2)", "(1,2)"),
        ("\\{1, 2\\}", "\\{2, 1\\}"),
        ("\\frac{\\pi}{2}", "\\pi/2"),
        ("[0, \\infty)", "[0,\\infty)"),
        ("72", "72"),
        ("x = 5", "5"),
    ]
    wrong = [("0.6", "\\frac{1}{2}"), ("x-1", "x+1"), ("(2, 1)", "(1,2)"), ("", "5")]
    requests = [boxed(*pair) for pair in right + wrong]
    first, replies, _ = ask("math_verify", requests)
    assert first == {"ready": True}
    for pair, reply in zip(right + wrong, replies, strict=True):
        expected = pair in right
        assert reply["correct"] is expected, pair
        assert reply["score"] == expected, pair
        assert reply["formatted"] is bool(pair[0]), pair


def test_math_verify_compares_exact_numbers_exactly():
    pytest.importorskip("math_verify", reason="pip install math-verify")
    small = ("2^{-98}", "2^{-99}")
    wrong = [
        ("\\frac1{2^{98}}", "\\frac1{2^{99}}"),
        ("10^{-20}", "10^{-21}"),
        ("\\frac{\\sqrt2}{2^{98}}", "\\frac{\\sqrt2}{2^{99}}"),
        *((form % small[0], form % small[1]) for form in ("(1,%s)", "\\{1,%s\\}", "[0,%s]")),
        ("x=%s" % small[0], small[1]),  # noqa: UP031 - braces
        ("2^{99}+1", "2^{99}"),
        ("10^{40}+1", "10^{40}"),
        ("i\\cdot 2^{-98}", "i\\cdot 2^{-99}"),
    ]
    right = [
        ("\\frac1{2^{98}}", "2^{-98}"),
        ("\\frac{4}{2^{100}}", "2^{-98}"),
        ("\\sqrt{3+2\\sqrt2}", "1+\\sqrt2"),
        ("\\frac{2}{\\sqrt{2}}", "\\sqrt2"),
        ("\\frac{\\pi}{2^{99}}", "\\pi\\cdot 2^{-99}"),
        ("(1,\\frac{2}{2^{99}})", "(1,2^{-98})"),
        ("0.333333", "\\frac13"),  # decimals have the package's tolerance
        ("25", "25\\%"),
    ]
    _, replies, _ = ask("math_verify", [boxed(*pair) for pair in wrong + right])
    for pair, reply in zip(wrong + right, replies, strict=True):
        assert reply["correct"] is (pair in right), (pair, reply)


def test_math_verify_tells_right_from_formatted():
    pytest.importorskip("math_verify", reason="pip install math-verify")
    _, replies, _ = ask(
        "math_verify",
        [
            {"response": "I get $\\frac{3}{4}$.", "reference": "0.75"},
            {"response": "I get 7.", "reference": "0.75"},
            {"response": "no idea", "reference": "0.75"},
            boxed("7", ""),
        ],
    )
    assert [reply["right_unformatted"] for reply in replies[:3]] == [True, False, False]
    assert not any(reply["formatted"] or reply["correct"] for reply in replies[:3])
    assert "cannot read the reference" in replies[3]["error"]


@pytest.mark.parametrize("name", ["math_verify", "reasoning_gym"])
def test_the_scorers_of_packages_work_under_the_strict_filter(name):
    """As the lab runs them: they import their packages, read and compute, and no more."""
    pytest.importorskip(name)
    requests = [boxed("\\frac{1}{2}", "0.5"), boxed("x+1", "1+x"), boxed("2", "3")]
    if name == "reasoning_gym":
        entry = {"question": "", "answer": "7", "metadata": {}}
        extra = json.dumps({"dataset": "chain_sum", "entry": entry})
        requests = [{"response": f"<answer>{each}</answer>", "extra": extra} for each in (7, 7, 8)]
    confined = [WORKER.parent / "confined.py", "--gigabytes", "4"]
    _, replies, done = ask(name, requests, confined=confined)
    assert [reply.get("correct") for reply in replies] == [True, True, False], done.stderr


def test_math_verify_gives_up_on_a_tower_of_powers():
    pytest.importorskip("math_verify", reason="pip install math-verify")
    requests = [boxed("9^{9^{9^{9^9}}}", "5"), boxed("5", "5")]
    _, replies, _ = ask("math_verify", requests, "--timeout", "2")
    assert replies[0]["late"] is True
    assert "longer than 2 s" in replies[0]["error"]
    assert replies[1]["correct"] is True


@pytest.mark.parametrize("task", ["chain_sum", "gsm_symbolic", "arc_agi", "rearc", "countdown"])
def test_reasoning_gym_scores_with_the_entry_that_prepare_wrote(task):
    gym = pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    requests = []
    for entry in gym.create_dataset(task, size=2, seed=3):
        answer = entry["answer"] or entry["metadata"]["solution"]
        shared = {"extra": json.dumps({"dataset": task, "entry": entry})}
        requests += [
            {**shared, "response": f"so <answer> {answer} </answer>"},
            {**shared, "response": f"<answer>nine</answer> no, <answer>{answer}</answer>!"},
            {**shared, "response": "<answer>nothing of the kind</answer>"},
            {**shared, "response": f"so \\boxed{{{answer}}}", "boxed": answer},
            {**shared, "response": f"<answer>{answer}"},
        ]
    named = "+" + task if task in worker_module().GYM_EVALUATES else ""
    _, replies, done = ask("reasoning_gym" + named, requests)
    assert len(replies) == 10, done.stderr
    for i, reply in enumerate(replies):
        kind = i % 5
        assert reply["correct"] is (kind in (0, 1, 3)), (i, reply)
        assert reply["formatted"] is (kind != 4), i
        assert (reply["score"] == 1) == (kind in (0, 1, 3)), i


def test_reasoning_gym_looks_at_the_last_line_of_an_answer_without_form():
    gym = pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    entry = gym.create_dataset("chain_sum", size=1, seed=3)[0]
    extra = json.dumps({"dataset": "chain_sum", "entry": entry})
    _, replies, _ = ask(
        "reasoning_gym",
        [
            {"extra": extra, "response": f"adding up:\n{entry['answer']}\n"},
            {"extra": extra, "response": ""},
            {"extra": "", "response": "5"},
            {"extra": "{", "response": "5"},
        ],
    )
    assert replies[0]["right_unformatted"] is True
    assert replies[0]["score"] == 0
    assert replies[1]["right_unformatted"] is False
    assert "prepare the data again" in replies[2]["error"]
    assert "JSONDecodeError" in replies[3]["error"]


def test_the_scorers_that_evaluate_are_those_of_the_package():
    pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    import gym_scorers

    found = gym_scorers.evaluating()
    assert set(found) == worker_module().GYM_EVALUATES, found
    assert found["bitwise_arithmetic"] == {"eval"}  # of the problem's own metadata
    assert "sympy.parse_expr" in found["simple_integration"]


def harmful(gym, name):
    """A problem and an answer whose scorer makes the file harm_NAME, if it runs anything."""
    entry = gym.create_dataset(name, size=1, seed=3)[0]
    answer = harm = f"[__import__('pathlib').Path('harm_{name}').touch()]"
    if name == "number_sorting":
        entry["answer"], answer = harm, "[1]"
    if name == "bitwise_arithmetic":
        entry["metadata"]["problem"] = harm
    return {
        "extra": json.dumps({"dataset": name, "entry": entry}, default=str),
        "response": f"<answer>{answer}</answer>",
    }


def test_scorers_that_evaluate_are_refused_unless_named(tmp_path):
    gym = pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    names = sorted(worker_module().GYM_EVALUATES)
    requests = [harmful(gym, name) for name in names]
    _, replies, _ = ask("reasoning_gym", requests, cwd=tmp_path)
    for name, reply in zip(names, replies, strict=True):
        assert f"unless you name it: --reward reasoning_gym+{name}" in reply["error"]
    assert not any(tmp_path.iterdir())
    # at the start, where it is known what will be asked about
    first, replies, _ = ask("reasoning_gym", [], '--data-sets=["chain_sum", "countdown"]')
    assert "--reward reasoning_gym+countdown" in first["error"] and not replies
    first, _, _ = ask("reasoning_gym+countdown", [], '--data-sets=["chain_sum", "countdown"]')
    assert first == {"ready": True}
    first, _, _ = ask("reasoning_gym+countdwn", [])
    assert "'countdwn' is no data set" in first["error"]
    # and each does evaluate: named, it makes its file
    ask("+".join(["reasoning_gym", *names]), requests, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"harm_{name}" for name in names]


def test_a_scorer_that_the_list_lacks_is_stopped_by_the_watch(tmp_path):
    gym = pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    names = sorted(worker_module().GYM_EVALUATES)
    older = tmp_path / "worker_of_another_version.py"
    text = WORKER.read_text()
    assert "\nGYM_EVALUATES = {" in text
    older.write_text(text.replace("\nclass Evaluates", "\nGYM_EVALUATES = set()\nclass Evaluates"))
    requests = [harmful(gym, name) for name in names]
    _, replies, _ = ask("reasoning_gym", requests, cwd=tmp_path, worker=older)
    assert [reply.get("error", "") != "" for reply in replies] == [True] * len(names), replies
    assert not any(tmp_path.glob("harm_*"))


def test_the_watch_hinders_no_scorer_that_evaluates_nothing():
    gym = pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
    from reasoning_gym.factory import DATASETS

    expected, requests = [], []
    # composite: of no data sets by default
    for name in sorted(set(DATASETS) - worker_module().GYM_EVALUATES - {"composite"}):
        data = gym.create_dataset(name, size=1, seed=3)
        answer = data[0]["answer"] or "nothing"
        expected.append((name, data.score_answer(answer, data[0])))
        extra = json.dumps({"dataset": name, "entry": data[0]}, default=str)
        requests.append({"extra": extra, "response": f"<answer>{answer}</answer>"})
    _, replies, _ = ask("reasoning_gym", requests)
    for (name, score), reply in zip(expected, replies, strict=True):
        assert reply.get("score") == score, (name, reply)


def test_a_users_function_is_found_in_the_working_directory(tmp_path):
    (tmp_path / "json.py").write_text("raise RuntimeError('hides the standard library')\n")
    (tmp_path / "mine.py").write_text(
        "print('imported')\n"
        "def score(prompt, response, reference, extra):\n"
        "    print('scored', response)\n"
        "    return len(response) / 4 if extra is None else extra['score']\n"
    )
    requests = [{"response": "ab"}, {"response": "x", "extra": '{"score": 1.5}'}]
    first, replies, done = ask("mine:score", requests, cwd=tmp_path)
    assert first == {"ready": True}
    assert [reply["score"] for reply in replies] == [0.5, 1.5]
    assert [reply["correct"] for reply in replies] == [False, True]
    assert "imported\nscored ab\nscored x\n" in done.stderr


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing_module:score", "No module named 'missing_module'"),
        ("json:missing", "no function 'missing'"),
        ("nonsense", "is no scorer"),
    ],
)
def test_what_does_not_start_says_why(name, says):
    first, replies, done = ask(name, [])
    assert says in first["error"]
    assert replies == []
    assert done.returncode == 1


def test_broken_requests_are_answered():
    process = subprocess.run(
        [sys.executable, WORKER, "json:dumps"],
        input='nonsense\n[]\n{}\n{"id": 1}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    _, *replies = map(json.loads, process.stdout.splitlines())
    assert len(replies) == 4
    assert all(reply["error"] for reply in replies)


def test_a_hanging_scorer_ends_with_who_asked(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import signal, time\n"
        "def score(*arguments):\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "    while True: time.sleep(10)\n"
    )
    with subprocess.Popen(
        [sys.executable, WORKER, "slow:score", "--timeout", "0.5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path,
    ) as process:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        request = {
            "id": 0,
            "prompt": "",
            "response": "",
            "reference": "",
            "extra": "",
            "boxed": None,
        }
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        time.sleep(0.2)
        assert process.poll() is None
        process.stdin.close()
        try:
            assert process.wait(timeout=20) == 1
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
