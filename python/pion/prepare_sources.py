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
    if name not in row.values:
        there = shortened(", ".join(sorted(map(str, row.values))), 500)
        raise PrepareError(
            f'{row.where}: no column "{name}"; there are: {there}. '
            "Name them with --prompt-column, --answer-column, --solution-column"
        )
    return row.values[name]


def text_column(row: Row, name: str) -> str:
    value = column(row, name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise PrepareError(
            f'{row.where}: column "{name}" must be text or a number, got {shortened(repr(value))}'
        )
    if isinstance(value, float):
        return plain_decimal(value, f'{row.where}: column "{name}"')
    return str(value).strip()


def plain_decimal(value: float, where: str) -> str:
    """The number without exponent, as verifiers read it: 2e-7 is 0.0000002."""
    written = getattr(value, "written", repr(value))
    try:
        number = Decimal(written)
    except InvalidOperation:  # an exponent of 19 digits
        number = Decimal("nan")
    if not number.is_finite() or abs(number.adjusted()) > 324:  # float64: 5e-324 to 2e308
        raise PrepareError(
            f"{where} must be a number that float64 can hold, got {shortened(written)}"
        )
    return format(number, "f")


def last_boxed(text: str) -> str | None:
    """What stands in the last \\boxed{...} (or \\fbox{...}) with balanced braces."""
    found = list(re.finditer(r"\\(?:boxed|fbox)\s*\{", text))
    for start in reversed(found):
        depth = 1
        for at in range(start.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0) if text[at - 1] != "\\" else 0
            if depth == 0:
                return text[start.end() : at].strip()
    short = re.findall(r"\\boxed\s+([^\s{}$]+)", text)
    return short[-1] if short else None


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
    answer = text_column(row, columns.answer or "answer")
    solution = text_column(row, columns.solution) if columns.solution else ""
    if not isinstance(prompt, list):
        return Record(row.where, text_column(row, name), answer, solution)
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
    return Record(row.where, asked[-1].strip(), answer, solution, messages=prompt)


FORMATS = {
    "gsm8k": (gsm8k, "hash"),
    "math": (math, "math_verify"),
    "columns": (named_columns, "boxed"),
}


def recognized(row: Row) -> str:
    """The format of a source by one of its rows."""
    names = set(row.values)
    if {"question", "answer"} <= names and "####" in str(row.values["answer"]):
        return "gsm8k"
    if {"problem", "solution"} <= names and last_boxed(str(row.values["solution"])):
        return "math"
    if {"prompt", "answer"} <= names:
        return "columns"
    there = shortened(", ".join(sorted(map(str, names))), 500)
    raise PrepareError(
        f"{row.where}: neither GSM8K (question, answer with ####) nor MATH (problem, solution with "
        f"\\boxed{{}}) nor columns prompt and answer; there are: {there}. "
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


def reasoning_gym_records(task: str, count: int, seed: int, config: dict) -> Iterator[Record]:
    try:
        import reasoning_gym
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
    try:
        dataset = reasoning_gym.create_dataset(task, size=count, seed=seed, **config)
    except (AssertionError, TypeError, ValueError) as error:
        raise PrepareError(f"--config: {task} refuses {json.dumps(config)}: {error}") from None
    for index, entry in enumerate(dataset):
        where = f"{REASONING_GYM}{task}, problem {index}"
        answer = entry["answer"]
        try:
            extra = json.dumps({"dataset": task, "entry": entry}, ensure_ascii=False)
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
class Source:
    name: str
    verifier: str  # the natural one
    records: Iterator[Record]
    skipped: list  # broken rows, if they may be skipped


def open_source(
    source: str, columns: Columns, kind: str | None, gym: dict | None, skip_broken: bool
) -> Source:
    """`gym`: count, seed, config for a task of reasoning-gym, None for files."""
    if source.startswith(REASONING_GYM):
        task = source[len(REASONING_GYM) :]
        return Source(task, "reasoning_gym", reasoning_gym_records(task, **(gym or {})), [])
    skipped = []
    rows = readable(file_rows(source), skipped if skip_broken else None)
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
    make, verifier = FORMATS[kind]
    made = usable(make, rows, columns, skipped if skip_broken else None)
    return Source(kind if kind != "columns" else Path(source).stem, verifier, made, skipped)


def counted(skipped: list) -> str:
    return f"; {len(skipped)} broken, the first: {skipped[0]}" if skipped else ""


def readable(rows: Iterator[Row], skipped: list | None) -> Iterator[Row]:
    for row in rows:
        if not row.broken:
            yield row
        elif skipped is None:
            raise PrepareError(row.broken)
        else:
            skipped.append(row.broken)


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


def usable(make, rows: Iterator[Row], columns: Columns, skipped: list | None) -> Iterator[Record]:
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
            skipped.append(str(error))
            continue
        yield record
