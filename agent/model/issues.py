# SPDX-License-Identifier: GPL-2.0-or-later
"""Mistakes of a configuration in words that users can act on, and configurations that are given without being committed.

`agent.schema` and `agent.uci` create issues; the log, status and command line show them. Code that creates an issue
must leave out values of environment variables, passwords and tokens; other quoted text is checked for secrets here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from agent.model.secrets import hidden_text

Severity = Literal["error", "warning"]
Code = Literal[
    "syntax",  # the file is not in UCI's syntax
    "file",  # missing or unreadable
    "unknown-section",
    "unknown-option",
    "missing-option",
    "wrong-type",  # a list where an option belongs
    "invalid-value",
    "encoding",
    "repeated",  # a section or option that occurs twice
    "questionable",  # any other warning
]
_MESSAGE_MAX, _ENDS = 500, 240  # characters: the log, status and replies show messages


def shortened(message: str) -> str:
    """Cuts the middle out of a message that is too long because it quotes a long value."""
    return message if len(message) <= _MESSAGE_MAX else f"{message[:_ENDS]} ... {message[-_ENDS:]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One mistake at one place. `line` 0 means unknown; `option` "" means the whole section."""

    severity: Severity
    code: Code = "invalid-value"
    package: str
    section: str
    option: str = ""
    index: int | None = None
    file: str = ""
    line: int = 0
    message: str
    expected: str = ""

    def __post_init__(self) -> None:
        # every issue passes here: its message may quote a value, which may contain a password
        object.__setattr__(self, "message", hidden_text(self.message))

    @property
    def place(self) -> str:
        """`package.section.option[index]`, without unknown parts."""
        name = ".".join(part for part in (self.package, self.section, self.option) if part)
        return name if self.index is None else f"{name}[{self.index}]"

    @property
    def where(self) -> str:
        """`file:line`, as far as known."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file

    def words(self) -> str:
        """`package.section.option[index]: what is wrong, expected ...`."""
        return f"{self.place}: {self.message}" + (f", expected {self.expected}" if self.expected else "")

    def text(self) -> str:
        """`package.section.option[index]: what is wrong, expected ... (file:line)`."""
        return self.words() + (f" ({self.where})" if self.where else "")


def issue_as_json(issue: Issue) -> dict[str, Any]:
    """Every field, plus the place and the whole text."""
    return {**asdict(issue), "place": issue.place, "text": issue.text()}


# Text from others, made safe for terminals and logs: it cannot move the cursor, set colours or start a new line.


def plain(text: str) -> str:
    """The text with line feeds, escapes and other unprintable characters escaped as in Python."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


# A configuration that a client gives for a check or a plan, without committing it.


GivenSection = Mapping[str, str | Sequence[str]]
"""Option -> value or entries, as `uci get_all` returns a section: `.type` is its type; other names with a dot are
ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenConfig:
    """`texts`: package -> UCI text; `paths`: package -> source of that text, for messages.

    `staged`: include the pending changes of `uci changes`. Packages that are not given count as committed.
    `sections`: package -> section name -> its new content (see `agent.uci.edit.with_sections`), None if it is
    deleted; then only the effects of this change are reported.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, GivenSection | None]] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    staged: bool = False
    save_dir: str = ""  # directory of the pending changes, "" = the default of `uci`
