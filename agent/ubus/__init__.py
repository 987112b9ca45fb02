# SPDX-License-Identifier: GPL-2.0-or-later
"""ubusd and LuCI's sessions, as a client."""
