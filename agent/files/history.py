# SPDX-License-Identifier: GPL-2.0-or-later
"""The settings that container sections had, as UCI text: what was applied last, and the ones before it.

A file for each section, written only when what is applied says something else than before. It holds what the section
holds, passwords among it, so it is root's (0600), and goes when the section and its container are gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.files.atomic import atomic_write
from agent.model.identity import Key
from agent.model.observed import Record
from agent.model.resources import Desired

logger = logging.getLogger(__name__)

KEPT = 10  # versions of a section


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """`number` counts up from 1 and is never used again. `at`: when it was applied, unix seconds."""

    number: int
    at: float
    text: str


class History:
    """The versions by section. Safe to call from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._newest: dict[str, int] = {}  # section -> hash of its newest text: most looks need no file
        # section -> spec hash -> text: read, and not applied yet when it was last looked at
        self._asked: dict[str, dict[str, str]] = {}

    def versions(self, section: str) -> tuple[Version, ...]:
        """Oldest first; none where the file cannot be read."""
        try:
            rows = json.loads(self._path(section).read_bytes())["versions"]
            return tuple(_version(row) for row in rows)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError):  # it is for people: nothing depends on it
            return ()

    def keep_applied(
        self,
        desired: Desired,
        texts: Mapping[str, str],
        records: Iterable[Record],
        busy: Collection[str],
        *,
        at: float,
    ) -> None:
        """Keeps the text that each container was made of, so that people can go back to it.

        That is not always what its section says now: one may edit it again before what it said was looked at.
        """
        # Half-made ones of a swap are not applied yet.
        applied = {r.section: r.spec_hash for r in records if r.kind == "container" and not r.swap}
        for section, text in texts.items():
            key, made_of = Key("container", section), applied.get(section)
            wanted = desired.spec_hashes.get(key, "")
            asked = self._asked.pop(section, {})
            # Settled: what runs was made of what the section says now.
            if key not in busy and made_of == wanted:
                self.keep(section, text, at=at)
                continue
            # Edited again while it was made: the text of the try that succeeded is kept, not the newest one.
            if key not in busy and made_of in asked:
                self.keep(section, asked.pop(made_of), at=at)
            asked.pop(wanted, None)
            # Bounded, and the newest last: a section that is edited again and again without success must not fill
            # the memory.
            self._asked[section] = dict([*asked.items(), (wanted, text)][-KEPT:])

    def keep(self, section: str, text: str, *, at: float) -> None:
        """Notes what was applied, unless that is the newest version already."""
        with self._lock, _for_people():
            # most passes change nothing: they must cost no read of the flash
            if self._newest.get(section) == hash(text):
                return
            # the number counts on also where older versions have gone
            known = self.versions(section)
            if not known or known[-1].text != text:
                number = known[-1].number + 1 if known else 1
                self._write(section, (*known, Version(number=number, at=at, text=text))[-KEPT:])
            self._newest[section] = hash(text)

    def move(self, old: str, new: str) -> None:
        """The section has another name now."""
        with self._lock, _for_people():
            self._newest.pop(old, None)
            self._newest.pop(new, None)
            self._asked.pop(old, None)
            if self._path(old).exists():
                self._path(old).replace(self._path(new))

    def forget(self, section: str) -> None:
        """The section and its container are gone."""
        with self._lock, _for_people():
            self._newest.pop(section, None)
            self._asked.pop(section, None)
            self._path(section).unlink(missing_ok=True)

    def _path(self, section: str) -> Path:
        return self._folder / f"{section}.json"  # letters, digits and `_`: UCI allows no others

    def _write(self, section: str, versions: tuple[Version, ...]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        rows = [{"number": each.number, "at": round(each.at), "text": each.text} for each in versions]
        data = json.dumps({"versions": rows}, ensure_ascii=True).encode()
        atomic_write(self._path(section), data, mode=0o600)


@contextlib.contextmanager
def _for_people() -> Iterator[None]:
    """Nothing depends on the history: a disk that is full or read-only stops no pass."""
    try:
        yield
    except OSError as exc:
        logger.warning("earlier settings cannot be kept: %s", exc)


def _version(row: Mapping[str, Any]) -> Version:
    return Version(number=int(row["number"]), at=float(row["at"]), text=str(row["text"]))
