# SPDX-License-Identifier: GPL-2.0-or-later
"""Queries of the Engine API: checked before they are sent on. Where a value makes the engine call somebody, or run a
program on the host, it is looked at more closely.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from agent.api.names import checked_value
from agent.api.problems import RequestError

Pairs = list[tuple[str, str]]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_SOURCE = re.compile(r"https?://[A-Za-z0-9\[][^\s]*|git://[A-Za-z0-9\[][^\s]*|git@[A-Za-z0-9][^\s]*")
_SECONDS = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?")  # as the engine takes it (Engine API, GET /events)
_READERS_PS = frozenset(
    {"", "-e", "-ef", "-eF", "-A", "-f", "-l", "-w", "-ww", "ax", "aux", "axuww", "auxww"}
)


def checked_query(path: str, pairs: Iterable[tuple[str, str]], *, writer: bool) -> list[tuple[str, str]]:
    """The same pairs. `path` is the table's. Raises RequestError."""
    checked = []
    for name, value in pairs:
        if not _NAME.fullmatch(name):
            raise RequestError("the query has a name that is none of the engine's")
        checked.append((name, checked_value(name, value)))
        _look(path, name, value, writer=writer)
    return checked


def _look(path: str, name: str, value: str, *, writer: bool) -> None:
    if path == "/build" and name == "remote" and value:
        _check_source(name, value)
    if path == "/images/create" and name == "fromSrc" and value != "-":
        _check_source(name, value)
    if path == "/containers/{id}/top" and name == "ps_args" and not writer and value not in _READERS_PS:
        # the engine runs `ps` on the host with it, and `ps e` shows the environment of every process
        raise RequestError(
            f"query ps_args: readers may use {', '.join(sorted(_READERS_PS - {''}))}", status=403
        )


def _check_source(name: str, value: str) -> None:
    if not _SOURCE.fullmatch(value):
        raise RequestError(f"query {name}: expected http://, https://, git:// or git@ and a host")


# a call on ubus is answered once: it can neither follow nor send a build context


def up_to_now(pairs: Pairs) -> Pairs:
    """Events up to now: a call that waits for more would hold its caller, and a place. Raises RequestError."""
    now = time.time()
    until = next((value for name, value in pairs if name == "until" and value), f"{now:.9f}")
    if not _SECONDS.fullmatch(until):
        raise RequestError("query until: expected seconds since 1970")
    kept = [pair for pair in pairs if pair[0] != "until"]
    return [*kept, ("until", until if float(until) < now else f"{now:.9f}")]


def without_follow(pairs: Pairs) -> Pairs:
    """A call cannot follow; where no stream is chosen, both are."""
    kept = [(name, value) for name, value in pairs if name != "follow"]
    chosen = any(name in ("stdout", "stderr") for name, _ in kept)
    return kept if chosen else [*kept, ("stdout", "true"), ("stderr", "true")]


def once(pairs: Pairs) -> Pairs:
    """One value instead of one each second."""
    return [*(pair for pair in pairs if pair[0] != "stream"), ("stream", "false")]


def from_remote(pairs: Pairs) -> Pairs:
    """A call carries no build context; the engine fetches it."""
    if not any(name == "remote" and value for name, value in pairs):
        raise RequestError("query remote: expected the URL of the build's context")
    return pairs
