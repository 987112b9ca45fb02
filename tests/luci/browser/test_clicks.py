# SPDX-License-Identifier: GPL-2.0-or-later
"""The clicks that an owner's daily tasks take, and what becomes of each, in Chromium with an agent that runs dockerd.

A click is a click of a mouse; typing and the choice of a file do not count. The pages are packed as in the package; LuCI's
menu, rpcd's `uci` and the bridge are stand-ins.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.browser.test_reverse_proxy import why_no_browser
from tests.dockerd.conftest import _make
from tests.dockerd.test_running_agent_on_engine import Agent, import_image
from tests.luci.browser.test_modules_in_a_browser import APP, RESOURCES, SCHEMAS, Browser, Router, a_router
from tests.support.controller import LoopThread
from tests.support.daemon_lab import DaemonLab, wait_for
from tests.support.dockerd import BUSYBOX, busybox_tar
from tests.support.fake_rpcd import ADMIN
from tests.support.loop_disk import LoopDisk

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser()),
]

SECTIONS = f"""
config container 'web'
	option image '{BUSYBOX}'
	option command 'sh -c "echo hello >/hello.txt; sleep 1000"'
	option stop_signal 'KILL'
	option gate '1'
	list volume 'store:/data'

config container 'crash'
	option image '{BUSYBOX}'
	option command 'sh -c "echo starting; echo oops: no configuration; exit 3"'
	option restart 'always'

config volume 'store'
"""
NETWORK = """
config interface 'loopback'
	option device 'lo'

config interface 'lan'
	option device 'br-lan'

config interface 'wan'
	option device 'eth1'
"""


class Owner:
    """Somebody at the app's pages; `clicks` are those since the Overview was opened."""

    def __init__(self, lab: DaemonLab, router: Router, browser: Browser) -> None:
        self.lab, self.router, self.browser = lab, router, browser
        self.engine = lab.client()

    @property
    def clicks(self) -> list[str]:
        return [str(one) for one in self.browser.do("clicks")]

    def visit(self, page: str) -> None:
        """By its address, and with no click yet."""
        path, _, tab = page.partition("#")
        self.browser.do("visit", f"{self.router.web.address}{APP}/{path}?session={ADMIN}#{tab}")

    def overview(self) -> None:
        self.visit("overview")

    def touch(self, selector: str) -> None:
        self.browser.do("touch", selector)

    def follow(self, selector: str, page: str) -> None:
        """A link to another page."""
        self.touch(selector)
        self.browser.do("until", f"window.ready && location.pathname.startsWith('{APP}/{page}')")

    def menu(self, title: str) -> None:
        self.follow(f"#menu a:has-text('{title}')", title.lower())

    def row(self, text: str, link: str, page: str = "container/") -> None:
        self.follow(f"#view tr:has(a:text-is('{text}')) >> a:text-is('{link}')", page)

    def type(self, text: str) -> None:
        self.browser.do("type", text)

    def enter(self, option: str, text: str, index: int = 0) -> None:
        """Into the `index`th field of an option, instead of what is there."""
        self.touch(field(option, index))
        self.browser.do("press", "Control+A")
        self.type(text)

    def save(self, label: str = "Save & Apply") -> None:
        """Until the page that comes when the change is applied is drawn."""
        self.browser.do("evaluate", "window.isOld = true")
        self.touch(f"button:has-text('{label}')")
        self.browser.do("until", "window.ready && !window.isOld")

    def effect(self, pattern: str) -> None:
        """Waits for what the page says that the change does."""
        self.browser.until_text(pattern, ".ucid-bar")

    def inspect(self, name: str) -> dict[str, Any]:
        try:
            return dict(self.engine.api.inspect_container(name))
        except docker.errors.NotFound:
            return {}

    def until(self, check: Any) -> None:
        """Polls the engine or a file, also while the engine is away."""

        def checked() -> bool:
            with contextlib.suppress(docker.errors.APIError, KeyError, OSError):
                return bool(check())
            return False

        wait_for(checked, 180)

    def config(self, name: str) -> str:
        return (self.lab.root / "config" / name).read_text()


def field(option: str, index: int = 0) -> str:
    return f"[data-option={option}] >> :is(input, select, textarea):visible >> nth={index}"


