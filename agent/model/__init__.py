# SPDX-License-Identifier: GPL-2.0-or-later
"""Values: what a user declares and what the engine reports, as frozen dataclasses. No I/O, no clock."""
