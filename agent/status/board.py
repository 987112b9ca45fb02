# SPDX-License-Identifier: GPL-2.0-or-later
"""The status board: conditions per resource, facts about the agent, and a ring of changes for streams.

No text with a secret gets onto it, no matter where it comes from.

Written by the runtime's threads, read by the controller: one lock guards it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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

RING = 256
NOTES = 10
_TOLD = frozenset({"engine", "warnings", "config_issues"})  # facts with words of others in them
PAGE_BYTES = 256 * 1024
"""Of JSON, what a page of the status has at most. On ubus it takes up to three times that, and 1 MiB is the limit."""
_TEXTS_BYTES = 64 * 1024  # what a list of texts may take among the facts about the agent
_SAME_S = 1.0  # two times of one beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """`since` (wall clock, seconds) moves when status or reason change, and when it is learned better.

    `details`: what a program can do about it.
    """

    type: ConditionType
    status: bool
    reason: Reason
    message: str
    since: float
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """How bad it is."""
        return level_of(self.type, status=self.status, reason=self.reason)

    def as_json(self) -> dict[str, Any]:
        """With its level, a few words for it, and where it is bad a message and what people can do."""
        message = self.message or sentence_of(self.type, status=self.status)
        # Words, advice and remedy come from the table alone, so that all doors say the same.
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
    """One operation that was carried out, and why. `took_s`: seconds."""

    at: float
    op: str
    cause: str
    ok: bool
    error: str = ""
    took_s: float = 0.0


def _fields(value: Condition | OperationNote) -> dict[str, Any]:
    """As `dataclasses.asdict`, which copies whatever is in them and takes ten times as long."""
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
        # In the table's order, which is by weight: readers that show one condition take the first.
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
    """All that status shows. Every change counts `version` up and is kept in the ring for resuming streams.

    `clock`: the time of day in unix seconds. `first`: where versions begin. A running agent takes another number at each
    start, so that a reader of an earlier run does not resume in the middle of this one's changes.
    """

    def __init__(self, clock: Callable[[], float], *, first: int = 0) -> None:
        self.clock = clock
        self._lock = threading.RLock()
        self._resources: dict[str, _Resource] = {}
        self._agent: dict[str, Any] = {}
        # as JSON text: a tenth of the memory of the same in dicts, and few are ever read
        self._ring: Ring[str] = Ring(first)
        self._subscribers: list[Callable[[], None]] = []
        self.version = first

    def ensure(self, key: str, name: str = "", *, section: str = "") -> None:
        """Makes sure that the resource is on the board. An existing one takes a new name.

        `name`: of the object, where it is not the section's. `section`: where it is not what follows the kind in the key.
        """
        # Keys are of kind and section, but a network's object may have a name of its own.
        kind, of_key = Key.parse(key).kind, Key.parse(key).section
        with self._lock:
            found = self._resources.get(key)
            if found is None:
                section = section or of_key
                self._resources[key] = _Resource(key, kind, section, name or section)
                self._changed(key)
            # A name that only repeats the section is no news: others may know the object's real name.
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
        """Sets a condition. `details`: for programs. `since`: when it began, where that is known better than by the clock.

        True when anything changed.
        """
        with self._lock:
            conditions = self._resources[key].conditions
            old = conditions.get(condition)
            same = old is not None and (old.status, old.reason) == (status, reason)
            # every message passes here, and errors of the engine can quote passwords
            message = hidden_text(message)
            given = {name: hidden_text(value) for name, value in (details or {}).items()}
            began = old.since if same and old is not None else self.clock()
            # the engine's own time of an event differs from ours by a moment: that is no change to tell of
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
        """A condition that is true with a message and gone without one. `name`: see `ensure`.

        True when anything changed.
        """
        # Cleared and not set to false: status shows such a condition only while there is something to say.
        if not message:
            return self.clear(key, condition)
        self.ensure(key, name)
        return self.set(key, condition, status=True, reason=reason, message=message, details=details)

    def standing(self, key: str, condition: ConditionType) -> Condition | None:
        """A condition as it stands."""
        with self._lock:
            found = self._resources.get(key)
            return found.conditions.get(condition) if found is not None else None

    def reason(self, key: str, condition: ConditionType) -> Reason | Literal[""]:
        """The reason of a condition as it stands, "" without one."""
        found = self.standing(key, condition)
        return found.reason if found is not None else ""

    def message(self, key: str, condition: ConditionType) -> str:
        """The message of a condition that is true, "" without one."""
        found = self.standing(key, condition)
        return found.message if found is not None and found.status else ""

    def clear(self, key: str, condition: ConditionType) -> bool:
        """Takes a condition off."""
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
        """Notes what is not a condition: `image`, `ports`, `stack` and `webui` of the section; `reach`, the firewall zones
        that reach each port; `restarts` by the engine; `retry_at`, wall clock, when what failed is tried again; `update`,
        what the last check of the image found.
        """
        with self._lock:
            found = self._resources.get(key)
            # Nothing new is no change: each change wakes every reader, and takes a place in the ring.
            if found is not None and not facts.items() <= found.facts.items():
                found.facts.update(facts)
                self._changed(key)

    def fact(self, key: str, name: str) -> Any:
        """A fact as it stands, None without one."""
        with self._lock:
            found = self._resources.get(key)
            return found.facts.get(name) if found is not None else None

    def drop(self, key: str) -> None:
        """Takes a resource off."""
        with self._lock:
            if self._resources.pop(key, None) is not None:
                self._event({"key": key, "removed": True})

    def has_conditions(self, key: str) -> bool:
        """Whether anything is said of the resource."""
        with self._lock:
            found = self._resources.get(key)
            return found is not None and bool(found.conditions)

    def keys(self) -> frozenset[str]:
        """The resources that are on it."""
        with self._lock:
            return frozenset(self._resources)

    def note(self, key: str, op: str, *, cause: str, ok: bool, error: str = "", took_s: float = 0.0) -> None:
        """Adds an operation to the resource's last ten."""
        with self._lock:
            shown = OperationNote(
                at=self.clock(),
                op=op,
                # Causes and errors quote values of options and words of the engine.
                cause=hidden_text(cause),
                ok=ok,
                error=hidden_text(error),
                took_s=took_s,
            )
            resource = self._resources[key]
            # Bounded: a container that fails each minute must not fill a router's memory.
            resource.operations = (*resource.operations, shown)[-NOTES:]
            self._changed(key)

    def set_agent(self, **facts: Any) -> None:
        """Sets facts about the agent; None leaves a fact as it is."""
        with self._lock:
            fresh = {
                name: _bounded(hidden(value) if name in _TOLD else value)
                for name, value in facts.items()
                if value is not None
            }
            # The time of the last pass alone would be an event each minute.
            visible = {n: v for n, v in fresh.items() if self._agent.get(n) != v and n != "last_pass"}
            self._agent.update(fresh)
            if visible:
                self._event({"key": "agent", "agent": dict(self._agent)})

    def snapshot(self) -> dict[str, Any]:
        """Everything, JSON-ready, resources sorted by key."""
        with self._lock:
            resources = [self._resources[key].as_json() for key in sorted(self._resources)]
            return {"version": self.version, "agent": dict(self._agent), "resources": resources}

    def resource(self, key: str) -> dict[str, Any] | None:
        """One of them, JSON-ready; None where it is not on the board."""
        with self._lock:
            found = self._resources.get(key)
            return found.as_json() if found is not None else None

    def page(self, after: str = "", limit: int = 0) -> dict[str, Any]:
        """As many resources as fit in PAGE_BYTES, `limit` at most (0: no matter), from the first key past `after` on.

        With `after` where it is not the first page, and with `next` where there is more: the `after` of the next page.
        """
        with self._lock:
            # pages follow keys and not places: one that comes or goes meanwhile moves no other from one page to the next
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
        """The status, page for page, each as it is when it is asked for. The changes after the first one's version
        lead from there to what is.
        """
        page = self.page()
        yield page
        while "next" in page:
            page = self.page(page["next"])
            yield page

    def events_after(self, version: int) -> list[dict[str, Any]] | None:
        """The changes after `version`; None when the ring does not reach back so far."""
        with self._lock:
            if not self._ring.lost <= version <= self.version:
                return None
            found = self._ring.after(version)
        return [json.loads(text) for _, text in found]

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls `callback` on each change, in the changing thread. Returns the way to end that."""
        with self._lock:
            # Called in the thread that changes the board: whoever subscribes must not wait in it.
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
    """A long list of texts, cut: a thousand sections with a mistake in each would fill an answer alone."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return value
    room = _TEXTS_BYTES
    for number, text in enumerate(value):
        room -= len(json.dumps(text))
        if room < 0:
            left = len(value) - number
            return [*value[:number], f"{left} more are not shown; `ucidockd check` shows those of the files"]
    return value
