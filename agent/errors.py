# SPDX-License-Identifier: GPL-2.0-or-later
"""The error tree, split by whose fault an error is. Each class has a stable `code` for JSON and exit paths.

UcidockdError
+-- ConfigError      a user can correct it (UCI, arguments)
+-- PathError        a path that the user names cannot be used
|   +-- PathAwayError    it may exist later: nothing is there yet, or its file system does not answer
+-- DataError        an archive, a backup or its target cannot be used
+-- ConflictError    two writers, or a foreign object in our way
+-- EngineError      the Docker Engine failed or refused; `retryable` says whether a retry may succeed
+-- DaemonError      dockerd could not be started, or did not accept a change
+-- FirewallError    iptables is missing or failed
+-- BusError         ubus failed
+-- StorageError     our own files cannot be written or read
+-- CertificateError certificates could not be created
+-- ClockNotSetError the clock must be set first
+-- NoticeError      a notice could not be sent
+-- InternalError    our own defect
"""

from __future__ import annotations

from typing import ClassVar, Literal

Reason = Literal[
    "Absent",
    "Allowed",
    "Applied",
    "BackOff",
    "BlockFailed",
    "BridgeTaken",
    "Certificate",
    "ClockNotSet",
    "Completed",
    "ConfiguredElsewhere",
    "Conflict",
    "ControlsHost",
    "CrashLoop",
    "Created",
    "DaemonDown",
    "DataRoot",
    "Dead",
    "Died",
    "Disabled",
    "Disk",
    "Drift",
    "EngineChanged",
    "EngineInvalid",
    "EngineSlow",
    "EngineTlsFailed",
    "EngineTooOld",
    "EngineUnreachable",
    "Exited",
    "Failed",
    "Fallback",
    "FileSystem",
    "Grace",
    "Healthy",
    "Held",
    "HostUnavailable",
    "InSync",
    "Invalid",
    "LeftOut",
    "Missing",
    "NameTaken",
    "NewerImage",
    "NewerVersion",
    "NoAnswer",
    "NoForwarding",
    "NoPass",
    "NoProgram",
    "NoRule",
    "NoSpace",
    "NoUplinkZone",
    "NoZone",
    "NotConfirmed",
    "NotHere",
    "NotListening",
    "NotSent",
    "NotStarted",
    "NotWritten",
    "Paused",
    "Pending",
    "Pinned",
    "PlainLuci",
    "Present",
    "PullFailed",
    "Pulling",
    "Reachable",
    "ReadOnly",
    "Ready",
    "Recovered",
    "Refused",
    "Reload",
    "Removing",
    "Restart",
    "RestartDidNotHelp",
    "RestartNeeded",
    "RolledBack",
    "Running",
    "Secure",
    "Sent",
    "Starting",
    "Stopped",
    "StorageFailed",
    "StorageFull",
    "Store",
    "SubnetOverlaps",
    "Unhealthy",
    "Unknown",
    "Unmounted",
    "Untagged",
    "Valid",
    "VolumeDiffers",
    "VolumeEmpty",
    "Waiting",
]
"""The reasons in a status: why a condition is as it is. `docs/troubleshooting.md` explains each."""


class UcidockdError(Exception):
    """Base of all errors that we raise on purpose."""

    code: ClassVar[str] = "error"
    rolled_back = False  # whether a change was undone because of this error


class ConfigError(UcidockdError):
    """Configuration or arguments that a user can correct."""

    code: ClassVar[str] = "config"


class UsageError(ConfigError):
    """The command line is wrong; the message says what to write. `command`: the command's name, "" if it is not known."""

    def __init__(self, message: str, command: str = "") -> None:
        super().__init__(message)
        self.command = command


class UciEditError(ConfigError):
    """A change of a UCI package that `uci` would refuse with a non-zero exit code."""

    code = "uci-edit"


class PathError(UcidockdError):
    """A path that the user names cannot be accessed or read; the message says which path and why."""

    code: ClassVar[str] = "path"


class PathAwayError(PathError):
    """The path may work later: nothing exists there yet, or its file system is not mounted, fails or does not answer."""


