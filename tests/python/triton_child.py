# SPDX-License-Identifier: Apache-2.0
"""A process of triton_test.py: `interpret` compares the kernel with f64, `compile` makes machine code
for GPUs that are not here."""

import sys

import torch

from pion import triton_products


def matrices(kind: str, rows: int, depth: int, dtype):
    """Operands A, B and an added C, whose product is symmetric."""
    source = torch.Generator().manual_seed(rows + depth)
    x = torch.randn(3, rows, depth, generator=source).to(dtype)
    if kind == "gram":
        return x, x, None
    if kind == "tall":  # X^T X: of transposed strides
        x = x.new_empty(3, depth, rows).copy_(x.mT).mT
        return x, x, None
    if kind == "slice":
        wide = torch.zeros(3, rows, depth + 5, dtype=dtype)
        wide[:, :, 2 : 2 + depth] = x
        return wide[:, :, 2 : 2 + depth], wide[:, :, 2 : 2 + depth], None
    # polynomials of one symmetric matrix, scaled so that rounding them keeps them within 1
    gram = (x.double() @ x.double().mT) / (rows * depth) ** 0.5 / 4
    a, b = (p.to(dtype) for p in (gram, torch.eye(rows) - gram @ gram / 8))
    return a, b, a


def interpret():
    shapes = ((64, 64), (1, 9), (37, 70), (129, 64), (520, 40))
    cases = [(kind, *shape) for kind in ("gram", "polynomials") for shape in shapes]
    for kind, rows, depth in [*cases, ("tall", 37, 70), ("slice", 70, 37)]:
        dtype = torch.float16
        a, b, c = matrices(kind, rows, depth, dtype)
        inner = a.shape[2]
        for scaled, into in ((False, torch.float16), (True, torch.float32)):
            scale = torch.tensor([0.5, 2.0, 0.25]) if scaled else None
            own = triton_products.launch(a, b, c, -0.5, 1.5, 2.0, scale, into)
            product = a.double() @ b.double().mT
            # of factors rounded one by one; the lower triangle is what counts
            product = product.tril() + product.tril(-1).mT
            factor = 1.0 if scale is None else scale.double().view(-1, 1, 1)
            exact = -0.5 * product + (0.0 if c is None else 1.5 * c.double())
            exact = exact * factor + 2 * torch.eye(rows)
            size = 0.5 * (a.double().abs() @ b.double().abs().mT) * factor
            size = (
                size.maximum(size.mT) + 2 + (0.0 if c is None else 1.5 * c.double().abs() * factor)
            )
            # inner + 4 roundings in f32, one of the result to its type
            bound = (inner + 4) * 2.0**-24 * size + torch.finfo(into).eps / 2 * exact.abs() + 1e-7
            assert ((own.double() - exact).abs() <= bound).all(), (kind, rows, depth, into)
            assert torch.equal(own, own.mT)
    # what the check at the start asks
    for rows, depth in ((64, 64), (200, 328)):
        assert triton_products.largest_difference("cpu", rows, depth) <= 1.0
    # and that it sees a fault: one entry that is off
    honest = triton_products.launch

    def faulty(*arguments):
        result = honest(*arguments)
        result[1, 3, 5] += 1.0
        return result

    triton_products.launch = faulty
    assert triton_products.largest_difference("cpu", 64, 64) > 1.0


def compiled():
    import triton
    from pion.triton_kernels import _symmetric_product as kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    ampere, hopper = "mma.sync.aligned.m16n8k16", "wgmma.mma_async"
    for capability, instruction, tile in ((80, ampere, 128), (90, hopper, 64), (90, hopper, 128)):
        constants = {"HAS_C": True, "HAS_SCALE": True, "TILE": tile, "DEPTH": 64}
        constants |= {"a_col": 1, "b_col": 1, "c_col": 1}  # rows without gaps
        types = {"a": "*fp16", "b": "*fp16", "c": "*fp16", "out": "*fp16", "scale": "*fp32"}
        types |= dict.fromkeys(("alpha", "beta", "gamma"), "fp32")
        types |= dict.fromkeys(constants, "constexpr")
        names = kernel.arg_names
        aligned = [n for n in names if types.get(n, "i32")[0] in "*i" and n != "scale"]
        source = ASTSource(
            kernel,
            {name: types.get(name, "i32") for name in names},
            constexprs={(names.index(n),): value for n, value in constants.items()},
            attrs={(names.index(n),): [["tt.divisibility", 16]] for n in aligned},
        )
        made = triton.compile(
            source,
            target=GPUTarget("cuda", capability, 32),
            options={"num_warps": 8 if tile == 128 else 4, "num_stages": 3},
        )
        assert instruction in made.asm["ptx"], (capability, tile)
        assert made.metadata.shared <= 99 * 1024  # of one block on the smallest of them, sm_86


if __name__ == "__main__":
    {"interpret": interpret, "compile": compiled}[sys.argv[1]]()
