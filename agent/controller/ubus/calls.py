# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of the `docker*` objects: ubus method -> Engine API call, and what its arguments become.

Names, arguments and their order are luci-app-dockerman's, whose views run on them unmodified. What goes into
a request line is checked: ids, names and headers here, the query as that of `/docker/`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from agent.clients.ubus_objects import INTEGER, STRING, TABLE
from agent.controller.names import checked_id, checked_image
from agent.controller.problems import RequestError
from agent.wire.blobmsg import Type
from agent.wire.tar_magic import is_plain_tar

Pairs = list[tuple[str, str]]

READ_S = 30.0
CHANGE_S = 600.0  # a change is awaited to its end: what became of it would not be known otherwise
_SECONDS = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?")  # as the engine takes it (Engine API, GET /events)
_EXEC = re.compile(r"[0-9a-f]{64}")
_HEADERS = {"x-registry-auth": re.compile(r"[A-Za-z0-9+/=_-]{0,16384}")}


class Output(Enum):
    """What the engine answers with."""

    JSON = auto()
    LOGS = auto()  # output of a container, in frames or not
    EXEC = auto()  # output of a process, in frames or not
    TAR = auto()


def checked_exec(text: str) -> str:
    """An exec's id. Raises RequestError."""
    if not _EXEC.fullmatch(text):
        raise RequestError("the id of an exec is 64 hexadecimal digits")
    return text


def _as_is(pairs: Pairs) -> Pairs:
    return pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCall:
    """`path` has a place `{id}` for the argument that names the object. `body` is the argument that becomes it."""

    verb: str
    path: str
    args: Mapping[str, Type] = field(default_factory=dict)
    name: Callable[[str], str] = checked_id
    query: Callable[[Pairs], Pairs] = _as_is
    body: str = ""
    output: Output = Output.JSON

    @property
    def deadline_s(self) -> float:
        return READ_S if self.verb in ("GET", "HEAD") else CHANGE_S

    def target(self, args: Mapping[str, Any]) -> str:
        """The checked id or name, "" where the call has none. Raises RequestError."""
        if "{id}" not in self.path:
            return ""
        text = args.get("id", args.get("name"))
        if not text:
            raise RequestError("expected an id or a name")
        return self.name(text)

    def pairs(self, args: Mapping[str, Any]) -> Pairs:
        """The query, not checked yet (`engine_query`). Raises RequestError."""
        return self.query(
            [pair for name, value in args.get("query", {}).items() for pair in _pairs(name, value)]
        )

    def headers(self, args: Mapping[str, Any]) -> Pairs:
        """The request's headers. Raises RequestError, which does not show values: they are secrets."""
        found: Pairs = []
        for name, value in args.get("headers", {}).items():
            form = _HEADERS.get(name.lower())
            if form is None:
                raise RequestError(f"header {name[:64]!r}: expected one of {', '.join(_HEADERS)}")
            if not isinstance(value, str) or not form.fullmatch(value):
                raise RequestError(f"header {name[:64]}: expected base64")
            found.append((name.lower(), value))
        return found


def _pairs(name: str, value: Any) -> Pairs:
    items = value if isinstance(value, list) else [value]
    return [(name, _text(item)) for item in items if item is not None]


def _text(value: Any) -> str:
    """As the engine reads it in a query: filters are JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


# queries that need more than encoding


def _ended(pairs: Pairs) -> Pairs:
    """Events up to now: a call that waits for more would hold its caller, and a place. Raises RequestError."""
    now = time.time()
    until = next((value for name, value in pairs if name == "until" and value), f"{now:.9f}")
    if not _SECONDS.fullmatch(until):
        raise RequestError("query until: expected seconds since 1970")
    kept = [pair for pair in pairs if pair[0] != "until"]
    return [*kept, ("until", until if float(until) < now else f"{now:.9f}")]


def _without_follow(pairs: Pairs) -> Pairs:
    """A call cannot follow; where no stream is chosen, both are."""
    kept = [(name, value) for name, value in pairs if name != "follow"]
    chosen = any(name in ("stdout", "stderr") for name, _ in kept)
    return kept if chosen else [*kept, ("stdout", "true"), ("stderr", "true")]


def _once(pairs: Pairs) -> Pairs:
    return [*(pair for pair in pairs if pair[0] != "stream"), ("stream", "false")]


def _from_remote(pairs: Pairs) -> Pairs:
    """A call carries no build context; the engine fetches it."""
    if not any(name == "remote" and value for name, value in pairs):
        raise RequestError("query remote: expected the URL of the build's context")
    return pairs


# bodies that come as text


def exec_body(text: str) -> dict[str, Any]:
    """The options of an exec's start. Raises RequestError."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"body: expected JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise RequestError("body: expected a JSON object")
    return value


