# SPDX-License-Identifier: Apache-2.0
"""--run: how long steps take on the device at hand, and the memory that they need.

Every contender is measured in turn with torch.optim.Muon: both are made, warmed up, and then stepped
by turns, so that what else happens on the machine happens to both. The ratio is the median of the
pairs' ratios.
"""

import importlib.util
import random
import statistics
import time

import torch

import pion
from pion.bench_gpu import contenders
from pion.bench_gpu.shapes import SHAPES, Case, Matrices

_SMALL = (
    Case("96 x 160", (Matrices(2, 96, 160),)),
    Case("160 x 96", (Matrices(1, 160, 96),)),
    Case("4 heads of 64 x 512", (Matrices(1, 256, 512, 4),)),
    Case("700 x 700", (Matrices(1, 700, 700),)),
)
_WARM = 3  # steps that compile, allocate and check
_PAIRS = 5  # at the least


class NoRoom(RuntimeError):
    """A case does not fit into the device's memory."""


def device_at_hand() -> torch.device:
    """The CUDA device; raises RuntimeError if there is none."""
    if not torch.cuda.is_available():
        raise RuntimeError(
            "bench_gpu --run: a CUDA device must be at hand, got none that PyTorch "
            f"{torch.__version__} can use; --count needs none"
        )
    return torch.device("cuda", torch.cuda.current_device())


def measured(cases: list, device, seconds: float, dtype=torch.float32, say=lambda case: None):
    """A row for every case and contender; `seconds` are spent on each pair."""
    others = [c for c in contenders.OTHERS if importlib.util.find_spec(c.package)]
    rows = []
    for case in cases:
        say(case)
        own = contenders.MATRIX if case in SHAPES else contenders.MAIN
        for contender in (*own, *others):
            row = {"case": case.name, "optimizer": contender.name}
            try:
                rows.append(row | _pair(contender, case, device, seconds, dtype))
            except (NoRoom, torch.OutOfMemoryError) as error:
                rows.append(row | {"failed": str(error)})
            except Exception as error:  # another package's: the table says so
                if contender not in others:
                    raise
                rows.append(row | {"failed": f"{type(error).__name__}: {error}"})
    return rows


def _pair(contender, case: Case, device, seconds: float, dtype) -> dict:
    _check_room(case, device, dtype)
    both = [contenders.PEER.make(case, device, dtype), contender.make(case, device, dtype)]
    peaks = [_peak(optimizer, device) for optimizer in both]
    times, end = ([], []), time.perf_counter() + seconds
    while len(times[0]) < _PAIRS or time.perf_counter() < end:
        for index in random.sample((0, 1), 2):
            times[index].append(_timed(both[index], device))
    ratios = [theirs / ours for theirs, ours in zip(*times, strict=True)]
    return {
        "ms": 1e3 * statistics.median(times[1]),
        "least_ms": 1e3 * min(times[1]),
        "peer_ms": 1e3 * statistics.median(times[0]),
        "ratio": statistics.median(ratios),
        "pairs": len(ratios),
        "peak_bytes": peaks[1],
        "peer_peak_bytes": peaks[0],
    }


def _check_room(case: Case, device, dtype):
    """Weights, gradients and momentum of two, and a quarter for their steps."""
    if device.type != "cuda":
        return
    size = torch.empty((), dtype=dtype).element_size()
    needed = 1.25 * 2 * case.weights() * (2 * size + 4 + (4 if size == 2 else 0))
    free, _ = torch.cuda.mem_get_info(device)
    if needed > free:
        raise NoRoom(f"needs {needed / 1e9:.1f} GB, got {free / 1e9:.1f} GB; fewer --layers fit")


def _peak(optimizer, device) -> int:
    """Bytes of a step beside weights, gradients and state, after warming up; 0 off CUDA."""
    for _ in range(_WARM):
        optimizer.step()
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    optimizer.step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _timed(optimizer, device) -> float:
    """Seconds of a step, to its end on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def parity(device, dtype=torch.float32) -> list[dict]:
    """How far a first step's updates on the device are from those of the same operations on the CPU,
    which computes 16-bit products exactly as rounded: the relative Frobenius norm."""
    rows = []
    for case in _SMALL:
        for contender in contenders.MATRIX:
            here, there = (contender.make(case, where, dtype) for where in ("cpu", device))
            pairs = list(zip(_parameters(here), _parameters(there), strict=True))
            before = [own.detach().clone() for own, _ in pairs]
            for own, other in pairs:
                other.data.copy_(own)
                other.grad.copy_(own.grad)
            with pion.force_torch_path():
                here.step()
            there.step()
            apart = size = 0.0
            for (own, other), first in zip(pairs, before, strict=True):
                moved = own.detach().double() - first.double()
                apart += float(
                    (other.detach().cpu().double() - own.detach().double()).square().sum()
                )
                size += float(moved.square().sum())
            row = {"case": case.name, "optimizer": contender.name}
            rows.append(row | {"apart": (apart / size) ** 0.5})
    return rows


def _parameters(optimizer) -> list:
    return [p for group in optimizer.param_groups for p in group["params"]]
