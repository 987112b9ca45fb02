# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent on virtual time with an engine in memory, and the random state machine that drives both."""
