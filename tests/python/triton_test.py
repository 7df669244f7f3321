# SPDX-License-Identifier: Apache-2.0
"""Triton's symmetric products: under its interpreter against f64, compiled for GPUs that are not here,
and when they are used."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import warnings

import pytest
import torch

from pion import triton_products

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton: script/bootstrap test"
)
HERE = pathlib.Path(__file__).parent


def child(*arguments, **environment):
    """Triton decides when it is imported whether it interprets: so in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(HERE / "triton_child.py"), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_triton
def test_the_kernel_computes_its_definition():
    child("interpret", TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@needs_triton
def test_the_kernel_compiles_for_gpus_with_their_matrix_instructions(tmp_path):
    child("compile", TRITON_CACHE_DIR=str(tmp_path))


def test_a_cpu_has_no_kernel():
    assert not triton_products.usable(torch.device("cpu"))
    x = torch.randn(2, 40, 30).half()
    own = triton_products.symmetric_product(x, x, alpha=2.0, gamma=1.0, dtype=torch.float32)
    expected = 2 * x.double() @ x.double().mT + torch.eye(40)
    # 30 terms in f32 of at most 2 |x|^2, |x| < 5, and one rounding
    assert (own - expected).abs().max() < 40 * 2.0**-24 * 2 * 30 * 25
    for other in (x.float(), x[:, :20], x.bfloat16()):
        with pytest.raises(ValueError, match="one shape"):
            triton_products.symmetric_product(x, other)


def test_the_operation_is_one_for_compilers_and_fake_tensors():
    x, scale = torch.randn(3, 20, 70).half(), torch.tensor([1.0, 0.5, 2.0])
    c = torch.randn(3, 20, 20).half()
    operation = torch.ops.pion.symmetric_product.default
    for arguments in (
        (x, x, None, 1.0, 1.0, 0.0, None, torch.float32),
        (x.mT, x.mT, None, 0.5, 1.0, 2.0, scale, torch.float16),
        (x, x, c + c.mT, 0.5, -1.0, 2.0, scale, torch.float16),
    ):
        torch.library.opcheck(operation, arguments)

    def product(x):
        return triton_products.symmetric_product(x, x, alpha=0.5, gamma=1.0, scale=scale)

    compiled = torch.compile(product, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), product(x))


@pytest.fixture
def device(monkeypatch):
    """As if a GPU were there; the check itself is replaced by the tests."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(triton_products, "_has_triton", lambda: True)
    monkeypatch.setattr(triton_products, "_checked", {})
    return torch.device("cuda", 0)


def test_it_is_used_where_its_check_passes_and_checked_once(device, monkeypatch):
    calls = []

    def difference(*shape):
        calls.append(shape)
        return 0.5

    monkeypatch.setattr(triton_products, "largest_difference", difference)
    assert triton_products.usable(device) and triton_products.usable(torch.device("cuda"))
    assert len(calls) == 3  # one check of three shapes


def test_a_wrong_result_and_a_failing_compiler_fall_back_with_one_warning(device, monkeypatch):
    def broken(*_):
        raise OSError("no compiler")

    for difference, message in ((lambda *_: 7.0, "7 times"), (lambda *_: float("nan"), "nan"),
                                (broken, "no compiler")):  # fmt: skip
        monkeypatch.setattr(triton_products, "_checked", {})
        monkeypatch.setattr(triton_products, "largest_difference", difference)
        with pytest.warns(RuntimeWarning, match=message):
            assert not triton_products.usable(device)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not triton_products.usable(device)


def test_no_warning_without_triton_and_no_check_while_a_graph_is_captured(device, monkeypatch):
    def unexpected(*_):
        raise AssertionError

    monkeypatch.setattr(triton_products, "largest_difference", unexpected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert not triton_products.usable(device) and not triton_products._checked
        monkeypatch.setattr(triton_products, "_has_triton", lambda: False)
        assert not triton_products.usable(device)
        monkeypatch.setattr(triton_products, "_has_triton", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (6, 0))
        assert not triton_products.usable(device)
