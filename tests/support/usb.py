# SPDX-License-Identifier: GPL-2.0-or-later
"""USB devices in a private sysfs, in the kernel's layout, and their nodes in a private /dev."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


class UsbBus:
    """`folder`/sys and `folder`/dev. Nodes have the device number of /dev/null; creating them needs root."""

    def __init__(self, folder: Path) -> None:
        self.sysfs, self.dev = folder / "sys", folder / "dev"
        self._bus = self.sysfs / "bus/usb/devices"
        self._bus.mkdir(parents=True)
        self.dev.mkdir()

    def plug(self, port: str, ids: str, *nodes: str, serial: str = "") -> None:
        """Adds a device such as ("1-1", "0403:6001", "tty/ttyUSB0"): one interface for each node, `class/name`."""
        hub = self._bus / port.rpartition(".")[0]
        device = (hub.resolve() if "." in port and hub.exists() else self.sysfs / "devices/pci0/usb1") / port
        device.mkdir(parents=True)
        vendor, _, product = ids.partition(":")
        attributes = {"idVendor": vendor, "idProduct": product, "busnum": "1", "devnum": "7"}
        attributes |= {"serial": serial} if serial else {}
        for name, value in attributes.items():
            (device / name).write_text(value + "\n")
        (self._bus / port).symlink_to(device)
        self._node("bus/usb/001/007")
        for number, node in enumerate(nodes):
            kind, _, name = node.partition("/")
            place = device / f"{port}:1.{number}" / name / kind / name
            place.mkdir(parents=True)
            (self.sysfs / "class" / kind).mkdir(parents=True, exist_ok=True)
            (place / "subsystem").symlink_to(self.sysfs / "class" / kind)
            (place / "dev").write_text("188:0\n")
            (place / "uevent").write_text(f"MAJOR=188\nMINOR=0\nDEVNAME={name}\n")
            self._node(name)

    def unplug(self, port: str) -> None:
        device = (self._bus / port).resolve()
        for uevent in device.rglob("uevent"):
            (self.dev / uevent.read_text().partition("DEVNAME=")[2].strip()).unlink()
        (self._bus / port).unlink()
        shutil.rmtree(device)

    def _node(self, name: str) -> None:
        path = self.dev / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
