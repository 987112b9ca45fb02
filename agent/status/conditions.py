# SPDX-License-Identifier: GPL-2.0-or-later
"""THE table of conditions: what each type means, when it is bad, and how bad.

Readers of a status (command line, LuCI, metrics) hold no list of their own: they take the level of each condition and the
verdict of each resource from the status itself. A new type is a member of `ConditionType` and a row here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.errors import Reason


class Level(StrEnum):
    """How bad something is, worst first."""

    ERROR = "error"
    WARNING = "warning"
    WAITING = "waiting"
    OFF = "off"
    OK = "ok"


class ConditionType(StrEnum):
    """The conditions of a resource."""

    ACCEPTED = "Accepted"
    WAITING = "Waiting"
    IMAGE_READY = "ImageReady"
    SYNCED = "Synced"
    RUNNING = "Running"
    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    DATA_LOST = "DataLost"
    UPDATE_AVAILABLE = "UpdateAvailable"
    PINNED = "Pinned"
    # of a backup
    BACKUP_FAILED = "BackupFailed"
    # of the agent itself
    PASS_STUCK = "PassStuck"
    DISK_LOW = "DiskLow"
    DELIVERED = "Delivered"  # of a notify section
    # of dockerd itself
    ROLLED_BACK = "RolledBack"
    INSECURE_API = "InsecureAPI"
    DAEMON_UNMANAGED = "DaemonUnmanaged"
    ENGINE_CHANGED = "EngineChanged"
    RESTART_NEEDED = "RestartNeeded"
    ENGINE_STORAGE_LOST = "EngineStorageLost"
    ENGINE_IMPAIRED = "EngineImpaired"
    STORAGE_UNSUITABLE = "StorageUnsuitable"
    # of the router around it
    FIREWALL_OPEN = "FirewallOpen"
    PUBLIC_PORT = "PublicPort"
    ADDRESS_MISSING = "AddressMissing"
    PORT_UNREACHABLE = "PortUnreachable"
    NO_INTERNET = "NoInternet"
    ZONE_UNSET = "ZoneUnset"
    STORAGE_READ_ONLY = "StorageReadOnly"
    # allowed, and dangerous
    HOST_CONTROL = "HostControl"
    SHARED_ORIGIN_PORTS = "SharedOriginPorts"


# nothing is wrong: they are told beside the verdict, and never are it
NOTES = (ConditionType.UPDATE_AVAILABLE, ConditionType.PINNED)

# what the engine calls the state of a container, and of its health check
REASON_OF_STATE: Mapping[str, Reason] = {
    "created": "Created",
    "running": "Running",
    "paused": "Paused",
    "restarting": "CrashLoop",
    "removing": "Removing",
    "exited": "Exited",
    "dead": "Dead",
}
REASON_OF_HEALTH: Mapping[str, Reason] = {
    "healthy": "Healthy",
    "unhealthy": "Unhealthy",
    "starting": "Starting",
}


class Remedy(StrEnum):
    """What helps against a condition."""

    BLOCK_ACCESS = "block-access"
    PROTECT_API = "protect-api"
    OTHER_FOLDER = "other-folder"
    CLEAN_UP = "clean-up"
    BACK_UP = "back-up"
    CHECK_NOTICE = "check-notice"
    USE_ENGINE = "use-engine"
    RESTORE = "restore-volume"
    ALLOW_IN = "allow-in"
    ALLOW_OUT = "allow-out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One condition type.

    `bad`: the status that calls for attention. `level`: how bad that is, except for the `reasons` that have a level of
    their own. `sentence`: what to tell people where the condition has no message. `label`: two or three words for the
    bad state, where the reason does not say it. `remedy`: what helps a person against the bad state; LuCI has a button
    for each.
    """

    bad: bool
    level: Level
    sentence: str
    reasons: Mapping[Reason, Level] = field(default_factory=dict)
    label: str = ""
    remedy: Remedy | None = None


