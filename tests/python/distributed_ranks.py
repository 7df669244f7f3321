# SPDX-License-Identifier: Apache-2.0
"""One process of distributed_test.py: runs all checks in order, on all ranks alike.

python distributed_ranks.py RANK RANKS FOLDER; a failure ends the process with its traceback.
"""

import datetime
import pathlib
import sys
import time

import distributed_fsdp_checks
import distributed_replica_checks
import distributed_shard_checks
import torch
import torch.distributed as dist


def main():
    rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), ranks)
    limit = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=limit)
    modules = (distributed_replica_checks, distributed_shard_checks, distributed_fsdp_checks)
    for module in modules:
        for name, check in list(vars(module).items()):
            if not name.startswith("check_"):
                continue
            begin = time.perf_counter()
            check(rank, ranks, folder)
            dist.barrier()
            if rank == 0:
                print(f"{name} {time.perf_counter() - begin:.2f} s", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
