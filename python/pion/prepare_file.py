# SPDX-License-Identifier: Apache-2.0
"""The file of problems: safetensors, each column one flat tensor and its offsets (docs/data.md).

lab/data/problem_file.cc reads it.
"""

import dataclasses
import json
import os
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


def rows(name: str, values: list, dtype) -> dict[str, numpy.ndarray]:
    lengths = numpy.fromiter((len(each) for each in values), numpy.int64, len(values))
    offsets = numpy.concatenate([numpy.zeros(1, numpy.int64), numpy.cumsum(lengths)])
    if dtype == numpy.uint8:
        flat = numpy.frombuffer(b"".join(values), numpy.uint8)
    else:
        flat = numpy.fromiter((token for each in values for token in each), dtype, int(offsets[-1]))
    return {name: flat, f"{name}_offsets": offsets.astype(numpy.int64)}


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


def write_problems(
    path: Path, problems: list[PreparedProblem], vocabulary: list[bytes], metadata: dict
) -> None:
    """Writes under a temporary name, fsyncs and renames: `path` is the old file or the new one."""
    import safetensors.numpy

    tensors = {
        **rows("prompt", [each.prompt for each in problems], numpy.int32),
        **rows("solution", [each.solution for each in problems], numpy.int32),
        **rows("answer", [each.answer.encode() for each in problems], numpy.uint8),
        **rows("extra", [each.extra.encode() for each in problems], numpy.uint8),
        **rows("text", [each.text.encode() for each in problems], numpy.uint8),
        **rows("vocabulary", vocabulary, numpy.uint8),
        "split": numpy.array([each.split for each in problems], numpy.uint8),
    }
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        **{
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in metadata.items()
        },
    }
    content = safetensors.numpy.save(tensors, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:  # names a file that nobody asked for
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's are for the owner alone
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
