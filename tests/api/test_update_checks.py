# SPDX-License-Identifier: GPL-2.0-or-later
"""`GET /v1/updates`, `POST /v1/updates/check` and the same on ubus: what they take, and who may call them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.api.ubus import agent as under_test
from agent.api.ubus.agent import UpdateMethods, make_agent_object
from agent.errors import BusError
from agent.wire.ubus_message import Status
from tests.support.bus import a_bus
from tests.support.controller import Controller, QuietAgent, serving
from tests.support.fake_rpcd import READER


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    folder: Path = tmp_path_factory.mktemp("updates")
    with serving(folder, f"unix://{folder}/no-engine") as made:
        yield made


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"name": "web"}, "unknown name 'name'; use `names`"),
        ({"names": "web"}, "`names`: expected a list of names"),
        ({"names": [1]}, "`names`: expected a list of names"),
    ],
)
def test_a_request_that_is_wrong_is_refused_in_words(controller: Controller, body: Any, message: str) -> None:
    answer = controller.client.post("/v1/updates/check", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_what_is_asked_for_reaches_the_agent(controller: Controller) -> None:
    asked = controller.client.post("/v1/updates/check", json={"names": ["web"]})
    assert asked.json() == {"containers": [{"name": "web"}]}
    assert controller.client.post("/v1/updates/check").json() == {"containers": []}
    assert controller.client.get("/v1/updates").json() == {"containers": []}


class Slow(QuietAgent):
    """Its registries take their time."""

    async def check_updates(self, names: Sequence[str] = ()) -> dict[str, Any]:
        await asyncio.sleep(0.3)
        return await super().check_updates(names)


async def test_on_ubus_a_reader_may_look_and_not_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_bus(tmp_path / "ubus.sock") as bus:
        await bus.publish([make_agent_object(bus.sessions, UpdateMethods(Slow()).methods())])
        bus.rpcd.rights[READER] = {("ucidockd", "updates")}

        async def call(method: str, **args: Any) -> Any:
            return await bus.caller.call("ucidockd", method, args, timeout_s=10)

        assert await call("updates", ubus_rpc_session=READER) == {"containers": []}
        with pytest.raises(BusError) as refused:
            await call("updates_check", ubus_rpc_session=READER)
        assert refused.value.status == Status.PERMISSION_DENIED
        assert await call("updates_check", names=["web"]) == {"containers": [{"name": "web"}]}
        monkeypatch.setattr(under_test, "ANSWER_S", 0.05)
        assert (await call("updates_check"))["under_way"] is True
        await asyncio.sleep(0.5)
