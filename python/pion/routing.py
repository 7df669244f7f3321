# SPDX-License-Identifier: Apache-2.0
"""route: which parameter of a model takes which rule. Judgement, table and file format are the C++
library's; this file describes a torch model to it and makes groups of what it says."""

from collections.abc import Iterable

import torch
from torch.utils.weak import WeakIdKeyDictionary

from pion import _pion
from pion import routing_arguments as arguments
from pion.group_values import check_numbers, flag, read_tensors
from pion.groups import group_defaults, with_betas
from pion.wrapped_names import PlainNames, plain

_DTYPES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}  # that are stepped
# Subclasses that torch.nn itself uses in place of what they are.
_ALIASES = {"NonDynamicallyQuantizableLinear": "Linear"}
_CONTAINERS = {"Module", "Sequential", "ModuleList", "ModuleDict"}

_bound = WeakIdKeyDictionary()  # parameter: its description by bind_names
_bound_counts = WeakIdKeyDictionary()  # parameter: the attention counts of its model


class Routing:
    """Which parameter takes which rule, and why. Prints as a table."""

    def __init__(self, table: _pion.RoutingTable, parameters: dict, given: dict | None):
        self._table = table
        self._parameters = parameters  # by name
        self._given = given  # keys that somebody chose, by rule; None: all of them

    @property
    def routes(self) -> list:
        """One per parameter: name, shape, role, rule, keys, heads, reason."""
        return self._table.routes

    def __str__(self) -> str:
        return self._table.table()

    __repr__ = __str__

    def to_toml(self) -> str:
        """The whole routing, to be edited by hand and read back."""
        return self._table.to_toml()

    @classmethod
    def from_toml(cls, text: str, model) -> "Routing":
        """Reads what to_toml wrote, for `model` or its named parameters. Raises ValueError with
        line and column for a file that is malformed, or whose names and shapes are not those of
        the model."""
        descriptions, parameters = describe(model)
        renamed = plain(route.name for route in _pion.RoutingTable.from_toml(text).routes)
        return cls(_pion.RoutingTable.read_for(text, descriptions, renamed), parameters, None)

    def to_param_groups(self) -> list[dict]:
        """Groups with names for pion.PionAdamW; parameters of equal keys share one. Only keys that
        the routing chose are in them, so that the optimizer's arguments reach the others. Tied
        parameters are in it once. Frozen ones (requires_grad False) are in it too, as in
        torch.optim, and are stepped once they have a gradient; those of a type that no step takes,
        as quantized ones, are left out."""
        groups = []
        seen = set()
        for route in self.routes:
            parameter = self._parameters[route.name]
            absent = isinstance(parameter, _Absent)
            if absent or id(parameter) in seen or route.parameter.tied_to:
                continue
            if not parameter.requires_grad and not _can_be_stepped(parameter):
                continue
            seen.add(id(parameter))
            keys = self._keys_of(route)
            group = next((g for g in groups if g["keys"] == keys), None)
            if group is None:
                group = {"keys": keys, "params": [], "param_names": []}
                groups.append(group)
            group["params"].append(parameter)
            group["param_names"].append(route.name)
        return [
            {"params": list(zip(g["param_names"], g["params"], strict=True)), **g["keys"]}
            for g in groups
        ]

    def _keys_of(self, route) -> dict:
        defaults = group_defaults(route.rule)
        keys = with_betas(dict(route.keys))
        if self._given is not None:
            given = {*self._given.get(route.rule, ()), *route.keys_by_role}
            keys = {k: v for k, v in keys.items() if k in given or v != defaults[k]}
        if route.is_matrix:
            keys |= _layout_keys(route)
        return {"rule": route.rule, **keys}


