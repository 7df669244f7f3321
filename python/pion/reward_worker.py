# SPDX-License-Identifier: Apache-2.0
"""python -m pion.reward_worker NAME [--timeout SECONDS]: scores answers for the C++ lab.

NAME is `math_verify`, `reasoning_gym` (`reasoning_gym+countdown` with those scorers named that
evaluate what they are given), or a function of the user's own, `my_module:score`, with

    score(prompt, response, reference, extra) -> float | dict(reward=, correct=, formatted=)

`extra` is what the problem's JSON holds, or None. A number is the score, and the answer counts as
correct if it is at least 1; of a dict, what it leaves out follows from the rest.

Speaks JSON lines. First {"ready": true} or {"error": TEXT}; then for every line
{"id", "prompt", "response", "reference", "extra", "boxed"} on standard input one line
{"id", "score", "correct", "formatted", "right_unformatted"} or {"id", "error", "late"} on
standard output. What a scorer itself prints goes to standard error. Ends when standard input
does, even in the middle of a scorer that hangs.

The lab runs this file by its path, so that it needs no installed pion: it imports nothing of it;
and by confined.py, which keeps scorers from files, network and environment.
"""

import sys

if not __package__:  # run by path: the folder's modules must not hide the standard library's
    sys.path[:] = [entry for entry in sys.path if entry != __file__.rpartition("/")[0]]

import argparse
import importlib
import importlib.machinery
import json
import math
import os
import queue
import signal
import threading
import traceback

FLOAT_MAX = 3.4028234663852886e38  # (2 - 2^-23) 2^127, the largest float32: the lab's scores
SHOWN = set()  # types of errors whose traceback was printed


class Late(BaseException):
    """The time limit of one answer. No Exception: scorers catch those."""


def verdict(score, correct=None, formatted=True, right_unformatted=False):
    """One answer's result as it is sent. Raises ValueError for a score that is no finite float32."""
    if isinstance(score, bool):
        score = float(score)
    try:
        value = float(score)
    except (TypeError, ValueError):
        raise ValueError(f"score must be a number, got {score!r:.100}") from None
    if not abs(value) <= FLOAT_MAX:
        raise ValueError(f"score must be finite in float32, got {value}")
    return {
        "score": value,
        "correct": value >= 1 if correct is None else bool(correct),
        "formatted": bool(formatted),
        "right_unformatted": bool(right_unformatted),
    }


def from_user(result):
    """A verdict from what the user's function returned."""
    if not isinstance(result, dict):
        return verdict(result)
    unknown = set(result) - {"reward", "correct", "formatted"}
    if unknown or not result.keys() & {"reward", "correct"}:
        raise ValueError(
            f"the dict must have reward, correct or both, and may have formatted, got {sorted(map(str, result))}"
        )
    correct = result.get("correct")
    return verdict(result.get("reward", bool(correct)), correct, result.get("formatted", True))


