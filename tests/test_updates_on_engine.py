# SPDX-License-Identifier: GPL-2.0-or-later
"""Updates and rollbacks on a real engine, with a real registry."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError, ConflictError
from agent.runtime.requests.foresight import foresee
from agent.runtime.requests.versions import answer, ask
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd
from tests.support.registry import Registry, is_installed

pytestmark = pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")

GOOD = 'CMD ["sleep", "1000"]'
BAD = """CMD ["sh", "-c", "echo the config file is too old; exit 3"]"""


class Shop:
    """A registry with one image, whose tag moves with each push. The engine has it only once it pulled it."""

    def __init__(self, box: Box, engine: PrivateDockerd, folder: Path) -> None:
        self.box, self._engine = box, engine
        self.registry = Registry(folder / "registry")
        self.name = f"{self.registry.address}/app"
        self.image = f"{self.name}:1"
        self.pushed = 0

    def push(self, command: str = GOOD, *, keep: bool = False) -> str:
        """A new image of that tag; returns its id. `keep`: the tag has moved here too."""
        self.pushed += 1
        before = {image.id for image in self.box.client.images.list(self.name)}
        self._engine.import_busybox(self.image, changes=[command, f"LABEL made={self.pushed}"])
        made = self.box.client.images.get(self.image).id
        for line in self.box.client.api.push(self.name, "1", stream=True, decode=True):
            assert "error" not in line, line
        if not keep:
            self.box.client.images.remove(self.image)
        assert made not in before
        return str(made)

    def section(self, *more: str) -> str:
        lines = [f"option image '{self.image}'", "option stop_timeout '0'", "option gate '1'", *more]
        return "config container 'web'\n" + "".join(f"\t{line}\n" for line in lines)

    def renew(self, *, back: bool = False) -> dict[str, Any]:
        reconciler = self.box.reconciler
        with reconciler.under_way.collecting() as outcomes:
            asked = ask(reconciler, ["web"], back=back)
            for _ in range(3):
                reconciler.run_pass(deep=None)
            told = answer(reconciler, asked, foresee(reconciler), outcomes)
        (row,) = told["containers"]
        return dict(row)

    def runs(self) -> str:
        web = self.box.get("web")
        assert web.status == "running"
        return str(web.attrs["Image"])

    def condition(self, kind: str) -> dict[str, Any] | None:
        found = self.box.reconciler.board.resource("container:web") or {}
        return next((c for c in found["conditions"] if c["type"] == kind and c["status"]), None)


@pytest.fixture
def shop(box: Box, engine: PrivateDockerd, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(box, engine, tmp_path)
    yield made
    box.clean()
    made.registry.close()
    for left in box.client.images.list(made.name):
        box.client.images.remove(left.id, force=True)


def test_updates_are_asked_for_and_a_bad_one_is_taken_back(shop: Shop) -> None:
    box = shop.box
    first = shop.push()
    assert box.errors(shop.section()) == []
    assert shop.runs() == first
    # somebody moves the tag here: nothing is replaced, and status says what is there
    second = shop.push(keep=True)
    assert str(box.apply()[0]) == "nothing to do"
    assert shop.runs() == first
    told = shop.condition("UpdateAvailable")
    assert told is not None
    assert second[7:19] in told["message"]
    assert first[7:19] in told["message"]
    # an edit for another reason keeps the image
    assert box.errors(shop.section("option hostname 'other'")) == []
    assert shop.runs() == first
    assert shop.renew()["outcome"] == "updated"
    assert shop.runs() == second
    assert shop.condition("UpdateAvailable") is None
    assert shop.renew()["outcome"] == "current"
    # a bad one
    shop.push(BAD)
    row = shop.renew()
    assert row["outcome"] == "failed"
    assert "exited with 3" in row["message"]
    assert "the config file is too old" in row["output"]
    assert shop.runs() == second
    degraded = shop.condition("Degraded")
    assert degraded is not None
    assert (degraded["reason"], "exited with 3" in degraded["message"]) == ("RolledBack", True)
    box.restart_agent()
    assert str(box.apply()[0]) == "nothing to do"
    degraded = shop.condition("Degraded")
    assert degraded is not None
    assert "exited with 3" in degraded["message"]
    # the way back, though the image is gone here
    box.client.images.remove(first, force=True)
    row = shop.renew(back=True)
    assert (row["outcome"], row["message"]) == ("rolled back", "")
    assert shop.runs() == first
    assert shop.condition("Pinned") is not None
    with pytest.raises(ConflictError, match="taken back already"):
        shop.renew(back=True)
    # pinned until an update is asked for
    third = shop.push()
    assert str(box.apply()[0]) == "nothing to do"
    assert shop.renew()["outcome"] == "updated"
    assert shop.runs() == third
    assert shop.condition("Pinned") is None


@pytest.mark.long
def test_a_pin_ends_with_an_edit_and_what_cannot_be_is_said(shop: Shop) -> None:
    box = shop.box
    first = shop.push()
    assert box.errors(shop.section()) == []
    with pytest.raises(ConflictError, match="no earlier image"):
        shop.renew(back=True)
    with pytest.raises(ConfigError, match="nobody"):
        ask(box.reconciler, ["nobody"], back=False)
    second = shop.push()
    assert shop.renew()["outcome"] == "updated"
    assert shop.renew(back=True)["outcome"] == "rolled back"
    assert box.errors(shop.section("option hostname 'other'")) == []
    assert str(box.apply()[0]) == "nothing to do"
    assert (shop.runs(), shop.condition("Pinned")) == (first, None)
    # a registry that is away: what runs stays, and nothing is tried again and again
    shop.registry.close()
    box.client.images.remove(shop.image, force=True)
    row = shop.renew()
    assert (row["outcome"], "cannot pull" in row["message"]) == ("failed", True)
    box.reconciler.backoff.clear()
    assert str(box.apply()[0]) == "nothing to do"
    assert shop.runs() == first != second
    # an image before that is gone, and that no registry has
    (record,) = [r for r in box.reconciler.records.records() if r.section == "web"]
    box.reconciler.records.change(record.nonce, previous=(f"sha256:{'0' * 64}=",))
    row = shop.renew(back=True)
    assert row["outcome"] == "failed"
    assert row["message"].startswith(
        "image 000000000000 is no longer here, and no registry is known to have it"
    )
    assert shop.runs() == first


@pytest.mark.long
def test_a_rollback_after_an_edit_of_the_image(shop: Shop) -> None:
    """It brings back the image, not the section: that still names the other one, and the pin holds until it is edited."""
    box = shop.box
    first = shop.push()
    assert box.errors(shop.section()) == []
    second = shop.push()
    box.client.images.pull(shop.name, "1").tag(shop.name, "2")
    for line in box.client.api.push(shop.name, "2", stream=True, decode=True):
        assert "error" not in line, line
    edited = shop.section().replace(":1'", ":2'")
    assert box.errors(edited) == []
    assert (shop.runs(), box.get("web").attrs["Config"]["Image"]) == (second, f"{shop.name}:2")
    row = shop.renew(back=True)
    assert (row["outcome"], shop.runs()) == ("rolled back", first)
    assert shop.condition("Pinned") is not None
    assert str(box.apply()[0]) == "nothing to do"
    box.restart_agent()
    assert str(box.apply()[0]) == "nothing to do"
    # another option keeps the image, and ends the pin
    other = edited + "\toption hostname 'other'\n"
    assert box.errors(other) == []
    assert str(box.apply()[0]) == "nothing to do"
    assert (shop.runs(), shop.condition("Pinned")) == (first, None)
    told = shop.condition("UpdateAvailable")
    assert told is not None and f"{shop.name}:2 is now" in told["message"]
    assert shop.renew()["outcome"] == "updated"
    assert shop.runs() == second


@pytest.mark.long
def test_what_shares_its_namespace_follows(shop: Shop) -> None:
    box = shop.box
    shop.push()
    peer = "config container 'peer'\n\toption network_mode 'service:web'\n\toption stop_timeout '0'\n"
    peer += f"\toption image '{shop.image}'\n"
    assert box.errors(shop.section() + peer) == []
    before, peer_before = box.get("peer").id, box.get("peer").attrs["Image"]
    shop.push()
    assert shop.renew()["outcome"] == "updated"
    assert box.get("peer").id != before
    assert box.get("peer").attrs["Image"] == peer_before  # it was not asked for
    assert box.get("peer").attrs["HostConfig"]["NetworkMode"].endswith(box.get("web").id)


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    try:
        yield made
    finally:
        made.close()


def words(box: Box) -> str:
    return str(box.get("web").exec_run(["cat", "/data/words"])[1].decode()).strip()


def copies(box: Box) -> list[str]:
    return [v.name for v in box.client.volumes.list() if v.name.startswith("ucidockd-saved-")]


def runs_new(box: Box, image: str) -> bool:
    return running(box, "web") and box.get("web").attrs["Image"] == image


def is_settled(box: Box) -> bool:
    """Whether no container waits for its swap to end."""
    return len(box.client.api.containers(all=True)) == 1


MIGRATES = 'CMD ["sh", "-c", "echo migrated >/data/words; exec sleep 1000"]'
SPOILS = 'CMD ["sh", "-c", "echo spoiled >/data/words; exit 3"]'


@pytest.mark.long
def test_an_update_is_taken_back_with_its_data(shop: Shop, agent: Agent) -> None:
    box = shop.box
    declared = shop.section("list volume 'data:/data'", "option backup_before_update '1'")
    first = shop.push()
    agent.commit("config volume 'data'\n\n" + declared)
    agent.start()
    wait_for(lambda: runs_new(box, first))
    refused = agent.command("rollback", "web", "--with-data")
    assert refused.returncode != 0
    assert "has no saved data to go back to" in refused.stderr
    assert box.get("web").exec_run(["sh", "-c", "echo precious >/data/words"])[0] == 0
    # one that spoils the data and fails: the old container has its data again
    shop.push(SPOILS)
    failed = agent.command("update", "web")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert runs_new(box, first)
    assert words(box) == "precious"
    assert copies(box) == []
    # one that starts, and whose data the old image could not read
    second = shop.push(MIGRATES)
    done = agent.command("update", "web")
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs_new(box, second)
    wait_for(lambda: words(box) == "migrated")
    assert len(copies(box)) == 1
    # another container has the volume mounted: nothing is exchanged, and the new one runs on
    other = box.client.containers.run(
        "busybox:test", ["sleep", "1000"], volumes={"data": {"bind": "/d"}}, name="other", detach=True
    )
    failed = agent.command("rollback", "web", "--with-data")
    assert failed.returncode == 1
    assert "other still uses the data" in " ".join(failed.stdout.split())
    assert runs_new(box, second)
    assert words(box) == "migrated"
    other.remove(force=True)
    # first without its data, which can follow
    assert agent.command("rollback", "web").returncode == 0
    assert runs_new(box, first)
    assert words(box) == "migrated"
    done = agent.command("rollback", "web", "--with-data")
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs_new(box, first)
    assert words(box) == "precious"
    assert copies(box) == []


@pytest.mark.long
def test_a_killed_agent_loses_no_data_of_an_update(shop: Shop, agent: Agent) -> None:
    box = shop.box
    declared = shop.section("list volume 'data:/data'", "option backup_before_update '1'")
    declared = declared.replace("option gate '1'", "option gate '8'")
    first = shop.push()
    agent.commit("config volume 'data'\n\n" + declared)
    agent.start()
    wait_for(lambda: runs_new(box, first))
    assert box.get("web").exec_run(["sh", "-c", "echo precious >/data/words"])[0] == 0
    second = shop.push(MIGRATES)
    update = agent.spawned("update", "web")
    wait_for(lambda: runs_new(box, second) and words(box) == "migrated")
    agent.end(signal.SIGKILL)
    assert update.wait(20) == 1  # the command does not do it itself beside the next agent
    agent.start()  # it is undone, and begun anew: it was asked for
    wait_for(lambda: box.get("web").attrs["Image"] != second)
    wait_for(lambda: runs_new(box, second) and words(box) == "migrated", 90)
    assert len(copies(box)) == 1, "that of the killed attempt takes no space beside it"
    wait_for(lambda: is_settled(box), 90)
    assert words(box) == "migrated"
    # while the saved data is on trial
    back = agent.spawned("rollback", "web", "--with-data")
    wait_for(lambda: runs_new(box, first) and words(box) == "precious")
    agent.end(signal.SIGKILL)
    back.wait(20)
    agent.start()
    wait_for(lambda: runs_new(box, first) and is_settled(box), 90)
    assert words(box) == "precious"
    wait_for(lambda: copies(box) == [])


@pytest.mark.long
def test_an_update_outlives_a_dockerd_that_is_stopped(
    shop: Shop, agent: Agent, engine: PrivateDockerd
) -> None:
    box = shop.box
    first = shop.push()
    agent.commit(
        "config volume 'data'\n\n"
        + shop.section("list volume 'data:/data'", "option backup_before_update '1'")
    )
    agent.start()
    wait_for(lambda: runs_new(box, first))
    # takes a moment to copy
    box.get("web").exec_run(["dd", "if=/dev/zero", "of=/data/large", "bs=1M", "count=300"])
    second = shop.push()
    update = agent.spawned("update", "web")
    wait_for(lambda: any(name.startswith("ucidockd-copies-") for name in box.names()))
    engine.stop()
    assert update.wait(20) == 1  # it waits
    engine.start()
    wait_for(lambda: runs_new(box, second) and is_settled(box), 90)
    assert len(copies(box)) == 1  # and nothing is left of the copy that was broken off
    wait_for(lambda: agent.command("update", "web").returncode == 0)


@pytest.mark.long
def test_what_needs_the_agent_waits_for_it(shop: Shop, agent: Agent) -> None:
    """A command without an agent cannot save data: the request stays, and is not a failure of the image."""
    box = shop.box
    first = shop.push()
    agent.commit(
        "config volume 'data'\n\n"
        + shop.section("list volume 'data:/data'", "option backup_before_update '1'")
    )
    agent.start()
    wait_for(lambda: runs_new(box, first))
    agent.end()
    second = shop.push()
    done = agent.command("update", "web")
    assert done.returncode == 1
    assert "waits" in done.stdout
    assert "only a running agent saves and restores data" in " ".join(done.stdout.split())
    assert runs_new(box, first)
    agent.start()
    wait_for(lambda: runs_new(box, second) and is_settled(box), 60)
