# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd move-data` on real engines: the same engine on another disk, or the old one as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.engine import process as daemon_process
from agent.storage.copying import NOTE
from tests.dockerd.test_running_agent_on_engine import WEB, Agent, import_image, running
from tests.support import daemon_lab
from tests.support.daemon_lab import DaemonLab
from tests.support.dockerd import BUSYBOX
from tests.support.loop_disk import LoopDisk

pytestmark = pytest.mark.timeout(600)


def wait_for(check: Callable[[], Any]) -> None:
    """A copy takes what the disk takes."""
    daemon_lab.wait_for(check, 180)


SECTIONS = (
    WEB.replace("option gate", "list volume 'store:/data'\n\toption gate")
    + """
config container 'job'
	option image 'busybox:test'
	option command 'true'
	option restart 'no'

config volume 'store'
"""
)


class Room:
    """An agent with a dockerd, and a disk to move to."""

    def __init__(self, lab: DaemonLab, *, size_mib: int = 192) -> None:
        self.lab, self.agent = lab, Agent(lab)
        self.disk = LoopDisk(lab.root / "disk.img", lab.root / "disk", size_mib=size_mib)
        self.disk.plug()
        self.target = f"{self.disk.target}/docker"
        self.agent.commit("", containers=SECTIONS)
        self.agent.start()
        wait_for(lab.probe.answers)
        import_image(lab)
        wait_for(lambda: "/web" in running(lab) and self.in_sync())
        with contextlib.closing(lab.client()) as client:
            web = client.containers.get("web")
            assert (
                web.exec_run(
                    ["sh", "-c", "echo kept >/data/note; echo layer >/note; rm /etc/passwd"]
                ).exit_code
                == 0
            )
            client.containers.run(
                BUSYBOX, ["sleep", "1000"], name="theirs", network_mode="none", detach=True,
                stop_signal="SIGKILL", restart_policy={"Name": "unless-stopped"},
            )  # fmt: skip
            self.before = self.known(client)

    def in_sync(self) -> bool:
        done = self.agent.command("status", "--json")
        found = json.loads(done.stdout)["resources"] if done.returncode == 0 else []
        synced = {r["key"]: {c["type"]: c["status"] for c in r["conditions"]}.get("Synced") for r in found}
        return all(synced.get(key) for key in ("container:web", "container:job", "volume:store"))

    def known(self, client: Any) -> dict[str, Any]:
        return {
            "engine": client.info()["ID"],
            "containers": {c.name: c.id for c in client.containers.list(all=True)},
            "images": sorted(i.id for i in client.images.list()),
            "job": client.api.inspect_container("job")["State"]["StartedAt"],
        }

    def move(self, *words: str, target: str = "") -> subprocess.CompletedProcess[str]:
        return self.agent.command("move-data", *words, target or self.target)

    def is_moved(self, root: str) -> None:
        """Everything is as it was, on that data_root."""
        lab = self.lab
        wait_for(lambda: {"/web", "/theirs"} <= running(lab).keys() and self.in_sync())
        with contextlib.closing(lab.client()) as client:
            assert client.info()["DockerRootDir"] == root
            assert self.known(client) == self.before, "the same engine with the same containers and images"
            show = client.containers.get("web").exec_run(
                ["sh", "-c", "cat /data/note /note; ls /etc/passwd 2>/dev/null || echo gone"]
            )
            assert show.output.decode().split() == ["kept", "layer", "gone"], "volume, layer, deleted in it"
        conditions = self.agent.conditions()
        assert conditions["Synced"] == (True, "Applied")
        assert "EngineChanged" not in conditions

    def begin(self) -> subprocess.Popen[str]:
        """A move under way, with something to copy."""
        with (Path(self.volume()) / "large").open("wb") as file:
            for _ in range(60):
                file.write(os.urandom(1024 * 1024))
        words = [sys.executable, "-m", "agent", "move-data", "--yes", self.target, *self.agent.words[:2]]
        words += [word for word in self.agent.words if word.startswith("--socket")]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def volume(self) -> str:
        with contextlib.closing(self.lab.client()) as client:
            return str(client.api.inspect_volume("store")["Mountpoint"])

    def data_root(self) -> str:
        text = (self.lab.root / "config" / "dockerd").read_text()
        return text.partition("data_root '")[2].partition("'")[0]

    def old_runs(self) -> None:
        self.is_moved(f"{self.lab.root}/data")
        assert self.data_root() == f"{self.lab.root}/data"

    def close(self) -> None:
        if self.agent.process is not None and self.agent.process.poll() is None:
            self.agent.end()


