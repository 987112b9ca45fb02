# SPDX-License-Identifier: GPL-2.0-or-later
"""Status: the result of each section. Pure; the clock is passed in."""
