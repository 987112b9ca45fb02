# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's passes against a real engine: what a user commits is what runs, and nothing that runs is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support.box import Box
from tests.support.dockerd import BUSYBOX

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.5'
	option restart 'always'
"""


def test_a_declared_container_runs_and_a_second_pass_has_nothing_to_do(box: Box) -> None:
    _, outcomes = box.apply(WEB)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert box.get("web").status == "running"
    assert str(box.apply()[0]) == "nothing to do"


def test_semantically_equal_edits_change_nothing(box: Box) -> None:
    box.apply(WEB + "\toption memory '64m'\n\tlist port '127.0.0.1:18555:80'\n")
    plan, _ = box.apply(WEB + "\toption memory '65536k'\n\tlist port '127.0.0.1:18555:80/tcp'\n")
    assert str(plan) == "nothing to do"


def test_memory_and_restart_policy_change_in_place(box: Box) -> None:
    box.apply(WEB + "\toption memory '64m'\n")
    before = box.get("web")
    plan, outcomes = box.apply((WEB + "\toption memory '32m'\n").replace("always", "unless-stopped"))
    assert [op.verb for op in plan.operations] == ["update"]
    assert all(outcome.error is None for outcome in outcomes)
    after = box.get("web")
    assert after.id == before.id
    assert after.attrs["State"]["Pid"] == before.attrs["State"]["Pid"]
    assert after.attrs["HostConfig"]["Memory"] == 32 << 20
    assert after.attrs["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_a_changed_environment_is_a_swap_and_its_value_is_nowhere(box: Box) -> None:
    box.apply(WEB + "\tlist env 'DB_PASSWORD=S3CRET-one'\n")
    before = box.get("web").id
    plan, outcomes = box.apply(WEB + "\tlist env 'DB_PASSWORD=S3CRET-two'\n")
    assert [op.verb for op in plan.operations] == ["replace"]
    assert all(outcome.error is None for outcome in outcomes)
    assert box.get("web").id != before
    assert "DB_PASSWORD=S3CRET-two" in box.get("web").attrs["Config"]["Env"]
    assert box.names() == ["web"]
    texts = (
        str(plan) + str(box.reconciler.board.snapshot()) + (box.options.state_dir / "state.json").read_text()
    )
    assert "S3CRET" not in texts


BAD_CHANGES = {
    "exits at once": "option command 'false'",
    "no such command": "option command '/no/such/command'",
    "bad sysctl": "option command 'sleep 1000'\n\tlist sysctl 'net.no_such_thing=1'",
    "never healthy": "option command 'sleep 1000'\n\toption health_cmd 'false'\n\toption health_interval '100ms'\n"
    "\toption health_retries '1'",
    "unknown image": "option command 'sleep 999'\n\toption image 'no-such-image:1'\n\toption pull 'never'",
}


@pytest.mark.parametrize("change", BAD_CHANGES.values(), ids=BAD_CHANGES.keys())
def test_after_a_failed_swap_the_old_container_runs_again(box: Box, change: str) -> None:
    box.apply(WEB)
    before = box.get("web").id
    assert len(box.errors(WEB.replace("option command 'sleep 1000'", change))) == 1
    old = box.get("web")
    assert (old.id, old.status) == (before, "running")
    assert old.attrs["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert box.names() == ["web"]
    box.apply(WEB)
    assert box.get("web").id == before


def test_a_busy_port_rolls_back(box: Box) -> None:
    other = box.client.containers.run(BUSYBOX, ["sleep", "1000"], detach=True, ports={"80/tcp": 18556})
    box.apply(WEB)
    before = box.get("web").id
    assert box.errors(WEB + "\tlist port '18556:80'\n")
    assert (box.get("web").id, box.get("web").status) == (before, "running")
    other.remove(force=True)


def test_a_rolled_back_spec_is_not_tried_again(box: Box) -> None:
    box.apply(WEB)
    bad = WEB.replace("sleep 1000", "false")
    assert box.errors(bad)
    box.reconciler.backoff.clear()
    assert str(box.apply(bad)[0]) == "nothing to do"


def test_a_foreign_container_on_the_name_is_a_conflict_until_adopted(box: Box) -> None:
    foreign = box.client.containers.run(BUSYBOX, ["sleep", "1"], name="web", detach=True)
    plan, _ = box.apply(WEB)
    assert str(plan) == "nothing to do"
    conditions = box.reconciler.board.snapshot()["resources"][0]["conditions"]
    assert ("Synced", False, "Conflict") in [(c["type"], c["status"], c["reason"]) for c in conditions]
    assert box.get("web").id == foreign.id
    box.apply(WEB + "\toption adopt '1'\n")
    assert box.get("web").attrs["Config"]["Cmd"] == ["sleep", "1000"]


def test_an_object_with_our_labels_that_state_does_not_name_is_not_touched(box: Box) -> None:
    instance = box.reconciler.records.instance
    labels = {"ucidockd.owner": "ucidockd", "ucidockd.instance": instance, "ucidockd.section": "web"}
    forged = box.client.containers.run(BUSYBOX, ["sleep", "1000"], name="forged", detach=True, labels=labels)
    box.apply(WEB)
    box.apply("\n")
    assert box.get("forged").id == forged.id
    assert box.get("forged").status == "running"


def test_a_section_with_a_mistake_leaves_its_container_and_the_rest_goes_on(box: Box) -> None:
    box.apply(WEB)
    before = box.get("web").id
    box.apply(WEB + "\toption memory 'much'\n" + WEB.replace("'web'", "'other'"))
    assert (box.get("web").id, box.get("web").status) == (before, "running")
    assert box.get("other").status == "running"


@pytest.mark.parametrize("text", ["config container 'web\n", "bogus\n", "option x 1\n"])
def test_a_file_that_does_not_parse_changes_nothing(box: Box, text: str) -> None:
    box.apply(WEB)
    plan, _ = box.apply(text)
    assert str(plan) == "nothing to do"
    assert box.get("web").status == "running"
    assert box.reconciler.board.snapshot()["agent"]["config"] == "Invalid"


def test_a_removed_section_is_stopped_kept_and_deleted_after_the_grace_period(box: Box) -> None:
    box.apply(WEB)
    before = box.get("web").id
    box.apply("\n")
    assert box.get("web").status == "exited"
    box.apply(WEB)
    assert (box.get("web").id, box.get("web").status) == (before, "running")
    assert box.get("web").attrs["HostConfig"]["RestartPolicy"]["Name"] == "always"
    box.apply("\n")
    box.later(121)
    box.apply()
    assert box.names() == []


def test_a_missing_bind_source_holds_the_container_and_is_not_created(box: Box, tmp_path: Path) -> None:
    source = tmp_path / "disk"
    plan, _ = box.apply(WEB + f"\tlist volume '{source}:/data'\n")
    assert str(plan) == "nothing to do"
    assert not source.exists()
    source.mkdir()
    box.apply()
    assert box.get("web").status == "running"


NET = "\nconfig network 'lan'\n\tlist subnet '10.219.4.0/24'\n"


def test_networks_are_made_first_and_static_addresses_survive_a_swap(box: Box) -> None:
    config = NET + WEB + "\tlist network 'lan,ip=10.219.4.9,alias=www'\n"
    box.apply(config)
    _, outcomes = box.apply(config.replace("1000", "2000"))
    assert all(outcome.error is None for outcome in outcomes)
    endpoint = box.get("web").attrs["NetworkSettings"]["Networks"]["lan"]
    assert endpoint["IPAddress"] == "10.219.4.9"
    assert "www" in endpoint["Aliases"]


def test_what_ends_while_a_pass_looks_is_not_done_twice(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list shows it as created, and before the plan is made its start has ended."""
    reconciler = box.reconciler
    started, seen = threading.Event(), threading.Event()
    real_list, real_start = reconciler.engine.list_containers, reconciler.engine.start

    def start(ref: str) -> None:
        started.set()
        assert seen.wait(10)
        real_start(ref)

    def list_containers(instance: str) -> object:
        found = real_list(instance)
        seen.set()
        run.wait()
        return found

    monkeypatch.setattr(reconciler.engine, "start", start)
    box.write(WEB)
    reconciler.read_config()
    _, run = reconciler.begin_pass(deep=None)
    assert run is not None
    assert started.wait(10)
    monkeypatch.setattr(reconciler.engine, "list_containers", list_containers)
    assert str(reconciler.make_plan(deep=None)) == "nothing to do"
