# SPDX-License-Identifier: GPL-2.0-or-later
"""Planning one container: its changes, drift, endpoints, payload. Pure."""
