# SPDX-License-Identifier: GPL-2.0-or-later
"""The pictures of the manual: the real pages, with a running agent and engine, in a plain theme of ours.

`make screenshots` writes them to docs/images; the test itself only looks whether they can be made as they should be.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.test_reverse_proxy import why_no_browser
from tests.dockerd.conftest import _make
from tests.luci.browser.test_clicks import Owner, owning
from tests.luci.browser.test_modules_in_a_browser import HERE
from tests.support.dockerd import busybox_tar

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser()),
]

WIDTH, MOST = 1280, 120_000  # pixels; bytes of a picture
ROOT = "/opt/docker"  # what the folder of the test's own engine is shown as
IMAGES = [
    "nginx:1.27-alpine",
    "postgres:17-alpine",
    "eclipse-mosquitto:2",
    "koenkk/zigbee2mqtt:2",
    "jellyfin/jellyfin:10.10",
    "grafana/grafana:11.4.0",
]
HOLD = 'x=$(head -c {} /dev/zero | tr "\\\\0" a); while :; do sleep 1; done'  # so many bytes of memory
LOG = (
    "for page in / /style.css /logo.svg /contact /favicon.ico /news /about /; do"
    ' echo 192.168.1.$((20+$(date +%S)%9)) - - "GET $page HTTP/1.1" 200 $((800+$$%97)); sleep 0.2; done;'
)


def container(name: str, image: str, command: str, *lines: str) -> str:
    common = ("option stop_signal 'KILL'", "option gate '0.3'", f"option image '{image}'")
    words = "".join(f"\t{line}\n" for line in (*common, *lines))
    return f"config container '{name}'\n{words}\toption command 'sh -c '\\''{command}'\\'''\n\n"


SECTIONS = "".join(
    [
        "config network 'home'\n\toption subnet '172.31.9.0/24'\n\n",
        "config volume 'webdata'\n\nconfig volume 'dbdata'\n\n",
        container(
            "web",
            "nginx:1.27-alpine",
            LOG + HOLD.format(9_000_000),
            "list port '8080:80'",
            "list port '8443:443'",
            "list volume 'webdata:/usr/share/nginx/html:ro'",
            "list env 'TZ=Europe/Berlin'",
            "list network 'home'",
            "option restart 'unless-stopped'",
            "option memory '256m'",
        ),
        container(
            "db",
            "postgres:17-alpine",
            HOLD.format(41_000_000),
            "list volume 'dbdata:/var/lib/postgresql/data'",
            "list network 'home'",
            "list env 'POSTGRES_PASSWORD=secret'",
            "option health_cmd 'true'",
            "option health_interval '1s'",
        ),
        container("mosquitto", "eclipse-mosquitto:2", HOLD.format(2_000_000), "list port '1883:1883'"),
        container(
            "zigbee2mqtt", "koenkk/zigbee2mqtt:2", "sleep 1000", "list device 'usb:10c4:ea60:/dev/ttyACM0'"
        ),
        container(
            "jellyfin",
            "jellyfin/jellyfin:10.10",
            "sleep 1000",
            "list volume '/mnt/sda1/media:/media:ro'",
            "list wait_for 'mount:/mnt/sda1'",
        ),
        container(
            "grafana",
            "grafana/grafana:11.4.0",
            "sleep 0.4; echo Error: /etc/grafana/grafana.ini: permission denied; exit 1",
            "option restart 'always'",
        ),
    ]
)
GIB = 1 << 30
# what the router's own objects say
SYSTEM = {"load": [19_000, 0, 0], "memory": {"total": 2 * GIB, "free": GIB, "available": 1_500_000_000}}
MOUNTS = {"result": [{"mount": "/", "size": 58 * GIB, "avail": 41 * GIB}]}
# page, height, what it has to show
PICTURES = [
    ("overview", 790, "grafana[^]*Keeps crashing[^]*permission denied[^]*Disk of"),
    ("containers", 620, "web[^]*MiB[^]*zigbee2mqtt[^]*Waiting"),
    ("container/web#logs", 780, "GET /contact"),
    ("container/web#settings", 1000, "Container port[^]*Command"),
    ("settings", 1000, "Data root[^]*Listen addresses"),
]
CUT = """(([from, to]) => {
    const all = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (all.nextNode())
        all.currentNode.data = all.currentNode.data.replaceAll(from, to);
    for (const one of document.querySelectorAll('input'))
        one.value = one.value.replaceAll(from, to);
    document.activeElement.blur();
})(%s)"""


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    with owning(_make(), tmp_path_factory, "") as made:
        made.router.web.others = {("system", "info"): SYSTEM, ("luci", "getMountPoints"): MOUNTS}
        for image in IMAGES:
            repository, _, tag = image.partition(":")
            made.engine.api.import_image_from_data(busybox_tar(), repository=repository, tag=tag)
        path = made.lab.root / "config" / "containers"
        path.write_text(path.read_text() + SECTIONS)
        made.until(lambda: made.inspect("db")["State"]["Health"]["Status"] == "healthy")
        yield made


def name_of(page: str) -> str:
    return page.replace("container/web#", "container-").replace("container-settings", "form")


@pytest.mark.parametrize(("page", "height", "seen"), PICTURES)
def test_a_picture_of_a_page(owner: Owner, tmp_path: Path, page: str, height: int, seen: str) -> None:
    path = Path(os.environ.get("SCREENSHOTS") or tmp_path) / f"{name_of(page)}.png"
    owner.visit(page)
    owner.browser.do("dress", str(HERE / "plain.css"))
    owner.browser.until_text(seen)
    owner.browser.do("evaluate", CUT % json.dumps([owner.engine.info()["DockerRootDir"], ROOT]))
    owner.browser.do("picture", str(path), WIDTH, height)
    data = path.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (WIDTH, height)
    assert len(data) < MOST
