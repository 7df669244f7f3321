# SPDX-License-Identifier: Apache-2.0
"""The installed libraries, seen with binutils: whose names they hold, which instructions."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("PION_BINARY", ROOT / "build/release/apps/pion"))
LIBRARIES = BINARY.parent.parent / "pion"
pytestmark = pytest.mark.skipif(
    not BINARY.exists() or not shutil.which("objdump"), reason="needs a build and binutils"
)
FOREIGN = re.compile(r"(?<![A-Za-z0-9_])(Eigen|toml|nlohmann)::")


def output(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["kernels", "spectral", "optim", "torch"])
def test_no_symbol_is_of_a_library_that_users_may_have_too(name):
    # Inline functions are weak symbols: of two of one name, compiled with and without -mavx, the
    # linker keeps either. What LibTorch's headers leave is shared with LibTorch on purpose.
    archive = LIBRARIES / name / f"libpion_{name}.a"
    symbols = output("nm", "--demangle", "--defined-only", archive).splitlines()
    assert len(symbols) > 20
    assert [line for line in symbols if FOREIGN.search(line)] == []


def test_the_namespaces_in_their_place_are_there():
    archive = LIBRARIES / "spectral/libpion_spectral.a"
    symbols = output("nm", "--demangle", "--defined-only", archive)
    assert re.search(r" W (.* )?pion_eigen::", symbols)
    assert FOREIGN.search("                 W Eigen::internal::aligned_malloc(unsigned long)")


@pytest.mark.parametrize("name", ["optim", "torch"])
def test_a_shared_library_shows_names_of_pion_alone(name):
    library = LIBRARIES.parent / f"libpion_{name}.so"
    symbols = output("nm", "--dynamic", "--demangle", "--defined-only", library).splitlines()
    known = {"optim": "pion::Routing::to_toml", "torch": "pion::Optimizer::step"}[name]
    assert any(known in line for line in symbols)
    assert [line for line in symbols if not re.search(r"(^|[^A-Za-z0-9_])pion::", line)] == []
    assert f"libpion_{name}.so.0." in output("objdump", "--private-headers", library)


def test_a_program_runs_with_the_shared_library(tmp_path):
    source, folder = ROOT / "tests/install/optim_example/main.cc", LIBRARIES.parent
    program = tmp_path / "program"
    flags = (f"-I{ROOT}", f"-L{folder}", "-lpion_optim", f"-Wl,-rpath,{folder}")
    output("g++", "-std=c++20", source, "-o", program, *flags)
    assert "1 directions of 3" in output(program)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="kernels of x86 alone")
@pytest.mark.parametrize(
    ("target", "product", "products"),
    # one round of the innermost loop: 8 rows of 2 vectors; 2 x 2 tiles
    [("avx512_bf16", "vdpbf16ps", 16), ("amx_bf16", "tdpbf16ps", 4)],
)
def test_the_peak_is_that_of_products_which_the_compiler_has_kept(target, product, products):
    # A loop whose sum nobody reads is left out, and what is timed then is nothing.
    symbol = f"pion::{target}::multiply_peak(unsigned long, float*)"
    code = output(
        "objdump", "--demangle", f"--disassemble={symbol}", LIBRARIES / "kernels/libpion_kernels.a"
    )
    assert f"<{symbol}>:" in code
    assert code.count(product) >= products
