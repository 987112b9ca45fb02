# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams and consoles, independent of HTTP and ubus."""
