# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes in the containers of the engine in memory: when commands end, health checks, restart policies."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

from agent.errors import EngineError
from tests.support.virtual.clock import VirtualTime
from tests.support.virtual.objects import FakeContainer

_BEGIN_S = 0.05  # run time of a process that ends at once
_NS = 1e9
_FOREVER = float("inf")
_SHELL = re.compile(r"(?:sleep ([0-9.]+); *)?exit ([0-9]+)")
_KNOWN = frozenset({"sleep", "true", "false", "sh", "cat", "httpd", "echo"})
_FIRST_DELAY_S = 0.1  # moby's restartmanager: the delay doubles up to a minute and resets after a run of 10 s
_LONGEST_DELAY_S = 60.0
_GOOD_RUN_S = 10.0


def outcome(words: list[str]) -> tuple[float, int]:
    """The run time of a command in seconds, and its exit code."""
    if words[0] == "sleep":
        return float(words[1]), 0
    if words[0] == "sh" and words[1:2] == ["-c"]:
        match = _SHELL.fullmatch(words[2])
        return (float(match[1] or 0), int(match[2])) if match else (_FOREVER, 0)
    return {"true": (0.0, 0), "echo": (0.0, 0), "false": (0.0, 1)}.get(words[0], (_FOREVER, 0))


def check_command(container: FakeContainer) -> None:
    """Raises EngineError, as a start does, if the program does not exist."""
    words = container.command()
    if words[0] not in _KNOWN:
        container.exit_code = 127
        container.error = f'exec: "{words[0]}": executable file not found in $PATH: unknown'
        raise EngineError(
            f"OCI runtime create failed: starting container process caused: {container.error}", status=400
        )


class Processes:
    """Runs containers. `attach` and `detach` handle networks, `tell` handles events."""

    def __init__(
        self,
        time: VirtualTime,
        attach: Callable[[FakeContainer], None],
        detach: Callable[[FakeContainer], None],
        tell: Callable[[FakeContainer, str], None],
    ) -> None:
        self.time, self._attach, self._detach, self._tell = time, attach, detach, tell
        self.up = True  # False: the engine is down and restarts nothing

    def start(self, container: FakeContainer) -> None:
        """Starts the container. Raises EngineError if it cannot run, and leaves its state unchanged then."""
        self._attach(container)
        try:
            check_command(container)
        except EngineError:
            self._detach(container)
            raise
        container.state, container.exit_code, container.error = "running", 0, ""
        container.oom_killed = False
        container.started_before = True
        container.started_at, container.started_text = self.time.now, self.time.text()
        container.run += 1
        self._tell(container, "start")
        seconds, code = outcome(container.command())
        if seconds != _FOREVER:
            self._later(container, max(seconds, _BEGIN_S), lambda: self.exit(container, code))
        self._begin_health(container)

    def _later(self, container: FakeContainer, seconds: float, call: Callable[[], None]) -> None:
        run = container.run

        def if_same_run() -> None:
            if container.run == run and container.state in {"running", "paused"}:
                call()

        self.time.call_at(self.time.now + seconds, if_same_run)

    def exit(self, container: FakeContainer, code: int, *, by_hand: bool = False, oom: bool = False) -> None:
        """Ends the process; the restart policy decides whether it starts again."""
        good = self.time.now - container.started_at >= _GOOD_RUN_S
        container.quick_exits = 0 if good else container.quick_exits + 1
        container.exit_code, container.oom_killed, container.health = code, oom, ""
        container.finished_text = self.time.text()
        container.stopped_by_hand = by_hand
        container.run += 1
        container.ended_at = self.time.now
        self._detach(container)
        self._tell(container, "die")
        if not by_hand and self.up and wants_restart(container):
            self._restart_later(container)
        else:
            container.state = "exited"

    def _restart_later(self, container: FakeContainer) -> None:
        container.state = "restarting"
        run = container.run
        delay = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** min(container.quick_exits, 12))

        def again() -> None:
            if container.run != run or container.state != "restarting":
                return
            container.restart_count += 1
            try:
                self.start(container)
            except EngineError as exc:
                container.state, container.error = "exited", str(exc)

        self.time.call_at(self.time.now + delay, again)

    # health

    def _begin_health(self, container: FakeContainer) -> None:
        check = container.config.get("Healthcheck") or {}
        test = check.get("Test") or []
        container.failing_streak = 0
        container.health = "starting" if test and test[0] not in {"", "NONE"} else ""
        if container.health:
            self._later(container, _interval_s(check), lambda: self._probe(container, check))

    def _probe(self, container: FakeContainer, check: dict[str, Any]) -> None:
        fine = self._is_fine(shlex.split(check["Test"][-1]) or ["false"], container)
        container.failing_streak = 0 if fine else container.failing_streak + 1
        before = container.health
        if fine:
            container.health = "healthy"
        elif container.failing_streak >= (check.get("Retries") or 3):
            container.health = "unhealthy"
        if container.health != before:
            self._tell(container, f"health_status: {container.health}")
        self._later(container, _interval_s(check), lambda: self._probe(container, check))

    def _is_fine(self, words: list[str], container: FakeContainer) -> bool:
        """Whether the health check passes. `flap 5` passes for the first 5 s after the start, fails for 5 s, and so on."""
        if words[0] == "flap":
            ran = self.time.now - container.started_at + 1e-6  # a sum of virtual seconds falls a little short
            return int(ran / float(words[1])) % 2 == 0
        return words[0] in {"true", "sleep"} and not container.sick


def _interval_s(check: dict[str, Any]) -> float:
    return float((check.get("Interval") or 30 * _NS) / _NS)


def wants_restart(container: FakeContainer) -> bool:
    """Whether the restart policy restarts this container, as in moby's restartmanager. Not for containers that were
    stopped by hand, unless the engine starts."""
    name = container.policy.get("Name")
    if name == "always":
        return True
    if name == "unless-stopped":
        return not container.stopped_by_hand
    most = container.policy.get("MaximumRetryCount") or 0
    return name == "on-failure" and container.exit_code != 0 and (not most or container.restart_count < most)
