# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the device node of `usb:VID:PID[:serial]` in sysfs, whatever its port and number.

A name that matches no device, or two of them, is not resolved, and its container waits. If a device has several
nodes, a serial port comes first (a Zigbee or modem stick), then nodes of other drivers, then the raw USB device;
among equals the one of the lowest interface. Reads sysfs (Documentation/ABI/stable/sysfs-bus-usb, kernel) and blocks
meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

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
