# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON Schema validation of sections as they are read from UCI. The schemas are in `schemas/`."""
