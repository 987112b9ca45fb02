# SPDX-License-Identifier: GPL-2.0-or-later
"""The data of containers: volumes as archives, and backups."""
