# SPDX-License-Identifier: Apache-2.0
"""Settings of the Python package's tests, which run on the installed package."""


def pytest_configure(config):
    config.addinivalue_line("markers", 'slow: builds or installs; leave out with -m "not slow"')
