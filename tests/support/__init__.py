# SPDX-License-Identifier: GPL-2.0-or-later
"""Helpers that tests, the demo and the benchmarks share."""
