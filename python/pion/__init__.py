# SPDX-License-Identifier: Apache-2.0
"""Matrix-aware optimizers (Muon, Pion) with native CPU kernels.

    import pion
    optimizer = pion.PionAdamW(pion.route(model), lr=1e-3)

Importing pion imports neither torch nor anything else that it does not use: the optimizers are
loaded when they are first named. Without torch installed `spectral_map` works on numpy arrays.
"""

import importlib
from typing import TYPE_CHECKING

from pion._pion import cpu_target, presets, rule_names
from pion.spectral import spectral_map

__version__ = "0.1.0"

# name: the module that defines it; imported at first use, and torch with it
_LAZY = {
    "Pion": "optimizers",
    "Muon": "optimizers",
    "LowRankMuon": "optimizers",
    "LowPassMuon": "optimizers",
    "PionAdamW": "optimizers",
    "Optimizer": "optimizer",
    "EmptyUpdateWarning": "optimizer",
    "force_torch_path": "optimizer",
    "Routing": "routing",
    "route": "routing",
    "bind_names": "routing",
    "offload": "offloading",
    "track": "tracking",
    "distribute": "distributed",
    "gather_state": "distributed",
    "save_state": "checkpoint",
    "load_state": "checkpoint",
}

if TYPE_CHECKING:
    from pion.checkpoint import load_state, save_state
    from pion.distributed import distribute, gather_state
    from pion.offloading import offload
    from pion.optimizer import EmptyUpdateWarning, Optimizer, force_torch_path
    from pion.optimizers import LowPassMuon, LowRankMuon, Muon, Pion, PionAdamW
    from pion.routing import Routing, bind_names, route
    from pion.tracking import track

__all__ = [
    "EmptyUpdateWarning",
    "LowPassMuon",
    "LowRankMuon",
    "Muon",
    "Optimizer",
    "Pion",
    "PionAdamW",
    "Routing",
    "bind_names",
    "cpu_target",
    "distribute",
    "force_torch_path",
    "gather_state",
    "load_state",
    "offload",
    "presets",
    "route",
    "rule_names",
    "save_state",
    "spectral_map",
    "track",
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'pion' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"pion.{_LAZY[name]}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            f"pion.{name} needs torch, which is not installed; "
            "pip install 'pion-optim[torch]' brings it",
            name="torch",
        ) from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(_LAZY))
