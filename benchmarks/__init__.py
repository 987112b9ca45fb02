# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmarks of the agent beside its peers on a real engine; `make bench` runs them (README.md here)."""
