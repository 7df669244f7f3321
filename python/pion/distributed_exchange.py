# SPDX-License-Identifier: Apache-2.0
"""What ranks say to one another: agreement before a step, and arrays in few large messages."""

import bisect
import itertools

import torch
import torch.distributed as dist

BUCKET = 1 << 25  # entries of one message: 128 MiB of f32
_SMALL = 1 << 20  # entries that may be padding rather than another message: 4 MiB of f32


# its name since PyTorch 2.13
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def agree(group, flags: list[int], device, found=None) -> tuple[list[int], torch.Tensor | None]:
    """The largest of every flag over the ranks of the group: of `flags`, which the host knows, and
    of `found`, an i32 tensor or None, which may still have to be computed. As a list, for which the
    host waits once; and found's as a tensor on `device`."""
    alone = dist.get_world_size(group) == 1
    if alone and found is None:
        return flags, None
    if alone:
        return flags + found.tolist(), found
    # the one message that every rank sends in every step, whatever its gradients
    pinned = device.type == "cuda" and torch.cuda.is_available()  # else the copy would wait
    table = torch.tensor(flags, dtype=torch.int32, pin_memory=pinned).to(device, non_blocking=True)
    if found is not None:
        table = torch.cat((table, found.to(device, non_blocking=True)))
    dist.all_reduce(table, dist.ReduceOp.MAX, group=group)
    return table.tolist(), None if found is None else table.narrow(0, len(flags), len(found))


def agree_to_step(group, optimizer, met: list, flags: list[int], device, found=None):
    """(the largest of every flag, those of `found` as a tensor, None or the error because of which
    no rank may step). `met` are errors of this rank so far, or None."""
    failed, collects = any(error is not None for error in met), optimizer._collect
    own = [int(failed), int(collects), int(not collects), *flags]
    flags, table = agree(group, own, device, found)
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
    return flags[3:], table, error


def message_device(group, device):
    """Where tensors of a device travel: gloo knows no GPU in most of what it does."""
    return torch.device("cpu") if dist.get_backend(group) == "gloo" else device


def buckets(items: list, entries, limit: int | None = None) -> list[list]:
    """The items in order, so many to a bucket as have `limit` entries, BUCKET if it is None;
    entries(item) is one's."""
    limit = BUCKET if limit is None else limit
    result, size = [], limit
    for item in items:
        if size + entries(item) > limit or not result:
            result.append([])
            size = 0
        result[-1].append(item)
        size += entries(item)
    return result


