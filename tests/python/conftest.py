# SPDX-License-Identifier: Apache-2.0
"""Settings of the Python package's tests, which run on the installed package."""

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", 'slow: builds or installs; leave out with -m "not slow"')
    config.addinivalue_line("markers", "hosts: needs script/requirements-hosts.txt, else skipped")


@pytest.fixture(params=["kernels", "torch"])
def path(request):
    """Both paths of a step: kernels, and the torch operations of other devices."""
    import pion

    if request.param == "kernels":
        yield request.param
        return
    with pion.force_torch_path():
        yield request.param
