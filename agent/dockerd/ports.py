# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports: what carrying out a change of dockerd needs from the edge. Blocking; called from threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from agent.model.dockerd.settings import DaemonRecord, Process, Target


class Supervisor(Protocol):
    """Starts, stops and signals the one dockerd that runs with our file."""

    def find(self) -> Process | None:
        """The dockerd that runs with our file, no matter what started it."""

    def wait_end(self, process: Process, timeout_s: float) -> bool:
        """Whether it has ended within that time; 0 only looks."""

    def start(self, arguments: tuple[str, ...]) -> Process:
        """With `--config-file` and these. Raises DaemonError when it cannot even be started."""

    def stop(self, process: Process, timeout_s: float) -> None:
        """SIGTERM and waiting, SIGKILL only after `timeout_s`."""

    def reload(self, process: Process) -> None:
        """SIGHUP."""

    def last_words(self, process: Process) -> str:
        """Why it ended, as far as that can be known; without secrets."""

    def tidy(self) -> None:
        """Keeps what dockerd logs small, where that is ours."""


class ReloadEvents(Protocol):
    """The engine's reload events from now on."""

    def wait(self, timeout_s: float) -> Mapping[str, str] | None:
        """The attributes of the next one (the values in force), None when none came in time."""


class Probe(Protocol):
    """What the engine on the unix socket says. Nothing here raises but for InternalError."""

    def answers(self) -> bool: ...
    def running(self) -> tuple[str, ...]:
        """Names of the containers that run, sorted."""

    def swarm(self) -> bool:
        """Whether the engine is part of a swarm: live-restore is not allowed then."""

    def store(self) -> str:
        """What keeps the engine's images and containers, "" when that is not known."""

    def reload_events(self, timeout_s: float) -> AbstractContextManager[ReloadEvents]:
        """Subscribes; an engine that does not even take the question in that time gives no events."""


class DaemonStore(Protocol):
    """daemon.json, the last good one, and our memory. Writing raises OSError."""

    def current(self) -> bytes | None: ...
    def write_current(self, data: bytes) -> None: ...
    def last_good(self) -> Target | None: ...
    def write_last_good(self, target: Target) -> None: ...
    def load(self) -> DaemonRecord: ...
    def save(self, record: DaemonRecord) -> None: ...


class ServerIdentity(Protocol):
    """Certificates that dockerd serves with. `expires`: unix seconds."""

    @property
    def ca(self) -> Path: ...
    @property
    def cert(self) -> Path: ...
    @property
    def key(self) -> Path: ...
    @property
    def expires(self) -> float: ...
    @property
    def problem(self) -> str:
        """Why it is not the one that was asked for, "" when it is."""


class Certificates(Protocol):
    """Makes and renews them. The bool says whether anything changed. Raises UcidockdError."""

    def ensure_server(
        self, *, sans: tuple[str, ...], days: int, renew_days: int, now: float
    ) -> tuple[ServerIdentity, bool]: ...


Check = Callable[[Target], None]
"""Looks at a target before anything is disturbed; raises DaemonError with reason Refused."""
