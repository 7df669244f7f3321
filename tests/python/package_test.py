# SPDX-License-Identifier: Apache-2.0
"""The wheel: built from the checkout, installed into a fresh environment, used there."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
USE = """
import sys, numpy, pion
assert "torch" not in sys.modules
assert abs(pion.spectral_map(numpy.eye(4), "muon")[0, 0] - 0.7) < 0.5
try:
    pion.PionAdamW
except ModuleNotFoundError as error:
    assert "pip install 'pion-optim[torch]'" in str(error)
else:
    raise SystemExit("torch should not be here")
print(pion.__file__)
"""


def command(*arguments, **keys):
    return subprocess.run(arguments, check=True, capture_output=True, text=True, **keys).stdout


@pytest.mark.slow
def test_the_wheel_installs_into_a_fresh_environment(tmp_path):
    # about a minute of compilation, seconds with ccache
    environment = dict(os.environ)
    if any((pathlib.Path(p) / "ccache").exists() for p in os.environ["PATH"].split(":")):
        environment["CMAKE_CXX_COMPILER_LAUNCHER"] = "ccache"
    wheels = tmp_path / "wheels"
    command(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", wheels, str(ROOT), env=environment
    )
    (wheel,) = wheels.glob("pion_optim-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("pion/py.typed", "pion/_pion.pyi", "pion/__init__.py", "pion/optimizers.py"):
        assert wanted in names
    assert not [n for n in names if n.endswith((".h", ".a", ".cc")) or "include/" in n]
    assert wheel.stat().st_size < 5e6
    assert ("abi3" in wheel.name) == (sys.version_info >= (3, 12))

    python = tmp_path / "venv/bin/python"
    command(sys.executable, "-m", "venv", tmp_path / "venv")
    command(python, "-m", "pip", "install", "-q", wheel)
    assert str(tmp_path) in command(python, "-c", USE, cwd=tmp_path)


def test_the_extension_needs_no_framework():
    import pion._pion

    needed = command("readelf", "-d", pion._pion.__file__)
    libraries = [line.split("[")[1].rstrip("]") for line in needed.splitlines() if "NEEDED" in line]
    assert libraries
    assert not [name for name in libraries if "torch" in name or "c10" in name or "python" in name]


def test_types_are_shipped():
    import pion

    folder = pathlib.Path(pion.__file__).parent
    assert (folder / "py.typed").exists()
    stub = (folder / "_pion.pyi").read_text()
    for name in ("class Rule", "class Stepper", "def route("):
        assert name in stub
    assert set(pion.__all__) <= set(dir(pion))
    for name in pion.__all__:
        assert getattr(pion, name).__doc__
