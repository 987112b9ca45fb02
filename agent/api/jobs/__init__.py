# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs and transfers, which outlive a request."""
