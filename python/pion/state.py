# SPDX-License-Identifier: Apache-2.0
"""What an optimizer keeps of a parameter, and how foreign state dicts become it.

momentum_buffer, exp_avg, exp_avg_sq   of the parameter's shape; f64 for f64 parameters, f32 else
master     f32 copy of a bf16 parameter under low_precision "master"; of any under pion.offload
step       f32 scalar as in torch.optim: steps taken, without skipped ones
counters   i64 (4): empty updates in a row, warned of them, warned of a skip, steps begun
"""

import torch

from pion._pion import Rule
from pion.groups import SCALES
from pion.wrapped_names import plain

BUFFERS = ("momentum_buffer", "exp_avg", "exp_avg_sq", "master")
FIELDS = (*BUFFERS, "step", "counters")
COUNTERS = 4
CLASSIC = (3.4445, -4.7750, 2.0315)  # torch.optim.Muon's default coefficients


class Kept:
    """A tensor that torch.optim.Optimizer.load_state_dict must not cast to the parameter's type."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    def __deepcopy__(self, memo):
        return self


def work_type(parameter: torch.Tensor) -> torch.dtype:
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def buffers_of(rule: Rule, group: dict) -> tuple[str, ...]:
    """The buffers that a rule needs."""
    if rule.name == "adamw":
        return ("exp_avg", "exp_avg_sq")
    if rule.name == "sgd" and group["momentum"] == 0:
        return ()
    return ("momentum_buffer",)


def needs_master(parameter: torch.Tensor, group: dict) -> bool:
    return parameter.dtype == torch.bfloat16 and group["low_precision"] == "master"


def is_sharded(tensor) -> bool:
    """Whether it is a DTensor, whose memory is a part of the whole on every rank."""
    return hasattr(tensor, "to_local")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor; of a DTensor what all ranks hold together, on every one of them."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def zeros(parameter: torch.Tensor, device) -> torch.Tensor:
    """A buffer for the parameter, laid out as it is: a DTensor for a DTensor."""
    if is_sharded(parameter):
        from pion import distributed_shards

        return distributed_shards.zeros(parameter, work_type(parameter))
    return torch.zeros(parameter.shape, dtype=work_type(parameter), device=device)


def _copied(value: torch.Tensor, parameter: torch.Tensor, device) -> torch.Tensor:
    """The saved buffer as one for the parameter; either may be a DTensor."""
    if is_sharded(parameter) or is_sharded(value):
        from pion import distributed_shards

        return distributed_shards.copied(value, parameter, work_type(parameter), device)
    buffer = torch.empty(parameter.shape, dtype=work_type(parameter), device=device)
    # from the host the copy is staged, and nothing waits; to it, it must be there
    return buffer.copy_(value, non_blocking=value.device.type == "cpu")


def fill(state: dict, parameter: torch.Tensor, buffers: tuple, master: bool, device=None):
    """Makes what `state` lacks: zeros, and a copy of the parameter as master."""
    device = parameter.device if device is None else device
    for name in buffers:
        if name not in state:
            state[name] = zeros(parameter, device)
    if master and "master" not in state:
        state["master"] = _copied(parameter.detach(), parameter, device)
    if "step" not in state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=device)
    if "counters" not in state:
        state["counters"] = torch.zeros(COUNTERS, dtype=torch.int64)


def converted_group(saved: dict, own: dict, index: int) -> dict:
    """A saved group in pion's keys: pion's own, torch.optim.Muon's or AdamW's (told by their keys).

    Keys that the file lacks keep the optimizer's values; `params` are the saved ids.
    """
    where = f"load_state_dict: group {index}"
    if "rule" in saved:
        if saved["rule"] != own["rule"]:
            raise ValueError(
                f'{where} must be of rule "{own["rule"]}", got "{saved["rule"]}"; '
                "make the optimizer with the groups that it was saved with"
            )
        loaded = dict(saved)
    elif "ns_coefficients" in saved:
        loaded = _from_torch_muon(saved, own, where)
    elif "betas" in saved:
        loaded = _from_torch_adamw(saved, own, where)
    else:
        raise ValueError(
            f"{where} must be of pion, torch.optim.Muon or torch.optim.AdamW, got keys "
            f"{sorted(key for key in saved if key != 'params')}"
        )
    kept = {key: value for key, value in own.items() if key != "params"}
    stays = {"rule": own["rule"]}
    if own.get("param_names"):  # the file's may be those of a compiled model
        stays["param_names"] = own["param_names"]
    if own.get("fold", "auto") != "auto" and loaded.get("fold") == "auto":
        stays["fold"] = own["fold"]
    return kept | loaded | stays


def regrouped(groups: list[dict], own_groups: list[dict]) -> list[dict]:
    """Saved groups as the optimizer has them, by the names of their parameters, where it holds
    frozen ones that they lack; else as they are. Those get ids of their own."""
    counts = [len(group["params"]) for group in groups]
    if counts == [len(group["params"]) for group in own_groups] or not all(
        group.get("param_names") for group in [*groups, *own_groups]
    ):
        return groups
    saved = [
        (name, group, key)
        for group in groups
        for name, key in zip(group["param_names"], group["params"], strict=True)
    ]
    names = plain(name for name, _, _ in saved)
    found = {names[name]: (group, key) for name, group, key in saved}
    held = {
        name: parameter
        for group in own_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
    lacking = [held[name] for name in held.keys() - found.keys()]
    if found.keys() - held.keys() or any(p.requires_grad for p in lacking):
        return groups  # of another model: refused by their number
    result, fresh = [], max((key for _, _, key in saved), default=-1) + 1
    for own in own_groups:
        members = [found.get(name) for name in own["param_names"]]
        sources = [member[0] for member in members if member]
        keys = [_keys_of(group) for group in sources or [own]]
        if any(other != keys[0] for other in keys):
            return groups  # regrouped otherwise
        ids = []
        for member in members:
            ids.append(member[1] if member else fresh)
            fresh += member is None
        result.append({**keys[0], "params": ids, "param_names": own["param_names"]})
    return result


def _keys_of(group: dict) -> dict:
    return {key: value for key, value in group.items() if key not in ("params", "param_names")}


def _from_torch_muon(saved: dict, own: dict, where: str) -> dict:
    if own["rule"] in ("adamw", "sgd"):
        raise ValueError(
            f'{where} must be of rule "{own["rule"]}", got one of torch.optim.Muon; load it into '
            "a group for matrices"
        )
    keys = ("params", "param_names", "lr", "weight_decay", "momentum", "nesterov", "initial_lr")
    loaded = {key: saved[key] for key in keys if key in saved}
    adjusted = saved.get("adjust_lr_fn")
    loaded["scale"] = SCALES.get(adjusted, adjusted)
    loaded["scale_factor"] = None
    if own["rule"] == "muon":
        if tuple(saved["ns_coefficients"]) != CLASSIC:
            raise ValueError(
                f"{where}: ns_coefficients must be {CLASSIC}, which pion calls "
                f'"classic", got {tuple(saved["ns_coefficients"])}'
            )
        loaded |= {"coefficients": "classic", "steps": saved["ns_steps"]}
    return loaded


def _from_torch_adamw(saved: dict, own: dict, where: str) -> dict:
    if own["rule"] != "adamw":
        raise ValueError(
            f'{where} must be of rule "{own["rule"]}", got one of torch.optim.AdamW; load it into '
            'a group of rule "adamw"'
        )
    if saved.get("amsgrad"):
        raise ValueError(f"{where}: amsgrad must be off, got True: pion's AdamW has none")
    if saved["weight_decay"] and not saved.get("decoupled_weight_decay", True):
        raise ValueError(
            f"{where}: weight decay must be decoupled, as AdamW's, got Adam's, which adds it to "
            "the gradient; start AdamW afresh or set it to 0"
        )
    keys = ("params", "param_names", "lr", "betas", "eps", "weight_decay", "maximize", "initial_lr")
    return {key: saved[key] for key in keys if key in saved}


def with_steps_on_host(saved: dict) -> dict:
    """Saved states whose steps lie on the host: those of a device come in one transfer."""
    away = {}
    for key, state in saved.items():
        step = state.get("step") if isinstance(state, dict) else None
        if isinstance(step, torch.Tensor) and step.numel() == 1 and step.device.type != "cpu":
            away.setdefault(step.device, []).append((key, step))
    result = dict(saved)
    for pairs in away.values():
        values = torch.stack([step.reshape(()).float() for _, step in pairs]).tolist()
        for (key, _), value in zip(pairs, values, strict=True):
            result[key] = {**saved[key], "step": value}
    return result


def _steps_taken(value, name: str) -> torch.Tensor:
    """A saved step as an f32 scalar."""
    try:
        step = torch.as_tensor(value, dtype=torch.float32)
        right = step.numel() == 1 and bool(step >= 0) and bool(step == step.floor())
    except (TypeError, ValueError, RuntimeError):
        right = False
    if not right or not torch.isfinite(step).all():
        raise ValueError(
            f"load_state_dict: step of {name} must be the number of steps taken, got {value!r}"
        )
    return step.reshape(())


def adopted(saved: dict, parameter: torch.Tensor, needed: tuple, name: str, device=None) -> dict:
    """A saved parameter state as ours: checked, in our types, on the parameter's device; copies.

    Raises ValueError if a buffer is missing, foreign or of another shape.
    """
    device = parameter.device if device is None else device
    state = {}
    for key, value in saved.items():
        if key not in FIELDS:
            raise ValueError(
                f"load_state_dict: the state of {name} must hold {', '.join(FIELDS)}, got {key!r}"
            )
        if key == "step":
            steps = float(_steps_taken(value, name))
            state[key] = torch.full((), steps, dtype=torch.float32, device=device)
            continue
        if not isinstance(value, torch.Tensor):
            raise ValueError(  # noqa: TRY004 - as of any state that does not fit
                f"load_state_dict: {key} of {name} must be a tensor, got {type(value).__name__}"
            )
        if key == "counters":
            if tuple(value.shape) != (COUNTERS,):
                raise ValueError(
                    f"load_state_dict: counters of {name} must have shape [{COUNTERS}], "
                    f"got {list(value.shape)}"
                )
            state[key] = value.to("cpu", torch.int64, copy=True)
        else:
            if value.shape != parameter.shape:
                raise ValueError(
                    f"load_state_dict: {key} of {name} must have shape {list(parameter.shape)}, "
                    f"got {list(value.shape)}; the file belongs to another model"
                )
            state[key] = _copied(value.detach(), parameter, device)
    if "exp_avg_sq" in needed:  # its bias correction is that of the step
        needed = (*needed, "step")
    missing = [key for key in needed if key not in state]
    if state and missing:
        raise ValueError(
            f"load_state_dict: the state of {name} must hold {', '.join(needed)}, "
            f"got none of {', '.join(missing)}"
        )
    return state
