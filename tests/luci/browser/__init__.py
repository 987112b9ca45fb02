# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages' own modules in a real browser, without LuCI."""
