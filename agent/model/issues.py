# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration that is given and not committed, and what is wrong with one, in words a user can act on.

Issues are made by `agent.schema` and `agent.uci`, shown by the log, the status and the command line. Code that makes one
leaves the value of an environment variable, password or token out; what else it quotes is looked through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from agent.model.secrets import hidden_text

Severity = Literal["error", "warning"]
Code = Literal[
    "syntax",  # the file is not in UCI's syntax
    "file",  # it is not there, or cannot be read
    "unknown-section",
    "unknown-option",
    "missing-option",
    "wrong-type",  # a list where an option belongs
    "invalid-value",
    "encoding",
    "repeated",  # a section or an option that is there twice
    "questionable",  # any other warning
]
_MESSAGE_MAX, _ENDS = 500, 240  # characters: a mistake goes into log, status and replies


def shortened(message: str) -> str:
    """A message that may quote a value of any length, with its middle left out where it is too long."""
    return message if len(message) <= _MESSAGE_MAX else f"{message[:_ENDS]} ... {message[-_ENDS:]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One mistake at one place. `line` 0 and `option` "" mean the whole section."""

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
        # here, as every mistake passes through: a message may quote a value, which may hold a password
        object.__setattr__(self, "message", hidden_text(self.message))

    @property
    def place(self) -> str:
        """`package.section.option[index]`, without the parts that are not known."""
        name = ".".join(part for part in (self.package, self.section, self.option) if part)
        return name if self.index is None else f"{name}[{self.index}]"

    @property
    def where(self) -> str:
        """`file:line`, as far as they are known."""
        return f"{self.file}:{self.line}" if self.file and self.line else self.file

    def words(self) -> str:
        """`package.section.option[index]: what is wrong, expected ...`."""
        return f"{self.place}: {self.message}" + (f", expected {self.expected}" if self.expected else "")

    def text(self) -> str:
        """`package.section.option[index]: what is wrong, expected ... (file:line)`."""
        return self.words() + (f" ({self.where})" if self.where else "")


def issue_as_json(issue: Issue) -> dict[str, Any]:
    """Every field, and the whole as one line."""
    return {**asdict(issue), "place": issue.place, "text": issue.text()}


# Text of others for terminals and logs: it moves no cursor, paints nothing, begins no line of its own.


def plain(text: str) -> str:
    """Line feeds, escapes and whatever else is not printable shown as Python writes them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


# A configuration that is not committed, as a client gives it to be checked or planned.


GivenSection = Mapping[str, str | Sequence[str]]
"""Option -> value or entries, as `uci get_all` gives a section: `.type` is its type; other names with a dot say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """`texts`: package -> UCI text, `paths`: package -> where that text is from, for messages.

    `staged`: with what `uci changes` holds. A package that is not given counts as it is committed. `sections`: package
    -> name of a section -> what it says instead (see `agent.uci.edit.with_sections`), None where it is deleted: with
    them only what follows from this change is told.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, GivenSection | None]] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    staged: bool = False
    save_dir: str = ""  # where those are, "" = where `uci` keeps them
