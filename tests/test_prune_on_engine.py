# SPDX-License-Identifier: GPL-2.0-or-later
"""Clean-ups of images on a real engine: what goes, what stays, and when it is done by itself."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from agent.errors import ConfigError, ConflictError
from agent.files.user_paths import Space
from agent.model.resources import PruneImages
from agent.runtime.main import make_prune_scheduler
from agent.status.conditions import ConditionType
from agent.storage import DISK_KEY, PruneScheduler
from agent.storage.space import PruneRequest
from tests.support.agent_process import Agent, wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, PrivateDockerd, is_root

pytestmark = pytest.mark.skipif(not is_root(), reason="an engine needs root")

UNUSED = PruneRequest(images=PruneImages.UNUSED)
SECTIONS = (
    "config container 'web'\n\toption image 'web:1'\n\toption command 'sleep 1000'\n"
    "\toption stop_signal 'SIGKILL'\n\toption gate '0'\n"
    "config container 'off'\n\toption image 'off:1'\n\toption enabled '0'\n"
    "config container 'waits'\n\toption image 'waits:1'\n\tlist wait_for 'file:/none/such'\n"
    "config container 'wrong'\n\toption image 'wrong:1'\n\toption memory 'lots'\n"
)
SETTINGS = "config agent 'agent'\n\toption prune_images 'unused'\n\toption prune_older '{}'\n"
MAKE = Callable[..., str]


@pytest.fixture
def make_image(box: Box) -> Iterator[MAKE]:
    """An image of its own with some bytes; without a name it is dangling. All are removed afterwards."""

    def make(*names: str, size: int = 1000, base: str = "") -> str:
        if base:  # by the builder: it makes images in between
            text = f"FROM {base}\nLABEL number={time.time_ns()}\nLABEL last=1\n"
            return str(
                box.client.images.build(fileobj=io.BytesIO(text.encode()), tag=names[0], rm=True)[0].id
            )
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, data in (
                ("bin/busybox", Path("/bin/busybox").read_bytes()),
                ("data", os.urandom(size)),
            ):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o755
                tar.addfile(entry, io.BytesIO(data))
            link = tarfile.TarInfo("bin/sleep")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        first = names[0].partition(":") if names else ("", "", "")
        said = box.client.api.import_image_from_data(
            archive.getvalue(), repository=first[0] or None, tag=first[2] or None
        )
        image = str(json.loads(said.strip().splitlines()[-1])["status"])
        for name in names[1:]:
            box.client.images.get(image).tag(name)
        return image

    box.client.api.create_container(BUSYBOX, "true", name="keeps-it-for-other-tests")
    yield make
    box.clean()
    for _ in range(2):  # one that another is built on goes after it
        for image in box.client.api.images(all=True):
            if BUSYBOX not in (image["RepoTags"] or []):
                with contextlib.suppress(docker.errors.APIError):
                    box.client.api.remove_image(image["Id"], force=True)


@pytest.fixture
def pruning(box: Box) -> PruneScheduler:
    return make_prune_scheduler(box.reconciler, box.options)


def names_of(found: dict[str, Any], key: str) -> set[str]:
    return {name for image in found[key] for name in image["names"] or [image["id"]]}


def there(box: Box) -> set[str]:
    return {name for image in box.client.api.images() for name in image["RepoTags"] or []}


def test_what_nothing_needs_goes_and_the_rest_stays(
    box: Box, pruning: PruneScheduler, make_image: MAKE
) -> None:
    """Sections that run, are disabled, wait or have a mistake, records, other containers, and what images are built on."""
    for name in ("web", "off", "waits", "wrong", "foreign", "base"):
        make_image(f"{name}:1")
    make_image("built:1", base="base:1")
    box.client.api.create_container("foreign:1", "true", name="others")
    box.client.api.create_container("built:1", "true", name="built")
    box.client.volumes.create("data")
    idle, nameless = make_image("idle:1", "idle:2", size=200_000), make_image(size=100_000)
    box.apply(SECTIONS)

    shown = pruning.prune(PruneRequest(images=PruneImages.UNUSED, dry_run=True))
    assert names_of(shown, "going") == {"idle:1", "idle:2", nameless}
    assert shown["bytes"] > 300_000
    why = {name: image["why"] for image in shown["kept"] for name in image["names"]}
    assert why["web:1"] == "section web names it"
    assert why["wrong:1"] == "section wrong names it"
    assert why["foreign:1"] == "container others uses it"
    assert "built on it" in why["base:1"] or "uses it" in why["base:1"]
    assert {"idle:1", "idle:2"} <= there(box)

    assert names_of(pruning.prune(PruneRequest(images=PruneImages.DANGLING)), "going") == {nameless}
    done = pruning.prune(UNUSED)
    assert (names_of(done, "going"), done["failed"]) == ({"idle:1", "idle:2"}, [])
    assert box.reconciler.engine.inspect_image(idle) is None
    assert {"web:1", "off:1", "waits:1", "wrong:1", "foreign:1", "base:1", "built:1"} <= there(box)
    assert [volume.name for volume in box.client.volumes.list()] == ["data"]
    assert pruning.prune(UNUSED)["going"] == []
    assert box.reconciler.board.snapshot()["agent"]["prune"]["images"] == 0


@pytest.mark.long
def test_the_image_of_a_removed_section_stays_while_its_container_may_come_back(
    box: Box, pruning: PruneScheduler, make_image: MAKE
) -> None:
    make_image("web:1")
    box.apply(SECTIONS)
    box.apply("")  # the grace period begins
    assert "web:1" not in names_of(pruning.prune(UNUSED), "going")
    box.later(200)
    box.apply()
    assert names_of(pruning.prune(UNUSED), "going") == {"web:1"}


@pytest.mark.long
def test_nothing_goes_while_the_configuration_cannot_be_read(
    box: Box, pruning: PruneScheduler, make_image: MAKE
) -> None:
    make_image("web:1")
    box.apply("config container 'web'\n\toption image 'web:1'\n\toption enabled '0'\n")
    box.write("config container 'web\n")
    box.reconciler.read_config()
    with pytest.raises(ConfigError, match="cannot be read"):
        pruning.prune(UNUSED)
    assert "web:1" in there(box)


@pytest.mark.long
def test_by_schedule_goes_what_was_unused_for_long_enough(
    box: Box, pruning: PruneScheduler, make_image: MAKE
) -> None:
    """Since when is kept in a file, and only written when it changes."""
    make_image("idle:1")
    box.apply(SETTINGS.format("2d"))

    def tick() -> None:
        pruning.tick()
        wait_for(lambda: not pruning._lock.locked() and "prune" in box.reconciler.board.snapshot()["agent"])
        time.sleep(0.5)

    tick()
    assert "idle:1" in there(box)
    written = pruning.memory.stat().st_mtime_ns
    box.later(86_400 + 60)
    tick()
    assert "idle:1" in there(box)
    assert pruning.memory.stat().st_mtime_ns == written
    box.later(86_400 + 60)
    pruning = make_prune_scheduler(box.reconciler, box.options)  # the agent was restarted
    pruning.tick()
    wait_for(lambda: "idle:1" not in there(box))
    wait_for(lambda: json.loads(pruning.memory.read_text())["unused_since"] is not None)


@pytest.mark.long
def test_for_want_of_space_it_begins_at_once_and_takes_no_more_than_needed(
    box: Box, pruning: PruneScheduler, make_image: MAKE
) -> None:
    make_image("first:1", size=400_000)
    make_image("second:1", size=400_000)
    free = [1000, 1000]
    pruning.space = lambda _: Space(free=free[0], total=10_000_000)
    box.apply(SETTINGS.format("7d") + "\toption prune_below '3%'\n\toption prune_schedule 'off'\n")
    pruning.tick()
    board = box.reconciler.board
    assert "free at" in board.message(DISK_KEY, ConditionType.DISK_LOW)
    wait_for(lambda: len({"first:1", "second:1"} & there(box)) == 1)
    wait_for(lambda: not pruning._lock.locked())
    box.later(120)
    pruning.tick()  # not again at once
    free[0] = 5_000_000
    box.later(120)
    pruning.tick()
    assert not board.message(DISK_KEY, ConditionType.DISK_LOW)
    assert len({"first:1", "second:1"} & there(box)) == 1


@pytest.mark.long
def test_one_at_a_time(pruning: PruneScheduler, box: Box) -> None:
    box.apply("")
    with pruning._lock, pytest.raises(ConflictError, match="in progress"):
        pruning.prune(UNUSED)


@pytest.mark.long
def test_the_command_shows_asks_and_removes(box: Box, make_image: MAKE, engine: PrivateDockerd) -> None:
    make_image("web:1")
    make_image("idle:1")
    box.write("config container 'web'\n\toption image 'web:1'\n\toption enabled '0'\n")
    agent = Agent(box)
    agent.start()
    try:
        wait_for(lambda: agent.status().get("agent", {}).get("generation"))
        shown = agent.command("prune", "--images", "unused")
        assert shown.returncode == 0, shown.stderr
        assert "idle:1" in shown.stdout and "section web names it" in shown.stdout
        assert "--yes removes it" in shown.stderr and "idle:1" in there(box)
        assert agent.command("prune", "--yes").returncode == 0  # without a name only
        assert "idle:1" in there(box)
        done = agent.command("prune", "--yes", "--images", "unused", "--build-cache", "--json")
        assert names_of(json.loads(done.stdout), "going") == {"idle:1"}, done.stderr
        assert there(box) >= {"web:1"} and "idle:1" not in there(box)
        wrong = agent.command("prune", "--older", "7")
        assert wrong.returncode == 1 and "7d" in wrong.stderr
        # a clean-up by docker's own command through our door spares what sections name
        url = 'http://localhost/docker/images/prune?filters={"dangling":["false"]}'
        asked = ["curl", "-g", "-s", "-X", "POST", "--unix-socket", str(box.options.socket), url]
        subprocess.run(asked, check=True, capture_output=True)
        assert "web:1" in there(box)
    finally:
        agent.close()


def test_what_was_remembered_and_makes_no_sense_counts_for_nothing(tmp_path: Path) -> None:
    from agent.storage.space import Pruner

    pruner = Pruner(engine=None, records=None, desired=None, memory=tmp_path / "unused.json", now=time.time)  # type: ignore[arg-type]
    for text in ("", "[]", "{}", '{"unused_since": [1]}', '{"unused_since": {"a": "b"}}', "[" * 100_000):
        pruner.memory.write_text(text)
        assert pruner._remembered() == {}