# in the order in which equally bad conditions of one resource are told
CONDITIONS: dict[ConditionType, Row] = {
    ConditionType.ACCEPTED: Row(
        bad=False,
        level=Level.ERROR,
        sentence="The section has mistakes; what runs for it is left alone.",
        label="Mistake in the settings",
    ),
    ConditionType.PASS_STUCK: Row(
        bad=True,
        level=Level.ERROR,
        sentence="The agent is stuck in a pass; nothing is applied.",
        label="Agent is stuck",
    ),
    ConditionType.ENGINE_STORAGE_LOST: Row(
        bad=True,
        level=Level.ERROR,
        sentence="The disk that holds Docker's data is gone or read-only.",
        label="Disk is gone",
    ),
    ConditionType.STORAGE_UNSUITABLE: Row(
        bad=True,
        level=Level.ERROR,
        sentence="No container can be created on the file system of data_root.",
        label="Unsuitable disk",
        remedy=Remedy.OTHER_FOLDER,
    ),
    ConditionType.DISK_LOW: Row(
        bad=True,
        level=Level.WARNING,
        sentence="There is little space left on the disk of Docker's data.",
        label="Disk almost full",
        remedy=Remedy.CLEAN_UP,
    ),
    ConditionType.DEGRADED: Row(
        bad=True,
        level=Level.ERROR,
        sentence="The last change failed.",
        reasons={"Drift": Level.WARNING},  # `on_drift report`: as the user wants it
    ),
    ConditionType.DATA_LOST: Row(
        bad=True,
        level=Level.ERROR,
        sentence="A volume was removed outside of ucidockd and created again, empty.",
        label="Data lost",
        remedy=Remedy.RESTORE,
    ),
    ConditionType.ROLLED_BACK: Row(
        bad=True,
        level=Level.ERROR,
        sentence="dockerd runs with its last working configuration.",
        label="Rolled back",
    ),
    ConditionType.INSECURE_API: Row(
        bad=True,
        level=Level.ERROR,
        sentence="Docker's API would be reachable without a client certificate.",
        label="Unprotected Docker API",
        remedy=Remedy.PROTECT_API,
    ),
    ConditionType.ENGINE_CHANGED: Row(
        bad=True,
        level=Level.ERROR,
        sentence="This is another engine than before; nothing is created until `ucidockd reconcile`.",
        label="Different engine",
        remedy=Remedy.USE_ENGINE,
    ),
    ConditionType.FIREWALL_OPEN: Row(
        bad=True,
        level=Level.ERROR,
        sentence="The rules that block interfaces from containers are missing.",
        label="Firewall rules missing",
        remedy=Remedy.BLOCK_ACCESS,
    ),
    ConditionType.ENGINE_IMPAIRED: Row(
        bad=True,
        level=Level.WARNING,
        sentence="Something that dockerd needs is missing, and a restart did not bring it back.",
        label="Docker is impaired",
    ),
    ConditionType.PUBLIC_PORT: Row(
        bad=True,
        level=Level.WARNING,
        sentence="A published port can be reached from the internet.",
        label="Open to the internet",
        remedy=Remedy.BLOCK_ACCESS,
    ),
    ConditionType.ADDRESS_MISSING: Row(
        bad=True,
        level=Level.ERROR,
        sentence="A port is published at an address that the router does not have.",
        label="Address missing",
    ),
    ConditionType.PORT_UNREACHABLE: Row(
        bad=True,
        level=Level.WARNING,
        sentence="The firewall lets nothing reach a published port.",
        label="Cannot be reached",
        remedy=Remedy.ALLOW_IN,
    ),
    ConditionType.NO_INTERNET: Row(
        bad=True,
        level=Level.WARNING,
        sentence="The firewall keeps the container from the internet.",
        label="No internet",
        remedy=Remedy.ALLOW_OUT,
    ),
    ConditionType.HOST_CONTROL: Row(
        bad=True,
        level=Level.WARNING,
        sentence="The container can take control of the router.",
        label="Can control the router",
    ),
    ConditionType.SHARED_ORIGIN_PORTS: Row(
        bad=True,
        level=Level.WARNING,
        sentence="Browsers treat a web page of this container and LuCI as one site.",
        label="Shares a site with LuCI",
    ),
    ConditionType.BACKUP_FAILED: Row(
        bad=True,
        level=Level.ERROR,
        sentence="The last backup failed.",
        label="Backup failed",
        remedy=Remedy.BACK_UP,
    ),
    ConditionType.DELIVERED: Row(
        bad=False,
        level=Level.WARNING,
        sentence="The last notice was not delivered.",
        label="Not delivered",
        remedy=Remedy.CHECK_NOTICE,
    ),
    ConditionType.STORAGE_READ_ONLY: Row(
        bad=True,
        level=Level.WARNING,
        sentence="A folder of the container is on a read-only file system.",
        label="Read-only folder",
    ),
    ConditionType.ZONE_UNSET: Row(
        bad=True,
        level=Level.WARNING,
        sentence="The network is not in any firewall zone.",
        label="In no firewall zone",
    ),
    ConditionType.WAITING: Row(
        bad=True,
        level=Level.WAITING,
        sentence="Something that it needs is not there yet.",
        label="Waiting",
    ),
    ConditionType.RESTART_NEEDED: Row(
        bad=True,
        level=Level.WAITING,
        sentence="dockerd must be restarted to apply its settings.",
        label="Restart needed",
    ),
    ConditionType.IMAGE_READY: Row(
        bad=False, level=Level.WAITING, sentence="The image is not here yet.", label="Image missing"
    ),
    ConditionType.SYNCED: Row(
        bad=False,
        level=Level.WAITING,
        sentence="Not applied yet.",
        reasons={
            "BackOff": Level.ERROR,
            "Conflict": Level.ERROR,
            "NewerVersion": Level.ERROR,
            "EngineTooOld": Level.ERROR,
            "RolledBack": Level.ERROR,
            "Refused": Level.ERROR,
            "LeftOut": Level.ERROR,
            "Failed": Level.ERROR,
            "Held": Level.OFF,
            "Grace": Level.OFF,
        },
    ),
    ConditionType.HEALTHY: Row(
        bad=False,
        level=Level.WAITING,
        sentence="The health check has not passed.",
        reasons={"Unhealthy": Level.ERROR},
    ),
    ConditionType.RUNNING: Row(
        bad=False,
        level=Level.OFF,
        sentence="Not running.",
        reasons={
            "CrashLoop": Level.ERROR,
            "Absent": Level.WAITING,
            "Unknown": Level.WAITING,
            "NotListening": Level.WAITING,
        },
    ),
    ConditionType.UPDATE_AVAILABLE: Row(
        bad=True, level=Level.OK, sentence="A newer image is available.", label="Update available"
    ),
    ConditionType.PINNED: Row(
        bad=True,
        level=Level.OK,
        sentence="The container was taken back to an earlier image and stays on it.",
        label="Pinned",
    ),
    ConditionType.DAEMON_UNMANAGED: Row(
        bad=True,
        level=Level.OFF,
        sentence="dockerd is configured by a daemon.json of your own.",
        label="Managed by daemon.json",
    ),
}