def _layout_keys(route) -> dict:
    """Heads and fold; only what is not the default."""
    keys, heads = {}, route.heads
    if len(route.shape) > 2:
        keys["fold"] = "stack" if route.role == "expert_stack" else "conv"
    if route.role == "expert_stack":  # the stack's matrices are the blocks
        return keys | ({"transposed": True} if heads.transposed else {})
    if heads.sizes:
        keys |= {"split_sizes": heads.sizes, "heads": heads.heads}
    elif heads.heads != [1]:
        keys["heads"] = heads.heads[0]
    if heads.axis:
        keys["head_axis"] = heads.axis
    if heads.transposed:
        keys["transposed"] = True
    return keys


def route(
    model,
    *,
    preset: str | None = None,
    rules: dict | None = None,
    overrides: dict | Iterable | None = None,
    per_head: bool = True,
    attention: tuple[int, int, int] | None = None,
    attention_by_name: dict | None = None,
    decay_vectors: bool = True,
    lr_by_role: dict | None = None,
) -> Routing:
    """Decides by module type, name, ties and shape which parameter takes which rule.

    model       a torch.nn.Module, or (name, parameter) pairs: then by names and shapes alone
    preset      "paper-rlvr", "paper-vla", "field-notes", "purejaxrl"; see pion.presets()
    rules       {"matrices": "muon", "rest": {"rule": "adamw", "lr": 3e-4}}: rules of hidden
                matrices (default Pion) and of the rest (AdamW), by name or with keys
    overrides   {glob on the name: "matrix", "rest" or a rule}, first match wins; a tied parameter
                is decided by its first name. Of three dimensions and more also "stack" (the last
                two, (out, in), are a matrix), "stack_in_out" (stored (in, out)), "convolution"
    per_head    attention projections are cut into heads where their counts are known
    attention   (heads, kv_heads, head_dim), or with those of linear attention (..., linear key
                heads, linear value heads); by default read from model.config where there is one
    attention_by_name   {glob: counts} for parts of the model
    decay_vectors   False: norms, biases and other vectors are not decayed, whatever weight_decay
                    the rule or the optimizer has
    lr_by_role      {"embedding": 3e-4, "head": 1e-4}: rates by role, in place of the rule's or the
                    optimizer's; roles are those of the table

    An unknown parameter of two dimensions or more is an error that lists it and says how to decide.
    Names are those of the model without its wrappers: of a compiled one no "_orig_mod.".
    """
    if not isinstance(preset, str | None):
        raise TypeError(f"route: preset must be a name of pion.presets(), got {preset!r}")
    descriptions, parameters = describe(model)
    given = None if attention is None else arguments.attention_of(attention, "attention")
    by_name = arguments.attention_by_name_of(attention_by_name)
    counts, found = (0, 0, 0), []
    per_head = flag(per_head, "per_head", "route")
    if per_head:  # else nobody asks for counts
        counts, found = _counts_of(model, given, bool(by_name))
    name_of = PlainNames(name for name, _, _ in _named(model))
    by_name = [(name_of(glob), counts_there) for glob, counts_there in by_name + found]
    pairs = [(name_of(glob), to) for glob, to in arguments.overrides_of(overrides)]
    by_role = (flag(decay_vectors, "decay_vectors", "route"), arguments.rates_of(lr_by_role))
    return _route(
        descriptions, parameters, preset, rules, pairs, per_head, counts, by_name, by_role
    )


