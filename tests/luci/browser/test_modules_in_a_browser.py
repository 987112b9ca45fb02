# SPDX-License-Identifier: GPL-2.0-or-later
"""Console, log, graphs and progress in Chromium: the pages' own modules, a running agent, a real engine.

Only LuCI itself is not there: `page.mjs` stands in for its loader, `tests/support/luci_web.py` for uhttpd.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.api.conftest import Containers, containers
from tests.api.test_jobs_on_engine import context
from tests.browser.test_reverse_proxy import PLAYWRIGHT, why_no_browser
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.controller import LoopThread
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.fake_rpcd import ADMIN, FakeRpcd
from tests.support.fake_ubusd import FakeUbusd
from tests.support.luci_web import Web
from tests.support.registry import Registry, Throttle, is_installed

__all__ = ["containers"]

HERE = Path(__file__).parent
RESOURCES = HERE.parents[2] / "luci/htdocs/luci-static/resources"
SCHEMAS = HERE.parents[2] / "schemas"
MENU = HERE.parents[2] / "luci/root/usr/share/luci/menu.d"
APP = "/admin/services/ucidockd"
BIG = 4 * 1024 * 1024

pytestmark = pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser())


class Browser:
    """One page; each method is a verb of `drive.mjs`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", HERE / "drive.mjs", PLAYWRIGHT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def do(self, verb: str, *values: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([verb, *values]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the browser's driver has ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def text(self, selector: str = "#view") -> str:
        return str(self.do("evaluate", f"document.querySelector({json.dumps(selector)}).textContent"))

    def until_text(self, pattern: str, selector: str = "#view") -> str:
        """The text of the element, once it matches."""
        found = f"document.querySelector({json.dumps(selector)})?.textContent"
        try:
            return str(self.do("until", f"new RegExp({json.dumps(pattern)}).test({found}) && {found}"))
        except AssertionError as exc:
            raise AssertionError(f"{pattern} is not in: {self.text('body')}") from exc

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)


class Pages:
    """A page with an agent behind it."""

    def __init__(self, browser: Browser, router: Router, loop: LoopThread) -> None:
        self.browser, self.router, self._loop = browser, router, loop
        self._web = router.web

    def open(self, tab: str = "first", session: str = ADMIN, more: str = "") -> Browser:
        """The empty page in that tab, of a session that may do everything unless told otherwise."""
        self.browser.do("tab", tab)
        self.browser.do("open", f"{self._web.address}/tests/browser/page.html?session={session}{more}")
        return self.browser

    def cut(self) -> int:
        """Breaks the connections by which pages fetch live data."""

        async def cut() -> int:
            return self._web.cut()

        return int(self._loop.run(cut()))


@dataclass
class Router:
    """What a browser reaches."""

    web: Web
    rpcd: FakeRpcd
    box: Box | None = None


@asynccontextmanager
async def a_router(
    bus: Path, config: Path, socket: str, resources: Path = RESOURCES
) -> AsyncIterator[Router]:
    """`config`: what is /etc/config; `socket`: the agent's."""
    folders = {"/luci-static/resources/ucidockd/schemas": SCHEMAS, "/luci-static/resources": resources}
    web = Web(bus, {"/tests": HERE.parent, "/menu.d": MENU, **folders})
    web.config, web.socket, web.page = config, socket, HERE / "page.html"
    async with FakeUbusd(bus), FakeRpcd(bus) as rpcd, web.serving():
        yield Router(web, rpcd)


