# SPDX-License-Identifier: GPL-2.0-or-later
"""Validates sections, as they are read from UCI, with JSON Schema. The schemas are in `schemas/`."""
