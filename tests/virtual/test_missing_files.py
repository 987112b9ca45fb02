# SPDX-License-Identifier: GPL-2.0-or-later
"""A section names a file that does not exist yet, for example on a disk that is not mounted: the section waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import PathAwayError
from agent.files.user_paths import PATHS
from tests.support.virtual.world import World

WEB = """
config container 'web'
	option image 'app:1'
	option command 'sleep 100000'
	option stop_timeout '0'
	option gate '1'
	{line}
"""
SHARED = WEB.format(line="option stack 'media'") + "\nconfig stack 'media'\n\t{line}\n"


def waits(world: World) -> str:
    """What web waits for; the section itself is valid."""
    found = {r["key"]: {c["type"]: c for c in r["conditions"]} for r in world.snapshot()["resources"]}
    conditions = found["container:web"]
    assert conditions["Accepted"]["status"]
    waiting = conditions.get("Waiting")
    return str(waiting["message"]) if waiting and waiting["status"] else ""


@pytest.mark.parametrize(
    ("template", "option", "content", "other"),
    [
        (WEB, "list env_file '{path}'", "A=1\n", "A=2\n"),
        (WEB, "list security_opt 'seccomp={path}'", '{"defaultAction": "1"}', '{"defaultAction": "2"}'),
        (SHARED, "list env_file '{path}'", "A=1\n", "A=2\n"),
    ],
    ids=["env_file", "seccomp", "stack"],
)
def test_it_waits_for_its_file_and_what_runs_goes_on(
    world: World, tmp_path: Path, template: str, option: str, content: str, other: str
) -> None:
    file = tmp_path / "disk" / "file"
    text = template.format(line=option.format(path=file))
    world.declare(text)
    assert waits(world).startswith(option.split()[1]) and str(file) in waits(world)
    assert world.engine.find("web") is None

    file.parent.mkdir()
    file.write_text(content)
    world.rest(70)  # the next resync sees it
    made = world.engine.find("web")
    assert waits(world) == "" and made is not None and made.state == "running"

    away = file.rename(tmp_path / "away")
    world.declare(text + "\toption grace '1'\n" * ("stack" not in text))
    assert str(file) in waits(world)
    world.crash("web")
    world.rest(70)
    same = world.engine.find("web")  # it is kept as it was last applied
    assert same is not None and (same.id, same.state) == (made.id, "running")

    away.rename(file)
    world.rest(70)
    same = world.engine.find("web")
    assert waits(world) == "" and same is not None and same.id == made.id

    file.write_text(other)
    world.declare(text + "\n")
    fresh = world.engine.find("web")
    assert fresh is not None and fresh.id != made.id


def test_of_what_runs_nothing_is_said_to_differ_while_the_file_is_away(world: World, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("A=1\n")
    text = WEB.format(line=f"list env_file '{file}'")
    world.declare(text)
    file.unlink()
    world.declare(text + "\n")
    found = {r["key"]: {c["type"]: c for c in r["conditions"]} for r in world.snapshot()["resources"]}
    assert found["container:web"]["Synced"]["status"]


@pytest.mark.parametrize("content", ["no name here\n", "\xff"])
def test_what_is_in_a_file_is_a_mistake_all_the_same(world: World, tmp_path: Path, content: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content.encode("latin-1"))
    world.declare(WEB.format(line=f"list env_file '{file}'"))
    found = {r["key"]: {c["type"]: c for c in r["conditions"]} for r in world.snapshot()["resources"]}
    assert not found["container:web"]["Accepted"]["status"]


def test_what_cannot_be_opened_may_be_later(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "none" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(PathAwayError):
            PATHS.read_text(str(path))


@pytest.mark.parametrize("damage", ["torn", "too big"])
@pytest.mark.parametrize("known", [True, False], ids=["known before", "at a start"])
def test_a_dockerd_file_that_cannot_be_read_costs_only_its_settings(
    world: World, damage: str, known: bool
) -> None:
    file = world.config / "dockerd"
    text = "config globals 'globals'\n\toption log_driver 'local'\n"
    text += "\nconfig auth\n\toption serveraddress 'r.example'\n\toption username 'me'\n\toption password 'p4ss'\n"
    file.write_text(text)
    if known:
        world.declare(WEB.format(line=""))
    damaged = text + "\toption x 'open\n" if damage == "torn" else "\0" * (9 << 20)
    if not known:
        world.kill_agent()
    file.write_text(damaged)
    world.declare(WEB.format(line="option memory '64m'"))
    world.rest(20)
    web = world.engine.find("web")
    assert web is not None and web.state == "running"
    assert world.agent is not None
    desired, agent = world.agent.reconciler.desired, world.snapshot()["agent"]
    assert desired is not None and desired.daemon is not None
    assert (desired.daemon.values.get("log-driver") == "local") is known, "what it said before is in force"
    assert bool(desired.auths) is (known or damage == "torn")
    assert agent["config"] == "PartlyInvalid"
    assert any("config/dockerd" in text for text in agent["config_issues"])
    assert "/etc/config/dockerd cannot be read" in world.plan_text()
