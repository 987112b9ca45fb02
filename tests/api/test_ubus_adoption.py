# SPDX-License-Identifier: GPL-2.0-or-later
"""Adopting on ubus: what the agent answers, with its errors in words, each method behind its right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.api.ubus.agent import AdoptionMethods, make_agent_object
from agent.errors import BusError, ConfigError
from agent.wire.ubus_message import Status
from tests.support.bus import a_bus
from tests.support.controller import QuietAgent
from tests.support.fake_rpcd import READER


class Adopting(QuietAgent):
    """An agent that notes what it is asked to adopt."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, Any]] = []

    async def adopt(self, container: str, **options: Any) -> dict[str, Any]:
        self.asked.append({"container": container, **options})
        return {"text": f"config container '{container}'\n", "committed": options["commit"]}

    async def diff(self, name: str) -> dict[str, Any]:
        if name != "web":
            raise ConfigError(f"{name}: no container section has it")
        return {"name": name, "fields": []}


class Desk:
    """Calls of the object `ucidockd`."""

    def __init__(self, bus: Any, agent: Adopting) -> None:
        self.bus, self.agent = bus, agent

    async def call(self, method: str, args: dict[str, Any], *, session: str = "") -> Any:
        given = {**args, **({"ubus_rpc_session": session} if session else {})}
        return await self.bus.caller.call("ucidockd", method, given, timeout_s=10)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    agent = Adopting()
    async with a_bus(tmp_path / "ubus.sock") as bus:
        await bus.publish([make_agent_object(bus.sessions, AdoptionMethods(agent).methods())])
        yield Desk(bus, agent)


async def test_a_preview_hides_secrets_and_writes_nothing_unless_asked(desk: Desk) -> None:
    preview = await desk.call("adopt", {"container": "handmade"})
    assert preview == {"text": "config container 'handmade'\n", "committed": False}
    written = await desk.call("adopt", {"container": "handmade", "section": "mine", "commit": True})
    assert written["committed"] is True
    assert desk.agent.asked == [
        {"container": "handmade", "section": "", "commit": False, "show_secrets": False},
        {"container": "handmade", "section": "mine", "commit": True, "show_secrets": False},
    ]


@pytest.mark.parametrize(
    ("method", "args", "code"),
    [
        ("adopt", {"container": "../version"}, "bad-request"),
        ("adopt", {}, "bad-request"),
        ("diff", {"name": "nothing"}, "config"),
        ("diff", {"name": "a b"}, "bad-request"),
        ("describe", {"name": "a b"}, "bad-request"),
    ],
)
async def test_what_is_wrong_is_said(desk: Desk, method: str, args: dict[str, Any], code: str) -> None:
    answer = await desk.call(method, args)
    assert answer["error"]["code"] == code
    assert desk.agent.asked == []


async def test_a_reader_may_compare_and_not_adopt(desk: Desk) -> None:
    desk.bus.rpcd.rights[READER] = {("ucidockd", "diff")}
    assert (await desk.call("diff", {"name": "web"}, session=READER))["name"] == "web"
    with pytest.raises(BusError) as refused:
        await desk.call("adopt", {"container": "handmade", "commit": True}, session=READER)
    assert refused.value.status == Status.PERMISSION_DENIED
    assert desk.agent.asked == []
