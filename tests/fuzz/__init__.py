# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzing of everything that reads bytes from outside."""
