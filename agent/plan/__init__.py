# SPDX-License-Identifier: GPL-2.0-or-later
"""Deciding what to do: pure functions from desired, observed and recorded to a plan. No I/O, no clock."""
