# SPDX-License-Identifier: Apache-2.0
"""Optimizer: a torch.optim.Optimizer whose groups each have a rule of pion.

CPU parameters are stepped by the kernels, in place; the rest by torch operations (torch_step).
"""

import contextlib
import os
import sys
import warnings
from typing import NamedTuple

import torch

from pion import cpu_step, parameter_lists, torch_step
from pion import groups as group_keys
from pion import state as states
from pion.cell import Cell, check_finite, check_parameter, checked_shape, shard_of
from pion.fused_updates import has_fused
from pion.group_values import flag
from pion.shared_memory import new_parameters
from pion.torch_statistics import Watcher

_forced_torch_path = False


class EmptyUpdateWarning(UserWarning):
    """A filter has passed nothing for many steps, or a gradient with NaN or Inf was skipped."""


@contextlib.contextmanager
def force_torch_path():
    """Within it CPU parameters are stepped by the torch operations of other devices."""
    global _forced_torch_path
    before, _forced_torch_path = _forced_torch_path, True
    try:
        yield
    finally:
        _forced_torch_path = before


def check_own(optimizer, where: str):
    """Raises TypeError for an optimizer that is not of pion."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"{where}: the optimizer must be one of pion, such as pion.PionAdamW, got "
            f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
        )


def check_fused(parameters: list, where: str):
    """Raises ValueError for a device whose steps are not fused."""
    for kind in {p.device.type for p in parameters}:
        if not has_fused(kind) and kind != "meta":
            raise ValueError(
                f"{where}: fused must be off, got fused=True: torch has no fused kernels for "
                f"device {kind}; the CPU's steps are pion's own, fused anyway"
            )


def _stack_level() -> int:
    """The stacklevel by which a function that calls this warns at the line that called step():
    the first outside pion and torch, whose wrappers of step() are several and vary."""
    own = tuple(os.path.dirname(os.path.abspath(m.__file__)) + os.sep for m in (cpu_step, torch))
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(own):
        level, frame = level + 1, frame.f_back
    return level


class Run(NamedTuple):
    """A group's plan, the ordinal of its first parameter, and a cell for every parameter."""

    plan: group_keys.Plan
    first: int
    cells: list


