# SPDX-License-Identifier: GPL-2.0-or-later
"""Containers that wait for a mount, a device or an interface: started when it comes, stopped and kept when it goes."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.files.config import open_store
from agent.model.addresses import Interface
from agent.router.addresses import has_device, is_up
from agent.runtime.router_integration import RouterIntegration, RouterTools
from agent.status.conditions import ConditionType
from tests.support.agent_process import wait_for
from tests.support.box import Box
from tests.support.dockerd import is_root
from tests.support.loop_disk import LoopDisk
from tests.support.router import FakeNetifd

pytestmark = pytest.mark.skipif(not is_root(), reason="an engine needs root")

WEB = (
    "config container 'web'\n\toption image 'IMAGE'\n\toption command 'sleep 1000'\n\toption stop_signal 'SIGKILL'\n"
    "\toption gate '0'\n"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    try:
        made = LoopDisk(tmp_path / "disk.img", tmp_path / "mnt" / "sda1", size_mib=8)
        made.plug()
        made.pull()
    except OSError as exc:
        pytest.skip(f"no loop mounts here: {exc}")
    yield made
    with contextlib.suppress(OSError):
        made.pull()


@pytest.fixture
def device() -> Iterator[str]:
    """A network device that is down."""
    name = f"ucidw{os.getpid() % 10000}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    subprocess.run(["ip", "link", "set", f"{name}p", "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


def waits(box: Box) -> str:
    """What the board says that it waits for."""
    found = {item["key"]: item["conditions"] for item in box.reconciler.board.snapshot()["resources"]}
    return next((c["message"] for c in found["container:web"] if c["type"] == "Waiting" and c["status"]), "")


def comes_and_goes(box: Box, text: str, *, name: str) -> Iterator[None]:
    """The container's life around what it waits for: the caller takes away and brings back at each step."""
    box.apply(text)
    assert box.names() == []
    assert name in waits(box)
    yield
    box.apply()
    assert box.get("web").status == "running"
    first = box.get("web").id
    yield
    box.apply()
    assert box.get("web").status == "exited"
    assert name in waits(box)
    box.apply()
    assert box.get("web").status == "exited"
    yield
    box.apply()
    assert box.get("web").status == "running"
    assert box.get("web").id == first
    assert waits(box) == ""


def test_a_pulled_disk_stops_its_container_and_a_plugged_one_starts_it(box: Box, disk: LoopDisk) -> None:
    text = f"{WEB}\tlist wait_for 'mount:{disk.target}'\n\tlist volume '{disk.target}/data:/data'\n"
    disk.plug()
    (disk.target / "data").mkdir()
    (disk.target / "data" / "precious").write_text("here")
    disk.pull()
    life = comes_and_goes(box, text, name=str(disk.target))
    next(life)
    disk.plug()
    next(life)
    disk.pull()
    next(life)
    assert list(disk.target.iterdir()) == []  # nothing was made on the bare mount point
    disk.plug()
    assert next(life, "done") == "done"
    assert box.get("web").exec_run(["cat", "/data/precious"]).output == b"here"


def test_an_empty_disk_in_its_place_holds_the_container(box: Box, disk: LoopDisk) -> None:
    text = f"{WEB}\tlist wait_for 'mount:{disk.target}'\n\tlist volume '{disk.target}/data:/data'\n"
    disk.plug()
    box.apply(text)
    assert box.names() == []
    assert f"{disk.target}/data is not there" in waits(box)
    assert not (disk.target / "data").exists()


def test_a_file_on_it_tells_the_right_disk(box: Box, disk: LoopDisk, tmp_path: Path) -> None:
    """The sentinel: another disk under the same mount point is not what the container was meant for."""
    sentinel = disk.target / ".here"
    other = LoopDisk(tmp_path / "other.img", disk.target, size_mib=8)
    disk.plug()
    sentinel.touch()
    disk.pull()
    text = f"{WEB}\tlist wait_for 'mount:{disk.target}'\n\tlist wait_for 'file:{sentinel}'\n"
    life = comes_and_goes(box, text, name=str(disk.target))
    next(life)
    disk.plug()
    next(life)
    disk.pull()
    other.plug()
    next(life)
    assert str(sentinel) in waits(box)
    other.pull()
    disk.plug()
    assert next(life, "done") == "done"


