# SPDX-License-Identifier: GPL-2.0-or-later
"""Hooks and the handover on a real engine."""

from __future__ import annotations

import time

import pytest

from tests.support.box import Box

pytestmark = pytest.mark.long

HEAD = "config container 'web'\n\toption image 'IMAGE'\n\toption stop_timeout '0'\n\toption gate '1'\n"
NETWORK = "config network 'lan'\n\toption subnet '10.219.60.0/24'\n"


def section(command: str, *lines: str) -> str:
    return HEAD + "".join(f"\t{line}\n" for line in (f"option command '{command}'", *lines))


def synced(box: Box) -> dict[str, object]:
    found = box.reconciler.board.resource("container:web") or {}
    return {c["type"]: c for c in found["conditions"]}["Synced"]


def test_hooks_run_in_the_container_and_secrets_are_not_told(box: Box) -> None:
    data = "config volume 'data'\n"
    more = (
        "list volume 'data:/data'",
        "list env 'PW=S3CRET-7'",
        "option pre_stop 'echo $HOSTNAME >> /data/log; echo $PW; exit 4'",
        "option hostname 'one'",
    )
    assert box.errors(data + section("sleep 1000", *more)) == []
    first = box.get("web").id
    # held back
    hold = "option hold_cmd 'echo busy with $PW; exit 1'"
    assert len(box.errors(data + section("sleep 2000", *more, hold))) == 1
    assert box.get("web").id == first
    box.apply()
    assert synced(box)["reason"] == "Waiting"
    assert "hold_cmd exited with 1: busy with ***" in str(synced(box)["message"])
    # not any more
    box.later(60)
    assert box.errors(data + section("sleep 2000", *more, "option hold_cmd 'true'")) == []
    web = box.get("web")
    assert web.id != first
    assert web.exec_run("cat /data/log").output == b"one\n"
    box.apply()
    assert "pre_stop exited with 4: ***" in str(synced(box)["message"])
    # one that takes too long, and one that fails
    slow = ("list pre_stop 'sleep'", "list pre_stop '100'", "option pre_stop_timeout '1'")
    bad = "option post_start 'echo cannot join; exit 5'"
    (error,) = box.errors(section("sleep 3000", *slow, bad))
    assert error == "post_start exited with 5: cannot join"
    assert (box.get("web").id, box.get("web").status) == (web.id, "running")
    assert "S3CRET" not in str(box.reconciler.board.snapshot())
    missing = "list post_start '/no/such/program'"
    (error,) = box.errors(section("sleep 4000", missing))
    assert error.startswith("post_start ")


def test_a_handover_has_a_container_at_any_time(box: Box) -> None:
    peer = "config container 'peer'\n\toption image 'IMAGE'\n\tlist network 'lan'\n\toption command 'sleep 9999'\n"
    more = ("option strategy 'handover'", "list network 'lan'")
    assert box.errors(NETWORK + peer + section("sleep 1000", *more)) == []
    first = box.get("web")
    assert box.errors(NETWORK + peer + section("sleep 2000", *more)) == []
    events = box.client.api.events(
        since=0, until=int(time.time()) + 1, decode=True, filters={"type": "container"}
    )
    told = [(e["Action"], e["Actor"]["ID"]) for e in events if e["Action"] in ("start", "die")]
    second = box.get("web")
    assert second.id != first.id
    assert told.index(("start", second.id)) < told.index(("die", first.id))
    assert box.get("peer").exec_run("busybox nslookup web").exit_code == 0  # by the name that it has now
    # a bad one: the old one was never touched
    began = second.attrs["State"]["StartedAt"]
    assert len(box.errors(NETWORK + peer + section("false", *more))) == 1
    assert (box.get("web").id, box.get("web").attrs["State"]["StartedAt"]) == (second.id, began)
    assert box.names() == ["peer", "web"]
