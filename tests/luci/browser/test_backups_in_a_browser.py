# SPDX-License-Identifier: GPL-2.0-or-later
"""Backups in Settings, in Chromium with a real engine and agent: one made now, its copies, and a volume back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.test_reverse_proxy import why_no_browser
from tests.luci.browser.test_modules_in_a_browser import Browser, Pages, pages
from tests.support.agent_process import running, wait_for

__all__ = ["pages"]

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser()),
]

TEXT = """
config volume 'data'

config container 'db'
	option image 'IMAGE'
	list volume 'data:/data'
	option command 'sleep 600'
	option stop_timeout '0'
	option network_mode 'none'

config backup 'nightly'
	list section 'db'
	option target 'TARGET'
	option stop '1'
"""
MODAL = "document.getElementById('modal')"
FOCUS = "document.activeElement.textContent"


def press(browser: Browser, key: str) -> None:
    browser.do("press", key)


def test_a_backup_is_made_listed_and_restored(pages: Pages, tmp_path: Path) -> None:
    box = pages.router.box
    assert box
    box.write(TEXT.replace("TARGET", str(tmp_path)))
    wait_for(lambda: running(box, "db"), 90)
    box.get("db").exec_run(["sh", "-c", "echo precious >/data/rows"])
    browser = pages.open()
    browser.do("show", "ucidockd.backups", {"backups": []}, "follow")
    assert "not made yet" in browser.text()
    began = box.get("db").attrs["State"]["StartedAt"]

    # what stops is named first; the keyboard is in the dialogue and comes back from it
    browser.do("click", "Back up now")
    browser.until_text("These containers stop.*: db", "#modal")
    assert browser.do("evaluate", FOCUS) == "Back up now"
    press(browser, "Tab")
    assert browser.do("evaluate", FOCUS) == "Cancel", "the keyboard stays in the dialogue"
    press(browser, "Enter")
    browser.do("until", f"!{MODAL}.firstChild")
    assert browser.do("evaluate", FOCUS) == "Back up now"
    press(browser, "Enter")
    browser.do("until", f"{MODAL}.contains(document.activeElement)")
    press(browser, "Enter")
    browser.until_text("Succeeded")
    assert box.get("db").attrs["State"]["StartedAt"] != began
    (archive,) = tmp_path.glob("nightly-data-*.tar")

    # the copies, and one of them back
    browser.do("click", "Copies")
    assert archive.name in browser.until_text("verified")
    wait_for(lambda: running(box, "db"), 90)
    box.get("db").exec_run(["sh", "-c", "echo spoilt >/data/rows"])
    browser.do("click", "Restore")
    browser.until_text("stop for a moment and start again: db", "#modal")
    press(browser, "Enter")  # in the field for a new volume, which is empty
    browser.until_text("Volume data is restored")
    wait_for(lambda: running(box, "db"), 90)
    assert box.get("db").exec_run(["cat", "/data/rows"])[1] == b"precious\n"

    # as a new volume: nothing stops
    began = box.get("db").attrs["State"]["StartedAt"]
    browser.do("click", "Restore")
    browser.do("fill", "#modal input", "copy")
    press(browser, "Enter")
    browser.until_text("Volume copy is restored")
    assert box.get("db").attrs["State"]["StartedAt"] == began
    box.client.volumes.get("copy").remove()

    # a refusal is told in the dialogue, which stays
    browser.do("click", "Restore")
    browser.do("fill", "#modal input", "a b")
    press(browser, "Enter")
    browser.do("until", f"{MODAL}.querySelector('[role=alert]').textContent !== ''")

    # a damaged copy changes nothing, and its words are shown
    browser.do("evaluate", f"{MODAL}.querySelector('.right button').click()")
    archive.write_bytes(archive.read_bytes()[:600])
    browser.do("click", "Restore")
    browser.do("until", f"{MODAL}.contains(document.activeElement)")
    press(browser, "Enter")
    browser.until_text("was not restored.*sha256")
    assert box.get("db").exec_run(["cat", "/data/rows"])[1] == b"precious\n"
