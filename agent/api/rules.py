# SPDX-License-Identifier: GPL-2.0-or-later
"""The route table's entry: what a route is, and what right it takes. There is no route without a rule.

`docs/openapi.json`, the access checks and the tests of both are made from the same table, so that a new route cannot
be forgotten by one of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Need(StrEnum):
    """The right that a route takes. A writer is root: who may start a container owns the router."""

    PUBLIC = "public"
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The permission that a session needs: a right, and the ubus object and method that the route stands for."""

    need: Need
    object: str = ""
    method: str = ""


WEBSOCKET = "WS"
PUBLIC = Grant(need=Need.PUBLIC)


Handler = Callable[[Any], Awaitable[Any]]

EVENT_STREAM = (
    "Server-sent events: `event`, JSON `data`, `id`; `error` and `end` are the last. Last-Event-ID resumes"
)
"""Documents every stream of events in the same words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One route. `method` is an HTTP method or WEBSOCKET. `body` says what a request carries: json, raw, or none.

    The rest is documentation: the words for each parameter of the query, the status of success, and what the answer is
    (the summary unless given).
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
    """A PUT route: its body is a file."""
    return Rule(method="PUT", path=path, grant=grant, handler=handler, summary=summary, body="raw", **words)


def delete(path: str, grant: Grant, handler: Handler, summary: str, **words: Any) -> Rule:
    """A DELETE route."""
    return Rule(method="DELETE", path=path, grant=grant, handler=handler, summary=summary, **words)


def websocket(path: str, grant: Grant, handler: Handler, summary: str) -> Rule:
    """A WebSocket."""
    return Rule(method=WEBSOCKET, path=path, grant=grant, handler=handler, summary=summary)


def read(name: str, method: str) -> Grant:
    """The grant of a reading route, by ubus object and method."""
    return Grant(need=Need.READ, object=name, method=method)


def write(name: str, method: str) -> Grant:
    """The grant of a changing route, by ubus object and method."""
    return Grant(need=Need.WRITE, object=name, method=method)


READER = read("ucidockd", "status")
"""What every session may do. One that may not is not a session of this router."""
WRITER = write("ucidockd", "reconcile")
"""What only a writer may do."""
