# SPDX-License-Identifier: GPL-2.0-or-later
"""What the status looks like on terminals of 40, 80 and 200 columns and in a pipe: tests/data/cli/status-*.txt.

After a change of the words: `python -m tests.cli.test_status_view` writes the files anew, to be read.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli.output import Style
from agent.cli.status import Picture, changes, page_of, picked
from agent.cli.view.status import STATES, is_in_state, problems_first, state_words, status_view
from agent.errors import ConfigError
from agent.status.board import StatusBoard
from agent.status.conditions import CONDITIONS, NOTES, ConditionType

FOLDER = Path(__file__).parents[1] / "data" / "cli"
WIDTHS = (0, 40, 80, 200)
ESC = "\x1b"
NOW = 100_000.0
AGENT = {"engine": {"reachable": True, "api": "1.41"}, "config": "Accepted", "desired_generation": "g"}
Said = tuple[bool, str, str]
RUNS: dict[str, Said] = {"Synced": (True, "InSync", ""), "Running": (True, "Running", "")}


def a_resource(
    key: str, *, name: str = "", since: float = NOW - 150, facts: Any = None, **said: Said
) -> dict[str, Any]:
    """As the agent's board shows it."""
    section = key.partition(":")[2]
    board = StatusBoard(lambda: since)
    board.ensure(key, name)
    board.set_object(key, "id-" + section)
    for each, (status, reason, message) in said.items():
        details = {"operations": "create start"} if reason == "Pending" else {}
        board.set(
            key,
            ConditionType(each),
            status=status,
            reason=reason,  # type: ignore[arg-type]
            message=message,
            details=details,
        )
    board.set_facts(key, **(facts or {}))
    return dict(board.snapshot()["resources"][0])


def image(name: str, *ports: str, restarts: int = 0, **more: Any) -> dict[str, Any]:
    return {"image": name, "ports": list(ports), "restarts": restarts, **more}


RESOURCES = [
    a_resource("container:web", facts=image("nginx:1.27", "8080:80", "8443:443"), **RUNS),
    a_resource(
        "container:db",
        name="my-postgres",
        since=NOW - 400_000,
        facts=image("registry.example.org/library/postgres:16", restarts=3),
        **{**RUNS, "Healthy": (True, "Healthy", "")},
    ),
    a_resource(
        "container:disk",
        Waiting=(True, "Waiting", "nothing is mounted on /mnt/sda1"),
        Running=(False, "Absent", ""),
        facts=image("busybox"),
    ),
    a_resource(
        "container:big",
        ImageReady=(False, "Pulling", "pulling registry.local/big:1: 45 %"),
        Synced=(False, "Pending", "declared, not there"),
        facts=image("registry.local/big:1"),
    ),
    a_resource(
        "container:old",
        Synced=(
            False,
            "RolledBack",
            "the new container exited with 3 after 0.2 s; the last change was rolled back",
        ),
        Degraded=(True, "RolledBack", "the new container exited with 3 after 0.2 s"),
        Running=(True, "Running", ""),
        facts=image("app:2"),
    ),
    a_resource(
        "container:nope",
        Synced=(False, "BackOff", "cannot pull nope:1: no such image"),
        Running=(False, "Absent", ""),
        facts=image("nope:1", retry_at=NOW + 40),
    ),
    a_resource(
        "container:loops",
        Synced=(True, "InSync", ""),
        Running=(False, "CrashLoop", "exited with 4"),
        facts=image("app:2", restarts=33),
    ),
    a_resource("container:dns", Synced=(False, "Conflict", f"a container named dns exists {ESC}[31mhere")),
    a_resource(
        "container:hand",
        Synced=(False, "Held", "stop by hand; reconcile takes it back"),
        Running=(False, "Exited", "exited with 137"),
        facts=image("app:2"),
    ),
    a_resource(
        "container:priv",
        **RUNS,
        HostControl=(True, "Privileged", "privileged: it can take control of the router"),
        facts=image("ha:1"),
    ),
    a_resource(
        "container:job", Synced=(True, "InSync", ""), Running=(False, "Completed", ""), facts=image("job")
    ),
    a_resource("container:next", Synced=(False, "Pending", "declared, not there"), facts=image("next")),
    a_resource("network:lan", Synced=(True, "InSync", "")),
    a_resource("volume:data", Synced=(False, "VolumeDiffers", "a volume cannot change")),
]
STATUS: dict[str, Any] = {"agent": {**AGENT, "generation": "g"}, "resources": RESOURCES}


