# SPDX-License-Identifier: GPL-2.0-or-later
"""Starlette's error handlers: what became of a request, as `problems` says it. The log has the trace of a defect."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agent.api.http.json_reply import JsonReply
from agent.api.problems import RequestError, http_body, http_body_of, status_of

logger = logging.getLogger(__name__)


async def on_error(request: Request, exc: Exception) -> Response:
    """Starlette's handler for our own errors."""
    del request
    status = status_of(exc)
    if status == 304:  # the engine's "it is so already" has no body
        return Response(status_code=304)
    headers = dict(exc.headers or {}) if isinstance(exc, RequestError) else {}
    return JsonReply(http_body_of(exc), status_code=status, headers=headers)


async def on_http_error(request: Request, exc: Exception) -> Response:
    """Starlette's handler for its own errors: no such route, wrong method."""
    del request
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    detail = str(exc.detail) if isinstance(exc, HTTPException) else "internal error"
    headers = dict(exc.headers or {}) if isinstance(exc, HTTPException) else {}
    return JsonReply(http_body(f"http-{status}", detail), status_code=status, headers=headers)


async def on_defect(request: Request, exc: Exception) -> Response:
    """Our own defect: the log has the trace, the client learns nothing of it."""
    logger.error("%s %s failed", request.method, request.url.path, exc_info=exc)
    return JsonReply(http_body("internal", "internal error"), status_code=500)
