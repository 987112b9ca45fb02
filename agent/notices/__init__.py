# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices: what has become bad or recovered, told to web servers, brokers, commands and scripts."""