def _route(
    descriptions, parameters, preset, rules, pairs, per_head, counts, by_name,
    by_role=(True, []),
):  # fmt: skip
    made, given = _rules_of(rules)
    try:
        table = _pion.route(
            descriptions, made["matrices"], made["rest"], per_head, counts, by_name, pairs,
            *by_role, preset or "",
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(arguments.in_python(str(error))) from None
    if pairs:
        _check_tied(table.routes)
    return Routing(table, parameters, given)


def _check_tied(routes: list):
    """Raises if an override decides otherwise for a tied parameter than for what is stepped."""
    by_name = {route.name: route for route in routes}
    for route in routes:
        stepped = by_name.get(route.parameter.tied_to)
        if stepped and (route.rule, route.keys) != (stepped.rule, stepped.keys):
            raise ValueError(
                f"route: overrides must decide for {stepped.name}, got {route.name}, which is "
                f"tied to it and stepped under that name by {stepped.rule}, not {route.rule}"
            )


def _rules_of(rules):
    made, given = {"matrices": None, "rest": None}, {}
    for part, keys in arguments.rules_of(rules).items():
        name = keys.pop("rule", "pion" if part == "matrices" else "adamw")
        read_tensors(keys, keys, f"route: {part}")
        check_numbers(keys, f"route: {part}")
        made[part] = _pion.Rule(name, keys, f"route: {part}")
        given.setdefault(name, set()).update(with_betas(keys))
    return made, given


# describing a model


def _module_type(module: torch.nn.Module) -> str:
    """ "Linear" for a Linear and what derives from it, the class's own name for other modules."""
    kinds = [c for c in type(module).__mro__ if c.__module__.startswith("torch.nn.modules")]
    for kind in kinds:
        name = _ALIASES.get(kind.__name__, kind.__name__)
        if name not in _CONTAINERS and not name.startswith("_"):
            return name
    own = type(module).__name__
    # fully_shard derives a class FSDPX from X in place
    return own.removeprefix("FSDP") if own.startswith("FSDP") and len(own) > 4 else own


def _memory(parameter: torch.Tensor):
    """Equal for tied parameters, also for a transposed view; not for parts of one buffer."""
    try:
        return parameter.untyped_storage()._cdata, parameter.storage_offset()
    except (NotImplementedError, RuntimeError):  # tensor subclasses without storage
        return id(parameter), 0


def _named(model):
    """(name, parameter, module type) of every registration, also of tied ones."""
    if not isinstance(model, torch.nn.Module):
        for name, parameter in arguments.named_parameters(model):
            bound = _bound.get(parameter)
            yield name, parameter, bound.module_type if bound else ""
        return
    for prefix, module in model.named_modules(remove_duplicate=False):
        for own, parameter in module._parameters.items():
            if parameter is not None:
                yield f"{prefix}.{own}" if prefix else own, parameter, _module_type(module)


def describe(model) -> tuple[list, dict]:
    """What routing needs to know: descriptions, and the parameters by name."""
    descriptions, parameters, seen = [], {}, {}
    named = list(_named(model))
    name_of = PlainNames(name for name, _, _ in named)
    for wrapped, parameter, module_type in named:
        name = name_of(wrapped)
        tied = seen.setdefault(_memory(parameter), name)
        dtype = _DTYPES.get(parameter.dtype, str(parameter.dtype).removeprefix("torch."))
        descriptions.append(
            _pion.ParameterDescription(
                name, list(parameter.shape), module_type, "" if tied == name else tied, dtype,
                not parameter.requires_grad,
            )
        )  # fmt: skip
        parameters[name] = parameter
    return descriptions, parameters


def _can_be_stepped(parameter: torch.Tensor) -> bool:
    return parameter.dtype in _DTYPES and parameter.layout is torch.strided


def _counts_of(model, given: tuple | None = None, parts_given=False) -> tuple[tuple, list]:
    """Attention counts from the configs of a Hugging Face model: of the whole, and of parts that
    have a config of their own, the innermost first. `given` stands for those of the whole; a
    config that cannot be read is an error where nobody has given counts."""
    if not isinstance(model, torch.nn.Module):
        return given or (0, 0, 0), []
    needed = given is None and not parts_given
    whole, by_name = given or (0, 0, 0), []
    top = getattr(model, "config", None)
    configs = {id(top)}
    if given is None and hasattr(top, "to_json_string"):
        whole = _counts_in(top, needed)
    for prefix, module in model.named_modules():
        config = getattr(module, "config", None)
        if not prefix or id(config) in configs or not hasattr(config, "to_json_string"):
            continue
        configs.add(id(config))
        counts = _counts_in(config, needed)
        if any(counts) and any(True for _ in module.parameters()):
            by_name.insert(0, (f"{prefix}.*", counts))  # the wrappers' names are taken out later
    return whole, by_name


def _counts_in(config, needed: bool) -> tuple:
    try:
        return _pion.attention_shape_from_config(config.to_json_string(use_diff=False))
    except ValueError as error:  # Swin's num_heads is a list, one count a stage
        if not needed:
            return 0, 0, 0
        raise ValueError(
            f"route: the model's config must tell the attention's heads: {error}; give pion.route "
            "attention_by_name={glob: (heads, kv_heads, head_dim)}, attention=, or per_head=False"
        ) from None


# parameters without names


def bind_names(model: torch.nn.Module) -> torch.nn.Module:
    """Remembers names and module types of a model's parameters, for hosts that hand an optimizer
    model.parameters() alone. Weak: the model is not kept alive. Returns the model."""
    descriptions, parameters = describe(model)
    whole, by_name = _counts_of(model)
    name_of = PlainNames(name for name, _, _ in _named(model))
    by_name = [(name_of(glob), counts) for glob, counts in by_name]
    for description in descriptions:
        if not description.tied_to:
            parameter = parameters[description.name]
            _bound[parameter] = description
            _bound_counts[parameter] = (whole, by_name, descriptions)
    return model


def route_bound(group: dict, matrices: str) -> list[dict]:
    """The group as groups with rules, by the names that it or bind_names gives."""
    rest = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    params = group["params"]
    params = [params] if isinstance(params, torch.Tensor) else list(params)
    names = group.get("param_names")
    if names:
        params = list(zip(names, params, strict=True))
    pairs, unnamed = [], []
    for entry in params:
        name, parameter = entry if isinstance(entry, tuple) else (None, entry)
        bound = _bound.get(parameter)
        name = bound.name if bound else name
        pairs.append((name, parameter))
        if name is None:
            unnamed.append(list(parameter.shape))
    if unnamed:
        raise ValueError(
            f"PionAdamW: parameters must have a rule or a name, got {len(unnamed)} that have "
            f"neither (shapes {unnamed[:4]}{' ...' if len(unnamed) > 4 else ''}): which of them "
            "are embeddings or heads cannot be told. Give pion.route(model), groups with a "
            '"rule", or call pion.bind_names(model) before the optimizer is made'
        )
    groups = _route_pairs(pairs, matrices).to_param_groups()
    # betas are for AdamW's part of the group, momentum for the matrices'
    either = {key for rule in (matrices, "adamw") for key in group_defaults(rule)}
    for one in groups:
        other = either - set(group_defaults(one["rule"]))
        one |= {key: value for key, value in with_betas(rest).items() if key not in other}
    return groups


def _route_pairs(pairs: list, matrices: str) -> Routing:
    """Routes named parameters; those of a bound model with the whole model in view."""
    parameters = dict(pairs)
    known = next((c for _, p in pairs if (c := _bound_counts.get(p)) is not None), None)
    rules = {"matrices": matrices}
    if known is None:
        descriptions, parameters = describe(pairs)
        return _route(descriptions, parameters, None, rules, [], True, (0, 0, 0), [])
    whole, by_name, descriptions = known
    everything = {d.name: parameters.get(d.name, _ABSENT) for d in descriptions}
    now = [_as_now(d, everything[d.name]) for d in descriptions]
    return _route(now, everything, None, rules, [], True, whole, by_name)


def _as_now(d: _pion.ParameterDescription, parameter) -> _pion.ParameterDescription:
    """The description, of a parameter that may have been frozen since, or is not here."""
    return _pion.ParameterDescription(
        d.name, d.shape, d.module_type, d.tied_to, d.dtype, not parameter.requires_grad
    )


class _Absent:
    """A parameter of the bound model that this optimizer does not hold."""

    requires_grad = False


_ABSENT = _Absent()
