# SPDX-License-Identifier: GPL-2.0-or-later
"""Values about dockerd: what UCI says, with the matches of iptables that `extra_iptables_args` of a `firewall` section
may hold, and what we remember about the running dockerd.

`agent.uci.decode_daemon` creates a DaemonSettings, `agent.plan.daemon` renders it to a Target, and `agent.dockerd`
brings dockerd there, with a DaemonRecord as its memory.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from agent.errors import ConfigError
from agent.model.quantities import split_words

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]
Document = Mapping[str, Json]

DAEMON_KEY = "daemon:dockerd"
DEFAULT_BRIDGE = "docker0"
CERTIFICATE_DAYS_MAX = 3650  # for certificates that we sign; the CA is valid for longer
CLIENT_DAYS = 730  # for client certificates, unless requested otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One address that dockerd listens on. `text` is its form in daemon.json; a unix socket has port 0."""

    text: str
    address: str
    port: int = 0

    @property
    def is_unix(self) -> bool:
        return not self.port


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """The `tls` section. `auto`: ucidockd creates the certificates; otherwise the three paths are the user's.

    `broken`: the section is invalid, so only what worked before stays in use.
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
    """A `firewall` section: blocks connections from `blocked_interfaces` to containers behind `device`.

    `enforce`: also if dockerd makes no rules or its settings are not ours.
    """

    device: str
    blocked_interfaces: tuple[str, ...]
    extra_iptables_args: str = ""
    enforce: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """Everything that UCI says about dockerd.

    `values` holds the options of the table (`agent.model.dockerd.table`) by their daemon.json key, ready for JSON.
    `left_out`: keys of the table whose options are invalid; dockerd keeps the values that it runs with. `unreadable`:
    the file cannot be read, so a running dockerd stays as it is. `api_version`: the API version that LuCI uses, ""
    for the engine's newest; not a setting of dockerd itself.
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
    """What is required to make dockerd follow its file."""

    NOTHING = "nothing"
    RELOAD = "reload"
    RESTART = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonTarget:
    """A daemon.json, and what else the running dockerd depends on.

    `material` is a digest of the certificate files, which dockerd reads only at its start. `arguments` are its
    arguments besides `--config-file`.
    """

    document: Document
    material: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def text(self) -> bytes:
        """The content of the file, with keys in a stable order."""
        return format_document(self.document)

    @property
    def digest(self) -> str:
        """Identifies this target, to remember that it failed."""
        words = "\0".join((self.material, *self.arguments))
        return hashlib.sha256(self.text + words.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that cannot be confused with a later one of the same pid. `started`: clock ticks since boot."""

    pid: int
    started: int


class DaemonAction(StrEnum):
    """What a user may request for dockerd."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"


class NotOurs(StrEnum):
    """Why ucidockd does not manage dockerd here, for people."""

    ELSEWHERE = "Docker runs on another machine."
    EXTERNAL = "Another program starts and stops dockerd."
    OWN_FILE = "dockerd's settings are in a file of your own."
    NO_SECTION = "No section of /etc/config/dockerd configures dockerd."


class ChangeStep(StrEnum):
    """The progress of a change; a new agent finds it after the old one was killed."""

    NONE = ""
    RELOAD = "reload"
    STOP = "stop"
    START = "start"
    WATCH = "watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonRecord:
    """What we know about dockerd. It survives a restart of the agent (in /var/run, because a reboot ends dockerd as
    well).

    `running`: the target that `process` follows, None if not known. `target`: the goal of the change in progress;
    `fallback`: it is only the way back. `held`: live-restore was added to the file for the restart. `failed`: digest
    of the target that did not work and is not tried again; `why`: the reason in words. `watch_until`: monotonic
    seconds; if dockerd dies before that, the change has failed. `swarm`: the engine was part of a swarm when it last
    answered, with which live-restore does not work. `stopped`: a user stopped dockerd, and it stays down until a user
    starts it. `refused`: key -> (the value with which dockerd does not start, why).
    """

    running: DaemonTarget | None = None
    process: Process | None = None
    step: ChangeStep = ChangeStep.NONE
    target: DaemonTarget | None = None
    fallback: bool = False
    held: bool = False
    failed: str = ""
    why: str = ""
    watch_until: float = 0.0
    swarm: bool = False
    stopped: bool = False
    refused: Mapping[str, tuple[Json, str]] = field(default_factory=dict)


def format_document(document: Document) -> bytes:
    """daemon.json in the form that we write: with sorted keys, so that equal settings give equal files."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def data_root(document: Document) -> str:
    """The data_root of a document; dockerd's default if it sets none."""
    return str(document.get("data-root") or "/var/lib/docker")


_MODULES = frozenset(
    {
        "addrtype",
        "conntrack",
        "iprange",
        "limit",
        "mac",
        "mark",
        "multiport",
        "pkttype",
        "set",
        "state",
        "tcp",
        "udp",
    }
)
_ADDRESSES = frozenset({"-s", "--src", "--source", "-d", "--dst", "--destination"})
_VALUES = {  # option -> how many values it takes
    **dict.fromkeys(_ADDRESSES, 1),
    **dict.fromkeys(("-p", "--protocol", "-m", "--match", "--mac-source", "--mark", "--pkt-type"), 1),
    **dict.fromkeys(("--sport", "--source-port", "--dport", "--destination-port"), 1),
    **dict.fromkeys(("--sports", "--source-ports", "--dports", "--destination-ports", "--ports"), 1),
    **dict.fromkeys(("--ctstate", "--ctstatus", "--ctdir", "--ctproto", "--state"), 1),
    **dict.fromkeys(("--ctorigsrc", "--ctorigdst", "--ctorigsrcport", "--ctorigdstport"), 1),
    **dict.fromkeys(
        ("--limit", "--limit-burst", "--src-type", "--dst-type", "--src-range", "--dst-range"), 1
    ),
    **dict.fromkeys(("--match-set", "--tcp-flags"), 2),
    "--syn": 0,
}
_VALUE = re.compile(r"[A-Za-z0-9_.,:/+][A-Za-z0-9_.,:/+-]*\Z")


def parse_extra(given: str) -> tuple[str, ...]:
    """`extra_iptables_args` as words; only matches are allowed. Raises ConfigError naming the word that is not."""
    found: list[str] = []
    left = iter(_split_options(given))
    for word in left:
        if word == "!":
            found.append(word)
            continue
        if word not in _VALUES:
            raise _refused(word, "a match such as --match conntrack ! --ctstate RELATED,ESTABLISHED")
        values = [next(left, "") for _ in range(_VALUES[word])]
        for value in values:
            if not _VALUE.match(value):
                raise _refused(f"{word} {value}", "letters, digits and .,:/+_- as its value")
            if word in {"-m", "--match"} and value not in _MODULES:
                raise _refused(f"{word} {value}", f"one of {', '.join(sorted(_MODULES))}")
            if word in _ADDRESSES:
                # a single address only: iptables would wait for a name server to resolve a name, and makes several
                # rules of a list
                try:
                    ipaddress.ip_network(value, strict=False)
                except ValueError as exc:
                    raise _refused(f"{word} {value}", "one address or subnet") from exc
        found += [word, *values]
    if found[-1:] == ["!"]:
        raise _refused("!", "a match after it")
    return tuple(found)


def _split_options(given: str) -> Iterator[str]:
    """The words, with `--dport=80` split into two."""
    try:
        parts = split_words(given)
    except ValueError as exc:
        raise ConfigError(f"dockerd firewall extra_iptables_args: {exc}") from exc
    for word in parts:
        name, sign, value = word.partition("=")
        yield from (name, value) if sign and name.startswith("--") else (word,)


def _refused(what: str, expected: str) -> ConfigError:
    return ConfigError(f"dockerd firewall extra_iptables_args: {what} is not allowed, expected {expected}")
