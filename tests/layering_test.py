# SPDX-License-Identifier: Apache-2.0
"""The rules of structure that no compiler checks.

Includes point one way: kernels <- spectral <- optim <- torch <- lab <- apps; the first three know
no framework.
"""

import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYERS = ["pion/kernels", "pion/spectral", "pion/optim", "pion/torch", "lab", "apps"]
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
BANNED = {"utils", "helpers", "common", "misc", "manager", "handler", "base", "core", "impl"}


def tracked(*suffixes):
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    return [ROOT / name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()]


def layer_of(name):
    for rank, layer in enumerate(LAYERS):
        if name.startswith(layer + "/"):
            return rank
    return None


def test_includes_point_one_way():
    wrong = []
    for path in tracked(".h", ".cc"):
        name = str(path.relative_to(ROOT))
        rank = layer_of(name)
        if rank is None:
            continue
        for included in INCLUDE.findall(path.read_text()):
            target = layer_of(included)
            if target is not None and target > rank:
                wrong.append(f"{name} includes {included}")
    assert not wrong, "\n".join(wrong)


def test_the_first_three_layers_know_no_framework():
    wrong = []
    for path in tracked(".h", ".cc", "CMakeLists.txt"):
        name = str(path.relative_to(ROOT))
        rank = layer_of(name)
        if rank is None or rank > 2:
            continue
        for included in INCLUDE.findall(path.read_text()):
            if re.match(r"(torch|ATen|c10|Python|pybind|nanobind)\b", included):
                wrong.append(f"{name} includes {included}")
    assert not wrong, "\n".join(wrong)


def test_a_kernel_includes_nothing_that_the_linker_could_share():
    # An inline function compiled with AVX-512 could be the copy kept for the whole program.
    # Intrinsics are always inlined.
    wrong = []
    for path in tracked("_kernel.cc", "lanes.h", "_kernel_call.h"):
        for included in INCLUDE.findall(path.read_text()):
            known = ("cstddef", "cstdint", "immintrin.h")
            checked_here = included.startswith("pion/kernels/") or included.endswith(
                ("_lanes.h", "_kernel_call.h")
            )
            if included not in known and not checked_here:
                wrong.append(f"{path.relative_to(ROOT)} includes {included}")
    assert not wrong, "\n".join(wrong)


def test_text_from_outside_is_parsed_in_one_place():
    # which bounds its depth: pion/optim/json_parser.h, toml_parser.h; Python: outside_text.py
    own = {
        "pion/optim/json_parser.h",
        "pion/optim/toml_parser.h",
        "lab/files/safetensors.cc",  # with a watch on keys; bounds the depth itself
        "lab/models/causal_lm_tool.cc",  # for tests
    }
    call = re.compile(r"[Jj]son::(parse|accept|sax_parse|from_\w+)\(|toml::parse(_file)?\(")
    wrong = [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in tracked(".h", ".cc")
        if "_test." not in path.name and str(path.relative_to(ROOT)) not in own
        for found in call.finditer(path.read_text())
    ]
    assert not wrong, "\n".join(wrong)


def test_files_have_a_license_line_a_size_and_a_name():
    wrong = []
    for path in tracked(".h", ".cc", ".py", ".js"):
        name = path.relative_to(ROOT)
        lines = path.read_text().split("\n")
        if not any("SPDX-License-Identifier: Apache-2.0" in line for line in lines[:3]):
            wrong.append(f"{name}: no SPDX line")
        limit = 150 if path.suffix == ".h" else 550
        if len(lines) - 1 > limit:
            wrong.append(f"{name}: {len(lines) - 1} lines, limit {limit}")
        if BANNED & set(re.split(r"[_./]", str(name))):
            wrong.append(f"{name}: a name that says nothing")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_built_for_one_machine():
    wrong = []
    for path in tracked("CMakeLists.txt", ".cmake", ".json", ".toml"):
        if re.search(r"-m(arch|tune)=native", path.read_text(errors="replace")):
            wrong.append(str(path.relative_to(ROOT)))
    assert not wrong, "\n".join(wrong)
