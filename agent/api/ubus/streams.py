# SPDX-License-Identifier: GPL-2.0-or-later
"""The methods `stream_*` of the object `ucidockd`: open, resume, feed, acknowledge, fetch and close a stream object.

Only the session that opened a stream object gets the right to subscribe to it, until the object ends: a pattern in an
access list would let every reader see the consoles of all others.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import secrets
from collections.abc import Mapping

from agent.api.problems import RequestError
from agent.api.rules import WRITER
from agent.api.streams.stream_sources import Source, StreamKind
from agent.api.ubus.stream_tab import WINDOW, Tab
from agent.errors import BusError
from agent.ubus.client import INTEGER, SESSION, STRING, TABLE, Arguments, BusObject, Method, Reply, UbusClient
from agent.ubus.rpcd import Rpcd
from agent.wire.ubus_message import Status

logger = logging.getLogger(__name__)

TABS = 32  # of all sessions
TABS_OF_A_SESSION = 8  # browsers with the same login; each has one
TABS_OF_READERS = 24  # out of TABS
SOURCES_OF_ALL = 512
SOURCES_OF_READERS = 384  # out of SOURCES_OF_ALL
SOURCES_OF_A_READER = 128  # of one session that may only read
NAME_LIMIT = 64  # characters of `owner` and `tag`, which come back with each first item
INPUT_LIMIT = 64 * 1024  # bytes of one call
WAIT_LIMIT_S = 20  # LuCI gives a call up after that
_WAIT_S = 20
_STOP_S = 2.5  # the process of a console is killed within that time


class Streams:
    """All stream objects. `kinds` may grow after construction."""

    def __init__(self, bus: UbusClient, rpcd: Rpcd, kinds: Mapping[str, StreamKind]) -> None:
        self._bus = bus
        self._rpcd = rpcd
        self._kinds = kinds
        self._tabs: dict[str, Tab] = {}  # by id
        # one for each tab, which ends it and withdraws its object
        self._tasks: set[asyncio.Task[None]] = set()
        bus.on_lost(self._on_bus_lost)

    def methods(self) -> dict[str, Method]:
        """The methods to publish."""
        one = {"id": STRING, "stream": INTEGER}
        return {
            "stream_open": Method(
                handler=self.open,
                args={"id": STRING, "kind": STRING, "args": TABLE, "owner": STRING, "tag": STRING},
            ),
            "stream_resume": Method(handler=self.resume, args={"id": STRING}),
            "stream_input": Method(handler=self.input, args={**one, "text": STRING, "data": STRING}),
            "stream_resize": Method(handler=self.resize, args={**one, "rows": INTEGER, "columns": INTEGER}),
            "stream_ack": Method(handler=self.acknowledge, args={"id": STRING, "seq": INTEGER}),
            "stream_read": Method(handler=self.read, args={"id": STRING, "after": INTEGER, "wait": INTEGER}),
            "stream_close": Method(handler=self.close, args={**one, "owner": STRING}),
        }

    async def stop(self) -> None:
        """Ends all stream objects, and cancels those that do not end in time."""
        for tab in list(self._tabs.values()):
            tab.end("the agent stops")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_S)
            for task in late:
                task.cancel()

    # methods

    async def open(self, args: Arguments) -> Reply:
        """Opens a new tab, or with `id` uses an open one; with `kind` also opens a stream in it. {id, object, window,
        stream?}.
        """
        session = args.get(SESSION, "")
        owner, tag = (args.get(name, "") for name in ("owner", "tag"))
        if max(len(owner), len(tag)) > NAME_LIMIT:
            raise RequestError(f"owner, tag: expected at most {NAME_LIMIT} characters")
        # check the right before creating anything: a tab whose first stream is refused would remain
        source = await self._source(session, args)
        tab = self._tab(args) if args.get("id") else await self._new_tab(session)
        reply: dict[str, object] = {"id": tab.id, "object": tab.object.name, "window": WINDOW}
        if source is None:
            return reply
        tabs = self._tabs.values()
        limits = [(SOURCES_OF_ALL, "", list(tabs))]
        # sessions that may only read must not take the streams that a writer needs
        if not tab.writes:
            limits += [
                (
                    SOURCES_OF_READERS,
                    " of sessions that may only read",
                    [one for one in tabs if not one.writes],
                ),
                (
                    SOURCES_OF_A_READER,
                    " of this session",
                    [one for one in tabs if one.session == tab.session],
                ),
            ]
        for limit, whose, counted in limits:
            if sum(one.streams for one in counted) >= limit:
                raise RequestError(f"{limit} streams{whose} are open", status=429)
        return {**reply, "stream": tab.add(source, owner=owner, tag=tag)}

    async def resume(self, args: Arguments) -> Reply:
        """Moves the tab to a new bus object, for an owner whose connection broke; the old object ends. {id, object,
        window}.
        """
        tab = self._tab(args)
        async with tab.moving:
            tab.check()
            # under another name, because uhttpd keeps the old subscription for ever (docs/uhttpd.md)
            fresh = tab.make_object(secrets.token_hex(16))
            await self._publish(tab.session, fresh)
            before = tab.move(fresh)
            await self._withdraw(tab.session, before)
        return {"id": tab.id, "object": fresh.name, "window": WINDOW}

    async def input(self, args: Arguments) -> Reply:
        """Sends `text`, or `data` in base64, to a stream that takes input."""
        tab = self._tab(args)
        source = tab.source(args.get("stream", 0))
        if "data" not in args:
            # a browser's JSON may contain half of a surrogate pair, which UTF-8 cannot express
            data: bytes = args.get("text", "").encode("utf-8", "replace")
        else:
            try:
                data = base64.b64decode(args["data"], validate=True)
            except (binascii.Error, ValueError) as exc:
                raise RequestError("data: expected base64") from exc
        # checked after decoding, since base64 is a third longer
        if len(data) > INPUT_LIMIT:
            raise RequestError(f"input of {len(data)} bytes: expected {INPUT_LIMIT} at most", status=413)
        tab.typed()
        await source.input(data)
        return {}

    async def resize(self, args: Arguments) -> Reply:
        """Sets the window size of a stream that has a window."""
        source = self._tab(args).source(args.get("stream", 0))
        rows, columns = args.get("rows", 0), args.get("columns", 0)
        if not (1 <= rows <= 1000 and 1 <= columns <= 1000):
            raise RequestError("rows and columns: expected 1 to 1000")
        await source.resize(rows, columns)
        return {}

    async def acknowledge(self, args: Arguments) -> Reply:
        """Acknowledges all packets up to `seq`."""
        self._tab(args).acknowledge(args.get("seq", 0))
        return {}

    async def read(self, args: Arguments) -> Reply:
        """The packets after `after`; waits up to `wait` seconds for one."""
        wait = args.get("wait", _WAIT_S)
        if not 0 <= wait <= WAIT_LIMIT_S:
            raise RequestError(f"wait: expected 0 to {WAIT_LIMIT_S} seconds")
        return await self._tab(args).read(args.get("after", 0), wait)

    async def close(self, args: Arguments) -> Reply:
        """Ends one stream, or those of an `owner`, or without either the whole tab."""
        tab = self._tab(args)
        if "stream" in args:
            tab.drop(args["stream"])
        elif args.get("owner"):
            # the pages of a browser share a tab: each ends its own streams by their owner
            tab.drop_of(args["owner"])
        else:
            tab.end("closed")
        return {}

    # tabs

    def _tab(self, args: Arguments) -> Tab:
        """The caller's own tab. Raises BusError."""
        tab = self._tabs.get(args.get("id", ""))
        if tab is None:
            raise BusError("no such stream", status=Status.NOT_FOUND)
        if tab.session != args.get(SESSION, ""):
            raise BusError("this stream belongs to another session", status=Status.PERMISSION_DENIED)
        return tab

    async def _source(self, session: str, args: Arguments) -> Source | None:
        """The source to open; None without `kind`. Raises RequestError, BusError."""
        name = args.get("kind", "")
        if not name:
            return None
        kind = self._kinds.get(name)
        if kind is None:
            raise RequestError(f"kind {name[:64]!r}: expected one of {', '.join(sorted(self._kinds))}")
        # checked for each stream, because the session's rights may have changed since the tab was opened
        if session and not await self._rpcd.allowed_now(session, kind.grant.object, kind.grant.method):
            raise BusError("the session may not read that", status=Status.PERMISSION_DENIED)
        opening = kind.open
        # some kinds hide secrets from readers
        if kind.open_for_reader is not None and not await self._may_write(session):
            opening = kind.open_for_reader
        return opening(args.get("args", {}))

    async def _may_write(self, session: str) -> bool:
        """A caller without a session is root."""
        return not session or await self._rpcd.allowed_now(session, WRITER.object, WRITER.method)

    async def _new_tab(self, session: str) -> Tab:
        # asked once: what the session may open is checked again with each stream
        writes = not session or await self._rpcd.allowed_now(session, WRITER.object, WRITER.method)
        if len(self._tabs) >= TABS:
            raise RequestError(f"{TABS} stream objects are open", status=429)
        if sum(tab.session == session for tab in self._tabs.values()) >= TABS_OF_A_SESSION:
            raise RequestError(f"{TABS_OF_A_SESSION} stream objects of this session are open", status=429)
        if not writes and sum(not tab.writes for tab in self._tabs.values()) >= TABS_OF_READERS:
            raise RequestError(
                f"{TABS_OF_READERS} stream objects of sessions that may only read are open", status=429
            )
        tab = Tab(
            secrets.token_hex(16), session, self._bus, lambda: self._still_allowed(session), writes=writes
        )
        # counted before it is published, which takes a moment: concurrent calls must not exceed the limit
        self._tabs[tab.id] = tab
        try:
            await self._publish(session, tab.object)
        except BaseException:
            del self._tabs[tab.id]
            raise
        task = asyncio.create_task(self._run(tab), name=f"tab-{tab.id[:8]}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return tab

    async def _still_allowed(self, session: str) -> bool:
        return not session or await self._rpcd.allowed_now(session, "ucidockd", "stream_open")

    async def _run(self, tab: Tab) -> None:
        try:
            await tab.run()
            logger.debug("stream %s ended: %s", tab.id[:8], tab.reason)
        finally:
            self._tabs.pop(tab.id, None)
            # while a move is in progress the tab has two bus objects; wait, so that the right one is removed
            async with tab.moving:
                with contextlib.suppress(BusError):
                    await tab.notify_closed()
                await self._withdraw(tab.session, tab.object)

    async def _publish(self, session: str, owned: BusObject) -> None:
        """Publishes the object for that session only. Raises BusError, with everything undone."""
        try:
            await self._bus.add_object(owned)
            if session:
                await self._rpcd.grant(session, [_right(owned)])
        except BaseException:
            await self._withdraw(session, owned)
            raise

    async def _withdraw(self, session: str, owned: BusObject) -> None:
        """Removes the object and the right to it, as far as ubusd and rpcd answer."""
        # each by itself: ubusd may be gone while rpcd still holds the right, and the other way round
        try:
            await self._bus.remove_object(owned)
        except BusError as exc:
            logger.debug("%s: %s", owned.name, exc)
        try:
            if session:
                await self._rpcd.revoke(session, [_right(owned)])
        except BusError as exc:
            logger.debug("%s: %s", owned.name, exc)

    def _on_bus_lost(self) -> None:
        for tab in self._tabs.values():
            tab.end("ubus went away")


def _right(owned: BusObject) -> tuple[str, str]:
    return (owned.name, ":subscribe")
