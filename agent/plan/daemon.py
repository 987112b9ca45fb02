# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides about dockerd: renders daemon.json and classifies what a change requires (nothing, reload or restart). Pure.

`agent.uci.decode_daemon` provides the settings and `agent.dockerd.change` applies the result. Problems found on the
way (an insecure host that was refused, a key that this engine is too old for) go to the status board as findings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from agent.errors import Reason
from agent.model.dockerd import log_drivers
from agent.model.dockerd.settings import (
    DAEMON_KEY,
    DaemonSettings,
    DaemonTarget,
    Document,
    Effect,
    Host,
    Json,
    data_root,
    format_document,
)
from agent.model.dockerd.table import (
    TABLE,
    DaemonOption,
    Version,
    effect_of,
    entry_keys,
    identity_of,
    put,
    stops_containers,
    value_at,
    without_key,
)
from agent.model.dockerd.values import is_loopback
from agent.model.secrets import MASK, is_secret_name
from agent.plan.operations import Finding

# Which image store dockerd will use, and whether that store works on the file system of its data_root. Pure.
#
# Source: moby daemon/graphdriver (up to 28), daemon/image_store_choice.go (29), graphdriver.HasPriorDriver.


CONTAINERD_DEFAULT = (29, 0)  # the first version that keeps images in containerd's store by default
# graph drivers that dockerd dropped, each with the first version that lacks it
_GONE = {"aufs": (24, 0), "overlay": (24, 0), "devicemapper": (25, 0)}
# stores of the engine itself, as opposed to containerd's
GRAPH_DRIVERS = frozenset({"overlay2", "vfs", "fuse-overlayfs", "btrfs", "zfs", *_GONE})
# its snapshotters, which the engine's own store does not have
_CONTAINERD_ONLY = frozenset({"native", "overlayfs"})
_BY_OVERLAY = frozenset({"overlay", "overlay2", "overlayfs"})  # all that mount with overlayfs
# file systems that cannot be the upper layer of an overlay (kernel, fs/overlayfs; overlay on overlay was tested)
_NO_UPPER = frozenset({"overlay", "aufs", "nfs", "nfs4", "cifs", "smb3", "9p", "ecryptfs", "fuse"})
# neither owners nor links: no driver works there
_NO_UNIX = frozenset({"vfat", "msdos", "exfat", "ntfs", "ntfs3"})
_STORE = "features.containerd-snapshotter"


def driver_trouble(values: Document, version: Version, prior: Collection[str] = ()) -> str:
    """Why this dockerd cannot use the requested storage driver; "" if it can."""
    # dockerd only reports this by failing to start, and then the last working settings would come back
    driver = str(values.get("storage-driver") or "")
    gone = _GONE.get(driver)
    if gone is not None and version >= gone:
        return (
            f"dockerd {gone[0]}.{gone[1]} removed the storage driver {driver}; another driver does not find"
            " its images and containers; use overlay2, or remove storage_driver"
        )
    if driver in _CONTAINERD_ONLY and not by_containerd(values, version, prior):
        return (
            f"{driver} belongs to containerd's image store: also set `option containerd_snapshotter '1'`"
            f" (Docker 23 or newer), or use {'vfs' if driver == 'native' else 'overlay2'}"
        )
    if driver in GRAPH_DRIVERS - {"btrfs", "zfs", "fuse-overlayfs"} and value_at(values, _STORE) is True:
        return f"containerd's image store has no driver {driver}; use overlayfs or native, or remove storage_driver"
    return ""


def by_containerd(values: Document, version: Version, prior: Collection[str]) -> bool:
    """Whether dockerd will keep images in containerd's store. `prior`: drivers that have left data in data_root."""
    said = value_at(values, _STORE)
    if isinstance(said, bool) and version >= (23, 0):
        return said
    driver = str(values.get("storage-driver") or "")
    if version < CONTAINERD_DEFAULT or values.get("userns-remap") or set(prior) & GRAPH_DRIVERS:
        return False
    return driver not in GRAPH_DRIVERS


