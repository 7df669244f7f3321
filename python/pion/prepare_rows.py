# SPDX-License-Identifier: Apache-2.0
"""Rows of files: JSON lines, JSON, Parquet. What cannot be read is a row that says so."""

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
    names: list | None = None  # of all columns, where only those that are asked for were read


def shortened(text: str, limit: int = 80) -> str:
    """For every text in a message that a file or a command line may make long."""
    text = str(text).replace("\n", " ")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def json_lines(path: Path, _wanted: set[str]) -> Iterator[Row]:
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


def json_file(path: Path, _wanted: set[str]) -> Iterator[Row]:
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


def parquet_rows(batch) -> Iterator[dict | str]:
    """The rows of a batch, or what is wrong with one: a nanosecond is no Python value."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except (ValueError, OverflowError) as error:
                yield shortened(error, 200)


def parquet_file(path: Path, wanted: set[str]) -> Iterator[Row]:
    """Reads the wanted columns alone: the others may be of any type and size."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = [name for name in dict.fromkeys(names) if name in wanted]
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                for values in parquet_rows(batch):
                    where = f"{path}, row {number}"
                    broken = f"{where}: {values}" if isinstance(values, str) else ""
                    yield Row(where, {} if broken else values, broken, names)
                    number += 1
    except pyarrow.ArrowException as error:
        raise PrepareError(
            f"{path}: is no Parquet file, or a damaged one: {shortened(error, 200)}"
        ) from None


READERS = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_file,
    ".parquet": parquet_file,
}


def files_in(folder: Path) -> list[Path]:
    """All that could be read, hidden ones left out: macOS's ._x.json, caches, checkpoints."""
    return sorted(
        each
        for each in folder.rglob("*")
        if each.suffix in READERS
        and not each.is_dir()
        and not any(part[0] == "." or part == "__MACOSX" for part in each.relative_to(folder).parts)
    )


def file_rows(source: str, wanted: set[str], skip_broken: bool) -> Iterator[Row]:
    """All rows; of columns that can be chosen before reading, the `wanted` ones.

    With `skip_broken` a file that cannot be read, or not to its end, is one broken row.
    """
    path = Path(source)
    if not path.exists():
        raise PrepareError(
            f"{source}: no such file or folder; a task of reasoning-gym is "
            f"{REASONING_GYM}NAME, e.g. {REASONING_GYM}chain_sum"
        )
    files = files_in(path) if path.is_dir() else [path]
    if not files:
        raise PrepareError(f"{source}: the folder holds no {', '.join(READERS)} file")
    for file in files:
        if file.suffix not in READERS:
            raise PrepareError(f"{file}: must end in {', '.join(READERS)}")
        try:
            yield from READERS[file.suffix](file, wanted)
        except (PrepareError, OSError) as error:
            if not skip_broken:
                raise
            what = str(error) if isinstance(error, PrepareError) else f"{file}: {error.strerror}"
            yield Row(str(file), {}, what)
