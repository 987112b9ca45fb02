# SPDX-License-Identifier: GPL-2.0-or-later
"""What must not be possible: each row is an attack, and what is expected instead (docs/security.md)."""
