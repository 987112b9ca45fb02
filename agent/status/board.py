# SPDX-License-Identifier: GPL-2.0-or-later
"""The status board: conditions of resources, facts about the agent, and a ring of changes for streams.

All texts are masked, so that no secret gets on the board, whatever its source. Threads of the runtime write it, the
API reads it: one lock protects it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.errors import Reason
from agent.model.identity import Key
from agent.model.secrets import hidden, hidden_text
from agent.status.conditions import (
    ConditionType,
    Level,
    advice_of,
    label_of,
    level_of,
    order_of,
    remedy_of,
    sentence_of,
    verdict,
)
from agent.status.ring import Ring

RING = 256  # changes that a reader of the stream may be behind
NOTES = 10  # of an object's last operations
_TOLD = frozenset({"engine", "warnings", "config_issues"})  # facts that contain texts of others
PAGE_BYTES = 256 * 1024
"""Maximum JSON size of a page of the status. On ubus it takes up to three times as much, where the limit is 1 MiB."""
_TEXTS_BYTES = 64 * 1024  # maximum size of a list of texts in the agent's facts
_SAME_S = 1.0  # times that differ by less are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition. `since` (wall clock, seconds) changes when status or reason change, or when the time is known better.

    `details`: information for programs.
    """

    type: ConditionType
    status: bool
    reason: Reason
    message: str
    since: float
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """Its severity."""
        return level_of(self.type, status=self.status, reason=self.reason)

    def as_json(self) -> dict[str, Any]:
        """The JSON, with the level and a label and, if the condition is bad, a message and advice."""
        message = self.message or sentence_of(self.type, status=self.status)
        # label, advice and remedy come only from the table, so that all interfaces show the same
        label = label_of(self.type, status=self.status, reason=self.reason)
        shown = {**_fields(self), "message": message, "level": self.level, "label": label}
        if not self.details:
            del shown["details"]
        advice = advice_of(self.type, status=self.status, reason=self.reason)
        if advice:
            shown["advice"] = advice
        remedy = remedy_of(self.type, status=self.status)
        return shown if remedy is None else {**shown, "remedy": remedy}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationNote:
    """An operation that was carried out, and why. `took_s`: seconds."""

    at: float
    op: str
    cause: str
    ok: bool
    error: str = ""
    took_s: float = 0.0


def _fields(value: Condition | OperationNote) -> dict[str, Any]:
    """Like `dataclasses.asdict`, which copies nested values and takes ten times as long."""
    return {name: getattr(value, name) for name in value.__slots__}


@dataclass(slots=True)
class _Resource:
    key: str
    kind: str
    section: str
    name: str
    object_id: str = ""
    conditions: dict[ConditionType, Condition] = field(default_factory=dict)
    operations: tuple[OperationNote, ...] = ()
    facts: dict[str, Any] = field(default_factory=lambda: {"stack": ""})

    def as_json(self) -> dict[str, Any]:
        # in the table's order, which is by weight: readers that show only one condition take the first
        shown = [self.conditions[kind] for kind in sorted(self.conditions, key=order_of)]
        level, told = verdict({each.type: each.level for each in shown})
        return {
            "key": self.key,
            "kind": self.kind,
            "section": self.section,
            "name": self.name,
            "object_id": self.object_id,
            "level": level,
            "verdict": told,
            "conditions": [each.as_json() for each in shown],
            "operations": [_fields(note) for note in self.operations],
            **self.facts,
        }