@pytest.fixture
def room(any_lab: DaemonLab) -> Iterator[Room]:
    made = Room(any_lab)
    yield made
    made.close()


@pytest.fixture
def large_room(lab: DaemonLab) -> Iterator[Room]:
    made = Room(lab, size_mib=512)
    yield made
    made.close()


def test_the_same_engine_runs_on_the_new_disk(room: Room) -> None:
    done = room.move("--check")
    assert done.returncode == 0, done.stderr
    assert "Containers that stop: theirs, web." in done.stdout
    done = room.move("--yes")
    assert done.returncode == 0, done.stderr
    assert f"rm -rf {room.lab.root}/data" in done.stdout
    assert room.data_root() == room.target
    room.is_moved(room.target)
    assert not Path(room.target, NOTE).exists()
    assert Path(room.lab.root, "data", "volumes").is_dir(), "the old data stays"
    again = room.move("--yes")
    assert (again.returncode, "already" in again.stderr) == (1, True)


STAGES = {
    "first copy": lambda room: Path(room.target, NOTE).exists(),
    "stopped": lambda room: daemon_process.find_with_config(room.lab.daemon_json) is None,
    "committed": lambda room: room.data_root() == room.target,
}


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_an_agent_that_is_killed_loses_nothing_and_the_move_can_be_completed(
    large_room: Room, stage: str
) -> None:
    room = large_room
    with room.begin() as moving:
        wait_for(lambda: STAGES[stage](room))
        room.agent.end(signal.SIGKILL)
        moving.communicate()
        assert moving.returncode == 1
    room.agent.start()
    if stage != "committed":
        room.old_runs()
        assert "A copy that was cut short is there" in room.move("--check").stdout
        assert room.move("--yes").returncode == 0
    room.is_moved(room.target)
    wait_for(lambda: not Path(room.target, NOTE).exists())
    assert not (room.lab.options.state_dir / "move.json").exists()


@pytest.mark.long
def test_an_agent_that_is_ended_while_dockerd_is_down_starts_the_old_one_first(large_room: Room) -> None:
    room = large_room
    with room.begin() as moving:
        wait_for(lambda: STAGES["stopped"](room))
        room.agent.end()
        wait_for(lambda: not STAGES["stopped"](room))
        moving.communicate()
    room.agent.start()
    room.old_runs()


@pytest.mark.long
@pytest.mark.parametrize("stage", ["first copy", "stopped"])
@pytest.mark.parametrize("fault", ["full", "pulled", "cancelled"])
def test_a_disk_that_fails_in_the_middle_leaves_the_old_engine(
    large_room: Room, fault: str, stage: str
) -> None:
    room = large_room
    with room.begin() as moving:
        wait_for(lambda: STAGES[stage](room))
        if fault == "full":
            with contextlib.suppress(OSError):
                for number in range(40):
                    with Path(f"{room.disk.target}/filler{number}").open("wb") as file:
                        os.posix_fallocate(file.fileno(), 0, 100 * 1024 * 1024 >> number // 4)
        elif fault == "pulled":
            room.disk.pull()
        else:
            moving.send_signal(signal.SIGINT)
        out, error = moving.communicate()
    if moving.returncode == 0:  # the copy was complete before
        assert stage == "stopped", (out, error)
        return
    assert f"Docker uses {room.lab.root}/data as before" in error
    room.old_runs()
    if fault == "full":
        for filler in Path(room.disk.target).glob("filler*"):
            filler.unlink()
    if fault != "pulled":
        assert room.move("--yes").returncode == 0
        room.is_moved(room.target)


@pytest.mark.long
def test_a_place_that_does_not_fit_is_refused_with_the_reason(lab: DaemonLab, tmp_path: Path) -> None:
    room = Room(lab, size_mib=32)
    try:
        data, memory = f"{lab.root}/data", f"{lab.root}/memory"
        subprocess.run(["mount", "-t", "tmpfs", "--mkdir", "none", memory], check=True)
        Path(lab.root, "full").mkdir()
        Path(lab.root, "full", "photo").touch()
        told = {
            room.target: "are missing",
            f"{memory}/docker": "in memory, and empty after a reboot",
            f"{data}/inside": "one is inside the other",
            str(lab.root): "one is inside the other",
            f"{data}/": "already",
            f"{lab.root}/full": "is not empty: it has photo",
            f"{lab.root}/nowhere/docker": "there is no folder",
            "/": "expected an absolute path",
        }
        for target, why in told.items():
            done = room.move("--check", target=target)
            assert (done.returncode, why in done.stderr) == (1, True), (target, done)
        room.old_runs()
    finally:
        room.close()
