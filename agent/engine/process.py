# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes as the kernel shows them: found by their arguments, known by number and start time, waited for by pidfd.

dockerd outlives the agent that started it, so the next one has to find it again, and it is not a child of that one.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import time
from pathlib import Path

from agent.model.dockerd.settings import Process

_PROC = Path("/proc")
_ARGUMENT = "--config-file"


def find_with_config(config_file: Path) -> Process | None:
    """The process that was given `--config-file` with that file (or a link to it); the oldest of several."""
    wanted = os.path.realpath(config_file)
    found = [
        process for pid in _pids() if _config_of(pid, wanted) and (process := process_of(pid)) is not None
    ]
    return min(found, key=lambda process: process.started, default=None)


def serving(path: str, *, name: str) -> Process | None:
    """The process of that name that listens at a unix socket (unix(7), SO_PEERCRED: the process that called listen)."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(2.0)
        try:
            link.connect(path)
            found = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid = struct.unpack("3i", found)[0]
    try:
        known = (_PROC / str(pid) / "comm").read_text().strip() == name
    except OSError:
        return None
    return process_of(pid) if known else None


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _config_of(pid: int, wanted: str) -> bool:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    arguments = [word.decode(errors="surrogateescape") for word in words]
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.lstrip("-") == _ARGUMENT.lstrip("-") and word.startswith("-"):
            return os.path.realpath(value if equals else after) == wanted
    return False


def process_of(pid: int) -> Process | None:
    """The living process of that number, None when it has ended (a zombie has)."""
    found = _look(pid)
    return None if found is None or found[1] in {"Z", "X"} else found[0]


def identity_of(pid: int) -> Process | None:
    """As `process_of`, for one that may have ended but was not reaped."""
    found = _look(pid)
    return None if found is None else found[0]


def _look(pid: int) -> tuple[Process, str] | None:
    """The process and its state; proc(5), /proc/pid/stat."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return Process(pid=pid, started=int(fields[19])), fields[0]


def began_after(process: Process, path: Path) -> bool:
    """Whether it began after the last change of that file: then it has read what is in there now."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        written = path.stat().st_mtime
    except OSError:
        return False
    tick = 1 / os.sysconf("SC_CLK_TCK")
    return booted + (process.started + 1) * tick >= written  # its start is cut to a tick


def is_alive(process: Process) -> bool:
    """Whether it is still that process."""
    return process_of(process.pid) == process


def wait_end(process: Process, timeout_s: float | None) -> bool:
    """Whether it has ended, all of its threads, within that time (None: as long as it takes).

    The first thread may be a zombie while others still hold the files, sockets and children.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not is_alive(
            process
        ):  # looked at after the descriptor is ours, so that the number was not given anew
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
    finally:
        os.close(descriptor)


def send_signal(process: Process, number: signal.Signals) -> None:
    """To that process and no other; quietly when it has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(process):
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
