# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests to the running agent, and the same for the command line if no agent runs."""
