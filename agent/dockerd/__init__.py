# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd's settings, from UCI to the process: stage, change, probe, supervisor, health."""
