# SPDX-License-Identifier: GPL-2.0-or-later
"""A private network for a whole test process."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

_CLONE_NEWNET = 0x4000_0000  # sched.h


def own_network() -> None:
    """Moves this thread, and everything that it starts from now on, into a new network namespace. Needs root. Raises
    OSError."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def listening_ports() -> set[str]:
    """Protocol and number of the listening ports in this thread's network namespace (proc(5), /proc/net/tcp), without
    ports that the kernel chose."""
    chosen = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = set()
    for protocol, waiting in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path("/proc/thread-self/net", protocol).read_text().splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == waiting and port < chosen:
                found.add(f"{protocol} {port}")
    return found
