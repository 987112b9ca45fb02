# SPDX-License-Identifier: GPL-2.0-or-later
"""A call as a user other than root: root gets no EACCES and has no process limit."""

from __future__ import annotations

import os
import resource
import traceback
from collections.abc import Callable

UID = 54_321  # unused: process limits are counted by user


def said_unprivileged(call: Callable[[], object], *, processes: int | None = None) -> str:
    """Runs `call` in a child process of that user; returns its exception as `Type: text`, "" if it raised none. Needs
    root."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _be_somebody(call, writer, processes)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0, said
    return said


def _be_somebody(call: Callable[[], object], writer: int, processes: int | None) -> None:
    """Never returns."""
    try:
        if processes is not None:
            resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        try:
            call()
        except Exception as exc:
            os.write(writer, f"{type(exc).__name__}: {exc}".encode())
        os._exit(0)
    except BaseException:
        os.write(writer, traceback.format_exc().encode())
    finally:
        os._exit(1)
