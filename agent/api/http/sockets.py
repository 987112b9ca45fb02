# SPDX-License-Identifier: GPL-2.0-or-later
"""What WebSocket routes share: refusing one before it is accepted, and two directions of which either ends both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from agent.api.http.replies import STALL_S
from agent.api.problems import body_of, http_body_of, status_of
from agent.errors import UcidockdError

logger = logging.getLogger(__name__)

NORMAL, UNEXPECTED = 1000, 1011  # RFC 6455 section 7.4.1
_REASON_LIMIT = 123  # bytes: RFC 6455 section 5.5


async def refuse(socket: WebSocket, exc: UcidockdError) -> None:
    """Answers the handshake with the error's status instead of 101."""
    await socket.send_denial_response(JSONResponse(http_body_of(exc), status_code=status_of(exc)))


async def run_both(
    socket: WebSocket, inward: Coroutine[Any, Any, None], outward: Coroutine[Any, Any, None]
) -> None:
    """Runs both until one ends, and closes the socket. Errors of our own are told in a last text frame."""
    tasks = {asyncio.create_task(inward, name="ws-in"), asyncio.create_task(outward, name="ws-out")}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    errors = [error for task in done if not task.cancelled() and (error := task.exception()) is not None]
    await _close(socket, errors[0] if errors else None)


async def _close(socket: WebSocket, error: BaseException | None) -> None:
    if isinstance(error, WebSocketDisconnect):
        return
    if isinstance(error, TimeoutError):  # it does not read: it would not read a close frame either
        socket.scope["state"]["connection"].cut()
        return
    if error is not None and not isinstance(error, UcidockdError):
        raise error
    try:
        async with asyncio.timeout(STALL_S):
            if error is not None:
                await socket.send_json({"type": "error", **body_of(error)["error"]})
                reason = str(error).encode()[:_REASON_LIMIT].decode(errors="ignore")
                await socket.close(UNEXPECTED, reason)
            else:
                await socket.close(NORMAL)
    except (WebSocketDisconnect, RuntimeError):
        logger.debug("the client was gone before the end")
    except TimeoutError:
        socket.scope["state"]["connection"].cut()


async def send_bytes(socket: WebSocket, data: bytes) -> None:
    """A binary frame. TimeoutError when the client has not read for STALL_S."""
    async with asyncio.timeout(STALL_S):
        await socket.send_bytes(data)


async def send_json(socket: WebSocket, body: dict[str, Any]) -> None:
    """A text frame. TimeoutError as `send_bytes`."""
    async with asyncio.timeout(STALL_S):
        await socket.send_json(body)


async def each_message(
    socket: WebSocket,
    on_bytes: Callable[[bytes], Awaitable[None]],
    on_text: Callable[[str], Awaitable[None]],
) -> None:
    """Calls back for every message until the client closes. The next one is only read when the last was dealt with."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("bytes") is not None:
            await on_bytes(message["bytes"])
        elif message.get("text") is not None:
            await on_text(message["text"])