def bundled(folder: Path) -> Path:
    """The pages as the package has them."""
    shutil.copytree(RESOURCES.parents[1], folder, dirs_exist_ok=True)
    shutil.copytree(SCHEMAS, folder / "luci-static/resources/ucidockd/schemas")
    program = RESOURCES.parents[2] / "bundle.py"
    subprocess.run([sys.executable, program, folder], check=True)
    return folder


@contextlib.contextmanager
def owning(made: DaemonLab, folders: pytest.TempPathFactory, sections: str) -> Iterator[Owner]:
    """With these sections, an agent that runs dockerd, and the app as packed."""
    loop, bus = LoopThread(), folders.mktemp("bus") / "ubus.sock"
    agent, browser = Agent(made), Browser()
    htdocs = bundled(folders.mktemp("htdocs"))
    router = a_router(bus, made.root / "config", str(made.options.socket), htdocs / "luci-static/resources")
    web = loop.run(router.__aenter__())
    (made.root / "config" / "network").write_text(NETWORK)
    try:
        agent.commit("", containers=sections)
        agent.start(f"--ubus-socket={bus}")
        wait_for(made.probe.answers)
        import_image(made)
        one = Owner(made, web, browser)
        with contextlib.closing(one.engine):
            yield one
        assert browser.do("errors") == [], "errors of the pages"
    finally:
        browser.close()
        agent.end()
        loop.run(router.__aexit__(None, None, None))
        loop.close()
        made.close()


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    with owning(_make(), tmp_path_factory, SECTIONS) as one:
        one.engine.api.import_image_from_data(
            busybox_tar(), repository="app", tag="1", changes=["CMD sleep 1000"]
        )
        one.until(lambda: one.inspect("web")["State"]["Running"])
        yield one


def test_why_it_does_not_start_takes_none(owner: Owner) -> None:
    owner.overview()
    owner.browser.until_text("crash[^]*oops: no configuration")
    assert owner.clicks == []


@pytest.mark.parametrize(
    ("page", "file"), [("overview", "app"), ("add", "forms"), ("container/web#settings", "forms")]
)
def test_a_page_says_that_a_part_could_not_be_loaded(owner: Owner, page: str, file: str) -> None:
    owner.browser.do("block", f"**/ucidockd/{file}.js")
    owner.visit(page)
    owner.browser.until_text("Failed to fetch")
    owner.browser.do("block", "")
    owner.touch("button:text-is('Reload the page')")
    owner.browser.do("until", "window.ready && !/Failed to fetch/.test(document.body.textContent)")
    owner.browser.until_text(
        {"overview": "needs? your attention", "add": "Add container"}.get(page, "Docker image")
    )


def test_the_form_with_image_port_and_volume_takes_8(owner: Owner) -> None:
    owner.overview()
    owner.menu("Containers")
    owner.follow("a:has-text('Add container')", "add")
    owner.browser.do("until", "document.activeElement.id === 'ucid-name'")
    owner.type("shop")
    owner.enter("image", "app:1")
    owner.enter("port", "8123", 1)
    owner.enter("port", "80", 2)
    owner.enter("volume", "shopdata", 0)
    owner.enter("volume", "/data", 1)
    owner.effect("shop is created")
    owner.save("Create")
    owner.until(lambda: owner.inspect("shop")["State"]["Running"])
    found = owner.inspect("shop")
    assert found["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8123"}]}
    assert [(one["Name"], one["Destination"]) for one in found["Mounts"]] == [("shopdata", "/data")]
    assert len(owner.clicks) <= 8


def test_the_log_searched_and_downloaded_takes_2(owner: Owner) -> None:
    owner.overview()
    owner.follow(".ucidockd-problem:has-text('crash') >> a:text-is('Logs')", "container/crash")
    owner.browser.do("fill", "input[aria-label=Search]", "oops")
    owner.browser.until_text("^(?![^]*starting)[^]*oops", "pre")
    got = owner.browser.do("download", "button:has-text('Download'):visible")
    assert got["name"] == "crash.log" and "oops: no configuration" in got["text"]
    assert "starting" not in got["text"]
    assert len(owner.clicks) <= 2


def test_a_console_takes_2(owner: Owner) -> None:
    owner.overview()
    owner.menu("Containers")
    owner.row("web", "Console")
    owner.browser.until_text("#", ".xterm-rows")
    owner.type("echo got $((6*7))\n")
    owner.browser.until_text("got 42", ".xterm-rows")
    assert len(owner.clicks) <= 2


