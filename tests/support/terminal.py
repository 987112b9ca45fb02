# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in a terminal of a given width: what was written, and what is on the screen at the end."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SEQUENCE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")
_LIMIT_S = 60


@dataclass(frozen=True)
class Shown:
    """`raw` as it was written, `lines` as they appear on the screen, without colours."""

    code: int
    raw: str

    @property
    def lines(self) -> list[str]:
        return screen_of(self.raw)


def screen_of(text: str) -> list[str]:
    """A screen of unlimited height: cursor up and home, erase, line ends. Colours are ignored."""
    lines, row, column = [""], 0, 0
    for match in _SEQUENCE.finditer(text):
        piece = match[0]
        if piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\r":
            column = 0
        elif match[2] == "A":
            row = max(0, row - int(match[1] or "1"))
        elif match[2] == "H":
            row = column = 0
        elif match[2] == "J":
            lines = [*lines[:row], lines[row][:column]]
        elif match[2] == "K":
            lines[row] = lines[row][:column]
        elif match[2] is None:
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines]


class Terminal:
    """`ucidockd WORDS` in a terminal; `environment` in addition to TERM=xterm."""

    def __init__(
        self, words: Sequence[str], *, columns: int, rows: int = 24, environment: dict[str, str] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
        env |= {"TERM": "xterm", **(environment or {})}
        command = [sys.executable, "-m", "agent", *words]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=ROOT, start_new_session=True
        )
        os.close(slave)
        self.raw = ""
        self._seen = 0  # the position up to which `read_until` has read

    def wait_for(self, text: str) -> None:
        """Waits until the text was written."""
        deadline = time.monotonic() + _LIMIT_S
        while text not in self.raw:
            assert time.monotonic() < deadline, self.raw
            assert self._read(), self.raw

    def read_until(self, wanted: str) -> str:
        """What was written since the last call, up to and including `wanted`."""
        begin, deadline = self._seen, time.monotonic() + _LIMIT_S
        while (at := self.raw.find(wanted, begin)) < 0:
            assert time.monotonic() < deadline, self.raw[begin:]
            assert self._read(), self.raw[begin:]
        self._seen = at + len(wanted)
        return self.raw[begin : self._seen]

    def type(self, text: str) -> None:
        """Types text."""
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Resizes the window."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def interrupt(self) -> None:
        """Sends Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def press(self, keys: str) -> None:
        """Sends keys as if they were typed."""
        os.write(self._master, keys.encode())

    def end(self) -> Shown:
        """Reads until the command has ended."""
        deadline = time.monotonic() + _LIMIT_S
        while self._read():
            assert time.monotonic() < deadline, self.raw
        os.close(self._master)
        return Shown(self.process.wait(_LIMIT_S), self.raw)

    def _read(self) -> bool:
        """Reads more output; False at the end."""
        if not select.select([self._master], [], [], 0.2)[0]:
            return True
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.raw += piece.decode()
        return bool(piece)


def shown(words: Sequence[str], *, columns: int = 80, **more: str) -> Shown:
    """Runs a command from beginning to end."""
    return Terminal(words, columns=columns, environment=more).end()
