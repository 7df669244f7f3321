# SPDX-License-Identifier: Apache-2.0
"""Every recipe that comes with pion trains as it is, and compares unless it has a preset."""

import pathlib
import shlex
import subprocess
import sys
import tomllib

import pytest
from cli_command import BAD_INPUT, needs_binary, pion

pytestmark = needs_binary

FOLDER = pathlib.Path(__file__).parent.parent / "lab/recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.toml"))


def make_problems(recipe, place):
    """Runs the command that a recipe on prepared problems begins with, for fewer of them."""
    lines = (FOLDER / f"{recipe}.toml").read_text().splitlines()
    words = shlex.split(
        " ".join(
            line.lstrip("# ") for line in lines if "pion.prepare" in line or "--config" in line
        )
    )
    if words:
        pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym")
        words = [word.strip() for word in words if word.strip()] + ["--count", "200"]
        command = [sys.executable, *words[words.index("-m") :]]
        subprocess.run(command, cwd=place, check=True, capture_output=True)
    return sorted(place.rglob("*"))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_recipe_is_accepted_whole(command, recipe, tmp_path):
    there = make_problems(recipe, tmp_path)
    read = tomllib.loads((FOLDER / f"{recipe}.toml").read_text())
    refused = command == "compare" and "preset" in read.get("optimizer", {})
    result = pion(command, recipe, "--dry-run", cwd=tmp_path, check=BAD_INPUT if refused else 0)
    assert ("sets every rule itself" in result.stderr) == refused
    assert sorted(tmp_path.rglob("*")) == there