def drawn(width: int) -> str:
    return status_view(STATUS, Style(colours=False, width=width), now=NOW) + "\n"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_status_reads_well_at_every_width(width: int) -> None:
    text = drawn(width)
    assert text == (FOLDER / f"status-{width or 'pipe'}.txt").read_text()
    assert ESC not in text
    assert all(line == line.rstrip() for line in text.split("\n"))
    if width:
        assert max(map(len, text.split("\n"))) < width


@pytest.mark.parametrize("columns", range(20, 200, 9))
@pytest.mark.parametrize("number", [0, 1, 60])
def test_no_line_is_longer_than_the_terminal(columns: int, number: int) -> None:
    resources = [
        a_resource(f"container:{'x' * i}", facts=image("i" * i, "80:80"), **RUNS)
        for i in range(1, number + 1)
    ]
    lines = status_view(
        {**STATUS, "resources": resources}, Style(colours=False, width=columns), now=NOW
    ).split("\n")
    assert max(map(len, lines)) < columns
    if not number:
        assert "No section is declared" in " ".join(lines)


@pytest.mark.parametrize("kind", CONDITIONS)
def test_what_is_wrong_is_said_whatever_it_is(kind: ConditionType) -> None:
    row = CONDITIONS[kind]
    said: dict[str, Said] = {"Synced": (True, "Applied", ""), "Running": (True, "Running", "")}
    said[kind.value] = (row.bad, "Unhealthy" if kind is ConditionType.HEALTHY else "Failed", "the reason")
    words = state_words(a_resource("container:web", **said), NOW)
    expected = {"Running": "failed", "Healthy": "running, unhealthy"}
    expected |= {note.value: CONDITIONS[note].label.lower() for note in NOTES}
    assert expected.get(kind.value, "the reason") in words


def test_what_waits_says_for_what_whatever_else_there_is_to_say_of_it() -> None:
    said: dict[str, Said] = {
        "Waiting": (True, "Waiting", "nothing is mounted on /mnt/sda1"),
        "Running": (False, "Unknown", ""),
        "PublicPort": (True, "Public", "port 8080 is open to wan"),
    }
    words = state_words(a_resource("container:web", **said), NOW)
    assert words == "waiting: nothing is mounted on /mnt/sda1", "the warning is about what it will be"
    said["Waiting"] = (False, "Ready", "")
    said["Running"] = (False, "Disabled", "")
    assert state_words(a_resource("container:web", **said), NOW) == "disabled; port 8080 is open to wan"


def test_the_agent_the_engine_and_the_configuration_have_their_say() -> None:
    agent = {
        "engine": {"reachable": False, "error": f"no {ESC}[2J"},
        "config": "Invalid",
        "config_issues": ["line 3: x"],
    }
    text = status_view({"agent": agent, "resources": []}, now=NOW)
    assert "The engine is not reachable: no \\x1b[2J" in text
    assert "`ucidockd check` lists every mistake" in text
    assert "  line 3: x" in text


def test_states_are_coloured_by_their_level() -> None:
    text = status_view(STATUS, Style(colours=True, width=200), now=NOW)
    assert f"{ESC}[32mrunning, healthy" in text
    assert f"{ESC}[31mrunning; rolled back" in text
    assert f"{ESC}[33mwaiting: nothing is mounted" in text


def asked(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"names": [], "stack": "", "state": None, "problems": False, **given})


