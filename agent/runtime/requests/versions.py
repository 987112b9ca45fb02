# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd history`, `update` and `rollback`: earlier settings and images of a container, newer images, and going back.

Blocking. Answers about settings contain what sections contain, so only clients with write access to the configuration
get them. A requested update or rollback is noted in the records, a pass carries it out, and the outcome is reported.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.apply.worker_pool import Outcome, SkippedError
from agent.errors import ConfigError, ConflictError, EngineError, EngineUnreachableError
from agent.files.config import decode_edited
from agent.files.state import SettingsHistory, Version
from agent.files.uci_store import UciMissing, UciStore, load_for_edit
from agent.model.identity import Key
from agent.model.observed import ASKED_ROLLBACK, ASKED_UPDATE, ASKED_WITH_DATA, Record
from agent.model.resources import Container, Desired
from agent.plan.container.image import named
from agent.plan.container.meaning import changed_fields
from agent.plan.description import PendingResource, PlanDescription
from agent.plan.draft import desired_spec
from agent.plan.operations import Plan
from agent.runtime.requests.adopt import PACKAGE, lost_comments
from agent.status.conditions import Level
from agent.uci.syntax import Package, Section, parse, section_text

if TYPE_CHECKING:
    from agent.runtime.reconciler import Reconciler

_TRIES = 5  # commits; each fails only if another program has just written the file

_NOT_BEGUN = "it could not begin yet, and is tried again: `ucidockd status` says when"

SCHEMA = 1
"""Version of the answers: incremented when a field changes its meaning or is removed."""


def earlier_versions(reconciler: Reconciler) -> EarlierVersions:
    """Access to earlier settings. Raises ConfigError if none are kept."""
    if reconciler.history is None:
        raise ConfigError("no earlier settings are kept")
    return EarlierVersions(store=reconciler.store, history=reconciler.history, desired=reconciler.desired)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierVersions:
    """Earlier settings of sections. `desired`: what is declared now, to resolve Docker names."""

    store: UciStore
    history: SettingsHistory
    desired: Desired | None

    def show(self, name: str) -> dict[str, Any]:
        """The versions of a section, newest first. Raises ConfigError if there is neither a section nor a version."""
        section = self._section_of(name)
        package, _ = self._package()
        now = next((s for s in package.sections if s.name == section and s.type == "container"), None)
        versions = self.history.versions(section)
        if now is None and not versions:
            raise ConfigError(f"{name}: no container section has it, and no earlier settings are kept")
        text = section_text(now) if now is not None else ""
        older = (None, *versions)
        # the newest of equal versions: a section that was reverted equals two of them
        now_is = max((each.number for each in versions if each.text == text), default=0)
        rows = [_row(each, before, text, now_is) for each, before in zip(versions, older, strict=False)]
        return {"section": section, "text": text, "versions": rows[::-1]}

    def go_back(self, name: str, number: int, *, commit: bool) -> dict[str, Any]:
        """Restores a version to the section, as a preview or committed.

        Raises ConfigError for an unknown version, ConflictError if it conflicts with the present sections or if
        others wrote the file at every attempt; OSError.
        """
        section = self._section_of(name)
        version = next((each for each in self.history.versions(section) if each.number == number), None)
        if version is None:
            kept = ", ".join(str(each.number) for each in self.history.versions(section)) or "none"
            raise ConfigError(f"{name}: version {number} is not kept (there are: {kept})")
        # it was in force once, so it only has to be checked against the present sections
        wanted = parse(version.text, package=PACKAGE).sections[0]
        notes = lost_comments(self.store, PACKAGE)
        # others may write the file between our read and our commit: then check again with their version
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
        """Checks that the package is still valid with the old settings (clashing ports, for example). Raises
        ConflictError."""
        issues = decode_edited(self.store, package).issues
        wrong = [i.text() for i in issues if i.section == section and i.severity == "error"]
        if wrong:
            raise ConflictError(f"these settings do not fit any more: {'; '.join(wrong)}")


def _with(package: Package, wanted: Section) -> Package:
    """Replaces the section of that name, or adds it at the end."""
    old = next((each for each in package.sections if each.name == wanted.name), None)
    if old is None:
        return replace(package, sections=(*package.sections, wanted))
    if old.type != wanted.type:
        raise ConflictError(f"{wanted.name} is the name of a {old.type} now")
    # in place, so that a diff of the file shows only this section
    return replace(package, sections=tuple(wanted if each is old else each for each in package.sections))


def _row(version: Version, before: Version | None, now: str, now_is: int) -> dict[str, Any]:
    return {
        "number": version.number,
        "at": version.at,
        "text": version.text,
        "is_now": version.number == now_is,
        "changed": _changed(before.text, version.text) if before is not None else [],
        # from the present text to this version: what going back would change
        "diff": list(difflib.unified_diff(now.splitlines(), version.text.splitlines(), lineterm="", n=1))[2:],
    }


def _changed(before: str, after: str) -> list[str]:
    """The options that differ."""
    old, new = _options(before), _options(after)
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _options(text: str) -> Mapping[str, str | tuple[str, ...]]:
    return {option.name: option.value for option in parse(text, package=PACKAGE).sections[0].options}


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRequest:
    """A container for which an update or rollback was requested, with its record at that time."""

    key: str
    container: Container
    record: Record