@pytest.fixture(scope="module")
def pages(engine: PrivateDockerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("pages")
    loop, client = LoopThread(), docker.DockerClient(base_url=engine.host, version="auto")
    box = Box.make(folder, engine, client)
    router = a_router(folder / "ubus.sock", box.config, str(box.options.socket))
    made = loop.run(router.__aenter__())
    made.box = box
    agent = Agent(box, ubus=folder / "ubus.sock")
    browser = Browser()
    try:
        agent.start()
        yield Pages(browser, made, loop)
        assert browser.do("errors") == [], "errors of the page itself"
    finally:
        browser.close()
        agent.end()
        loop.run(router.__aexit__(None, None, None))
        loop.close()
        box.clean()
        client.close()


def test_a_console_types_shows_and_answers_no_reports(pages: Pages, containers: Containers) -> None:
    made = containers.run("sleep 1000", stop_signal="KILL")
    browser = pages.open()
    options = {"container": made, "command": ["/bin/sh"], "user": ""}
    browser.do("show", "ucidockd.terminal", options, "open")
    browser.until_text("#", ".xterm-rows")
    browser.do("type", "stty size; echo got $((6*7))\n")
    shown = browser.until_text(r"got 42", ".xterm-rows")
    rows, columns = browser.do("evaluate", "[shown.term.rows, shown.term.cols]")
    assert f"{rows} {columns}" in shown
    # what asks the terminal for an answer would type it into the shell
    browser.do(
        "type", r"printf '\033[6n\033[c\033[>c\033]10;?\007'; read -t 1 -n 1 a; echo typed=${#a}=" + "\n"
    )
    assert "typed=0=" in browser.until_text(r"typed=\d=.*#", ".xterm-rows")
    browser.do("type", "exit 3\n")
    browser.until_text("The process ended with code 3.")


@pytest.mark.long
def test_a_console_goes_on_when_its_connection_is_cut(pages: Pages, containers: Containers) -> None:
    made = containers.run("sleep 1000", stop_signal="KILL")
    browser = pages.open()
    options = {"container": made, "command": ["/bin/sh"], "user": ""}
    browser.do("show", "ucidockd.terminal", options, "open")
    browser.until_text("#", ".xterm-rows")
    browser.do("type", "X=alive; echo got $((6*7))\n")
    browser.until_text(r"got 42.*#", ".xterm-rows")
    wait_for(lambda: pages.cut() >= 1)  # between two requests there is none to cut
    browser.do("type", "echo still $X.$X\n")
    browser.until_text(r"still alive\.alive", ".xterm-rows")
    browser.do("type", "exit 3\n")
    browser.until_text("The process ended with code 3.")


HOSTILE = r"""
i=0
while :; do
    i=$((i+1))
    printf 'hello %d <b id=bold>&amp;</b>\033[31mred\033[0m\007\n' $i
    echo "oops $i" >&2
    sleep 0.2
done
"""


def test_a_log_is_followed_searched_paused_and_goes_on_without_a_gap(
    pages: Pages, containers: Containers
) -> None:
    made = containers.run(HOSTILE, stop_signal="KILL")
    browser = pages.open()
    browser.do("show", "ucidockd.logview", made)
    shown = browser.until_text(r"hello 5 ", "pre")
    assert "hello 1 <b id=bold>&amp;</b>red\n" in shown
    assert browser.do("evaluate", "document.getElementById('bold')") is None
    browser.do("fill", "input", "OOPS")
    found = browser.until_text("^(?!.*hello)", "pre")
    assert set(re.findall(r"^\D+", found, re.MULTILINE)) == {"oops "}
    browser.do("fill", "input", "hello")
    browser.do("click", "Pause")
    last = numbers(browser.text("pre"))[-1]
    browser.do("click", "Follow")
    seen = numbers(browser.until_text(f"hello {last + 8} ", "pre"))
    assert seen == list(range(1, len(seen) + 1))
    browser.do("fill", "input", "HELLO 3 ")
    browser.do("evaluate", "document.querySelector('input[type=checkbox]').click()")
    assert numbers(browser.until_text("^(?!.*hello 4 )[^o]*hello 3 ", "pre")) == [3]


def numbers(log: str) -> list[int]:
    return [int(number) for number in re.findall(r"^hello (\d+)", log, re.MULTILINE)]


def test_graphs_draw_the_load_and_say_when_there_is_none(
    pages: Pages, containers: Containers, docker_client: docker.DockerClient
) -> None:
    made = containers.run("while :; do :; done", stop_signal="KILL", nano_cpus=100_000_000)
    browser = pages.open()
    browser.do("show", "ucidockd.graph", made)
    points = "document.querySelector('polyline').getAttribute('points')"
    drawn = browser.do("until", f"({points} ?? '').split(' ').length >= 3 && {points}")
    places = [tuple(map(float, point.split(","))) for point in drawn.split(" ")]
    assert [x for x, _ in places] == sorted(x for x, _ in places) and places[-1][0] == 480
    assert all(0 <= y <= 90 for _, y in places)
    percent = re.search(r"CPU\s*([\d.]+) %", browser.text())
    assert percent and float(percent[1]) > 0
    memory = re.search(r"Memory\s*([\d.]+) (KiB|MiB)", browser.text())
    assert memory and float(memory[1]) > 0
    docker_client.containers.get(made).kill()
    browser.until_text("The container does not run.")


SECTION = {
    ".type": "container",
    ".name": "shop",
    "image": BUSYBOX,
    "enabled": "yes",
    "port": ["8080:80", "127.0.0.1:53:53/udp"],
    "env": ["A=b=c", "FROM_FILE", "B=two\nlines", "C=<img src=x onerror=alert(1)>"],
    "command": ["sh", "-c", "echo 'a  b'"],
    "odd_option": "kept",
}
SHOP = "config.containers.shop"
FIELD = "document.querySelector('[data-option={}]')"


def test_a_form_changes_what_was_typed_and_nothing_else(pages: Pages) -> None:
    browser = pages.open()
    browser.do("evaluate", f"(async () => {{ config.containers = {{ shop: {json.dumps(SECTION)} }}; "
               "await put('ucidockd.form', 'edit', 'shop') })()")  # fmt: skip
    assert browser.do("evaluate", "document.querySelectorAll('img').length") == 0
    browser.do("click", "Save & Apply")
    browser.until_text("Nothing was changed.")
    assert browser.do("evaluate", SHOP) == SECTION
    # a mistake is at its field, which has the focus
    browser.do("fill", "[data-option=memory] input", "64x")
    browser.do("click", "Save & Apply")
    browser.until_text("expected: a size", "[data-option=memory] .ucid-error")
    assert browser.do("evaluate", f"{FIELD.format('memory')}.contains(document.activeElement)")
    browser.do("fill", "[data-option=memory] input", "64m")
    # one field of one row; before it is saved the agent says what becomes of it
    browser.do("fill", "[data-option=port] input:nth-of-type(1) >> nth=1", "8081")
    browser.until_text("shop is created", ".ucid-bar")
    browser.do("click", "Save & Apply")
    browser.do("until", "window.applied === 1")
    changed = {**SECTION, "memory": "64m", "port": ["8081:80", "127.0.0.1:53:53/udp"]}
    assert browser.do("evaluate", SHOP) == changed


def test_a_form_shows_what_the_agent_finds_at_its_field(pages: Pages) -> None:
    browser = pages.open()
    browser.do("evaluate", f"(async () => {{ config.containers = {{ shop: {json.dumps(SECTION)} }}; "
               "await put('ucidockd.form', 'edit', 'shop') })()")  # fmt: skip
    browser.do("fill", "[data-option=network] input >> nth=0", "nowhere")
    browser.do("click", "Save & Apply")
    browser.until_text("nowhere", "[data-option=network] .ucid-error")
    assert browser.do("evaluate", "window.applied ?? 0") == 0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path / "registry")
    yield made
    made.close()


