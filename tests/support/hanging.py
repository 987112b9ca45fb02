# SPDX-License-Identifier: GPL-2.0-or-later
"""A real mount that never answers, like a NAS that is switched off: FUSE without a server. Needs root."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from types import TracebackType

_LIBC = ctypes.CDLL(None, use_errno=True)


class HangingMount:
    """`with HangingMount(folder) as mount:` every call on `folder` hangs until `die`; then it fails with ENOTCONN."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._device = -1

    def __enter__(self) -> HangingMount:
        self.path.mkdir(parents=True, exist_ok=True)
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0"
        words = (b"hanging", os.fsencode(self.path), b"fuse", ctypes.c_ulong(0), options.encode())
        if _LIBC.mount(*words) != 0:
            raise OSError(ctypes.get_errno(), "cannot mount FUSE here")
        return self

    def die(self) -> None:
        """Ends the server, like that of a dead sshfs: hanging calls return."""
        if self._device >= 0:
            os.close(self._device)
            self._device = -1

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.die()
        subprocess.run(["umount", "-l", str(self.path)], check=False)
