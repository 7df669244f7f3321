# SPDX-License-Identifier: Apache-2.0
"""One transformation for all parameters of a model: matrices by Muon or Pion, the rest by Adam."""

import jax
import jax.numpy as jnp
import optax

from pion.jax.dimensions import layout_of, name_of, numbers_by_path, numbers_of
from pion.jax.rates import (
    checked,
    clip_by_global_norm,
    is_function,
    is_zero,
    keeping_types,
    plain,
)
from pion.jax.transform import muon, or_default, pion

_RULES = {"muon": muon, "pion": pion}


def multi_transform_with_muon(
    muon_lr, aux_lr, *, rule="muon", momentum=None, nesterov=None, weight_decay=0.0, scale=None,
    scale_factor=None, coefficients=None, cutoff=None, edge_factor=None, promotion_steps=None,
    steps=None, normalization=None, precision=None, nonfinite=None, b1=None, b2=None, eps=None,
    aux_weight_decay=None, dimension_numbers=None, labels=None, mu_dtype=None, backend="auto",
) -> optax.GradientTransformationExtraArgs:  # fmt: skip
    """A matrix rule for parameters of two dimensions or more, Adam for the others.

    dimension_numbers  as in muon(); a leaf None leaves that parameter to Adam. Shape alone cannot
                       tell embeddings and output layers, which belong to Adam, from hidden layers
    labels             in place of that: a tree or prefix of "matrix" and "rest", or a callable
                       that makes one from the parameters
    rule               "muon" or "pion", with its keys; None is the default of each
    aux_weight_decay   None or 0 is Adam; a number makes it AdamW, and so does 0 that
                       inject_hyperparams has made an array
    """
    own = {
        "coefficients": coefficients, "cutoff": cutoff, "edge_factor": edge_factor,
        "promotion_steps": promotion_steps, "steps": steps, "normalization": normalization,
        "scale_factor": scale_factor, "precision": precision, "nonfinite": nonfinite,
    }  # fmt: skip
    where = "pion.jax.multi_transform_with_muon"
    if rule not in _RULES:
        raise ValueError(f'{where}: rule must be "muon" or "pion", got {rule!r}')
    matrices = _RULES[rule](
        muon_lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, scale=scale,
        dimension_numbers=dimension_numbers, mu_dtype=mu_dtype, backend=backend,
        **{key: value for key, value in own.items() if value is not None},
    )  # fmt: skip
    rest = _adam(where, aux_lr, b1, b2, eps, aux_weight_decay)

    def label(params):
        if labels is not None:
            return _checked_labels(where, labels(params) if is_function(labels) else labels, params)
        known = numbers_by_path(where, dimension_numbers, params)

        def of(path, leaf):
            if known is None:
                return "matrix" if jnp.ndim(leaf) >= 2 else "rest"
            numbers = numbers_of(where, known, path)
            if numbers is None:
                return "rest"
            layout_of(where, name_of(path), jnp.shape(leaf), numbers)
            return "matrix"

        return jax.tree_util.tree_map_with_path(of, params)

    return optax.partition({"matrix": matrices, "rest": rest}, label)


def _adam(where, lr, b1, b2, eps, weight_decay):
    given = zip((lr, b1, b2, eps), ("lr", "beta1", "beta2", "eps"), strict=True)
    where = f"{where}: Adam"
    numbers = [checked(where, "adamw", key, or_default(x, "adamw", key)) for x, key in given]
    weight_decay = checked(where, "adamw", "weight_decay", weight_decay)
    if weight_decay is None or is_zero(weight_decay):
        return keeping_types(optax.adam(*numbers))
    return keeping_types(optax.adamw(*numbers, weight_decay=weight_decay))


def _checked_labels(where, labels, params):
    for found in jax.tree.leaves(labels):
        if found not in ("matrix", "rest"):
            raise ValueError(f'{where}: labels must be "matrix" or "rest", got {found!r}')
    return jax.tree.broadcast(labels, params)


def chain_with_muon(
    muon_lr, aux_lr, max_grad_norm, momentum=0.95, nesterov=True, *, eps=1e-5, scale="original",
    rule="muon", weight_decay=0.0, scale_factor=None, coefficients=None, cutoff=None,
    edge_factor=None, promotion_steps=None, steps=None, normalization=None, precision=None,
    nonfinite=None, b1=None, b2=None, aux_weight_decay=None, dimension_numbers=None, labels=None,
    mu_dtype=None, backend="auto",
) -> optax.GradientTransformationExtraArgs:  # fmt: skip
    """What a PureJaxRL training loop chains: gradients are clipped by their global norm, then
    matrices are stepped by Muon and the rest by Adam. Defaults are the preset "purejaxrl": Muon
    with the scale of its authors, Adam with eps 1e-5. Other arguments: multi_transform_with_muon.
    """
    keys = {key: value for key, value in locals().items() if key != "max_grad_norm"}
    max_grad_norm = plain(max_grad_norm)
    if isinstance(max_grad_norm, int | float) and not max_grad_norm > 0:
        raise ValueError(
            f"pion.jax.chain_with_muon: max_grad_norm must be > 0, got {max_grad_norm}; take "
            "multi_transform_with_muon for gradients as they are"
        )
    return optax.chain(
        clip_by_global_norm(max_grad_norm),
        multi_transform_with_muon(**keys),
    )