@pytest.fixture
def slow(registry: Registry, docker_client: docker.DockerClient) -> Iterator[tuple[Throttle, str]]:
    """A door to a registry that has an image, and the image's name through that door."""
    door = Throttle(registry.port, bytes_per_s=2**30)
    name = f"{door.address}/some/thing:1"
    build = context(f"FROM {BUSYBOX}\nCOPY big /big\n", big=os.urandom(BIG))
    docker_client.images.build(fileobj=build, custom_context=True, tag=name)
    docker_client.images.push(name)
    docker_client.images.remove(name, force=True)
    door.bytes_per_s = BIG // 64
    yield door, name
    door.close()


@pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")
def test_progress_survives_leaving_the_page_and_a_job_can_be_cancelled(
    pages: Pages, slow: tuple[Throttle, str], docker_client: docker.DockerClient
) -> None:
    door, name = slow
    browser = pages.open()
    pull = f"shown.begin({{ kind: 'pull', image: {json.dumps(name)} }})"
    browser.do("show", "ucidockd.jobs", None)
    browser.do("evaluate", pull)
    first = browser.do("until", f"{WIDTH} > 0 && {WIDTH}")
    door.bytes_per_s = 0
    pages.open()
    browser.do("show", "ucidockd.jobs", None)
    assert first <= browser.do("until", f"{WIDTH} > 0 && {WIDTH}") < 100
    assert "running" in browser.text("tr:nth-child(2)")
    browser.do("click", "Cancel")
    browser.until_text("cancelled", "tr:nth-child(2)")
    door.bytes_per_s = 2**30
    browser.do("evaluate", pull)
    browser.until_text("succeeded", "tr:nth-child(2)")
    assert browser.do("evaluate", WIDTH) == 100
    docker_client.images.remove(name)


# of the newest job's bar, in percent
WIDTH = "parseInt(document.querySelector('.cbi-progressbar > div')?.style.width ?? '0')"


DAILY = """
config container 'daily'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_signal 'KILL'
	option network_mode 'none'

config container 'crash'
	option image 'IMAGE'
	option command 'sh -c "echo starting; echo oops: no configuration; exit 3"'
	option network_mode 'none'
	option gate '1'
"""


def test_a_problem_its_log_and_a_limit_take_few_clicks(pages: Pages) -> None:
    """All other daily tasks: test_clicks."""
    box, browser = pages.router.box, pages.open()
    assert box
    box.write(DAILY)
    wait_for(lambda: running(box, "daily"))
    browser.do("visit", f"{pages.router.web.address}{APP}/overview?session={ADMIN}")
    browser.until_text("crash[^]*oops: no configuration")
    assert browser.do("clicks") == []
    browser.do("touch", ".ucidockd-problem:has-text('crash') >> a:text-is('Logs')")
    browser.do("until", "window.ready && location.hash === '#logs'")
    browser.do("fill", "input[aria-label=Search]", "oops")
    browser.until_text("^(?![^]*starting)[^]*oops", "pre")
    got = browser.do("download", "button:has-text('Download'):visible")
    assert got["name"] == "crash.log" and "oops: no configuration" in got["text"]
    assert len(browser.do("clicks")) == 2, browser.do("clicks")
    browser.do("visit", f"{pages.router.web.address}{APP}/containers?session={ADMIN}")
    browser.do("touch", "tr:has(a:text-is('daily')) >> a:text-is('Edit')")
    browser.do("until", "!!document.activeElement?.closest('[data-option=image]')")
    browser.do("touch", "[data-option=memory] input")
    browser.do("type", "48m")
    browser.until_text("daily", ".ucid-bar")
    browser.do("touch", "button:has-text('Save & Apply')")
    wait_for(lambda: box.get("daily").attrs["HostConfig"]["Memory"] == 48 << 20)
    assert len(browser.do("clicks")) == 3, browser.do("clicks")
    box.write("")
    for name in ("daily", "crash"):
        box.get(name).remove(force=True)
