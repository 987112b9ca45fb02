# SPDX-License-Identifier: GPL-2.0-or-later
"""What people ask the running agent for, and the same of the command line where none runs."""
