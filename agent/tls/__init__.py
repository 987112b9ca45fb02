# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes, stores and renews dockerd's certificates."""
