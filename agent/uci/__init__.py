# SPDX-License-Identifier: GPL-2.0-or-later
"""UCI: the text format, and sections decoded into the model. Pure; files are read by agent.files.uci_store."""
