# SPDX-License-Identifier: Apache-2.0
"""statistics() and warnings of steps by torch operations. `bucket` is a torch_bucket.Bucket.

A step leaves a table a bucket on the device, f32, a row for every parameter, of a stack for every
matrix: skipped, idle, norm of the gradient (its largest entry, unless statistics are collected),
norm of the update, directions passed (-1: not looked at), energy kept. With statistics all tables
go to the host in one transfer; without, they travel while the device goes on and are read in a
later step, when they have arrived.
"""

import math

import torch

from pion._pion import Watch
from pion.cpu_step import of_stack
from pion.tensor_map import apply

_COLUMNS = 6
_ALWAYS = 32  # steps of a parameter whose directions are counted; then one in
_SELDOM = 16  # so many is, and every one while they are empty: counting reads the update once more


def table(bucket, after: dict, measure: bool, collect: bool):
    """The table of a stacked bucket from what torch_step.update gave."""
    count, stack = len(bucket.items), bucket.numbers.stack
    rows = count * bucket.shape[0] if stack else count
    like = after["weight"]

    def each(x):
        return x.reshape(rows, -1)

    zero = torch.zeros(rows, device=like.device)
    skipped = zero
    if after["finite"] is not None:
        skipped = after["finite"].logical_not().float().view(-1).repeat_interleave(rows // count)
    idle = after["active"].logical_not().float().view(-1) if stack else zero
    order = 2 if collect else math.inf
    gradient = torch.linalg.vector_norm(each(after["gradient"]), order, dim=1)
    columns = [skipped, idle, gradient, zero, zero - 1.0, zero]
    if collect:
        columns[3] = torch.linalg.vector_norm(each(after["update"]), dim=1)
    if bucket.parts and measure:
        columns[4:] = _passed(bucket, after, rows)
    return torch.stack([c.float() for c in columns], 1)


def _passed(bucket, after: dict, rows: int):
    """Directions passed and energy kept, in so many rows."""
    direction = after["direction"].reshape(-1, *bucket.shape[1:])
    output = after["output"].reshape(-1, *bucket.shape[1:])
    passed, energy = 0.0, []
    for part in bucket.parts:
        d, o = part.cut(direction), part.cut(output)
        # under unit_rms s depends on O, whose own size is lost
        o = apply(d, part.map) if bucket.numbers.unit_rms else o / part.scale
        size, own = (torch.linalg.vector_norm(x, dim=(1, 2)) for x in (d, o))
        inner = (d * o).sum((1, 2)) / (size * own)
        passed = passed + own.square().view(rows, -1).sum(1)
        energy.append(torch.nan_to_num(inner.square()).clamp_max(1.0).view(rows, -1))
    return [passed, torch.cat(energy, 1).mean(1)]


def collected(tables: list) -> tuple[list[str], list[dict]]:
    """Warnings and statistics of (bucket, table) of a step, in one transfer; waits for it."""
    messages, statistics = [], []
    for bucket, rows, lr in _read(tables):
        own = figures(bucket, rows, lr)
        statistics += own
        messages += observed(bucket, own)
    return messages, statistics


def _read(tables: list):
    """(bucket, rows as lists, rate) for every (bucket, table)."""
    if not tables:
        return []
    home = tables[0][1].device
    flat = [rows.to(home) for _, rows in tables]
    # a rate on the device travels with them
    rates = [bucket.numbers.lr for bucket, _ in tables]
    flat += [r.to(home, torch.float32).expand(1, _COLUMNS) for r in rates
             if isinstance(r, torch.Tensor)]  # fmt: skip
    values = iter(torch.cat(flat).tolist())
    read = [(bucket, [next(values) for _ in range(len(rows))]) for bucket, rows in tables]
    rates = [next(values)[0] if isinstance(r, torch.Tensor) else r for r in rates]
    return [(*own, rate) for own, rate in zip(read, rates, strict=True)]


class Watcher:
    """Tables of steps whose warnings are still to be read."""

    def __init__(self):
        self._kept = []  # (buckets, tables on their way to the host, event)

    def is_due(self, piece: list) -> bool:
        """Whether the directions of a piece are to be counted in this step."""
        cells = [item[0] for bucket in piece if bucket.parts for item in bucket.items]
        return any(c.begun < _ALWAYS or c.begun % _SELDOM == 0 or c.empty for c in cells)

    def keep(self, tables: list):
        if not tables or _is_capturing(tables[0][1]):  # nobody would read them
            return
        by_device = {}
        for bucket, rows in tables:
            by_device.setdefault(rows.device, []).append((bucket, rows))
        for device, own in by_device.items():
            rows = own[0][1] if len(own) == 1 else torch.cat([one for _, one in own])
            event = None
            if device.type == "cuda" and torch.cuda.is_available():
                target = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
                rows = target.copy_(rows, non_blocking=True)
                event = torch.cuda.current_stream(device).record_event()
            counts = [len(one) for _, one in own]
            self._kept.append(([bucket for bucket, _ in own], counts, rows, event))

    def read(self) -> list[str]:
        """Warnings of earlier steps, as far as their tables have arrived; waits for nothing."""
        messages = []
        while self._kept:
            buckets, counts, rows, event = self._kept[0]
            if rows.device.type not in ("cpu", "mps", "xpu") and event is None:
                self._kept.pop(0)  # a device without data
                continue
            if event is not None and not event.query():
                break
            self._kept.pop(0)
            values = iter(rows.tolist())
            for bucket, count in zip(buckets, counts, strict=True):
                own = figures(bucket, [next(values) for _ in range(count)])
                messages += observed(bucket, own)
        return messages


def _is_capturing(rows) -> bool:
    return rows.is_cuda and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def figures(bucket, table: list, lr: float = 0.0) -> list[dict]:
    """Figures of docs/conventions.md for every parameter of a bucket."""
    per = len(table) // len(bucket.items)
    own_rows = [_row(bucket, row, per) for row in table]
    result = []
    for index, (cell, _, _) in enumerate(bucket.items):
        own = own_rows[index * per : (index + 1) * per]
        head = {"name": cell.name, "rule": cell.plan.rule.name, "lr": lr}
        if bucket.numbers.stack:
            result.append(head | _combined(own) | of_stack(own))
        else:
            del own[0]["idle"]
            result.append(head | own[0])
    return result


def _row(bucket, row: list, per: int) -> dict:
    """Of one parameter or matrix of a stack; nothing but zeros where it was left alone."""
    skipped, idle, gradient, update, passed, energy = row
    extra = {}
    if bucket.parts:
        rows, cols = bucket.shape[1:]
        sizes = [_block(part, rows, cols) for part in bucket.parts]
        directions = sum(p.heads * min(s) for p, s in zip(bucket.parts, sizes, strict=True))
        directions *= bucket.shape[0] // per if not bucket.numbers.stack else 1
        half = max(bucket.plan.rule.half_pass(*size) for size in sizes)
        extra = {"directions_passed": passed, "directions": float(directions),
                 "energy_kept": energy, "half_pass": half}  # fmt: skip
    if skipped or idle:
        gradient = update = 0.0
        extra = dict.fromkeys(extra, 0.0)
        idle = 0.0 if skipped else idle
    entries = bucket.entries / per
    numbers = {"skipped": skipped, "gradient_norm": gradient,
               "update_rms": update / math.sqrt(entries), "idle": idle}  # fmt: skip
    return numbers | extra


def _block(part, rows: int, cols: int) -> tuple[int, int]:
    size = part.size // part.heads
    return (rows, size) if part.axis else (size, cols)


def _combined(rows: list[dict]) -> dict:
    """Of a stack, from those of its matrices: combine() of pion/optim/step_checks.cc."""
    stepped = max(1.0, len(rows) - sum(row["idle"] for row in rows))
    return {
        "skipped": max(row["skipped"] for row in rows),
        "gradient_norm": math.sqrt(sum(row["gradient_norm"] ** 2 for row in rows)),
        "update_rms": math.sqrt(sum(row["update_rms"] ** 2 for row in rows) / len(rows)),
        "directions_passed": sum(row["directions_passed"] for row in rows),
        "directions": sum(row["directions"] for row in rows),
        "energy_kept": sum(row["energy_kept"] for row in rows) / stepped,
        "half_pass": max(row["half_pass"] for row in rows),
    }


def observed(bucket, figures: list[dict]) -> list[str]:
    """Warnings of a step with these figures, each once a parameter."""
    messages = []
    for (cell, _, state), one in zip(bucket.items, figures, strict=True):
        if one.get("directions_passed", 0.0) < 0 and not one["skipped"]:
            continue  # nobody has counted
        if state["counters"].device.type != "cpu":
            state["counters"] = state["counters"].cpu()
        cell.watch = cell.watch or Watch()
        numbers = {key: value for key, value in one.items() if isinstance(value, float)}
        messages += cell.watch.observe(
            cell.name, cell.plan.rule, numbers, one.get("matrices", []),
            state["counters"].data_ptr(),
        )  # fmt: skip
        cell.empty = bool(state["counters"][0])
    return messages
