# SPDX-License-Identifier: GPL-2.0-or-later
"""What a route is: its path, its handler, and the right that it needs. A route cannot exist without a rule.

The access checks, `docs/openapi.json` and the tests of both read the same table, so a new route cannot be missing in
any of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Need(StrEnum):
    """The right that a route needs. A writer is as good as root: anyone who can start a container controls the router."""

    PUBLIC = "public"
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The permission that a session needs: a right, and the ubus object and method that stand for the route."""

    need: Need
    object: str = ""
    method: str = ""


WEBSOCKET = "WS"
PUBLIC = Grant(need=Need.PUBLIC)


Handler = Callable[[Any], Awaitable[Any]]

EVENT_STREAM = (
    "Server-sent events: `event`, JSON `data`, `id`; `error` and `end` are the last. Last-Event-ID resumes"
)
"""The description of every event stream in the documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One route. `method` is an HTTP method or WEBSOCKET. `body` says what a request carries: json, raw, or none.

    The rest is documentation: a description for each query parameter, the status of success, and a description of the
    answer (the summary unless given).
    """

    method: str
    path: str
    grant: Grant
    handler: Handler
    summary: str
    body: str = "none"
    query: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    answer: str = ""


def get(path: str, grant: Grant, handler: Handler, summary: str, **words: Any) -> Rule:
    """A GET route; `words` are the other fields of Rule."""
    return Rule(method="GET", path=path, grant=grant, handler=handler, summary=summary, **words)


def post(path: str, grant: Grant, handler: Handler, summary: str, **words: Any) -> Rule:
    """A POST route."""
    return Rule(method="POST", path=path, grant=grant, handler=handler, summary=summary, **words)


def put(path: str, grant: Grant, handler: Handler, summary: str, **words: Any) -> Rule:
    """A PUT route; its body is raw bytes."""
    return Rule(method="PUT", path=path, grant=grant, handler=handler, summary=summary, body="raw", **words)


def delete(path: str, grant: Grant, handler: Handler, summary: str, **words: Any) -> Rule:
    """A DELETE route."""
    return Rule(method="DELETE", path=path, grant=grant, handler=handler, summary=summary, **words)


def websocket(path: str, grant: Grant, handler: Handler, summary: str) -> Rule:
    """A WebSocket route."""
    return Rule(method=WEBSOCKET, path=path, grant=grant, handler=handler, summary=summary)


def read(name: str, method: str) -> Grant:
    """The grant of a route that only reads, by ubus object and method."""
    return Grant(need=Need.READ, object=name, method=method)


def write(name: str, method: str) -> Grant:
    """The grant of a route that changes something, by ubus object and method."""
    return Grant(need=Need.WRITE, object=name, method=method)


READER = read("ucidockd", "status")
"""The right that every session of this router has."""
WRITER = write("ucidockd", "reconcile")
"""The right that only writers have."""
