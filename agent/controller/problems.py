# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors on their way to a client: `{"error": {"code", "message"}}` with the status that tells whose fault it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.clients.docker_stream import SourceError
from agent.errors import BusError, ConfigError, ConflictError, EngineError, UcidockdError


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
    return 422 if isinstance(exc, ConfigError) else 500


def body_of(exc: Exception) -> dict[str, Any]:
    """The error as JSON."""
    code = exc.code if isinstance(exc, UcidockdError) else RequestError.code
    return {"error": {"code": code, "message": str(exc)}}
