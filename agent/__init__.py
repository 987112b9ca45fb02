# SPDX-License-Identifier: GPL-2.0-or-later
"""ucidockd keeps Docker as UCI declares it. docs/ARCHITECTURE.md explains the layers."""

__version__ = "0.1.0"
