# SPDX-License-Identifier: GPL-2.0-or-later
"""The buttons that help, one after the other, in Chromium with a running agent: what each asks, what becomes of it on the
engine or in UCI, and that a login that may only read has none of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.browser.test_reverse_proxy import why_no_browser
from tests.dockerd.conftest import _make
from tests.luci.browser.test_clicks import Owner, owning
from tests.luci.browser.test_modules_in_a_browser import APP, Browser, Pages, pages
from tests.support.agent_process import running, wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX
from tests.support.fake_rpcd import ADMIN

__all__ = ["pages"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser()),
]

COMMON = "\toption stop_timeout '0'\n\toption network_mode 'none'\n\toption gate '0.3'\n"


def container(name: str, image: str = "IMAGE", command: str = "sleep 1000", more: str = "") -> str:
    return (
        f"config container '{name}'\n\toption image '{image}'\n\toption command '{command}'\n{COMMON}{more}\n"
    )


class Desk:
    """Somebody at the pages of an agent whose engine another program runs."""

    def __init__(self, pages: Pages) -> None:
        assert pages.router.box
        self.box: Box = pages.router.box
        self.browser: Browser = pages.browser
        self._address = pages.router.web.address

    def visit(self, page: str, *, reader: bool = False) -> None:
        path, _, part = page.partition("#")
        more = "&reader" if reader else ""
        self.browser.do("tab", "first")
        self.browser.do("visit", f"{self._address}{APP}/{path}?session={ADMIN}{more}#{part}")

    def touch(self, selector: str) -> None:
        self.browser.do("touch", selector)

    def asked(self, pattern: str) -> str:
        return self.browser.until_text(pattern, "#modal")

    def answer(self, label: str) -> None:
        self.touch(f"#modal .right button:text-is('{label}')")

    def told(self, pattern: str) -> str:
        return self.browser.until_text(pattern, "#notes")

    def labels(self) -> set[str]:
        found = "[...document.querySelectorAll('#view button, #view a.btn, #view summary')].map(one => one.textContent)"
        return set(self.browser.do("evaluate", found))

    def a_reader_has_none(self, page: str, seen: str, *labels: str) -> None:
        """`seen`: what such a login sees of it."""
        self.visit(page, reader=True)
        self.browser.until_text(seen)
        assert not self.labels() & set(labels)

    def id_of(self, name: str) -> str:
        return str(self.box.get(name).id)

    def config(self) -> str:
        return (self.box.config / "containers").read_text()


@pytest.fixture
def desk(pages: Pages) -> Iterator[Desk]:
    yield Desk(pages)
    assert pages.router.box
    pages.router.box.write("")
    pages.router.box.clean()


PROBLEM = ".ucidockd-problem:has-text('{}')"


def test_try_again_now_tries(desk: Desk) -> None:
    image = "127.0.0.1:9/none:1"
    desk.box.write(container("shop", image))
    desk.visit("overview")
    desk.browser.until_text("shop[^]*cannot pull[^]*Next try at")
    desk.a_reader_has_none("overview", "shop[^]*cannot pull", "Try again now", "Edit")
    desk.visit("overview")
    desk.box.client.images.get(BUSYBOX).tag("127.0.0.1:9/none", "1")
    try:
        desk.touch(f"{PROBLEM.format('shop')} >> button:text-is('Try again now')")
        wait_for(lambda: running(desk.box, "shop"), 30)
        desk.browser.until_text("Everything is all right")
    finally:
        desk.box.write("")
        desk.box.client.images.remove(image, force=True)


def test_a_conflict_is_taken_over(desk: Desk) -> None:
    desk.box.client.containers.run(BUSYBOX, "sleep 500", name="shop", detach=True, network_mode="none")
    before = desk.id_of("shop")
    desk.box.write(container("shop"))
    desk.a_reader_has_none("overview", "shop[^]*Conflict", "Take over")
    desk.visit("overview")
    desk.touch(f"{PROBLEM.format('shop')} >> button:text-is('Take over')")
    desk.asked("existing container is replaced[^]*volumes stay")
    desk.answer("Take over")
    wait_for(lambda: running(desk.box, "shop") and desk.id_of("shop") != before, 60)
    assert "option adopt '1'" in desk.config()


def test_a_container_is_adopted_from_the_list(desk: Desk) -> None:
    desk.box.client.containers.run(BUSYBOX, "sleep 500", name="hand", detach=True, network_mode="none")
    desk.a_reader_has_none("containers", "hand", "Adopt", "Stop", "More", "Console", "Files")
    desk.visit("containers")
    desk.touch("tr:has-text('hand') >> button:text-is('Adopt')")
    desk.asked("config container 'hand'[^]*|replaced by one that ucidockd manages")
    desk.answer("Adopt")
    wait_for(lambda: "ucidockd.section" in desk.box.get("hand").labels, 60)
    assert "config container 'hand'" in desk.config()


def moved(desk: Desk, *names: str) -> str:
    """The tag of their image names a newer one from now on; its id."""
    repository, _, tag = BUSYBOX.rpartition(":")
    del repository, tag
    made = desk.box.client.api.commit(desk.id_of(names[0]), repository="app", tag="1")
    return str(made["Id"])


def image_of(desk: Desk, name: str) -> str:
    return str(desk.box.get(name).attrs["Image"])


def test_all_are_updated_one_goes_back_and_one_with_its_data(desk: Desk, tmp_path: Path) -> None:
    """The newer image is here already: somebody has moved its tag."""
    box, browser = desk.box, desk.browser
    box.client.images.get(BUSYBOX).tag("app", "1")
    target = tmp_path / "copies"
    target.mkdir()
    saves = "\tlist volume 'rows:/rows'\n\toption backup_before_update '1'\n"
    never = "\toption pull 'never'\n"
    backup = f"config backup 'nightly'\n\tlist section 'db'\n\toption target '{target}'\n\n"
    text = container("web", "app:1", more=never) + container("db", "app:1", more=never + saves)
    box.write(text + "config volume 'rows'\n\n" + backup)
    try:
        wait_for(lambda: running(box, "web") and running(box, "db"), 60)
        first = image_of(desk, "web")
        box.get("db").exec_run(["sh", "-c", "echo old >/rows/a"])

        # of one that has had one image only, nothing is offered
        desk.visit("container/web#history")
        browser.until_text("Last operations[^]*create")
        assert "Back to the previous image" not in desk.labels()

        newer = moved(desk, "web")
        desk.a_reader_has_none("overview", "2 updates", "Update all", "Check for updates")
        desk.visit("overview")
        browser.until_text("2 updates")
        desk.touch("button:text-is('Update all')")
        desk.asked("Update (web, db|db, web)[^]*down for a few seconds, its volumes stay")
        desk.answer("Update")
        desk.told("web: updated[^]*|db: updated")
        wait_for(lambda: (image_of(desk, "web"), image_of(desk, "db")) == (newer, newer), 60)

        desk.a_reader_has_none("container/web#history", "Last operations", "Back to the previous image")
        desk.visit("container/web#history")
        desk.touch("button:text-is('Back to the previous image')")
        asked = desk.asked("previous image: down for a few seconds")
        assert "volumes stay as they are" in asked
        desk.answer("Take back")
        desk.told("web: taken back")
        wait_for(lambda: image_of(desk, "web") == first and running(box, "web"), 60)
        desk.visit("container/web")
        browser.until_text("Pinned")
        desk.visit("container/web#history")
        browser.until_text("Last operations[^]*create")
        assert "Back to the previous image" not in desk.labels()

        box.get("db").exec_run(["sh", "-c", "echo new >/rows/a"])
        desk.visit("container/db#history")
        desk.touch("button:text-is('Back to the previous image')")
        desk.asked("Put the data back too[^]*what was written to the volumes since the update is lost")
        desk.touch("#modal input[type=checkbox]")
        desk.answer("Take back")
        desk.told("db: taken back")
        wait_for(lambda: image_of(desk, "db") == first and running(box, "db"), 60)
        assert box.get("db").exec_run(["cat", "/rows/a"])[1] == b"old\n"
    finally:
        box.write("")
        wait_for(lambda: "db" not in box.names(), 200)


def test_earlier_settings_come_back(desk: Desk) -> None:
    box, browser = desk.box, desk.browser
    box.write(container("web", more="\toption hostname 'one'\n"))
    wait_for((Path(str(box.options.state_dir)) / "history/web.json").exists, 60)
    box.write(container("web", more="\toption hostname 'two'\n"))
    wait_for(lambda: box.get("web").attrs["Config"]["Hostname"] == "two" and running(box, "web"), 60)
    desk.a_reader_has_none("container/web#history", "Last operations", "Roll back", "Compare")
    desk.visit("container/web#history")
    desk.touch("button:text-is('Compare')")
    desk.asked("option hostname 'one'")
    desk.touch("#modal button:text-is('Close')")
    desk.touch("button:text-is('Roll back')")
    asked = desk.asked("web is replaced: down for about")
    assert "What is in volumes stays" in asked
    desk.answer("Roll back")
    wait_for(lambda: box.get("web").attrs["Config"]["Hostname"] == "one" and running(box, "web"), 60)
    assert "option hostname 'one'" in desk.config()
    browser.until_text("Earlier settings[^]*hostname[^]*now")


class Receiver:
    """A web server that notes what notices tell it."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing to stderr."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/x"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_notice_is_tested(desk: Desk) -> None:
    receiver = Receiver()
    text = "config notify '{}'\n\toption type 'webhook'\n\toption url '{}'\n\n"
    desk.box.write(text.format("phone", receiver.url) + text.format("lost", "http://127.0.0.1:9/x"))
    try:
        desk.visit("settings")
        for name, result in (
            ("phone", "phone: delivered"),
            ("lost", "lost: 127.0.0.1: the connection was refused"),
        ):
            desk.touch(f"summary:has-text('{name}')")
            desk.touch(f"details:has(> summary:has-text('{name}')) >> button:text-is('Send a test')")
            desk.told(result)
        assert [one["event"] for one in receiver.got] == ["test"]
    finally:
        receiver.close()


