# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent must leave alone: containers that were stopped through its own interfaces, drift that `on_drift report`
only reports, and containers within their grace period after their section was deleted.

The machine reports each of its actions here. A promise is dropped as soon as any event could end it legitimately.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.errors import EngineError
from agent.model.observed import ObservedContainer

if TYPE_CHECKING:
    from tests.support.virtual.machine import Machine

_READ_S = 2.0  # the agent has read the configuration this long after the notification
_LITTLE = 16 << 20  # bytes
_PASS_S = 15.0  # includes event delivery, the engine's response times, and the pass itself
_RESYNC_S = 60.0


@dataclass
class Promises:
    """`look` and `check_call` raise AssertionError if the agent broke a promise."""

    machine: Machine
    deaf: bool = False  # events were lost at some time
    told_at: float | None = None  # when the agent was notified of the current configuration
    _stopped: dict[str, tuple[str, Any]] = field(default_factory=dict)  # section -> container id, options
    _limited: dict[str, tuple[str, Any]] = field(default_factory=dict)
    # section -> its anonymous volume, options
    _data: dict[str, tuple[str, Any]] = field(default_factory=dict)
    _images: dict[str, tuple[str, Any]] = field(default_factory=dict)  # section -> image id, options
    _renewed: set[str] = field(default_factory=set)
    _candidate: str = ""  # name of the container that was just stopped
    _gone: dict[str, tuple[float, float]] = field(
        default_factory=dict
    )  # section -> time of its deletion, grace period in seconds
    _known: dict[str, float] = field(
        default_factory=dict
    )  # section -> the shortest grace period that it ever had, seconds
    clock_is_set: bool = False
    _untrue: dict[str, tuple[tuple[bool, bool, float], float]] = field(
        default_factory=dict
        # key -> (status shown, actual status, time of the last change of the status shown); first time of this
        # contradiction
    )

    # events

    def committed(self, *, told: bool) -> None:
        config, now = self.machine.config, self.machine.ground.now()
        self.told_at = now if told else None
        for section, options in config.containers.items():
            grace = float(str(options["grace"]))
            self._known[section] = min(grace, self._known.get(section, grace))
        for promised in (self._stopped, self._limited, self._data):
            for section in [s for s, (_, options) in promised.items() if self._written(s) != options]:
                del promised[section]
        for section in self._known.keys() - config.containers.keys():
            self._gone.setdefault(section, (now, self._known[section]))

    def garbled(self) -> None:
        """The file was truncated at a random place, so any section may be missing from now on."""
        self.forget()
        for section, grace in self._known.items():
            self._gone.setdefault(section, (self.machine.ground.now(), grace))

    def forget(self) -> None:
        """Drops all promises: the agent may reconcile everything again."""
        self._stopped.clear()
        self._limited.clear()
        self._candidate = ""

    def clock_was_set(self) -> None:
        """The clock was set. Grace periods follow the wall clock, so they cannot be checked any more."""
        self.clock_is_set = True

    def engine_went(self) -> None:
        """The engine went down. The agent cannot know which containers run until the engine is back."""
        self._untrue.clear()

    def stopped(self, name: str) -> None:
        """A container was stopped through the agent's own interface; the agent may have been dead or busy with the
        container."""
        self._candidate = name

    def meddled(self, name: str) -> None:
        """A container was changed outside the agent, which is drift."""
        section = self._section(name)
        self._stopped.pop(section, None)
        self._limited.pop(section, None)

    def removed(self, name: str) -> None:
        """A container is about to be removed outside the agent, without its volumes. The next container must get the
        data back."""
        section = self._section(name)
        options, seen = self._declared(section), self.machine.whole(section)
        if options and seen is not None and self.is_settled(section):
            mounts = {m["Destination"]: m.get("Name", "") for m in (seen.inspect or {})["Mounts"]}
            if "/anonymous" in mounts and "/anonymous" in options["volume"]:
                self._data[section] = (mounts["/anonymous"], dict(options))

    def limited(self, name: str) -> None:
        """A container's memory limit was set outside the agent."""
        section = self._section(name)
        options = self._declared(section)
        if options and options["on_drift"] == "report" and self.is_settled(section):
            seen = self.machine.ground.raw.inspect_container(name)
            if seen is not None:
                self._limited[section] = (seen.id, dict(options))

    # promises

    def renewed(self, section: str) -> None:
        """An update of the section was requested; it may happen much later."""
        self._renewed.add(section)
        self._images.pop(section, None)

    def retagged(self) -> None:
        """A tag moves: a container that runs as declared must keep running its current image."""
        for section in list(self.machine.config.containers):
            options = self._declared(section)
            seen = self.machine.whole(section) if options and self.is_settled(section) else None
            by_itself = options is not None and options["update"] == "auto"
            if seen is not None and section not in self._renewed and not by_itself:
                self._images.setdefault(section, (seen.image_id, dict(options)))

    def look(self) -> None:
        """Checks all promises; called after each step."""
        if self._candidate:
            self._confirm(self._candidate)
            self._candidate = ""
        for section in [s for s in self._gone if self._declared(s) and self.is_settled(s)]:
            del self._gone[section]  # the agent has seen the section again
        for section, (volume, options) in list(self._data.items()):
            there = self.machine.whole(section) if self._declared(section) == options else None
            if there is not None and ".ucidockd-" not in there.name:
                mounts = {m["Destination"]: m.get("Name", "") for m in (there.inspect or {})["Mounts"]}
                assert mounts.get("/anonymous") == volume, f"{section} did not get its data back"
                del self._data[section]
        for section, (object_id, options) in list(self._limited.items()):
            seen = self._same(section, object_id, options)
            if seen is None:
                del self._limited[section]
                continue
            memory = (seen.inspect or {})["HostConfig"]["Memory"]
            assert memory == _LITTLE, f"drift of {section} was repaired, though only to be reported"
        for section, (image_id, options) in list(self._images.items()):
            there = self.machine.whole(section) if self._declared(section) == options else None
            if self._declared(section) != options:
                del self._images[section]
            elif there is not None and ".ucidockd-" not in there.name:
                kept = there.image_id == image_id
                assert kept, f"{section} got another image, and nobody asked for it"
        self._check_truth()

    def _check_truth(self) -> None:
        """The status of each container must agree with `docker ps` within one pass."""
        ground = self.machine.ground
        if not ground.alive or not ground.engine_is_up():
            self._untrue.clear()
            return
        ours = [
            c for c in ground.raw.list_containers(self.machine.instance) if c.id not in self.machine.foreign
        ]
        running = {self.machine.section_of(c) for c in ours if c.state == "running"}
        untrue = {}
        for resource in ground.snapshot()["resources"]:
            shown = next((c for c in resource["conditions"] if c["type"] == "Running"), None)
            key, actual = resource["key"], resource["section"] in running
            if shown is not None and shown["status"] is not actual and resource["kind"] == "container":
                said = shown["status"]
                lie, before = (said, actual, shown["since"]), self._untrue.get(key)
                since = before[1] if before is not None and before[0] == lie else ground.now()
                untrue[key] = (lie, since)
                limit = _PASS_S + _RESYNC_S * self.deaf
                assert ground.now() - since < limit, (
                    f"{key}: status says {said} for {ground.now() - since:.0f} s"
                )
        self._untrue = untrue

    def check_call(self, name: str, args: tuple[Any, ...]) -> None:
        """Checks each call of the agent before it is made."""
        if name == "engine.start":
            for section, (object_id, options) in list(self._stopped.items()):
                if object_id == args[0] and self._same(section, object_id, options) is not None:
                    raise AssertionError(f"{section} was stopped through our doors and is started")
        if name == "engine.remove_container":
            self._check_grace(str(args[0]))

    def _check_grace(self, object_id: str) -> None:
        for section in self._gone.keys() - self.machine.config.containers.keys():
            since, grace = self._gone[section]
            seen = self.machine.whole(section)
            # created again, because its tag moved meanwhile
            fresh = seen is not None and seen.state == "created"
            if seen is not None and seen.id == object_id and not fresh and not self.clock_is_set:
                kept = self.machine.ground.now() - since
                assert kept >= grace, f"{section} was kept for {kept:.1f} of {grace:.0f} s"

    def _confirm(self, name: str) -> None:
        section = self._section(name)
        seen, options = self.machine.whole(section), self._declared(section)
        if seen is not None and seen.state == "exited" and options and self._is_held(section):
            self._stopped[section] = (seen.id, dict(options))

    def _is_held(self, section: str) -> bool:
        """Whether the agent accepted the manual stop and is not working on the section."""
        return self.is_settled(section) and self.machine.ground.is_held(f"container:{section}")

    def is_settled(self, section: str) -> bool:
        """Whether the agent is alive, knows the configuration, and has nothing to do for the section."""
        machine = self.machine
        if not machine.ground.alive or machine.garbled or self.told_at is None:
            return False
        resources = {
            r["section"]: r for r in machine.ground.snapshot()["resources"] if r["kind"] == "container"
        }
        conditions = {c["type"]: c["reason"] for c in resources.get(section, {}).get("conditions", ())}
        read = machine.ground.now() - self.told_at >= _READ_S
        return read and conditions.get("Synced") in {"InSync", "Held", "Applied"}

    def _same(self, section: str, object_id: str, options: Any) -> ObservedContainer | None:
        """The section's container, if it is still the same container and the section is unchanged."""
        if self._declared(section) != options:
            return None
        try:
            seen = self.machine.whole(section)
        except EngineError:
            return None
        return seen if seen is not None and seen.id == object_id else None

    def _declared(self, section: str) -> Any:
        return None if section in self.machine.config.wrong else self._written(section)

    def _written(self, section: str) -> Any:
        config = self.machine.config
        return config.written(section) if section in config.containers else None

    def _section(self, name: str) -> str:
        seen = self.machine.ground.raw.inspect_container(name)
        return self.machine.section_of(seen) if seen is not None else ""
