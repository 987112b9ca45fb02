# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of conditions: what each type means, when it is bad, and how bad.

Readers of a status (command line, LuCI, metrics) have no list of their own: the status itself contains the level of
each condition and the verdict of each resource. A new type is a member of `ConditionType` and a row here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.errors import Reason


class Level(StrEnum):
    """Severity, worst first. WAITING is above WARNING: something that is still missing matters more than a flaw."""

    ERROR = "error"
    WAITING = "waiting"
    WARNING = "warning"
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
    # conditions of a backup
    BACKUP_FAILED = "BackupFailed"
    # conditions of the agent
    PASS_STUCK = "PassStuck"
    DISK_LOW = "DiskLow"
    DELIVERED = "Delivered"  # condition of a notify section
    # conditions of dockerd
    ROLLED_BACK = "RolledBack"
    INSECURE_API = "InsecureAPI"
    DAEMON_UNMANAGED = "DaemonUnmanaged"
    ENGINE_CHANGED = "EngineChanged"
    RESTART_NEEDED = "RestartNeeded"
    ENGINE_STORAGE_LOST = "EngineStorageLost"
    ENGINE_IMPAIRED = "EngineImpaired"
    STORAGE_UNSUITABLE = "StorageUnsuitable"
    # conditions of the router around dockerd
    FIREWALL_OPEN = "FirewallOpen"
    PUBLIC_PORT = "PublicPort"
    ADDRESS_MISSING = "AddressMissing"
    PORT_UNREACHABLE = "PortUnreachable"
    NO_INTERNET = "NoInternet"
    ZONE_UNSET = "ZoneUnset"
    STORAGE_READ_ONLY = "StorageReadOnly"
    # permitted but dangerous settings
    HOST_CONTROL = "HostControl"
    SHARED_ORIGIN_PORTS = "SharedOriginPorts"


# not problems: shown next to the verdict, never as the verdict
NOTES = (ConditionType.UPDATE_AVAILABLE, ConditionType.PINNED)

# about what a section says: they end with it, though its object stays for the grace period
OF_SECTIONS = (
    ConditionType.PUBLIC_PORT,
    ConditionType.ADDRESS_MISSING,
    ConditionType.PORT_UNREACHABLE,
    ConditionType.NO_INTERNET,
    ConditionType.ZONE_UNSET,
    ConditionType.STORAGE_READ_ONLY,
    ConditionType.HOST_CONTROL,
    ConditionType.SHARED_ORIGIN_PORTS,
)

