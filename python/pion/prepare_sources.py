# SPDX-License-Identifier: Apache-2.0
"""Where problems come from: GSM8K, MATH, JSON lines, Parquet, reasoning-gym.

Files give `Row`s (prepare_rows.py), which become `Record`s here. A row that cannot be used raises
PrepareError that names file, line and text.
"""

import dataclasses
import difflib
import itertools
import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path

from pion.prepare_rows import REASONING_GYM, PrepareError, Row, file_rows, shortened


@dataclasses.dataclass
class Record:
    where: str
    text: str  # the problem as people read it
    answer: str
    solution: str = ""  # worked answer without its stop token; "" if there is none
    steps_only: bool = False  # the solution lacks its last line, in the form that is asked for
    extra: str = ""  # JSON
    messages: list | None = None  # a whole conversation, if the source gives one


@dataclasses.dataclass
class Columns:
    """Names that the user gave; None: by the dataset's own names."""

    prompt: str | None = None
    answer: str | None = None
    solution: str | None = None


def column(row: Row, name: str):
    """The value of a column, or of a field inside: reward_model.ground_truth."""
    if name in row.values:
        return row.values[name]
    value = row.values
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            there = ", ".join(sorted(map(str, row.names or row.values)))
            raise PrepareError(
                f'{row.where}: no column "{name}"; there are: {shortened(there, 300)}. '
                "Name them with --prompt-column, --answer-column, --solution-column, fields inside "
                "of one with a dot: reward_model.ground_truth"
            )
        value = value[part]
    return value


def text_column(row: Row, name: str) -> str:
    return text_of(column(row, name), f'{row.where}: column "{name}"')


