# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's own pulls from a real registry that wants a login."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX
from tests.support.registry import PASSWORD, USER, Registry, Throttle, is_installed

pytestmark = pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")


@pytest.fixture
def image(box: Box, tmp_path: Path) -> Iterator[str]:
    """An image that only the registry has, until it is pulled."""
    registry = Registry(tmp_path / "registry", with_login=True)
    name = f"{registry.address}/app"
    try:
        box.client.api.tag(BUSYBOX, name, "1")
        login = {"username": USER, "password": PASSWORD}
        for line in box.client.api.push(name, "1", auth_config=login, stream=True, decode=True):
            assert "error" not in line, line
        box.client.images.remove(f"{name}:1")
        yield f"{name}:1"
    finally:
        box.clean()
        registry.close()
        for left in box.client.images.list(name):
            box.client.images.remove(left.tags[0])


def section(image: str, *more: str) -> str:
    lines = [f"option image '{image}'", "option command 'sleep 1000'", "option stop_timeout '0'", *more]
    return "config container 'web'\n" + "".join(f"\t{line}\n" for line in lines)


def login(image: str, password: str = PASSWORD) -> str:
    host = image.partition("/")[0]
    return f"\nconfig auth\n\toption serveraddress '{host}'\n\toption username '{USER}'\n\toption password '{password}'\n"


def test_the_login_of_the_registry_is_used(box: Box, image: str) -> None:
    assert box.errors(section(image) + login(image)) == []
    assert box.get("web").status == "running"


@pytest.mark.parametrize("wrong", ["none", "password", "other host"])
def test_without_the_right_login_the_image_is_named_and_no_secret(box: Box, image: str, wrong: str) -> None:
    auth = {
        "none": "",
        "password": login(image, "S3CRET-wrong"),
        "other host": login("registry.example/x"),
    }[wrong]
    errors = box.errors(section(image) + auth)
    assert len(errors) == 1
    assert image in errors[0]
    assert "S3CRET" not in errors[0] + json.dumps(box.reconciler.board.snapshot())
    assert box.names() == []


def test_never_pulls_nothing_and_says_so(box: Box, image: str) -> None:
    errors = box.errors(section(image, "option pull 'never'") + login(image))
    assert [image in error and "never" in error for error in errors] == [True]


def test_always_takes_what_the_registry_has_now(box: Box, image: str) -> None:
    always = section(image, "option pull 'always'") + login(image)
    # the tag is another image's here; the registry's is the one that counts when it is made
    other = box.client.containers.create(BUSYBOX, ["true"])
    box.client.api.commit(other.id, *image.rsplit(":", 1))
    other.remove()
    assert box.errors(always) == []
    assert box.get("web").image.id == box.client.images.get(BUSYBOX).id


@pytest.fixture
def slow(box: Box, tmp_path: Path) -> Iterator[tuple[str, Throttle]]:
    """An image that takes minutes to pull, and the way to it."""
    registry = Registry(tmp_path / "registry")
    made = box.client.containers.create(BUSYBOX, "true")
    door = Throttle(registry.port, bytes_per_s=2**30)
    name = f"{door.address}/slow"
    try:
        (tmp_path / "noise").write_bytes(os.urandom(2**21))
        with tarfile.open(tmp_path / "noise.tar", "w") as tar:
            tar.add(tmp_path / "noise", "noise")
        made.put_archive("/", (tmp_path / "noise.tar").read_bytes())
        made.commit(name, "1")
        for line in box.client.api.push(name, "1", stream=True, decode=True):
            assert "error" not in line, line
        box.client.images.remove(f"{name}:1")
        door.bytes_per_s = 2**14
        yield f"{name}:1", door
    finally:
        made.remove()
        door.close()
        registry.close()


def test_a_pull_is_cancelled_when_its_section_names_another_image(
    box: Box, slow: tuple[str, Throttle]
) -> None:
    image, door = slow
    agent = Agent(box)
    agent.commit(section(image))
    agent.start()
    try:
        wait_for(lambda: "Pulling" in json.dumps(agent.status()), 30)
        agent.commit(section(BUSYBOX))
        wait_for(lambda: running(box, "web"), 30)
        wait_for(lambda: door.open == 0, 90)  # with the containerd store it reads its piece to the end first
        wait_for(
            lambda: agent.status()["agent"].get("generation"), 30
        )  # which is told when all is as declared
        (web,) = agent.status()["resources"]
        assert "Degraded" not in [condition["type"] for condition in web["conditions"]]
        assert image not in [tag for each in box.client.images.list() for tag in each.tags]
    finally:
        agent.close()
