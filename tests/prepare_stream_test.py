# SPDX-License-Identifier: Apache-2.0
"""`python -m pion.prepare` streams: the same bytes, memory that does not grow, nothing left behind."""

import json
import sys

import pytest

pytest.importorskip("transformers", reason="pip install transformers")
pytest.importorskip("pyarrow", reason="pip install pyarrow")

import numpy
import safetensors.numpy
from prepare_fixture import byte_level, prepare, prepare_process, save, write_lines

from pion import prepare_file

ROWS = [
    {"question": f"What is {i} + {i}?", "answer": f"{i} twice.\n#### {2 * i}"} for i in range(80)
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save(byte_level(), tmp_path_factory.mktemp("plain"))


def test_the_file_is_what_the_safetensors_library_writes(tmp_path):
    """Bit for bit behind the header, whose metadata that library writes in any order."""
    problems = [
        prepare_file.PreparedProblem([i, i + 1][: i % 3], [7] * (i % 2), f"é{i}", "{}", "", i % 2)
        for i in range(5)
    ]
    vocabulary = [b"", b"a", "é".encode(), b"\xff"]
    metadata = {"name": 'q"\n\u2028é', "stop_tokens": [1, 2]}
    with prepare_file.ProblemWriter(tmp_path / "new/t") as writer:
        writer.add(problems[:2])
        writer.add([])
        writer.add(problems[2:])
        writer.finish(vocabulary, metadata)
    columns = {
        "prompt": ([each.prompt for each in problems], numpy.int32),
        "solution": ([each.solution for each in problems], numpy.int32),
        "answer": ([list(each.answer.encode()) for each in problems], numpy.uint8),
        "extra": ([list(each.extra.encode()) for each in problems], numpy.uint8),
        "text": ([list(each.text.encode()) for each in problems], numpy.uint8),
        "vocabulary": ([list(each) for each in vocabulary], numpy.uint8),
    }
    tensors = {"split": numpy.array([each.split for each in problems], numpy.uint8)}
    for name, (rows, kind) in columns.items():
        tensors[name] = numpy.array([item for row in rows for item in row], kind)
        ends = numpy.cumsum([0, *map(len, rows)])
        tensors[f"{name}_offsets"] = ends.astype(numpy.int64)
    whole = {
        "format": "pion-problems",
        "version": "1",
        "name": metadata["name"],
        "stop_tokens": "[1, 2]",
    }

    def parts(content):
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        return size, header.pop("__metadata__"), list(header.items()), content[8 + size :]

    written = (tmp_path / "new/t").read_bytes()
    wanted = safetensors.numpy.save(tensors, metadata=whole)
    assert parts(written) == parts(wanted)
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["t"]


def test_memory_does_not_grow_with_the_rows(plain, tmp_path):
    """Of 80,000 more rows each would take 1 kB: the tokens of one as Python numbers."""
    peaks = []
    for count in (20_000, 100_000):
        with (tmp_path / "t.jsonl").open("w") as file:
            for i in range(count):
                file.write(f'{{"prompt": "What is {i} + {i}, please?", "answer": {2 * i}}}\n')
        code = (
            "import resource, sys, pion.prepare; code = pion.prepare.main(sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
        )
        words = ["t.jsonl", "--tokenizer", plain, "--out", f"{count}.safetensors"]
        done = prepare_process(*words, cwd=tmp_path, code=code)
        assert done.returncode == 0, done.stderr
        assert f"t: {count} problems" in done.stdout
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 40, f"{peaks[0]:.0f} MB and {peaks[1]:.0f} MB"
    assert sys.getsizeof(2**29) * 20 * 80_000 > 40 << 20  # what a list of tokens alone would add


def test_nothing_is_left_behind_on_failure(plain, tmp_path):
    write_lines(tmp_path / "train.jsonl", ROWS)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("broken\n")
    words = ["train.jsonl", "--tokenizer", plain, "--out", "a/b/out"]
    assert "train.jsonl:81: is no JSON" in prepare(*words, cwd=tmp_path, check=1).stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["train.jsonl"]
