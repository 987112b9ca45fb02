# SPDX-License-Identifier: GPL-2.0-or-later
"""state.json on a full or read-only disk, corrupt, or written by another agent; and an agent told to end in mid swap."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.model.resources import AgentSettings
from agent.runtime.main import make_reconciler
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.oracle import Oracle

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.3'
	option restart 'always'
"""
OTHER = WEB.replace("'web'", "'other'")


class Disk:
    """A small file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "tmpfs", path], check=True)

    def fill(self) -> None:
        with (self.path / "ballast").open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096) == 4096:
                    pass
            except OSError:
                return

    def free(self) -> None:
        (self.path / "ballast").unlink()

    def read_only(self, *, on: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", self.path], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


@pytest.fixture
def small(box: Box, disk: Disk) -> Box:
    """The box, its state on the small disk."""
    box.options = replace(box.options, state_dir=disk.path)
    box.restart_agent()
    return box


def reasons(box: Box, key: str = "container:web") -> dict[str, str]:
    """Type -> reason of a resource's conditions."""
    resources = {r["key"]: r for r in box.reconciler.board.snapshot()["resources"]}
    return {c["type"]: c["reason"] for c in resources[key]["conditions"]}


def test_on_a_full_disk_nothing_is_made_that_could_not_be_recorded(small: Box, disk: Disk) -> None:
    disk.fill()
    (error,) = small.errors(WEB)
    assert "No space left on device" in error
    assert small.names() == []
    assert (reasons(small)["Degraded"], reasons(small)["Synced"]) == ("StorageFull", "StorageFull")
    disk.free()
    small.reconciler.backoff.clear()
    assert small.errors(WEB) == []
    assert "Degraded" not in reasons(small)
    assert [path.name for path in disk.path.iterdir()] == ["state.json"]


