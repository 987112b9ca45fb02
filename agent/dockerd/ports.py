# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports: what a change of dockerd needs from the outside world. Methods block; call them from threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from agent.model.dockerd.settings import DaemonRecord, DaemonTarget, Process


class Supervisor(Protocol):
    """Starts, stops and signals the single dockerd that runs with our file."""

    def find(self) -> Process | None:
        """The dockerd that runs with our file, whoever started it."""

    def wait_end(self, process: Process, timeout_s: float) -> bool:
        """Whether it has ended within that time; 0 only checks."""

    def start(self, arguments: tuple[str, ...]) -> Process:
        """Starts dockerd with `--config-file` and these arguments. Raises DaemonError if it cannot be started."""

    def stop(self, process: Process, timeout_s: float) -> None:
        """Sends SIGTERM and waits; sends SIGKILL only after `timeout_s`."""

    def reload(self, process: Process) -> None:
        """Sends SIGHUP."""

    def exit_reason(self, process: Process) -> str:
        """Why it ended, as far as known; without secrets."""

    def tidy(self) -> None:
        """Keeps dockerd's log small, if we write it."""


class ReloadEvents(Protocol):
    """The engine's reload events from now on."""

    def wait(self, timeout_s: float) -> Mapping[str, str] | None:
        """The attributes of the next event (the values in force), None if none arrives in time."""


class Probe(Protocol):
    """What the engine on the unix socket reports. Methods raise nothing but InternalError."""

    def answers(self) -> bool: ...
    def running(self) -> tuple[str, ...]:
        """Names of the running containers, sorted."""

    def swarm(self) -> bool:
        """Whether the engine is part of a swarm, in which live-restore is not allowed."""

    def store(self) -> str:
        """The engine's storage driver, "" if not known."""

    def reload_events(self, timeout_s: float) -> AbstractContextManager[ReloadEvents]:
        """Subscribes to reload events. If the engine does not accept the request within that time, there are no events."""


class DaemonStore(Protocol):
    """Storage for daemon.json, the last good document and the record. Writing raises OSError."""

    def current(self) -> bytes | None: ...
    def write_current(self, data: bytes) -> None: ...
    def last_good(self) -> DaemonTarget | None: ...
    def write_last_good(self, target: DaemonTarget) -> None: ...
    def load(self) -> DaemonRecord: ...
    def save(self, record: DaemonRecord) -> None: ...


class ServerIdentity(Protocol):
    """The certificates that dockerd presents. `expires`: unix seconds."""

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
        """Why these are not the requested certificates, "" if they are."""


class Certificates(Protocol):
    """Creates and renews certificates. The bool says whether anything changed. Raises UcidockdError."""

    def ensure_server(
        self, *, sans: tuple[str, ...], days: int, renew_days: int, now: float
    ) -> tuple[ServerIdentity, bool]: ...


Check = Callable[[DaemonTarget], None]
"""Checks a target before anything is disturbed; raises DaemonError with reason Refused."""
