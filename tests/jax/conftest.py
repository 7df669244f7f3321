# SPDX-License-Identifier: Apache-2.0
"""Settings of the tests of pion.jax, which run on the installed package."""

import importlib.util
import os

# before jax starts: arrays can be sharded over four devices of one CPU; programs run once, so
# they are compiled quickly
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest

if any(importlib.util.find_spec(name) is None for name in ("jax", "optax")):
    collect_ignore_glob = ["*_test.py"]  # the extra `jax` is not installed


@pytest.fixture(params=["kernels", "jnp"])
def backend(request):
    return request.param
