# SPDX-License-Identifier: Apache-2.0
"""Pion and Muon as optax gradient transformations, inside jit.

    import pion.jax
    optimizer = pion.jax.multi_transform_with_muon(muon_lr=0.02, aux_lr=3e-4, scale="original")

On a CPU one XLA custom call steps all matrices by the C++ kernels; elsewhere the same formulas
run as jax.numpy.
"""

try:
    import jax as _jax  # noqa: F401
    import optax as _optax  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"pion.jax needs {error.name}, which is not installed; "
        "pip install 'pion-optim[jax]' brings it",
        name=error.name,
    ) from None

from pion.jax.dimensions import DimensionNumbers
from pion.jax.map import spectral_map
from pion.jax.multi_transform import chain_with_muon, multi_transform_with_muon
from pion.jax.step import has_kernels
from pion.jax.transform import (
    MatrixState,
    muon,
    pion,
    scale_by_muon,
    scale_by_pion,
    scale_by_rule,
)

__all__ = [
    "DimensionNumbers",
    "MatrixState",
    "chain_with_muon",
    "has_kernels",
    "multi_transform_with_muon",
    "muon",
    "pion",
    "scale_by_muon",
    "scale_by_pion",
    "scale_by_rule",
    "spectral_map",
]