def store_trouble(
    document: Document, version: Version, *, file_system: str, prior: Collection[str] = ()
) -> str:
    """Why containers cannot be created on this file system, and what to do about it; "" if no reason is known.

    A dockerd up to 28 with no driver set, or any dockerd without containerd's store, falls back to vfs where overlay
    cannot work.
    """
    root = str(document.get("data-root") or "/var/lib/docker")
    if file_system.startswith("fuse"):
        file_system = "fuse"
    # FAT and its relatives have neither owners nor links: dockerd still starts there, but every container fails.
    if file_system in _NO_UNIX:
        return (
            f"{root} is on {file_system}, which supports neither owners nor links: no container can run there. Format the"
            " disk as ext4 or f2fs, or move data_root to a disk that is"
        )
    driver = str(document.get("storage-driver") or "")
    containerd = by_containerd(document, version, prior)
    if file_system not in _NO_UPPER or not (driver in _BY_OVERLAY or (containerd and not driver)):
        return ""
    name = driver or "overlayfs"
    copies = "native" if containerd else "vfs"
    return (
        f"{root} is on {_named(file_system)}, where dockerd's storage driver {name} cannot mount: images load, but no"
        f" container can be created. Mount a disk with ext4 or f2fs and set data_root to it, or set storage_driver"
        f" '{copies}', which copies every layer and takes much more space"
    )


# file systems unfit for a copy of the data: a reboot would empty them, or a network outage would take them away
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "rootfs"})
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse"})
_COPIED_AS_FILES = frozenset({"overlay2", "vfs", "fuse-overlayfs", "overlayfs", "native"})


def move_trouble(store: str, file_system: str) -> str:
    """Why an engine's data cannot be copied to a file system of this type; "" if it can. `store`: the engine's name for
    its storage driver."""
    kind = "fuse" if file_system.startswith("fuse") else file_system
    # btrfs and zfs keep layers as subvolumes and snapshots, devicemapper keeps them in a pool: copying files misses
    # them
    driver = store.removeprefix("containerd's ").partition(" ")[0]
    if driver not in _COPIED_AS_FILES:
        return f"the storage driver {driver or '(not known)'} does not keep layers as files, which could be copied"
    if not kind:
        return "its file system is not known"
    if kind in _NO_UNIX:
        return f"{file_system} supports neither owners nor links: format the disk as ext4 or f2fs"
    if kind in _REMOTE:
        return f"{file_system} is a file system of another machine, on which Docker's data is not safe"
    if kind in _IN_MEMORY:
        return f"{file_system} is in memory, and empty after a reboot: mount a disk there first"
    if kind in ("overlay", "squashfs"):
        return f"{_named(file_system)} would have the same limits: mount a disk with ext4 or f2fs"
    return ""


def _named(file_system: str) -> str:
    return (
        "OpenWrt's overlay of the flash"
        if file_system == "overlay"
        else f"a file system of type {file_system}"
    )


_IP6TABLES_STABLE = (27, 0)  # older engines refuse ip6tables without `experimental`
_IPV6_ALONE = (27, 0)  # older engines do not choose an IPv6 subnet for docker0 by themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Paths of the certificates that dockerd presents; `cacert` is "" if clients are not verified."""

    cacert: str
    cert: str
    key: str