class Optimizer(torch.optim.Optimizer):
    """Groups of any rules: each has "rule" and that rule's keys, all JSON-clean.

    Gradients are read only; a parameter without one is left alone, without decay, and so is a
    matrix of a stack whose gradient is zero. A step that raises has written nothing, unless a
    closure did, or memory or a device failed in its middle.
    """

    # torch.amp.GradScaler gives step() its scale and flag as tensors and waits for nothing
    _step_supports_amp_scaling = True
    _asked = {}  # noqa: RUF012 of the constructor: fused, capturable
    # said to who gives a module in the place of parameters
    _whole_model = "give pion.route(model) to pion.PionAdamW, or model.parameters()"

    def __init__(self, params, defaults: dict | None = None, *, rule: str | None = None):
        self._rule = rule  # of groups that name none
        self._given = dict(defaults or {})  # of groups that are added later too
        self._forget()
        params = parameter_lists.listed(params, type(self).__name__, self._whole_model)
        super().__init__(params, dict(defaults or {}))

    def _forget(self):
        """What can be made again from groups and state."""
        self._runs = []  # by group
        self._collect = False
        self._compiled = None
        self._statistics = []
        self._watcher = Watcher()  # of steps by torch operations
        # of a GradScaler, in a step: 1 / its scale, and its flag
        self._amp, self._host_unscale = (None, None), None
        self._variants = {}  # plans of groups for parts of a parameter, by distributed_shards
        self.host = None  # set by pion.offload
        self.replicas = None  # set by pion.distribute

    # groups

    def add_param_group(self, param_group: dict):
        where = f"{type(self).__name__}: group {len(self.param_groups)}"
        if not isinstance(param_group, dict):
            raise TypeError(
                f'{where}: must be a dict with "params", got '
                f"{parameter_lists.described(param_group)}"
            )
        parameters = parameter_lists.in_group(param_group, where, self._whole_model)
        group = param_group | {"params": parameters}
        group_keys.refuse(group, where)
        told = self._asked | group_keys.asked(group)
        rule = self._rule_of(group, where)
        group = group_keys.merge(group, self._defaults_of(rule), rule, where) | {"rule": rule}
        plan = group_keys.Plan(group, group_keys.fingerprint(group, where), where)
        held = [
            (self._name(g, i), parameter)
            for g, other in enumerate(self.param_groups)
            for i, parameter in enumerate(other["params"])
        ]
        number, name = len(self.param_groups), type(self).__name__
        group["params"] = new_parameters(group, held, number, name)
        own = [p[1] if isinstance(p, tuple) else p for p in group["params"]]
        if told.get("fused"):
            check_fused(own, where)
        if told.get("capturable"):
            group_keys.check_capturable(group, own, where)
        defaults, self.defaults = self.defaults, {}  # merged already, by rule
        try:
            super().add_param_group(group)
        finally:
            self.defaults = defaults
        added = self.param_groups[-1]
        try:
            for index, parameter in enumerate(added["params"]):
                check_parameter(parameter, self._name(len(self.param_groups) - 1, index))
                name = self._name(len(self.param_groups) - 1, index)
                checked_shape(parameter, plan, name)
                shard_of(parameter, name)
        except ValueError:
            self.param_groups.pop()
            raise
        self._fill_sharded(added, plan)
        self._show_cycled()

    def _show_cycled(self):
        """Schedulers that cycle momentum look for its name in `defaults` and write it into every
        group: it is there where all of them have it. Else those schedulers refuse."""
        for key in ("momentum", "betas"):
            self.defaults.pop(key, None)
            if all(key in group for group in self.param_groups):
                self.defaults[key] = self.param_groups[0][key]

    def _fill_sharded(self, group: dict, plan):
        """State of DTensors is made at once: a distributed checkpoint is read into what is there.
        Frozen ones get theirs with their first gradient."""
        for parameter in group["params"]:
            if states.is_sharded(parameter) and not parameter.is_meta and parameter.requires_grad:
                buffers = states.buffers_of(plan.rule, group)
                master = states.needs_master(parameter, group)
                states.fill(self.state[parameter], parameter.detach(), buffers, master)

    def _rule_of(self, group: dict, where: str) -> str:
        """The group's rule; use_muon and use_pion are other ways to name one."""
        asked = [key for key in ("rule", "use_muon", "use_pion") if key in group]
        if len(asked) > 1:
            raise ValueError(f"{where}: must name its rule once, got {' and '.join(asked)}")
        if "use_muon" in group:
            return "muon" if flag(group.pop("use_muon"), "use_muon", where) else "adamw"
        if "use_pion" in group:
            return "pion" if flag(group.pop("use_pion"), "use_pion", where) else "adamw"
        rule = group.get("rule", self._rule)
        if rule is None:
            raise ValueError(f'{where}: must have a "rule", got none')
        if self._rule is not None and rule != self._rule:
            raise ValueError(
                f'{where}: must be of rule "{self._rule}", got "{rule}"; '
                "pion.PionAdamW takes groups of any rule"
            )
        return rule

    def _defaults_of(self, rule: str) -> dict:
        return self._given

    def _name(self, group: int, index: int) -> str:
        names = self.param_groups[group].get("param_names")
        return names[index] if names else f"groups.{group}.params.{index}"

    def named_cells(self):
        """(name, Cell) of every parameter, in order."""
        self._refresh()
        return [(cell.name, cell) for run in self._runs for cell in run.cells]

    def _refresh(self):
        """Plans and cells of groups that have changed since the last step."""
        first = 0
        group_keys.forget_rates()
        del self._runs[len(self.param_groups) :]
        for g, group in enumerate(self.param_groups):
            if g == len(self._runs):
                self._runs.append(None)
            run, params, where = self._runs[g], group["params"], f"step: group {g}"
            self._check_rule(group, run, where)
            group_keys.read_tensors(group, where)
            fingerprint = group_keys.fingerprint(group, where)
            if (
                run is None
                or run.plan.fingerprint != fingerprint
                or run.first != first
                or len(run.cells) != len(params)
                or any(
                    c.parameter is not p or c.dtype is not p.dtype
                    for c, p in zip(run.cells, params, strict=True)
                )
            ):
                plan = group_keys.Plan(group, fingerprint, where)
                cells = [
                    Cell(p, group, plan, self._name(g, i), first + i) for i, p in enumerate(params)
                ]
                run = self._runs[g] = Run(plan, first, cells)
            if not isinstance(group["lr"], torch.Tensor):
                group_keys.set_rate(run.plan.rule, group["lr"], where)
            first += len(params)

    def _check_rule(self, group: dict, run: Run | None, where: str):
        """Raises if the group has been given another rule: its state is that of the first."""
        made = self._rule
        if made is None and run and run.cells and run.cells[0].group is group:
            made = run.plan.rule.name
        if made is not None and group["rule"] != made:
            raise ValueError(
                f'{where}: rule must stay "{made}", got {group["rule"]!r}; make a new optimizer '
                "to change it"
            )

    # the step

    @torch._disable_dynamo  # kernels and buckets are no graph; see compile()
    @torch.no_grad()
    def step(self, closure=None):
        """One step; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refresh()
        self._statistics, messages = [], self._watcher.read()
        plain = self.replicas is None and not any(c.shard for r in self._runs for c in r.cells)
        if self._take_scaling(plain):
            return loss
        if plain:
            work = self._work()
            check_finite(work, gradients=self._amp[1] is None)
            messages += self.step_items(work)
        else:
            from pion import distributed_step

            messages += distributed_step.step(self)
        self._report(messages)
        return loss

    def _take_scaling(self, plain: bool) -> bool:
        """Takes over what a GradScaler left on the optimizer: by tensors where all parameters are
        stepped by torch operations; else the host waits. Returns whether to leave the step out."""
        scale, found = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        self._host_unscale = None
        self._amp = (None if scale is None else scale.float().reciprocal(), found)
        if scale is None and found is None:
            return False
        on_host = not plain or self.host is not None or any(
            c.parameter.is_cpu and not _forced_torch_path for r in self._runs for c in r.cells
        )  # fmt: skip
        if not on_host:
            return False
        self._host_unscale, self._amp = self._amp[0], (None, None)
        return found is not None and bool(found)

    def step_items(self, work: list) -> list[str]:
        """Steps (cell, gradient, state) of plain tensors in place; returns warnings."""
        if self.host is not None:
            return self.host.step(self, work)
        on_cpu, elsewhere, messages = [], [], []
        for item in work:
            cell, _, state = item
            # a state that the kernels were aimed at is complete
            if not cell.aimed or len(state) < len(cell.aimed):
                self._fill(cell, state)
            kernels = cell.parameter.is_cpu and not _forced_torch_path
            (on_cpu if kernels else elsewhere).append(item)
        # both look at all that they could refuse before the first writes
        pieces = torch_step.prepare(elsewhere, self._amp) if elsewhere else []
        if on_cpu:
            messages += cpu_step.step(on_cpu, self._collect, self._statistics)
        if elsewhere:
            said, figures = torch_step.run(pieces, self._collect, self._watcher, self._compiled)
            messages += said
            self._statistics += figures
        return messages

    def _fill(self, cell: Cell, state: dict):
        hosted = self.host is not None
        fresh = "momentum_buffer" not in state
        states.fill(
            state,
            cell.parameter,
            states.buffers_of(cell.plan.rule, cell.group),
            hosted or states.needs_master(cell.parameter, cell.group),
            "cpu" if hosted else None,
        )
        if fresh:
            cell.sound = state.get("momentum_buffer")  # zeros

    def _work(self) -> list:
        """(cell, gradient, state) of every parameter that has a gradient."""
        work, state = [], self.state
        for run in self._runs:
            for cell in run.cells:
                parameter = cell.parameter
                gradient = parameter.grad
                if gradient is None:
                    continue
                if gradient.layout is not torch.strided:
                    raise ValueError(
                        f"step: a gradient must be dense, got layout {gradient.layout} for "
                        f"{cell.name}; make the embedding with sparse=False"
                    )
                if parameter.numel() != cell.numel or gradient.numel() != cell.numel:
                    raise ValueError(
                        f"step: {cell.name} must keep its {cell.numel} entries, got a parameter "
                        f"of {list(parameter.shape)} and a gradient of {list(gradient.shape)}; "
                        "make the optimizer after changing the model"
                    )
                if self._host_unscale is not None:
                    gradient = gradient * self._host_unscale.to(gradient.device)
                if cell.numel:
                    work.append((cell, gradient, state[parameter]))
        return work

    def _report(self, messages: list[str]):
        if not messages:
            return
        level = _stack_level()
        for message in messages:
            warnings.warn(message, EmptyUpdateWarning, stacklevel=level)

    def compile(self, **options):
        """Compiles the tensor code that steps parameters off the CPU: torch.compile's options. A
        step inside a compiled function stays outside its graph."""
        self._compiled = torch.compile(torch_step.update, **options)

    def collect_statistics(self, on: bool = True):
        """Whether steps keep statistics(). Off the CPU they cost one synchronization a step."""
        self._collect = on

    def statistics(self) -> list[dict]:
        """What the last step did to every parameter: name, rule, lr and docs/conventions.md's
        figures. Off the CPU stable_rank, sigma_max and head_spread are left out."""
        return self._statistics

    def init_state(self):
        """Makes the state of all parameters now, and not in their first step; of frozen ones not
        before they are unfrozen."""
        for _, cell in self.named_cells():
            if cell.parameter.requires_grad:
                self._fill(cell, self.state[cell.parameter])

    # saving and loading

    def state_dict(self):
        """As torch.optim's. Where ranks share the work (pion.distribute) call
        pion.gather_state(optimizer) on all of them first."""
        self.check_whole("state_dict")
        return super().state_dict()

    def check_whole(self, where: str):
        """Raises ValueError if other ranks hold a part of the state."""
        if self.replicas is not None:
            self.replicas.check_whole(where)

    def __getstate__(self):
        self.check_whole("copy")
        kept = {"_rule": self._rule, "_given": self._given, "_asked": self._asked}
        kept |= {"_collect": self._collect, "host": self.host}
        return super().__getstate__() | kept | self._own_attributes()

    def _own_attributes(self) -> dict:
        return {}

    def __setstate__(self, state):
        super().__setstate__(state)
        kept = {key: self.__dict__.get(key) for key in ("host", "replicas")}
        collect = self.__dict__.get("_collect", False)
        self._forget()
        self.__dict__.update(kept, _collect=collect)
        for own in self.state.values():
            for key, value in own.items():
                if isinstance(value, states.Kept):
                    own[key] = value.tensor

    def load_state_dict(self, state_dict):
        """Loads a state of pion, torch.optim.Muon or torch.optim.AdamW. Buffers take this
        optimizer's types. One that does not fit raises ValueError and changes nothing."""
        hook = self.register_load_state_dict_pre_hook(Optimizer._adopt)  # after all others
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        if self.replicas is not None:
            self.replicas.loaded()

    def _adopt(self, state_dict):
        groups = states.regrouped(state_dict["param_groups"], self.param_groups)
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"load_state_dict: the state must have {len(self.param_groups)} groups, "
                f"got {len(groups)}"
            )
        converted, state = [], {}
        saved_states = states.with_steps_on_host(state_dict["state"])
        for g, (saved, own) in enumerate(zip(groups, self.param_groups, strict=True)):
            if len(saved["params"]) != len(own["params"]):
                raise ValueError(
                    f"load_state_dict: group {g} must have {len(own['params'])} parameters, "
                    f"got {len(saved['params'])}"
                )
            group = states.converted_group(saved, own, g)
            group_keys.read_tensors(group, f"load_state_dict: group {g}")
            plan = group_keys.Plan(group, (), f"load_state_dict: group {g}")
            for index, (key, parameter) in enumerate(
                zip(saved["params"], own["params"], strict=True)
            ):
                name = self._name(g, index)
                checked_shape(parameter, plan, name)
                if key not in state_dict["state"]:
                    continue
                fields = states.adopted(
                    saved_states[key],
                    parameter,
                    states.buffers_of(plan.rule, group),
                    name,
                    "cpu" if self.host is not None else None,
                )
                state[key] = {field: states.Kept(value) for field, value in fields.items()}
            converted.append(group)
        return {**state_dict, "state": state, "param_groups": converted}
