# SPDX-License-Identifier: GPL-2.0-or-later
"""Manual actions of clients (`docker.*` or `/docker/`) that the reconciler must not undo.

A hold ends when its section changes, when a reconcile is requested, or on reboot: holds are stored in the run
directory, a tmpfs, which survives the agent but not a reboot. Planning receives them as `Context.held`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.apply.ports import Engine, Records
from agent.apply.steps import names
from agent.files.atomic import atomic_write
from agent.model.identity import Key, canonical, spec_hash
from agent.model.resources import Container, Desired
from agent.plan.container.meaning import meaning
from agent.plan.draft import COPY, desired_spec
from agent.wire.record_lines import json_object

logger = logging.getLogger(__name__)

_RUNNING_ACTIONS = frozenset({"start", "restart", "unpause"})  # after these the user wants it to run
_STOPPING_ACTIONS = frozenset({"stop", "kill", "pause"})  # after these the user wants it not to run


class Holds:
    """The holds by key. Safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._held: dict[str, dict[str, str]] | None = None  # read on first use
        # the holds that the last manual action on each key replaced
        self._before: dict[str, dict[str, str]] = {}
        self._copying: Counter[str] = Counter()  # copies of volumes in progress, by key; in memory only

    def begin_copy(self, keys: Iterable[str]) -> None:
        """Starts copying volumes of these containers: they are left alone until `end_copy`, whatever is requested."""
        with self._lock:
            self._copying.update(keys)

    def end_copy(self, keys: Iterable[str]) -> None:
        """The copy has ended: earlier holds apply again."""
        with self._lock:
            self._copying.subtract(keys)
            self._copying += Counter()  # drops zero counts

    def add(self, container: Container, action: str) -> None:
        """Notes a manual action. An action that starts a container which should run ends the hold of an earlier stop."""
        key = Key("container", container.section)
        with self._lock:
            held = dict(self._read())
            # remembered for the last action only: the engine may still refuse it, and then the earlier hold applies
            # again
            self._before.pop(key, None)
            if key in held:
                self._before[key] = held[key]
            if action in _RUNNING_ACTIONS and container.policy.should_run:
                if held.get(key, {}).get("action") in _STOPPING_ACTIONS:
                    del held[key]
            else:
                held[key] = {
                    "action": action,
                    "section": section_hash(container),
                    "meaning": _section_meaning(container),
                }
            self._write(held)

    def take_back(self, container: Container) -> None:
        """The last manual action on a container failed: the earlier hold applies again."""
        key = Key("container", container.section)
        with self._lock:
            held = dict(self._read())
            held.pop(key, None)
            if key in self._before:
                held[key] = self._before.pop(key)
            self._write(held)

    def clear(self) -> None:
        """A reconcile was requested: ends all holds."""
        with self._lock:
            self._before.clear()
            self._write({})

    def current(self, desired: Desired, *, keep: bool = False) -> dict[str, str]:
        """Key -> action, for the sections that have not changed since; other holds are dropped unless `keep`.

        Invalid sections keep their holds, because it is not known yet what they will say.
        """
        with self._lock:
            known = self._read()
            here: dict[str, Container] = (
                {Key("container", c.section): c for c in desired.containers} if known else {}
            )
            held = {
                key: item
                for key, item in known.items()
                if key in desired.broken or (key in here and _is_same(here[key], item))
            }
            # done here, not when a section changes: the edit may happen while the agent is down
            if not keep:
                self._write(held)
            actions = {key: item["action"] for key, item in held.items()}
            return actions | dict.fromkeys(self._copying, COPY)

    def _read(self) -> dict[str, dict[str, str]]:
        if self._held is None:
            self._held = _load(self._path)
        return self._held

    def _write(self, held: dict[str, dict[str, str]]) -> None:
        if held == self._held:
            return
        self._held = held
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(self._path, json.dumps(held, indent=1, sort_keys=True).encode() + b"\n", mode=0o600)
        except OSError as exc:
            # the hold still applies in memory; only a restart of the agent would lose it
            logger.warning("%s cannot be written: %s", self._path, exc.strerror)


def _load(path: Path) -> dict[str, dict[str, str]]:
    try:
        data = json_object(path.read_bytes())
        return {
            str(key): {
                "action": str(item["action"]),
                "section": str(item["section"]),
                "meaning": str(item.get("meaning", "")),
            }
            for key, item in data.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        # The worst effect of lost holds is that a manually stopped container is started again; an agent that does not
        # start would be worse.
        logger.warning("%s is not readable, no hold is known: %s", path, exc)
        return {}


def section_hash(container: Container) -> str:
    """A hash of everything in a section, including policy and name; environment values enter as hashes."""
    return _hash(container, desired_spec(container))


def _section_meaning(container: Container) -> str:
    """Like `section_hash`, but unchanged if a section says the same in other words."""
    return _hash(container, meaning("container", desired_spec(container)))


def _hash(container: Container, spec: Mapping[str, object]) -> str:
    return spec_hash({**spec, "policy": canonical(container.policy), "docker_name": container.name})


def _is_same(container: Container, held: Mapping[str, str]) -> bool:
    return section_hash(container) == held["section"] or _section_meaning(container) == held["meaning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManualActions:
    """Finds the container that a manual action concerns, from the name or id in the request. `desired`: what is
    declared."""

    holds: Holds
    engine: Engine
    records: Records
    desired: Callable[[], Desired | None]

    def hold(self, ref: str, action: str) -> bool:
        """Keeps the reconciler from undoing a manual action on one of our containers; False if it is not ours.

        `ref` is a name or id in any form that the Engine API accepts. Call it before the action; otherwise a pass may
        run in between. Raises EngineError if the engine has to be asked for the id and does not answer.
        """
        container = self._managed(ref)
        if container is None:
            return False
        self.holds.add(container, action)
        logger.info("manual %s of container:%s", action, container.section)
        return True

    def release(self, ref: str) -> None:
        """Removes a hold again, because the manual action failed."""
        container = self._managed(ref)
        if container is not None:
            self.holds.take_back(container)

    def mounting(self, volumes: frozenset[str]) -> frozenset[str]:
        """Keys of our containers that mount one of these volumes, according to their section or to what was last
        applied."""
        found = {
            Key("container", c.section)
            for c in self._declared()
            if volumes & {mount.source for mount in c.spec.mounts if not mount.is_bind}
        }
        # also the applied state: a section may have been edited while its container runs with the old mounts
        for record in self.records.records():
            if record.kind == "container":
                sources = {str(mount.get("source") or "") for mount in record.spec.get("mounts", ())}
                if volumes & {*sources, *names(record.volumes)}:
                    found.add(Key("container", record.section))
        return frozenset(found)

    def _managed(self, ref: str) -> Container | None:
        records = [r for r in self.records.records() if r.kind == "container" and r.object_id]
        # records first: they cost no call, and the engine may be busy with the very container
        found = [r for r in records if r.name == ref and not r.swap] or [
            r for r in records if r.object_id == ref
        ]
        if not found:
            seen = self.engine.inspect_container(ref)  # a short id, or a name given outside of ucidockd
            found = [r for r in records if seen is not None and r.object_id == seen.id]
        sections = {record.section for record in found}
        return next((c for c in self._declared() if c.section in sections), None)

    def _declared(self) -> tuple[Container, ...]:
        desired = self.desired()
        return desired.containers if desired is not None else ()
