# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs and transfers: what outlives a request."""
