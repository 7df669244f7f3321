# SPDX-License-Identifier: Apache-2.0
"""Steps CPU parameters by the kernels: pointers go down, nothing is copied that is contiguous."""

import torch

from pion._pion import Slot
from pion.groups import rate_of, set_rate
from pion.threads import stepper

# of a tensor's type: its name and number in the C++ library, and the type of a weight's state
_TYPES = {
    torch.float32: ("f32", 0, torch.float32),
    torch.float64: ("f64", 1, torch.float64),
    torch.bfloat16: ("bf16", 2, torch.float32),
}


def step(work: list, collect: bool, statistics: list) -> list[str]:
    """Steps (cell, gradient, state) in place; returns warnings, appends statistics."""
    slots, kept, copies = [], [], []
    for cell, gradient, state in work:
        parameter = weight = cell.parameter
        if not parameter.is_contiguous():
            weight = parameter.detach().contiguous()
            copies.append((parameter, weight))
        slots.append(aim(cell, weight, gradient, state, kept, "master" in state))
    messages = stepper().step(slots, collect)
    for parameter, weight in copies:
        parameter.copy_(weight)
    torch.autograd.graph.increment_version([cell.parameter for cell, _, _ in work])
    if collect:
        statistics.extend(figures(cell) for cell, _, _ in work)
    return messages


def aim(cell, weight, gradient, state: dict, kept: list, master: bool) -> Slot:
    """The cell's slot, aimed at these tensors. What must live until the step goes to `kept`."""
    # runs for every parameter in every step: half the Python time of a step is in these lines
    tag, _, work = _TYPES[weight.dtype]
    lr = cell.group["lr"]
    if type(lr) is not float and isinstance(lr, torch.Tensor):
        set_rate(cell.plan.rule, rate_of(lr), f"step: {cell.name}")
    dtype = gradient.dtype
    if dtype is not work and (dtype is not torch.bfloat16 or work is torch.float64):
        gradient, dtype = gradient.to(work), work
    if not gradient.is_contiguous():
        gradient = gradient.contiguous()
    kept.append(gradient)
    if cell.slot_type == tag and cell.weight_address == weight.data_ptr():
        # most steps: only the gradient is another
        for key, tensor, address in cell.aimed:
            if state.get(key) is not tensor or tensor.data_ptr() != address:
                break
        else:
            slot = cell.slot
            slot.gradient(gradient.data_ptr(), _TYPES[dtype][1])
            return slot
    kept.append(weight)
    _aim_anew(cell, weight, gradient, state, tag, work, master)
    return cell.slot


def _aim_anew(cell, weight, gradient, state: dict, tag: str, work, master: bool):
    if cell.slot_type != tag:
        plan = cell.plan
        cell.slot = Slot(
            cell.name, plan.rule, plan.layout, *cell.shape, tag, plan.low_precision,
            plan.maximize, cell.ordinal, cell.stack,
        )  # fmt: skip
        cell.slot_type = tag
    cell.weight_address = weight.data_ptr()
    addresses = {
        key: _address(state, key, weight, work, cell.name)
        for key in ("momentum_buffer", "exp_avg", "exp_avg_sq", "master")
    }
    addresses["step"] = _scalar(state, "step", torch.float32, 1, cell.name)
    addresses["counters"] = _scalar(state, "counters", torch.int64, 4, cell.name)
    cell.aimed = [(key, state[key], address) for key, address in addresses.items() if address]
    if not master:
        addresses["master"] = 0
    types = _TYPES[gradient.dtype][1]
    cell.slot.aim(
        weight.data_ptr(), gradient.data_ptr(), types, *addresses.values(), cell.plan.seed
    )


def figures(cell) -> dict:
    """Statistics of the cell's last step."""
    return {
        "name": cell.name,
        "rule": cell.plan.rule.name,
        "lr": cell.plan.rule.lr,
        **cell.slot.result(),
        **of_stack(cell.slot.matrices() if cell.stack else []),
    }


def of_stack(matrices: list) -> dict:
    """What the statistics of a stack have besides: figures of every matrix, and how many were left
    alone, since their gradient was zero."""
    return {"idle": sum(m["idle"] for m in matrices), "matrices": matrices} if matrices else {}


def check_state(state: dict, parameter, name: str):
    """Raises ValueError if a buffer is not one for the parameter, on the CPU."""
    work = _TYPES[parameter.dtype][2]
    for key in ("momentum_buffer", "exp_avg", "exp_avg_sq", "master"):
        if key in state:
            _check_buffer(state[key], key, parameter, work, name)


def _check_buffer(buffer, key: str, weight, work, name: str):
    if buffer.dtype != work or buffer.shape != weight.shape or buffer.device.type != "cpu":
        raise ValueError(
            f"step: {key} of {name} must be {work} of shape {list(weight.shape)} on the CPU, "
            f"got {buffer.dtype} of {list(buffer.shape)} on {buffer.device}"
        )


def _address(state: dict, key: str, weight, work, name: str) -> int:
    buffer = state.get(key)
    if buffer is None:
        return 0
    _check_buffer(buffer, key, weight, work, name)
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
