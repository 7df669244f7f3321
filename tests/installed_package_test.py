# SPDX-License-Identifier: Apache-2.0
"""An installed pion from outside: pkg-config, versions, find_package's refusals, the command."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cli_command import BINARY, ROOT, needs_binary

pytestmark = needs_binary
BUILD = BINARY.parent.parent
HEADER = (ROOT / "pion/version.h").read_text()
VERSION = ".".join(
    re.search(rf"PION_VERSION_{part} (\d+)", HEADER)[1] for part in ("MAJOR", "MINOR", "PATCH")
)


def run(*words, check=True, **options):
    result = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, **options
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Installed, then moved: nothing in it may name the place where it was put first."""
    folder = tmp_path_factory.mktemp("package")
    for component in ("pion", "command"):
        run("cmake", "--install", BUILD, "--component", component, "--prefix", folder / "first")
    shutil.move(folder / "first", folder / "moved")
    return folder / "moved"


def only(folder, pattern):
    (found,) = folder.rglob(pattern)
    return found


def test_the_version_is_one(prefix):
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()
    assert f'__version__ = "{VERSION}"' in (ROOT / "python/pion/__init__.py").read_text()
    assert f"Version: {VERSION}\n" in only(prefix, "pion.pc").read_text()
    assert f'"{VERSION}"' in only(prefix, "pionConfigVersion.cmake").read_text()
    assert f"pion {VERSION} " in run(BINARY, "--version").stdout


def test_license_and_public_headers_are_there(prefix):
    assert only(prefix / "share/doc", "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    for name in ("pion/optim.h", "pion/torch/pion.h", "pion/version.h"):
        assert (prefix / "include" / name).is_file()
    for header in (prefix / "include").rglob("*.h"):  # none asks for a header of theirs
        assert not re.search(r"#include <(Eigen|toml\+\+|nlohmann)", header.read_text()), header


@pytest.mark.skipif(not shutil.which("pkg-config"), reason="needs pkg-config")
def test_pkg_config_builds_a_program_of_the_moved_package(prefix, tmp_path):
    environment = {**os.environ, "PKG_CONFIG_PATH": str(only(prefix, "pion.pc").parent)}
    flags = run("pkg-config", "--cflags", "--libs", "pion", env=environment).stdout.split()
    source = tmp_path / "main.cc"
    source.write_text(
        (ROOT / "tests/install/optim_example/main.cc").read_text()
        + f'#if PION_VERSION < 100 || !defined(PION_VERSION_MAJOR)\n#error "{VERSION}"\n#endif\n'
        f'static_assert(std::string_view(PION_VERSION_STRING) == "{VERSION}");\n'
    )
    program = tmp_path / "program"
    run("g++", "-std=c++20", source, "-o", program, *flags)
    assert "directions" in run(program).stdout


def find(prefix, folder, arguments, more=""):
    """What find_package says to a project that asks so."""
    folder.mkdir(exist_ok=True)
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.24)\nproject(asks LANGUAGES CXX)\n"
        f'{more}\nfind_package(pion {arguments})\nmessage(STATUS "found: ${{pion_FOUND}}")\n'
    )
    environment = {**os.environ, "PATH": "/usr/local/bin:/usr/bin:/bin"}  # no torch by Python
    result = run(
        "cmake", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}",
        check=False, env=environment,
    )  # fmt: skip
    return " ".join((result.stdout + result.stderr).split())


def test_components_that_are_not_there_are_named(prefix, tmp_path):
    said = find(prefix, tmp_path / "unknown", "CONFIG REQUIRED COMPONENTS optmi")
    assert "a component of pion must be optim (pion::optim, plain arrays) or torch" in said
    assert said.count("got optmi") == 1 and "found:" not in said
    said = find(prefix, tmp_path / "optional", "CONFIG COMPONENTS optim OPTIONAL_COMPONENTS x")
    assert "found: TRUE" in said or "found: 1" in said


def test_libtorch_that_is_missing_or_another_is_explained(prefix, tmp_path):
    said = find(prefix, tmp_path / "none", "CONFIG REQUIRED COMPONENTS torch")
    assert "LibTorch 2.13 or later must be found, got none" in said
    assert "-DCMAKE_PREFIX_PATH=" in said and "find_package(pion COMPONENTS optim)" in said
    other = tmp_path / "other/share/cmake/Torch"
    other.mkdir(parents=True)
    (other / "TorchConfig.cmake").write_text("set(TORCH_LIBRARIES)\n")
    (other / "TorchConfigVersion.cmake").write_text(
        "set(PACKAGE_VERSION 2.99.1)\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n"
    )
    more = f'set(Torch_DIR "{other}")'
    said = find(prefix, tmp_path / "wrong", "CONFIG REQUIRED COMPONENTS torch", more)
    assert "with which pion was built, or another patch of it, got 2.99.1 in" in said
    assert "found: " in find(prefix, tmp_path / "without", "CONFIG REQUIRED COMPONENTS optim", more)


def test_another_libtorch_is_refused_by_the_compiler_too(prefix, tmp_path):
    (tmp_path / "torch").mkdir()
    header = tmp_path / "torch/version.h"
    program = '#include <pion/torch/torch_version.h>\n'
    built = re.search(
        r'PION_TORCH_VERSION "((\d+)\.(\d+)[^"]*)"',
        (prefix / "include/pion/torch/torch_version.h").read_text(),
    )

    def said(major, minor):
        header.write_text(
            f"#define TORCH_VERSION_MAJOR {major}\n#define TORCH_VERSION_MINOR {minor}\n"
        )
        words = ("g++", "-fsyntax-only", "-x", "c++", "-", f"-I{tmp_path}", f"-I{prefix}/include")
        return run(*words, check=False, input=program).stderr

    major, minor = int(built[2]), int(built[3])
    assert said(major, minor) == ""
    for other in ((major, minor + 1), (major + 1, minor)):
        assert f"pion was built with LibTorch {built[1]}, got another" in said(*other)


def test_the_installed_command_runs_on_its_own_files(prefix, tmp_path):
    share = prefix / "share/pion"
    (share / "recipes/own.toml").write_text((share / "recipes/planted_low_rank.toml").read_text())
    page = share / "report/page.css"
    page.write_text(page.read_text() + "\n/* of the moved package */\n")
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    def pion(*words):
        return run(prefix / "bin/pion", *words, cwd=tmp_path, env=environment)

    assert re.search(r"^own\b", pion("recipes").stdout, re.MULTILINE)
    assert not re.search(r"^own\b", run(BINARY, "recipes").stdout, re.MULTILINE)
    pion("train", "own", "--planted.width=8", "--planted.steps=3", "--out", "run")
    assert "/* of the moved package */" in (tmp_path / "run/report.html").read_text()
    for worker in ("pion/tokenizer_worker.py", "pion/reward_worker.py", "pion_track/__main__.py"):
        assert (share / "python" / worker).is_file()


def test_no_text_of_the_package_names_the_folder_that_it_was_built_from(prefix):
    for path in prefix.rglob("*"):
        if path.suffix in (".cmake", ".pc", ".h"):
            assert str(ROOT) not in path.read_text(), path
