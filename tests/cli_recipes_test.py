# SPDX-License-Identifier: Apache-2.0
"""Every recipe that comes with pion trains and compares as it is."""

import pathlib
import shlex
import subprocess
import sys

import pytest
from cli_command import needs_binary, pion

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
    pion(command, recipe, "--dry-run", cwd=tmp_path, check=0)
    assert sorted(tmp_path.rglob("*")) == there
