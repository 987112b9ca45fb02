# SPDX-License-Identifier: GPL-2.0-or-later
"""Carrying plans out through ports; nothing here decides what to do."""
