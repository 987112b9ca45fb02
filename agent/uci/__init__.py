# SPDX-License-Identifier: GPL-2.0-or-later
"""UCI: the text format, and decoding of sections into the model. Pure; `agent.files.uci_store` reads the files."""
