# SPDX-License-Identifier: Apache-2.0
"""spectral_map: what Muon and Pion do to the singular values, on arrays of any kind."""

import sys

from pion._pion import Rule
from pion.threads import stepper

_NUMPY_TYPES = {"float32": "f32", "float64": "f64"}


def spectral_map(x, rule: str = "pion", *, statistics: bool = False, **keys):
    """U f(S / norm) V^T of every matrix X = U S V^T in `x`, of shape (..., rows, cols).

    The map f is that of a matrix rule, with its keys: ``spectral_map(g, "muon", steps=5)``,
    ``spectral_map(g, "pion", cutoff=0.3)``, ``spectral_map(g, "low_rank_muon", rank=8)``. Momentum,
    scale and learning rate have no part in it.

    `x` is read only: a torch tensor (CPU tensors run on the kernels, others by torch operations) or
    anything that numpy can view, float32 or float64. The result has its kind, shape and type. With
    statistics=True returns (result, list of dicts), one dict per matrix: frobenius_norm, sigma_max,
    stable_rank, directions_passed, energy_kept. Raises ValueError if an entry is not finite.
    """
    made = Rule(rule, keys, "spectral_map")
    if not made.is_matrix:
        raise ValueError(f'spectral_map: the rule must be one for matrices, got "{rule}"')
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        from pion import tensor_map

        result, what = tensor_map.spectral_map(x, made)
    else:
        result, what = _of_array(x, made)
    return (result, what) if statistics else result


def _of_array(x, rule):
    import numpy

    x = numpy.ascontiguousarray(x)
    kind = _NUMPY_TYPES.get(str(x.dtype))
    if kind is None or not x.dtype.isnative:
        raise ValueError(f"spectral_map: x must be float32 or float64, got {x.dtype}")
    if x.ndim < 2:
        raise ValueError(f"spectral_map: x must be (..., rows, cols), got shape {list(x.shape)}")
    result = numpy.empty_like(x)
    if x.size == 0:
        return result, []
    rows, cols = x.shape[-2:]
    what = stepper().map(
        rule, kind, x.ctypes.data, result.ctypes.data, x.size // (rows * cols), rows, cols
    )
    return result, what
