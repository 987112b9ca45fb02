# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes as the kernel shows them (proc(5)), known by number and start time, waited for by pidfd: dockerd, and those of
the engine's containers.

dockerd outlives the agent that started it, so the next one has to find it again, and it is not a child of that one. Those of
containers are ended here where the Engine API has no call for it. /proc/PID/net shows the process's own namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
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
        # A dockerd that hangs takes no connections once its queue is full.
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
    # Both forms of an option: `--config-file=X` and `--config-file X`, which Go also takes with one dash.
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
        ):  # looked at after the descriptor is ours, so that the number was not given again
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
    finally:
        os.close(descriptor)


def send_signal(process: Process, number: signal.Signals) -> None:
    """To that process and no other; quietly when it has ended."""
    # The descriptor first, then the look at its start time: between the two the number cannot become another
    # process's.
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


# Processes of the engine's containers, seen and ended where the engine is local: what a process sees and where it belongs
# (proc(5)), the process of an exec, and what a killed engine left behind.
#
# /proc/PID/net shows the process's own network namespace, wherever the one who looks may be.


def network_devices(pid: int) -> frozenset[str] | None:
    """Names of the devices in its network namespace; None when the process has ended."""
    try:
        lines = (_PROC / str(pid) / "net" / "dev").read_text().splitlines()
    except OSError:
        return None
    return frozenset(line.partition(":")[0].strip() for line in lines if ":" in line)


def has_files_on(pid: int, folder: str) -> bool | None:
    """Whether it has a file open on the mount that `folder` is on now. None when that cannot be known."""
    try:
        if os.readlink(_PROC / str(pid) / "ns" / "mnt") != os.readlink(_PROC / "self" / "ns" / "mnt"):
            return None  # other mounts have other numbers
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            wanted = _mount_of(Path("/proc/self/fdinfo", str(descriptor)))
        finally:
            os.close(descriptor)
        infos = sorted((_PROC / str(pid) / "fdinfo").iterdir())
    except OSError:
        return None
    return any(_mount_of(info) == wanted for info in infos)


def is_in_container(pid: int, container: str) -> bool:
    """Whether its control group carries that id (the full one). False when it has ended."""
    try:
        return bool(container) and container in (_PROC / str(pid) / "cgroup").read_text()
    except OSError:
        return False


def _mount_of(info: Path) -> str:
    """The `mnt_id` of an open file; "" when it was closed meanwhile."""
    try:
        lines = info.read_text().splitlines()
    except OSError:
        return ""
    return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")


# Ends the process of an exec: the Engine API has no call for it, so it is signalled here, where the engine is local.
#
# The engine names a process id of its own host. Whether that is this one tells the process's control group, which
# carries the container's id; a process that is not provably in the container is left alone.


HANGUP_S = 1.0


async def end_process(pid: int, container: str, *, hangup_s: float = HANGUP_S) -> bool:
    """SIGHUP to the process group, SIGKILL after `hangup_s` seconds. `container` is the full id.

    False when no such process of the container is here: it is on another machine, or in another pid namespace.
    """
    try:
        descriptor = os.pidfd_open(pid)  # from here on the pid cannot be reused unnoticed
    except OSError:
        return False
    try:
        if not is_in_container(pid, container):
            return False
        # as when a terminal is closed, and then without asking
        for number in (signal.SIGHUP, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                # an exec's process leads its own session, and so a process group; its jobs get the kernel's hangup
                if os.getpgid(pid) == pid:
                    os.killpg(pid, number)
                else:
                    signal.pidfd_send_signal(descriptor, number)
            if await _exited(descriptor, hangup_s):
                break
        return True
    finally:
        os.close(descriptor)


async def _exited(descriptor: int, limit_s: float) -> bool:
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(descriptor, gone.set)  # a pidfd is readable once its process has ended
    try:
        async with asyncio.timeout(limit_s):
            await gone.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


# Ends what a killed engine left behind, where the engine is local.
#
# An engine that is killed in the middle of a start (seen with 20.10) does not know of the task that containerd began for
# it, or containerd keeps a shim or a directory without one; either way every later start of that container is refused.
# The Engine API has no call for it. Once the processes have ended, containerd clears the rest away, all but the directory.


_REFUSALS = re.compile(
    r"task [0-9a-f]{64}: already exists|id already in use"
    # the directory: as 20.10.24 and 26.1.5 say it, and as 28.5.2 does
    r"|failed to (?:start shim|create task for container): mkdir .*: file exists"
)
_LIMIT_S = 5.0


def tells_of_leftover(message: str) -> bool:
    """Whether the engine refused a start, with `message`, for what it left behind."""
    return _REFUSALS.search(message) is not None


def end_leftover(container: str) -> bool:
    """Kills what is left of a `container` (full id). False: nothing of it runs here. Blocks for up to 5 s."""
    left = [descriptor for pid in _pids() if (descriptor := _open_member(pid, container)) is not None]
    try:
        for descriptor in left:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        deadline = time.monotonic() + _LIMIT_S
        for descriptor in left:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)  # readable once its process has ended
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
        return bool(left)
    finally:
        for descriptor in left:
            os.close(descriptor)


def _open_member(pid: int, container: str) -> int | None:
    """A descriptor of the process if it is the container's; the pid alone could be reused."""
    # Looked at before and after: between the two the number cannot have become another process's.
    if not _belongs(pid, container):
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if _belongs(pid, container):
        return descriptor
    os.close(descriptor)
    return None


def _belongs(pid: int, container: str) -> bool:
    """It is in the container, or is the container's shim."""
    if is_in_container(pid, container):
        return True
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"containerd-shim" in words[0] and container.encode() in words
