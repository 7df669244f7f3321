# SPDX-License-Identifier: Apache-2.0
"""Maps of matrices whose singular values lie far apart, as gradients' do, by every path."""

import pytest
import torch
from judges import gaussian

import pion

SHAPES = ((96, 48), (48, 96), (64, 64))


def spread(rows: int, cols: int) -> torch.Tensor:
    """Noise and three directions that are some 20 times larger."""
    low_rank = gaussian((rows, 3), 2) @ gaussian((3, cols), 3)
    return gaussian((rows, cols), 1) + 4 * low_rank


def mapped_by_torch(g: torch.Tensor, **keys) -> torch.Tensor:
    """A weight 0 after a step at rate 1, without its scale: the map of g."""
    weight = torch.nn.Parameter(torch.zeros_like(g))
    weight.grad = g
    keys |= {"momentum": 0.0, "nesterov": False, "scale": "spectral"}
    with pion.force_torch_path():
        pion.Muon([weight], lr=1.0, **keys).step()
    return -weight.detach() / pion._pion.Rule("muon", keys).scale(*g.shape)


def mapped_by_jax(g: torch.Tensor, **keys) -> torch.Tensor:
    jnp = pytest.importorskip("jax.numpy")
    pytest.importorskip("optax")
    import pion.jax as pion_jax

    mapped = pion_jax.spectral_map(jnp.asarray(g.numpy()), "muon", backend="jnp", **keys)
    return torch.tensor(mapped.tolist())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize("name", ["classic", "polar_express", "cans", "cubic"])
@pytest.mark.parametrize("precision", ["fast", "accurate"])
def test_no_direction_grows(name, shape, steps, precision):
    # the largest maximum of a step is classic's, 1.203 at 0.555; the rest is room for rounding
    g = spread(*shape)
    keys = {"coefficients": name, "steps": steps, "precision": precision}
    for result in (mapped_by_torch(g, **keys), mapped_by_jax(g, **keys)):
        assert torch.linalg.matrix_norm(result.double(), 2) < 1.5
