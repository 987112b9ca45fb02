# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes as the kernel shows them (proc(5)): dockerd, and processes of the engine's containers. A process is
identified by its number and start time, and awaited by a pidfd.

dockerd outlives the agent that started it. The next agent has to find it again, and dockerd is not its child.
Processes of containers are ended here where the Engine API has no call for it.
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
    """The process that was started with `--config-file` and this file (or a link to it); the oldest if
    there are several.
    """
    wanted = os.path.realpath(config_file)
    found = [
        process for pid in _pids() if _config_of(pid, wanted) and (process := process_of(pid)) is not None
    ]
    return min(found, key=lambda process: process.started, default=None)


def serving(path: str, *, name: str) -> Process | None:
    """The process with this name that listens on a unix socket (unix(7), SO_PEERCRED: the process that called listen)."""
    with socket.socket(socket.AF_UNIX) as link:
        # a dockerd that hangs accepts no connections once its queue is full
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
    # accept `--config-file=X` and `--config-file X`; Go also allows a single dash
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name.lstrip("-") == _ARGUMENT.lstrip("-") and word.startswith("-"):
            return os.path.realpath(value if equals else after) == wanted
    return False


def process_of(pid: int) -> Process | None:
    """The running process with this number, None if it has ended (a zombie has)."""
    found = _look(pid)
    return None if found is None or found[1] in {"Z", "X"} else found[0]


def identity_of(pid: int) -> Process | None:
    """Like `process_of`, but also returns a process that has ended and was not reaped yet."""
    found = _look(pid)
    return None if found is None else found[0]


def _look(pid: int) -> tuple[Process, str] | None:
    """The process and its state; proc(5), /proc/pid/stat."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may contain blanks and parentheses
    return Process(pid=pid, started=int(fields[19])), fields[0]


def began_after(process: Process, path: Path) -> bool:
    """Whether the process started after the last change of the file, so that it has read the current content."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        written = path.stat().st_mtime
    except OSError:
        return False
    tick = 1 / os.sysconf("SC_CLK_TCK")
    return booted + (process.started + 1) * tick >= written  # the kernel rounds the start time down to a tick


def is_alive(process: Process) -> bool:
    """Whether the number still belongs to that process."""
    return process_of(process.pid) == process


def wait_end(process: Process, timeout_s: float | None) -> bool:
    """Waits until the process with all its threads has ended; False after `timeout_s` (None: no limit).

    The main thread may be a zombie while other threads still hold files, sockets and children.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not is_alive(
            process
        ):  # checked once we hold the descriptor, so that the number cannot be reused in between
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
    finally:
        os.close(descriptor)


def send_signal(process: Process, number: signal.Signals) -> None:
    """Sends a signal to exactly that process; does nothing if it has ended."""
    # open the descriptor before checking the start time, so that the number cannot belong to another process
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


# Processes of the engine's containers, if the engine is local: what a process sees and which container it belongs to
# (proc(5)), the process of an exec, and what a killed engine left behind.
#
# /proc/PID/net shows the process's own network namespace, whichever namespace the reader is in.


def network_devices(pid: int) -> frozenset[str] | None:
    """Names of the devices in the process's network namespace; None if it has ended."""
    try:
        lines = (_PROC / str(pid) / "net" / "dev").read_text().splitlines()
    except OSError:
        return None
    return frozenset(line.partition(":")[0].strip() for line in lines if ":" in line)


def has_files_on(pid: int, folder: str) -> bool | None:
    """Whether the process has a file open on the mount that `folder` is on now; None if that cannot be determined."""
    try:
        if os.readlink(_PROC / str(pid) / "ns" / "mnt") != os.readlink(_PROC / "self" / "ns" / "mnt"):
            return None  # another mount namespace numbers its mounts differently
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
    """Whether the process's control group contains this full container id; False if it has ended."""
    try:
        return bool(container) and container in (_PROC / str(pid) / "cgroup").read_text()
    except OSError:
        return False


def _mount_of(info: Path) -> str:
    """The `mnt_id` of an open file; "" if it was closed meanwhile."""
    try:
        lines = info.read_text().splitlines()
    except OSError:
        return ""
    return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")


# Ends the process of an exec. The Engine API has no call for it, so it is signalled here, if the engine is local.
#
# The engine reports a process id of its own host, which may be another machine. The control group shows whether the
# process belongs to the container, because it contains the container's id. Any other process is left alone.


HANGUP_S = 1.0  # to end by SIGHUP, before SIGKILL


async def end_process(pid: int, container: str, *, hangup_s: float = HANGUP_S) -> bool:
    """Sends SIGHUP to the process group, and SIGKILL after `hangup_s` seconds. `container` is the full id.

    False if no such process of the container is here: it is on another machine, or in another pid namespace.
    """
    try:
        descriptor = os.pidfd_open(pid)  # from here on a reuse of the pid would be noticed
    except OSError:
        return False
    try:
        if not is_in_container(pid, container):
            return False
        # SIGHUP first, as when a terminal is closed; then SIGKILL
        for number in (signal.SIGHUP, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                # the process of an exec leads a session and so a process group; the kernel hangs up its background jobs
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
    loop.add_reader(descriptor, gone.set)  # a pidfd becomes readable when its process has ended
    try:
        async with asyncio.timeout(limit_s):
            await gone.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


# Ends what a killed engine left behind, if the engine is local.
#
# An engine that is killed during a start (seen with 20.10) does not know the task that containerd started for it, or
# containerd keeps a shim or a directory without a task. Every later start of that container is then refused, and the
# Engine API has no call for it. Once the processes have ended, containerd cleans up everything except the directory.


_REFUSALS = re.compile(
    r"task [0-9a-f]{64}: already exists|id already in use"
    # the directory: 20.10.24, 26.1.5 and 28.5.2 say it with other words before (`wire.bodies` removes most of them)
    r"|mkdir \S*/[0-9a-f]{64}: file exists"
)
_LIMIT_S = 5.0  # for killed processes to be gone


def is_leftover_error(message: str) -> bool:
    """Whether this message means that a start was refused because of such leftovers."""
    return _REFUSALS.search(message) is not None


def end_leftover(container: str) -> bool:
    """Kills what is left of a container (full id). False if nothing of it runs here. Blocks for up to 5 s."""
    left = [descriptor for pid in _pids() if (descriptor := _open_member(pid, container)) is not None]
    try:
        for descriptor in left:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        deadline = time.monotonic() + _LIMIT_S
        for descriptor in left:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)  # readable when its process has ended
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
        return bool(left)
    finally:
        for descriptor in left:
            os.close(descriptor)


def _open_member(pid: int, container: str) -> int | None:
    """A descriptor of the process if it belongs to the container; the pid alone could be reused."""
    # checked before and after opening, so that the number cannot belong to another process
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
    """Whether the process is in the container, or is its shim."""
    if is_in_container(pid, container):
        return True
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"containerd-shim" in words[0] and container.encode() in words
