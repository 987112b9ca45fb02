# SPDX-License-Identifier: GPL-2.0-or-later
"""The API for clients: HTTP and ubus."""
