# SPDX-License-Identifier: GPL-2.0-or-later
"""The TCP listeners of the agent section: opens and closes them and updates their certificate as the section changes.

A listener that cannot be opened now (its address does not exist yet, the certificate is missing) is retried. The
status board shows the state of each address. A listener is never opened with less protection than configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from starlette.types import ASGIApp

from agent.api.access.access import Access, Net
from agent.api.access.connection import ConnectionLimits
from agent.api.access.tcp import TcpServer, TlsFiles
from agent.errors import ConfigError
from agent.model.addresses import IpAddress, ListenAddress
from agent.model.resources import AgentSettings
from agent.status.board import StatusBoard

logger = logging.getLogger(__name__)

RETRY_S = 10.0  # until an address that could not be opened is tried again
CONNECTIONS = 64  # open at a time on one listener
PER_CLIENT = 16  # of one address
PER_PREFIX = 32  # of one IPv6 /64
UHTTPD = (Path("/etc/uhttpd.crt"), Path("/etc/uhttpd.key"))

LISTENING = "Listening"
EXPOSED = "ExposedListener"
FAILED = "ListenFailed"
NO_CERTIFICATE = "NoCertificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenState:
    """The state of one listen address, as the board shows it."""

    address: str
    state: str
    message: str = ""


class Listeners:
    """`async with Listeners(...)` keeps the listeners as the last `want` asked, until the block ends.

    `wan` returns the addresses that must not be listened on; it may block for a moment, and raises ConfigError.
    """

    def __init__(
        self, app: ASGIApp, access: Access, board: StatusBoard, *, wan: Callable[[], frozenset[IpAddress]]
    ) -> None:
        self._app = app
        self._access = access
        self._board = board
        self._wan = wan
        self._servers: dict[ListenAddress, TcpServer] = {}
        # the last pair only: all listeners use the same files
        self._pairs: dict[tuple[Path, Path], TlsFiles] = {}
        self._states: tuple[ListenState, ...] = ()  # as last shown, so that the log gets each change once
        self._wanted = AgentSettings()
        self._wake = asyncio.Event()  # set by new settings
        self._task: asyncio.Task[None] | None = None

    def want(self, settings: AgentSettings) -> None:
        """Sets the agent section to follow. Call it in the event loop."""
        if settings != self._wanted:
            self._wanted = settings
            self._wake.set()

    async def __aenter__(self) -> Listeners:
        self._task = asyncio.create_task(self._run(), name="listeners")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._close_all_but(())

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._follow(self._wanted)
            except Exception:
                # a defect here must neither end the agent nor block the next change
                logger.exception("the listeners could not be changed")
            with contextlib.suppress(TimeoutError):
                # retry, because an address may appear later (an interface comes up) and a port may become free
                async with asyncio.timeout(RETRY_S if self._wanted.listen else None):
                    await self._wake.wait()

    async def _follow(self, settings: AgentSettings) -> None:
        # the settings first: a new listener must not serve under the old `cors_origin` for a moment
        self._access.settings = settings
        await self._close_all_but(settings.listen)
        states = tuple([await self._one(address, settings) for address in dict.fromkeys(settings.listen)])
        for state in states:
            if state not in self._states:
                level = logging.INFO if state.state == LISTENING else logging.WARNING
                logger.log(level, "%s: %s %s", state.address, state.state, state.message)
        if states or self._states:
            self._board.set_agent(listen=[asdict(state) for state in states])
        self._states = states

    async def _one(self, address: ListenAddress, settings: AgentSettings) -> ListenState:
        # checked each time, because an address can become a WAN address while we listen on it
        exposed = await self._exposure(address)
        if exposed and not settings.allow_exposed:
            await self._close(address)
            message = f"{exposed}; not listened on (option allow_exposed)"
            return ListenState(address=str(address), state=EXPOSED, message=message)
        try:
            tls = await asyncio.to_thread(self._tls, address, settings)
            # a listener that is already open uses the new certificate for its next connections
            self._open(address, tls)
        # outside loopback everything needs TLS: anyone who reads a session on the wire becomes root
        except ConfigError as exc:
            await self._close(address)
            return ListenState(address=str(address), state=NO_CERTIFICATE, message=str(exc))
        except OSError as exc:
            return ListenState(address=str(address), state=FAILED, message=exc.strerror or str(exc))
        if exposed:
            return ListenState(
                address=str(address), state=EXPOSED, message=f"{exposed}; the listener is open anyway"
            )
        return ListenState(
            address=str(address), state=LISTENING, message="with TLS" if tls else "without TLS"
        )

    async def _exposure(self, address: ListenAddress) -> str:
        if address.ip.is_loopback:
            return ""
        nets = await self._access.subnets.nets()
        try:
            # in a thread, because netifd may answer slowly and other requests must not wait
            wan = await asyncio.to_thread(self._wan)
        except ConfigError as exc:
            return f"cannot tell whether this is a WAN address: {exc}"
        return exposure(address.ip, containers=nets, wan=wan)

    def _tls(self, address: ListenAddress, settings: AgentSettings) -> TlsFiles | None:
        """The certificate files to use; None on loopback if none are configured. Raises ConfigError."""
        if address.ip.is_loopback and not settings.cert:
            return None
        paths = (Path(settings.cert), Path(settings.key)) if settings.cert else UHTTPD
        # kept between calls: the context is read again only when the files have changed
        pair = self._pairs.get(paths)
        if pair is None:
            self._pairs = {paths: (pair := TlsFiles(*paths))}
        pair.context()
        return pair

    def _open(self, address: ListenAddress, tls: TlsFiles | None) -> None:
        running = self._servers.get(address)
        if running is not None:
            running.tls = tls
            return
        # limits of its own, so that filling a LAN listener does not block loopback
        limits = ConnectionLimits(
            control=False, connections=CONNECTIONS, per_client=PER_CLIENT, per_prefix=PER_PREFIX
        )
        server = TcpServer(self._app, limits, address, tls=tls)
        server.open()
        self._servers[address] = server

    async def _close_all_but(self, wanted: tuple[ListenAddress, ...]) -> None:
        async with asyncio.TaskGroup() as group:
            for address in self._servers.keys() - set(wanted):
                group.create_task(self._close(address), name=f"close {address}")

    async def _close(self, address: ListenAddress) -> None:
        server = self._servers.pop(address, None)
        if server is not None:
            await server.close()
            logger.info("%s: closed", address)


def exposure(ip: IpAddress, *, containers: Iterable[Net], wan: Collection[IpAddress]) -> str:
    """Why that address could be reached from outside the LAN; "" if it is a LAN address.

    A caller who can start containers controls the router, so the API stays on the LAN.
    """
    if ip.is_unspecified:
        return "this is every address, including those of WAN and of containers"
    # before `is_private`, because container networks have private addresses too
    if any(ip in net for net in containers):
        return "this is an address for containers"
    if ip in wan:
        return "this is an address of a zone that refuses input, such as wan"
    if not ip.is_private or ip.is_multicast:
        return "this is not a private address"
    return ""