def rounds(totals: list[int], limit: int) -> list[tuple]:
    """How lists of so many entries, one of every rank, go to all: (None, first, length) is an
    all-gather of these entries of every list, padded where one is shorter; (rank, first, length) a
    broadcast of one rank's. No message has more than `limit` entries, and padding is at most as
    much as the lists, or small: what one rank has far beyond the others' is broadcast."""
    ranks, first, result = len(totals), 0, []
    share, most = max(1, limit // ranks), max(2 * sum(totals), _SMALL)
    while sum(total > first for total in totals) > 1:
        length = min(share, max(totals) - first)
        if ranks * (first + length) > most:
            break
        result.append((None, first, length))
        first += length
    for rank, total in enumerate(totals):
        result += [(rank, at, min(limit, total - at)) for at in range(first, total, limit)]
    return result


class Sharing:
    """Lists of tensors of one type, one list of every rank, which has them; all get all, in place.

    Tensors of a list follow each other as one long array, of which rounds() says what goes together.
    Two rounds are on their way at a time."""

    def __init__(self, lists: list[list], group, device):
        """lists[r]: rank r's tensors, alike in shape on all ranks."""
        self.lists, self.group, self.device = lists, group, device
        self.rank = dist.get_rank(group)
        sizes = [[tensor.numel() for tensor in own] for own in lists]
        self.ends = [list(itertools.accumulate(own)) for own in sizes]
        self.rounds = rounds([sum(own) for own in sizes], BUCKET)
        self._staged = {}  # (rank, index): in order, of a tensor that is not
        self._moving = []

    def needed(self, index: int) -> int:
        """How many of this rank's tensors have to be there for the round."""
        source, first, length = self.rounds[index]
        if source not in (None, self.rank):
            return 0
        return bisect.bisect_left(self.ends[self.rank], first + length) + 1

    def send(self, index: int):
        source, first, length = self.rounds[index]
        mine = [piece for _, piece in self._pieces(self.rank, first, length)]
        dtype = next(t.dtype for own in self.lists for t in own)
        if source is None:
            own = torch.zeros(length, dtype=dtype, device=self.device)
            if mine:
                torch.cat(mine, out=own.narrow(0, 0, sum(map(len, mine))))
            everyone = torch.empty(len(self.lists) * length, dtype=dtype, device=self.device)
            work = _all_gather(everyone, own, group=self.group, async_op=True)
            arriving = everyone.split(length)
        else:
            own = torch.empty(length, dtype=dtype, device=self.device)
            if source == self.rank:
                torch.cat(mine, out=own)
            root = source if self.group is None else dist.get_global_rank(self.group, source)
            work = dist.broadcast(own, root, group=self.group, async_op=True)
            arriving = [own if r == source else None for r in range(len(self.lists))]
        self._moving.append((work, own, arriving, first, length))
        if len(self._moving) > 1:
            self._arrive()

    def finish(self):
        while self._moving:
            self._arrive()
        for (rank, index), flat in self._staged.items():
            if rank != self.rank:
                tensor = self.lists[rank][index]
                tensor.copy_(flat.view(tensor.shape))
        self._staged = {}

    def _arrive(self):
        work, _, arriving, first, length = self._moving.pop(0)
        work.wait()
        targets, sources = [], []
        for rank, flat in enumerate(arriving):
            if rank == self.rank or flat is None:
                continue
            for offset, piece in self._pieces(rank, first, length):
                targets.append(piece)
                sources.append(flat.narrow(0, offset, len(piece)))
        if targets:
            torch._foreach_copy_(targets, sources)

    def _pieces(self, rank: int, first: int, length: int) -> list:
        """(where in the round, which entries) of the rank's tensors in a round."""
        result, ends = [], self.ends[rank]
        index = bisect.bisect_right(ends, first)
        while index < len(ends) and ends[index] - self.lists[rank][index].numel() < first + length:
            flat, begin = self._flat(rank, index), ends[index] - self.lists[rank][index].numel()
            low, high = max(first, begin), min(first + length, ends[index])
            result.append((low - first, flat.narrow(0, low - begin, high - low)))
            index += 1
        return result

    def _flat(self, rank: int, index: int):
        tensor = self.lists[rank][index].detach()
        if tensor.is_contiguous() and tensor.device == self.device:
            return tensor.view(-1)
        if (rank, index) not in self._staged:
            if rank == self.rank:
                self._staged[rank, index] = tensor.reshape(-1).to(self.device)
            else:
                self._staged[rank, index] = tensor.new_empty(tensor.numel(), device=self.device)
        return self._staged[rank, index]


class Broadcast:
    """Tensors on their way from their owners; finish() writes those of the others in place."""

    def __init__(self, tensors: list, owners: list[int], group, device):
        """tensors: alike in shape and type on all ranks, on the meta device where they are not
        wanted; owners: the rank in the group of each."""
        self._moving = []
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
            work = dist.broadcast(flat, source, group=group, async_op=True)
            self._moving.append((work, flat, [] if owner == rank else run))

    def finish(self):
        for work, flat, run in self._moving:
            work.wait()
            pieces = flat.split([t.numel() for t in run]) if run else ()
            for tensor, piece in zip(run, pieces, strict=True):
                if not tensor.is_meta:
                    tensor.copy_(piece.view(tensor.shape))
        self._moving = []


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
