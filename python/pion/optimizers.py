# SPDX-License-Identifier: Apache-2.0
"""The optimizers that users name: Pion, Muon, LowRankMuon, LowPassMuon and PionAdamW.

Meaning and range of every key: help(pion.Pion) prints the table of the C++ library, whose defaults
the signatures show. Every key is also a group key.
"""

from pion import groups as group_keys
from pion import parameter_lists
from pion._pion import Rule, rule_names
from pion.optimizer import Optimizer
from pion.routing import Routing, route_bound

_PION, _MUON = group_keys.group_defaults("pion"), group_keys.group_defaults("muon")
_RANK, _PASS = (
    group_keys.group_defaults("low_rank_muon"),
    group_keys.group_defaults("low_pass_muon"),
)
_ADAMW = group_keys.group_defaults("adamw")
SEQUENCES = ("classic", "quintic", "polar_express", "cans", "cubic")  # of `coefficients`
_MATRICES = "pion"


def _key_table(rule: str) -> str:
    lines = [f"    {name}: {description}" for name, description, _ in Rule(rule).key_table()]
    names = ", ".join(f'"{name}"' for name in SEQUENCES)
    lines = [line.replace("see muon_sequence", names) for line in lines]
    return "\n".join(
        [
            *lines,
            "    heads, head_axis, split_sizes: blocks of attention projections, which must divide",
            '    fold: of more than two dimensions "conv" (out, rest) or "stack" (the last two)',
            "    transposed: stored (in, out)",
            '    low_precision: bf16 weights: "master" f32 copy, "stochastic" rounding, "nearest"',
            "    maximize: step along the gradient",
            "    seed: of stochastic rounding",
        ]
    )


class _OneRule(Optimizer):
    """An optimizer whose groups are all of one rule."""

    def __init__(self, params, keys: dict, unsupported: dict):
        where, rule = type(self).__name__, self._rule_name
        group_keys.refuse(unsupported, where)
        self._asked = group_keys.asked(unsupported)
        if unsupported:
            key, known = next(iter(unsupported)), group_keys.group_defaults(rule)
            raise TypeError(f'{where}: unknown option "{key}"; {group_keys.remedy(key, known)}')
        if isinstance(params, Routing):
            raise TypeError(f"{where}: a routing has several rules; give it to pion.PionAdamW")
        keys = keys | {"rule": rule}
        group_keys.read_tensors(keys, where)
        group_keys.Plan(keys, (), where)
        del keys["rule"]
        super().__init__(params, keys, rule=rule)


class Pion(_OneRule):
    """Pion: a high-pass filter on the singular values of the averaged gradient (arXiv:2605.19282).

    For weights of two dimensions or more; pion.PionAdamW takes whole models. Keys:

    """

    _rule_name = "pion"

    def __init__(
        self,
        params,
        lr=_PION["lr"],
        *,
        momentum=_PION["momentum"],
        nesterov=_PION["nesterov"],
        weight_decay=_PION["weight_decay"],
        cutoff=_PION["cutoff"],
        edge_factor=_PION["edge_factor"],
        promotion_steps=_PION["promotion_steps"],
        steps=_PION["steps"],
        normalization=_PION["normalization"],
        scale=_PION["scale"],
        scale_factor=_PION["scale_factor"],
        heads=_PION["heads"],
        head_axis=_PION["head_axis"],
        split_sizes=_PION["split_sizes"],
        transposed=_PION["transposed"],
        fold=_PION["fold"],
        precision=_PION["precision"],
        nonfinite=_PION["nonfinite"],
        low_precision=_PION["low_precision"],
        maximize=_PION["maximize"],
        seed=_PION["seed"],
        **unsupported,
    ):
        keys = {key: value for key, value in locals().items() if key in _PION}
        super().__init__(params, keys, unsupported)


