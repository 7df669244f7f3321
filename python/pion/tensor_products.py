# SPDX-License-Identifier: Apache-2.0
"""Batched products of 16-bit operands with sums in f32, as tensor cores compute them.

Where a device has no such product (a CPU, PyTorch before 2.8, another vendor's) it is emulated:
operands as rounded, a product in f32, one rounding of the result. So the numbers are those of a
GPU, up to the order of the sums, wherever a step runs.
"""

import contextlib
import functools
import importlib.util
import warnings

import torch

NARROW = (torch.float16, torch.bfloat16)


def product(a, b, dtype=torch.float32, alpha: float = 1.0):
    """alpha a b of every matrix of (batch, m, k) and (batch, k, n): sums in f32, rounded once to
    `dtype`, which is f32 or that of the operands. Operands of f32 and f64 are multiplied as they
    are; see true_products."""
    if a.dtype not in NARROW:
        result = torch.bmm(a, b)
    elif not native(a.device.type):
        result = torch.bmm(a.float(), b.float())
    elif dtype != a.dtype:
        result = torch.bmm(a, b, out_dtype=dtype)
    elif alpha != 1.0:
        return torch.baddbmm(a.new_empty((1, 1, 1)), a, b, beta=0.0, alpha=alpha)
    else:
        return torch.bmm(a, b)
    if alpha != 1.0:
        result.mul_(alpha)
    return result if a.dtype not in NARROW else result.to(dtype)


def symmetric_product(
    a, b, *, c=None, alpha=1.0, beta=1.0, gamma=0.0, scale=None, dtype=torch.float16
):
    """scale (alpha A B^T + beta C) + gamma I of every matrix, where that is symmetric: A = B, or
    all polynomials of one symmetric matrix. a, b: (batch, m, k); c: (batch, m, m) or None; scale:
    f32 of `batch` entries or None. Half the work where triton_products has a kernel for it; there
    all of it is rounded once to `dtype`, elsewhere before the scale and after it."""
    if a.dtype in NARROW and has_symmetric_kernel(a.device):
        from pion import triton_products

        return triton_products.symmetric_product(
            a, b, c=c, alpha=alpha, beta=beta, gamma=gamma, scale=scale, dtype=dtype
        )
    whole = a.dtype not in NARROW or (native(a.device.type) and dtype == a.dtype)
    if c is not None and whole:
        result = torch.baddbmm(c, a, b.mT, beta=beta, alpha=alpha)
    elif c is not None:
        result = product(a, b.mT, torch.float32, alpha).add_(c, alpha=beta).to(dtype)
    else:
        result = product(a, b.mT, dtype, alpha)
    if scale is not None:
        result.mul_(scale.view(-1, 1, 1))
    if gamma != 0.0:
        result.diagonal(dim1=1, dim2=2).add_(gamma)
    return result


@contextlib.contextmanager
def true_products():
    """Within it f32 products are of f32 operands, not of TF32 or bf16 ones, as
    torch.set_float32_matmul_precision may have asked for; that choice comes back after it."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # asked for by backend, which PyTorch 2.9 and later have
        with _true_products_by_backend():
            yield
        return
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _true_products_by_backend():
    places = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, was in zip(places, before, strict=True):
            place.fp32_precision = was


def native(device: str) -> bool:
    """Whether a device of this type has bmm(..., out_dtype=torch.float32)."""
    return device == "cuda" and hasattr(torch.ops.aten.bmm, "dtype")


_KERNEL = importlib.util.find_spec("pion.triton_products") is not None


def has_symmetric_kernel(device) -> bool:
    """Whether symmetric products are half the work on the device."""
    if not _KERNEL:
        return False
    from pion import triton_products

    return triton_products.usable(device)


@torch.compiler.assume_constant_result
@functools.cache
def operand_type(device: torch.device) -> torch.dtype:
    """The type of the operands of fast products on a device: fp16; bf16 where it has no fast fp16;
    f32 where it has neither, with one warning."""
    if device.type == "cuda" and torch.version.cuda and torch.cuda.is_available():
        if torch.cuda.get_device_capability(device) >= (7, 0):
            return torch.float16
        warnings.warn(
            f"pion: products on {device} must be of f32 matrices, as it has no tensor cores: steps "
            'of matrix rules take longer there, with the results of precision = "f32"',
            RuntimeWarning,
            stacklevel=2,
        )
        return torch.float32
    if device.type in ("xla", "hpu"):  # their matrix units take bf16
        return torch.bfloat16
    return torch.float16
