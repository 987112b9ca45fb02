# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd history NAME`: the settings that a container section had, and the way back to one of them. Blocking.

Answers hold what sections hold: only who may write the configuration gets them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.convert.conversion import PACKAGE
from agent.errors import ConfigError, ConflictError
from agent.files.config import decode_edited
from agent.files.history import History, Version
from agent.files.uci_store import UciMissing, UciStore, load_for_edit
from agent.model.resources import Desired
from agent.runtime.requests.adopt import lost_comments
from agent.uci.syntax import Package, Section, parse, section_text

if TYPE_CHECKING:
    from agent.runtime.reconciler import Reconciler

_TRIES = 5


def past(reconciler: Reconciler) -> Past:
    """Raises ConfigError where no settings are kept."""
    if reconciler.history is None:
        raise ConfigError("no earlier settings are kept")
    return Past(store=reconciler.store, history=reconciler.history, desired=reconciler.desired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What looking back works on. `desired`: what is declared now, for Docker names."""

    store: UciStore
    history: History
    desired: Desired | None

    def show(self, name: str) -> dict[str, Any]:
        """The versions of a section, newest first. Raises ConfigError where there is neither a section nor a version."""
        section = self._section_of(name)
        package, _ = self._package()
        now = next((s for s in package.sections if s.name == section and s.type == "container"), None)
        versions = self.history.versions(section)
        if now is None and not versions:
            raise ConfigError(f"{name}: no container section has it, and no earlier settings are kept")
        text = section_text(now) if now is not None else ""
        older = (None, *versions)
        # The newest of equal ones: a section that went back to an earlier state is both.
        now_is = max((each.number for each in versions if each.text == text), default=0)
        rows = [_row(each, before, text, now_is) for each, before in zip(versions, older, strict=False)]
        return {"section": section, "text": text, "versions": rows[::-1]}

    def go_back(self, name: str, number: int, *, commit: bool) -> dict[str, Any]:
        """That version as the section: a preview, or committed.

        Raises ConfigError for no such version, ConflictError where it does not fit beside the sections of today, or others
        wrote the file each time we tried; OSError.
        """
        section = self._section_of(name)
        version = next((each for each in self.history.versions(section) if each.number == number), None)
        if version is None:
            kept = ", ".join(str(each.number) for each in self.history.versions(section)) or "none"
            raise ConfigError(f"{name}: version {number} is not kept (there are: {kept})")
        # As text that was in force once, so it needs no check by itself, only beside the sections of today.
        wanted = parse(version.text, package=PACKAGE).sections[0]
        notes = lost_comments(self.store, PACKAGE)
        # others may write the file between our reading and our commit: then it is checked again, beside what they wrote
        for left in reversed(range(_TRIES)):
            package, content_hash = self._package()
            whole = _with(package, wanted)
            self._check(whole, section)
            if not commit:
                break
            try:
                self.store.commit(whole, expected=content_hash)
                break
            except ConflictError:
                if not left:
                    raise
        options = {".type": wanted.type, **{option.name: option.value for option in wanted.options}}
        return {
            "section": section,
            "text": version.text,
            "options": options,
            "notes": notes,
            "committed": commit,
        }

    def _section_of(self, name: str) -> str:
        declared = self.desired.containers if self.desired is not None else ()
        if any(container.section == name for container in declared):
            return name
        return next((container.section for container in declared if container.name == name), name)

    def _package(self) -> tuple[Package, str]:
        try:
            return load_for_edit(self.store, PACKAGE)
        except UciMissing:
            return Package(name=PACKAGE), ""

    def _check(self, package: Package, section: str) -> None:
        """Whether the package is still valid as a whole with the old settings: clashing ports and the like."""
        issues = decode_edited(self.store, package).issues
        wrong = [i.text() for i in issues if i.section == section and i.severity == "error"]
        if wrong:
            raise ConflictError("these settings do not fit any more: " + "; ".join(wrong))


def _with(package: Package, wanted: Section) -> Package:
    """In the place of the section of that name, else at the end."""
    old = next((each for each in package.sections if each.name == wanted.name), None)
    if old is None:
        return replace(package, sections=(*package.sections, wanted))
    if old.type != wanted.type:
        raise ConflictError(f"{wanted.name} is the name of a {old.type} now")
    # In its place, so that the diff of the file shows the section alone.
    return replace(package, sections=tuple(wanted if each is old else each for each in package.sections))


def _row(version: Version, before: Version | None, now: str, now_is: int) -> dict[str, Any]:
    return {
        "number": version.number,
        "at": version.at,
        "text": version.text,
        "is_now": version.number == now_is,
        "changed": _changed(before.text, version.text) if before is not None else [],
        # from what the section says now to this version: what going back would do
        "diff": list(difflib.unified_diff(now.splitlines(), version.text.splitlines(), lineterm="", n=1))[2:],
    }


def _changed(before: str, after: str) -> list[str]:
    """The options that differ."""
    old, new = _options(before), _options(after)
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _options(text: str) -> Mapping[str, str | tuple[str, ...]]:
    return {option.name: option.value for option in parse(text, package=PACKAGE).sections[0].options}