def archive_body(text: str) -> bytes:
    """A tar archive: JSON carries no bytes, so it comes in base64. Raises RequestError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise RequestError("body: expected a tar archive in base64") from exc
    if not is_plain_tar(data):
        raise RequestError("body: expected a plain tar archive; a compressed one is not taken", status=415)
    return data


# the table

_TYPES = {
    "id": STRING,
    "name": STRING,
    "query": TABLE,
    "headers": TABLE,
    "body": TABLE,
    "opts": TABLE,
    "spec": TABLE,
}


def _call(verb: str, path: str, *args: str, **more: Any) -> EngineCall:
    body = next((name for name in args if name in ("body", "opts", "spec")), "")
    types = {name: _TYPES[name] for name in args} | more.pop("types", {})
    return EngineCall(verb=verb, path=path, args=types, body=body, **more)


_CONTAINER = "/containers/{id}"
_IMAGE: dict[str, Any] = {"name": checked_image}
_TAR: dict[str, Any] = {"output": Output.TAR}

CALLS: Mapping[str, Mapping[str, EngineCall]] = {
    "docker": {
        "version": _call("GET", "/version"),
        "info": _call("GET", "/info"),
        "ping": _call("GET", "/_ping"),
        "df": _call("GET", "/system/df"),
        "events": _call("GET", "/events", "query", query=_ended),
    },
    "docker.container": {
        "list": _call("GET", "/containers/json", "query"),
        "create": _call("POST", "/containers/create", "query", "body"),
        "inspect": _call("GET", f"{_CONTAINER}/json", "id", "query"),
        "top": _call("GET", f"{_CONTAINER}/top", "id", "query"),
        "logs": _call("GET", f"{_CONTAINER}/logs", "id", "query", query=_without_follow, output=Output.LOGS),
        "changes": _call("GET", f"{_CONTAINER}/changes", "id"),
        "export": _call("GET", f"{_CONTAINER}/export", "id", **_TAR),
        "stats": _call("GET", f"{_CONTAINER}/stats", "id", "query", query=_once),
        "resize": _call("POST", f"{_CONTAINER}/resize", "id", "query"),
        "start": _call("POST", f"{_CONTAINER}/start", "id", "query"),
        "stop": _call("POST", f"{_CONTAINER}/stop", "id", "query"),
        "restart": _call("POST", f"{_CONTAINER}/restart", "id", "query"),
        "kill": _call("POST", f"{_CONTAINER}/kill", "id", "query"),
        "update": _call("POST", f"{_CONTAINER}/update", "id", "body"),
        "rename": _call("POST", f"{_CONTAINER}/rename", "id", "query"),
        "pause": _call("POST", f"{_CONTAINER}/pause", "id"),
        "unpause": _call("POST", f"{_CONTAINER}/unpause", "id"),
        "remove": _call("DELETE", _CONTAINER, "id", "query"),
        "info_archive": _call("HEAD", f"{_CONTAINER}/archive", "id", "query"),
        "get_archive": _call("GET", f"{_CONTAINER}/archive", "id", "query", **_TAR),
        "put_archive": _call("PUT", f"{_CONTAINER}/archive", "id", "query", types={"body": STRING}),
        "exec": _call("POST", f"{_CONTAINER}/exec", "id", "opts"),
        "prune": _call("POST", "/containers/prune", "query"),
    },
    "docker.exec": {
        "start": _call(
            "POST", "/exec/{id}/start", "id", types={"body": STRING}, name=checked_exec, output=Output.EXEC
        ),
        "resize": _call("POST", "/exec/{id}/resize", "id", "query", name=checked_exec),
        "inspect": _call("GET", "/exec/{id}/json", "id", name=checked_exec),
    },
    "docker.image": {
        "list": _call("GET", "/images/json", "query"),
        "build": _call("POST", "/build", "query", "headers", query=_from_remote),
        "build_prune": _call("POST", "/build/prune", "query", "headers"),
        "create": _call("POST", "/images/create", "query", "headers"),
        "inspect": _call("GET", "/images/{id}/json", "id", **_IMAGE),
        "history": _call("GET", "/images/{id}/history", "id", **_IMAGE),
        "push": _call("POST", "/images/{id}/push", "name", "query", "headers", **_IMAGE),
        "tag": _call("POST", "/images/{id}/tag", "id", "query", **_IMAGE),
        "remove": _call("DELETE", "/images/{id}", "id", "query", **_IMAGE),
        "search": _call("GET", "/images/search", "query"),
        "prune": _call("POST", "/images/prune", "query"),
        "get": _call("GET", "/images/{id}/get", "id", **_IMAGE, **_TAR),
        "load": _call("POST", "/images/load", "query"),
    },
    "docker.network": {
        "list": _call("GET", "/networks", "query"),
        "inspect": _call("GET", "/networks/{id}", "id", "query"),
        "remove": _call("DELETE", "/networks/{id}", "id"),
        "create": _call("POST", "/networks/create", "body"),
        "connect": _call("POST", "/networks/{id}/connect", "id", "body"),
        "disconnect": _call("POST", "/networks/{id}/disconnect", "id", "body"),
        "prune": _call("POST", "/networks/prune", "query"),
    },
    "docker.volume": {
        "list": _call("GET", "/volumes", "query"),
        "create": _call("POST", "/volumes/create", "opts"),
        "inspect": _call("GET", "/volumes/{id}", "id"),
        "update": _call("PUT", "/volumes/{id}", "id", "query", "spec"),
        "remove": _call("DELETE", "/volumes/{id}", "id", "query"),
        "prune": _call("POST", "/volumes/prune", "query"),
    },
}

TTYD_ARGS = {"id": STRING, "cmd": STRING, "port": INTEGER, "uid": STRING}
