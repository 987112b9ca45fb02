# SPDX-License-Identifier: GPL-2.0-or-later
"""What a pass observes on the engine and the machine: lists, ends, ages, USB devices, and what containers wait for."""
