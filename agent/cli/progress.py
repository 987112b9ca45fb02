# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress bars of pulls while a reconcile is under way: drawn on a terminal's stderr, from the status board's changes."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from agent.cli.agent_client import follow
from agent.cli.output import Style
from agent.errors import UcidockdError
from agent.model.plain_text import plain

_PERCENT = re.compile(r"pulling (.+): ([0-9]{1,3}) %")
_BAR = 30


class Bars:
    """One line per pull under way, redrawn in place. Fed with changes of the status stream, by any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._style = Style.of(stream)
        self._pulls: dict[str, tuple[str, int]] = {}
        self._drawn = 0
        self._closed = False
        self._lock = threading.Lock()

    def feed(self, event: dict[str, Any]) -> None:
        """Takes a change in and redraws where it is about a pull."""
        with self._lock:
            resources = event.get("resources") or [event.get("resource")]
            seen = [self._take(resource) for resource in resources if resource]
            if any(seen) and not self._closed:
                self._draw()

    def _take(self, resource: dict[str, Any]) -> bool:
        image = next((c for c in resource["conditions"] if c["type"] == "ImageReady"), None)
        match = _PERCENT.fullmatch(image["message"]) if image and image["reason"] == "Pulling" else None
        if match is None:
            return self._pulls.pop(resource["key"], None) is not None
        self._pulls[resource["key"]] = (match[1], int(match[2]))
        return True

    def _draw(self) -> None:
        lines = [bar(name, percent, self._style) for name, percent in sorted(set(self._pulls.values()))]
        self._stream.write(self._erased() + "".join(line + "\n" for line in lines))
        self._stream.flush()
        self._drawn = len(lines)

    def _erased(self) -> str:
        return f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""

    def close(self) -> None:
        """Takes the bars off."""
        with self._lock:
            self._closed = True
            self._stream.write(self._erased())
            self._stream.flush()


def bar(name: str, percent: int, style: Style) -> str:
    """`[#####.....]  45 % nginx:1.27`."""
    full = _BAR * min(percent, 100) // 100
    line = f"[{'#' * full}{'.' * (_BAR - full)}] {percent:3} % {plain(name)}"
    return line[: style.width - 1] if style.width else line


@contextmanager
def bars_of(socket: str) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """Bars while the block runs, fed from the agent where it answers; None where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    bars = Bars(sys.stderr)

    def watch() -> None:
        try:
            for event in follow(socket, "/v1/status/stream"):
                bars.feed(event)
        except (UcidockdError, OSError, ValueError):
            return  # bars are an extra: what is wrong, the reconcile itself says

    threading.Thread(target=watch, name="bars", daemon=True).start()
    try:
        yield bars.feed
    finally:
        bars.close()
