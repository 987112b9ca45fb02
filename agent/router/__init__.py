# SPDX-License-Identifier: GPL-2.0-or-later
"""The router around dockerd: interfaces, firewall, routes, addresses, listeners."""
