# SPDX-License-Identifier: GPL-2.0-or-later
"""Values of the daemon: what UCI says about dockerd, and what we remember of the dockerd that runs.

`agent.uci.decode_daemon` makes a DaemonSettings, `agent.plan.daemon` renders it into a Target, and `agent.apply`
brings dockerd there, with a DaemonRecord as its memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]
Document = Mapping[str, Json]

DAEMON_KEY = "daemon:dockerd"
DEFAULT_BRIDGE = "docker0"
CERTIFICATE_DAYS_MAX = 3650  # of a pair that we sign; the CA outlives it
CLIENT_DAYS = 730  # of a client's pair, unless asked for otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One address that dockerd listens on. `text` is what daemon.json says; a unix socket has port 0."""

    text: str
    address: str
    port: int = 0

    @property
    def is_unix(self) -> bool:
        return not self.port


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """The `tls` section. `auto`: certificates are made by us; else the three paths are the user's.

    `broken`: which of the two, or with which files, cannot be read: only what was good before continues.
    """

    verify: bool = True
    auto: bool = True
    cacert: str = ""
    cert: str = ""
    key: str = ""
    san: tuple[str, ...] = ()
    days: int = 365
    renew_days: int = 30
    broken: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallRule:
    """A `firewall` section: containers behind `device` are not reached from `blocked_interfaces`.

    `enforce`: also where dockerd makes no rules, or its settings are not ours.
    """

    device: str
    blocked_interfaces: tuple[str, ...]
    extra_iptables_args: str = ""
    enforce: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """All that UCI says about dockerd.

    `values` holds the options of the table (`agent.model.dockerd.table`) by their daemon.json key, ready for JSON;
    `left_out` are keys of the table whose options are wrong: dockerd keeps the value that it runs with.
    `unreadable`: the file cannot be read, so what runs is left as it is.
    `api_version` is what LuCI asks the engine in, "" for its newest; dockerd itself does not know of it.
    """

    values: Document = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    unreadable: bool = False
    hosts: tuple[Host, ...] = ()
    tls: TlsSettings | None = None
    allow_insecure_tcp: bool = False
    alt_config_file: str = ""
    api_version: str = ""
    firewall: tuple[FirewallRule, ...] = ()


class Effect(StrEnum):
    """What it takes to make dockerd follow its file."""

    NOTHING = "nothing"
    RELOAD = "reload"
    RESTART = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A daemon.json, and what else the running dockerd depends on.

    `material` is a digest of the certificate files: dockerd reads them at its start only. `arguments` are those that it
    is started with beside `--config-file`.
    """

    document: Document
    material: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def text(self) -> bytes:
        """The file, keys in a stable order."""
        return format_document(self.document)

    @property
    def digest(self) -> str:
        """Names this target in the memory of what failed."""
        words = "\0".join((self.material, *self.arguments))
        return hashlib.sha256(self.text + words.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that cannot be mistaken for a later one with its number. `started`: clock ticks since boot."""

    pid: int
    started: int


class DaemonAction(StrEnum):
    """What a user may ask of dockerd."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"


class NotOurs(StrEnum):
    """Why ucidockd does not do with dockerd what it otherwise does, for people."""

    ELSEWHERE = "Docker runs on another machine."
    EXTERNAL = "Another program starts and stops dockerd."
    OWN_FILE = "dockerd's settings are in a file of your own."
    NO_SECTION = "No section of /etc/config/dockerd is about dockerd."


class Step(StrEnum):
    """How far a change had come; what a new agent finds when the old one was killed."""

    NONE = ""
    RELOAD = "reload"
    STOP = "stop"
    START = "start"
    WATCH = "watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonRecord:
    """What we know of dockerd, kept over our own restart (in /var/run: a reboot ends dockerd as well).

    `running` is what `process` is known to follow, None when that is not known. `target` is where a change is going,
    `fallback` says that it is no more than the way back. `held` says that live-restore was put into the file for the
    restart. `failed` is the digest of the target that did not work and is not tried again; `why` in words.
    `watch_until` is monotonic seconds: dying before that counts as a failure of the change. `swarm`: the engine was part
    of one when it last answered; it does not start with live-restore then. `stopped`: a user stopped it, and it stays
    down until a user starts it. `refused`: key -> the value that dockerd does not start with, and why.
    """

    running: Target | None = None
    process: Process | None = None
    step: Step = Step.NONE
    target: Target | None = None
    fallback: bool = False
    held: bool = False
    failed: str = ""
    why: str = ""
    watch_until: float = 0.0
    swarm: bool = False
    stopped: bool = False
    refused: Mapping[str, tuple[Json, str]] = field(default_factory=dict)


def format_document(document: Document) -> bytes:
    """daemon.json as we write it: sorted keys, so that equal settings are equal files."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def data_root(document: Document) -> str:
    """Where the engine of that document lives; dockerd's own default when it says nothing."""
    return str(document.get("data-root") or "/var/lib/docker")
