# SPDX-License-Identifier: GPL-2.0-or-later
"""Wiring: reading the configuration, observing, single passes, the loop and its triggers."""