def test_memory_takes_4(owner: Owner) -> None:
    began = owner.inspect("web")["State"]["StartedAt"]
    owner.overview()
    owner.menu("Containers")
    owner.row("web", "Edit")
    owner.enter("memory", "48m")
    owner.effect("web")
    owner.save()
    owner.until(lambda: owner.inspect("web")["HostConfig"]["Memory"] == 48 << 20)
    assert owner.inspect("web")["State"]["StartedAt"] == began
    assert len(owner.clicks) <= 4


def test_mistakes_are_at_their_fields_when_the_form_opens(owner: Owner) -> None:
    odd = f"\nconfig container 'odd'\n\toption image '{BUSYBOX}'\n\toption command 'sleep 1000'\n"
    odd += "\toption stop_signal 'KILL'\n\toption memory 'much'\n\toption memroy '64m'\n"
    (owner.lab.root / "config" / "containers").write_text(owner.config("containers") + odd)
    owner.overview()
    owner.browser.until_text("odd[^]*memory: 'much' is not valid here")
    owner.follow(".ucidockd-problem:has(a:text-is('odd')) >> a:text-is('Edit')", "container/odd")
    owner.browser.until_text("expected: a size", "[data-option=memory] .ucid-error")
    assert owner.browser.do("evaluate", "!!document.activeElement.closest('[data-option=memory]')")
    owner.touch("button:text-is('Remove the option memroy')")
    owner.enter("memory", "32m")
    owner.effect("odd is created")
    owner.save()
    owner.until(lambda: owner.inspect("odd")["HostConfig"]["Memory"] == 32 << 20)
    assert "memroy" not in owner.config("containers")


@pytest.mark.parametrize("tag", ["good:2", "bad:1"])
def test_another_tag_takes_3_and_a_bad_one_goes_back(owner: Owner, tag: str) -> None:
    image, before = owner.engine.images.get(BUSYBOX), owner.inspect("web")["Config"]["Image"]
    image.tag("good", "2")
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    owner.engine.api.import_image_from_data(empty.getvalue(), repository="bad", tag="1")
    owner.overview()
    owner.menu("Containers")
    owner.row("web", "Edit")
    owner.browser.do("until", "!!document.activeElement?.closest('[data-option=image]')")
    owner.browser.do("press", "Control+A")
    owner.type(tag)
    owner.effect("web is replaced")
    owner.save()
    assert len(owner.clicks) <= 3
    if tag == "good:2":
        owner.until(lambda: owner.inspect("web")["Config"]["Image"] == tag)
    else:
        owner.overview()
        owner.browser.until_text("web[^]*Rolled back")
    owner.until(lambda: owner.inspect("web")["State"]["Running"])
    assert owner.inspect("web")["Config"]["Image"] == ("good:2" if tag == "good:2" else before)


def test_adopting_takes_2(owner: Owner) -> None:
    owner.engine.containers.run(BUSYBOX, "sleep 1000", name="hand", detach=True, stop_signal="KILL")
    owner.overview()
    owner.browser.until_text("hand")
    owner.touch("span:has(a:text-is('hand')) + button:text-is('Adopt')")
    owner.browser.until_text("config container 'hand'", "#modal")
    owner.touch("#modal button:text-is('Adopt')")
    owner.until(lambda: "ucidockd.section" in str(owner.inspect("hand")["Config"]["Labels"]))
    assert "config container 'hand'" in owner.config("containers")
    assert len(owner.clicks) <= 2


def test_tcp_with_tls_and_a_bundle_takes_6(owner: Owner, tmp_path: Path) -> None:
    owner.overview()
    owner.menu("Settings")
    owner.touch(field("hosts"))
    owner.type("tcp://127.0.0.1:2376")
    owner.touch("[data-option=enabled] >> input:visible >> nth=0")
    owner.effect("dockerd")
    owner.save()
    owner.until(lambda: "2376" in str(owner.lab.document().get("hosts")))
    owner.touch("input[placeholder*=laptop]")
    owner.type("me")
    got = owner.browser.do("download", "button:has-text('Download client bundle')")
    assert len(owner.clicks) <= 6
    with tarfile.open(fileobj=io.BytesIO(got["text"].encode("latin1"))) as bundle:
        bundle.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    owner.until(owner.lab.probe.answers)
    inside = ["nsenter", f"--net={owner.lab.network.path}", "docker", "--host=tcp://127.0.0.1:2376"]
    files = [
        f"--tls{name}={folder}/{file}.pem"
        for name, file in (("cacert", "ca"), ("cert", "cert"), ("key", "key"))
    ]
    owner.until(lambda: subprocess.run([*inside, "--tlsverify", *files, "ps"], check=False).returncode == 0)
    assert subprocess.run([*inside, "--tls", "ps"], check=False, capture_output=True).returncode != 0


