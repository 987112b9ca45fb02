# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks what containers wait for: mounts, files, devices, interfaces, the clock, and their bind sources.

A missing bind source is never created: on a router it would end up on the flash.

`usb:VID:PID[:serial]` is found in sysfs, whatever its port and number. A name that matches no device, or two of them, is
not resolved, and its container waits. If a device has several nodes, a serial port comes first (a Zigbee or modem
stick), then nodes of other drivers, then the raw USB device; among equals the one of the lowest interface. Reads sysfs
(Documentation/ABI/stable/sysfs-bus-usb, kernel) and blocks meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from agent.errors import PathError
from agent.files.user_paths import PATHS, Question, View, is_mounted, mode_of, no_folder
from agent.model.addresses import Interface
from agent.model.identity import Key
from agent.model.observed import Record
from agent.model.quantities import clock_is_set
from agent.model.resources import Container, Desired, WaitFor, WaitKind
from agent.plan.draft import Missing
from agent.plan.records import applied_waits, as_applied, waits_of
from agent.router.addresses import is_up

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """Facts that were collected before, for all containers."""

    now: float
    usb: Mapping[str, Plugged]
    interfaces: Mapping[str, Interface] | None
    silent: str
    look: View


def waiting(
    desired: Desired,
    *,
    now: float,
    usb: Mapping[str, Plugged],
    interfaces: Mapping[str, Interface] | None = None,
    silent: str = "",
) -> dict[str, Missing]:
    """Key -> the first missing condition, for containers that have to wait. `now`: wall clock, seconds.

    `usb`: name -> where the device is, for each name in `usb_names`. `interfaces`: netifd's; if it is None, or does
    not know a name, the kernel's device of that name counts. `silent`: why netifd does not answer; then `interfaces`
    are the last known ones.
    """
    # all paths in one request: a hanging mount then costs one time-out per pass, not one per container
    look = PATHS.view(question for container in desired.containers for question in _questions(container, usb))
    looked = _Looked(now=now, usb=usb, interfaces=interfaces, silent=silent, look=look)
    missing = ((Key("container", c.section), _missing(c, looked)) for c in desired.containers)
    return {key: item for key, item in missing if item is not None}


def lost(
    desired: Desired,
    records: Iterable[Record],
    missing: Mapping[str, Missing],
    *,
    now: float,
    usb: Mapping[str, Plugged],
    interfaces: Mapping[str, Interface] | None = None,
    silent: str = "",
) -> dict[str, Missing]:
    """Key -> the missing condition of those with which its container was last applied. `missing`: the result of
    `waiting` for the present sections; the rest is as for `waiting`."""
    looked = _Looked(now=now, usb=usb, interfaces=interfaces, silent=silent, look=PATHS.view())
    own = {r.section: r for r in records if r.kind == "container" and not r.swap}
    found: dict[str, Missing] = {}
    for container in desired.containers:
        key = Key("container", container.section)
        # an edit that names other disks must not stop a container that still has the old ones
        before = _applied(desired, container, own.get(container.section))
        item = missing.get(key) if before is None else _missing(before, looked)
        if item is not None:
            found[key] = item
    return found


def applied_names(desired: Desired, records: Iterable[Record]) -> list[str]:
    """The `usb:` devices that containers were applied with, if their sections have changed since; sorted."""
    own = {r.section: r for r in records if r.kind == "container" and not r.swap}
    before = (_applied(desired, c, own.get(c.section)) for c in desired.containers)
    return usb_names(Desired(containers=tuple(c for c in before if c is not None)))


def _applied(desired: Desired, container: Container, record: Record | None) -> Container | None:
    """The container as it was last applied, if its section has changed since; otherwise None."""
    if record is None:
        return None
    same = record.spec_hash == desired.spec_hashes.get(Key("container", container.section))
    if same and not container.unread and (not record.waits_known or record.waits == waits_of(container)):
        return None
    before = as_applied(replace(container, unread=()), record)
    if before is None or not record.waits_known:
        return before
    return replace(before, policy=replace(container.policy, wait_for=applied_waits(record)))


def waiting_elsewhere(desired: Desired, *, now: float) -> dict[str, Missing]:
    """Like `waiting`, if the engine is on another machine: only the clock, and files that sections read, can be checked
    here."""
    found: dict[str, Missing] = {}
    for container in desired.containers:
        spec, waits = container.spec, container.policy.wait_for
        # a USB device is looked up in this machine's sysfs, but the container runs on another one
        names = [device.host for device in spec.devices] + [w.target for w in waits]
        if usb := next((name for name in names if name.startswith("usb:")), ""):
            reason = f"{usb} can be found on this machine only, and the engine is on another machine"
            found[Key("container", container.section)] = Missing(reason=reason)
        elif any(w.kind is WaitKind.CLOCK for w in waits) and not clock_is_set(now):
            found[Key("container", container.section)] = Missing(reason="the clock is not set")
        elif container.unread:
            found[Key("container", container.section)] = Missing(reason=container.unread[0].reason)
    return found


