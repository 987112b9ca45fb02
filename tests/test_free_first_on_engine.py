# SPDX-License-Identifier: GPL-2.0-or-later
"""`strategy free-first` on a real engine with a real registry: one image at a time, and always a way back."""

from __future__ import annotations

import contextlib

import pytest

from agent.cli.ask import call
from agent.errors import UcidockdError
from agent.runtime.requests.foresight import foresee
from tests.support.agent_process import Agent, wait_for
from tests.support.registry import is_installed
from tests.support.state import state_of
from tests.test_updates_on_engine import BAD, Shop, agent, runs_new, shop

__all__ = ["agent", "shop"]

pytestmark = [
    pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed"),
    pytest.mark.timeout(900),
]


def section(shop: Shop, *more: str) -> str:
    text = shop.section("option strategy 'free-first'", "list volume '/kept'", *more)
    return text.replace("option gate '1'", "option gate '4'")  # a busy machine takes a while to end a program


def ask(agent: Agent) -> None:
    """An update that the agent is killed in. Not by the command line, which would do it without an agent."""
    with contextlib.suppress(UcidockdError):
        call(str(agent.box.options.socket), "POST", "/v1/update", body={"names": ["web"]})
    agent.wait_killed(120)


def images(shop: Shop) -> set[str]:
    """Those of the registry that the engine has, by tag or digest; other tests leave images of theirs."""
    found = shop.box.client.images.list() + shop.box.client.images.list(filters={"dangling": True})
    names = {str(i.id): [*(i.attrs["RepoTags"] or ()), *(i.attrs["RepoDigests"] or ())] for i in found}
    return {image for image, known_as in names.items() if any(shop.name in name for name in known_as)}


def test_one_image_goes_before_the_other_comes_and_a_bad_one_is_taken_back(shop: Shop) -> None:
    box = shop.box
    first = shop.push()
    assert box.errors(section(shop)) == []
    assert box.get("web").exec_run(["sh", "-c", "echo data >/kept/file"]).exit_code == 0
    second = shop.push()
    plan = foresee(box.reconciler).plan
    assert not plan.works, "nothing by itself"
    assert shop.renew()["outcome"] == "updated"
    assert (shop.runs(), images(shop)) == (second, {second})
    assert box.get("web").exec_run(["cat", "/kept/file"]).output == b"data\n"
    assert str(box.apply()[0]) == "nothing to do"
    # back, though the old image is gone
    assert shop.renew(back=True)["outcome"] == "rolled back"
    assert (shop.runs(), images(shop)) == (first, {first})
    # a bad one
    shop.push(BAD)
    row = shop.renew()
    assert (row["outcome"], "exited with 3" in row["message"]) == ("failed", True)
    assert "the config file is too old" in row["output"]
    assert (shop.runs(), images(shop)) == (first, {first})
    assert box.get("web").exec_run(["cat", "/kept/file"]).output == b"data\n"
    assert str(box.apply()[0]) == "nothing to do"
    degraded = shop.condition("Degraded")
    assert degraded is not None
    assert (degraded["reason"], "exited with 3" in degraded["message"]) == ("RolledBack", True)
    # without the registry nothing is begun
    before = box.get("web").id
    shop.registry.close()
    row = shop.renew()
    assert (row["outcome"], "nothing is removed" in row["message"]) == ("failed", True)
    assert (box.get("web").id, shop.runs()) == (before, first)


# each step is killed at in tests/virtual/test_replacements.py
POINTS = ("engine.remove_container#1:after", "engine.remove_image#1:after", "engine.create_container#1:after")


@pytest.mark.long
@pytest.mark.parametrize("command", ["good", BAD], ids=["good", "bad"])
def test_a_kill_on_the_way_is_survived(shop: Shop, command: str) -> None:
    box = shop.box
    shop.push()
    agent = Agent(box, module="tests.support.failing_agent")
    agent.commit(section(shop))
    try:
        agent.start()
        wait_for(lambda: box.client.containers.list(filters={"name": "web"}), 120)
        runs = str(box.get("web").attrs["Image"])
        agent.end()
        for point in POINTS:
            new = shop.push(f'CMD ["sleep", "{1000 + shop.pushed}"]' if command == "good" else command)
            agent.start(UCIDOCKD_FAILPOINT=point)
            ask(agent)
            agent.start()
            runs = new if command == "good" else runs
            wait_for(lambda expected=runs: runs_new(box, expected), 180)  # type: ignore[misc]
            wait_for(lambda: "freed" not in state(box), 120)
            agent.end()
            assert images(shop) == {runs}, point
    finally:
        agent.close()


def state(box: object) -> str:
    """What state.json says, all its changes folded by a stopped or running agent."""
    records = state_of(box.options.state_dir)["records"]  # type: ignore[attr-defined]
    return " ".join(key for record in records for key, value in record.items() if value)


@pytest.mark.long
def test_a_registry_that_goes_in_the_middle_is_waited_for(shop: Shop) -> None:
    box = shop.box
    first = shop.push()
    agent = Agent(box, module="tests.support.failing_agent")
    agent.commit(section(shop))
    try:
        agent.start()
        wait_for(lambda: runs_new(box, first), 120)
        agent.end()
        second = shop.push()
        agent.start(UCIDOCKD_FAILPOINT="engine.remove_image#1:after")
        ask(agent)
        assert not box.client.containers.list(all=True, filters={"name": "web"})
        shop.registry.close()
        agent.start()
        wait_for(lambda: "cannot pull" in agent.command("status", "--json").stdout, 120)
        shop.registry.start()
        wait_for(lambda: runs_new(box, second), 300)
        agent.end()
    finally:
        agent.close()
