# SPDX-License-Identifier: GPL-2.0-or-later
"""A browser's WebSocket on a container's main process (Engine API, `POST /containers/{id}/attach`).

As the engine's own `attach/ws`: output as binary frames without the engine's stream headers, input from frames of
either kind. A browser that does not read stops the reading from the engine.
"""

from __future__ import annotations

from starlette.websockets import WebSocket

from agent.api.http.sockets import each_message, run_both, send_bytes
from agent.api.streams.engine_streams import decoded
from agent.engine.stream import EnginePipe
from agent.wire.docker_frames import FrameDecoder

_FRAME = 64 * 1024


async def attach(socket: WebSocket, pipe: EnginePipe, *, tty: bool) -> None:
    """Accepts the socket and serves it until either side ends."""
    try:
        await socket.accept()
        await run_both(socket, _typed(socket, pipe), _shown(socket, pipe, tty=tty))
    finally:
        pipe.close()


async def _shown(socket: WebSocket, pipe: EnginePipe, *, tty: bool) -> None:
    decoder = FrameDecoder()
    while piece := await pipe.read():
        for _, data in [("stdout", piece)] if tty else decoded(decoder, piece):
            for start in range(0, len(data), _FRAME):
                await send_bytes(socket, data[start : start + _FRAME])


async def _typed(socket: WebSocket, pipe: EnginePipe) -> None:
    async def on_text(text: str) -> None:
        await pipe.write(text.encode())

    await each_message(socket, pipe.write, on_text)