# the engine's states of a container and of its health check -> reason
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
    """What helps against a condition; LuCI has a button for each."""

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

    `bad`: the status that needs attention. `level`: its severity, except for the `reasons` that have their own.
    `sentence`: text for people if the condition has no message. `label`: two or three words for the bad state, if the
    reason does not say it. `advice`: what people can do about the bad state, except for the reasons in `advice_for`
    (`docs/troubleshooting.md` says more). `remedy`: what helps against it; LuCI has a button for each.
    """

    bad: bool
    level: Level
    sentence: str
    reasons: Mapping[Reason, Level] = field(default_factory=dict)
    label: str = ""
    advice: str = ""
    advice_for: Mapping[Reason, str] = field(default_factory=dict)
    remedy: Remedy | None = None


_RETRIED = "Correct what the message or its log names. It is tried again automatically."
_TAKEN_BACK = (
    "The old container is in use again. Correct the settings; the same change is not tried again by itself."
)
_FLASH = "Make room on the router's own flash, below `/etc`."
_STATE_FILES = "A file of ucidockd cannot be read or written: check the router's flash."
_DOCKERDS_LOG = (
    "Correct Docker's settings. If they are right, look at dockerd's log, the disk and the free memory."
)
_DELETED = (
    "Wait a moment. If it stays like this, remove the container with `docker rm -f`, or restart dockerd."
)
# reasons of sections, then of dockerd
_FAILED: Mapping[Reason, str] = {
    "RolledBack": _TAKEN_BACK,
    "StorageFull": _FLASH,
    "StorageFailed": _STATE_FILES,
    "Refused": "Correct Docker's settings. Docker runs with the last ones that worked.",
    "NoProgram": "Install dockerd, or correct its path in the settings.",
    "NotStarted": _DOCKERDS_LOG,
    "NoAnswer": _DOCKERDS_LOG,
    "Died": _DOCKERDS_LOG,
    "NotConfirmed": _DOCKERDS_LOG,
    "DaemonDown": "Look at dockerd's log, the disk and the free memory.",
    "HostUnavailable": "Choose another listen address or port.",
    "Certificate": "Correct what the message names in the TLS settings.",
    "ClockNotSet": "Wait until the router has set its clock, or set it.",
}


# in this order, equally bad conditions of a resource are shown
CONDITIONS: dict[ConditionType, Row] = {
    ConditionType.ACCEPTED: Row(
        bad=False,
        level=Level.ERROR,
        sentence="The settings have a mistake; what runs stays as it is.",
        label="Mistake in the settings",
        advice="Correct the settings.",
    ),
    ConditionType.PASS_STUCK: Row(
        bad=True,
        level=Level.ERROR,
        sentence="ucidockd hangs and applies nothing.",
        label="ucidockd hangs",
        advice="Unmount the disk or network share that does not answer (`umount -l`), or restart ucidockd.",
    ),
    ConditionType.ENGINE_STORAGE_LOST: Row(
        bad=True,
        level=Level.ERROR,
        sentence="The disk that holds Docker's data is gone or read-only.",
        label="Disk is gone",
        advice="Mount the disk again. dockerd then restarts by itself.",
        advice_for={"ReadOnly": "Check the disk for errors (`dmesg`) and mount it again."},
    ),
    ConditionType.STORAGE_UNSUITABLE: Row(
        bad=True,
        level=Level.ERROR,
        sentence="No container can be created on the file system of data_root.",
        label="Unsuitable disk",
        advice="Choose a folder on a disk with ext4 or f2fs.",
        remedy=Remedy.OTHER_FOLDER,
    ),
    ConditionType.DISK_LOW: Row(
        bad=True,
        level=Level.WARNING,
        sentence="There is little space left on the disk of Docker's data.",
        label="Disk almost full",
        advice="Remove unused images, or move Docker's data to a larger disk.",
        remedy=Remedy.CLEAN_UP,
    ),
    ConditionType.DEGRADED: Row(
        bad=True,
        level=Level.ERROR,
        sentence="The last change failed.",
        reasons={"Drift": Level.WARNING},  # `on_drift report`: as the user wants it
        advice=_RETRIED,
        advice_for={
            **_FAILED,
            "Drift": "To keep the change, write it into the settings. To undo it, set `on_drift` to repair.",
            "Removing": _DELETED,
            "Dead": _DELETED,
        },
    ),
    ConditionType.DATA_LOST: Row(
        bad=True,
        level=Level.ERROR,
        sentence="A volume was removed outside of ucidockd and created again, empty.",
        label="Data lost",
        advice="Restore the data from a backup, if you have one.",
        remedy=Remedy.RESTORE,
    ),
    ConditionType.ROLLED_BACK: Row(
        bad=True,
        level=Level.ERROR,
        sentence="dockerd runs with its last working configuration.",
        label="Rolled back",
        advice="Correct Docker's settings; the same ones are not tried again.",
    ),
    ConditionType.INSECURE_API: Row(
        bad=True,
        level=Level.ERROR,
        sentence="Docker's API would be reachable without a client certificate.",
        label="Unprotected Docker API",
        advice="Turn on TLS with client certificates, or remove the TCP address.",
        remedy=Remedy.PROTECT_API,
    ),
    ConditionType.ENGINE_CHANGED: Row(
        bad=True,
        level=Level.ERROR,
        sentence="Docker runs with other data than before, so nothing is created.",
        label="Different engine",
        advice="Undo the change, move the data, or start with an empty Docker.",
        remedy=Remedy.USE_ENGINE,
    ),
    ConditionType.FIREWALL_OPEN: Row(
        bad=True,
        level=Level.ERROR,
        sentence="The rules that block interfaces from containers are missing.",
        label="Firewall rules missing",
        advice="Until then those devices can reach containers. Is `iptables` or `nftables` installed?",
        remedy=Remedy.BLOCK_ACCESS,
    ),
    ConditionType.ENGINE_IMPAIRED: Row(
        bad=True,
        level=Level.WARNING,
        sentence="Something that dockerd needs is missing, and a restart did not bring it back.",
        label="Docker is impaired",
        advice="Stop dockerd and start it again, and look at its log.",
    ),
    ConditionType.PUBLIC_PORT: Row(
        bad=True,
        level=Level.WARNING,
        sentence="A published port can be reached from the internet.",
        label="Open to the internet",
        advice="Block access from the internet, or publish the port at the router's LAN address.",
        remedy=Remedy.BLOCK_ACCESS,
    ),
    ConditionType.ADDRESS_MISSING: Row(
        bad=True,
        level=Level.ERROR,
        sentence="A port is published at an address that the router does not have.",
        label="Address missing",
        advice="Choose an address of the router for the port, or none.",
    ),
    ConditionType.PORT_UNREACHABLE: Row(
        bad=True,
        level=Level.WARNING,
        sentence="The firewall lets nothing reach a published port.",
        label="Cannot be reached",
        advice="Allow it in the router's firewall.",
        advice_for={"NoZone": "Give the network a firewall zone."},
        remedy=Remedy.ALLOW_IN,
    ),
    ConditionType.NO_INTERNET: Row(
        bad=True,
        level=Level.WARNING,
        sentence="The firewall keeps the container from the internet.",
        label="No internet",
        advice="Allow it in the router's firewall. If the container needs no internet, make its network internal.",
        advice_for={
            "NoZone": "Give the network a firewall zone.",
            "NoUplinkZone": "Add the interface to the internet to a zone of the router's firewall.",
        },
        remedy=Remedy.ALLOW_OUT,
    ),
    ConditionType.HOST_CONTROL: Row(
        bad=True,
        level=Level.WARNING,
        sentence="The container can take control of the router.",
        label="Can control the router",
        advice="Nothing to do if you trust this container. Otherwise remove that right or folder.",
    ),
    ConditionType.SHARED_ORIGIN_PORTS: Row(
        bad=True,
        level=Level.WARNING,
        sentence="Browsers send your LuCI login to a web page of this container.",
        label="Gets your LuCI login",
        advice="Use https for LuCI: set `uhttpd.main.redirect_https` to 1.",
    ),
    ConditionType.BACKUP_FAILED: Row(
        bad=True,
        level=Level.ERROR,
        sentence="The last backup failed.",
        label="Backup failed",
        advice="Correct what the message names and make the backup again.",
        advice_for={"NoSpace": "Make room in the folder of the backups, or keep fewer of them."},
        remedy=Remedy.BACK_UP,
    ),
    ConditionType.DELIVERED: Row(
        bad=False,
        level=Level.WARNING,
        sentence="The last notice was not delivered.",
        label="Not delivered",
        advice="Correct the address or the login of the notice, then send a test.",
        remedy=Remedy.CHECK_NOTICE,
    ),
    ConditionType.STORAGE_READ_ONLY: Row(
        bad=True,
        level=Level.WARNING,
        sentence="A folder of the container is on a read-only file system.",
        label="Read-only folder",
        advice="Check the disk for errors and mount it again. If the container only reads, mark the volume as read-only.",
    ),
    ConditionType.ZONE_UNSET: Row(
        bad=True,
        level=Level.WARNING,
        sentence="The network is not in any firewall zone.",
        label="In no firewall zone",
        advice="Correct the router's firewall or network settings.",
    ),
    ConditionType.WAITING: Row(
        bad=True,
        level=Level.WAITING,
        sentence="Something that it needs is not there yet.",
        label="Waiting",
        advice="It starts by itself as soon as that is there.",
    ),
    ConditionType.RESTART_NEEDED: Row(
        bad=True,
        level=Level.WAITING,
        sentence="dockerd must be restarted to apply its settings.",
        label="Restart needed",
        advice="Use `systemctl restart docker`, or `/etc/init.d/dockerd restart` on OpenWrt.",
        advice_for={"Reload": "Use `systemctl reload docker`, or send SIGHUP to dockerd."},
    ),
    ConditionType.IMAGE_READY: Row(
        bad=False,
        level=Level.WAITING,
        sentence="The image is not here yet.",
        label="Image missing",
        advice_for={
            "PullFailed": "Check the name of the image, the internet connection and, for a private image, the login.",
            "NoSpace": "Remove unused images.",
        },
    ),
    ConditionType.SYNCED: Row(
        bad=False,
        level=Level.WAITING,
        sentence="Not applied yet.",
        reasons={
            "BackOff": Level.ERROR,
            "Conflict": Level.ERROR,
            "NameTaken": Level.ERROR,
            "NewerVersion": Level.ERROR,
            "EngineTooOld": Level.ERROR,
            "RolledBack": Level.ERROR,
            "Refused": Level.ERROR,
            "LeftOut": Level.ERROR,
            "Failed": Level.ERROR,
            "Held": Level.OFF,
            "Grace": Level.OFF,
        },
        advice_for={
            **_FAILED,
            "BackOff": _RETRIED,
            "Failed": _RETRIED,
            "Conflict": "Take it over, or choose another name.",
            "NameTaken": "Choose another name, or rename or remove the other one.",
            "NewerVersion": "Install that version of ucidockd again, or a newer one.",
            "EngineTooOld": "Remove the option, or update Docker.",
            "LeftOut": "Correct the settings that the message names. Everything else is applied.",
            "VolumeDiffers": "Make a volume with another name and copy the data.",
            "SubnetOverlaps": "Choose another subnet.",
            "BridgeTaken": "Choose another name for the bridge.",
        },
    ),
    ConditionType.HEALTHY: Row(
        bad=False,
        level=Level.WAITING,
        sentence="The health check has not passed.",
        reasons={"Unhealthy": Level.ERROR},
        advice_for={"Unhealthy": "Its log may say why. A restart sometimes helps."},
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
        advice_for={"CrashLoop": "Look at its log for the cause. Docker keeps starting it."},
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
    """The position of a condition in the table."""
    return _ORDER[kind]


def level_of(kind: ConditionType, *, status: bool, reason: Reason) -> Level:
    """The severity of a condition in its present state."""
    row = CONDITIONS[kind]
    return row.reasons.get(reason, row.level) if status is row.bad else Level.OK


def sentence_of(kind: ConditionType, *, status: bool) -> str:
    """The text for people for a condition without a message; "" if it is not bad."""
    row = CONDITIONS[kind]
    return row.sentence if status is row.bad else ""


_WORDS: Mapping[Reason, str] = {
    "BackOff": "Retrying",
    "BridgeTaken": "Bridge name in use",
    "Certificate": "No certificate",
    "ClockNotSet": "Clock is not set",
    "DaemonDown": "Docker does not run",
    "Died": "dockerd ended",
    "EngineChanged": "Different engine",
    "EngineTooOld": "Docker is too old",
    "Held": "Left as it is",
    "HostUnavailable": "Address not available",
    "LeftOut": "Partly applied",
    "NameTaken": "Name in use",
    "NewerVersion": "Made by a newer version",
    "NoAnswer": "dockerd does not answer",
    "NoProgram": "dockerd is missing",
    "NotListening": "Starting or stopping",
    "NotStarted": "dockerd did not start",
    "Pending": "In progress",
    "StorageFailed": "Flash does not work",
    "StorageFull": "Flash is full",
    "SubnetOverlaps": "Subnet in use",
    "VolumeDiffers": "Cannot be changed",
    "CrashLoop": "Keeps crashing",
    "Absent": "Not created",
    "Grace": "Being removed",
}


def words_of(reason: Reason) -> str:
    """A reason in words."""
    return _WORDS.get(reason) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", reason).capitalize()


def label_of(kind: ConditionType, *, status: bool, reason: Reason) -> str:
    """A few words for a condition in its present state, such as `Rolled back`."""
    row = CONDITIONS[kind]
    if row.label and status is row.bad:
        return row.label
    return words_of(reason)


def advice_of(kind: ConditionType, *, status: bool, reason: Reason) -> str:
    """What people can do about a condition in its present state; "" if they can only wait."""
    row = CONDITIONS[kind]
    return row.advice_for.get(reason, row.advice) if status is row.bad else ""


def remedy_of(kind: ConditionType, *, status: bool) -> Remedy | None:
    """What helps against a condition in its present state."""
    row = CONDITIONS[kind]
    return row.remedy if status is row.bad else None


def verdict(levels: Mapping[ConditionType, Level]) -> tuple[Level, ConditionType]:
    """The condition that decides about a resource: the worst one, and among equals the first in the table.

    A resource that has not been compared with its section yet is waiting.
    """
    bad = [kind for kind, level in levels.items() if level is not Level.OK]
    if bad:
        told = min(bad, key=lambda kind: (_RANK[levels[kind]], _ORDER[kind]))
        return levels[told], told
    # notices have no object on the engine that could be in sync
    if ConditionType.DELIVERED in levels:
        return Level.OK, ConditionType.DELIVERED
    return (Level.OK if ConditionType.SYNCED in levels else Level.WAITING), ConditionType.SYNCED


def runs(resource: Mapping[str, Any]) -> bool:
    """Whether a container runs, according to the status JSON."""
    return any(c["type"] == ConditionType.RUNNING and c["status"] for c in resource["conditions"])
