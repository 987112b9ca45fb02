# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors on their way to a client: `{"error": {"code", "message"}}` with the status that tells whose fault it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agent.clients.docker_stream import SourceError
from agent.controller.http.json_reply import JsonReply
from agent.errors import BusError, ConfigError, ConflictError, EngineError, UcidockdError

logger = logging.getLogger(__name__)


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


async def on_error(request: Request, exc: Exception) -> Response:
    """Starlette's handler for our own errors."""
    del request
    status = status_of(exc)
    if status == 304:  # the engine's "it is so already" has no body
        return Response(status_code=304)
    headers = dict(exc.headers or {}) if isinstance(exc, RequestError) else {}
    return JsonReply(body_of(exc), status_code=status, headers=headers)


async def on_http_error(request: Request, exc: Exception) -> Response:
    """Starlette's handler for its own errors: no such route, wrong method."""
    del request
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    detail = str(exc.detail) if isinstance(exc, HTTPException) else "internal error"
    headers = dict(exc.headers or {}) if isinstance(exc, HTTPException) else {}
    return JsonReply(
        {"error": {"code": f"http-{status}", "message": detail}}, status_code=status, headers=headers
    )


async def on_defect(request: Request, exc: Exception) -> Response:
    """Our own defect: the log has the trace, the client learns nothing of it."""
    logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    return JsonReply({"error": {"code": "internal", "message": "internal error"}}, status_code=500)
