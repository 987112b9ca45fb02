# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done behind our back: each edit is seen, explained in the plan's cause, and repaired or reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agent.model.observed import ObservedContainer
from tests.support.agent_process import wait_for
from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd

IMAGE = "drift:1"
CONFIG = """
config network 'lan'
	list subnet '10.219.10.0/24'

config volume 'data'

config container 'web'
	option image 'drift:1'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.2'
	option restart 'always'
	option memory '64m'
	list network 'lan,ip=10.219.10.9,alias=www'
	list volume 'data:/data'
"""
REPORTED = CONFIG + "\toption on_drift 'report'\n"


@dataclass(frozen=True)
class Edit:
    """`plan` are the operations that repair it, each with its cause."""

    do: Callable[[Box], object]
    plan: tuple[str, ...]


def without_alias(box: Box) -> None:
    lan = box.client.networks.get("lan")
    lan.disconnect("web")
    lan.connect("web", ipv4_address="10.219.10.9")


def remove_network(box: Box) -> None:
    box.client.networks.get("lan").disconnect("web")
    box.client.networks.get("lan").remove()


def remove_volume(box: Box) -> None:
    box.get("web").remove(force=True)
    box.client.volumes.get("data").remove()


def kill(box: Box) -> None:
    box.get("web").kill()
    wait_for(lambda: box.get("web").status == "exited")  # from 26 on the engine answers before it is


SETTINGS = {
    "memory": Edit(
        lambda box: box.get("web").update(mem_limit="16m", memswap_limit="32m"),
        ("update: memory 16m -> 64m",),
    ),
    "restart policy": Edit(
        lambda box: box.get("web").update(restart_policy={"Name": "no"}), ("update: restart no -> always",)
    ),
    "name": Edit(
        lambda box: box.get("web").rename("elsewhere"),
        ("rename: it is named elsewhere and should be named web",),
    ),
    "network disconnected": Edit(
        lambda box: box.client.networks.get("lan").disconnect("web"),
        ("reconnect: network [] -> [lan]",),
    ),
    "alias": Edit(without_alias, ("reconnect: network [lan (other address or aliases)] -> [lan]",)),
}
OBJECTS = {
    "killed": Edit(kill, ("start: it is exited and should be running",)),
    "stopped": Edit(
        lambda box: box.get("web").stop(timeout=0), ("start: it is exited and should be running",)
    ),
    "paused": Edit(lambda box: box.get("web").pause(), ("unpause: it is paused and should be running",)),
    "removed": Edit(
        lambda box: box.get("web").remove(force=True),
        ("create: removed outside of ucidockd", "start: it should be running"),
    ),
    "network removed": Edit(
        remove_network, ("create: removed from the engine", "reconnect: network [] -> [lan]")
    ),
    "volume removed": Edit(
        remove_volume,
        (
            "create: removed from the engine",
            "create: removed outside of ucidockd",
            "start: it should be running",
        ),
    ),
}


@pytest.fixture
def drifting(box: Box, engine: PrivateDockerd) -> Box:
    engine.import_busybox(IMAGE)
    return box


