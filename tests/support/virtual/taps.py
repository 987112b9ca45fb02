# SPDX-License-Identifier: GPL-2.0-or-later
"""Taps on the agent's port calls: they inject errors, lost requests and replies, kills, and outside changes.

A tap wraps any implementation of a port: the engine in memory, or the client of a real engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import SimpleNamespace
from typing import Any

from agent.errors import EngineError, EngineUnreachableError, StorageError
from tests.support.failing_agent import PORTS, changing, methods
from tests.support.virtual.clock import Killed

# read from the Protocols, so that no new method can be forgotten
CHANGING = {f"{prefix}.{name}" for prefix, port in PORTS.items() for name in changing(port)}


class Fault(Enum):
    """The fault that a call gets."""

    ERROR_500 = "500"
    ERROR_409 = "409"
    ERROR_404 = "404"
    LOST_REQUEST = "lost request"
    LOST_REPLY = "lost reply"
    ENDING = "ending"  # dockerd ends: it answers with an error, and accepts no new connection
    EMPTY_LIST = "empty list"
    DISK_FULL = "disk full"
    KILL_BEFORE = "kill before"
    KILL_AFTER = "kill after"
    INTERFERE = "interfere"  # an outside change happens just before the call
    LATE = "late"  # the engine creates something, later than the client waits for it
    KILL_LATE = "kill, late"  # the same, and the agent is killed meanwhile


_LATE = {Fault.LATE, Fault.KILL_LATE}
_SHOWING = {"engine.inspect_container", "engine.inspect_image"}
_STATUS = {Fault.ERROR_500: 500, Fault.ENDING: 500, Fault.ERROR_409: 409, Fault.ERROR_404: 404}


@dataclass(kw_only=True)
class Plan:
    """The next fault. `fault` hits `count` calls after the next `skip` calls; with `changing`, only calls that change
    something count."""

    fault: Fault | None = None
    skip: int = 0
    count: int = 0
    changing: bool = True
    interfere: Callable[[], None] = lambda: None
    late_s: float = (
        0.0  # how long after the client has given up; 0: just before the agent creates something again
    )
    # carries the call of LATE and KILL_LATE out; set by the ground
    later: Callable[[Callable[[], object], tuple[Any, ...]], None] = lambda call, args: None
    hidden: frozenset[str] = frozenset()  # names and ids of objects that the engine lists but cannot inspect
    ends: bool = False  # dockerd is ending, after ENDING
    log: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.fault, self.skip, self.count, self.ends = None, 0, 0, False
        self.hidden = frozenset()

    def take(self, name: str) -> Fault | None:
        """The fault for this call; counts the call."""
        if self.fault is None or self.count <= 0 or not self._fits(name):
            return None
        if self.skip:
            self.skip -= 1
            return None
        self.count -= 1
        self.ends = self.ends or self.fault is Fault.ENDING
        self.log.append(f"{self.fault.value} at {name}")
        return self.fault

    def _fits(self, name: str) -> bool:
        if self.fault in _LATE:
            return name.startswith("engine.create_")
        if self.fault is Fault.EMPTY_LIST:
            return name.startswith("engine.list_")
        if self.fault is Fault.DISK_FULL:
            return name.startswith("records.") and name in CHANGING
        if self.fault in {Fault.KILL_BEFORE, Fault.KILL_AFTER, Fault.INTERFERE}:
            return name in CHANGING or not self.changing
        # the client asks for the API version only after a lost connection
        return (
            name.startswith("engine.")
            and name != "engine.api_version"
            and (name in CHANGING or not self.changing)
        )


class Process:
    """One process of the agent. Once it is dead, its calls have no effect any more."""

    def __init__(self, on_death: Callable[[Process], None]) -> None:
        self.dead = False
        self._on_death = on_death

    def die(self) -> None:
        """Dies as from SIGKILL. Raises Killed in the caller."""
        if not self.dead:
            self.dead = True
            self._on_death(self)
        raise Killed


def tap(
    target: Any,
    prefix: str,
    *,
    process: Process,
    plan: Plan,
    before: Callable[[str, tuple[Any, ...]], None] = lambda name, args: None,
) -> Any:
    """Wraps `target` in taps. `before` is called for each call of a live process."""

    def around(name: str) -> Callable[..., Any]:
        call, full = getattr(target, name), f"{prefix}.{name}"

        def tapped(*args: Any, **named: Any) -> Any:
            if process.dead:
                raise Killed
            before(full, args)
            if process.dead:
                raise Killed
            if full in _SHOWING and args[0] in plan.hidden:
                raise EngineError(f"injected: {args[0]} cannot be shown", status=500, retryable=True)
            if plan.ends and full == "engine.ping":
                raise EngineUnreachableError("injected: dockerd ends")
            fault = plan.take(full)
            _fail_before(fault, process, plan)
            if fault in _LATE:
                plan.later(partial(call, *args, **named), args)
                if process.dead:
                    raise Killed
                if fault is Fault.KILL_LATE:
                    process.die()
                raise EngineUnreachableError("injected: no answer in time")
            result = call(*args, **named)
            if process.dead:
                raise Killed
            if fault is Fault.KILL_AFTER:
                process.die()
            if fault is Fault.LOST_REPLY:
                raise EngineUnreachableError("injected: the reply was lost")
            return type(result)() if fault is Fault.EMPTY_LIST else result

        return tapped

    names = {name: around(name) for name in methods(PORTS[prefix]) if hasattr(target, name)}
    if prefix == "records":
        names["instance"] = target.instance
    return SimpleNamespace(**names)


def _fail_before(fault: Fault | None, process: Process, plan: Plan) -> None:
    if fault is Fault.KILL_BEFORE:
        process.die()
    if fault in _STATUS:
        status = _STATUS[fault]
        raise EngineError(f"injected {status}", status=status, retryable=status >= 500)
    if fault is Fault.LOST_REQUEST:
        raise EngineUnreachableError("injected: the request was lost")
    if fault is Fault.DISK_FULL:
        raise StorageError("injected: no space left", full=True)
    if fault is Fault.INTERFERE:
        plan.interfere()
