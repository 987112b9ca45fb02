# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration that is not committed, as somebody gives it to be checked or planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """`texts`: package -> UCI text, `paths`: package -> where that text is from, for messages.

    `staged`: with what `uci changes` holds. A package that is not given counts as it is committed.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    staged: bool = False
    save_dir: str = ""  # where those are, "" = where `uci` keeps them