def test_blocking_wan_takes_3(owner: Owner) -> None:
    owner.overview()
    owner.menu("Settings")
    owner.touch("label:has-text('wan') >> input[type=checkbox]")
    owner.save()
    owner.until(lambda: "list blocked_interfaces 'wan'" in owner.config("dockerd"))
    assert len(owner.clicks) <= 3


def test_removing_unused_images_with_a_preview_takes_3(owner: Owner) -> None:
    owner.engine.api.import_image_from_data(b"\0" * 10240, repository="unused", tag="1")
    owner.overview()
    owner.menu("Images")
    owner.touch("button:has-text('Clean up')")
    owner.browser.until_text("unused:1", "#modal")
    owner.browser.until_text("What stays[^]*web (names|uses) it", "#modal")
    owner.touch("#modal button:has-text('Remove')")
    owner.until(lambda: not owner.engine.images.list("unused"))
    assert owner.engine.images.list(BUSYBOX)
    assert len(owner.clicks) <= 3


def test_a_file_down_and_up_takes_3_each(owner: Owner, tmp_path: Path) -> None:
    owner.overview()
    owner.menu("Containers")
    owner.row("web", "Files")
    owner.browser.until_text("hello.txt")
    got = owner.browser.do("download", "tr:has-text('hello.txt') >> button:text-is('Download')")
    assert got == {"name": "hello.txt", "text": "hello\n"}
    assert len(owner.clicks) <= 3
    (tmp_path / "up.txt").write_text("up")
    owner.overview()
    owner.menu("Containers")
    owner.row("web", "Files")
    owner.browser.do("upload", "button:has-text('Upload files')", str(tmp_path / "up.txt"))
    owner.until(lambda: owner.engine.containers.get("web").exec_run("cat /up.txt")[1] == b"up")
    assert len(owner.clicks) <= 3


def test_a_volume_that_no_container_has_is_browsed(owner: Owner, tmp_path: Path) -> None:
    place = Path(owner.engine.volumes.create("lonely").attrs["Mountpoint"])
    (place / "sub").mkdir()
    (place / "sub" / "<i>notes.txt").write_text("once\n")
    owner.visit("volumes")
    owner.touch("#view tr:has-text('lonely') >> summary:has-text('More')")
    owner.touch("#view tr:has-text('lonely') >> button:text-is('Browse')")
    owner.touch("#view a:text-is('sub/')")
    owner.browser.until_text("<i>notes.txt")
    got = owner.browser.do("download", "tr:has-text('notes.txt') >> button:text-is('Download')")
    assert got["text"] == "once\n"
    (tmp_path / "notes.txt").write_text("twice\n")
    owner.browser.do("upload", "button:has-text('Upload files')", str(tmp_path / "notes.txt"))
    owner.until(lambda: (place / "sub" / "notes.txt").read_text() == "twice\n")
    owner.touch("#view button:text-is('Close')")


def test_another_data_folder_with_the_data_takes_4(owner: Owner) -> None:
    owner.engine.containers.get("web").exec_run(["sh", "-c", "echo precious >/data/rows"])
    before = owner.inspect("web")["Id"]
    disk = LoopDisk(owner.lab.root / "disk.img", owner.lab.root / "disk", size_mib=192)
    disk.plug()
    target = f"{disk.target}/docker"
    owner.overview()
    owner.menu("Settings")
    owner.enter("data_root", target)
    owner.touch("[data-option=data_root] >> button:has-text('Move the data')")
    asked = owner.browser.until_text("Images, containers and volumes", "#modal")
    assert target in asked and "web" in asked
    owner.touch("#modal button:text-is('Move the data')")
    owner.until(lambda: owner.engine.info()["DockerRootDir"] == target)
    owner.browser.until_text("The data is moved", "#modal")
    assert len(owner.clicks) <= 4
    owner.until(lambda: owner.inspect("web")["State"]["Running"])
    assert owner.inspect("web")["Id"] == before
    assert owner.engine.containers.get("web").exec_run("cat /data/rows")[1] == b"precious\n"
    assert target in owner.config("dockerd")


