# SPDX-License-Identifier: GPL-2.0-or-later
"""The recipes in docs/recipes/ are really applied, with stand-ins under the names of their images.

A stand-in does nothing but run, so this shows that the engine takes each section: networks, devices, mounts, order, health.
"""

from __future__ import annotations

import io
import os
import re
import socket
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.observe.waiting import UsbDevices
from tests.repository.test_examples import packages_of
from tests.support.box import Box
from tests.support.dockerd import busybox_tar, is_root
from tests.support.usb import UsbBus

pytestmark = [pytest.mark.long, pytest.mark.skipif(not is_root(), reason="an engine needs root")]

DOCS = Path(__file__).parents[1] / "docs"
RECIPES = sorted(path for path in (DOCS / "recipes").glob("*.md") if packages_of(path))
_CHECKS = ("healthcheck.sh", "redis-cli")  # health checks that the images bring
_RUNS = 'ENTRYPOINT ["/bin/sh", "-c", "trap exit TERM; sleep 100000 & wait"]'  # whatever the command is


def stand_in() -> bytes:
    """A root file system that has the programs of the health checks."""
    buffer = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        for name in _CHECKS:
            entry, text = tarfile.TarInfo(f"bin/{name}"), b"#!/bin/sh\n"
            entry.mode, entry.size = 0o755, len(text)
            tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """What /mnt/sda1 is on a router."""
    place = tmp_path / "sda1"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=False)


@pytest.fixture
def lan() -> Iterator[None]:
    """The bridge of the LAN, with the router's address."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("only in a worker, which has a network of its own")
    subprocess.run(["ip", "link", "add", "br-lan", "type", "bridge"], check=True)
    subprocess.run(["ip", "addr", "add", "192.168.1.1/24", "dev", "br-lan"], check=True)
    subprocess.run(["ip", "link", "set", "br-lan", "up"], check=True)
    yield
    subprocess.run(["ip", "link", "del", "br-lan"], check=False)


def prepared(page: Path, box: Box, disk: Path, folder: Path) -> str:
    """The recipe's sections, after what it says to prepare: folders, password files, devices, images."""
    text = packages_of(page)["containers"]
    secrets = folder / "secrets.env"
    secrets.write_text("MYSQL_PASSWORD=secret\n")
    text = re.sub(r"(?<=list env_file ').*(?=')", str(secrets), text)
    render = folder / "renderD128"
    os.mknod(render, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    text = text.replace("/dev/dri/renderD128", str(render)).replace("/mnt/sda1", str(disk))
    text = text.replace("/var/run/docker.sock:", f"{box.options.docker_host.removeprefix('unix://')}:")
    for source in re.findall(rf"list volume '({disk}[^:]*):", text):
        path = Path(source)
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text("")
    for image in dict.fromkeys(re.findall(r"option image '(.*)'", text)):
        name, _, tag = image.rpartition(":")
        box.client.api.import_image_from_data(stand_in(), repository=name, tag=tag, changes=[_RUNS])
    return text


def unsettled(box: Box) -> dict[str, dict[str, tuple[bool, str]]]:
    """What is not as declared, or not running."""
    found = {
        item["key"]: {c["type"]: (c["status"], c["message"]) for c in item["conditions"]}
        for item in box.reconciler.board.snapshot()["resources"]
        if item["kind"] in {"container", "network", "volume"}
    }
    return {
        key: conditions
        for key, conditions in found.items()
        if not conditions.get("Synced", (False,))[0] or not conditions.get("Running", (True,))[0]
    }


def settle(box: Box, text: str) -> None:
    """Passes until all is in sync: a container that waits for another's health check comes later."""
    deadline = time.monotonic() + 60
    box.apply(text)
    while left := unsettled(box):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
        box.apply()


@pytest.mark.parametrize(
    "page", [page for page in RECIPES if page.stem != "adguard-home"], ids=lambda page: page.stem
)
def test_the_recipe_runs(page: Path, box: Box, disk: Path, tmp_path: Path) -> None:
    bus = UsbBus(tmp_path)
    bus.plug("1-1", "10c4:ea60", "tty/ttyUSB0")
    box.reconciler.usb = UsbDevices(monotonic=time.monotonic, sysfs=bus.sysfs, dev=bus.dev)
    text = prepared(page, box, disk, tmp_path)
    settle(box, text)
    assert set(re.findall(r"config container '(.*)'", text)) <= set(box.names())
    assert box.apply()[0].works == ()


def test_adguard_home_is_reached_from_the_lan_and_from_the_router(
    box: Box, disk: Path, lan: None, tmp_path: Path
) -> None:
    page = DOCS / "recipes/adguard-home.md"
    settle(box, prepared(page, box, disk, tmp_path))
    assert not answers("192.168.1.53")
    # what netifd makes of the page's sections
    network = packages_of(page)["network"]
    assert re.findall(r"option (?:type|ifname|mode|ipaddr|target) '(.*)'", network) == [
        "macvlan",
        "br-lan",
        "bridge",
        "192.168.1.54",
        "192.168.1.53/32",
    ]
    for words in (
        "link add lanshim link br-lan type macvlan mode bridge",
        "addr add 192.168.1.54/32 dev lanshim",
        "link set lanshim up",
        "route add 192.168.1.53/32 dev lanshim",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    assert answers("192.168.1.53")


def answers(address: str) -> bool:
    """Whether a host is there: it refuses a connection to a port that nothing listens on."""
    try:
        socket.create_connection((address, 9), timeout=3).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True
