# SPDX-License-Identifier: GPL-2.0-or-later
"""Space on the file system of Docker's data: watched, and cleaned up."""
