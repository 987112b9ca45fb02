# SPDX-License-Identifier: GPL-2.0-or-later
"""What commands print: tables and lines in the width of the terminal, and progress."""