def test_what_nobody_uses_goes_with_a_preview(desk: Desk) -> None:
    """Images of either group, stopped containers, networks and volumes."""
    box, browser, client = desk.box, desk.browser, desk.box.client
    keep = client.volumes.create("keep").name
    client.networks.create("old")
    client.containers.run(BUSYBOX, "true", name="done", detach=True, network_mode="none").wait()
    nameless = client.api.import_image_from_data(b"\0" * 10240)
    nameless = json.loads(nameless.splitlines()[-1])["status"]
    client.api.import_image_from_data(b"\0" * 10240, repository="unused", tag="1")
    box.write(container("web") + "config network 'home'\n")
    wait_for(lambda: running(box, "web") and client.networks.list(names=["home"]), 60)

    desk.a_reader_has_none("images", "unused:1", "Clean up", "Pull again", "Remove")
    desk.visit("images")
    desk.touch("button:text-is('Clean up')")
    asked = desk.asked("only those without a name: 1")
    assert "unused:1" in asked
    assert "Build cache too" in asked
    browser.do("choose", "#modal select", "dangling")
    browser.do("until", "!document.querySelector('#modal').textContent.includes('unused:1')")
    desk.answer("Remove")
    desk.told("freed")
    wait_for(lambda: nameless not in {one.id for one in client.images.list(all=True)}, 30)
    assert client.images.list("unused")
    client.images.remove("unused:1")

    for page, label, gone in (
        ("containers", "Remove stopped", lambda: "done" not in box.names()),
        ("networks", "Remove unused", lambda: not client.networks.list(names=["^old$"])),
    ):
        desk.a_reader_has_none(page, "web|bridge", "Clean up", label)
        desk.visit(page)
        desk.touch("summary:text-is('Clean up')")
        desk.touch(f"button:text-is('{label}')")
        desk.asked("What ucidockd manages stays")
        desk.answer(label)
        wait_for(gone, 30)
    assert client.networks.list(names=["^home$"])
    assert running(box, "web")
    client.volumes.get(keep).remove()


