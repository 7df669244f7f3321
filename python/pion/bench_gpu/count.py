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
from pion.bench_gpu.shapes import Case, Matrices
from pion.bench_gpu.times import Device, seconds

EMBEDDING = Case("embedding, 151936 x 1024", (Matrices(1, 151936, 1024),))


def _symmetric_flops(a, *_):
    """Of the tiles that the kernel computes."""
    return 2.0 * a.shape[0] * a.shape[2] * triton_products.entries(a.shape[1]), a


count_product("symmetric_product", _symmetric_flops)


@contextlib.contextmanager
def _fake_device():
    """Fake tensors on "cuda". Where PyTorch has no CUDA, copy_ and indexing by a number ask for a
    device guard that is not there, in their Python bindings; their operations do not."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # of addresses that are asked for; fake tensors have none, and nothing depends on them
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        if not torch.cuda.is_available():
            index, copy = torch.Tensor.__getitem__, torch.ops.aten.copy_.default
            bindings = {
                "copy_": lambda x, source, non_blocking=False: copy(x, source, non_blocking),
                "__getitem__": lambda x, i: x.select(0, i) if type(i) is int else index(x, i),
            }
            for name, binding in bindings.items():
                stack.enter_context(mock.patch.object(torch.Tensor, name, binding))
        stack.enter_context(FakeTensorMode())
        yield


def record(contender, case: Case, dtype=torch.float32, symmetric: bool = False) -> Recorder:
    """The second step; the first one makes the state."""
    with _fake_device():
        optimizer = contender.make(case, "cuda", dtype)
        with triton_products.assumed(symmetric):
            optimizer.step()
            with Recorder() as recorded:
                optimizer.step()
    return recorded


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


def counted(cases: list, device: Device, dtype=torch.float32) -> list[dict]:
    """A row for every case and contender, of pion without and with symmetric products."""
    rows = []
    for case in cases:
        peer = figures(record(contenders.PEER, case, dtype), case, device)
        rows.append({"case": case.name, "optimizer": contenders.PEER.name, **peer})
        for contender in contenders.MATRIX:
            for symmetric in (False, True):
                own = figures(record(contender, case, dtype, symmetric), case, device)
                ratio = peer["modelled_ms"] / own["modelled_ms"]
                row = {"case": case.name, "optimizer": contender.name, "symmetric": symmetric}
                rows.append(row | own | {"ratio": ratio})
    for own, other in contenders.ELEMENTWISE:
        theirs = figures(record(other, EMBEDDING, dtype), EMBEDDING, device)
        ours = figures(record(own, EMBEDDING, dtype), EMBEDDING, device)
        rows.append({"case": EMBEDDING.name, "optimizer": other.name, **theirs})
        ratio = theirs["modelled_ms"] / ours["modelled_ms"]
        rows.append({"case": EMBEDDING.name, "optimizer": own.name, **ours, "ratio": ratio})
    return rows
