# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the command's tests."""

import pytest
from cli_command import RECIPE


@pytest.fixture
def folder(tmp_path):
    """A directory that holds a small recipe."""
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path
