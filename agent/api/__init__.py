# SPDX-License-Identifier: GPL-2.0-or-later
"""The incoming edge: the HTTP application on the control socket."""
