# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd` in a real terminal, and what a person sees in it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Sequence
from types import TracebackType

_CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A process with a terminal of its own. `text` is all that it has written."""

    def __init__(
        self, words: Sequence[str], *, columns: int = 80, rows: int = 24, **environment: str
    ) -> None:
        self.text = ""
        self._seen = 0
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            for name in ("COLUMNS", "LINES", "NO_COLOR"):
                os.environ.pop(name, None)
            os.environ.update({"TERM": "xterm", **environment})
            self._size(0, rows, columns)
            os.execv(sys.executable, [sys.executable, "-m", "agent", *words])
        self._size(self._fd, rows, columns)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    @staticmethod
    def _size(descriptor: int, rows: int, columns: int) -> None:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        """As a person who drags the window's corner."""
        self._size(self._fd, rows, columns)
        os.kill(self.pid, signal.SIGWINCH)

    def type(self, text: str) -> None:
        """Keys."""
        os.write(self._fd, text.encode())

    def read_until(self, wanted: str, limit_s: float = 20) -> str:
        """Everything behind what the last call returned, up to and with `wanted`."""
        begin, end = self._seen, time.monotonic() + limit_s
        while (at := self.text.find(wanted, begin)) < 0:
            if not self._read(end):
                raise AssertionError(f"{wanted!r} did not come: {self.text[begin:]!r}")
        self._seen = at + len(wanted)
        return self.text[begin : self._seen]

    def _read(self, end: float) -> bool:
        left = end - time.monotonic()
        if left <= 0 or not select.select([self._fd], [], [], left)[0]:
            return False
        try:
            piece = os.read(self._fd, 65536)
        except OSError:  # the other end is closed
            return False
        self.text += piece.decode("utf-8", "replace")
        return bool(piece)

    def end(self, limit_s: float = 20) -> int:
        """Waits for its end; the exit code."""
        end = time.monotonic() + limit_s
        while self._read(end):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def lines(self) -> list[str]:
        """Without colours and cursor movements, and without blanks at line ends."""
        return [line.rstrip() for line in _CODES.sub("", self.text).replace("\r\n", "\n").split("\n")]
