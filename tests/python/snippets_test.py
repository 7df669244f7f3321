# SPDX-License-Identifier: Apache-2.0
"""The programs in README.md and docs/python.md do what their last line says."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def programs() -> dict:
    """Blocks that are whole programs: those that import transformers."""
    found = {}
    for document in ("README.md", "docs/python.md"):
        for number, block in enumerate(BLOCK.findall((ROOT / document).read_text())):
            if "from transformers import" in block:
                found[f"{document}-{number}"] = block
    return found


def train(python, program: str, folder) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)
    run = subprocess.run(
        [python, "-c", program], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout.strip().splitlines()[-1]


def check(printed: str):
    loss, start = map(
        float, re.fullmatch(r"loss ([\d.]+), at the start ([\d.]+)", printed).groups()
    )
    assert loss < start / 2


def test_the_ten_lines_are_there_and_ten():
    (program,) = [p for name, p in programs().items() if name.startswith("docs/python.md")]
    assert len(program.strip().splitlines()) == 10
    assert "pion.PionAdamW(pion.route(model)" in program


@pytest.mark.hosts
@pytest.mark.parametrize("name", programs())
def test_programs_of_the_documents_train(name, tmp_path):
    pytest.importorskip("transformers")
    check(train(sys.executable, programs()[name], tmp_path))
