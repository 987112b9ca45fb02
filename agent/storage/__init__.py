# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches and frees space on the file system of Docker's data, and copies the data to another disk."""
