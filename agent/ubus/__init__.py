# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients of ubusd and of rpcd, which knows LuCI's sessions."""