def usb_names(desired: Desired) -> list[str]:
    """The `usb:` devices that containers use or wait for, sorted."""
    found = {device.host for c in desired.containers for device in c.spec.devices}
    found |= {w.target for c in desired.containers for w in c.policy.wait_for if w.kind is WaitKind.DEVICE}
    return sorted(name for name in found if name.startswith("usb:"))


def with_plugged(desired: Desired, usb: Mapping[str, Plugged]) -> Desired:
    """The configuration with the paths of USB devices, which are not part of specs and their hashes."""
    containers = tuple(replace(c, plugged=_places(c, usb)) for c in desired.containers)
    return replace(desired, containers=containers)


def _places(container: Container, usb: Mapping[str, Plugged]) -> tuple[tuple[str, str], ...]:
    names = sorted({device.host for device in container.spec.devices} & usb.keys())
    return tuple((name, usb[name].path) for name in names if usb[name].path)


def _questions(container: Container, usb: Mapping[str, Plugged]) -> Iterator[Question]:
    """The checks that `_missing` will make: checking all at once is cheaper."""
    # what is missing here is asked later, one by one and each with a deadline of its own
    for wanted in container.policy.wait_for:
        if wanted.kind is WaitKind.MOUNT:
            yield is_mounted, wanted.target
        elif wanted.kind is WaitKind.FILE or (wanted.kind is WaitKind.DEVICE and wanted.target not in usb):
            yield mode_of, wanted.target
    for device in container.spec.devices:
        if device.host not in usb:
            yield mode_of, device.host
    for mount in container.spec.mounts:
        if mount.is_bind:
            yield mode_of, mount.source


def _missing(container: Container, looked: _Looked) -> Missing | None:
    """The first missing condition. Without a mount, interface or device a container must not run; a clock that is set
    back does not stop it."""
    waits = container.policy.wait_for
    # The first result is shown, and decides whether a running container is stopped. So conditions that stop it come
    # first.
    found = chain(
        (_wait_for(wanted, looked) for wanted in waits if wanted.kind is not WaitKind.CLOCK),
        (_device(device.host, looked) for device in container.spec.devices),
        (_wait_for(wanted, looked) for wanted in waits if wanted.kind is WaitKind.CLOCK),
        (_bind(mount.source, looked) for mount in container.spec.mounts if mount.is_bind),
        (Missing(reason=each.reason) for each in container.unread),
    )
    return next((item for item in found if item is not None), None)


def _wait_for(wanted: WaitFor, looked: _Looked) -> Missing | None:
    target = wanted.target
    there: object
    if wanted.kind is WaitKind.DEVICE:
        return _device(target, looked)
    if wanted.kind is WaitKind.MOUNT:
        there = _seen(is_mounted, target, looked)
        reason = f"nothing is mounted on {target}"
        if not there and (wrong := _seen(no_folder, target, looked)):
            reason = f"{reason}: {wrong}" if isinstance(wrong, str) else wrong.reason
    elif wanted.kind is WaitKind.FILE:
        there = _seen(mode_of, target, looked)
        reason = f"{target} is not there: another disk, or an empty one"
    elif wanted.kind is WaitKind.INTERFACE:
        there, reason = is_up(target, looked.interfaces), f"{target} is not up"
        if looked.silent and not there and target not in (looked.interfaces or {}):
            # as for a mount that does not answer, a running container is left alone
            return Missing(reason=f"it is not known whether {target} is up: {looked.silent}", keep=True)
    else:
        there, reason = clock_is_set(looked.now), "the clock is not set"
    if isinstance(there, Missing):
        return there
    return None if there else Missing(reason=reason, stop=wanted.kind is not WaitKind.CLOCK)


def _seen(question: Callable[[str], Value], path: str, looked: _Looked) -> Value | Missing:
    """The answer to a question about a path. Without an answer the container waits, but is not stopped: the path may
    still be there."""
    try:
        return looked.look(question, path)
    except PathError as exc:
        return Missing(reason=str(exc))


def _bind(source: str, looked: _Looked) -> Missing | None:
    mode = _seen(mode_of, source, looked)
    if isinstance(mode, Missing):
        return mode
    return None if mode is not None else Missing(reason=f"bind source {source} is not there")