class Muon(_OneRule):
    """Muon: momentum, then a nearly orthogonal direction (K. Jordan et al. 2024).

    For weights of two dimensions or more; pion.PionAdamW takes whole models. Loads states of
    torch.optim.Muon, whose adjust_lr_fn is `scale`. Keys:

    """

    _rule_name = "muon"

    def __init__(
        self,
        params,
        lr=_MUON["lr"],
        *,
        momentum=_MUON["momentum"],
        nesterov=_MUON["nesterov"],
        weight_decay=_MUON["weight_decay"],
        coefficients=_MUON["coefficients"],
        steps=_MUON["steps"],
        normalization=_MUON["normalization"],
        scale=_MUON["scale"],
        scale_factor=_MUON["scale_factor"],
        heads=_MUON["heads"],
        head_axis=_MUON["head_axis"],
        split_sizes=_MUON["split_sizes"],
        transposed=_MUON["transposed"],
        fold=_MUON["fold"],
        precision=_MUON["precision"],
        nonfinite=_MUON["nonfinite"],
        low_precision=_MUON["low_precision"],
        maximize=_MUON["maximize"],
        seed=_MUON["seed"],
        **unsupported,
    ):
        keys = {key: value for key, value in locals().items() if key in _MUON}
        super().__init__(params, keys, unsupported)


class LowRankMuon(_OneRule):
    """Low-rank Muon: the `rank` largest singular values to 1, the rest to 0, by exact SVD. Keys:"""

    _rule_name = "low_rank_muon"

    def __init__(
        self,
        params,
        lr=_RANK["lr"],
        *,
        rank=_RANK["rank"],
        momentum=_RANK["momentum"],
        nesterov=_RANK["nesterov"],
        weight_decay=_RANK["weight_decay"],
        scale=_RANK["scale"],
        scale_factor=_RANK["scale_factor"],
        heads=_RANK["heads"],
        head_axis=_RANK["head_axis"],
        split_sizes=_RANK["split_sizes"],
        transposed=_RANK["transposed"],
        fold=_RANK["fold"],
        nonfinite=_RANK["nonfinite"],
        low_precision=_RANK["low_precision"],
        maximize=_RANK["maximize"],
        seed=_RANK["seed"],
        **unsupported,
    ):
        keys = {key: value for key, value in locals().items() if key in _RANK}
        super().__init__(params, keys, unsupported)


class LowPassMuon(_OneRule):
    """Low-pass Muon, Pion's opposite: singular values below `cutoff` to 1, the rest to 0. Keys:"""

    _rule_name = "low_pass_muon"

    def __init__(
        self,
        params,
        lr=_PASS["lr"],
        *,
        cutoff=_PASS["cutoff"],
        momentum=_PASS["momentum"],
        nesterov=_PASS["nesterov"],
        weight_decay=_PASS["weight_decay"],
        scale=_PASS["scale"],
        scale_factor=_PASS["scale_factor"],
        heads=_PASS["heads"],
        head_axis=_PASS["head_axis"],
        split_sizes=_PASS["split_sizes"],
        transposed=_PASS["transposed"],
        fold=_PASS["fold"],
        nonfinite=_PASS["nonfinite"],
        low_precision=_PASS["low_precision"],
        maximize=_PASS["maximize"],
        seed=_PASS["seed"],
        **unsupported,
    ):
        keys = {key: value for key, value in locals().items() if key in _PASS}
        super().__init__(params, keys, unsupported)


for _class in (Pion, Muon, LowRankMuon, LowPassMuon):
    _class.__doc__ = _class.__doc__.rstrip() + "\n\n" + _key_table(_class._rule_name) + "\n"


_RULE_KEYS = {"rule", "use_muon", "use_pion"}


def _is_matrix_rule(name: str) -> bool:
    return name in rule_names() and Rule(name).is_matrix


