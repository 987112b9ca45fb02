# SPDX-License-Identifier: GPL-2.0-or-later
"""Codecs: formats of files, messages and archives. No I/O."""
