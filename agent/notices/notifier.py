# SPDX-License-Identifier: GPL-2.0-or-later
"""Follows the status board and sends notices, independently of the passes.

One thread finds changes (`agent.status.alarms`). Each section has a thread only while it has something to send, so a
receiver that hangs does not delay the others. Queues are bounded: notices that do not fit are dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, NoticeError
from agent.files.atomic import atomic_write
from agent.model.notices import Event, News, NotifySection
from agent.notices import channels
from agent.status.alarms import DAEMON_START_S, Alarms
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType

logger = logging.getLogger(__name__)

QUEUE = 32  # notices that wait for one receiver; the oldest is dropped
PAUSES_S = (5.0, 20.0, 60.0, 180.0, 600.0)  # before each retry
_COALESCE_S = 0.2
_FOREVER_S = 3600.0  # the longest sleep without a reason to wake up
_NAMES = 256  # entries of a cool-down that are kept


@dataclass(slots=True, eq=False)
class _Receiver:
    """A receiver, and the notices that wait for it."""

    send: Callable[[News], None]
    wants: frozenset[Event]
    cooldown_s: float
    key: str = ""  # on the board; "" for the hotplug scripts
    queue: deque[News] = field(default_factory=deque)
    busy: bool = False
    sent: int = 0
    failed: int = 0
    dropped: int = 0
    held_back: int = 0  # because of the cool-down
    last: dict[tuple[str, Event], float] = field(default_factory=dict)  # monotonic


class Notifier:
    """`memory` is the file that remembers which alarms were reported. `monotonic` and `wall` are clocks, in seconds."""

    def __init__(
        self,
        board: StatusBoard,
        *,
        memory: Path,
        scripts: Path,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        pauses_s: tuple[float, ...] = PAUSES_S,
    ) -> None:
        self._board, self._memory, self._scripts = board, memory, scripts
        self._monotonic, self._wall, self._pauses_s = monotonic, wall, pauses_s
        self._lock = threading.Lock()
        self._wake, self._end = threading.Event(), threading.Event()
        self._sections: dict[str, NotifySection] = {}  # as wanted last, by section
        self._outlets: dict[str, _Receiver] = {}  # by section; "" is hotplug's
        self._told = self._remembered()
        self._alarms = Alarms(monotonic(), self._told)
        self._seen = 0
        self._complete_at = monotonic() + DAEMON_START_S  # by then all resources are on the board
        self._unsubscribe = board.subscribe(self._wake.set)
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def start(self) -> None:
        """Starts to follow the board, beginning with its current state."""
        self._thread.start()

    def stop(self) -> None:
        """Stops sending."""
        if not self._end.is_set():
            self._unsubscribe()
        self._end.set()
        self._wake.set()

    def want(self, sections: Iterable[NotifySection], broken: Collection[str] = ()) -> None:
        """Sets the current sections. Notices that wait for a section are sent with its new settings.

        `broken` holds the keys of sections with mistakes; they keep their previous settings.
        """
        wanted = {section.section: section for section in sections}
        with self._lock:
            # a typo must not silence the notices about the next fault
            wanted |= {name: old for name, old in self._sections.items() if f"notify:{name}" in broken}
            for name in self._sections.keys() - wanted.keys():
                self._take_off(name)
            changed = [section for name, section in wanted.items() if self._sections.get(name) != section]
            self._sections = wanted
            for section in changed:
                self._take(section)
            has_scripts = bool(channels.scripts(self._scripts))
            if has_scripts and "" not in self._outlets:
                self._outlets[""] = _Receiver(self._hotplug, frozenset(Event), 0.0)
            elif not has_scripts:
                self._outlets.pop("", None)

    def _take(self, section: NotifySection) -> None:
        name, key = section.section, f"notify:{section.section}"
        if not section.enabled:
            self._take_off(name)
            return
        # keep the outlet, with its queue and its cool-down, and change its settings
        outlet = self._outlets.setdefault(
            name, _Receiver(lambda _: None, section.events, section.cooldown_s, key)
        )
        outlet.send = lambda news: channels.send(section, news)
        outlet.wants, outlet.cooldown_s = section.events, section.cooldown_s
        self._board.ensure(key)
        if self._board.standing(key, ConditionType.DELIVERED) is None:
            message = "nothing was sent yet"
            self._board.set(key, ConditionType.DELIVERED, status=True, reason="Ready", message=message)

    def _take_off(self, name: str) -> None:
        """Removes a section's outlet. Other conditions of the section stay on the board."""
        key = f"notify:{name}"
        self._outlets.pop(name, None)
        self._board.clear(key, ConditionType.DELIVERED)
        if not self._board.has_conditions(key):
            self._board.drop(key)

    def _hotplug(self, news: News) -> None:
        channels.hotplug(self._scripts, news)

    def test(self, name: str) -> dict[str, Any]:
        """Sends a test notice through one section at once. Blocks. Raises ConfigError for an unknown section."""
        section = self._sections.get(name)
        if section is None:
            known = ", ".join(sorted(self._sections))
            wish = (
                f"expected one of: {known}"
                if known
                else "write `config notify 'phone'` with `option type` and `option url`"
            )
            raise ConfigError(f"there is no notify section {name[:64]} without mistakes; {wish}")
        news = self._stamped(
            News(
                event=Event.TEST,
                key="test",
                kind="container",
                section="test",
                name="test",
                level="ok",
                label="Test",
                message="This is a test notice of ucidockd.",
            )
        )
        # a disabled section has no outlet
        outlet = self._outlets.get(name) or _Receiver(lambda _: None, frozenset(), 0.0)
        began = self._monotonic()
        try:
            channels.send(section, news)
        except NoticeError as exc:
            self._failed(outlet, exc)
            return {"sent": False, "error": str(exc), "took_s": round(self._monotonic() - began, 1)}
        self._succeeded(outlet, news)
        return {"sent": True, "error": "", "took_s": round(self._monotonic() - began, 1)}

    # finding changes

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                wait_s = self._look()
            except Exception:
                # a failure with one change must not end all notices
                logger.exception("notices")
                wait_s = _COALESCE_S
            self._wake.wait(wait_s)
            self._wake.clear()
            self._end.wait(_COALESCE_S)

    def _look(self) -> float:
        """Reads what changed and sends what is due; returns the seconds until the next look."""
        now = self._monotonic()
        changes = self._board.events_after(self._seen) if self._seen else None
        # None: the board keeps a limited number of changes, and this thread was too far behind
        if changes is None or now >= self._complete_at:
            self._look_at_all(now)
            changes = None
        for change in changes or ():
            self._seen = int(change["id"])
            if "resource" in change:
                self._alarms.see(change["resource"], now)
            elif "agent" in change:
                self._alarms.see_agent(change["agent"], now)
            elif change.get("removed"):
                self._alarms.gone(str(change["key"]), now)
        for news in self._alarms.due(now):
            self._tell(self._stamped(news), now)
        self._remember()
        return min(
            max((self._alarms.next_at(now) or math.inf) - now, 0.0), self._complete_at - now, _FOREVER_S
        )

    def _look_at_all(self, now: float) -> None:
        status = self._board.snapshot()
        self._seen = int(status["version"])
        self._alarms.see_agent(status["agent"], now)
        for resource in status["resources"]:
            self._alarms.see(resource, now)
        # until all resources are on the board, a missing one was not removed: it would be reported as gone and as back
        if now >= self._complete_at or self._complete_at == math.inf:
            self._complete_at = math.inf
            self._alarms.keep({resource["key"] for resource in status["resources"]}, now)

    def _stamped(self, news: News) -> News:
        return replace(news, time=self._wall(), host=socket.gethostname())

    def _remember(self) -> None:
        told = self._alarms.memory()
        if told == self._told:  # do not wear out the flash
            return
        self._told = told
        with contextlib.suppress(OSError):  # a restart may then report it again
            self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(self._memory, json.dumps({"told": told}).encode(), mode=0o600)

    def _remembered(self) -> dict[str, list[str]] | None:
        """The remembered alarms; None the first time, or if the file is not in our form."""
        try:
            found = json.loads(self._memory.read_bytes())["told"]
            return {str(key): [str(event) for event in events] for key, events in found.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    # sending

    def _tell(self, news: News, now: float) -> None:
        logger.info("notice: %s: %s", news.event, news.title)
        with self._lock:
            for name, outlet in self._outlets.items():
                if news.event in outlet.wants:
                    self._enqueue(name, outlet, news, now)

    def _enqueue(self, name: str, outlet: _Receiver, news: News, now: float) -> None:
        key = (news.key, news.event)
        before = outlet.last.get(key)
        if before is not None and now < before + outlet.cooldown_s:
            outlet.held_back += 1
            self._count(outlet)
            return
        # move it to the end, because the first entry is dropped if there are too many
        outlet.last.pop(key, None)
        outlet.last[key] = now
        if len(outlet.last) > _NAMES:
            del outlet.last[next(iter(outlet.last))]
        # a receiver that is away for days gets the latest notices, not the first
        if len(outlet.queue) >= QUEUE:
            outlet.queue.popleft()
            outlet.dropped += 1
            self._count(outlet)
        outlet.queue.append(news)
        # one thread per receiver, and only while it has something to send: one that hangs does not delay the others
        if not outlet.busy:
            outlet.busy = True
            threading.Thread(target=self._work, args=(outlet,), name=f"notice-{name}", daemon=True).start()

    def _work(self, outlet: _Receiver) -> None:
        while True:
            with self._lock:
                if not outlet.queue or self._end.is_set() or outlet not in self._outlets.values():
                    outlet.busy = False
                    return
                news = outlet.queue.popleft()
            self._deliver(outlet, news)

    def _deliver(self, outlet: _Receiver, news: News) -> None:
        for pause_s in (*self._pauses_s, None):
            try:
                outlet.send(news)
            except NoticeError as exc:
                if exc.retryable and pause_s is not None:
                    self._show(outlet, delivered=False, message=f"{exc}; it is tried again")
                    if self._end.wait(max(pause_s, exc.after_s)):
                        return
                    with self._lock:  # its section may have been removed meanwhile
                        if outlet not in self._outlets.values():
                            return
                    continue
                self._failed(outlet, exc)
            except Exception as exc:
                logger.exception("notice")
                self._failed(outlet, NoticeError(f"internal error ({type(exc).__name__}); see the log"))
            else:
                self._succeeded(outlet, news)
            return

    def _succeeded(self, outlet: _Receiver, news: News) -> None:
        outlet.sent += 1
        self._show(outlet, delivered=True, message=f"{news.event}: {news.title}")

    def _failed(self, outlet: _Receiver, exc: NoticeError) -> None:
        outlet.failed += 1
        logger.warning("%s: not delivered: %s", outlet.key or str(self._scripts), exc)
        self._show(outlet, delivered=False, message=str(exc))

    def _show(self, outlet: _Receiver, *, delivered: bool, message: str) -> None:
        with self._lock:
            # its section may have been removed meanwhile, and be on the board still for a mistake in it
            if not outlet.key or outlet not in self._outlets.values():
                return
            self._board.set(
                outlet.key,
                ConditionType.DELIVERED,
                status=delivered,
                reason="Sent" if delivered else "NotSent",
                message=message,
            )
            self._count(outlet)

    def _count(self, outlet: _Receiver) -> None:
        counts: Mapping[str, int] = {
            "sent": outlet.sent,
            "failed": outlet.failed,
            "dropped": outlet.dropped,
            "held_back": outlet.held_back,
        }
        if outlet.key:
            self._board.set_facts(outlet.key, notices=counts)
