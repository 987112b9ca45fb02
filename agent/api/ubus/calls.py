# SPDX-License-Identifier: GPL-2.0-or-later
"""What the arguments of a `docker*` method on ubus become: the target, query, headers and body of its Engine API call.

Names, arguments and their order are luci-app-dockerman's, whose views run on them unmodified. Everything that goes into
a request line is checked: ids, names and headers here, the query like that of `/docker/`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from agent.api.engine_calls import EngineCall, Output
from agent.api.engine_query import Pairs
from agent.api.names import checked_id, checked_image
from agent.api.problems import RequestError
from agent.ubus.objects import INTEGER, STRING, TABLE
from agent.wire.blobmsg import Type
from agent.wire.tar_magic import is_plain_tar

READ_S = 30.0
CHANGE_S = 600.0  # a change is awaited to its end: its outcome would be unknown otherwise
_EXEC = re.compile(r"[0-9a-f]{64}")
_HEADERS = {"x-registry-auth": re.compile(r"[A-Za-z0-9+/=_-]{0,16384}")}
_PLACEHOLDER = re.compile(r"\{\w+\}")
_BODIES = ("body", "opts", "spec")  # arguments that are the request's body as a table

TTYD_ARGS = {"id": STRING, "cmd": STRING, "port": INTEGER, "uid": STRING}


def deadline_s(call: EngineCall) -> float:
    """How long a caller waits for the answer, in seconds."""
    return READ_S if call.verb in ("GET", "HEAD") else CHANGE_S


def signature(call: EngineCall) -> dict[str, Type]:
    """The method's arguments with their types."""
    return {name: _type(call, name) for name in (call.args or "").split()}


def _type(call: EngineCall, name: str) -> Type:
    # JSON carries no bytes: an archive comes as base64, and the options of an exec as dockerman's views send them
    as_text = name in ("id", "name") or call.takes_tar or call.output is Output.EXEC
    return STRING if as_text and name != "query" else TABLE


def target(call: EngineCall, args: Mapping[str, Any]) -> str:
    """The checked id or name, "" if the call has none. Raises RequestError."""
    if not _PLACEHOLDER.search(call.path):
        return ""
    text = args.get("id", args.get("name"))
    if not text:
        raise RequestError("expected an id or a name")
    if call.object == "docker.exec":
        return _checked_exec(text)
    return checked_image(text) if "{image}" in call.path else checked_id(text)


def path_of(call: EngineCall, name: str) -> str:
    """The path of the request, for the checked `name`."""
    return _PLACEHOLDER.sub(lambda _: name, call.path)


def _checked_exec(text: str) -> str:
    if not _EXEC.fullmatch(text):
        raise RequestError("the id of an exec is 64 hexadecimal digits")
    return text


def query(call: EngineCall, args: Mapping[str, Any]) -> Pairs:
    """The query, not checked yet (`engine_query`). Raises RequestError."""
    pairs = [pair for name, value in args.get("query", {}).items() for pair in _pairs(name, value)]
    return pairs if call.bus_query is None else call.bus_query(pairs)


def headers(args: Mapping[str, Any]) -> Pairs:
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


def body(call: EngineCall, args: Mapping[str, Any]) -> tuple[bytes | None, str]:
    """The request's body and its type; None for none. Raises RequestError."""
    if call.takes_tar:
        return _archive(args.get("body", "")), "application/x-tar"
    if call.output is Output.EXEC:
        return json.dumps(exec_body(args.get("body", ""))).encode(), "application/json"
    for name in _BODIES:
        if name in signature(call):
            return json.dumps(args.get(name, {})).encode(), "application/json"
    return None, ""


def _pairs(name: str, value: Any) -> Pairs:
    items = value if isinstance(value, list) else [value]
    return [(name, _text(item)) for item in items if item is not None]


def _text(value: Any) -> str:
    """As the engine reads it in a query: filters are JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


def exec_body(text: str) -> dict[str, Any]:
    """The options of an exec's start. Raises RequestError."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"body: expected JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise RequestError("body: expected a JSON object")
    return value


def _archive(text: str) -> bytes:
    """A tar archive: JSON carries no bytes, so it comes in base64. Raises RequestError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise RequestError("body: expected a tar archive in base64") from exc
    if not is_plain_tar(data):
        raise RequestError("body: expected a plain tar archive; a compressed one is not taken", status=415)
    return data