_RANK = {level: rank for rank, level in enumerate(Level)}
_ORDER = {kind: rank for rank, kind in enumerate(CONDITIONS)}


def order_of(kind: ConditionType) -> int:
    """Where it stands in the table."""
    return _ORDER[kind]


def level_of(kind: ConditionType, *, status: bool, reason: Reason) -> Level:
    """How bad a condition is as it stands."""
    row = CONDITIONS[kind]
    return row.reasons.get(reason, row.level) if status is row.bad else Level.OK


def sentence_of(kind: ConditionType, *, status: bool) -> str:
    """What to tell people of a condition without a message; "" while it is not bad."""
    row = CONDITIONS[kind]
    return row.sentence if status is row.bad else ""


_WORDS: Mapping[Reason, str] = {
    "BackOff": "Retrying",
    "CrashLoop": "Keeps crashing",
    "Absent": "Not created",
    "Grace": "Being removed",
}


def label_of(kind: ConditionType, *, status: bool, reason: Reason) -> str:
    """A few words for a condition as it stands, such as `Rolled back`."""
    row = CONDITIONS[kind]
    if row.label and status is row.bad:
        return row.label
    return _WORDS.get(reason) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", reason).capitalize()


def remedy_of(kind: ConditionType, *, status: bool) -> Remedy | None:
    """What helps against a condition as it stands."""
    row = CONDITIONS[kind]
    return row.remedy if status is row.bad else None


def verdict(levels: Mapping[ConditionType, Level]) -> tuple[Level, ConditionType]:
    """The condition that a resource is judged by: the worst, the first in the table among equals.

    A resource that was not compared with its section yet is waiting.
    """
    bad = [kind for kind, level in levels.items() if level is not Level.OK]
    if bad:
        told = min(bad, key=lambda kind: (_RANK[levels[kind]], _ORDER[kind]))
        return levels[told], told
    if ConditionType.DELIVERED in levels:
        return Level.OK, ConditionType.DELIVERED
    return (Level.OK if ConditionType.SYNCED in levels else Level.WAITING), ConditionType.SYNCED


def runs(resource: Mapping[str, Any]) -> bool:
    """Whether a container runs, as the status JSON shows it."""
    return any(c["type"] == ConditionType.RUNNING and c["status"] for c in resource["conditions"])
