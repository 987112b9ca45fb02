# SPDX-License-Identifier: GPL-2.0-or-later
"""A pull that would fill Docker's disk is not begun: counted at a real registry, on a real engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from agent.files.user_paths import Space
from agent.runtime.main import make_room
from agent.storage.space import PullSpace
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.loop_disk import LoopDisk
from tests.support.registry import is_installed
from tests.support.store import Store

pytestmark = pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")
MIB = 1024**2


@pytest.fixture
def store(box: Box, tmp_path: Path) -> Iterator[Store]:
    made = Store(box, tmp_path / "registry")
    yield made
    made.close()


class Disk:
    """What the engine's disk is taken for."""

    def __init__(self, box: Box, free: int) -> None:
        self.free = free
        room: PullSpace = make_room(box.reconciler, box.options)
        room.free_at = lambda path: Space(self.free, 10 * self.free)
        box.reconciler.under_way.room = room.for_pull


def section(image: str, name: str = "web", command: str = "sleep 1000") -> str:
    lines = (f"image '{image}'", f"command '{command}'", "stop_timeout '0'", "gate '0'")
    return f"config container '{name}'\n" + "".join(f"\toption {line}\n" for line in lines)


def layers_fetched(store: Store, least: int) -> int:
    """Requests for blobs larger than a config: none but a pull makes them."""
    return sum("/blobs/" in r.path and r.method == "GET" for r in store.front.requests) - least


@pytest.mark.long
def test_a_pull_that_would_fill_the_disk_is_not_begun(box: Box, store: Store) -> None:
    assert box.errors(section(BUSYBOX)) == []
    image = store.publish("app", "one", noise=os.urandom(8 * MIB))
    disk = Disk(box, 50 * MIB)
    (error,) = box.errors(section(image))
    assert image in error
    assert "are missing" in error
    assert "`ucidockd prune --images unused` would free" in error
    assert layers_fetched(store, 0) == 1  # the image's config
    assert box.get("web").status == "running"  # what ran before
    conditions = box.reconciler.board.resource("container:web")
    assert conditions is not None
    ready = next(c for c in conditions["conditions"] if c["type"] == "ImageReady")
    assert (ready["status"], ready["reason"]) == (False, "NoSpace")
    # a later attempt asks only whether the tag has moved, which is not counted as a pull
    store.front.requests.clear()
    box.later(600)
    assert box.errors(section(image)) == [error]
    assert [r.method for r in store.front.requests if "/app/" in r.path] == ["HEAD"]
    disk.free = 200 * MIB
    box.later(600)
    assert box.errors(section(image)) == []
    assert box.get("web").attrs["Config"]["Image"] == image


@pytest.mark.long
def test_layers_that_are_local_take_no_room(box: Box, store: Store) -> None:
    large = store.publish("large", "one", noise=os.urandom(8 * MIB))
    box.client.images.pull(*large.rsplit(":", 1))
    small = store.publish("small", "one", noise=b"some", base=large)
    Disk(box, 40 * MIB)
    assert box.errors(section(small)) == []


@pytest.mark.long
def test_two_pulls_that_do_not_fit_together_follow_one_another(box: Box, store: Store) -> None:
    images = [store.publish(name, name, noise=os.urandom(4 * MIB)) for name in ("one", "two")]
    Disk(box, 60 * MIB)
    assert box.errors("".join(section(image, f"c{n}") for n, image in enumerate(images))) == []
    assert box.names() == ["c0", "c1"]


@pytest.mark.long
def test_a_registry_that_tells_no_sizes_is_pulled_from(box: Box, store: Store) -> None:
    image = store.publish("app", "one", noise=os.urandom(4 * MIB))
    Disk(box, 1 * MIB)
    ours = [0]

    def answer(asked: object) -> tuple[int, dict[str, str], bytes] | None:
        if getattr(asked, "headers", {}).get("user-agent") != "ucidockd":
            return None
        ours[0] += 1
        return 500, {}, b""

    store.front.answer = answer
    assert box.errors(section(image)) == []
    assert ours[0]


@pytest.mark.long
def test_on_a_small_disk_nothing_is_filled(tmp_path: Path) -> None:
    disk = LoopDisk(tmp_path / "image", tmp_path / "disk", size_mib=160)
    disk.plug()
    engine = PrivateDockerd(subnet=7)
    engine.data = disk.target / "data"
    client = None
    try:
        engine.start()
        engine.import_busybox()
        client = docker.DockerClient(base_url=engine.host, version="auto")
        box = Box.make(tmp_path, engine, client)
        store = Store(box, tmp_path / "registry")
        try:
            image = store.publish("app", "one", noise=os.urandom(32 * MIB))
            free = os.statvfs(disk.target).f_bavail
            (error,) = box.errors(section(image))
            assert "are missing" in error
            assert abs(os.statvfs(disk.target).f_bavail - free) < 256
            small = store.publish("small", "one", noise=os.urandom(4 * MIB))
            assert box.errors(section(small)) == []
        finally:
            store.close()
    finally:
        if client is not None:
            client.close()
        engine.close()
        disk.pull()
