# SPDX-License-Identifier: Apache-2.0
"""Every recipe that comes with pion trains and compares as it is."""

import pathlib

import pytest
from cli_command import needs_binary, pion

pytestmark = needs_binary

RECIPES = sorted(
    path.stem for path in (pathlib.Path(__file__).parent.parent / "lab/recipes").glob("*.toml")
)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_recipe_is_accepted_whole(command, recipe, tmp_path):
    pion(command, recipe, "--dry-run", cwd=tmp_path, check=0)
    assert not list(tmp_path.iterdir())