class StatusBoard:
    """Everything that status shows. Each change increments `version`, and is kept in the ring so that streams can
    resume.

    `clock`: unix seconds. `first`: the first version. A running agent starts with a different number each time, so
    that a reader of an earlier run does not resume in the middle of this one.
    """

    def __init__(self, clock: Callable[[], float], *, first: int = 0) -> None:
        self.clock = clock
        self._lock = threading.RLock()
        self._resources: dict[str, _Resource] = {}  # by key
        self._agent: dict[str, Any] = {}
        # as JSON text: a tenth of the memory of dicts, and few of them are ever read
        self._ring: Ring[str] = Ring(first)
        self._subscribers: list[Callable[[], None]] = []  # called at each change, in the thread that made it
        self.version = first

    def ensure(self, key: str, name: str = "", *, section: str = "") -> None:
        """Makes sure that the resource is on the board, and updates its name.

        `name`: the object's name, if it differs from the section's. `section`: if it differs from the part after the
        kind in the key.
        """
        # keys consist of kind and section, but an object may have another name
        kind, of_key = Key.parse(key).kind, Key.parse(key).section
        with self._lock:
            found = self._resources.get(key)
            if found is None:
                section = section or of_key
                self._resources[key] = _Resource(key, kind, section, name or section)
                self._changed(key)
            # ignore a name that only repeats the section: another caller may know the real name
            elif name and name not in (found.name, found.section):
                found.name = name
                self._changed(key)

    def set(
        self,
        key: str,
        condition: ConditionType,
        *,
        status: bool,
        reason: Reason,
        message: str = "",
        details: Mapping[str, str] | None = None,
        since: float | None = None,
    ) -> bool:
        """Sets a condition. `details`: for programs. `since`: when it began, if that is known better than by the clock.

        True if anything changed.
        """
        with self._lock:
            conditions = self._resources[key].conditions
            old = conditions.get(condition)
            same = old is not None and (old.status, old.reason) == (status, reason)
            # every message passes here, and the engine's errors may quote passwords
            message = hidden_text(message)
            given = {name: hidden_text(value) for name, value in (details or {}).items()}
            began = old.since if same and old is not None else self.clock()
            # the engine's time of an event differs slightly from ours, which is not a change
            if since is not None and abs(since - began) >= _SAME_S:
                same, began = False, since
            if same and old is not None and (old.message, old.details) == (message, given):
                return False
            conditions[condition] = Condition(
                type=condition, status=status, reason=reason, message=message, since=began, details=given
            )
            self._changed(key)
            return True

    def flag(
        self,
        key: str,
        condition: ConditionType,
        reason: Reason,
        message: str | None,
        *,
        name: str = "",
        details: Mapping[str, str] | None = None,
    ) -> bool:
        """Sets a condition to true if there is a message, and clears it otherwise. `name`: see `ensure`.

        True if anything changed.
        """
        # cleared instead of set to false: status shows such conditions only while there is something to say
        if not message:
            return self.clear(key, condition)
        self.ensure(key, name)
        return self.set(key, condition, status=True, reason=reason, message=message, details=details)

    def standing(self, key: str, condition: ConditionType) -> Condition | None:
        """A condition's present state, None if it is not set."""
        with self._lock:
            found = self._resources.get(key)
            return found.conditions.get(condition) if found is not None else None

    def reason(self, key: str, condition: ConditionType) -> Reason | Literal[""]:
        """A condition's present reason, "" if it is not set."""
        found = self.standing(key, condition)
        return found.reason if found is not None else ""

    def message(self, key: str, condition: ConditionType) -> str:
        """The message of a condition that is true, else ""."""
        found = self.standing(key, condition)
        return found.message if found is not None and found.status else ""

    def clear(self, key: str, condition: ConditionType) -> bool:
        """Removes a condition."""
        with self._lock:
            found = self._resources.get(key)
            if found is None or found.conditions.pop(condition, None) is None:
                return False
            self._changed(key)
            return True

    def set_object(self, key: str, object_id: str) -> None:
        """Notes the engine's id of the object."""
        with self._lock:
            found = self._resources.get(key)
            if found is not None and found.object_id != object_id:
                found.object_id = object_id
                self._changed(key)

    def set_facts(self, key: str, **facts: Any) -> None:
        """Sets facts that are not conditions: `image`, `ports`, `stack` and `webui` of the section; `reach`, the
        firewall zones that reach each port; `restarts` by the engine; `retry_at`, wall clock, when a failed resource
        is tried again; `update`, the result of the last image check."""
        with self._lock:
            found = self._resources.get(key)
            # ignore unchanged facts: each change wakes every reader and takes a place in the ring
            if found is not None and not facts.items() <= found.facts.items():
                found.facts.update(facts)
                self._changed(key)

    def fact(self, key: str, name: str) -> Any:
        """A fact's present value, None if it is not set."""
        with self._lock:
            found = self._resources.get(key)
            return found.facts.get(name) if found is not None else None

    def drop(self, key: str) -> None:
        """Removes a resource."""
        with self._lock:
            if self._resources.pop(key, None) is not None:
                self._event({"key": key, "removed": True})

    def has_conditions(self, key: str) -> bool:
        """Whether the resource has any condition."""
        with self._lock:
            found = self._resources.get(key)
            return found is not None and bool(found.conditions)

    def keys(self) -> frozenset[str]:
        """The resources on the board."""
        with self._lock:
            return frozenset(self._resources)

    def note(self, key: str, op: str, *, cause: str, ok: bool, error: str = "", took_s: float = 0.0) -> None:
        """Adds an operation to the resource's last ten operations."""
        with self._lock:
            shown = OperationNote(
                at=self.clock(),
                op=op,
                # causes and errors quote option values and texts of the engine
                cause=hidden_text(cause),
                ok=ok,
                error=hidden_text(error),
                took_s=took_s,
            )
            resource = self._resources[key]
            # limited: a container that fails every minute must not fill a router's memory
            resource.operations = (*resource.operations, shown)[-NOTES:]
            self._changed(key)

    def clock_stepped(self, seconds: float) -> None:
        """The clock was set forward by `seconds`, or back: what is on the board is as old as it was."""
        with self._lock:
            for key, resource in self._resources.items():
                for kind, condition in resource.conditions.items():
                    resource.conditions[kind] = replace(condition, since=condition.since + seconds)
                resource.operations = tuple(
                    replace(note, at=note.at + seconds) for note in resource.operations
                )
                self._changed(key)

    def set_agent(self, **facts: Any) -> None:
        """Sets facts about the agent; None keeps a fact unchanged."""
        with self._lock:
            fresh = {
                name: _bounded(hidden(value) if name in _TOLD else value)
                for name, value in facts.items()
                if value is not None
            }
            # otherwise the time of the last pass would cause an event every minute
            visible = {n: v for n, v in fresh.items() if self._agent.get(n) != v and n != "last_pass"}
            self._agent.update(fresh)
            if visible:
                self._event({"key": "agent", "agent": dict(self._agent)})

    def snapshot(self) -> dict[str, Any]:
        """Everything as JSON data, resources sorted by key."""
        with self._lock:
            resources = [self._resources[key].as_json() for key in sorted(self._resources)]
            return {"version": self.version, "agent": dict(self._agent), "resources": resources}

    def resource(self, key: str) -> dict[str, Any] | None:
        """One resource as JSON data; None if it is not on the board."""
        with self._lock:
            found = self._resources.get(key)
            return found.as_json() if found is not None else None

    def page(self, after: str = "", limit: int = 0) -> dict[str, Any]:
        """As many resources as fit in PAGE_BYTES, at most `limit` (0: no limit), starting after the key `after`.

        Contains `after` unless it is the first page, and `next` if there are more: the `after` of the next page.
        """
        with self._lock:
            # pages follow keys, not positions: a resource that comes or goes does not move others to another page
            keys = sorted(key for key in self._resources if key > after)
            head = {
                "version": self.version,
                "agent": dict(self._agent),
                **({"after": after} if after else {}),
            }
            shown: list[dict[str, Any]] = []
            size = len(json.dumps(head))
            for key in keys[: limit or None]:
                resource = self._resources[key].as_json()
                size += len(json.dumps(resource))
                if shown and size > PAGE_BYTES:
                    break
                shown.append(resource)
        more = {"next": shown[-1]["key"]} if len(shown) < len(keys) else {}
        return {**head, **more, "resources": shown}

    def pages(self) -> Iterator[dict[str, Any]]:
        """All pages of the status, each with its present content. Together with the changes after the first page's
        version they give the present state."""
        page = self.page()
        yield page
        while "next" in page:
            page = self.page(page["next"])
            yield page

    def events_after(self, version: int) -> list[dict[str, Any]] | None:
        """The changes after `version`; None if the ring no longer contains them all."""
        with self._lock:
            if not self._ring.lost <= version <= self.version:
                return None
            found = self._ring.after(version)
        return [json.loads(text) for _, text in found]

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls `callback` on each change, in the thread of the change. Returns a function that unsubscribes."""
        with self._lock:
            # callbacks run in the thread that changes the board, so they must not block
            self._subscribers.append(callback)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers.remove(callback)

        return unsubscribe

    def _changed(self, key: str) -> None:
        self._event({"key": key, "resource": self._resources[key].as_json()})

    def _event(self, event: dict[str, Any]) -> None:
        self.version += 1
        self._ring.add(json.dumps({"id": self.version, **event}), self.version)
        self._ring.keep(RING)
        for callback in list(self._subscribers):
            callback()


def _bounded(value: Any) -> Any:
    """Shortens a long list of texts: a thousand invalid sections would otherwise fill a whole answer."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return value
    room = _TEXTS_BYTES
    for number, text in enumerate(value):
        room -= len(json.dumps(text))
        if room < 0:
            left = len(value) - number
            return [*value[:number], f"{left} more are not shown; `ucidockd check` shows those of the files"]
    return value
