# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests, the demo and the benchmarks share."""
