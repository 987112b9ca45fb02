# SPDX-License-Identifier: GPL-2.0-or-later
"""The route table's entry: what a route is, and what right it takes. There is no route without a rule.

`docs/openapi.json`, the access checks and the tests of both are made from the same table, so that a new route cannot
be forgotten by one of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One route. `method` is an HTTP method or WEBSOCKET. `body` says what a request carries: json, raw, or none."""

    method: str
    path: str
    grant: Grant
    handler: Callable[[Any], Awaitable[Any]]
    summary: str
    body: str = "none"


def read(name: str, method: str) -> Grant:
    """The grant of a reading route, by ubus object and method."""
    return Grant(need=Need.READ, object=name, method=method)


def write(name: str, method: str) -> Grant:
    """The grant of a changing route, by ubus object and method."""
    return Grant(need=Need.WRITE, object=name, method=method)


READER = read("ucidockd", "status")
"""What each session of ours may do: who may not is nobody that we know."""
WRITER = write("ucidockd", "reconcile")
"""What only a writer may do."""
