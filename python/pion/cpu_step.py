# SPDX-License-Identifier: Apache-2.0
"""Steps CPU parameters by the kernels: pointers go down, nothing is copied that is contiguous."""

import torch

from pion._pion import Slot
from pion.state import work_type
from pion.threads import stepper

_TYPES = {torch.float32: ("f32", 0), torch.float64: ("f64", 1), torch.bfloat16: ("bf16", 2)}


def step(work: list, collect: bool, statistics: list) -> list[str]:
    """Steps (cell, gradient, state) in place; returns warnings, appends statistics."""
    slots, kept, copies = [], [], []
    for cell, gradient, state in work:
        parameter = cell.parameter
        weight = parameter.detach().contiguous()
        if weight.data_ptr() != parameter.data_ptr():
            copies.append((parameter, weight))
        slots.append(aim(cell, weight, gradient, state, state.get("master"), kept))
    messages = stepper().step(slots, collect)
    for parameter, weight in copies:
        parameter.copy_(weight)
    touched = [cell.parameter for cell, _, _ in work]
    torch.autograd.graph.increment_version(touched)
    if collect:
        statistics.extend(figures(cell) for cell, _, _ in work)
    return messages


def aim(cell, weight, gradient, state: dict, master, kept: list) -> Slot:
    """The cell's slot, aimed at these tensors. What must live until the step goes to `kept`."""
    tag, _ = _TYPES[weight.dtype]
    if cell.slot is None or cell.slot_type != tag:
        plan = cell.plan
        cell.slot = Slot(
            cell.name, plan.rule, plan.layout, *cell.shape, tag, plan.low_precision,
            plan.maximize, cell.ordinal,
        )  # fmt: skip
        cell.slot_type = tag
    lr = cell.group["lr"]
    if isinstance(lr, torch.Tensor):
        cell.plan.rule.lr = lr.item()
    work = work_type(weight)
    if gradient.dtype != work and (gradient.dtype != torch.bfloat16 or work != torch.float32):
        gradient = gradient.to(work)
    gradient = gradient.contiguous()
    kept += (weight, gradient)
    slot = cell.slot
    slot.aim(
        weight.data_ptr(),
        gradient.data_ptr(),
        _TYPES[gradient.dtype][1],
        _address(state, "momentum_buffer", weight, work, cell.name),
        _address(state, "exp_avg", weight, work, cell.name),
        _address(state, "exp_avg_sq", weight, work, cell.name),
        _address(state, "master", weight, work, cell.name) if master is not None else 0,
        _scalar(state, "step", torch.float32, 1, cell.name),
        _scalar(state, "counters", torch.int64, 4, cell.name),
        cell.plan.seed,
    )
    return slot


def figures(cell) -> dict:
    """Statistics of the cell's last step."""
    return {
        "name": cell.name,
        "rule": cell.plan.rule.name,
        "lr": cell.plan.rule.lr,
        **cell.slot.result(),
    }


def _address(state: dict, key: str, weight, work, name: str) -> int:
    buffer = state.get(key)
    if buffer is None:
        return 0
    if buffer.dtype != work or buffer.shape != weight.shape or buffer.device.type != "cpu":
        raise ValueError(
            f"step: {key} of {name} must be {work} of shape {list(weight.shape)} on the CPU, "
            f"got {buffer.dtype} of {list(buffer.shape)} on {buffer.device}"
        )
    if not buffer.is_contiguous():
        buffer = state[key] = buffer.contiguous()
    return buffer.data_ptr()


def _scalar(state: dict, key: str, dtype, count: int, name: str) -> int:
    tensor = state[key]
    if tensor.dtype != dtype or tensor.numel() != count or not tensor.is_contiguous():
        raise ValueError(
            f"step: {key} of {name} must be {count} {dtype}, got {tensor.numel()} {tensor.dtype}"
        )
    if tensor.device.type != "cpu":
        tensor = state[key] = tensor.cpu()
    return tensor.data_ptr()
