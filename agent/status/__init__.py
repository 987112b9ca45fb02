# SPDX-License-Identifier: GPL-2.0-or-later
"""Status: what became of each section. Pure; the clock is passed in."""
