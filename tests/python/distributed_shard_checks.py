# SPDX-License-Identifier: Apache-2.0
"""Checks of DTensor parameters that every rank runs."""