class LeftOut(NamedTuple):
    """A UCI option that is not applied, and why."""

    option: str
    why: str

    def __str__(self) -> str:
        return f"{self.option} {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The rendered document and the remarks about it.

    `left_out`: options that are not applied here, and why; dockerd then runs with other settings than UCI asks for.
    `warnings` are for the log and for `render`.
    """

    document: Document
    findings: tuple[Finding, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonPlan:
    """What it takes to get from the running settings to the target, and why.

    `causes` name keys, never values, because proxies and log options hold passwords. `stops`: containers stop with
    the restart, because the change requires it or because the user set `live_restore 0`.
    """

    effect: Effect
    causes: tuple[str, ...] = ()
    stops: bool = False

    @property
    def cause(self) -> str:
        return "; ".join(self.causes)


# see `minimal`: their defaults would change rules that the user manages
_KEPT_FIREWALL = (
    "iptables",
    "ip6tables",
    "experimental",
    "firewall-backend",
    "ip-forward",
    "ip-forward-no-drop",
)
NO_CHANGE = DaemonPlan(effect=Effect.NOTHING)


def render(
    settings: DaemonSettings,
    *,
    version: Version,
    socket: str,
    identity: Identity | None = None,
    unavailable: Collection[str] = (),
    refused: Document | None = None,
    kept: Document | None = None,
    prior: Collection[str] = (),
) -> Rendered:
    """Renders daemon.json for an engine of this version.

    `socket` is the unix socket that the agent itself uses; it is always one of the hosts. `identity` is None while
    there are no certificates (yet); until then no host that needs TLS is opened. Hosts that are `unavailable` on this
    machine now are left out, because a single one would keep dockerd from starting.

    `refused`: key of the table, or of an entry of a list -> why it cannot be used here. A refused entry is left out.
    A refused key, and a key whose option is invalid in UCI, keeps its value from `kept`, the document that dockerd
    follows or last followed; without a value there, it is left out. So a mistake neither stops containers nor
    switches to another engine. `prior`: storage drivers that have left data in data_root.
    """
    document: dict[str, Json] = {}
    warnings: list[str] = []
    left_out: list[LeftOut] = []
    why_not = dict(refused or {})
    if trouble := driver_trouble(settings.values, version, prior):
        why_not["storage-driver"] = trouble
    six = settings.values.get("ipv6") and not settings.values.get("fixed-cidr-v6")
    if six and version < _IPV6_ALONE:
        why_not["ipv6"] = f"dockerd {_dotted(version)} does not start unless fixed_cidr_v6 is set too"
    for row in TABLE:
        if row.key in settings.left_out or row.key in why_not:
            if row.key in why_not:
                left_out.append(LeftOut(row.uci, f"is not applied: {why_not[row.key]}"))
            old = value_at(kept or {}, row.key)
            put(document, row.key, row.default if old is None else old)
            continue
        value, told = _of_version(row, _without_refused(row, settings.values, why_not, left_out), version)
        left_out += told
        if row.uci == "log_opts" and isinstance(value, dict):
            value = _of_driver(
                value, str(document.get("log-driver") or log_drivers.DEFAULT), version, left_out
            )
        put(document, row.key, _merged(document, row, row.default if value is None else value))
    if document.get("ip6tables") and version < _IP6TABLES_STABLE:
        document["experimental"] = True
        warnings.append(
            f"ip6tables switches on experimental features: dockerd {_dotted(version)} requires them"
        )
    tcp = [host for host in settings.hosts if not host.is_unix]
    # anyone who can reach a TCP host without certificates controls this machine
    may_open = settings.allow_insecure_tcp or (settings.tls is not None and settings.tls.verify)
    allowed = [host for host in tcp if may_open or is_loopback(host)]
    closed = [host for host in tcp if host not in allowed]
    if settings.tls is not None and identity is None:
        allowed = []
    unix = [host for host in settings.hosts if host.is_unix and _same(host.address) != _same(socket)]
    opened = [host.text for host in (*unix, *allowed) if host.text not in unavailable]
    document["hosts"] = [f"unix://{socket}", *opened]
    document.update(_tls_keys(settings, identity))
    return Rendered(
        document=document,
        findings=(_insecure(settings, allowed, closed),),
        left_out=tuple(left_out),
        warnings=tuple(warnings),
    )


def _without_refused(
    row: DaemonOption, values: Document, why_not: Mapping[str, object], left_out: list[LeftOut]
) -> Json:
    """The value without the entries that cannot be used here."""
    whole = value_at(values, row.key)
    for key in entry_keys(row, whole):
        if key in why_not:
            values = without_key(values, key)
            left_out.append(LeftOut(row.uci, f"{key.partition('.')[2]} is not applied: {why_not[key]}"))
    left = value_at(values, row.key)
    # what became empty here goes completely; what was given empty is the user's wish
    return left if left or left == whole else None


def _of_driver(
    given: dict[str, Json], driver: str, version: Version, left_out: list[LeftOut]
) -> dict[str, Json]:
    """Keeps the log options that the driver supports in this version: dockerd does not start with any other."""
    known, kept = log_drivers.known_options(driver), {}
    for name, value in given.items():
        since = log_drivers.option_since(name)
        if known is not None and name not in known:
            left_out.append(LeftOut("log_opts", f"{name} is not applied: it is not an option of {driver}"))
        elif version < since:
            left_out.append(_too_old("log_opts", name, version, since))
        else:
            kept[name] = value
    return kept


def _of_version(row: DaemonOption, value: Json, version: Version) -> tuple[Json, list[LeftOut]]:
    """Splits a value into the part that this engine version supports and the options to report as left out."""
    if value is None:
        return None, []
    if version < row.since:
        return None, [_too_old(row.uci, None, version, row.since)]
    if row.needs is None:
        return value, []
    # A single value is supported or not; of a list, the entries that the engine supports are still useful.
    if not isinstance(value, list):
        needed = row.needs(value)
        return (value, []) if version >= needed else (None, [_too_old(row.uci, value, version, needed)])
    new = [entry for entry in value if version < row.needs(entry)]
    told = [_too_old(row.uci, entry, version, row.needs(entry)) for entry in new]
    return [entry for entry in value if entry not in new], told


def _too_old(option: str, value: Json, version: Version, needed: Version) -> LeftOut:
    why = f"is left out: dockerd {_dotted(version)} does not know it (since {_dotted(needed)})"
    return LeftOut(option, why if value is None else f"{value} {why}")


def _merged(document: Document, row: DaemonOption, value: Json) -> Json:
    """Merges an object-valued key with the parts of it that have their own UCI options, which take precedence."""
    if not isinstance(value, dict):
        return value
    own = {other.key.partition(".")[2] for other in TABLE if other.key.startswith(f"{row.key}.")}
    there = document.get(row.key)
    rest = {name: item for name, item in value.items() if name not in own}
    return {**rest, **(there if isinstance(there, dict) else {})} or None


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _tls_keys(settings: DaemonSettings, identity: Identity | None) -> dict[str, Json]:
    """Any value of `tlsverify`, even false, switches TLS on. Without `tls: false`, an open host delays the start by 15 s
    (moby cmd/dockerd, loadListeners)."""
    if settings.tls is None or identity is None:
        return {"tls": False}
    keys: dict[str, Json] = {
        "tls": True,
        "tlsverify": settings.tls.verify,
        "tlscert": identity.cert,
        "tlskey": identity.key,
    }
    return {**keys, "tlscacert": identity.cacert} if settings.tls.verify else keys


def _same(path: str) -> str:
    """Normalizes /var/run to /run, its target: dockerd cannot open one socket under both names."""
    return path.replace("/var/run/", "/run/", 1) if path.startswith("/var/run/") else path


def _insecure(settings: DaemonSettings, allowed: list[Host], refused: list[Host]) -> Finding:
    """The condition InsecureAPI: false if everyone who connects from outside needs a certificate."""
    verified = settings.tls is not None and settings.tls.verify
    # If clients are verified, any address may be open: clients still need a certificate.
    exposed = [] if verified else [host for host in allowed if not is_loopback(host)]
    if refused:
        return _finding(
            "Refused",
            f"{_list(refused)} not opened: anyone who reaches it could control this machine",
        )
    if exposed:
        return _finding(
            "Allowed",
            f"anyone who reaches {_list(exposed)} controls this machine (`allow_insecure_tcp` is on)",
        )
    return Finding(key=DAEMON_KEY, type="InsecureAPI", status=False, reason="Secure")


def _finding(reason: Reason, message: str) -> Finding:
    return Finding(key=DAEMON_KEY, type="InsecureAPI", status=True, reason=reason, message=message)


def _list(hosts: list[Host]) -> str:
    return ", ".join(host.text for host in hosts)


def classify(running: DaemonTarget | None, target: DaemonTarget) -> DaemonPlan:
    """What it takes to get from the settings that dockerd follows to the target. `running` is None if they are not
    known; then only a restart is certain to work."""
    if running is None:
        return DaemonPlan(
            effect=Effect.RESTART, causes=("it is not known what dockerd runs with",), stops=False
        )
    changed = changed_keys(running.document, target.document)
    causes = [_cause(key, running.document, target.document) for key in changed]
    # dockerd reads certificates and arguments only at its start; they are not keys of the table
    effects = [effect_of(key) for key in changed]
    if running.material != target.material and target.document.get("tls"):
        causes.append("the certificates changed")
        effects.append(Effect.RESTART)
    if running.arguments != target.arguments:
        causes.append("dockerd_args changed")
        effects.append(Effect.RESTART)
    if not effects:
        return NO_CHANGE
    if Effect.RESTART not in effects:
        return DaemonPlan(effect=Effect.RELOAD, causes=tuple(causes))
    return DaemonPlan(
        effect=Effect.RESTART, causes=tuple(causes), stops=any(stops_containers(key) for key in changed)
    )


def apply_live_restore(change: DaemonPlan, settings: DaemonSettings | None) -> DaemonPlan:
    """Applies `live_restore 0`: if the user set it explicitly, containers stop with dockerd. An unset option does not
    count."""
    never = settings is not None and settings.values.get("live-restore") is False
    return replace(change, stops=True) if never and change.effect is Effect.RESTART else change


def changed_keys(old: Document, new: Document) -> tuple[str, ...]:
    """Keys whose values differ, sorted."""
    return tuple(sorted(key for key in {*old, *new} if old.get(key) != new.get(key)))


def _cause(key: str, old: Document, new: Document) -> str:
    if key not in new:
        return f"{key} removed"
    return f"{key} changed" if key in old else f"{key} set"


def minimal(target: Document, *, socket: str) -> Document:
    """The smallest document with which dockerd answers: its socket, the same data and storage, and containers left
    running.

    The firewall keys are kept too: their defaults would change firewall rules that the user manages.
    """
    return {
        **_firewall_of(target),
        **identity_of(target),
        "data-root": data_root(target),
        "hosts": [f"unix://{socket}"],
        "live-restore": True,
        "tls": False,
    }


def minimal_without_driver(target: Document, *, socket: str) -> Document:
    """The minimal document with the storage driver that dockerd chooses by itself. This is a different engine, so
    nothing may be created on it."""
    return {**minimal({"data-root": data_root(target)}, socket=socket), **_firewall_of(target)}


def _firewall_of(target: Document) -> dict[str, Json]:
    return {key: target[key] for key in _KEPT_FIREWALL if key in target}


def difference(old: bytes, new: bytes) -> str:
    """A unified diff of two daemon.json files, for people."""
    # imported here: only a preview needs it
    import difflib

    lines = difflib.unified_diff(
        old.decode(errors="replace").splitlines(),
        new.decode(errors="replace").splitlines(),
        "running",
        "wanted",
        lineterm="",
    )
    return "\n".join(lines)


def masked(document: Document) -> bytes:
    """daemon.json with possible secrets masked, for terminals, status and logs."""
    shown = dict(document)
    for key in ("log-opts", "proxies"):
        group = shown.get(key)
        if isinstance(group, Mapping):
            shown[key] = {
                # with `@` it is a URL with a login
                name: MASK if "@" in str(value) or is_secret_name(name) else value
                for name, value in group.items()
            }
    return format_document(shown)
