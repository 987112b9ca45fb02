# SPDX-License-Identifier: GPL-2.0-or-later
"""ucidockd: keeps Docker the way UCI says. See docs/ARCHITECTURE.md for the order of the layers."""

__version__ = "0.1.0"
