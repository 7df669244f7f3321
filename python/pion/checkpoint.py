# SPDX-License-Identifier: Apache-2.0
"""save_state, load_state: an optimizer's state as a safetensors file, in the layout of the C++
library's Optimizer::state_tensors: "<parameter>.<field>" for momentum_buffer, exp_avg, exp_avg_sq,
master, step (i64) and counters, and "optimizer.seed". `pion train` reads and writes the same."""

import os
import tempfile

import torch

from pion import state as states
from pion.optimizer import check_own
from pion.wrapped_names import plain

_SEED = "optimizer.seed"


def state_tensors(optimizer, wanted: bool = True) -> dict[str, torch.Tensor]:
    """The state by name, in host memory. Learning rates and other options are not in it. DTensors
    are gathered one after the other, so that no device holds more than one of them whole: all ranks
    must take part, and those where it is not wanted get nothing."""
    optimizer.check_whole("save_state")
    tensors = {_SEED: torch.tensor(int(optimizer.param_groups[0]["seed"]))}
    for name, cell in optimizer.named_cells():
        for field, tensor in optimizer.state.get(cell.parameter, {}).items():
            if field == "step":
                tensor = tensor.to(torch.int64)
            key = f"{name}.{field}"
            if key in tensors:
                raise ValueError(
                    f"save_state: parameters must have names of their own, got {name} twice"
                )
            whole = states.whole(tensor.detach())
            tensors[key] = whole.cpu().contiguous() if wanted else None
    return tensors if wanted else {}


def save_state(optimizer, path):
    """Writes the state of an optimizer of pion to `path`; a crash leaves the old file or the new.

    Names are those of the groups ("param_names"), which pion.route and named_parameters() give.
    Of DTensors whole buffers are written, by rank 0; call it on every rank.
    """
    from safetensors.torch import save_file

    check_own(optimizer, "save_state")
    sharded = any(cell.shard for _, cell in optimizer.named_cells())
    writes = not sharded or torch.distributed.get_rank() == 0
    tensors = state_tensors(optimizer, wanted=writes)
    if not writes:
        return
    folder = os.path.dirname(os.path.abspath(path))
    handle, unfinished = tempfile.mkstemp(dir=folder, prefix=".unfinished_")
    os.close(handle)
    try:
        save_file(tensors, unfinished)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def load_state(optimizer, path):
    """Reads what save_state or a run of `pion train` (optimizer.safetensors) has written, by names.

    Checks names, shapes and types first: raises ValueError and changes nothing if one is wrong.
    """
    from safetensors import SafetensorError, safe_open

    check_own(optimizer, "load_state")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"load_state: {path} must be a safetensors file that pion.save_state or `pion train` "
            f"has written, got one that cannot be read: {error}"
        ) from None
    if _SEED not in tensors or tensors[_SEED].numel() != 1:
        raise ValueError(f"load_state: {path} must hold {_SEED}, got none: no state of pion's")
    seed = int(tensors.pop(_SEED))
    by_parameter = {}
    for name, tensor in tensors.items():
        parameter, _, field = name.rpartition(".")
        by_parameter.setdefault(parameter, {})[field] = tensor
    named, plain_of = dict(optimizer.named_cells()), plain(by_parameter)
    for name in list(by_parameter):  # the file's may be those of a compiled model
        if name not in named and plain_of[name] in named:
            by_parameter[plain_of[name]] = by_parameter.pop(name)
    loaded = {}
    for name, cell in named.items():
        saved = by_parameter.pop(name, None)
        if saved is not None:
            loaded[cell.parameter] = states.adopted(
                saved,
                cell.parameter,
                states.buffers_of(cell.plan.rule, cell.group),
                name,
                "cpu" if optimizer.host is not None else None,
            )
    if by_parameter:
        raise ValueError(
            "load_state: every name must belong to a parameter of the optimizer, got "
            f"{min(by_parameter)}; names come with pion.route or named_parameters()"
        )
    optimizer.state.clear()
    optimizer.state.update(loaded)
    if optimizer.replicas is not None:
        optimizer.replicas.loaded()
    for group in optimizer.param_groups:
        group["seed"] = seed
