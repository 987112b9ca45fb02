# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries plans out through ports; nothing in this package decides what to do."""
