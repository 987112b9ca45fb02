# SPDX-License-Identifier: GPL-2.0-or-later
"""How a container ended: by itself, or since somebody, the engine or we stopped it. Only the former can be a job done.

The engine does not show that (its `HasBeenManuallyStopped` stays inside). It keeps its last 256 events, until it is
stopped itself; its default bridge is made at each start (20.10 to 29) and so tells what ended before.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from agent.model.observed import ObservedContainer, Record
from agent.model.resources import Container

OLD_VERSION_S = 3600.0  # an end so long before a start of the engine was none by that
# what programs are sent to read their files again, to open their logs anew, or with a window
_HARMLESS = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT})


def is_job(container: Container) -> bool:
    """Whether ending with 0 is what it is there for: `restart` says so, or a section that waits for its completion.

    An unset `restart` is a service: the engine does not restart it, we do.
    """
    if container.spec.restart is None:
        return container.awaited
    return container.spec.restart.name in {"no", "on-failure"}


def was_stopped(events: Iterable[Mapping[str, Any]], stop_signal: str = "") -> bool | None:
    """Whether the last run of a container was ended from outside; None where its events are not there any more.

    `events`: of GET /events, of that container. The engine tells of a signal before the end that it leads to.
    """
    known, asked = False, False
    for event in events:
        action = str(event.get("Action") or event.get("status") or "")
        if action == "start":
            known, asked = True, False
        elif action == "kill":
            asked = asked or _ends(event, stop_signal)
            known = True
        elif action in {"die", "oom"}:
            known = True
    return asked if known else None


def _ends(event: Mapping[str, Any], stop_signal: str) -> bool:
    number = str(((event.get("Actor") or {}).get("Attributes") or {}).get("signal") or "")
    if number in {stop_signal, str(_number(stop_signal))}:
        return True
    return not (number.isdigit() and int(number) in _HARMLESS)


def _number(name: str) -> int:
    """Of `SIGTERM`, `TERM` or `15`; 0 for another."""
    if name.isdigit():
        return int(name)
    known = {one.name: int(one) for one in signal.Signals}
    return known.get(f"SIG{name.removeprefix('SIG')}", 0)


def unwitnessed(record: Record, seen: ObservedContainer, engine_since: str) -> bool:
    """Whether one that ended with 0 did its job, where nobody knows how it ended. `engine_since`: when the engine was
    started, "" where that is not to be found out.

    What ended before this engine was started, and was not seen to end by itself, was most likely ended by the one before.
    In this engine's life it is taken for what the engine would take it for: a job that is done.
    """
    ended, began = moment(seen.finished_at), moment(engine_since)
    if ended is None or began is None:
        return record.completed is None
    if record.completed is None:
        return ended > began or ended < began - OLD_VERSION_S
    return ended > began


def moment(text: str) -> float | None:
    """Unix seconds of an RFC 3339 time; None for none."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None
