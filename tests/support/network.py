# SPDX-License-Identifier: GPL-2.0-or-later
"""A network of one's own for a whole test process."""

from __future__ import annotations

import ctypes
import subprocess

_CLONE_NEWNET = 0x4000_0000  # sched.h


def own_network() -> None:
    """Puts this thread, and all that it starts from now on, into a new network namespace. Needs root. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
