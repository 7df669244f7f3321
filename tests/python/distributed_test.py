# SPDX-License-Identifier: Apache-2.0
"""Several processes on gloo give the weights of one; torchrun examples; plans of owners."""

import os
import pathlib
import subprocess
import sys
import time

import pytest
import torch
from judges import mlp, parameter, run
from pion.distributed_plan import owners

import pion

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


def test_owners_have_equal_loads():
    costs = [7.0, 1.0, 5.0, 5.0, 3.0, 3.0, 2.0, 2.0]
    chosen = owners(costs, 4)
    loads = [sum(c for c, o in zip(costs, chosen, strict=True) if o == r) for r in range(4)]
    # the dearest first to the least loaded: within 4/3 of the best, which is 7 here
    assert sum(loads) == 28.0 and max(loads) <= 28.0 / 3
    assert chosen == owners(costs, 4)
    assert owners([1.0], 2, [1.0, 0.0]) == [1]  # what ranks have already counts
