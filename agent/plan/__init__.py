# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides what to do: pure functions that make a plan from the desired, observed and recorded state. No I/O, no clock."""