def test_a_disk_that_takes_nothing_more_in_mid_swap_leaves_the_old_container_running(
    small: Box, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read-only, since the few bytes of the commit find room on a full one, in the last page of the file."""
    small.apply(WEB)
    before, start = small.get("web").id, small.reconciler.engine.start

    def end_and_start(ref: str) -> None:
        disk.read_only(on=True)
        start(ref)

    monkeypatch.setattr(small.reconciler.engine, "start", end_and_start)
    (error,) = small.errors(WEB.replace("1000", "2000"))
    assert "Read-only file system" in error
    old = small.get("web")
    assert (old.id, old.status, old.attrs["HostConfig"]["RestartPolicy"]["Name"]) == (
        before,
        "running",
        "always",
    )
    assert small.names() == ["web"]
    monkeypatch.undo()
    disk.read_only(on=False)
    small.restart_agent()
    assert small.errors(WEB.replace("1000", "2000")) == []
    assert small.get("web").attrs["Config"]["Cmd"] == ["sleep", "2000"]
    assert small.names() == ["web"]


def test_a_disk_that_becomes_read_only_changes_nothing_that_runs(small: Box, disk: Disk) -> None:
    small.apply(WEB)
    before = small.get("web").id
    disk.read_only(on=True)
    try:
        assert small.errors(WEB.replace("1000", "2000"))
        assert (small.get("web").id, small.get("web").status) == (before, "running")
        assert reasons(small)["Degraded"] == "StorageFailed"
        small.restart_agent()
        assert str(small.apply(WEB)[0]) == "nothing to do"
    finally:
        disk.read_only(on=False)


@pytest.mark.variants(3)
@pytest.mark.parametrize(
    "junk", [b"", b"{", b"\x00" * 4096, b"[]", b'{"instance": "x", "records": [{}]}', b"null"]
)
def test_a_corrupt_state_is_set_aside_and_adopt_is_asked_for(box: Box, junk: bytes) -> None:
    box.apply(WEB)
    before = box.get("web").id
    state = box.options.state_dir / "state.json"
    state.write_bytes(junk)
    box.restart_agent()
    assert str(box.apply(WEB)[0]) == "nothing to do"
    assert (box.get("web").id, box.get("web").status) == (before, "running")
    assert reasons(box)["Synced"] == "Conflict"
    assert state.with_name("state.json.bad").read_bytes() == junk
    assert box.errors(WEB + "\toption adopt '1'\n") == []
    assert box.names() == ["web"]
    assert str(box.apply()[0]) == "nothing to do"


def test_what_runs_is_nobodys_once_the_state_is_lost_and_is_never_made_twice(box: Box) -> None:
    """A restore without /etc/ucidockd: the labels are still there, and prove nothing."""
    box.apply(WEB)
    before = box.get("web").id
    shutil.rmtree(box.options.state_dir)
    box.restart_agent()
    for _ in range(2):
        assert str(box.apply(WEB)[0]) == "nothing to do"
    assert (box.get("web").id, box.names()) == (before, ["web"])
    assert reasons(box)["Synced"] == "Conflict"
    assert box.errors(WEB + "\toption adopt '1'\n") == []
    assert box.names() == ["web"]


def test_two_agents_on_one_engine_leave_each_other_alone(box: Box, tmp_path: Path) -> None:
    second = replace(box, config=tmp_path / "config2")
    second.config.mkdir()
    second.options = replace(
        box.options, config_dir=second.config, state_dir=tmp_path / "state2", override_dir=tmp_path / "o2"
    )
    second.reconciler = make_reconciler(second.options, AgentSettings())
    box.apply("config network 'lan'\n\nconfig volume 'data'\n" + WEB)
    second.apply(OTHER)
    assert box.names() == ["other", "web"]
    second.apply(WEB + OTHER)
    assert reasons(second)["Synced"] == "Conflict"
    second.apply("\n")
    assert {name: box.get(name).status for name in box.names()} == {"other": "exited", "web": "running"}
    box.apply("\n")
    box.later(1000)
    second.later(1000)
    box.apply()
    assert box.names() == ["other"]
    second.apply()
    assert box.names() == []


@pytest.mark.parametrize(
    "stop_timeout",
    [
        pytest.param("0", id="at the gate"),
        pytest.param("20", id="while the engine stops the old one", marks=pytest.mark.long),
    ],
)
def test_told_to_end_in_mid_swap_it_ends_within_4_s_and_the_next_start_goes_on(
    box: Box, stop_timeout: str
) -> None:
    stubborn = WEB.replace("sleep 1000", 'sh -c "trap : TERM; while :; do sleep 1; done"')
    first = stubborn.replace("stop_timeout '0'", f"stop_timeout '{stop_timeout}'").replace("0.3", "30")
    agent = Agent(box)
    agent.commit(first)
    agent.start()
    try:
        oracle = Oracle(box)
        wait_for(lambda: running(box, "web"))
        wait_for(lambda: agent.status()["agent"].get("generation"))
        before = box.get("web").id
        agent.commit(first + "\tlist env 'A=1'\n")
        wait_for(lambda: any("ucidockd" in name for name in box.names()))
        wait_for(
            lambda: box.client.api.inspect_container(before)["HostConfig"]["RestartPolicy"]["Name"] == "no"
        )
        begun = time.monotonic()
        assert agent.end() == 0
        assert time.monotonic() - begun < 4
    finally:
        agent.close()
    box.write(first.replace("'30'", "'0.3'").replace("'20'", "'0'") + "\tlist env 'A=1'\n")
    box.restart_agent()
    oracle.converge()
    assert [name for name in box.names() if name != "decoy"] == ["web"]
    assert box.get("web").status == "running"
    assert "A=1" in box.get("web").attrs["Config"]["Env"]


def test_what_a_killed_writer_left_is_removed_at_the_next_start(box: Box) -> None:
    box.apply(WEB)
    (box.options.state_dir / ".state.json.ucidockd-x1").write_text("{")
    agent = Agent(box)
    agent.start()
    agent.end()
    assert [path.name for path in box.options.state_dir.iterdir()] == ["state.json"]


def test_a_container_runs_only_while_what_it_waits_for_is_mounted(box: Box, tmp_path: Path) -> None:
    path = tmp_path / "stick"
    path.mkdir()
    text = WEB + f"\tlist wait_for 'mount:{path}'\n\tlist volume '{path}:/data'\n"
    assert str(box.apply(text + OTHER)[0]).count("container:other") == 2
    assert box.names() == ["other"]
    assert reasons(box)["Waiting"] == "Waiting"
    stick = Disk(path)
    assert box.errors(text + OTHER) == []
    before = box.get("web").id
    stick.close()
    plan = str(box.apply()[0])
    assert f"nothing is mounted on {path}" in plan
    assert (box.get("web").status, box.get("other").status) == ("exited", "running")
    assert str(box.apply()[0]) == "nothing to do"
    stick = Disk(path)
    box.apply()
    assert (box.get("web").id, box.get("web").status) == (before, "running")
    box.get("web").remove(force=True)
    stick.close()


@pytest.mark.parametrize(
    ("then", "now"),
    [(100, 2 * 10**9), (3 * 10**9, 2 * 10**9), (2 * 10**9, 3 * 10**9)],
    ids=["set", "set back", "set forward"],
)
def test_a_clock_that_is_set_does_not_cut_the_grace_period_short(box: Box, then: int, now: int) -> None:
    box.apply(WEB)
    box.reconciler.wall = lambda: then
    box.apply("\n")
    box.reconciler.wall = lambda: now
    box.apply("\n")
    assert box.get("web").status == "exited"
    box.later(100)
    assert str(box.apply("\n")[0]) == "nothing to do"
    box.later(21)
    box.apply("\n")
    assert box.names() == []


def test_500_sections_are_read_in_2_s(box: Box) -> None:
    box.write("".join(WEB.replace("'web'", f"'c{n}'") for n in range(500)))
    begun = time.thread_time()
    box.reconciler.read_config()
    took = time.thread_time() - begun
    assert box.reconciler.desired is not None
    assert len(box.reconciler.desired.containers) == 500
    assert took < 2


def test_starts_that_leave_the_host_port_to_the_engine_come_one_after_the_other(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And others beside them."""
    start, lock = box.reconciler.engine.start, threading.Lock()
    inside = most = 0

    def counting(ref: str) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        start(ref)
        with lock:
            inside -= 1

    monkeypatch.setattr(box.reconciler.engine, "start", counting)
    picking = "".join(WEB.replace("'web'", f"'c{n}'") + "\tlist port '80'\n" for n in range(4))
    assert box.errors(picking) == []
    assert most == 1
    fixed = "".join(WEB.replace("'web'", f"'d{n}'") for n in range(4))
    assert box.errors(picking + fixed) == []
    assert most > 1