def text_of(value, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise PrepareError(f"{where} must be text or a number, got {shortened(repr(value))}")
    if isinstance(value, float | Decimal):
        return plain_decimal(value, where)
    return str(value).strip()


def answers_of(row: Row, name: str) -> tuple[str, str]:
    """The answer, and as JSON for the verifier the others of a list, any of which is right."""
    value, where = column(row, name), f'{row.where}: column "{name}"'
    if not isinstance(value, list):
        return text_of(value, where), ""
    answers = list(dict.fromkeys(text_of(each, where) for each in value))
    if not answers or not all(answers):
        raise PrepareError(f"{where}: the list of answers is empty, or one of them is")
    more = json.dumps({"alternatives": answers[1:]}, ensure_ascii=False)
    return answers[0], more if len(answers) > 1 else ""


def plain_decimal(value: float | Decimal, where: str) -> str:
    """The number without exponent, as verifiers read it: 2e-7 is 0.0000002."""
    written = str(value) if isinstance(value, Decimal) else getattr(value, "written", repr(value))
    try:
        number = Decimal(written)
    except InvalidOperation:  # an exponent of 19 digits
        number = Decimal("nan")
    if not number.is_finite() or abs(number.adjusted()) > 324:  # float64: 5e-324 to 2e308
        raise PrepareError(
            f"{where} must be a number that float64 can hold, got {shortened(written)}"
        )
    return format(number, "f")


# a box with braces or, without them, an answer that no command cuts off; escapes; braces
BOXES = re.compile(
    r"\\(?:boxed|fbox)(?:(?P<open>\s*\{)|(?P<bare>(?:\s+|(?=[^\sa-zA-Z\\{}$]))[^\s\\{}$]+)"
    r"(?=[\s}$]|\\[)\]\\]|$))|\\.|[{}]",
    re.DOTALL,
)


def last_boxed(text: str) -> str | None:
    """What stands in the last \\boxed{...} (or \\fbox{...}) whose braces balance, of nested ones
    the inner; or in \\boxed 2. lab/rewards/answer.cc is its twin."""
    opened, start, end = [], -1, 0
    for found in BOXES.finditer(text):
        if found["open"]:
            opened.append(found.end())
        elif found["bare"]:
            bare = found["bare"].strip().rstrip(".,;")
            if bare:
                start = found.end("bare") - len(found["bare"].lstrip())
                end = start + len(bare)
        elif found[0] == "{":
            opened.append(-1)
        elif found[0] == "}" and opened:
            inner = opened.pop()
            if inner > start:
                start, end = inner, found.start()
    return text[start:end].strip() or None if start >= 0 else None


def gsm8k(row: Row, _columns: Columns) -> Record:
    worked = text_column(row, "answer")
    steps, mark, answer = worked.rpartition("####")
    if not mark or not answer.strip():
        raise PrepareError(
            f'{row.where}: the answer must end in "#### NUMBER", got ...{worked[-60:]}'
        )
    # <<48/2=24>> are marks for a calculator, not text
    steps = re.sub(r"<<[^<>]*>>", "", steps).strip()
    return Record(row.where, text_column(row, "question"), answer.strip(), steps, True)


def math(row: Row, _columns: Columns) -> Record:
    solution = text_column(row, "solution")
    answer = last_boxed(solution)
    if not answer:
        raise PrepareError(
            f"{row.where}: the solution must hold a \\boxed{{answer}}, got ...{solution[-60:]}"
        )
    kept = {key: row.values[key] for key in ("level", "type", "subject") if key in row.values}
    extra = json.dumps(kept, ensure_ascii=False) if kept else ""
    return Record(row.where, text_column(row, "problem"), answer, solution, extra=extra)


def named_columns(row: Row, columns: Columns) -> Record:
    name = columns.prompt or "prompt"
    prompt = column(row, name)
    answer, extra = answers_of(row, columns.answer or "answer")
    solution = text_column(row, columns.solution) if columns.solution else ""
    if not isinstance(prompt, list):
        return Record(row.where, text_column(row, name), answer, solution, extra=extra)
    for message in prompt:
        if not isinstance(message, dict) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            raise PrepareError(
                f'{row.where}: column "{name}" must be text or a list of messages with role and '
                f"content, got {shortened(repr(message))}"
            )
    asked = [message["content"] for message in prompt if message["role"] == "user"]
    if not asked or prompt[-1]["role"] != "user":
        raise PrepareError(f'{row.where}: column "{name}" must end with a message of the user')
    return Record(row.where, asked[-1].strip(), answer, solution, extra=extra, messages=prompt)


VERL_ANSWER = "reward_model.ground_truth"


def verl(row: Row, _columns: Columns) -> Record:
    return named_columns(row, Columns("prompt", VERL_ANSWER))


# the reader of a format, its natural verifier and its columns
FORMATS = {
    "gsm8k": (gsm8k, "hash", ("question", "answer")),
    "math": (math, "math_verify", ("problem", "solution", "level", "type", "subject")),
    "verl": (verl, "boxed", ("prompt", "reward_model")),
    "columns": (named_columns, "boxed", ("prompt", "answer")),
}


def wanted_columns(kind: str | None, columns: Columns) -> set[str]:
    """The names of all columns that could be looked at, with and without the dotted part."""
    named = [each for each in dataclasses.astuple(columns) if each]
    formats = [kind] if kind else ["columns"] if named else FORMATS
    names = [*named, *(name for each in formats for name in FORMATS[each][2])]
    return {*names, *(name.partition(".")[0] for name in names)}


def recognized(row: Row) -> str:
    """The format of a source by one of its rows."""
    names = set(row.values)
    there = ", ".join(sorted(map(str, row.names or names)))
    if {"question", "answer"} <= names and "####" in str(row.values["answer"]):
        return "gsm8k"
    if {"problem", "solution"} <= names and last_boxed(str(row.values["solution"])):
        return "math"
    if {"prompt", "answer"} <= names:
        return "columns"
    reward = row.values.get("reward_model")
    if "prompt" in names and isinstance(reward, dict) and "ground_truth" in reward:
        return "verl"
    raise PrepareError(
        f"{row.where}: neither GSM8K (question, answer with ####) nor MATH (problem, solution with "
        f"\\boxed{{}}) nor columns prompt and answer, nor verl's; there are: "
        f"{shortened(there, 300)}. "
        "Name the columns with --prompt-column and --answer-column"
    )


def recognized_rows(rows: Iterator[Row], skip_broken: bool) -> tuple[str, Iterator[Row]]:
    """The format by the first row that has one, and all rows."""
    seen, failure = [], None
    for row in rows:
        seen.append(row)
        try:
            return recognized(row), itertools.chain(seen, rows)
        except PrepareError as error:
            failure = failure or error
            if not skip_broken:
                break
    raise failure


def plain_value(value):
    """A number of the metadata that JSON does not know: no scorer looks at one."""
    if isinstance(value, Fraction | Decimal):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r:.80}")


def gym_entries(task: str, count: int, seed: int, config: dict) -> Iterator[dict]:
    import reasoning_gym

    try:
        yield from reasoning_gym.create_dataset(task, size=count, seed=seed, **config)
    except Exception as error:  # noqa: BLE001 - each task checks its settings in its own way, some late
        raise PrepareError(f"--config: {task} refuses {json.dumps(config)}: {error}") from None


