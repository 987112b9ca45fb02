# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmarks of the agent against its peers on a real engine; `make bench` runs them (see README.md here)."""
