# SPDX-License-Identifier: GPL-2.0-or-later
"""What the HTTP routes share: routing, replies, server-sent events, WebSockets."""
