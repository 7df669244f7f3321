# SPDX-License-Identifier: Apache-2.0
"""--count: records a step of every contender on fake tensors, and says what it would take."""

import contextlib
import warnings
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pion import triton_products
from pion.bench_gpu import contenders
from pion.bench_gpu.record import Recorder, count_product
from pion.bench_gpu.shapes import SHAPES, Case, Matrices
from pion.bench_gpu.times import Device, seconds

_LATER = 1001  # steps before the one that is recorded
EMBEDDING = Case("embedding, 151936 x 1024", (Matrices(1, 151936, 1024),))


def _symmetric_flops(a, *_):
    """Of the tiles that the kernel computes."""
    return 2.0 * a.shape[0] * a.shape[2] * triton_products.entries(a.shape[1]), a


count_product("symmetric_product", _symmetric_flops)


@contextlib.contextmanager
def fake_device():
    """Fake tensors on "cuda". Where PyTorch has no CUDA, some Python bindings ask for a device guard
    that is not there; the operations that they stand for do not."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # of addresses that are asked for; fake tensors have none, and nothing depends on them
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        if not torch.cuda.is_available():
            for name, binding in _unguarded().items():
                stack.enter_context(mock.patch.object(torch.Tensor, name, binding))
        stack.enter_context(FakeTensorMode())
        yield


def _unguarded() -> dict:
    """Methods of tensors by their operations."""
    index, ops = torch.Tensor.__getitem__, torch.ops.aten

    def get(x, where):
        if type(where) is int:
            return x.select(0, where)
        if type(where) is slice and where.step is None:
            return ops.slice.Tensor(x, 0, where.start, where.stop)
        return index(x, where)

    def copy(x, source, non_blocking=False):
        return ops.copy_.default(x, source, non_blocking)

    def item(x):
        return ops._local_scalar_dense.default(x)

    return {
        "__getitem__": get,
        "copy_": copy,
        "item": item,
        "__invert__": lambda x: ops.bitwise_not.default(x),
        "__float__": lambda x: float(item(x)),
        "__int__": lambda x: int(item(x)),
        "__bool__": lambda x: bool(item(x)),
    }


def record(contender, case: Case, dtype=torch.float32, symmetric: bool = False) -> Recorder:
    """The second step; the first one makes the state. Of pion's it counts as a later one: the first
    ones watch closely for empty updates."""
    with fake_device():
        optimizer = contender.make(case, "cuda", dtype)
        with triton_products.assumed(symmetric):
            with Recorder():
                optimizer.step()
            for _, cell in getattr(optimizer, "named_cells", list)():
                cell.begun = _LATER
            with Recorder() as recorded:
                optimizer.step()
    return recorded


def record_each(contender, case: Case, dtype=torch.float32) -> Recorder:
    """record() of an optimizer that steps one matrix after the other: one of each shape is recorded
    and counts as often as it is there."""
    total = Recorder()
    for matrices in case.matrices:
        (shape,) = {tuple(p.shape) for p in _shapes(matrices)}
        one = record(contender, Case("", (Matrices(1, *shape),)), dtype)
        times = matrices.count * matrices.heads
        total.operations += one.operations * times
        total.waits += one.waits * times
        total.peak_bytes = max(total.peak_bytes, one.peak_bytes)
    return total


def _shapes(matrices: Matrices) -> list:
    return contenders.blocks(Case("", (matrices._replace(count=1),)), "meta", torch.float32)


def figures(recorded: Recorder, case: Case, device: Device) -> dict:
    """What a table shows of a record."""
    weights = case.weights()
    return {
        "gflop": {key: value / 1e9 for key, value in sorted(recorded.flops().items())},
        "bytes_a_weight": recorded.bytes() / weights,
        "product_bytes_a_weight": recorded.bytes(products=True) / weights,
        "launches": recorded.launches(),
        "peak_bytes": recorded.peak_bytes,
        "peak_bytes_a_weight": recorded.peak_bytes / weights,
        "waits": len(recorded.waits),
        "modelled_ms": 1e3 * seconds(recorded.operations, device),
    }


def counted(cases: list, device: Device, dtype=torch.float32, say=lambda case: None) -> list[dict]:
    """A row for every case and contender, of pion without and with symmetric products; say(case)
    tells how far it is."""
    rows = []
    for case in cases:
        say(case)
        peer = figures(record_each(contenders.PEER, case, dtype), case, device)
        rows.append({"case": case.name, "optimizer": contenders.PEER.name, **peer})
        for contender in contenders.MATRIX if case in SHAPES else contenders.MAIN:
            rows += _of_ours(contender, case, device, dtype, peer)
    for own, other in contenders.ELEMENTWISE:
        theirs = figures(record(other, EMBEDDING, dtype), EMBEDDING, device)
        ours = figures(record(own, EMBEDDING, dtype), EMBEDDING, device)
        rows.append({"case": EMBEDDING.name, "optimizer": other.name, **theirs})
        ratio = theirs["modelled_ms"] / ours["modelled_ms"]
        rows.append({"case": EMBEDDING.name, "optimizer": own.name, **ours, "ratio": ratio})
    return rows


def _of_ours(contender, case: Case, device: Device, dtype, peer: dict) -> list[dict]:
    """Without symmetric products, and with them where there are any."""
    rows = []
    for symmetric in (False, True):
        recorded = record(contender, case, dtype, symmetric)
        if symmetric and all(o.name != "symmetric_product" for o in recorded.operations):
            continue
        own = figures(recorded, case, device)
        row = {"case": case.name, "optimizer": contender.name, "symmetric": symmetric}
        rows.append(row | own | {"ratio": peer["modelled_ms"] / own["modelled_ms"]})
    return rows