def _check_matrices(matrices: str, rules: set):
    if matrices != _MATRICES and matrices not in rules:
        raise ValueError(
            f'PionAdamW: matrices="{matrices}" must be chosen where a model is routed, got a '
            f"Routing with rules {' '.join(sorted(rules))}; make it by "
            f'pion.route(model, rules={{"matrices": "{matrices}"}})'
        )


class PionAdamW(Optimizer):
    """One optimizer for all parameters of a model: a matrix rule on hidden matrices, AdamW (or
    what the routing says) on the rest.

        PionAdamW(pion.route(model), lr=1e-3)
        PionAdamW([{"params": matrices, "rule": "pion"}, {"params": others, "rule": "adamw"}])
        PionAdamW(model.named_parameters())      routed by names alone

    A group names its rule by "rule", or by use_pion or use_muon (False: AdamW). Parameters whose
    group names none are routed, after pion.bind_names(model) also without names; what cannot be
    placed is an error. Keyword arguments are the defaults of every group whose rule has that key;
    what a group or routing sets wins. `matrices` is the rule of hidden matrices in what is routed
    here: "pion", "muon", ...; a Routing has chosen it already.
    """

    _whole_model = "give pion.route(model), or model.named_parameters()"

    def __init__(self, params, lr=None, *, matrices: str = _MATRICES, **keys):
        group_keys.refuse(keys, "PionAdamW")
        self._asked = group_keys.asked(keys)
        if not isinstance(matrices, str) or not _is_matrix_rule(matrices):
            raise ValueError(
                f"PionAdamW: matrices must be a rule for matrices, got {matrices!r}; rules are: "
                + " ".join(name for name in rule_names() if Rule(name).is_matrix)
            )
        self._matrices = matrices
        self._keys = group_keys.with_betas(keys if lr is None else keys | {"lr": lr})
        defaults = {"lr": lr if lr is not None else _ADAMW["lr"]}
        if isinstance(params, Routing):
            rules = {route.rule for route in params.routes}
            _check_matrices(matrices, rules)
            params = params.to_param_groups()
        else:
            params = parameter_lists.listed(params, "PionAdamW", self._whole_model)
            rules = None
        grouped = bool(params) and isinstance(params[0], dict)
        self._check_keys(rules or self._rules_of(params, grouped))
        super().__init__(self._routed(params, grouped), defaults | self._keys)

    def _rules_of(self, params: list, grouped: bool) -> set:
        """Rules of the groups, AdamW's, and that of hidden matrices if any are routed here."""
        groups = params if grouped else [{}]
        rules = {"adamw", *(g["rule"] for g in groups if g.get("rule") in rule_names())}
        rules |= {name for name in ("muon", "pion") if any(f"use_{name}" in g for g in groups)}
        if not all(_RULE_KEYS & set(group) for group in groups):
            rules.add(self._matrices)
        return rules

    def _check_keys(self, rules: set):
        known = {key for rule in rules for key in group_keys.group_defaults(rule)}
        for key in self._keys:
            if key not in known:
                raise TypeError(
                    f'PionAdamW: no rule here has an option "{key}", the rules are '
                    f"{' '.join(sorted(rules))}; {group_keys.remedy(key, sorted(known))}"
                )

    def _routed(self, params: list, grouped: bool) -> list:
        """Groups that all name a rule."""
        groups = params if grouped else [{"params": params}]
        result = []
        for group in groups:
            if _RULE_KEYS & set(group):
                result.append(group)
                continue
            where = "PionAdamW: a group" if grouped else "PionAdamW"
            parameters = parameter_lists.in_group(group, where, self._whole_model)
            result += route_bound(group | {"params": parameters}, self._matrices)
        return result

    def _defaults_of(self, rule: str) -> dict:
        return self._keys

    def add_param_group(self, param_group: dict):
        if not isinstance(param_group, dict):
            return super().add_param_group(param_group)  # refused there
        for group in self._routed([param_group], True):
            super().add_param_group(group)

    def _own_attributes(self) -> dict:
        return {"_matrices": self._matrices, "_keys": self._keys}
