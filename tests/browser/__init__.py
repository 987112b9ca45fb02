# SPDX-License-Identifier: GPL-2.0-or-later
"""A real browser behind a real reverse proxy."""
