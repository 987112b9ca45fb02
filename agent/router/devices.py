# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the device node of `usb:VID:PID[:serial]` in sysfs, whatever port it is in and number it got.

A name that fits no stick, or two of them, is not resolved: its container waits. Of several nodes of one stick a serial
port is taken first (a Zigbee or modem stick), then what other drivers made, then the raw USB device; among equals the
one of the lowest interface. Reads sysfs (Documentation/ABI/stable/sysfs-bus-usb, kernel), blocks for that long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SETTLE_S = 2.0
_ORDER = ("tty", "hidraw", "video4linux", "block", "sound", "usbmisc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugged:
    """Where a device is: `path`, or "" and why there is none. `gone`: what needs it cannot run."""

    path: str = ""
    reason: str = ""
    gone: bool = False


@dataclass(slots=True, kw_only=True)
class UsbDevices:
    """Resolves names, and holds new answers back until they have stayed the same for `SETTLE_S`.

    A loose contact must not recreate a container ten times a second; that a device is gone counts at once.
    """

    monotonic: Callable[[], float]
    sysfs: Path = Path("/sys")
    dev: Path = Path("/dev")
    _settled: dict[str, str] = field(default_factory=dict)  # the paths given out
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)  # what is seen now, and since when

    def resolve(self, name: str) -> Plugged:
        """One device's place now."""
        found = find_usb(name, sysfs=self.sysfs, dev=self.dev)
        now = self.monotonic()
        # at the agent's start a device is where it is; only what comes later has to settle
        path, since = self._seen.get(name, (found.path, now - SETTLE_S))
        if path != found.path:
            since = now
        self._seen[name] = (found.path, since)
        if not found.path:  # at once: the container must not go on with a node that another stick may get
            self._settled.pop(name, None)
            return found
        if self._settled.get(name) != found.path and now - since < SETTLE_S:
            return Plugged(reason=f"{name} has just come, as {found.path}")
        self._settled[name] = found.path
        return found

    def settles_in(self) -> float | None:
        """Seconds until the first of those that came a moment ago has settled; None without any."""
        fresh = [s for name, (path, s) in self._seen.items() if path and self._settled.get(name) != path]
        return max(0.0, min(fresh) + SETTLE_S - self.monotonic()) if fresh else None


def find_usb(name: str, *, sysfs: Path, dev: Path) -> Plugged:
    """The node of the one device that fits the name."""
    _, vendor, product, *serial = name.split(":", 3)
    fitting = [
        folder
        for folder in sorted((sysfs / "bus/usb/devices").glob("*"))
        if (_read(folder, "idVendor"), _read(folder, "idProduct")) == (vendor, product)
        and (not serial or _read(folder, "serial") == serial[0])
    ]
    if not fitting:
        return Plugged(reason=f"{name} is not plugged in", gone=True)
    # which of two equal sticks is meant cannot be guessed: ports and numbers change with each plugging
    if len(fitting) > 1:
        serials = ", ".join(_read(folder, "serial") or "none" for folder in fitting)
        wish = "" if serial else f": add a serial number ({serials})"
        return Plugged(reason=f"{name} fits {len(fitting)} devices{wish}")
    path = next((path for path in _nodes(fitting[0], dev) if path.exists()), None)
    if path is None:
        return Plugged(reason=f"{name} is plugged in but has no device node", gone=True)
    return Plugged(path=str(path))


def _read(folder: Path, name: str) -> str:
    """An attribute; "" where it is not there, or the device went while we looked."""
    try:
        text = (folder / name).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return text.lower() if name.startswith("id") else text


def _nodes(folder: Path, dev: Path) -> Iterator[Path]:
    """Device nodes of one USB device, the most useful first. Hubs hold other devices' folders: those are not entered."""
    found: list[tuple[int, int, Path]] = []
    for interface in sorted(folder.resolve().glob("*:*")):
        for place, inner, files in os.walk(interface):
            inner.sort()
            if "dev" in files:
                kind = Path(place, "subsystem").resolve().name
                rank = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
                # drivers may name a node otherwise than its folder, below a folder of /dev too (snd/pcmC0D0p)
                lines = _read(Path(place), "uevent").splitlines()
                names = [line.removeprefix("DEVNAME=") for line in lines if line.startswith("DEVNAME=")]
                found.append((rank, len(found), dev / (names[0] if names else Path(place).name)))
    yield from (path for _, _, path in sorted(found))
    bus, number = _read(folder, "busnum"), _read(folder, "devnum")
    if bus.isdigit() and number.isdigit():
        yield dev / f"bus/usb/{int(bus):03}/{int(number):03}"
