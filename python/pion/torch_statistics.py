# SPDX-License-Identifier: Apache-2.0
"""statistics() and warnings of steps by torch operations. `bucket` is a torch_step.Bucket."""

import math

import torch

from pion._pion import Watch
from pion.cpu_step import of_stack
from pion.tensor_map import apply


def figures(bucket, before: dict, after: dict) -> list[dict]:
    """Figures of docs/conventions.md for every parameter of a bucket; waits for the device."""
    count, stack = len(bucket.items), bucket.numbers.stack
    rows = count * bucket.shape[0] if stack else count  # of every matrix of a stack

    def square(x):
        return (x.double() ** 2).reshape(rows, -1).sum(1)

    zero = torch.zeros(count, dtype=torch.float64, device=after["update"].device)
    skipped = zero if after["finite"] is None else (~after["finite"]).double().view(-1)
    skipped = skipped.repeat_interleave(rows // count)
    idle = (~after["active"]).double().view(-1) if stack else torch.zeros_like(skipped)
    gradient, update = square(after["gradient"]).sqrt(), square(after["update"])
    entries = bucket.items[0][0].numel * count / rows
    table = torch.stack((skipped, idle, gradient, (update / entries).sqrt()), 1).tolist()
    passed = _passed(bucket, after, rows) if bucket.parts else [{}] * rows
    own_rows = [_row(row, extra) for row, extra in zip(table, passed, strict=True)]
    result, lr = [], float(bucket.group["lr"])
    for index, (cell, _, _) in enumerate(bucket.items):
        own = own_rows[index * rows // count : (index + 1) * rows // count]
        head = {"name": cell.name, "rule": cell.plan.rule.name, "lr": lr}
        if stack:
            result.append(head | _combined(own) | of_stack(own))
        else:
            del own[0]["idle"]
            result.append(head | own[0])
    return result


def _row(row: list, extra: dict) -> dict:
    """Of one parameter or matrix of a stack; nothing but zeros where it was left alone."""
    skipped, idle, gradient, update = row
    if skipped or idle:
        gradient = update = 0.0
        extra = dict.fromkeys(extra, 0.0)
        idle = 0.0 if skipped else idle
    numbers = {"skipped": skipped, "gradient_norm": gradient, "update_rms": update, "idle": idle}
    return numbers | extra


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


def _passed(bucket, after: dict, rows: int) -> list[dict]:
    """directions, directions_passed, energy_kept and half_pass of a matrix bucket, in so many rows:
    one for every parameter, or for every matrix of a stack."""
    passed, energy, directions, half = 0.0, [], 0, 0.0
    direction = after["direction"].reshape(-1, *bucket.shape[1:]).double()
    output = after["output"].reshape(-1, *bucket.shape[1:]).double()
    per = len(direction) // rows
    for part in bucket.parts:
        d, o = part.cut(direction), part.cut(output)
        if bucket.numbers.unit_rms:  # s depends on O; its own size is lost
            o = apply(d, part.map)
        else:
            o = o / part.scale
        size, own, inner = (d * d).sum((1, 2)), (o * o).sum((1, 2)), (d * o).sum((1, 2))
        passed = passed + own.view(rows, -1).sum(1)
        kept = torch.nan_to_num(inner**2 / (size * own)).clamp_max(1.0)
        energy.append(kept.view(rows, -1))
        directions += per * part.heads * min(d.shape[1:])
        half = max(half, bucket.plan.rule.half_pass(*d.shape[1:]))
    energy = torch.cat(energy, 1).mean(1)
    return [
        {"directions_passed": p, "directions": float(directions), "energy_kept": e,
         "half_pass": half}
        for p, e in zip(passed.tolist(), energy.tolist(), strict=True)
    ]  # fmt: skip


def observed(bucket, figures: list[dict]) -> list[str]:
    """Warnings of a step with these figures, each once a parameter."""
    messages = []
    for (cell, _, state), one in zip(bucket.items, figures, strict=True):
        if state["counters"].device.type != "cpu":
            state["counters"] = state["counters"].cpu()
        cell.watch = cell.watch or Watch()
        numbers = {key: value for key, value in one.items() if isinstance(value, float)}
        messages += cell.watch.observe(
            cell.name, cell.plan.rule, numbers, one.get("matrices", []),
            state["counters"].data_ptr(),
        )  # fmt: skip
    return messages


_FIRST, _EVERY = 10, 100  # steps of a parameter after which its counts are compared


def skips(items: list) -> list[str]:
    """Warnings of steps that were left out, by comparing steps begun and steps taken once in a
    while: that waits for the device."""
    due = [item for item in items if item[0].begun % _EVERY == _FIRST]
    if not due:
        return []
    device, messages = due[0][2]["step"].device, []
    taken = torch.stack([state["step"].to(device) for _, _, state in due]).tolist()
    for (cell, _, state), count in zip(due, taken, strict=True):
        before, cell.seen = cell.seen, (cell.begun, count)
        if before is None:  # of a loaded state: compared from here on
            continue
        begun = cell.begun - before[0]
        skipped = int(begun - (count - before[1]))
        if skipped > 0 and not state["counters"][2]:
            state["counters"][2] = 1
            messages.append(
                f"step: {skipped} of the last {begun} steps left out {cell.name}, whose gradient "
                "(or state) held NaN or Inf, as will every one that does. Lower the learning rate "
                "or look for a division by zero"
            )
    return messages
