# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd's settings: the table of options, their values, and replacements for option names of other packages."""
