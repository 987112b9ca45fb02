# SPDX-License-Identifier: GPL-2.0-or-later
"""`docker run` lines and compose files become sections of /etc/config/containers, and the other way round. Pure.

`run_line` and `compose` fill a `Conversion` (`conversion`): the sections, and for each flag or key what became of it.
`export` writes what sections declare as a `docker run` line or a compose file.
"""
