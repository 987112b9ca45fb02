# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends the process of an exec: the Engine API has no call for it, so it is signalled here, where the engine is local.

The engine names a process id of its own host. Whether that is this one tells the process's control group, which
carries the container's id; a process that is not provably in the container is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from agent.engine.process_view import is_in_container

HANGUP_S = 1.0


async def end_process(pid: int, container: str, *, hangup_s: float = HANGUP_S) -> bool:
    """SIGHUP to the process group, SIGKILL after `hangup_s` seconds. `container` is the full id.

    False when no such process of the container is here: it is on another machine, or in another pid namespace.
    """
    try:
        descriptor = os.pidfd_open(pid)  # from here on the number cannot become somebody else's unseen
    except OSError:
        return False
    try:
        if not is_in_container(pid, container):
            return False
        for number in (signal.SIGHUP, signal.SIGKILL):
            _signal(pid, descriptor, number)
            if await _exited(descriptor, hangup_s):
                break
        return True
    finally:
        os.close(descriptor)


def _signal(pid: int, descriptor: int, number: signal.Signals) -> None:
    """An exec's process leads its own session, and so a process group; its jobs get the kernel's hangup."""
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)


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
