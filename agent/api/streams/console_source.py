# SPDX-License-Identifier: GPL-2.0-or-later
"""A console as a stream of a tab (kind `console`): its output is items, `stream_input` types, `stream_resize` resizes.

It lives as long as its stream: when that ends, with its tab or its session, the process is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from agent.api.names import checked_id
from agent.api.problems import RequestError
from agent.api.rules import write
from agent.api.streams.consoles import Console, Consoles, ExecSpec
from agent.api.streams.exec_request import exec_spec
from agent.api.streams.output_buffer import Ended
from agent.api.streams.stream_sources import Args, Item, Kind, bytes_items, json_item
from agent.errors import ConflictError

_OPEN_S = 10.0


def console_kind(consoles: Consoles) -> Kind:
    """Arguments: `container`, and those of `POST /v1/containers/{id}/exec`."""
    return Kind(grant=write("docker.container", "exec"), open=lambda args: _open(consoles, args))


def _open(consoles: Consoles, args: Args) -> ConsoleSource:
    name = args.get("container")
    if not isinstance(name, str):
        raise RequestError("container: expected a name or an id")
    return ConsoleSource(consoles, checked_id(name), exec_spec(_without_container(args)))


def _without_container(args: Args) -> Mapping[str, object]:
    return {name: value for name, value in args.items() if name != "container"}


class ConsoleSource:
    """Implements `Source`."""

    def __init__(self, consoles: Consoles, container: str, spec: ExecSpec) -> None:
        self._consoles = consoles
        self._container = container
        self._spec = spec
        self._console: Console | None = None
        self._opened = asyncio.Event()

    async def items(self) -> AsyncGenerator[Item, None]:
        """`open` {tty}, `stdout` and `stderr` in bytes, `exit` {code, reason}."""
        try:
            console = self._console = await self._consoles.open(self._container, self._spec)
        finally:
            self._opened.set()
        try:
            yield json_item("open", {"tty": console.tty})
            async with aclosing(console.output()) as output:
                async for piece in output:
                    if piece is None:
                        continue  # only a reader that comes again can have missed something
                    if isinstance(piece, Ended):
                        yield json_item("exit", {"code": piece.code, "reason": piece.reason})
                        return
                    for item in bytes_items(piece.stream, piece.data):
                        yield item
        finally:
            await self._consoles.end(console)

    async def input(self, data: bytes) -> None:
        """What is typed. Raises ConflictError after the end, EngineError."""
        await (await self._running()).input(data)

    async def resize(self, rows: int, columns: int) -> None:
        """The terminal's size. Raises ConflictError, EngineError."""
        await (await self._running()).resize(rows=rows, columns=columns)

    async def _running(self) -> Console:
        try:
            async with asyncio.timeout(_OPEN_S):
                await self._opened.wait()
        except TimeoutError as exc:
            raise ConflictError("the console is not open yet") from exc
        if self._console is None:
            raise ConflictError("the console could not be opened")
        return self._console
