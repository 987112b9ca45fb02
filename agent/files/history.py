# SPDX-License-Identifier: GPL-2.0-or-later
"""The settings that each container section has had, as UCI text: the last applied ones, and those before.

One file per section, written only when different settings are applied. It contains what the section contains,
including passwords, so only root can read it (0600). It is deleted with the section and its container.
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
    """`number` counts from 1 and is never reused. `at`: when the version was applied, in unix seconds."""

    number: int
    at: float
    text: str


class SettingsHistory:
    """The versions by section. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        # section -> hash of its newest text, so that most calls need no file
        self._newest: dict[str, int] = {}
        # section -> spec hash -> text of settings that were read but not applied yet
        self._asked: dict[str, dict[str, str]] = {}

    def versions(self, section: str) -> tuple[Version, ...]:
        """The versions, oldest first; empty if the file cannot be read."""
        try:
            rows = json.loads(self._path(section).read_bytes())["versions"]
            return tuple(_version(row) for row in rows)
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError):
            # nothing depends on the history, so a damaged file is not an error
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
        """Keeps the text that each container was created from, so that people can go back to it.

        This need not be the section's current text: the section may have been edited again before the previous edit was
        applied.
        """
        # containers in the middle of a swap are not applied yet
        applied = {r.section: r.spec_hash for r in records if r.kind == "container" and not r.swap}
        for section, text in texts.items():
            key, made_of = Key("container", section), applied.get(section)
            wanted = desired.spec_hashes.get(key, "")
            asked = self._asked.pop(section, {})
            # settled: the running container was created from the current text
            if key not in busy and made_of == wanted:
                self.keep(section, text, at=at)
                continue
            # edited again during the creation: keep the text that was applied, not the newest one
            if key not in busy and made_of in asked:
                self.keep(section, asked.pop(made_of), at=at)
            asked.pop(wanted, None)
            # bounded, newest last: a section that is edited repeatedly without success must not fill the memory
            self._asked[section] = dict([*asked.items(), (wanted, text)][-KEPT:])

    def keep(self, section: str, text: str, *, at: float) -> None:
        """Records applied settings, unless they are the newest version already."""
        with self._lock, _for_people():
            # most passes change nothing and must not read the flash
            if self._newest.get(section) == hash(text):
                return
            # the number continues even if older versions were dropped
            known = self.versions(section)
            if not known or known[-1].text != text:
                number = known[-1].number + 1 if known else 1
                self._write(section, (*known, Version(number=number, at=at, text=text))[-KEPT:])
            self._newest[section] = hash(text)

    def move(self, old: str, new: str) -> None:
        """Moves the history of a renamed section."""
        with self._lock, _for_people():
            self._newest.pop(old, None)
            self._newest.pop(new, None)
            self._asked.pop(old, None)
            if self._path(old).exists():
                self._path(old).replace(self._path(new))

    def forget(self, section: str) -> None:
        """Deletes the history of a section that was removed with its container."""
        with self._lock, _for_people():
            self._newest.pop(section, None)
            self._asked.pop(section, None)
            self._path(section).unlink(missing_ok=True)

    def _path(self, section: str) -> Path:
        # safe as a file name: UCI allows only letters, digits and `_`
        return self._folder / f"{section}.json"

    def _write(self, section: str, versions: tuple[Version, ...]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        rows = [{"number": each.number, "at": round(each.at), "text": each.text} for each in versions]
        data = json.dumps({"versions": rows}, ensure_ascii=True).encode()
        atomic_write(self._path(section), data, mode=0o600)


@contextlib.contextmanager
def _for_people() -> Iterator[None]:
    """Logs a write error: nothing depends on the history, so a full or read-only disk must not stop a pass."""
    try:
        yield
    except OSError as exc:
        logger.warning("earlier settings cannot be kept: %s", exc)


def _version(row: Mapping[str, Any]) -> Version:
    return Version(number=int(row["number"]), at=float(row["at"]), text=str(row["text"]))
