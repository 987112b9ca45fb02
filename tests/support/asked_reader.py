# SPDX-License-Identifier: GPL-2.0-or-later
"""A section reader that remembers which options were read."""

from __future__ import annotations

from agent.uci.reader import SectionReader
from agent.uci.syntax import Section


class AskedReader(SectionReader):
    """`used`: names of the options that were read."""

    def __init__(self, section: Section, *, package: str, file: str = "") -> None:
        self.used: set[str] = set()
        super().__init__(section, package=package, file=file)

    def text(self, name: str) -> str | None:
        self.used.add(name)
        return super().text(name)

    def items(self, name: str) -> tuple[tuple[int, str], ...]:
        self.used.add(name)
        return super().items(name)