def _device(path: str, looked: _Looked) -> Missing | None:
    """Checks a device. If two devices match, or one was just plugged in, it is unclear which to use: a running container
    continues."""
    if path in looked.usb:
        found = looked.usb[path]
        return None if found.path else Missing(reason=found.reason, stop=found.gone)
    mode = _seen(mode_of, path, looked)
    if isinstance(mode, Missing):
        return mode
    if mode is None:
        return Missing(reason=f"device {path} is not there", stop=True)
    fits = stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISDIR(mode)
    return None if fits else Missing(reason=f"{path} is not a device", stop=True)


SETTLE_S = 2.0  # a loose contact comes and goes faster
_ORDER = ("tty", "hidraw", "video4linux", "block", "sound", "usbmisc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugged:
    """Where a device is: `path`, or "" with the `reason`. `gone`: a container that needs it cannot run."""

    path: str = ""
    reason: str = ""
    gone: bool = False


@dataclass(slots=True, kw_only=True)
class UsbDevices:
    """Resolves names, and withholds new results until they have not changed for `SETTLE_S`.

    A loose contact must not recreate a container ten times a second. The removal of a device counts immediately.
    """

    monotonic: Callable[[], float]
    sysfs: Path = Path("/sys")
    dev: Path = Path("/dev")
    _settled: dict[str, str] = field(default_factory=dict)  # name -> the path that was returned
    # name -> (what is seen now, since when)
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def resolve(self, name: str) -> Plugged:
        """The present place of one device."""
        found = find_usb(name, sysfs=self.sysfs, dev=self.dev)
        now = self.monotonic()
        # devices that are present at the agent's start count at once; only later ones have to settle
        path, since = self._seen.get(name, (found.path, now - SETTLE_S))
        if path != found.path:
            since = now
        self._seen[name] = (found.path, since)
        # immediately: the container must not keep using a node that another device may get
        if not found.path:
            self._settled.pop(name, None)
            return found
        if self._settled.get(name) != found.path and now - since < SETTLE_S:
            return Plugged(reason=f"{name} has just come, as {found.path}")
        self._settled[name] = found.path
        return found

    def settles_in(self) -> float | None:
        """Seconds until the first recently plugged device has settled; None if there is none."""
        fresh = [s for name, (path, s) in self._seen.items() if path and self._settled.get(name) != path]
        return max(0.0, min(fresh) + SETTLE_S - self.monotonic()) if fresh else None


def find_usb(name: str, *, sysfs: Path, dev: Path) -> Plugged:
    """The node of the only device that matches the name."""
    _, vendor, product, *serial = name.split(":", 3)
    fitting = [
        folder
        for folder in sorted((sysfs / "bus/usb/devices").glob("*"))
        if (_read(folder, "idVendor"), _read(folder, "idProduct")) == (vendor, product)
        and (not serial or _read(folder, "serial") == serial[0])
    ]
    if not fitting:
        return Plugged(reason=f"{name} is not plugged in", gone=True)
    # do not guess between two identical devices: ports and numbers change whenever they are plugged in
    if len(fitting) > 1:
        serials = ", ".join(_read(folder, "serial") or "none" for folder in fitting)
        wish = "" if serial else f": add a serial number ({serials})"
        return Plugged(reason=f"{name} fits {len(fitting)} devices{wish}")
    path = next((path for path in _nodes(fitting[0], dev) if path.exists()), None)
    if path is None:
        return Plugged(reason=f"{name} is plugged in but has no device node", gone=True)
    return Plugged(path=str(path))


def _read(folder: Path, name: str) -> str:
    """An attribute; "" if it does not exist, or if the device was just removed."""
    try:
        text = (folder / name).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return text.lower() if name.startswith("id") else text


def _nodes(folder: Path, dev: Path) -> Iterator[Path]:
    """Device nodes of one USB device, the most useful first. Directories of other devices behind a hub are not entered."""
    found: list[tuple[int, int, Path]] = []
    for interface in sorted(folder.resolve().glob("*:*")):
        for place, inner, files in os.walk(interface):
            inner.sort()
            if "dev" in files:
                kind = Path(place, "subsystem").resolve().name
                rank = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
                # a driver may give the node another name than its directory, or a subdirectory of /dev (snd/pcmC0D0p)
                lines = _read(Path(place), "uevent").splitlines()
                names = [line.removeprefix("DEVNAME=") for line in lines if line.startswith("DEVNAME=")]
                found.append((rank, len(found), dev / (names[0] if names else Path(place).name)))
    yield from (path for _, _, path in sorted(found))
    bus, number = _read(folder, "busnum"), _read(folder, "devnum")
    if bus.isdigit() and number.isdigit():
        yield dev / f"bus/usb/{int(bus):03}/{int(number):03}"