class DataError(UcidockdError):
    """An archive is damaged, does not fit, or cannot be copied into a volume."""

    code: ClassVar[str] = "data"


class ConflictError(UcidockdError):
    """Another program changed or owns what we were about to change."""

    code: ClassVar[str] = "conflict"


class StorageLostError(ConflictError):
    """The file system of the engine's data is not mounted: any operation now would work on the bare mount point."""

    code: ClassVar[str] = "storage-lost"


class EngineError(UcidockdError):
    """The Docker Engine failed or refused.

    `status` is the HTTP status of the Engine API, 0 if there was no answer. `output`: the last lines that the
    affected container printed, if any.
    """

    code: ClassVar[str] = "engine"

    def __init__(self, message: str, *, status: int = 0, retryable: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        self.output = ""  # the last output of the container that failed


class EngineUnreachableError(EngineError):
    """No connection to the engine: the result of the call is unknown."""

    code: ClassVar[str] = "engine-unreachable"
    reason: ClassVar[Reason] = "EngineUnreachable"  # the reason in the status

    def __init__(self, message: str) -> None:
        super().__init__(message, status=0, retryable=True)


class EngineSlowError(EngineUnreachableError):
    """The engine accepted the call and did not answer in time: it may still be working on it."""

    code: ClassVar[str] = "engine-slow"
    reason: ClassVar[Reason] = "EngineSlow"


class EngineInvalidError(EngineUnreachableError):
    """The answer is not that of an engine: neither the result of the call nor the engine's state is known."""

    code: ClassVar[str] = "engine-invalid"
    reason: ClassVar[Reason] = "EngineInvalid"


class EngineTlsError(EngineUnreachableError):
    """Our certificates cannot be used, or one side does not trust the other's."""

    code: ClassVar[str] = "engine-tls"
    reason: ClassVar[Reason] = "EngineTlsFailed"


class EngineClockError(EngineTlsError):
    """The clock is not set, so the validity of certificates cannot be checked."""

    code: ClassVar[str] = "clock-not-set"
    reason: ClassVar[Reason] = "ClockNotSet"


NO_SPACE = "no space left on device"  # strerror(ENOSPC), which the engine passes on


class NoSpaceError(EngineError):
    """The disk with the engine's data has no room for the operation."""

    code: ClassVar[str] = "no-space"

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


class LeftoverError(EngineError):
    """The engine cannot start a container because of what it left behind itself when it was killed."""

    code: ClassVar[str] = "leftover"


class StorageError(UcidockdError):
    """A file of ours cannot be read or written. `full`: because of missing space, which a user can free."""

    code: ClassVar[str] = "storage"

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class DaemonError(UcidockdError):
    """dockerd did not start, died, or did not accept a change. `reason` is the reason of the condition."""

    code: ClassVar[str] = "daemon"

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason


class FirewallError(UcidockdError):
    """iptables is missing, or failed."""

    code: ClassVar[str] = "firewall"


class BusError(UcidockdError):
    """ubus is not available or refused. `status` is the ubus status (enum ubus_msg_status), 0 without an answer."""

    code: ClassVar[str] = "bus"

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class CertificateError(UcidockdError):
    """Certificates could not be created: the child process that makes them failed, or their folder cannot be used."""

    code: ClassVar[str] = "certificate"


class ClockNotSetError(UcidockdError):
    """The clock shows a time before this program was written; everything that depends on dates waits."""

    code: ClassVar[str] = "clock-not-set"


class NoticeError(UcidockdError):
    """A notice was not delivered. `retryable`: a retry may succeed. `after_s`: seconds to wait first, if the receiver
    said so.
    """

    code: ClassVar[str] = "notice"

    def __init__(self, message: str, *, retryable: bool = True, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.after_s = after_s


class AlreadyRunningError(UcidockdError):
    """Another agent holds the lock."""

    code: ClassVar[str] = "already-running"


class InternalError(UcidockdError):
    """Our code is in a state that it promised to be impossible."""

    code: ClassVar[str] = "internal"


def plain_words(exc: BaseException) -> str:
    """The cause in words: `Connection reset by peer`, without the number with which the text of an OSError begins."""
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
