# SPDX-License-Identifier: Apache-2.0
"""Several processes on gloo give the weights of one; torchrun examples; plans of owners."""

import os
import pathlib
import subprocess
import sys
import time
import types

import pytest
import torch
from judges import mlp, parameter, run
from pion.bench_gpu import count
from pion.bench_gpu.record import Recorder
from pion.distributed_plan import owners
from torch._subclasses.fake_tensor import FakeTensor

import pion
from pion import distributed_exchange, distributed_gather

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLES = HERE.parent.parent / "examples"
LIMIT_SECONDS = 150  # a hang fails; on two idle cores all checks take 5-15 s


def start(command: list) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PION_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def finish(processes: list, limit: float):
    """Waits for all; at the first failure, or too late, ends the others and shows what was said."""
    end = time.monotonic() + limit
    while any(p.poll() is None for p in processes) and time.monotonic() < end:
        if any(p.poll() for p in processes):
            time.sleep(1.0)  # the others' own complaints
            break
        time.sleep(0.05)
    late = time.monotonic() >= end
    for p in processes:
        if p.poll() is None:
            p.kill()
    said = [p.communicate()[0] for p in processes]
    codes = [p.returncode for p in processes]
    text = "\n".join(
        f"rank {r} ({c}):\n{s}" for r, (c, s) in enumerate(zip(codes, said, strict=True))
    )
    assert not late, f"not done after {limit} s\n{text}"
    assert codes == [0] * len(codes), text


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_give_the_weights_of_one_process(ranks, tmp_path):
    command = [sys.executable, str(HERE / "distributed_ranks.py")]
    processes = [start([*command, rank, ranks, tmp_path]) for rank in range(ranks)]
    finish(processes, LIMIT_SECONDS)


def test_examples_run_and_go_on(tmp_path):
    names = {"torchrun_ddp.py": tmp_path / "ddp.pt", "torchrun_fsdp2.py": tmp_path / "fsdp2"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    for ranks in ("2", "1"):  # the second time from the first one's checkpoint
        finish(
            [
                start([*launch, ranks, str(EXAMPLES / name), "--steps", "20", "--checkpoint", file])
                for name, file in names.items()
            ],
            LIMIT_SECONDS,
        )
    assert torch.load(names["torchrun_ddp.py"], weights_only=True)["step"] == 40
    for name in names:
        assert len((EXAMPLES / name).read_text().splitlines()) <= 60


def test_one_process_needs_no_group(monkeypatch):
    plain, shared = (pion.PionAdamW(pion.route(mlp()), lr=0.01) for _ in range(2))
    assert pion.distribute(shared) is shared
    for optimizer in (plain, shared):
        run(optimizer, [p for g in optimizer.param_groups for p in g["params"]], 2)
    pion.gather_state(shared)
    a, b = plain.state_dict(), shared.state_dict()
    assert all(torch.equal(a["state"][0][key], b["state"][0][key]) for key in a["state"][0])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="init_process_group"):
        pion.distribute(pion.Muon([parameter((4, 4))]))


@pytest.mark.parametrize(
    "totals",
    [[5], [100, 90], [70, 0, 3, 64], [10**6, 9 * 10**5, 10**6, 8 * 10**5], [0, 0], [6 * 10**6, 10]],
)
def test_rounds_send_every_entry_once(totals, monkeypatch):
    monkeypatch.setattr(distributed_exchange, "_SMALL", 64)
    for limit in (16, 10**5, 10**9):
        seen = [[] for _ in totals]
        sent = 0
        for source, first, length in distributed_exchange.rounds(totals, limit):
            whose = range(len(totals)) if source is None else [source]
            assert length <= limit
            sent += length * len(whose)
            for r in whose:
                seen[r].append((first, min(totals[r], first + length)))
        assert sent <= max(2 * sum(totals), 64) + sum(totals)
        for total, parts in zip(totals, seen, strict=True):
            parts = [part for part in parts if part[0] < part[1]]
            assert [first for first, _ in parts] == [0, *(last for _, last in parts)][: len(parts)]
            assert (parts[-1][1] if parts else 0) == total


def test_equal_lists_of_many_ranks_go_in_one_message_a_bucket():
    # 64 ranks: 64 broadcasts without
    rounds = distributed_exchange.rounds([500_000] * 63 + [480_000], distributed_exchange.BUCKET)
    assert rounds == [(None, 0, 500_000)]
    # an embedding that one of them has besides is not padded for the others
    rounds = distributed_exchange.rounds(
        [155_000_000] + [500_000] * 63, distributed_exchange.BUCKET
    )
    assert sum(64 * n for source, _, n in rounds if source is None) <= 2 * (155 + 31.5) * 1e6
    assert len([source for source, _, _ in rounds if source == 0]) <= 5


def test_a_round_of_matrices_takes_the_launches_of_one():
    """On the meta device, where reading a number is an error."""

    def launches(count: int, dtype, **keys) -> int:
        group = {"momentum": 0.9, "maximize": False, "nesterov": True, "nonfinite": "skip",
                 "lr": torch.empty((), device="meta"), "weight_decay": 0.1} | keys  # fmt: skip
        items = []
        for _ in range(count):
            weight = torch.empty(8, 6, dtype=dtype, device="meta")
            cell = types.SimpleNamespace(
                group=group, dtype=dtype, parameter=types.SimpleNamespace(to_local=lambda w=weight: w),
                plan=types.SimpleNamespace(low_precision="master"),
            )  # fmt: skip
            state = {"momentum_buffer": torch.empty(8, 6, device="meta")}
            if dtype == torch.bfloat16:
                state["master"] = torch.empty(8, 6, device="meta")
            items.append((cell, torch.empty_like(weight), state, None))
        with Recorder("meta") as record:
            directions = distributed_gather.look_ahead(items)
            distributed_gather.move([(c, s, d, None) for (c, _, s, _), d in
                                     zip(items, directions, strict=True)])  # fmt: skip
        assert record.waits == []
        return record.launches()

    for dtype in (torch.float32, torch.bfloat16):
        assert launches(100, dtype) == launches(2, dtype) <= 20


def test_ranks_agree_with_one_wait(monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda table, op, group: None)
    reads = []
    monkeypatch.setattr(FakeTensor, "tolist", lambda x: reads.append(x) or [0] * len(x))
    with count.fake_device(), Recorder("cuda") as record:
        found = torch.empty(5, dtype=torch.int32, device="cuda")
        flags, table = distributed_exchange.agree(None, [1, 0, 1], found.device, found)
    assert len(reads) == 1 and record.waits == []
    assert len(flags) == 8 and table.shape == (5,)


def test_owners_have_equal_loads():
    costs = [7.0, 1.0, 5.0, 5.0, 3.0, 3.0, 2.0, 2.0]
    chosen = owners(costs, 4)
    loads = [sum(c for c, o in zip(costs, chosen, strict=True) if o == r) for r in range(4)]
    # the dearest first to the least loaded: within 4/3 of the best, which is 7 here
    assert sum(loads) == 28.0 and max(loads) <= 28.0 / 3
    assert chosen == owners(costs, 4)
    assert owners([1.0], 2, [1.0, 0.0]) == [1]  # what ranks have already counts
