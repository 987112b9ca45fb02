# SPDX-License-Identifier: GPL-2.0-or-later
"""A private network namespace: its ports, addresses and docker0 conflict with nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path


class OwnNetwork:
    """Created immediately; `name` is short and must be unique on this machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def path(self) -> Path:
        return Path("/run/netns", self.name)

    def words(self, *command: str) -> list[str]:
        """A command line that runs in the namespace."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.words(*command), check=check, capture_output=True, text=True, timeout=60)

    def add_address(self, address: str) -> None:
        """Adds an address like that of a LAN, on its own device."""
        device = f"lan{len(self.run('ip', '-o', 'link').stdout.splitlines())}"
        self.run("ip", "link", "add", device, "type", "bridge")
        self.run("ip", "addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
        self.run("ip", "link", "set", device, "up")

    def close(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
