# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine and the machine show in a pass: lists, ends, ages, what containers wait for."""
