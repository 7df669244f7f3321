# SPDX-License-Identifier: Apache-2.0
"""The file of problems: safetensors, each column one flat tensor and its offsets (docs/data.md).

lab/data/problem_file.cc reads it.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy

from pion.prepare_sources import PrepareError

FORMAT = "pion-problems"
VERSION = "1"
TRAIN, HELD_OUT = 0, 1


@dataclasses.dataclass
class PreparedProblem:
    prompt: list[int]
    solution: list[int]
    answer: str
    extra: str
    text: str
    split: int


def is_problem_file(path: Path) -> bool:
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except safetensors.SafetensorError:
        return False


def check_destination(path: Path) -> None:
    """Raises PrepareError if writing `path` would destroy a source, a tokenizer or other things."""
    if path.is_dir():
        example = path / "problems.safetensors"
        raise PrepareError(f"--out {path}: is a folder; name a file, such as {example}")
    empty = path.is_file() and path.stat().st_size == 0
    if path.exists() and not empty and not (path.is_file() and is_problem_file(path)):
        raise PrepareError(
            f"--out {path}: exists and is no file of problems, so it is not overwritten; name "
            "another file, or delete it first"
        )


class Column:
    """One flat tensor on disk, and the offsets of its rows."""

    def __init__(self, folder: Path, name: str, dtype):
        self.name, self.dtype = name, numpy.dtype(dtype)
        self.flat = (folder / name).open("w+b")
        self.offsets = (folder / f"{name}_offsets").open("w+b")
        self.rows = self.length = 0
        self.offsets.write(bytes(8))

    def add(self, rows: list) -> None:
        """Lists of tokens, or bytes."""
        lengths = numpy.fromiter(map(len, rows), numpy.int64, len(rows))
        ends = self.length + numpy.cumsum(lengths)
        self.offsets.write(ends.astype("<i8").tobytes())
        self.rows += len(rows)
        self.length = int(ends[-1]) if len(rows) else self.length
        if self.dtype == numpy.uint8:
            self.flat.write(b"".join(rows))
        else:
            tokens = itertools.chain.from_iterable(rows)
            self.flat.write(numpy.fromiter(tokens, self.dtype, int(lengths.sum())).tobytes())

    def tensors(self) -> list[tuple]:
        """(name, type, length, bytes of an element, file)"""
        kind = {1: "U8", 4: "I32"}[self.dtype.itemsize]
        return [
            (self.name, kind, self.length, self.dtype.itemsize, self.flat),
            (f"{self.name}_offsets", "I64", self.rows + 1, 8, self.offsets),
        ]


def header(tensors: list[tuple], metadata: dict[str, str]) -> bytes:
    """As the safetensors library writes it: JSON, blanks to a multiple of 8, its length in front."""
    description, at = {"__metadata__": metadata}, 0
    for name, kind, length, size, _ in tensors:
        end = at + length * size
        description[name] = {"dtype": kind, "shape": [length], "data_offsets": [at, end]}
        at = end
    text = json.dumps(description, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class ProblemWriter:
    """Problems go to files of columns in a hidden folder beside `path`; finish() joins them.

    `path` is the old file or the new one. Leaving the context removes everything else that was
    made, folders above `path` too if it is not there.
    """

    def __init__(self, path: Path):
        self.path, self.count = path, 0
        self.made = [each for each in path.parents if not each.exists()]

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.folder = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=f".{self.path.name}."))
        except OSError as error:  # names a folder that nobody asked for
            self.remove_folders()
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self.columns = {
            name: Column(self.folder, name, dtype)
            for name, dtype in (
                ("prompt", "<i4"),
                ("solution", "<i4"),
                ("answer", "u1"),
                ("extra", "u1"),
                ("text", "u1"),
            )
        }
        self.splits = (self.folder / "split").open("w+b")
        return self

    def __exit__(self, *_):
        files = [self.splits]
        for column in self.columns.values():
            files += [column.flat, column.offsets]
        for file in files:
            with contextlib.suppress(OSError):  # a full disk once more
                file.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if not self.path.exists():
            self.remove_folders()

    def remove_folders(self) -> None:
        for folder in self.made:
            with contextlib.suppress(OSError):  # somebody else's file lies in it
                folder.rmdir()

    def add(self, problems: list[PreparedProblem]) -> None:
        columns = self.columns
        columns["prompt"].add([each.prompt for each in problems])
        columns["solution"].add([each.solution for each in problems])
        columns["answer"].add([each.answer.encode() for each in problems])
        columns["extra"].add([each.extra.encode() for each in problems])
        columns["text"].add([each.text.encode() for each in problems])
        self.splits.write(bytes(each.split for each in problems))
        self.count += len(problems)

    def finish(self, vocabulary: list[bytes], metadata: dict) -> None:
        """Joins the columns, fsyncs and renames."""
        tokens = Column(self.folder, "vocabulary", "u1")
        tokens.add(vocabulary)
        tensors = [tensor for each in [*self.columns.values(), tokens] for tensor in each.tensors()]
        tensors.append(("split", "U8", self.count, 1, self.splits))
        tensors.sort(key=lambda tensor: (-tensor[3], tensor[0]))  # wide types first: aligned
        metadata = {"format": FORMAT, "version": VERSION, **metadata}
        metadata = {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in metadata.items()
        }
        whole = self.folder / "problems"
        with whole.open("xb") as out:
            out.write(header(tensors, metadata))
            for *_, file in tensors:
                file.flush()
                file.seek(0)
                shutil.copyfileobj(file, out, 1 << 20)
                file.truncate(0)  # of two copies of a column one is on the disk
            out.flush()
            os.fsync(out.fileno())
        tokens.flat.close()
        tokens.offsets.close()
        os.replace(whole, self.path)