def ask(
    reconciler: Reconciler, names: Sequence[str], *, back: bool, with_data: bool = False
) -> tuple[VersionRequest, ...]:
    """Notes that these containers (sections or Docker names) shall be updated or taken `back`, `with_data` also to the
    data saved before the update. Either all are noted or none.

    Raises ConfigError for an unknown name, ConflictError if one is not possible, EngineError, StorageError. Blocking.
    """
    desired = reconciler.declared()
    if reconciler.daemon is not None and reconciler.daemon.other_engine:
        raise ConflictError(reconciler.daemon.other_engine)
    # by section: a container named twice, by section and by Docker name, is requested once
    containers = {c.section: c for c in map(desired.container, names)}
    if not containers:
        raise ConfigError("name the containers to update")
    asked = tuple(
        _look(reconciler, container, back=back, with_data=with_data) for container in containers.values()
    )
    # Earlier failures are forgotten, because the user wants another try. The request is noted in the records: it
    # survives a kill of the agent, or a wait for a disk.
    kind = ASKED_UPDATE
    if back:
        kind = ASKED_WITH_DATA if with_data else ASKED_ROLLBACK
    for each in asked:
        reconciler.records.change(
            each.record.nonce,
            asked=kind,
            failed_hash="",
            failed_meaning="",
            failed_others=(),
            failed_why="",
            failed_output="",
            failed_digest="",
        )
        reconciler.forget_failure(each.key)
    return asked


def _look(reconciler: Reconciler, container: Container, *, back: bool, with_data: bool) -> VersionRequest:
    key = Key("container", container.section)
    record = _record(reconciler, container.section)
    if record is None or not record.object_id:
        raise ConflictError(f"{container.section} has not been created yet: `ucidockd status` says why")
    # the request is noted in the record, which a swap in progress is about to replace
    at_work = reconciler.under_way.doing(key)
    if at_work:
        raise ConflictError(f"{container.section} is being changed ({at_work}); try again once that is done")
    action = reconciler.holds.current(reconciler.desired, keep=True).get(key) if reconciler.desired else None
    if action is not None:
        raise ConflictError(
            f"{container.section} is left as a manual {action} left it; `ucidockd reconcile` ends that"
        )
    # if the engine is unreachable, this raises and nothing is noted
    reconciler.engine.inspect_container(record.object_id)
    if back:
        _check_back(container, record, with_data=with_data)
    elif "@" in container.spec.image:
        raise ConflictError(
            f"{container.section} names its image by a digest, so nothing can be newer; change `option image`"
        )
    return VersionRequest(key=key, container=container, record=record)


def _check_back(container: Container, record: Record, *, with_data: bool) -> None:
    if with_data and not record.saved:
        raise ConflictError(
            f"{container.section} has no saved data to go back to:"
            " `option backup_before_update '1'` saves it before an update"
        )
    if not with_data and not record.previous:
        why = "it has had one image, or `keep_images` is 0"
        if record.pinned:
            why = f"it is taken back already; `ucidockd update {container.section}` goes forward again"
        raise ConflictError(f"{container.section} has no earlier image to go back to: {why}")
    # going back would combine today's settings with yesterday's image, which never ran together
    if changed_fields("container", record.spec, desired_spec(container)):
        raise ConflictError(
            f"{container.section} does not run as its section says, so it is not clear what to go back to: `ucidockd diff"
            f" {container.section}` shows the difference, and `ucidockd history {container.section}` the settings to go"
            " back to first"
        )


def _record(reconciler: Reconciler, section: str) -> Record | None:
    records = reconciler.records.records()
    return next((r for r in records if (r.kind, r.section, r.swap) == ("container", section, "")), None)


def without_engine(asked: Iterable[VersionRequest], exc: EngineUnreachableError) -> PlanDescription:
    """What is left to do if the engine goes away during a request: the records keep it until the engine is back."""
    entries = (
        PendingResource(key=each.key, state="waiting", level=Level.WAITING, message=str(exc))
        for each in asked
    )
    return PlanDescription(plan=Plan(), entries=tuple(entries))


def answer(
    reconciler: Reconciler,
    asked: Iterable[VersionRequest],
    found: PlanDescription,
    outcomes: Sequence[Outcome],
) -> dict[str, Any]:
    """The result for each: `outcome` is `updated`, `rolled back`, `current`, `waiting` or `failed`."""
    rows = [_outcome_row(reconciler, each, found, outcomes) for each in asked]
    return {
        "schema": SCHEMA,
        "containers": rows,
        "ok": all(row["outcome"] not in ("failed", "waiting") for row in rows),
    }


def _outcome_row(
    reconciler: Reconciler, asked: VersionRequest, found: PlanDescription, outcomes: Sequence[Outcome]
) -> Mapping[str, Any]:
    now = _record(reconciler, asked.container.section) or asked.record
    row = {
        "key": asked.key,
        "section": asked.container.section,
        "name": asked.container.name,
        "before": named(asked.record.image_id, asked.record.digest),
        "image": named(now.image_id, now.digest),
        "message": "",
        "output": "",
    }
    error = next((o.error for o in reversed(outcomes) if o.operation.key == asked.key and o.error), None)
    # data may have been restored under the same image
    if now.image_id != asked.record.image_id or (asked.record.saved and not now.saved and now.pinned):
        return {**row, "outcome": "rolled back" if now.pinned else "updated"}
    if now.asked:
        waits = [e.message for e in found.entries if e.key == asked.key]
        reason = "; ".join(waits) or reconciler.under_way.doing(asked.key) or str(error or _NOT_BEGUN)
        return {**row, "outcome": "waiting", "message": reason}
    if error is not None and not isinstance(error, SkippedError):
        output = error.output if isinstance(error, EngineError) else ""
        return {**row, "outcome": "failed", "message": str(error), "output": output}
    return {**row, "outcome": "current"}
