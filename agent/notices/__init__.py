# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends notices about problems and recoveries to web servers, brokers, commands and scripts."""
