# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors as clients get them: `{"error": {"code", "message"}}`, with an HTTP status that says whose fault it is.

Over HTTP every error also has `message` at the top level. Clients of the engine read only that (Engine API,
"Errors"), and a request that is refused early may not have matched a route yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agent.engine.stream import SourceError
from agent.errors import (
    BusError,
    ClockNotSetError,
    ConfigError,
    ConflictError,
    DataError,
    EngineError,
    NoSpaceError,
    PathError,
    StorageError,
    UcidockdError,
)
from agent.model.entries import parse_image
from agent.model.identity import ID, ID_FORM
from agent.model.quantities import FALSE_WORDS, TRUE_WORDS, QuantityError
from agent.model.secrets import hidden_text

if TYPE_CHECKING:
    from starlette.requests import Request


class RequestError(UcidockdError):
    """The request itself is wrong. `status` is an HTTP status."""

    code = "bad-request"

    def __init__(self, message: str, *, status: int = 400, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def status_of(exc: Exception) -> int:
    """The HTTP status of an error: the engine's own if it gave one, 503 if the engine is not reachable."""
    if isinstance(exc, NoSpaceError | StorageError):
        return 507
    if isinstance(exc, RequestError | EngineError) and exc.status:
        return exc.status
    if isinstance(exc, EngineError | BusError):
        return 503
    if isinstance(exc, ConflictError):
        return 409
    if isinstance(exc, SourceError):
        return 400
    # 503, not 422: the same request works once the clock is set
    if isinstance(exc, ClockNotSetError):
        return 503
    return 422 if isinstance(exc, ConfigError | PathError | DataError) else 500


def http_body(code: str, message: str) -> dict[str, Any]:
    """The JSON body of an error over HTTP."""
    return {"message": message, "error": {"code": code, "message": message}}


def http_body_of(exc: Exception) -> dict[str, Any]:
    """`http_body` of an exception."""
    error = body_of(exc)["error"]
    return http_body(error["code"], error["message"])


def body_of(exc: Exception) -> dict[str, Any]:
    """The error as JSON; secrets are hidden."""
    code = exc.code if isinstance(exc, UcidockdError) else RequestError.code
    # a RequestError quotes only what the client sent; a message of the engine or a disk may quote a secret of a section
    message = str(exc) if isinstance(exc, RequestError) else hidden_text(str(exc))
    return {"error": {"code": code, "message": message}}


# Checks of client text that goes into a path or query: nothing unchecked reaches the engine's request line.


_ID = re.compile(ID)  # what an id or a name may hold: nothing that ends a path segment
_NO_IMAGE = "expected an image reference such as alpine:3.20, registry.lan:5000/app or sha256:..."
_NETWORK_LIMIT = 512  # characters; engines accept names of any length
_VALUE_LIMIT = 8192  # characters of one query value
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def container_id(request: Request) -> str:
    """The container id or name in the path."""
    return checked_id(str(request.path_params["id"]))


def checked_id(text: str) -> str:
    """An id or name of a container, network or volume. Raises RequestError."""
    if not _ID.fullmatch(text):
        raise RequestError(f"an id or name is {ID_FORM}")
    return text


def checked_container(text: str) -> str:
    """Like `checked_id`, but also accepts the name that a link gives: `web/db`. Raises RequestError."""
    for part in text.split("/"):
        checked_id(part)
    return text


def checked_network(text: str) -> str:
    """A network's id or name, encoded as one path segment: engines accept any text as a name. Raises RequestError.

    A name with an empty segment, `.` or `..` is refused, because the engine would tidy that path: use its id instead.
    """
    segments = text.split("/")
    if len(text) > _NETWORK_LIMIT or _CONTROL.search(text) or not {"", ".", ".."}.isdisjoint(segments):
        raise RequestError("this network name cannot be used in a path; use the network's id")
    return quote(text, safe="")


def checked_image(text: str) -> str:
    """An image reference or id. Raises RequestError."""
    try:
        parse_image(text)
    except QuantityError as exc:
        raise RequestError(_NO_IMAGE) from exc
    if ".." in text:  # a tag may contain `..`, a path must not
        raise RequestError(_NO_IMAGE)
    return text


def checked_value(name: str, text: str) -> str:
    """Checks a query value. Raises RequestError."""
    if len(text) > _VALUE_LIMIT or _CONTROL.search(text):
        raise RequestError(
            f"query {name}: control characters and more than {_VALUE_LIMIT} characters are not allowed"
        )
    return text


def refuse_unknown(given: Iterable[str], known: Sequence[str], *, what: str = "name") -> None:
    """Raises RequestError for a name that is not in `known`. A misspelt one would be left out silently, and the answer
    would still look right.
    """
    if unknown := sorted(set(given) - set(known)):
        use = " or ".join(filter(None, (", ".join(f"`{name}`" for name in known[:-1]), f"`{known[-1]}`")))
        raise RequestError(f"unknown {what} {unknown[0][:64]!r}; use {use}")


def picked(request: Request, allowed: Iterable[str]) -> list[tuple[str, str]]:
    """The query as pairs. Raises RequestError for a name that is not in `allowed`."""
    pairs = request.query_params.multi_items()
    refuse_unknown((name for name, _ in pairs), sorted(allowed), what="query parameter")
    for name, value in pairs:
        checked_value(name, value)
    return pairs


def flag(query: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """A boolean query parameter: 1/true or 0/false. Raises RequestError."""
    text = query.get(name, "")
    if text.lower() in TRUE_WORDS:
        return True
    if text.lower() in FALSE_WORDS:
        return False
    if text:
        raise RequestError(f"query {name}: expected 1 or 0")
    return default


def switch(body: Mapping[str, object], name: str) -> bool:
    """A boolean in a JSON body; false if it is missing. Raises RequestError."""
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"{name}: expected true or false")
    return value


def number(body: Mapping[str, object], name: str, *, low: int, high: int, default: int) -> int:
    """An integer in a JSON body, within limits. Raises RequestError."""
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name}: expected a whole number from {low} to {high}")
    return value


def text(body: Mapping[str, object], name: str, default: str = "") -> str:
    """A string in a JSON body. Raises RequestError."""
    value = body.get(name, default)
    if not isinstance(value, str) or len(value) > _VALUE_LIMIT or _CONTROL.search(value):
        raise RequestError(f"{name}: expected text without control characters")
    return value
