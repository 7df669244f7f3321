# SPDX-License-Identifier: Apache-2.0
"""Rows of files: JSON lines, JSON, Parquet. A line that cannot be read is a row that says so."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

REASONING_GYM = "reasoning-gym:"


class PrepareError(ValueError):
    """What is wrong and what to do, for people."""


@dataclasses.dataclass
class Row:
    where: str  # "train.jsonl:17"
    values: dict
    broken: str = ""  # what is wrong with the line, if it could not be read


def shortened(text: str, limit: int = 80) -> str:
    """For every text in a message that a file or a command line may make long."""
    text = str(text).replace("\n", " ")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                what = f"{where}: is no UTF-8 (byte {error.start + 1}): {shortened(line)}"
                yield Row(where, {}, what)
                continue
            if text.strip():
                yield json_object(text, where)


class WrittenFloat(float):
    """Knows its digits in JSON: 9007199254740993.0 is no float, and answers compare exactly."""

    def __new__(cls, written: str):
        value = super().__new__(cls, written)
        value.written = written
        return value


def parsed_json(text: str):
    return json.loads(text, parse_float=WrittenFloat)


def json_object(text: str, where: str) -> Row:
    try:
        value = parsed_json(text)
    except json.JSONDecodeError as error:  # whose line number is not the file's
        what = f"{error.msg}, character {error.pos + 1}"
        return Row(where, {}, f"{where}: is no JSON ({what}): {shortened(text.strip())}")
    except (ValueError, RecursionError) as error:
        return Row(where, {}, f"{where}: is no JSON ({error}): {shortened(text.strip())}")
    if not isinstance(value, dict):
        return Row(where, {}, f"{where}: must be a JSON object, got {shortened(text.strip())}")
    return Row(where, value)


def json_file(path: Path) -> Iterator[Row]:
    """One object, as each file of MATH is, or a list of them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = parsed_json(text)
    except (ValueError, RecursionError) as error:
        raise PrepareError(
            f"{path}: is no JSON ({error}); JSON lines belong into a file named .jsonl"
        ) from None
    if not isinstance(value, list):
        yield json_object(text, str(path))
        return
    for number, each in enumerate(value):
        where = f"{path}, item {number}"
        if isinstance(each, dict):
            yield Row(where, each)
        else:
            yield Row(where, {}, f"{where}: must be an object, got {shortened(each)}")


def parquet_file(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    yield Row(f"{path}, row {number}", values)
                    number += 1
    except pyarrow.ArrowException as error:
        raise PrepareError(f"{path}: is no Parquet file, or a damaged one: {error}") from None


READERS = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_file,
    ".parquet": parquet_file,
}


def file_rows(source: str) -> Iterator[Row]:
    path = Path(source)
    if not path.exists():
        raise PrepareError(
            f"{source}: no such file or folder; a task of reasoning-gym is "
            f"{REASONING_GYM}NAME, e.g. {REASONING_GYM}chain_sum"
        )
    files = [path]
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.suffix in READERS)
        if not files:
            raise PrepareError(f"{source}: the folder holds no {', '.join(READERS)} file")
    for file in files:
        if file.suffix not in READERS:
            raise PrepareError(f"{file}: must end in {', '.join(READERS)}")
        yield from READERS[file.suffix](file)
