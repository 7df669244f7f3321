# SPDX-License-Identifier: Apache-2.0
"""Batched products of 16-bit operands with sums in f32, as tensor cores compute them.

Where a device has no such product (a CPU, PyTorch before 2.8, another vendor's) it is emulated:
operands as rounded, a product in f32, one rounding of the result. So the numbers are those of a
GPU, up to the order of the sums, wherever a step runs.
"""

import functools
import importlib.util
import warnings

import torch

_NARROW = (torch.float16, torch.bfloat16)


def product(a, b, dtype=torch.float32):
    """a b of every matrix of (batch, m, k) and (batch, k, n): sums in f32, rounded once to
    `dtype`, which is f32 or that of the operands. f32 and f64 operands: true products, whatever
    torch.set_float32_matmul_precision says."""
    if a.dtype not in _NARROW:
        return exact(a, b)
    if not native(a.device.type):
        return exact(a.float(), b.float()).to(dtype)
    if dtype == a.dtype:
        return torch.bmm(a, b)
    return torch.bmm(a, b, out_dtype=dtype)


def symmetric_product(
    a, b, *, c=None, alpha=1.0, beta=1.0, gamma=0.0, scale=None, dtype=torch.float16
):
    """scale (alpha A B^T + beta C) + gamma I of every matrix, where that is symmetric: A = B, or
    all polynomials of one symmetric matrix. a, b: (batch, m, k); c: (batch, m, m) or None; scale:
    f32 of `batch` entries or None. One rounding to `dtype`; without the kernel of triton_products
    a scale is a power of two and applied after it."""
    if a.dtype in _NARROW and _has_kernel(a.device):
        from pion import triton_products

        return triton_products.symmetric_product(
            a, b, c=c, alpha=alpha, beta=beta, gamma=gamma, scale=scale, dtype=dtype
        )
    if a.dtype in _NARROW and native(a.device.type) and dtype == a.dtype:
        result = _rounded(a, b.mT, c, alpha, beta)
    else:
        result = product(a, b.mT, torch.float32)
        result = result if alpha == 1.0 else result.mul_(alpha)
        if c is not None:
            result.add_(c, alpha=beta)
        result = result.to(dtype)
    if scale is not None:
        result.mul_(scale.view(-1, 1, 1))
    if gamma != 0.0:
        result.diagonal(dim1=1, dim2=2).add_(gamma)
    return result


def _rounded(a, b, c, alpha: float, beta: float):
    if c is not None:
        return torch.baddbmm(c, a, b, beta=beta, alpha=alpha)
    if alpha == 1.0:
        return torch.bmm(a, b)
    return torch.baddbmm(a.new_empty(()), a, b, beta=0.0, alpha=alpha)


def exact(a, b):
    """a b in the operands' type, without TF32 and its kin."""
    if a.dtype != torch.float32 or a.device.type == "cpu" or _full_precision():
        return torch.bmm(a, b)
    with _true_products():
        return torch.bmm(a, b)


def _full_precision() -> bool:
    return torch.get_float32_matmul_precision() == "highest"


class _true_products:  # noqa: N801 a context, as torch names its own
    """Within it f32 products are of f32 operands; the user's choice comes back after it."""

    def __enter__(self):
        self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")

    def __exit__(self, *_):
        torch.set_float32_matmul_precision(self.before)


@functools.cache
def native(device: str) -> bool:
    """Whether a device of this type has bmm(..., out_dtype=torch.float32)."""
    return device == "cuda" and hasattr(torch.ops.aten.bmm, "dtype")


@functools.cache
def _kernel_file() -> bool:
    return importlib.util.find_spec("pion.triton_products") is not None


def _has_kernel(device) -> bool:
    if not _kernel_file():
        return False
    from pion import triton_products

    return triton_products.usable(device)


def has_symmetric_kernel(device) -> bool:
    """Whether symmetric products are half the work on the device."""
    return _has_kernel(device)


@functools.cache
def operand_type(device: torch.device) -> torch.dtype:
    """The type of the operands of fast products on a device: fp16; bf16 where it has no fast fp16;
    f32 where it has neither, with one warning."""
    kind = device.type
    if kind == "cuda" and torch.version.cuda and torch.cuda.is_available():
        if torch.cuda.get_device_capability(device) >= (7, 0):
            return torch.float16
        _warn_of(device, "tensor cores")
        return torch.float32
    if kind in ("xla", "hpu"):  # matrix units of bf16
        return torch.bfloat16
    return torch.float16


def _warn_of(device, lacking: str):
    warnings.warn(
        f"pion: products on {device} must be of f32 matrices, as it has no {lacking}: steps of "
        'matrix rules take longer there, with the results of precision = "f32"',
        RuntimeWarning,
        stacklevel=2,
    )
