# SPDX-License-Identifier: GPL-2.0-or-later
"""Update checks on a real engine and a real registry, whose requests are counted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli.ask import call
from agent.errors import UcidockdError
from agent.model.updates import UpdateState
from agent.runtime.requests.planning import describe
from agent.runtime.requests.versions import ask
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, version
from tests.support.registry import is_installed
from tests.support.store import Store

pytestmark = pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")


@pytest.fixture
def store(box: Box, tmp_path: Path) -> Iterator[Store]:
    made = Store(box, tmp_path / "registry")
    yield made
    made.close()


def sections(*images: str, agent: str = "") -> str:
    text = f"config agent\n{agent}\n"
    for number, image in enumerate(images):
        text += f"config container 'c{number}'\n\toption image '{image}'\n\toption command 'sleep 1000'\n"
        text += "\toption stop_timeout '0'\n\toption gate '0'\n"
    return text


def check(box: Box, *keys: str) -> dict[str, Any]:
    """By hand; what is found for each section."""
    desired = box.reconciler.desired
    assert desired is not None
    checks = box.reconciler.update_checks()
    checks.check(desired, keys).result(30)
    return {item["section"]: item for item in checks.answer(desired)["containers"]}


def test_an_update_is_seen_without_a_pull(box: Box, store: Store) -> None:
    image = store.publish("app", "one")
    on = "\toption update_check 'daily'\n\toption update_check_window '00:00-00:01'"
    assert box.errors(sections(image, image, agent=on)) == []
    before = len(store.front.requests)
    assert check(box)["c0"]["state"] == UpdateState.CURRENT
    assert [(r.method, r.path) for r in store.front.requests[before:]] == [("HEAD", "/v2/app/manifests/1")]
    store.publish("app", "two")
    before = len(store.front.requests)
    found = check(box)
    assert [(r.method, r.path) for r in store.front.requests[before:]] == [("HEAD", "/v2/app/manifests/1")]
    for item in found.values():
        assert item["state"] == UpdateState.AVAILABLE
        assert item["running"]
        assert item["digest"] not in item["running"]
    # what is known of it outlives the agent, and the section on the board tells it
    first_seen = found["c0"]["first_seen"]
    box.restart_agent()
    box.apply()
    (shown,) = (r for r in box.reconciler.board.snapshot()["resources"] if r["key"] == "container:c0")
    assert shown["update"]["state"] == "update"
    assert shown["update"]["first_seen"] == round(first_seen)
    told = next(c for c in shown["conditions"] if c["type"] == "UpdateAvailable")
    assert (told["status"], told["level"]) == (True, "ok")
    assert told["since"] == pytest.approx(first_seen, abs=2)
    assert found["c0"]["digest"][:19] in told["message"]
    assert describe(box.reconciler, "c0")["image"]["check"]["state"] == "update"
    assert len(store.front.requests) == before + 1


@pytest.mark.parametrize("kept", [True, False], ids=["", "after-a-restart"])
def test_a_pull_is_newer_than_the_last_check(box: Box, store: Store, *, kept: bool) -> None:
    image = store.publish("app", "one")
    assert box.errors(sections(image, image)) == []
    store.publish("app", "two")
    checked = check(box)["c0"]["digest"]
    store.publish("app", "three")  # the tag moves again before the update
    if not kept:
        box.restart_agent()
        box.apply()
    desired = box.reconciler.desired
    assert desired is not None
    ask(box.reconciler, ["c0"], back=False)
    for _ in range(3):
        box.apply()
    states = box.reconciler.update_checks().results(desired)
    assert states["container:c0"].state == (UpdateState.CURRENT if kept else UpdateState.UNKNOWN)
    # another container of that tag is told of what the tag names now, not of the image that was checked
    offered = states["container:c1"].available
    assert (offered is not None) == kept
    assert offered is None or offered.digest != checked
    (c0,) = (r for r in box.reconciler.board.snapshot()["resources"] if r["key"] == "container:c0")
    assert not [c for c in c0["conditions"] if c["type"] == "UpdateAvailable" and c["status"]]


@pytest.mark.long
def test_an_image_without_digests_is_unknown_and_never_an_update(box: Box, store: Store) -> None:
    image = store.publish("app", "one")
    box.client.api.tag(BUSYBOX, f"{store.front.address}/local", "1")
    local = f"{store.front.address}/local:1"
    assert box.errors(sections(image, local)) == []
    store.publish("app", "two")
    store.publish("local", "published")
    box.client.images.pull(
        *image.rsplit(":", 1)
    )  # someone moves the tag: the containerd store loses the digest
    found = check(box)
    lost = version() >= 29
    assert found["c0"]["state"] == (UpdateState.UNKNOWN if lost else UpdateState.AVAILABLE)
    if not lost:  # the containerd store gives local images a digest of their own
        assert found["c1"]["state"] == UpdateState.UNKNOWN
        assert "built here" in found["c1"]["why"]


@pytest.mark.long
def test_a_limit_a_failure_and_one_that_is_gone_are_told(box: Box, store: Store) -> None:
    one, two = store.publish("one", "1"), store.publish("two", "1")
    pinned = box.client.images.pull(*one.rsplit(":", 1)).attrs["RepoDigests"][0]
    assert box.errors(sections(one, two, pinned)) == []
    store.front.answer = lambda asked: (429, {"Retry-After": "600"}, b"") if asked.method == "HEAD" else None
    before = len(store.front.requests)
    found = check(box)
    assert len(store.front.requests) == before + 1  # it is left alone after that
    assert [found[name]["state"] for name in ("c0", "c1", "c2")] == [
        "rate-limited",
        "rate-limited",
        "up-to-date",
    ]
    assert found["c1"]["retry_at"] == pytest.approx(found["c0"]["retry_at"])
    checks, desired = box.reconciler.update_checks(), box.reconciler.desired
    assert desired is not None
    (registry,) = checks.answer(desired)["registries"]
    assert registry["limited_until"] == pytest.approx(found["c0"]["retry_at"])
    assert check(box)["c0"]["state"] == "rate-limited"
    assert len(store.front.requests) == before + 1
    checks._limited.clear()
    store.front.answer = lambda asked: (502, {}, b"S3CRET") if "one" in asked.path else None
    found = check(box)
    assert (found["c0"]["state"], found["c1"]["state"]) == ("failed", "up-to-date")
    assert "502" in found["c0"]["why"]
    store.front.answer = lambda _: None
    store.front.headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}
    found = check(box)
    assert (found["c0"]["state"], found["c1"]["state"]) == ("up-to-date", "rate-limited")
    checks._limited.clear()
    store.front.close()
    found = check(box)
    assert [found[name]["state"] for name in ("c0", "c1")] == ["failed", "failed"]
    assert found["c0"]["retry_at"] == pytest.approx(checks.time.wall() + 3600, abs=60)
    assert "S3CRET" not in json.dumps(box.reconciler.board.snapshot())


@pytest.mark.long
def test_a_check_is_made_when_it_is_due_and_only_then(box: Box, store: Store) -> None:
    image = store.publish("app", "one")
    on = "\toption update_check 'daily'"
    assert box.errors(sections(image, agent=on)) == []
    checks = box.reconciler.update_checks()
    checks.spread = 0.0
    before = store.front.count(method="HEAD", path="/app/")

    def passes() -> int:
        box.apply()
        if checks._under_way is not None:
            checks._under_way.result(30)
        return store.front.count(method="HEAD", path="/app/") - before

    assert passes() == 1
    assert passes() == 1
    store.publish("app", "two")
    assert checks.last is not None
    checks.last -= 86400
    assert passes() == 2
    box.apply()
    (shown,) = (r for r in box.reconciler.board.snapshot()["resources"] if r["key"] == "container:c0")
    assert shown["update"]["state"] == "update"
    written = (box.options.state_dir / "updates.json").stat().st_mtime_ns
    checks.last -= 86400
    assert passes() == 3
    assert (
        box.options.state_dir / "updates.json"
    ).stat().st_mtime_ns == written  # nothing new, nothing written
    box.restart_agent()
    box.apply()
    assert store.front.count(method="HEAD", path="/app/") - before == 3  # when the last one was is known


@pytest.mark.long
def test_a_running_agent_checks_when_it_is_asked_and_by_itself(box: Box, store: Store) -> None:
    image = store.publish("app", "one")
    agent = Agent(box)
    agent.commit(sections(image))
    agent.start()
    socket = str(box.options.socket)
    try:
        wait_for(lambda: running(box, "c0"), 60)
        assert call(socket, "GET", "/v1/updates") == {
            "checked_at": None,
            "checking": False,
            "containers": [],
            "registries": [],
        }
        store.publish("app", "two")
        (found,) = call(socket, "POST", "/v1/updates/check", body={"names": ["c0"]})["containers"]
        assert (found["key"], found["state"]) == ("container:c0", "update")
        with pytest.raises(UcidockdError, match="'nobody'"):
            call(socket, "POST", "/v1/updates/check", body={"names": ["nobody"]})

        def shown() -> bool:
            (one,) = (r for r in agent.status()["resources"] if r["key"] == "container:c0")
            return (one.get("update") or {}).get("state") == "update" and any(
                c["type"] == "UpdateAvailable" and c["status"] for c in one["conditions"]
            )

        wait_for(shown, 30)
        assert running(box, "c0")
        metrics = subprocess.run(
            ["curl", "-sS", "--unix-socket", socket, "http://localhost/metrics"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert 'ucidockd_image_updates{state="update"} 1' in metrics
        told = agent.command("update", "--check", "c0")
        assert (told.returncode, "update" in told.stdout) == (0, True)
        assert found["digest"] in told.stdout
        applied = agent.command("update", "--yes")
        assert applied.returncode == 0, applied.stdout + applied.stderr
        (after,) = call(socket, "GET", "/v1/updates")["containers"]
        assert after["state"] == "up-to-date"
        assert not shown()
    finally:
        agent.close()
