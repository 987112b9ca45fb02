# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd by hand, and bundles for its clients, on both doors: what is asked of the agent, and who may ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.api.ubus.agent import DaemonMethods, make_agent_object
from agent.errors import BusError, ConflictError
from agent.model.dockerd.settings import DaemonAction
from agent.wire.ubus_message import Status
from tests.support.bus import a_bus
from tests.support.controller import Controller, QuietAgent, serving
from tests.support.fake_rpcd import ADMIN, READER

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a number for a name": ({"name": 5}, "name: expected text"),
    "no days": ({"name": "laptop", "days": 0}, "days: expected a whole number from 1 to 3650"),
    "too many days": ({"name": "laptop", "days": 3651}, "days: expected a whole number from 1 to 3650"),
    "an unknown name": ({"name": "laptop", "out": "/etc"}, "unknown name 'out'; use `name` or `days`"),
}


class Refusing(QuietAgent):
    async def dockerd(self, wish: DaemonAction) -> None:
        raise ConflictError(f"no {wish}")


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    folder: Path = tmp_path_factory.mktemp("by-hand")
    with serving(folder, f"unix://{folder}/no-engine") as made:
        yield made


@pytest.mark.parametrize("wish", DaemonAction)
def test_a_wish_by_http_reaches_the_agent_and_is_answered_at_once(
    controller: Controller, wish: DaemonAction
) -> None:
    assert controller.client.post(f"/v1/dockerd/{wish}").json() == {"started": True}
    assert controller.agent.manual_actions[-1] == f"dockerd {wish}"


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD.keys())
def test_a_bundle_that_is_asked_for_wrongly_is_refused_in_words(
    controller: Controller, body: dict[str, Any], message: str
) -> None:
    answer = controller.client.post("/v1/tls/clients", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_bundle_lasts_two_years_unless_said_otherwise(controller: Controller) -> None:
    asked = controller.client.post("/v1/tls/clients", json={"name": "laptop"}).json()
    assert asked == {"name": "laptop", "files": {}, "days": 730}


async def test_on_ubus_only_who_may_write_reaches_the_agent(tmp_path: Path) -> None:
    agent = QuietAgent()
    async with a_bus(tmp_path / "ubus.sock") as bus:
        await bus.publish([make_agent_object(bus.sessions, DaemonMethods(agent).methods())])
        for wish in DaemonAction:
            done = await bus.caller.call(
                "ucidockd", f"dockerd_{wish}", {"ubus_rpc_session": ADMIN}, timeout_s=10
            )
            assert done == {"started": True}
        bundle = await bus.caller.call("ucidockd", "tls_client", {"name": "laptop", "days": 3}, timeout_s=10)
        assert bundle == {"name": "laptop", "files": {}, "days": 3}
        assert agent.manual_actions == [f"dockerd {wish}" for wish in DaemonAction]
        for method in ("tls_client", *(f"dockerd_{wish}" for wish in DaemonAction)):
            with pytest.raises(BusError) as refused:
                await bus.caller.call("ucidockd", method, {"ubus_rpc_session": READER}, timeout_s=10)
            assert refused.value.status == Status.PERMISSION_DENIED
        assert len(agent.manual_actions) == len(DaemonAction)


async def test_on_ubus_a_refusal_says_why(tmp_path: Path) -> None:
    async with a_bus(tmp_path / "ubus.sock") as bus:
        await bus.publish([make_agent_object(bus.sessions, DaemonMethods(Refusing()).methods())])
        answer = await bus.caller.call("ucidockd", "dockerd_stop", {}, timeout_s=10)
    assert answer == {"error": {"code": "conflict", "message": "no stop"}}
