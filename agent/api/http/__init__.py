# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared by the HTTP routes: routing, replies, server-sent events, WebSockets."""
