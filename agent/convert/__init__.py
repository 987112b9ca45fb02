# SPDX-License-Identifier: GPL-2.0-or-later
"""Converts `docker run` lines and compose files to sections of /etc/config/containers, and back. Pure.

`run_line` and `compose` fill a `Conversion` (`conversion`): the sections, and what happened to each flag or key.
`export` writes sections as a `docker run` line or a compose file.
"""
