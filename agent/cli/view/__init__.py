# SPDX-License-Identifier: GPL-2.0-or-later
"""The output of commands: tables and lines in the width of the terminal, and progress."""
