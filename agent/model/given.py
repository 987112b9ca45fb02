# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration that is not committed, as a client gives it to be checked or planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
