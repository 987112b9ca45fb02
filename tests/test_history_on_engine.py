# SPDX-License-Identifier: GPL-2.0-or-later
"""Earlier settings of a container on a real engine: kept once they run, and gone back to."""

from __future__ import annotations

import pytest

from agent.errors import ConfigError, ConflictError
from agent.runtime.requests.versions import earlier_versions
from tests.support.box import Box

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.5'
"""
OTHER = """
config container 'other'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	list port '127.0.0.1:18556:80'
"""


def numbers(box: Box, name: str = "web") -> list[int]:
    return [row["number"] for row in earlier_versions(box.reconciler).show(name)["versions"]]


def settle(box: Box, text: str | None = None) -> None:
    box.apply(text)
    box.apply()


@pytest.mark.long
def test_settings_that_ran_are_gone_back_to(box: Box) -> None:
    settle(box, WEB + "\toption memory '64m'\n\tlist env 'DB_PASSWORD=S3CRET'\n")
    settle(box, WEB + "\toption memory '32m'\n")
    settle(
        box, WEB.replace("sleep 1000", "false") + "\toption grace '5'\n"
    )  # it is rolled back: it never ran
    box.restart_agent()
    settle(box)
    shown = earlier_versions(box.reconciler).show("web")
    assert [(row["number"], row["changed"], row["is_now"]) for row in shown["versions"]] == [
        (2, ["env", "memory"], False),
        (1, [], False),
    ]
    assert "+\toption memory '64m'" in shown["versions"][1]["diff"]
    with pytest.raises(ConfigError, match="version 3 is not kept"):
        earlier_versions(box.reconciler).go_back("web", 3, commit=True)
    before = (box.config / "containers").read_text()
    assert not earlier_versions(box.reconciler).go_back("web", 1, commit=False)["committed"]
    assert (box.config / "containers").read_text() == before

    earlier_versions(box.reconciler).go_back("web", 1, commit=True)
    settle(box)
    attrs = box.get("web").attrs
    assert attrs["HostConfig"]["Memory"] == 64 << 20
    assert "DB_PASSWORD=S3CRET" in attrs["Config"]["Env"]
    assert numbers(box) == [3, 2, 1]
    rows = earlier_versions(box.reconciler).show("web")["versions"]
    assert [(row["is_now"], row["diff"]) for row in rows if row["number"] != 2] == [(True, []), (False, [])]
    told = str(box.reconciler.board.snapshot()) + (box.options.state_dir / "state.json").read_text()
    assert "S3CRET" not in told


@pytest.mark.long
def test_what_does_not_fit_any_more_is_refused_and_a_removed_section_takes_its_history_along(
    box: Box,
) -> None:
    settle(box, WEB + "\tlist port '127.0.0.1:18556:80'\n")
    settle(box, WEB + OTHER)
    before = (box.config / "containers").read_text()
    with pytest.raises(ConflictError, match="18556"):
        earlier_versions(box.reconciler).go_back("web", 1, commit=True)
    assert (box.config / "containers").read_text() == before

    settle(box, WEB.replace("'web'", "'site'") + "\toption name 'web'\n" + OTHER)  # the section is renamed
    assert numbers(box) == numbers(box, "site") == [3, 2, 1]
    with pytest.raises(ConfigError, match="no container section"):
        earlier_versions(box.reconciler).show("gone")

    settle(box, OTHER)
    box.later(200)
    settle(box)
    assert box.names() == ["other"]
    assert [path.name for path in (box.options.state_dir / "history").iterdir()] == ["other.json"]
