# SPDX-License-Identifier: GPL-2.0-or-later
"""rpcd's `session` object for tests, with the methods that the agent uses (rpcd/session.c)."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import BusError
from agent.ubus.client import ARRAY, STRING, BusObject, Method, UbusClient
from agent.ubus.rpcd import DEFAULT_SESSION
from agent.wire.ubus_message import Status

ADMIN, READER = "a" * 32, "b" * 32


class FakeRpcd:
    """`rights`: session -> granted (object pattern, method pattern). Without `answering` it accepts calls and never
    answers."""

    def __init__(self, path: Path) -> None:
        self.rights: dict[str, set[tuple[str, str]]] = {
            DEFAULT_SESSION: {("*", "*")},
            ADMIN: {("*", "*")},
            READER: set(),
        }
        self.values: dict[str, Any] = {}
        self.asked = 0
        self.refuse_grants = False
        self.answering = asyncio.Event()
        self.answering.set()
        self._client = UbusClient(str(path), jitter=lambda: 1.0)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> FakeRpcd:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        session = {"ubus_rpc_session": STRING, "scope": STRING}
        rights = {**session, "objects": ARRAY}
        methods = {
            "access": Method(handler=self._access, args={**session, "object": STRING, "function": STRING}),
            "grant": Method(handler=self._grant, args=rights),
            "revoke": Method(handler=self._revoke, args=rights),
            "get": Method(handler=self._get, args={**session, "keys": ARRAY}),
        }
        await self._client.add_object(BusObject(name="session", methods=methods))
        self._task = asyncio.create_task(self._client.run())
        async with asyncio.timeout(5):
            await self._client.ready.wait()

    async def stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    def destroy(self, session: str) -> None:
        del self.rights[session]

    async def _known(self, args: Mapping[str, Any]) -> set[tuple[str, str]]:
        self.asked += 1
        await self.answering.wait()
        try:
            return self.rights[args["ubus_rpc_session"]]
        except KeyError as exc:
            raise BusError("no such session", status=Status.NOT_FOUND) from exc

    async def _access(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        granted = await self._known(args)
        wanted = (args["object"], args["function"])
        access = any(all(map(fnmatch.fnmatchcase, wanted, pattern)) for pattern in granted)
        return {"access": access}

    async def _grant(self, args: Mapping[str, Any]) -> None:
        if self.refuse_grants:
            raise BusError("no", status=Status.UNKNOWN_ERROR)
        (await self._known(args)).update((o, f) for o, f in args["objects"])

    async def _revoke(self, args: Mapping[str, Any]) -> None:
        (await self._known(args)).difference_update((o, f) for o, f in args["objects"])

    async def _get(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        await self._known(args)
        return {"values": {key: self.values[key] for key in args["keys"] if key in self.values}}