def user_scorer(name):
    """my_module:score, imported from the working directory or the Python path."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    function = getattr(importlib.import_module(module), attribute, None)
    if not callable(function):
        raise TypeError(f"{module} has no function {attribute!r}")
    return lambda r: from_user(function(r["prompt"], r["response"], r["reference"], r["extra"]))


def exact_first(compare):
    """math_verify's comparison of two numbers, but exact where both are.

    It takes differences below 1e-15 for 0, and so 2^{-98} for 2^{-99}. A difference of exact numbers
    (without a decimal in them) whose first digit sympy can tell is none; decimals and percentages
    keep the package's tolerance.
    """
    from sympy import Expr, Float, UnevaluatedExpr

    def is_exact(value):
        return isinstance(value, Expr) and value.is_number and not value.has(Float, UnevaluatedExpr)

    def differ(a, b):
        # what cancels to all 100 digits that sympy looks at comes back with one bit
        parts = (a - b).evalf(15).as_real_imag()
        return any(getattr(part, "_prec", 1) > 1 and part != 0 for part in parts)

    def equal(a, b, *tolerance):
        if is_exact(a) and is_exact(b) and differ(a, b):
            return False
        return compare(a, b, *tolerance)

    return equal


def math_verify_scorer():
    """LaTeX equivalence of the boxed answer; of the whole response for right_unformatted."""
    import logging

    from math_verify import grader, parse, verify

    grader.sympy_numeric_eq = exact_first(grader.sympy_numeric_eq)
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # warns that its time limit is off

    def read(text):
        return parse(text, parsing_timeout=None)

    def score(request):
        reference, boxed = request["reference"], request["boxed"]
        gold = read(reference if "$" in reference or "\\boxed" in reference else f"${reference}$")
        if not gold:
            raise ValueError(f"math-verify cannot read the reference {reference!r:.100}")
        answer = read(f"\\boxed{{{boxed}}}" if boxed else request["response"])
        right = bool(verify(gold, answer, timeout_seconds=None))
        return verdict(right and bool(boxed), None, bool(boxed), right and not boxed)

    return score


def tagged(response):
    """The content of the last <answer>...</answer>, or None."""
    _, opened, rest = response.rpartition("<answer>")
    answer, closed, _ = rest.partition("</answer>")
    return answer.strip() if opened and closed else None


# their scorers compare with what JSON makes a list of
GYM_TUPLES = {"arc_agi", "rearc"}

# Their scorers run a text of the answer or of the problem as Python code: eval, or sympy's
# parse_expr, which is eval. tests/rewards_test.py reads the package for the list.
GYM_EVALUATES = {
    "binary_matrix",
    "bitwise_arithmetic",
    "countdown",
    "intermediate_integration",
    "n_queens",
    "number_sorting",
    "polynomial_multiplication",
    "puzzle24",
    "simple_integration",
    "spiral_matrix",
    "string_insertion",
}


class Evaluates(BaseException):
    """A scorer that nobody named runs a text as code. No Exception: scorers catch those."""


class Watch:
    """While `on`, code made of text runs nowhere in this process: Python's audit hook stops it.

    For scorers that the list does not have yet, of other versions of the package. Imports may run
    code; they take it from installed files.
    """

    def __init__(self):
        self.on = self.stopped = False
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if event != "exec" or not self.on:
            return
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return
            frame = frame.f_back
        self.stopped = True
        raise Evaluates

    def call(self, function, *arguments):
        self.on, self.stopped = True, False
        try:
            result = function(*arguments)
        finally:
            self.on = False
        if self.stopped:  # and the scorer swallowed it
            raise Evaluates
        return result


class NoPlots:
    """Empty modules in the place of matplotlib, which reasoning-gym's dependencies import and no
    scorer calls: it takes two seconds, and a folder that it may write to."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in ("matplotlib", "mpl_toolkits"):
            return None
        return importlib.machinery.ModuleSpec(name, cls, is_package=True)

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        pass


def refusal(name):
    return ValueError(
        f"the scorer of reasoning-gym's {name!r} runs answers or problems as Python code; it is "
        f"refused unless you name it: --reward reasoning_gym+{name}"
    )


def check_named(named, asked_about):
    """Raises ValueError for scorers that evaluate and are not named; for names that are none."""
    from reasoning_gym.factory import DATASETS

    for name in named:
        if name not in DATASETS:
            raise ValueError(f"{name!r} is no data set of reasoning-gym")
    for name in asked_about:
        if name in GYM_EVALUATES and name not in named:
            raise refusal(name)


