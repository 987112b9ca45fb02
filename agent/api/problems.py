# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors on their way to a client: `{"error": {"code", "message"}}` with the status that tells whose fault it is.

On HTTP they have `message` beside it, whichever route it was: clients of the engine look for nothing else (Engine API,
"Errors"), and where a request is refused its path may not be known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.engine.stream import SourceError
from agent.errors import (
    BusError,
    ClockNotSetError,
    ConfigError,
    ConflictError,
    EngineError,
    PathError,
    StorageError,
    UcidockdError,
)


class RequestError(UcidockdError):
    """The request itself is wrong. `status` is an HTTP status."""

    code = "bad-request"

    def __init__(self, message: str, *, status: int = 400, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def status_of(exc: Exception) -> int:
    """The engine's own status where it gave one; 503 when it is away."""
    if isinstance(exc, RequestError | EngineError) and exc.status:
        return exc.status
    if isinstance(exc, EngineError | BusError):
        return 503
    if isinstance(exc, ConflictError):
        return 409
    if isinstance(exc, SourceError):
        return 400
    if isinstance(exc, ClockNotSetError):
        return 503
    if isinstance(exc, StorageError):
        return 507
    return 422 if isinstance(exc, ConfigError | PathError) else 500


def http_body(code: str, message: str) -> dict[str, Any]:
    """The body of an error on HTTP."""
    return {"message": message, "error": {"code": code, "message": message}}


def http_body_of(exc: Exception) -> dict[str, Any]:
    """`http_body` of an error."""
    error = body_of(exc)["error"]
    return http_body(error["code"], error["message"])


def body_of(exc: Exception) -> dict[str, Any]:
    """The error as JSON."""
    code = exc.code if isinstance(exc, UcidockdError) else RequestError.code
    return {"error": {"code": code, "message": str(exc)}}
