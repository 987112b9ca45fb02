# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams and consoles, without regard to the door they leave by."""