def test_filters_leave_what_they_name() -> None:
    def keys(**given: Any) -> list[str]:
        return [r["section"] for r in picked(STATUS, asked(**given))["resources"]]

    assert keys(names=["web", "my-postgres", "network:lan"]) == ["web", "db", "lan"]
    assert keys(state="failed") == ["old", "nope", "loops", "dns"]
    assert keys(state="waiting") == ["disk", "big", "next", "data"]
    assert keys(state="warning") == ["priv"]
    assert keys(state="running") == ["web", "db", "old", "priv"]
    assert keys(state="stopped", names=["hand", "web"]) == ["hand"]
    assert keys(problems=True)[:4] == ["old", "nope", "loops", "dns"]
    with pytest.raises(ConfigError, match=r"wbe: no section .* did you mean web"):
        keys(names=["wbe"])
    assert {state for state in STATES for r in RESOURCES if is_in_state(r, state)} == set(STATES)
    assert problems_first([]) == []


def test_a_long_status_is_paged_and_keeps_its_head() -> None:
    resources = [a_resource(f"container:c{i:02}", facts=image("x"), **RUNS) for i in range(60)]
    many, style = {**STATUS, "resources": resources}, Style(colours=False, width=80)
    seen: list[str] = []
    for page in range(3):
        text, at = page_of(many, style, rows=24, page=page, now=NOW)
        lines = text.split("\n")
        assert (at, len(lines)) == (page, min(24, 3 + 60 - 21 * page))
        assert lines[0] == "60 in sync"
        assert lines[1].startswith("NAME")
        assert lines[-1] == f"page {page + 1} of 3; space: next, b: back, q: end"
        seen += [line.split()[0] for line in lines[2:-1]]
    assert seen == [f"c{i:02}" for i in range(60)]
    assert page_of(many, style, rows=24, page=9, now=NOW)[1] == 2
    assert page_of(many, style, rows=24, page=-1, now=NOW)[1] == 0


def test_a_watcher_in_a_pipe_sees_one_line_per_change() -> None:
    picture = Picture()
    assert picture.take({"version": 1, **STATUS})
    before = picture.words()
    picture.take({"id": 2, "key": "container:big", "resource": a_resource("container:big", **RUNS)})
    picture.take({"id": 3, "key": "network:lan", "removed": True})
    picture.take(
        {"id": 4, "key": "agent", "agent": {**AGENT, "engine": {"reachable": False, "error": "gone"}}}
    )
    assert [line for _, line in changes(before, picture.words())] == [
        "agent: engine not reachable: gone; configuration Accepted",
        "container:big: running",
        "network:lan: removed",
    ]
    json.dumps(picture.status())


if __name__ == "__main__":
    for each in WIDTHS:
        (FOLDER / f"status-{each or 'pipe'}.txt").write_text(drawn(each))


def test_waiting_for_all_is_over_where_nothing_is_left_to_be_done() -> None:
    """Neither a removed section's container, which is deleted later, nor what is used only now and then."""
    from agent.cli import actions

    left: dict[str, Said] = {"Synced": (False, "Grace", "section removed"), "Running": (False, "Exited", "")}
    resources = [
        {**a_resource("container:old", **left), "level": "off"},
        a_resource("notify:phone"),
        a_resource("backup:nightly"),
        a_resource("container:web", Synced=(False, "Pending", "to be replaced")),
    ]
    assert list(actions.out_of_sync({"agent": {}, "resources": resources}, [])) == ["container:web"]


def test_a_filter_that_nothing_matches_does_not_say_that_nothing_is_declared() -> None:
    args = argparse.Namespace(names=[], stack="", state="failed", problems=False)
    fine = {**STATUS, "resources": [a_resource("container:web", **RUNS)]}
    assert "No section is in this state." in status_view(picked(fine, args))
    args = argparse.Namespace(names=[], stack="nope", state="", problems=False)
    with pytest.raises(ConfigError, match="no section is in the stack nope"):
        picked(fine, args)
