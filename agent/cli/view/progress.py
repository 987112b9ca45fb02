# SPDX-License-Identifier: GPL-2.0-or-later
"""Shows a reconcile while it runs: a line for each object that is done or failed, and on a terminal below them a line
for each operation in progress. It reads the changes of the status board, whichever process does the work.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from agent.cli.ask import follow
from agent.cli.output import Style, output_lines, wrapped
from agent.cli.plan import done_words, entries_view, levels_done
from agent.errors import UcidockdError
from agent.model.issues import plain

_PULLING = re.compile(r"pulling (.+): ([0-9]{1,3}) %")
_BAR = 20
_NARROW = 60  # columns
_REDRAW_S = 0.5
_CONNECT_S = 3.0  # to get the agent's first status
_DONE = {
    "create": "created",
    "start": "started",
    "stop": "stopped",
    "restart": "restarted",
    "unpause": "resumed",
    "update": "changed in place",
    "rename": "renamed",
    "reconnect": "reconnected",
    "replace": "replaced",
    "adopt": "taken over",
    "retire": "stopped, to be deleted later",
    "restore": "restored",
    "remove": "deleted",
    "forget": "forgotten",
    "note": "noted",
}


@dataclass(slots=True)
class _Work:
    """The work in progress on an object. `began` is monotonic, in seconds."""

    began: float
    doing: str
    notes: list[Mapping[str, Any]] = field(default_factory=list)
    percent: int | None = None


class ProgressView:
    """Writes to `stream`; any thread may feed it. `clock` is monotonic, in seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._style = Style.of(stream)
        self._live = stream.isatty()  # a terminal: the lines of works in progress are drawn again
        self._began = clock()  # of the reconcile
        self._works: dict[str, _Work] = {}  # in progress, by key
        # the notes of each object that were seen already
        self._known: dict[str, list[Mapping[str, Any]]] = {}
        self._told: set[str] = set()  # keys and errors that have a line already
        self._failed: set[str] = set()  # keys
        self._drawn, self._shown = 0, ""
        self._closed = False
        self._lock = threading.Lock()
        self.ready = threading.Event()  # set once the state before the reconcile is known

    # events

    def feed(self, event: Mapping[str, Any]) -> None:
        """Takes a page of a status, or a change."""
        with self._lock:
            if self._closed:
                # an event may still arrive after the last line was printed
                return
            if "resources" in event:
                for resource in event["resources"]:
                    # what the first status shows was done before this reconcile: remember it without printing it
                    if resource["key"] in self._known or self.ready.is_set():
                        self._take(resource)
                    else:
                        self._known[resource["key"]] = resource["operations"]
                        self._begin(resource)
                if "next" not in event:
                    self.ready.set()
            elif event.get("removed"):
                if event["key"] in self._works:
                    self._finish(event["key"])
            elif "resource" in event:
                self._take(event["resource"])
            self._draw()

    def _take(self, resource: Mapping[str, Any]) -> None:
        key = resource["key"]
        # compare whole notes, because the ring is short and its entries move
        known = self._known.get(key, [])
        fresh = [note for note in resource["operations"] if note not in known]
        self._known[key] = resource["operations"]
        for note in fresh:
            work = self._works.setdefault(key, _Work(self._clock(), ""))
            work.notes.append(note)
            if not note["ok"]:
                self._fail(key, note)
        self._begin(resource)
        synced = _condition(resource, "Synced")
        # check the notes too: the state before the first operation may have been Synced as well
        if key in self._works and synced is not None and synced["status"] and self._works[key].notes:
            self._finish(key)

    def _begin(self, resource: Mapping[str, Any]) -> None:
        key, synced, image = (
            resource["key"],
            _condition(resource, "Synced"),
            _condition(resource, "ImageReady"),
        )
        if synced is None or synced["status"] or synced["reason"] != "Pending":
            self._failed.discard(key)
            return
        if key in self._failed:
            return  # the board may still show what was planned before the failure
        work = self._works.setdefault(key, _Work(self._clock(), ""))
        todo = synced.get("details", {}).get("operations", "").split()
        left = todo[len(work.notes) :]
        if todo:
            work.doing = f"to {left[0]}" if left else ""
        else:
            work.doing = str(synced["message"])
        work.percent = None
        if image is not None and image["reason"] == "Pulling":
            match = _PULLING.fullmatch(image["message"])
            work.doing = f"pulling {match[1]}" if match else image["message"]
            work.percent = int(match[2]) if match else None

    def _finish(self, key: str) -> None:
        work = self._works.pop(key)
        words = [_DONE.get(note["op"], note["op"]) for note in work.notes if note["ok"]]
        took = sum(note.get("took_s", 0.0) for note in work.notes)
        self._say("good", f"{key}: {_and(words) or 'done'} ({seconds(took)})")
        self._told.add(key)

    def _fail(self, key: str, note: Mapping[str, Any]) -> None:
        self._works.pop(key, None)
        self._failed.add(key)
        if f"{key} {note['error']}" in self._told:
            return  # a retry with the same result
        self._say("bad", f"{key}: {note['op']} failed ({seconds(note.get('took_s', 0.0))}): {note['error']}")
        self._told.add(f"{key} {note['error']}")

    # drawing

    def _say(self, colour: str, text: str) -> None:
        self._erase()
        lines = wrapped(text, self._style)
        self._stream.write("".join(self._style(colour, line) + "\n" for line in lines))
        self._stream.flush()

    def _erase(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _draw(self) -> None:
        if not self._live or self._closed:
            return
        # Keep the last line free for the count of those that do not fit. A block higher than the terminal could not
        # be erased.
        room = max(shutil.get_terminal_size().lines - 2, 1)
        keys = sorted(self._works)
        shown = keys if len(keys) <= room else keys[: room - 1]
        lines = [self._line(key, self._works[key]) for key in shown]
        if len(shown) < len(keys):
            lines.append(f"... and {len(keys) - len(shown)} more")
        # some terminals break a line that fills the last column, which would then be two lines to erase
        width = max(self._style.width - 1, 20)
        text = "".join(self._style("busy", line[:width]) + "\n" for line in lines)
        # do not repaint unchanged text: over a slow line each repaint would flicker
        if self._drawn and text == self._shown:
            return
        self._erase()
        self._shown = text
        self._stream.write(text)
        self._stream.flush()
        self._drawn = len(lines)

    def _line(self, key: str, work: _Work) -> str:
        # whole seconds: a line that changes ten times a second is too much for a serial console
        bar = ""
        if work.percent is not None:
            bar = f"{work.percent} % " if self._style.width < _NARROW else f"{bar_of(work.percent)} "
        return plain(f"{key}: {self._clock() - work.began:.0f} s {bar}{work.doing}")

    def tick(self) -> None:
        """Redraws for the elapsed times."""
        with self._lock:
            if self._works:
                self._draw()

    def close(self) -> list[str]:
        """Removes the lines of work in progress; returns them."""
        with self._lock:
            self._erase()
            self._closed = True
            self._stream.flush()
            return [
                f"{key} ({work.doing})" if work.doing else key for key, work in sorted(self._works.items())
            ]

    def outcome(self, result: Mapping[str, Any]) -> list[str]:
        """The rest to report of a reconcile: what no change showed, the output of failed containers, the sum."""
        levels, style = levels_done(result["operations"]), self._style
        by_key: dict[str, list[str]] = {}
        for operation in result["operations"]:
            by_key.setdefault(operation["key"], []).append(_DONE.get(operation["op"], operation["op"]))
        # what failed in the end is not shown as done, even if steps before succeeded
        failed = {failure["key"] for failure in result["failed"]}
        lines = []
        for key, words in by_key.items():
            if key not in self._told and key not in failed:
                lines += [style("good", line) for line in wrapped(f"{key}: {_and(words)}", style)]
        for failure in result["failed"]:
            if f"{failure['key']} {failure['error']}" not in self._told:
                what = "skipped" if failure["skipped"] else f"{failure['op']} failed"
                text = f"{failure['key']}: {what}: {failure['error']}"
                lines += [style("bad", line) for line in wrapped(text, style)]
            if failure.get("output"):
                lines += [plain(f"{failure['key']} printed last:"), *output_lines(failure["output"])]
        lines += entries_view(result["pending"], style)
        # skipped operations failed only because another did: count them apart, so that the sum shows the causes
        skipped = sum(failure["skipped"] for failure in result["failed"])
        counts = dict.fromkeys(levels.values(), 0)
        for key, level in levels.items():
            counts[level] += key not in failed
        done = done_words(
            counts, failed=len(result["failed"]) - skipped, skipped=skipped, pending=result["summary"]
        )
        took = seconds(self._clock() - self._began)
        return [*lines, style("head", f"{done} in {took}")]


def _condition(resource: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((item for item in resource["conditions"] if item["type"] == name), None)


def _and(said: list[str]) -> str:
    words = list(dict.fromkeys(said))
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def seconds(value: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 120 else f"{value // 60:.0f} min {value % 60:.0f} s"


def bar_of(percent: int) -> str:
    """`[#########...........]  45 %`."""
    full = _BAR * min(percent, 100) // 100
    return f"[{'#' * full}{'.' * (_BAR - full)}] {percent:3} %"


@contextmanager
def shown_while(socket: str, progress: ProgressView) -> Iterator[None]:
    """Feeds the progress while the block runs, from the agent if it answers, and redraws it. The block starts once
    the state before it is known.
    """
    ended = threading.Event()

    def watch() -> None:
        try:
            for event in follow(socket, "/v1/status/stream"):
                progress.feed(event)
        except (UcidockdError, OSError, ValueError):
            pass  # the display is optional: the reconcile itself reports what is wrong
        finally:
            progress.ready.set()

    def redraw() -> None:
        while not ended.wait(_REDRAW_S):
            progress.tick()

    for run in (watch, redraw):
        threading.Thread(target=run, name=run.__name__, daemon=True).start()
    progress.ready.wait(_CONNECT_S)
    try:
        yield
    finally:
        ended.set()
