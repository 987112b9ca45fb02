# SPDX-License-Identifier: GPL-2.0-or-later
"""Who comes in and who may: sockets, TLS, sessions, origins, tickets."""
