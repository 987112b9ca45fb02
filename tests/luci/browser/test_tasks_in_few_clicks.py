# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks of docs/luci.md in Chromium, with the clicks that a real mouse made, and what became of them on a real engine.

LuCI's own part, which writes /etc/config, is a stand-in: what it was given goes into the file here.
"""

from __future__ import annotations

import pytest

from tests.api.conftest import Containers, containers
from tests.browser.test_reverse_proxy import why_no_browser
from tests.luci.browser.test_modules_in_a_browser import Browser, Pages, pages
from tests.support.agent_process import running, wait_for
from tests.support.dockerd import BUSYBOX

__all__ = ["containers", "pages"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser()),
]

COUNT = """
window.clicks = 0;
document.addEventListener('click', event => event.isTrusted && event.detail > 0 && window.clicks++, true);
"""
# what the pages wrote, as UCI has it
TEXT = r"""
Object.values(window.config.containers ?? {}).map(one => `config ${one['.type']} '${one['.name']}'\n` +
    Object.entries(one).filter(([ name ]) => !name.startsWith('.')).map(([ name, value ]) => [ value ].flat()
        .map(each => `\t${Array.isArray(value) ? 'list' : 'option'} ${name} '${each}'\n`).join('')).join('')).join('\n')
"""


def counted(pages: Pages) -> Browser:
    browser = pages.open()
    browser.do("evaluate", COUNT)
    return browser


def clicks(browser: Browser) -> int:
    return int(browser.do("evaluate", "window.clicks"))


def test_a_container_with_image_port_and_volume(pages: Pages) -> None:
    box = pages.router.box
    assert box
    browser = counted(pages)
    browser.do("view", "add", "add")
    browser.do("until", "document.activeElement.id === 'ucid-name'")
    browser.do("type", "shop")
    for selector, text in (
        ("[data-option=image] input", BUSYBOX),
        ("[data-option=port] input >> nth=1", "18123"),
        ("[data-option=port] input >> nth=2", "80"),
        ("[data-option=volume] input >> nth=0", "shopdata"),
        ("[data-option=volume] input >> nth=1", "/data"),
    ):
        browser.do("press_on", selector)
        browser.do("type", text)
    browser.do("press_on", "button:has-text('Create')")
    browser.do("until", "window.applied === 1")
    assert clicks(browser) == 6  # and two that lead to the page
    text = str(browser.do("evaluate", TEXT))
    box.write(text + "\toption command 'httpd -f -p 80'\n\toption stop_timeout '0'\n")
    wait_for(lambda: running(box, "shop"))
    made = box.get("shop").attrs
    assert made["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "18123"}]}
    assert [(one["Name"], one["Destination"]) for one in made["Mounts"]] == [("shopdata", "/data")]
    box.write("")
    wait_for(lambda: not running(box, "shop"), 200)


def test_adopting_from_the_overview(pages: Pages, containers: Containers) -> None:
    box = pages.router.box
    assert box
    made = containers.run("sleep 1000", stop_signal="KILL")
    name = box.client.containers.get(made).name
    browser = counted(pages)
    browser.do("view", "overview", "overview")
    browser.until_text(f"Not managed:.*{name}")
    browser.do("press_on", f"a:has-text('{name}') + button")
    browser.until_text("config container", "#modal")
    browser.do("press_on", "#modal .right button:last-of-type")
    browser.do("until", "!document.getElementById('modal').firstChild")
    assert clicks(browser) == 2
    assert name in (box.config / "containers").read_text()
    browser.do("until", f"!document.getElementById('view').textContent.includes('Not managed: {name}')")


def test_what_nothing_uses_goes_with_a_preview(pages: Pages) -> None:
    box = pages.router.box
    assert box
    box.write("config container 'keeps'\n option image 'IMAGE'\n option enabled '0'\n")
    container = box.client.containers.create(BUSYBOX, "true")
    container.commit("unused", "1")
    container.remove()
    browser = counted(pages)
    browser.do("view", "images", "images")
    browser.do("press_on", "button:has-text('Clean up')")
    browser.until_text("unused:1", "#modal")
    browser.do("press_on", "#modal .right button:last-of-type")
    browser.do("until", "!document.getElementById('modal').firstChild")
    assert clicks(browser) == 2
    assert not box.client.images.list("unused")
    assert box.client.images.list(BUSYBOX), "a section names it"


def test_the_form_of_a_container_has_the_keyboard(pages: Pages) -> None:
    browser = pages.open()
    browser.do(
        "evaluate",
        "(async () => { config.containers = { shop: { '.type': 'container', '.name': 'shop', image: 'a:1' } }; })()",
    )
    box = pages.router.box
    assert box
    box.write(
        "config container 'shop'\n option image 'IMAGE'\n option command 'sleep 600'\n option stop_timeout '0'\n"
    )
    wait_for(lambda: running(box, "shop"))
    browser.do("evaluate", "location.hash = 'settings'")
    browser.do("view", "container", "shop")
    browser.do("until", "document.activeElement.closest('[data-option]')?.dataset.option === 'image'")