def test_a_disk_that_is_read_only_is_a_condition_and_stops_nothing(box: Box, disk: LoopDisk) -> None:
    board = box.reconciler.board
    box.reconciler.router = RouterIntegration(
        open_store(box.options),
        board,
        RouterTools(netifd=FakeNetifd()),
        docker_host=box.options.docker_host or "",
    )

    def shown() -> str:
        return board.message("container:web", ConditionType.STORAGE_READ_ONLY)

    text = f"{WEB}\tlist wait_for 'mount:{disk.target}'\n\tlist volume '{disk.target}:/data'\n"
    disk.plug()
    box.apply(text)
    assert shown() == ""
    subprocess.run(["mount", "-o", "remount,ro", disk.target], check=True)
    box.apply()
    assert str(disk.target) in shown()
    assert box.get("web").status == "running"
    box.apply(text.replace(":/data'", ":/data:ro'"))
    assert shown() == ""


def test_a_device_that_goes_stops_its_container(box: Box, tmp_path: Path) -> None:
    node = tmp_path / "ttyUSB0"
    life = comes_and_goes(box, f"{WEB}\tlist device '{node}:/dev/ttyUSB0'\n", name=str(node))

    def plug() -> None:
        os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))

    next(life)
    plug()
    next(life)
    node.unlink()
    next(life)
    node.write_text("no device")  # as a bind to a missing source would have left it
    box.apply()
    assert "is not a device" in waits(box)
    node.unlink()
    plug()
    assert next(life, "done") == "done"


def test_without_netifd_a_device_of_that_name_counts_as_the_interface(box: Box, device: str) -> None:
    life = comes_and_goes(box, f"{WEB}\tlist wait_for 'interface:{device}'\n", name=device)

    def turn(state: str) -> None:
        subprocess.run(["ip", "link", "set", device, state], check=True)
        wait_for(
            lambda: is_up(device, None) is (state == "up")
        )  # the kernel tells of a carrier up to 1 s later

    assert has_device(device)
    assert not has_device(f"{device}x")
    next(life)
    turn("up")
    next(life)
    turn("down")
    next(life)
    turn("up")
    assert next(life, "done") == "done"


def test_netifd_says_whether_a_uci_interface_is_up(box: Box, device: str) -> None:
    """The interface has another name than its device, or, worse, that of a device which is up."""
    netifd = FakeNetifd()
    subprocess.run(["ip", "link", "set", device, "up"], check=True)
    box.reconciler.router = RouterIntegration(
        open_store(box.options), box.reconciler.board, RouterTools(netifd=netifd)
    )

    def turn(*, up: bool) -> None:
        netifd.known = {device: Interface(name=device, up=up, l3_device="pppoe-wan")}

    turn(up=False)
    life = comes_and_goes(box, f"{WEB}\tlist wait_for 'interface:{device}'\n", name=device)
    next(life)
    turn(up=True)
    next(life)
    turn(up=False)
    next(life)
    netifd.failing = "ubus does not answer"  # what was known last holds
    box.apply()
    assert box.get("web").status == "exited"
    netifd.failing = ""
    turn(up=True)
    assert next(life, "done") == "done"


def test_while_netifd_is_silent_nothing_is_stopped_and_the_status_says_why(box: Box) -> None:
    """An agent that starts beside a ubusd that is away knows of no interface at all."""
    netifd = FakeNetifd()
    netifd.known = {"wwan": Interface(name="wwan", up=True, l3_device="wwan0")}

    def start_beside(failing: str) -> None:
        netifd.failing = failing
        box.reconciler.router = RouterIntegration(
            open_store(box.options), box.reconciler.board, RouterTools(netifd=netifd)
        )

    start_beside("")
    box.apply(f"{WEB}\tlist wait_for 'interface:wwan'\n")
    made = box.get("web").attrs["State"]["StartedAt"]
    box.restart_agent()
    start_beside("ubus: no connection")
    box.apply()
    assert waits(box) == "it is not known whether wwan is up: ubus: no connection"
    assert (box.get("web").status, box.get("web").attrs["State"]["StartedAt"]) == ("running", made)
    netifd.failing = ""
    netifd.known = {"wwan": Interface(name="wwan", up=False, l3_device="wwan0")}
    box.apply()
    assert (waits(box), box.get("web").status) == ("wwan is not up", "exited")
