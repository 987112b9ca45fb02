# SPDX-License-Identifier: GPL-2.0-or-later
"""What plans look like on terminals of 40, 80 and 200 columns and in a pipe: tests/data/cli/plan-*.txt.

After a change of the words: `python -m tests.cli.test_plan_view` writes the files anew, to be read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cli.output import Style, wrapped
from agent.cli.plan import NOTHING, plan_view
from agent.plan.description import STATES, PendingResource, PlanDescription
from agent.plan.operations import ChangeDaemon
from agent.runtime.requests.planning import plan_answer
from agent.status.conditions import Level
from tests.support.plans import a_world

FOLDER = Path(__file__).parents[1] / "data" / "cli"
WIDTHS = (0, 40, 80, 200)
ESC = "\x1b"


def section(kind: str, name: str, *lines: str) -> str:
    return f"config {kind} '{name}'\n" + "".join(f"\t{line}\n" for line in lines)


LONG = "option command 'sh -c \"while true; do echo something that needs more than a line; sleep 60; done\"'"
BEFORE = (
    section("network", "front", "list subnet '10.215.7.0/24'")
    + section(
        "container",
        "web",
        "option image 'nginx:1.26'",
        "list network 'front'",
        "list port '8080:80'",
        "list port '8081:81'",
        "list env 'PW=a'",
        "list env 'OLD=1'",
        "option command 'sleep 60'",
        "list label 'api_key=a'",
    )
    + section("container", "db", "option image 'postgres'", "option memory '64m'", "option restart 'no'")
    + section("container", "gone", "option image 'x'")
    + section("container", "vpn", "option image 'vpn'", "option user '1'")
    + section("container", "app", "option image 'app'", "option network_mode 'service:vpn'")
    + section("container", "off", "option image 'off'")
)
AFTER = (
    section("network", "front", "list subnet '10.215.8.0/24'")
    + section(
        "container",
        "web",
        "option image 'nginx:1.27'",
        "list network 'front'",
        "list port '8080:80'",
        "list port '8443:443'",
        "list port '53:53/udp'",
        "list env 'PW=b'",
        "list env 'NEW=1'",
        LONG,
        "list label 'api_key=b'",
    )
    + section("container", "db", "option image 'postgres'", "option memory '128m'", "option restart 'always'")
    + section(
        "container", "new", "option image 'new'", "list port '7000-7100:80-180'", "list env 'PW=S3CRET'"
    )
    + section("container", "vpn", "option image 'vpn'")
    + section("container", "app", "option image 'app'", "option network_mode 'service:vpn'")
    + section("container", "off", "option image 'off'", "option state 'stopped'")
    + section("volume", "data")
)
ENTRIES = (
    PendingResource(
        key="container:later", state="then", op="create", level=Level.WAITING, message="once db is healthy"
    ),
    PendingResource(
        key="container:big",
        state="in progress",
        level=Level.WAITING,
        message="pulling registry.local/big:1: 45 %",
    ),
    PendingResource(
        key="container:disk", state="waiting", level=Level.WAITING, message="nothing is mounted on /mnt/sda1"
    ),
    PendingResource(
        key="container:old",
        state="removal",
        level=Level.OFF,
        message="section removed; the container will be deleted 120 s later",
    ),
    PendingResource(key="container:hand", state="held", level=Level.OFF, message="stop by hand"),
    PendingResource(
        key="container:bad", state="retry", level=Level.ERROR, message="no such image", retry_in_s=39.2
    ),
    PendingResource(
        key="container:dns", state="conflict", level=Level.ERROR, message="a container named dns exists"
    ),
)


def everything() -> dict[str, Any]:
    """A plan with one of each kind."""
    plan = a_world(BEFORE, AFTER).plan()
    before = (
        ChangeDaemon(key="daemon:dockerd", cause="log-driver changed; no container stops", step="restart"),
    )
    return plan_answer(PlanDescription(plan=plan, entries=ENTRIES, before=before), [])


def drawn(width: int) -> str:
    return (
        plan_view(
            everything(), Style(colours=False, width=width), next_step="`ucidockd reconcile` applies this."
        )
        + "\n"
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plan_reads_well_at_every_width(width: int) -> None:
    text = drawn(width)
    assert text == (FOLDER / f"plan-{width or 'pipe'}.txt").read_text()
    assert "S3CRET" not in text
    assert all(line == line.rstrip() for line in text.split("\n"))
    if width:
        assert max(map(len, text.split("\n"))) < width


def test_a_plan_is_coloured_by_what_it_costs_and_carries_no_sequences_of_others() -> None:
    result = everything()
    result["operations"][0]["cause"] = f"x{ESC}[2J"
    text = plan_view(result, Style(colours=True, width=80))
    assert f"{ESC}[33m-/+{ESC}[0m container:web" in text
    assert f"{ESC}[32m  +{ESC}[0m container:new" in text
    assert f"{ESC}[31m  !{ESC}[0m container:dns" in text
    assert f"{ESC}[2J" not in text


@pytest.mark.parametrize("state", STATES)
def test_beside_any_state_a_plan_is_not_nothing(state: str) -> None:
    entry = PendingResource(key="container:x", state=state, op="create", level=Level.WAITING, message="why")
    described = PlanDescription(plan=a_world("", "").plan(), entries=(entry,))
    text = plan_view(plan_answer(described, []))
    assert text != NOTHING
    assert "container:x" in text
    assert "nothing to change" in text


def test_nothing_to_do_is_said_only_where_nothing_is_wrong() -> None:
    described = PlanDescription(plan=a_world("", "").plan(), entries=())
    assert plan_view(plan_answer(described, [])) == NOTHING
    assert plan_view(plan_answer(described, [{"severity": "error", "text": "x"}])) == ""


@pytest.mark.parametrize("width", [1, 10, 40])
def test_wrapped_text_loses_nothing(width: int) -> None:
    text = f"a {'b' * 100} about 14 s down, {'c d ' * 20}e"
    lines = wrapped(text, Style(colours=False, width=width), indent=4)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(len(line) <= max(width, 17) for line in lines)


if __name__ == "__main__":
    for each in WIDTHS:
        (FOLDER / f"plan-{each or 'pipe'}.txt").write_text(drawn(each))


def test_an_interrupted_reconcile_of_sixty_containers_names_a_few(capsys: pytest.CaptureFixture[str]) -> None:
    from agent.cli.plan import _say_it_continues

    _say_it_continues([f"container:c{number} (to start)" for number in range(60)])
    told = " ".join(capsys.readouterr().err.split())
    assert "container:c4 (to start) and 55 more. Nothing was undone" in told
    _say_it_continues(["container:web"])
    assert "continues with container:web. Nothing" in " ".join(capsys.readouterr().err.split())