@pytest.mark.variants(6)
@pytest.mark.parametrize("name", [*SETTINGS, *OBJECTS])
def test_an_edit_behind_our_back_is_explained_and_repaired(drifting: Box, name: str) -> None:
    box, edit = drifting, {**SETTINGS, **OBJECTS}[name]
    assert box.errors(CONFIG) == []
    edit.do(box)
    plan, outcomes = box.apply()
    seen = [f"{op.verb}: {op.cause}" for op in plan.operations]
    assert len(seen) == len(edit.plan)
    assert all(text.startswith(wanted) for text, wanted in zip(seen, edit.plan, strict=True)), seen
    assert [str(o.error) for o in outcomes if o.error] == []
    web = box.get("web")
    endpoint = web.attrs["NetworkSettings"]["Networks"]["lan"]
    assert (web.status, web.attrs["HostConfig"]["Memory"]) == ("running", 64 << 20)
    assert web.attrs["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert (endpoint["IPAddress"], "www" in endpoint["Aliases"]) == ("10.219.10.9", True)
    assert web.attrs["Image"] == box.client.images.get(IMAGE).id
    assert str(box.apply()[0]) == "nothing to do"


def degraded(box: Box) -> dict[str, str]:
    """Reason -> message of web's Degraded condition."""
    web = next(r for r in box.reconciler.board.snapshot()["resources"] if r["key"] == "container:web")
    return {c["reason"]: c["message"] for c in web["conditions"] if c["type"] == "Degraded"}


@pytest.mark.parametrize(
    "name",
    [name if name in {"memory", "name"} else pytest.param(name, marks=pytest.mark.long) for name in SETTINGS],
)
def test_with_on_drift_report_it_is_only_said_until_it_is_over(drifting: Box, name: str) -> None:
    box, edit = drifting, SETTINGS[name]
    box.apply(REPORTED)
    edit.do(box)
    assert str(box.apply()[0]) == "nothing to do"
    assert degraded(box)["Drift"] == edit.plan[0].partition(": ")[2]
    box.reconciler.run_pass(deep=frozenset())  # a look that cannot see it does not take it back
    assert "Drift" in degraded(box)
    assert box.errors(CONFIG) == []
    box.apply(REPORTED)
    assert degraded(box) == {}


def test_an_image_that_carries_our_labels_makes_nothing_ours(drifting: Box, engine: PrivateDockerd) -> None:
    box = drifting
    instance = box.reconciler.records.instance
    labels = [
        f"LABEL ucidockd.owner=ucidockd ucidockd.instance={instance} ucidockd.section=web ucidockd.nonce=1"
    ]
    engine.import_busybox("forged:1", changes=labels)
    stranger = box.client.containers.run("forged:1", ["sleep", "1000"], name="stranger", detach=True)
    assert box.errors(CONFIG.replace(IMAGE, "forged:1")) == []
    web = box.get("web")
    assert web.labels["ucidockd.nonce"] != "1"
    box.apply("\n")
    stranger.reload()
    assert stranger.status == "running"


def test_a_container_that_the_engine_cannot_get_rid_of_is_a_condition_and_no_loop(
    drifting: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    box = drifting
    box.apply(CONFIG)
    real = box.reconciler.engine.inspect_container

    def dead(ref: str) -> ObservedContainer | None:
        seen = real(ref)
        return replace(seen, state="dead") if seen is not None else None

    monkeypatch.setattr(box.reconciler.engine, "inspect_container", dead)
    for _ in range(2):
        assert str(box.apply()[0]) == "nothing to do"
    assert "docker rm -f web" in degraded(box)["Dead"]
    monkeypatch.undo()
    box.apply()
    assert degraded(box) == {}


@pytest.mark.parametrize("said", ["Dead", "Drift"])
def test_what_is_said_of_a_container_ends_with_it_also_where_no_other_one_comes(
    drifting: Box, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    from dataclasses import replace

    box = drifting
    box.apply(REPORTED)
    real = box.reconciler.engine.inspect_container
    if said == "Dead":
        monkeypatch.setattr(
            box.reconciler.engine, "inspect_container", lambda ref: replace(real(ref), state="dead")
        )
    else:
        SETTINGS["memory"].do(box)
    box.apply()
    assert list(degraded(box)) == [said]
    monkeypatch.undo()
    box.get("web").remove(force=True)
    box.client.containers.create(IMAGE, ["sleep", "1000"], name="web")
    box.apply()
    web = next(r for r in box.reconciler.board.snapshot()["resources"] if r["key"] == "container:web")
    assert "Conflict" in {c["reason"] for c in web["conditions"]}
    assert degraded(box) == {}, "`docker rm -f web` would remove somebody else's"


def test_an_anonymous_volume_is_carried_over_and_only_it(drifting: Box) -> None:
    box = drifting
    config = CONFIG + "\tlist volume '/cache'\n"
    assert box.errors(config) == []
    box.get("web").exec_run(["touch", "/cache/precious", "/data/kept"])
    before = box.get("web").id
    assert box.errors(config.replace("1000", "2000")) == []
    assert box.get("web").id != before
    assert box.get("web").exec_run(["ls", "/cache/precious", "/data/kept"]).exit_code == 0


def test_a_job_that_is_done_stays_done_until_its_spec_changes(drifting: Box) -> None:
    box = drifting
    job = (
        "config container 'job'\n\toption image 'drift:1'\n\toption command 'true'\n"
        "\toption gate '0.2'\n\toption restart 'no'\n"
    )
    box.apply(job)
    box.get("job").wait()
    assert str(box.apply()[0]) == "nothing to do"
    finished = box.get("job").attrs["State"]["FinishedAt"]
    assert str(box.apply()[0]) == "nothing to do"
    assert box.get("job").attrs["State"]["FinishedAt"] == finished
    assert box.errors(job + "\tlist env 'A=1'\n") == []
    assert box.get("job").attrs["State"]["FinishedAt"] != finished
