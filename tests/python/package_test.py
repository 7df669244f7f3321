# SPDX-License-Identifier: Apache-2.0
"""The wheel: built from the checkout, installed into a fresh environment, used there."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from snippets_test import check, programs, train

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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by the build packages of this environment, so that ccache knows the compilation."""
    wheels = tmp_path_factory.mktemp("wheels")
    environment = {**os.environ, "CCACHE_BASEDIR": str(ROOT), "CCACHE_NOHASHDIR": "1"}
    if shutil.which("ccache"):
        environment["CMAKE_CXX_COMPILER_LAUNCHER"] = "ccache"
    words = ["-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", wheels, str(ROOT)]
    command(sys.executable, *words, env=environment)
    return next(wheels.glob("pion_optim-*.whl"))


def fresh_environment(folder, *pip_options):
    """Its Python, with what `pip install` is told to install."""
    python = folder / "venv/bin/python"
    command(sys.executable, "-m", "venv", folder / "venv")
    command(python, "-m", "pip", "install", "-q", *pip_options)
    return python


@pytest.mark.slow
def test_what_the_wheel_holds(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("pion/py.typed", "pion/_pion.pyi", "pion/__init__.py", "pion/optimizers.py"):
        assert wanted in names
    assert not [n for n in names if n.endswith((".h", ".a", ".cc")) or "include/" in n]
    assert wheel.stat().st_size < 5e6
    assert ("abi3" in wheel.name) == (sys.version_info >= (3, 12))


@pytest.mark.slow
def test_the_wheel_installs_into_a_fresh_environment(wheel, tmp_path):
    python = fresh_environment(tmp_path, wheel)
    assert str(tmp_path) in command(python, "-c", USE, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.hosts
def test_the_ten_lines_train_from_a_fresh_environment(wheel, tmp_path):
    """A new environment with the wheel; torch and transformers are those of this one."""
    pytest.importorskip("transformers")
    python = fresh_environment(tmp_path, "--no-index", "--no-deps", wheel)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "present.pth").write_text("\n".join(packages))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    where = command(python, "-c", "import pion; print(pion.__file__)", env=environment)
    assert str(tmp_path) in where
    (program, *_) = programs().values()
    check(train(python, program, tmp_path))


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
