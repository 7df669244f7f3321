# SPDX-License-Identifier: Apache-2.0
"""What ranks say to one another: agreement before a step, and arrays in few large messages."""

import itertools

import torch
import torch.distributed as dist

BUCKET = 1 << 25  # entries of one message: 128 MiB of f32


def agree(group, flags: list[int], device) -> list[int]:
    """The largest of every flag over the ranks of the group."""
    if dist.get_world_size(group) == 1:
        return flags
    # the one message that every rank sends in every step, whatever its gradients
    table = torch.tensor(flags, dtype=torch.int32).to(device)
    dist.all_reduce(table, dist.ReduceOp.MAX, group=group)
    return table.tolist()


def agree_to_step(group, optimizer, met: list, flags: list[int], device):
    """(the largest of every flag, None or the error because of which no rank may step). `met` are
    errors of this rank so far, or None."""
    failed, collects = any(error is not None for error in met), optimizer._collect
    flags = agree(group, [int(failed), int(collects), int(not collects), *flags], device)
    error = None
    if flags[0]:
        error = RuntimeError(
            "step: every rank must be able to step, got an error on another one, which its output "
            "shows; nothing was written"
        )
    elif flags[1] and flags[2]:
        error = ValueError(
            "step: collect_statistics() must be on or off on all ranks alike, got both; nothing "
            "was written"
        )
    return flags[3:], error


def buckets(items: list, entries) -> list[list]:
    """The items in order, so many to a bucket as have BUCKET entries; entries(item) is one's."""
    result, size = [], BUCKET
    for item in items:
        if size + entries(item) > BUCKET or not result:
            result.append([])
            size = 0
        result[-1].append(item)
        size += entries(item)
    return result


class Broadcast:
    """Tensors on their way from their owners; finish() writes those of the others in place."""

    def __init__(self, tensors: list, owners: list[int], group, device):
        """tensors: alike in shape and type on all ranks; owners: the rank in the group of each."""
        self._arriving = []
        self._works = []
        rank = dist.get_rank(group)
        runs = {}
        for tensor, owner in zip(tensors, owners, strict=True):
            if tensor.numel():
                runs.setdefault((owner, str(tensor.dtype)), []).append(tensor)
        for (owner, _), run in sorted(runs.items(), key=lambda item: item[0]):
            if owner == rank:
                flat = torch.cat([t.detach().reshape(-1).to(device) for t in run])
            else:
                size = sum(t.numel() for t in run)
                flat = torch.empty(size, dtype=run[0].dtype, device=device)
            source = owner if group is None else dist.get_global_rank(group, owner)
            self._works.append(dist.broadcast(flat, source, group=group, async_op=True))
            if owner != rank:
                self._arriving.append((flat, run))
            else:
                self._arriving.append((flat, []))  # lives until it has left

    def finish(self):
        for work, (flat, run) in zip(self._works, self._arriving, strict=True):
            work.wait()
            if run:
                pieces = flat.split([t.numel() for t in run])
                for tensor, piece in zip(run, pieces, strict=True):
                    tensor.copy_(piece.view(tensor.shape))
        self._works, self._arriving = [], []


class AllToAll:
    """Lists of arrays, one list to every rank, on their way; finish() returns those that arrived."""

    def __init__(self, sent: list[list], arriving: list[list[int]], group, dtype, device, home):
        """sent[r]: what rank r gets; arriving[r]: the number of entries of each that r sends. They
        travel on `device` and arrive on `home`."""
        self._sizes, self._home = arriving, home
        flat = [t.detach().reshape(-1).to(device, dtype) for t in itertools.chain(*sent)]
        self._out = torch.cat(flat) if flat else torch.empty(0, dtype=dtype, device=device)
        self._in = torch.empty(sum(map(sum, arriving)), dtype=dtype, device=device)
        self._work = dist.all_to_all_single(
            self._in,
            self._out,
            [sum(sizes) for sizes in arriving],
            [sum(t.numel() for t in tensors) for tensors in sent],
            group=group,
            async_op=True,
        )

    def finish(self) -> list[list]:
        self._work.wait()
        self._out = None
        pieces = iter(self._in.to(self._home).split([n for sizes in self._sizes for n in sizes]))
        return [[next(pieces) for _ in sizes] for sizes in self._sizes]