# what concerns dockerd itself, which the agent runs here

DAEMON_SECTIONS = f"""
config container 'web'
	option image '{BUSYBOX}'
	option command 'sleep 1000'
	option stop_signal 'KILL'
	option gate '0.3'
"""


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    with owning(_make(), tmp_path_factory, DAEMON_SECTIONS) as made:
        made.until(lambda: made.inspect("web")["State"]["Running"])
        yield made


def set_dockerd(owner: Owner, line: str) -> None:
    """Somebody writes /etc/config/dockerd."""
    root = "" if "data_root" in line else f"option data_root '{owner.lab.root}/data'\n"
    (owner.lab.root / "config" / "dockerd").write_text(f"config globals 'globals'\n{root}{line}\n")


def test_an_unprotected_api_leads_to_the_settings_of_tls(owner: Owner) -> None:
    set_dockerd(owner, "list hosts 'tcp://0.0.0.0:2375'")
    owner.overview()
    owner.browser.until_text("Docker daemon[^]*Unprotected Docker API")
    owner.browser.do("visit", f"{owner.router.web.address}{APP}/overview?session={ADMIN}&reader")
    owner.browser.until_text("Unprotected Docker API")
    assert "Protect the API" not in owner.browser.text()
    owner.overview()
    owner.follow(".ucidockd-problem >> a:text-is('Protect the API')", "settings")
    assert owner.browser.do("evaluate", "location.hash") == "#set-access"
    owner.touch("[data-option=enabled] >> input:visible >> nth=0")
    owner.effect("dockerd")
    owner.save()
    owner.until(lambda: "tcp://0.0.0.0:2375" in str(owner.lab.document().get("hosts")))
    assert owner.lab.document()["tlsverify"] is True
    set_dockerd(owner, "")
    owner.until(lambda: "2375" not in str(owner.lab.document().get("hosts")))
    owner.until(owner.lab.probe.answers)


def test_another_data_folder_is_used_or_the_data_is_moved(owner: Owner) -> None:
    """The folder was changed in the file: the agent does nothing until its owner has decided."""
    owner.until(lambda: owner.inspect("web")["State"]["Running"])
    before, target = owner.inspect("web")["Id"], f"{owner.lab.root}/data2"
    old = owner.engine.info()["DockerRootDir"]
    set_dockerd(owner, f"option data_root '{target}'")
    owner.overview()
    owner.browser.until_text("Docker daemon[^]*Different engine")
    owner.follow(".ucidockd-problem >> a:text-is('Move the data')", "settings")
    assert owner.browser.do("evaluate", "location.hash") == "#set-general"
    owner.overview()
    owner.touch(".ucidockd-problem >> button:text-is('Use this engine')")
    owner.browser.until_text("starts without the old containers, images and volumes; they stay", "#modal")
    owner.touch("#modal .right button:text-is('Use this engine')")
    owner.until(lambda: owner.engine.info()["DockerRootDir"] == target)
    owner.browser.until_text("web[^]*(Image missing|Failed|cannot pull)")
    set_dockerd(owner, f"option data_root '{old}'")
    owner.until(lambda: owner.inspect("web")["Id"] == before and owner.inspect("web")["State"]["Running"])