def test_nothing_is_made_up_while_docker_does_not_answer(owner: Owner) -> None:
    other = owner.engine.containers.create(BUSYBOX, "sleep 1000", name="foreign", network_mode="none")
    pages = {
        "containers": "foreign[^]*not managed[^]*[3-6] containers, ",
        f"container/{other.id}": "foreign[^]*not managed",
        "container/web#settings": "on this router, ",
    }
    away = {
        "containers": "web[^]*containers. Docker does not answer",
        f"container/{other.id}": "Docker does not answer",
        "container/web#settings": "Pull now *Docker does not answer",
    }
    # pages that stay open all the time, and what they say with Docker; without it all say the same
    open_pages = {
        "images": "busybox[^]*web",
        "networks": "bridge *built in",
        "volumes": "store[^]*/data",
        "container/web#load": "Processes[^]*sleep",
        "container/crash#logs": "oops: no configuration",
    }
    for page, words in pages.items():
        owner.visit(page)
        owner.browser.until_text(words)
    for page, words in open_pages.items():
        owner.browser.do("tab", page)
        owner.visit(page)
        owner.browser.until_text(words)
    owner.browser.do("tab", "first")
    owner.visit("containers")
    owner.browser.until_text("foreign[^]*not managed")
    owner.browser.do(
        "evaluate", "L.require('ucidockd.app').then(app => app.made['ucidockd.calls'].agent.dockerd_stop())"
    )
    owner.browser.until_text(away["containers"])
    assert not re.search(r"foreign|\d running", owner.browser.text())
    for page, words in open_pages.items():
        owner.browser.do("tab", page)
        owner.browser.until_text("Docker does not answer")
        shown = owner.browser.text()
        assert page.startswith("container/") or not re.search(words.replace("[^]", r"[\s\S]"), shown)
    owner.browser.do("tab", "first")
    for page, words in away.items():
        owner.visit(page)
        owner.browser.until_text(words)
    owner.overview()
    owner.browser.until_text(
        "Docker does not answer: dockerd was stopped manually[^]*or run ucidockd reconcile"
    )
    owner.visit("containers")
    owner.browser.until_text(away["containers"])
    owner.browser.do(
        "evaluate", "L.require('ucidockd.app').then(app => app.made['ucidockd.calls'].agent.dockerd_start())"
    )
    owner.browser.until_text(pages["containers"])
    for page, words in open_pages.items():
        owner.browser.do("tab", page)
        owner.browser.do("until", "!/Docker does not answer/.test(document.body.innerText)")
        owner.browser.until_text(words)
        owner.browser.do("close", page)
    # what happens on the engine from now on is heard of, too
    owner.browser.do("tab", "first")
    other.start()
    owner.browser.until_text("foreign[^]{0,20}Running[^]*?not managed")
    other.remove(force=True)


def test_a_containers_page_is_not_read_again_when_others_change(owner: Owner) -> None:
    def looks() -> list[str]:
        return [str(one) for one in owner.browser.do("requests") if '"docker.container","list"' in str(one)]

    owner.visit("container/web")
    owner.browser.until_text("Image ID")
    time.sleep(2)  # what an earlier change still does
    before = looks()
    owner.engine.containers.get("crash").restart(timeout=0)
    time.sleep(3)
    assert looks() == before
    owner.engine.containers.get("web").kill()
    owner.until(lambda: len(looks()) > len(before))


@pytest.mark.parametrize(
    "page",
    [
        "overview",
        "containers",
        "container/web",
        "container/web#logs",
        "container/web#console",
        "container/web#load",
        "container/web#files",
        "container/web#settings",
        "container/web#history",
        "container/web#inspect",
        "add",
        "images",
        "networks",
        "volumes",
        "activity",
        "settings",
    ],
)
def test_a_page_needs_at_most_8_requests_of_its_own(owner: Owner, page: str) -> None:
    """In its first two seconds. LuCI's own frame takes 17, of 25 in all."""
    began = time.monotonic()
    owner.visit(page)
    time.sleep(max(0.7, began + 2 - time.monotonic()))
    found = [str(one) for one in owner.browser.do("requests")]
    mine = [one for one in found if re.search("/ubus|/luci-static/", one) and "stream_close" not in one]
    assert len(mine) <= 8, "\n".join(mine)
