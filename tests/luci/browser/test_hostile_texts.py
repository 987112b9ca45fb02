# SPDX-License-Identifier: GPL-2.0-or-later
"""Every text of every answer is markup, as strangers may write it: names, labels, logs, messages. None of it may run.

The pages are the app's own, the answers those of a real engine and agent; the stand-ins for LuCI's elements, dialogues
and notices make HTML of a bare string, as LuCI does.
"""

from __future__ import annotations

import pytest

from tests.api.conftest import Containers, containers
from tests.browser.test_reverse_proxy import why_no_browser
from tests.luci.browser.test_modules_in_a_browser import APP, Pages, pages
from tests.support.agent_process import running, wait_for
from tests.support.fake_rpcd import ADMIN

__all__ = ["containers", "pages"]

pytestmark = pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser())

# opens every tab, and presses every button that only shows or asks, one after the other
PRESS = """
(async () => {
    const wait = () => new Promise(done => setTimeout(done, 300));
    for (const tab of ['', ...[...document.querySelectorAll('#view [role=tab]')].map(one => one.getAttribute('href'))]) {
        if (/settings/.test(tab))
            continue;
        location.hash = tab;
        await wait();
        const names = new Set([...document.querySelectorAll('#view button')].map(one => one.textContent.trim()));
        for (const name of names)
            if (!/Download|Upload|Back up|console|Open|Pull|Build|Import|Load|again|Push|Save|Create|Reset/.test(name)) {
                [...document.querySelectorAll('#view button')].find(one => one.textContent.trim() === name)?.click();
                await wait();
            }
    }
})()
"""
REFUSED = """
config container 'refused'
	option image 'a b'
	option name '<b>x</b>'

config network 'net'
"""
MARKS = "(document.getElementById('view').textContent.match(/<img src=x/g) ?? []).length"


def test_the_stand_ins_run_a_bare_string(pages: Pages) -> None:
    browser = pages.open()
    mark = "'<img src=x onerror=\"(window.ran ??= []).push(1)\">'"
    browser.do("evaluate", f"document.body.append(E('div', {{}}, {mark}))")
    browser.do("until", "window.ran?.length === 1")


@pytest.mark.parametrize(
    ("view", "dialogues"),
    [
        ("containers", 4),
        pytest.param("container", 6, marks=pytest.mark.long),
        ("images", 3),
        pytest.param("overview", 1, marks=pytest.mark.long),
        pytest.param("activity", 0, marks=pytest.mark.long),
    ],
)
def test_no_text_of_a_page_runs(pages: Pages, containers: Containers, view: str, dialogues: int) -> None:
    made = containers.run("echo begin; sleep 1000", stop_signal="KILL", labels={"a": "b"})
    assert pages.router.box
    pages.router.box.write(
        "config container 'refused'\n option image 'a b'\n option name '<b>x</b>'\nconfig network 'net'\n"
    )
    browser = pages.open(more="&hostile")
    browser.do("view", view, made)
    browser.do("until", f"{MARKS} > 0 && {MARKS}")
    if dialogues:  # the first text may be there before the buttons
        browser.do("until", "document.querySelectorAll('#view button, #view [role=tab]').length > 1")
    browser.do("evaluate", PRESS)
    assert browser.do("evaluate", "window.dialogues ?? 0") >= dialogues
    assert browser.do("evaluate", "document.querySelectorAll('img').length") == 0
    assert browser.do("evaluate", "window.ran ?? []") == []


SECTIONS = """
config stack 'shop'
	list env 'A=b'

config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_signal 'KILL'
	option stack 'shop'
	option network_mode 'none'
	list volume 'store:/data'

config volume 'store'

config network 'home'

config notify 'phone'
	option url 'http://127.0.0.1:9/x'

config backup 'nightly'
	list section 'web'
	option target '/nowhere'
"""


@pytest.mark.long
def test_no_value_of_a_stack_runs(pages: Pages) -> None:
    """Its settings are a form on the page of all containers."""
    box, browser = pages.router.box, pages.browser
    assert box
    box.write(SECTIONS)
    wait_for(lambda: running(box, "web"), 90)
    browser.do("visit", f"{pages.router.web.address}{APP}/containers?session={ADMIN}&hostile")
    browser.do("evaluate", "document.querySelectorAll('#view details').forEach(one => { one.open = true; })")
    shown = (
        "[...document.querySelectorAll('#view input, #view textarea')].some(one => /<img/.test(one.value))"
    )
    browser.do("until", shown)
    browser.do("evaluate", PRESS)
    assert browser.do("evaluate", "document.querySelectorAll('img').length") == 0
    assert browser.do("evaluate", "window.ran ?? []") == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("page", "seen"),
    [
        ("settings", "nightly"),
        ("settings", "phone"),
        ("volumes", "store"),
        ("networks", "home"),
        ("container/web#settings", "IMAGE"),
        ("add", "A docker run line"),
    ],
)
def test_no_value_of_uci_runs(pages: Pages, page: str, seen: str) -> None:
    """All that forms show: values of options, names of sections, copies of backups, what a test of a notice answers."""
    box, browser = pages.router.box, pages.browser
    assert box
    box.write(SECTIONS)
    wait_for(lambda: running(box, "web"), 90)
    path, _, part = page.partition("#")
    browser.do("visit", f"{pages.router.web.address}{APP}/{path}?session={ADMIN}&hostile#{part}")
    browser.do("evaluate", "document.querySelectorAll('#view details').forEach(one => { one.open = true; })")
    browser.do(
        "until", f"document.getElementById('view').innerHTML.includes({seen!r}.replace('IMAGE', 'busybox'))"
    )
    browser.do("evaluate", PRESS)
    found = (
        "[...document.querySelectorAll('#view input, #view textarea')].some(one => /<img/.test(one.value))"
    )
    if page not in ("networks", "volumes", "add"):
        assert browser.do("evaluate", found), "values are marked"
    assert browser.do("evaluate", "document.querySelectorAll('img').length") == 0
    assert browser.do("evaluate", "window.ran ?? []") == []
