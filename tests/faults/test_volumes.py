# SPDX-License-Identifier: GPL-2.0-or-later
"""Data in volumes: anonymous ones go where there still is a place for them, and what others removed is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.apply.images import Images
from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd
from tests.support.versions import VERSIONS, a_box, an_engine

WEB = """
config container 'web'
	option image 'busybox:test'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.2'
	option grace '0'
"""
CACHE = "\tlist volume '/cache'\n"
DATA = "\nconfig volume 'data'\n"
WITH_DATA = DATA + WEB + "\tlist volume 'data:/data'\n"


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Any:
    with an_engine(request.param) as dockerd:
        dockerd.import_busybox("vol:a", ["VOLUME /a", 'CMD ["sleep", "1000"]'])
        dockerd.import_busybox("vol:b", ["VOLUME /b/", 'CMD ["sleep", "1000"]'])
        yield dockerd


@pytest.fixture
def room(version: PrivateDockerd, tmp_path: Path) -> Any:
    with a_box(version, tmp_path) as made:
        yield made


def verbs(box: Box, text: str | None = None) -> list[str]:
    plan, outcomes = box.apply(text)
    assert [str(o.error) for o in outcomes if o.error] == []
    return [operation.verb for operation in plan.operations]


def mounts(box: Box) -> dict[str, str]:
    return {mount["Destination"]: mount["Name"] for mount in box.get("web").attrs["Mounts"]}


def volumes(box: Box) -> set[str]:
    return {volume.name for volume in box.client.volumes.list()}


def mark(box: Box, target: str) -> None:
    assert box.get("web").exec_run(["touch", f"{target}/precious"]).exit_code == 0


def is_marked(box: Box, target: str) -> bool:
    return bool(box.get("web").exec_run(["ls", f"{target}/precious"]).exit_code == 0)


def lost(box: Box, key: str) -> str:
    found = [r for r in box.reconciler.board.snapshot()["resources"] if r["key"] == key]
    return next((str(c["message"]) for r in found for c in r["conditions"] if c["type"] == "DataLost"), "")


def said(box: Box) -> str:
    (web,) = (r for r in box.reconciler.board.snapshot()["resources"] if r["key"] == "container:web")
    return str(next(c["message"] for c in web["conditions"] if c["type"] == "Synced"))


def test_a_volume_that_the_section_takes_out_is_not_mounted_any_more_and_kept(room: Box) -> None:
    verbs(room, WEB + CACHE + "\tlist volume '/other'\n")
    mark(room, "/other")
    before = mounts(room)
    assert verbs(room, WEB + "\tlist volume '/other'\n") == ["replace"]
    assert mounts(room) == {"/other": before["/other"]}
    assert is_marked(room, "/other")
    assert before["/cache"] in volumes(room)
    assert str(room.apply()[0]) == "nothing to do"
    assert f"kept: {before['/cache'][:12]} (/cache)" in said(room)
    room.client.volumes.get(before["/cache"]).remove()
    room.reconciler.forget_failures()
    room.apply()
    assert said(room) == ""


def test_the_next_image_gets_the_volumes_that_it_has_a_place_for(room: Box) -> None:
    text = WEB.replace("busybox:test", "vol:a") + CACHE
    verbs(room, text)
    before = mounts(room)
    assert before.keys() == {"/a", "/cache"}
    verbs(room, text.replace("vol:a", "vol:b"))
    after = mounts(room)
    assert {target.rstrip("/") for target in after} == {"/b", "/cache"}
    assert after["/cache"] == before["/cache"]
    verbs(room, text.replace("sleep 1000", "sleep 2000").replace("vol:a", "vol:b"))
    assert mounts(room) == after


@pytest.mark.parametrize("instead", ["\tlist tmpfs '/cache'\n", "\tlist volume 'data:/cache'\n"])
def test_something_else_in_its_place_leaves_the_volume(room: Box, instead: str) -> None:
    verbs(room, DATA + WEB + CACHE)
    (name,) = mounts(room).values()
    assert verbs(room, DATA + WEB + instead) == ["replace"]
    assert name not in mounts(room).values()
    assert name in volumes(room)


@pytest.mark.variants(1)
@pytest.mark.parametrize("swaps", [0, 1, 2])
def test_remove_volumes_counts_after_swaps_too(room: Box, swaps: int) -> None:
    text = (
        WEB.replace("busybox:test", "vol:a") + CACHE + "\tlist volume '/gone'\n\toption remove_volumes '1'\n"
    )
    verbs(room, text)
    for number in range(swaps):
        text = text.replace("\tlist volume '/gone'\n", "")
        verbs(room, text.replace("sleep 1000", f"sleep {2000 + number}"))
    room.client.volumes.create("data")
    verbs(room, "")
    room.later(200)
    verbs(room, "")
    assert room.names() == []
    assert volumes(room) == {"data"}


def test_failing_swaps_leave_no_volume_and_keep_the_old_ones(room: Box) -> None:
    text = WEB.replace("busybox:test", "vol:a") + CACHE
    verbs(room, text)
    mark(room, "/cache")
    before, there = mounts(room), volumes(room)
    for number in range(3):
        bad = text.replace("vol:a", "vol:b").replace("sleep 1000", f"/no-such-{number}")
        assert room.errors(bad) != []
    assert (mounts(room), volumes(room)) == (before, there)
    assert is_marked(room, "/cache")


def test_a_container_that_was_removed_gets_its_anonymous_data_back(room: Box) -> None:
    text = WEB.replace("busybox:test", "vol:a") + CACHE
    verbs(room, text)
    mark(room, "/cache")
    mark(room, "/a")
    before = mounts(room)
    for _ in range(2):
        room.get("web").remove(force=True)
        assert verbs(room) == ["create", "start"]
        assert mounts(room) == before
    assert is_marked(room, "/cache")
    assert is_marked(room, "/a")
    assert lost(room, "container:web") == ""
    verbs(room, text.replace("sleep 1000", "sleep 2000"))  # and a swap after that
    room.get("web").remove(force=True)
    verbs(room)
    assert mounts(room) == before


def test_it_gets_them_back_although_the_first_tries_fail_and_the_agent_is_killed(room: Box) -> None:
    verbs(room, WEB + CACHE)
    before = mounts(room)
    room.get("web").remove(force=True)
    bad = WEB.replace("sleep 1000", "sleep 2000") + CACHE + "\toption runtime 'nowhere'\n"
    assert room.errors(bad) != []
    room.restart_agent()
    assert room.errors(WEB + CACHE) == []
    assert mounts(room) == before


def test_a_record_that_does_not_name_them_learns_them(room: Box) -> None:
    """Of version 0.1.0, which knew only what the engine shows."""
    verbs(room, WEB + CACHE)
    (record,) = room.reconciler.records.records()
    room.reconciler.records.change(record.nonce, volumes=())
    before = room.get("web").id
    assert verbs(room) == ["note"]
    assert room.get("web").id == before
    assert str(room.apply()[0]) == "nothing to do"


def test_one_removed_with_its_volumes_is_told(room: Box) -> None:
    verbs(room, WEB + CACHE)
    room.get("web").remove(force=True, v=True)
    assert verbs(room) == ["create", "start"]
    assert "/cache" in lost(room, "container:web")
    verbs(room, WEB.replace("sleep 1000", "sleep 2000") + CACHE)
    assert lost(room, "container:web") == ""


@pytest.mark.parametrize("clear", ["reconcile", "section"])
def test_a_named_volume_that_is_empty_now_is_a_condition_until_it_is_acknowledged(
    room: Box, clear: str
) -> None:
    verbs(room, WITH_DATA)
    mark(room, "/data")
    room.get("web").remove(force=True)
    room.client.volumes.get("data").remove()
    assert verbs(room) == ["create", "create", "start"]
    assert "data" in lost(room, "volume:data")
    room.restart_agent()
    verbs(room)
    assert "data" in lost(room, "volume:data")
    if clear == "reconcile":
        room.reconciler.forget_failures()
        verbs(room)
    else:
        verbs(room, WITH_DATA.replace("'data'\n", "'data'\n\tlist label 'a=b'\n", 1))
    assert lost(room, "volume:data") == ""


def test_a_volume_without_a_section_is_told_at_its_container(room: Box) -> None:
    verbs(room, WEB + "\tlist volume 'mine:/data'\n")
    room.get("web").remove(force=True)
    room.client.volumes.get("mine").remove()
    verbs(room)
    assert "mine" in lost(room, "container:web")


def test_a_volume_whose_data_lies_elsewhere_loses_nothing(room: Box) -> None:
    text = (
        DATA + "\tlist opt 'type=tmpfs'\n\tlist opt 'device=tmpfs'\n" + WEB + "\tlist volume 'data:/data'\n"
    )
    verbs(room, text)
    room.get("web").remove(force=True)
    room.client.volumes.get("data").remove()
    verbs(room)
    assert lost(room, "volume:data") == ""


@pytest.mark.parametrize("before", ["nothing", "another container", "a removed container"])
def test_a_volume_that_is_pruned_during_the_pull_stays_ours(
    room: Box, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    labelled = WITH_DATA.replace("'data'\n", "'data'\n\tlist label 'a=b'\n", 1)
    if before != "nothing":
        verbs(room, WEB if before == "another container" else labelled)
    if before == "a removed container":
        room.get("web").remove(force=True)
    real = Images.ensure

    def pruned(images: Images, *args: Any, **named: Any) -> str:
        monkeypatch.undo()
        room.client.volumes.get("data").remove()
        return real(images, *args, **named)

    monkeypatch.setattr(Images, "ensure", pruned)
    assert room.errors(labelled) == ["volume data was removed outside of ucidockd"]
    room.later(60)
    assert [str(o.error) for o in room.apply()[1] if o.error] == []
    assert str(room.apply()[0]) == "nothing to do"
    assert mounts(room) == {"/data": "data"}
    assert room.client.volumes.get("data").attrs["Labels"]["a"] == "b"