def reasoning_gym_records(task: str, count: int, seed: int, config: dict) -> Iterator[Record]:
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise PrepareError(
            f"{REASONING_GYM}{task}: needs `pip install reasoning-gym`: {error}"
        ) from None
    if task not in DATASETS:
        close = difflib.get_close_matches(task, DATASETS, n=3, cutoff=0.4)
        hint = (
            f"did you mean {' or '.join(close)}?" if close else f"there are {len(DATASETS)} tasks"
        )
        raise PrepareError(f'reasoning-gym has no task "{task}"; {hint}')
    known = sorted(field.name for field in dataclasses.fields(DATASETS[task][1]))
    for key in config:
        if key not in known or key in ("seed", "size"):
            raise PrepareError(
                f'--config: {task} has no setting "{key}"; there are: '
                f"{', '.join(name for name in known if name not in ('seed', 'size'))}"
            )
    if task == "composite":
        raise PrepareError(
            f"{REASONING_GYM}composite mixes other tasks, which its entries do not say how to score; "
            "prepare each of them"
        )
    entries = gym_entries(task, count, seed, config)
    for index, entry in enumerate(entries):
        where = f"{REASONING_GYM}{task}, problem {index}"
        answer = entry["answer"]
        try:
            entry_json = {"dataset": task, "entry": entry}
            extra = json.dumps(entry_json, ensure_ascii=False, default=plain_value)
        except (TypeError, ValueError) as error:
            raise PrepareError(f"{where}: its metadata are no JSON: {error}") from None
        worked = str(entry["metadata"].get("answer_cot", ""))
        yield Record(
            where,
            entry["question"].strip(),
            "" if answer is None else str(answer),
            worked.rpartition("####")[0].strip(),
            True,
            extra,
        )


@dataclasses.dataclass
class Skipped:
    """Broken rows that were left out."""

    count: int = 0
    first: list[str] = dataclasses.field(default_factory=list)  # at most three

    def add(self, what: str) -> None:
        self.count += 1
        if len(self.first) < 3:
            self.first.append(what)


@dataclasses.dataclass
class Source:
    name: str
    verifier: str  # the natural one
    records: Iterator[Record]
    skipped: "Skipped"
    instructed: bool = False  # its prompts say themselves how to answer


def open_source(
    source: str, columns: Columns, kind: str | None, gym: dict | None, skip_broken: bool
) -> Source:
    """`gym`: count, seed, config for a task of reasoning-gym, None for files."""
    if source.startswith(REASONING_GYM):
        task = source[len(REASONING_GYM) :]
        return Source(task, "reasoning_gym", reasoning_gym_records(task, **(gym or {})), Skipped())
    skipped = Skipped()
    wanted = wanted_columns(kind, columns)
    rows = file_rows(source, wanted, skip_broken)
    rows = readable(rows, skipped if skip_broken else None)
    first = next(rows, None)
    if first is None:
        raise PrepareError(f"{source}: holds no problem{counted(skipped)}")
    rows = itertools.chain([first], rows)
    named = any((columns.prompt, columns.answer, columns.solution))
    if kind is None and not named:
        kind, rows = recognized_rows(rows, skip_broken)
    kind = kind or "columns"
    if named and kind != "columns":
        raise PrepareError(f"--format {kind} has its own columns; drop --*-column or the format")
    make, verifier, _ = FORMATS[kind]
    made = usable(make, rows, columns, skipped if skip_broken else None)
    name = kind if kind in ("gsm8k", "math") else Path(source).stem
    if kind != "verl":
        return Source(name, verifier, made, skipped)
    first = next(made, None)
    if first is not None:
        made = itertools.chain([first], made)
        verifier = "hash" if "####" in first.text else verifier  # as the prompt asks
    return Source(name, verifier, made, skipped, instructed=True)


def counted(skipped: Skipped) -> str:
    return f"; {skipped.count} broken, the first: {skipped.first[0]}" if skipped.count else ""


def readable(rows: Iterator[Row], skipped: Skipped | None) -> Iterator[Row]:
    for row in rows:
        if not row.broken:
            yield row
        elif skipped is None:
            raise PrepareError(row.broken)
        else:
            skipped.add(row.broken)


def require_unicode(record: Record) -> None:
    """JSON can write half of a character, which neither tokenizers nor files take."""
    texts = [record.text, record.answer, record.solution, record.extra]
    for message in record.messages or []:
        texts += [value for value in message.values() if isinstance(value, str)]
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = repr(text[error.start])
            raise PrepareError(
                f"{record.where}: holds half of a character, {half}: {shortened(repr(text))}"
            ) from None


def usable(
    make, rows: Iterator[Row], columns: Columns, skipped: Skipped | None
) -> Iterator[Record]:
    for row in rows:
        try:
            record = make(row, columns)
            if not record.text:
                raise PrepareError(f"{row.where}: the problem's text is empty")
            if not record.answer:
                raise PrepareError(f"{row.where}: the answer is empty")
            require_unicode(record)
        except PrepareError as error:
            if skipped is None:
                raise
            skipped.add(str(error))
            continue
        yield record
