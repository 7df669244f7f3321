# SPDX-License-Identifier: Apache-2.0
"""Symmetric products on a GPU by Triton: one triangle of tiles is computed and mirrored, half the
work of a product of matrices that commute (polynomials of one Gram matrix), and of X X^T.

    scale (alpha A B^T + beta C) + gamma I        A, B (batch, m, k), C (batch, m, m), symmetric

fp16 or bf16 operands, f32 sums. `scale` is one f32 a matrix. Triton comes with PyTorch's builds for
CUDA; nothing here imports it before a GPU is there. What a kernel gives is compared with the plain
product once a device and process; where it differs a warning says so and usable() is False: then
callers take the plain product, as they do without Triton.
"""

import contextlib
import functools
import importlib.util
import warnings

import torch
from torch.utils._python_dispatch import _disable_current_modes

_SMALL = 512  # rows from which a tile is 128 x 128: enough tiles to fill the GPU
_TYPES = (torch.float16, torch.bfloat16)
_checked = {}  # by device index
_assumed = None


def tile(rows: int) -> int:
    """Rows and columns of a tile."""
    return 128 if rows >= _SMALL else 64


def entries(rows: int) -> int:
    """Entries of a symmetric matrix that are computed: its tiles on and below the diagonal."""
    size, result = tile(rows), 0
    for first in range(0, rows, size):
        height = min(size, rows - first)
        result += height * (first + height)
    return result


@contextlib.contextmanager
def assumed(usable_: bool):
    """Within it usable() answers so, unasked: counting for a device that is not there."""
    global _assumed
    before, _assumed = _assumed, usable_
    try:
        yield
    finally:
        _assumed = before


@torch.compiler.assume_constant_result
def usable(device: torch.device) -> bool:
    """Whether symmetric products of tensors on the device go through the kernel. The first time it
    runs there, and waits; never while a CUDA graph is captured."""
    if _assumed is not None:
        return _assumed
    if device.type != "cuda" or not torch.cuda.is_available() or not _has_triton():
        return False
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in _checked:
        if torch.cuda.is_current_stream_capturing():
            return False
        if torch.cuda.get_device_capability(index) < (7, 0):  # no tensor cores
            _checked[index] = False
            return False
        fault = _fault(torch.device("cuda", index))
        _checked[index] = fault is None
        if fault is not None:
            warnings.warn(
                f"pion: Triton's symmetric products are not used on {device}, where they must agree "
                f"with the plain ones: {fault}. Steps take longer; results are the same",
                RuntimeWarning,
                stacklevel=2,
            )
    return _checked[index]


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _fault(device) -> str | None:
    """What is wrong with the kernel on the device, by a few small products of every kind."""
    try:
        with _disable_current_modes(), torch.no_grad():
            for rows, depth in ((64, 64), (200, 328), (640, 96)):
                difference = largest_difference(device, rows, depth)
                if not difference <= 1.0:
                    return f"{difference:.2g} times the rounding apart at {rows} x {depth}"
    except Exception as error:  # noqa: BLE001 whatever a compiler or driver says
        return f"{type(error).__name__}: {error}"
    return None


def largest_difference(device, rows: int, depth: int, dtype=torch.float16) -> float:
    """The largest difference of the kernel and the definition, in units of what rounding explains:
    two sums of `depth` terms in f32, tensor cores may cut what they add, and one rounding of the
    result."""
    source = torch.Generator().manual_seed(rows)
    x = torch.randn(3, rows, depth, generator=source).to(device, dtype)
    c = torch.randn(3, rows, rows, generator=source)
    c = (c + c.mT).to(device, dtype)
    scale = torch.tensor([1.0, 0.25, 8.0], device=device)
    largest = 0.0
    for own, into in ((c, dtype), (None, torch.float32)):
        arguments = (x, x, own, 0.5, -1.5, 2.0, scale, into)
        got, expected = launch(*arguments).double(), definition(*arguments).double()
        size = 0.5 * (x.double().abs() @ x.double().abs().mT)
        if own is not None:
            size += 1.5 * own.double().abs()
        bound = 2 * (depth + 8) * 2.0**-24 * (size * scale.double().view(-1, 1, 1) + 2.0)
        bound += 2 * torch.finfo(into).eps * expected.abs()
        largest = max(largest, float(((got - expected).abs() / bound).max()))
        if not torch.equal(got, got.mT):
            return float("inf")
    return largest


def definition(a, b, c, alpha, beta, gamma, scale, dtype):
    """What the kernel computes, by plain operations."""
    result = alpha * (a.float() @ b.float().mT)
    if c is not None:
        result = result + beta * c.float()
    if scale is not None:
        result = result * scale.view(-1, 1, 1)
    if gamma != 0.0:
        result.diagonal(dim1=1, dim2=2).add_(gamma)
    return result.to(dtype)


def launch(a, b, c, alpha, beta, gamma, scale, dtype):
    """The kernel itself, on a GPU or under Triton's interpreter."""
    from pion import triton_kernels

    out = torch.empty((a.shape[0], a.shape[1], a.shape[1]), dtype=dtype, device=a.device)
    triton_kernels.symmetric_product(a, b, c, out, scale, alpha, beta, gamma, tile(a.shape[1]))
    return out


_library = torch.library.Library("pion", "FRAGMENT")
_library.define(
    "symmetric_product(Tensor a, Tensor b, Tensor? c, float alpha, float beta, float gamma, "
    "Tensor? scale, ScalarType dtype) -> Tensor"
)
_library.impl("symmetric_product", launch, "CUDA")
_library.impl("symmetric_product", definition, "CPU")


@torch.library.register_fake("pion::symmetric_product", lib=_library)
def _(a, b, c, alpha, beta, gamma, scale, dtype):
    return a.new_empty((a.shape[0], a.shape[1], a.shape[1]), dtype=dtype)


def symmetric_product(
    a, b, *, c=None, alpha=1.0, beta=1.0, gamma=0.0, scale=None, dtype=torch.float16
):
    """scale (alpha A B^T + beta C) + gamma I of every matrix, where that is symmetric: A = B, or
    both polynomials of one symmetric matrix (then B^T is B). Only the lower triangle of A B^T and
    of C counts. a, b: (batch, m, k), fp16 or bf16, of any strides; c: (batch, m, m) or None; scale:
    f32 of `batch` entries or None; the result is of `dtype`, fp16, bf16 or f32."""
    if a.dtype not in _TYPES or a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(
            "symmetric_product: a and b must be of one shape (batch, m, k), both float16 or both "
            f"bfloat16, got {list(a.shape)} of {a.dtype} and {list(b.shape)} of {b.dtype}"
        )
    return torch.ops.pion.symmetric_product(a, b, c, alpha, beta, gamma, scale, dtype)
