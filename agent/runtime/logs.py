# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's log: information to standard output, what is wrong to standard error, which procd gives the priorities
`daemon.info` and `daemon.err`. All of it is plain text without secrets; what repeats itself is told seldom.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TextIO

from agent.model.plain_text import plain
from agent.model.secrets import hidden_text

AGAIN_S = 600.0  # a warning that goes on is told again after that, then after twice as long
AGAIN_LIMIT_S = 6 * 3600.0
QUIET_S = 90.0  # not heard for so long, it is a new one; back-off tries more often
_KEPT = 64
_NUMBER = re.compile(r"\d+")
_QUIET_LIBRARIES = ("urllib3", "watchdog", "asyncio", "docker", "requests", "websockets", "concurrent")
_FORMAT = "%(levelname)s %(name)s: %(message)s"


class PlainFormatter(logging.Formatter):
    """A record is one line. Lines of a traceback begin with `| `, so that none can pass for a record."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if again := getattr(record, "again", 0):
            message = f"{message} ({again} more times since it was told)"
        lines = [plain(hidden_text(f"{record.levelname} {record.name}: {message}"))]
        if record.exc_info:
            told = hidden_text(self.formatException(record.exc_info))
            lines += [f"| {plain(line)}" for line in told.split("\n")]
        return "\n".join(lines)


class Repeats(logging.Filter):
    """Warnings and errors that say the same again and again: once, then seldom, with how often they came meanwhile.

    Numbers in them do not count. One that was not heard for a while is new. `clock`: monotonic, seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], _Told] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key, now = (record.name, _NUMBER.sub("#", record.getMessage())), self._clock()
        with self._lock:
            known = self._known.get(key)
            if known is None or now - known.heard >= QUIET_S:
                self._known[key] = _Told(now)
                self._known.move_to_end(key)
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
                return True
            known.heard = now
            if now - known.told < known.wait_s:
                known.again += 1
                return False
            record.again = known.again
            known.told, known.again = now, 0
            known.wait_s = min(2 * known.wait_s, AGAIN_LIMIT_S)
            return True


class _Told:
    def __init__(self, now: float) -> None:
        self.told = self.heard = now
        self.wait_s, self.again = AGAIN_S, 0


def set_up_logging(level: str, *, out: TextIO | None = None, err: TextIO | None = None) -> None:
    """Of the whole process. `level`: debug, info, warning or error."""
    information = logging.StreamHandler(out or sys.stdout)
    information.addFilter(lambda record: record.levelno < logging.WARNING)
    wrong = logging.StreamHandler(err or sys.stderr)
    wrong.setLevel(logging.WARNING)
    wrong.addFilter(Repeats())
    for handler in (information, wrong):
        handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=level.upper(), handlers=[information, wrong], force=True)
    for name in _QUIET_LIBRARIES:  # debug of watchdog tells of each write to our own log
        logging.getLogger(name).setLevel(logging.WARNING)