def tuples(value):
    """Lists as tuples, at every depth."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def reasoning_gym_scorer(named, asked_about):
    """The score of the data set that made the problem: extra is {"dataset": NAME, "entry": {...}}.

    The answer stands in <answer>...</answer> or a box; without either the last line is looked at
    for right_unformatted. Scorers that evaluate are refused unless they are among `named`, at
    once those of the data sets `asked_about`.
    """
    sys.meta_path.insert(0, NoPlots)
    import reasoning_gym

    check_named(named, asked_about)
    functions, watch = {}, Watch()

    def scored(name, answer, entry):
        if name in named:
            return functions[name](answer, entry)
        try:
            return watch.call(functions[name], answer, entry)
        except Evaluates:
            raise refusal(name) from None

    def score(request):
        extra = request["extra"]
        if not isinstance(extra, dict) or not {"dataset", "entry"} <= extra.keys():
            raise ValueError(
                'extra must be {"dataset": name, "entry": {...}}; prepare the data again'
            )
        name, entry = extra["dataset"], extra["entry"]
        if name in GYM_EVALUATES and name not in named:
            raise refusal(name)
        if name in GYM_TUPLES:
            entry = tuples(entry)
        if name not in functions:
            functions[name] = reasoning_gym.get_score_answer_fn(name)
        answer = tagged(request["response"]) or request["boxed"]
        if answer is not None:
            return verdict(scored(name, answer, entry))
        lines = request["response"].strip().splitlines() or [""]
        bare = verdict(scored(name, lines[-1].strip(), entry))
        return verdict(0.0, False, False, bare["correct"])

    return score


def scorer_named(name, data_sets):
    """request -> verdict. Raises ImportError, TypeError or ValueError with the remedy."""
    if ":" in name:
        return user_scorer(name)
    package, *named = name.split("+")
    try:
        if package == "reasoning_gym":
            return reasoning_gym_scorer(named, data_sets)
        if name == "math_verify":
            return math_verify_scorer()
    except ImportError as error:
        command = f"{sys.executable} -m pip install {package.replace('_', '-')}"
        raise ImportError(f"{error}; install it with `{command}`") from None
    raise TypeError(f"{name!r} is no scorer: math_verify, reasoning_gym or module:function")


def private_streams():
    """Standard input and output for the protocol alone; what scorers print becomes errors."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    return requests, replies


def lines_of(requests, patience):
    """A queue of lines that ends with None. Who still scores `patience` seconds later is ended."""
    lines, done = queue.SimpleQueue(), threading.Event()

    def follow():
        for line in requests:
            lines.put(line)
        lines.put(None)
        if not done.wait(patience):
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    return lines, done


def score_within(scorer, request, timeout):
    """The scorer's verdict; raises Late after `timeout` seconds, 0 for no limit."""

    def late(signum, frame):
        raise Late

    signal.signal(signal.SIGALRM, late)  # every time: a scorer may have set its own
    extra = request["extra"]
    request["extra"] = json.loads(extra) if extra else None
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return scorer(request)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def reply_to(scorer, line, timeout):
    """What answers one line of input. Never raises on account of the scorer."""
    identity = None
    try:
        request = json.loads(line)
        identity = request["id"]
        return {"id": identity, **score_within(scorer, request, timeout)}
    except Late:
        return {"id": identity, "late": True, "error": f"took longer than {timeout:g} s"}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's function raises
        if type(error) not in SHOWN:  # one of a kind: a thousand answers may fail alike
            SHOWN.add(type(error))
            traceback.print_exc()
        return {"id": identity, "late": False, "error": f"{type(error).__name__}: {error}"}


def serve(name, timeout, data_sets=()):
    """Answers standard input until it ends. The exit status."""
    requests, replies = private_streams()

    def send(reply):
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()

    try:
        scorer = scorer_named(name, data_sets)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an import raises
        send({"error": f"{type(error).__name__}: {error}"})
        return 1
    lines, done = lines_of(requests, timeout + 1 if timeout > 0 else None)
    try:
        send({"ready": True})
        while (line := lines.get()) is not None:
            send(reply_to(scorer, line, timeout))
    except BrokenPipeError:
        os._exit(1)  # who asked is gone
    done.set()
    return 0


def main():
    parser = argparse.ArgumentParser(
        prog="python -m pion.reward_worker",
        description="Scores answers: JSON lines in, JSON lines out.",
    )
    parser.add_argument("name", help="math_verify, reasoning_gym or my_module:score")
    parser.add_argument(
        "--timeout", type=float, default=0, help="seconds of one answer; 0: no limit"
    )
    parser.add_argument(
        "--data-sets", default="[]", metavar="JSON", help="that reasoning_gym will be asked about"
    )
    arguments = parser.parse_args()
    if not 0 <= arguments.timeout < math.inf:
        parser.error(f"--timeout must be at least 0 and finite, got {arguments.timeout}")
    data_sets = json.loads(arguments.data_sets)
    return serve(arguments.name, arguments.timeout, [name for name in data_sets if name])


if __name__ == "__main__":
    sys.exit(main())
