# SPDX-License-Identifier: GPL-2.0-or-later
"""Many views and many tabs of one browser, on a stand-in for uhttpd with its limits and its defect."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.api.conftest import Containers, containers
from tests.browser.test_reverse_proxy import why_no_browser
from tests.luci.browser.test_modules_in_a_browser import Browser, Pages, pages
from tests.support.agent_process import wait_for
from tests.support.fake_rpcd import ADMIN, READER
from tests.support.luci_web import PLACES

__all__ = ["containers", "pages"]

pytestmark = pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser())

COUNTING = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"


def show(browser: Browser, name: str, options: object, begin: str = "start") -> float:
    """Seconds until it is on the page."""
    began = time.monotonic()
    browser.do("show", name, options, begin)
    return time.monotonic() - began


def lines(browser: Browser, selector: str = "pre") -> list[int]:
    return [int(number) for number in re.findall(r"^line (\d+)", browser.text(selector), re.MULTILINE)]


def objects(pages: Pages) -> set[tuple[str, str]]:
    """Which stream objects are read within a second, and by which session; each by one tab at a time."""
    found: set[tuple[str, str]] = set()
    began = time.monotonic()
    while time.monotonic() - began < (1 if found else 10):
        now = list(pages.router.web.reads.values())
        assert len(now) == len(set(now))
        found |= set(now)
        time.sleep(0.02)
    return found


@pytest.fixture
def log(containers: Containers) -> str:
    return str(containers.run(COUNTING, stop_signal="KILL"))


@pytest.fixture
def tabs(pages: Pages) -> Iterator[list[str]]:
    """Names of the tabs to be closed at the end."""
    names: list[str] = []
    yield names
    for name in names:
        pages.browser.do("close", name)
    pages.open()


@pytest.mark.parametrize("views", [16, pytest.param(300, marks=[pytest.mark.long, pytest.mark.timeout(400)])])
def test_views_leave_no_connection_behind(pages: Pages, log: str, views: int) -> None:
    took = []
    for _ in range(views):
        browser = pages.open()
        took.append(show(browser, "ucidockd.logview", log))
        browser.until_text("line", "pre")
    web = pages.router.web
    wait_for(lambda: web.places >= PLACES - 3)
    assert len(web.reads) <= 1
    few = min(20, views // 2)
    early, late = statistics.median(took[:few]), statistics.median(took[-few:])
    assert late < max(1, 3 * early), "pages come as fast as at first"


def test_twelve_tabs_take_one_connection_and_each_shows_its_own(
    pages: Pages, log: str, tabs: list[str]
) -> None:
    pages.open()
    alone = show(pages.browser, "ucidockd.logview", log)
    tabs += [str(number) for number in range(11)]
    kinds = ["logview", "logview", "graph"]
    for number, name in enumerate(tabs):
        browser = pages.open(name)
        took = show(browser, f"ucidockd.{kinds[number % 3]}", log)
        assert took < max(1, 5 * alone), f"tab {number + 2}"
    for number, name in enumerate(tabs):
        pages.browser.do("tab", name)
        if number % 3 == 2:
            pages.browser.do(
                "until", "(document.querySelector('polyline').getAttribute('points') ?? '') !== ''"
            )
        else:
            pages.browser.until_text("line 1\n", "pre")
    assert len(objects(pages)) == 1
    # others find a connection at once
    browser = pages.open("0")
    assert show(browser, "ucidockd.logview", log) < max(1, 5 * alone)


@pytest.mark.variants(1)
@pytest.mark.parametrize("how", ["closed", "reloaded", "frozen", "hidden"])
def test_when_the_tab_that_reads_goes_no_line_is_lost_or_doubled(
    pages: Pages, log: str, tabs: list[str], how: str
) -> None:
    pages.open()
    pages.open("reads")
    show(pages.browser, "ucidockd.logview", log)
    pages.browser.until_text("line 5\n", "pre")
    pages.open()
    show(pages.browser, "ucidockd.logview", log)
    pages.browser.until_text("line 5\n", "pre")
    pages.browser.do("tab", "reads")
    if how == "closed":
        pages.browser.do("close", "reads")
    else:
        tabs.append("reads")
    if how == "reloaded":
        pages.open("reads")
    if how == "frozen":
        pages.browser.do("lifecycle", "frozen")
    if how == "hidden":
        hide(pages.browser)
    browser = pages.browser
    browser.do("tab", "first")
    browser.until_text("line", "pre")
    last = lines(browser)[-1]
    browser.until_text(f"line {last + 60}\n", "pre")
    seen = lines(browser)
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    if how == "frozen":
        browser.do("tab", "reads")
        browser.do("lifecycle", "active")
        browser.until_text(f"line {last + 80}\n", "pre")
        seen = lines(browser)
        assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert len(objects(pages)) == 1


def hide(browser: Browser) -> None:
    browser.do(
        "evaluate",
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true }); "
        "document.dispatchEvent(new Event('visibilitychange'))",
    )


def test_hidden_tabs_read_nothing(pages: Pages, log: str, tabs: list[str]) -> None:
    pages.open()
    tabs += ["0", "1"]
    for name in tabs:
        show(pages.open(name), "ucidockd.logview", log)
        pages.browser.until_text("line", "pre")
    for name in tabs:
        pages.browser.do("tab", name)
        hide(pages.browser)
    wait_for(lambda: not pages.router.web.reads)


def test_a_console_goes_on_and_echoes_at_once_when_the_tab_that_reads_goes(
    pages: Pages, log: str, tabs: list[str]
) -> None:
    pages.open()
    pages.open("reads")
    show(pages.browser, "ucidockd.logview", log)
    pages.browser.until_text("line 1\n", "pre")
    browser = pages.open()
    options = {"container": log, "command": ["/bin/sh"], "user": ""}
    browser.do("show", "ucidockd.terminal", options, "open")
    browser.until_text("#", ".xterm-rows")
    rows = "document.querySelector('.xterm-rows').textContent"
    took = []
    for key in "abcdefgh":
        began = time.monotonic()
        browser.do("type", key)
        browser.do("until", f"{rows}.trimEnd().endsWith({json.dumps(key)})")
        took.append(time.monotonic() - began)
    assert statistics.median(took) < 0.5
    # a shell's numbers while the reader goes
    browser.do(
        "type",
        "\x7f" * 8
        + "X=alive; i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo n$i; sleep 0.05; done; echo still $X.$X\n",
    )
    browser.until_text("n5", ".xterm-rows")
    browser.do("close", "reads")
    browser.until_text(r"still alive\.alive", ".xterm-rows")
    text = browser.do(
        "evaluate",
        "(() => { const b = shown.term.buffer.active; "
        "return Array.from({length: b.length}, (_, i) => b.getLine(i).translateToString(true)).join('\\n'); })()",
    )
    assert [int(number) for number in re.findall(r"^n(\d+)$", text, re.MULTILINE)] == list(range(1, 61))
    browser.do("type", "exit 3\n")
    browser.until_text("The process ended with code 3.")


def test_two_users_in_one_browser_share_nothing(pages: Pages, log: str, tabs: list[str]) -> None:
    rights = {("ucidockd", "*"), ("docker.container", "logs")}
    pages.router.rpcd.rights[READER] = set(rights)
    pages.open()
    show(pages.browser, "ucidockd.logview", log)
    pages.browser.until_text("line", "pre")
    tabs.append("reader")
    reader = pages.open("reader", READER)
    show(reader, "ucidockd.logview", log)
    reader.until_text("line", "pre")
    found = objects(pages)
    assert sorted(session for session, _ in found) == [ADMIN, READER]
    assert len({number for _, number in found}) == 2
    # a reader's tab may open no console, whatever the other tab may
    reader.do("show", "ucidockd.terminal", {"container": log, "command": ["/bin/sh"], "user": ""}, "open")
    wait_for(
        lambda: "SessionError" in reader.text("body") or "expired" in reader.text("body") or reader.text()
    )
    assert "/ #" not in reader.text(".xterm-rows")
    pages.router.rpcd.rights[READER] = set()


def test_a_logout_ends_it_for_all_tabs(pages: Pages, log: str, tabs: list[str]) -> None:
    session = "c" * 32
    pages.router.rpcd.rights[session] = {("*", "*")}
    pages.open()
    tabs += ["0", "1", "2"]
    for name in tabs:
        show(pages.open(name, session), "ucidockd.logview", log)
        pages.browser.until_text("line", "pre")
    pages.router.rpcd.destroy(session)
    web = pages.router.web
    wait_for(lambda: session not in {one for one, _ in web.reads.values()}, 20)
    time.sleep(2)
    calls = web.calls_of(session)
    time.sleep(5)
    assert web.calls_of(session) == calls, "nobody asks again"
