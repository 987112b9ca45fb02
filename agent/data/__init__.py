# SPDX-License-Identifier: GPL-2.0-or-later
"""The data of containers: volumes as archives, backups, and moves of dockerd's data root."""
