# SPDX-License-Identifier: GPL-2.0-or-later
"""`docker.container ttyd_start`: opens a terminal in a container with ttyd, if that is installed.

ttyd asks for no password: the first client that connects gets a shell in the container. Therefore it listens on
loopback only, for one client. Each container gets at most one ttyd of ours, and ttyd processes of others are left
alone. Our own console needs none of this (stream objects, or a WebSocket).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shlex
import shutil
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence

from agent.api.problems import RequestError, checked_id
from agent.ubus.objects import Arguments, Reply

logger = logging.getLogger(__name__)

PORT = 7682  # as in luci-app-dockerman
_DEVICE = "lo"
_LIMIT = 8  # terminals at a time: each is a process on the router
_START_S = 0.5  # by then ttyd has either failed or listens
_STOP_S = 1.0
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}")  # a name, or uid:gid; never an option of docker


class Ttyd:
    """Starts ttyd; `close` ends what it started. `engine` holds the arguments that point `docker` at the engine."""

    def __init__(self, engine: Sequence[str]) -> None:
        self._engine = engine
        self._running: dict[str, Process] = {}  # container -> its ttyd

    async def start(self, args: Arguments) -> Reply:
        """The ubus method: {"status": "ttyd started"} or {"error": reason}."""
        program, docker = shutil.which("ttyd"), shutil.which("docker")
        if program is None or docker is None:
            return {"error": f"{'docker' if program else 'ttyd'} is not installed"}
        try:
            container = checked_id(args.get("id", ""))
        except RequestError:
            return {"error": "Invalid container ID"}
        port = args.get("port", PORT)
        if not 1 <= port <= 65535:
            return {"error": "Invalid port number"}
        try:
            words = _exec_words(container, args)
        except RequestError as exc:
            return {"error": str(exc)}
        # `--once`: ttyd ends with its client and frees the port
        listen = [program, "-q", "--once", "--writable", "-i", _DEVICE, "-p", str(port)]
        return await self._start(container, [*listen, docker, *self._engine, "exec", "-it", *words])

    async def _start(self, container: str, argv: list[str]) -> Reply:
        self._running = {c: p for c, p in self._running.items() if p.returncode is None}
        # if the user lost the page, the old shell would still occupy the port
        if container in self._running:
            await _end(self._running.pop(container))
        if len(self._running) >= _LIMIT:
            return {"error": f"{_LIMIT} terminals are open"}
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
            )
        except OSError as exc:
            return {"error": f"ttyd does not start: {exc.strerror}"}
        self._running[container] = process
        try:
            # ttyd does not report that it is ready, but exits at once if it cannot listen
            async with asyncio.timeout(_START_S):
                code = await process.wait()
        except TimeoutError:
            logger.info("a terminal for container %s on the loopback device", container)
            return {"status": "ttyd started"}
        return {"error": f"ttyd ended at once with code {code}; is the port in use?"}

    async def close(self) -> None:
        """Ends the processes that still run."""
        await asyncio.gather(*map(_end, self._running.values()))
        self._running.clear()


def _exec_words(container: str, args: Arguments) -> list[str]:
    """The arguments after `docker exec -it`; no shell interprets them. Raises RequestError."""
    user, text = args.get("uid", ""), args.get("cmd") or "/bin/sh"
    if user and not _USER.fullmatch(user):
        raise RequestError("Invalid user")
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise RequestError(f"Invalid command: {exc}") from exc
    if not words or "\0" in text:
        raise RequestError("Invalid command")
    return [*([f"--user={user}"] if user else []), container, *words]


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # the process may end by itself meanwhile
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
