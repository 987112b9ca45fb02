# SPDX-License-Identifier: GPL-2.0-or-later
"""A prune of images leaves the names that sections use, through the agent's jobs and through /docker/."""

from __future__ import annotations

import json
from collections.abc import Iterator

import docker
import httpx
import pytest

from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX

CONFIG = """
config container 'web'
	option image 'declared/web:1'
	option command 'sleep 1000'
	option stop_timeout '0'

config container 'off'
	option image 'declared/off:1'
	option enabled '0'
"""
FILTERS = json.dumps({"dangling": ["false"]})


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    yield made
    made.close()


def make_image(box: Box, tag: str) -> str:
    """An image of its own; returns its id."""
    made = box.client.containers.create(BUSYBOX, ["true"])
    name, _, version = tag.rpartition(":")
    found = str(made.commit(name, version, changes=f"LABEL made={tag}").id)
    made.remove()
    return found


def tags(box: Box) -> set[str]:
    return {tag for image in box.client.images.list() for tag in image.tags}


@pytest.mark.parametrize("door", ["job", "docker"])
def test_a_prune_takes_no_name_that_a_section_uses(box: Box, agent: Agent, door: str) -> None:
    # what the tests share must not go
    base = box.client.containers.create(BUSYBOX, ["true"])
    web, off = make_image(box, "declared/web:1"), make_image(box, "declared/off:1")
    box.client.images.get("declared/web:1").tag("another/name", "2")
    make_image(box, "litter:1")
    agent.commit(CONFIG)
    agent.start()
    wait_for(lambda: running(box, "web"))
    transport = httpx.HTTPTransport(uds=str(box.options.socket))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as client:
        if door == "docker":
            assert client.post("/docker/images/prune", params={"filters": FILTERS}).status_code == 200
        else:
            job = client.post("/v1/jobs", json={"kind": "prune", "what": "images", "all": True}).json()["job"]
            wait_for(lambda: client.get(f"/v1/jobs/{job['id']}").json()["job"]["state"] == "succeeded")
    assert tags(box) >= {"declared/web:1", "declared/off:1"}
    assert "litter:1" not in tags(box)
    assert (box.client.images.get("declared/web:1").id, box.client.images.get("declared/off:1").id) == (
        web,
        off,
    )
    assert sorted(name for name in box.names() if "keeps" in name) == []
    base.remove()
    box.get("web").remove(force=True)
    for tag in ("declared/web:1", "declared/off:1"):
        box.client.images.remove(tag, force=True)
    with pytest.raises(docker.errors.ImageNotFound):
        box.client.images.get("declared/web:1")
