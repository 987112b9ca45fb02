# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever sections take from each other in one commit: there is an order, and what has none costs nobody else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent.plan import operations as ops
from agent.plan import reconcile as planning
from agent.plan.container.image import attempt_of
from agent.plan.draft import Draft, Missing
from agent.uci.decode import decode
from agent.uci.syntax import parse
from tests.support.plans import World, a_world

NETWORK = "config network 'lan'\n\tlist subnet '10.1.0.0/24'\n\n"
SECTIONS = ("aa", "bb", "cc", "dd")
STATES = ("running", "running", "exited", "paused")


def a_file(dice: random.Random) -> str:
    """Sections that have each other's names, ports and addresses, and share namespaces with each other."""
    names, ports = dice.sample(("na", "nb", "nc", "nd"), 4), dice.sample(range(8080, 8084), 4)
    addresses = dice.sample(range(2, 6), 4)
    text = NETWORK
    for number, section in enumerate(SECTIONS):
        if dice.random() < 0.1:
            continue
        other = dice.choice(SECTIONS)
        text += f"config container '{section}'\n\toption image 'x'\n\toption name '{names[number]}'\n"
        kind = dice.randrange(4)
        if kind == 0 and other != section:
            text += f"\toption network_mode 'service:{other}'\n"
        elif kind < 3:
            text += f"\tlist network 'lan,ip=10.1.0.{addresses[number]}'\n"
        if kind:
            text += f"\tlist port '{ports[number]}:80'\n"
        if dice.random() < 0.3 and other != section:
            text += f"\tlist depends_on '{other}'\n"
        if dice.random() < 0.2:
            text += "\toption state 'stopped'\n"
    return text


def is_right(text: str) -> bool:
    found = decode({"containers": parse(text, package="containers")}, paths={})
    return not [issue for issue in found.issues if issue.severity == "error"]


def a_right_file(dice: random.Random) -> str:
    while not is_right(text := a_file(dice)):
        pass
    return text


def upset(world: World, dice: random.Random) -> None:
    for section in list(world.containers):
        world.see(section, state=dice.choice(STATES), exit_code=137)
        if dice.random() < 0.1:
            declared = next((c for c in world.desired.containers if c.section == section), None)
            if declared is not None:
                world.record(section, failed_hash=attempt_of(declared, "sha256:x"))
    keys = [f"container:{section}" for section in SECTIONS]
    some = frozenset(key for key in keys if dice.random() < 0.1)
    world.context |= {
        "busy": some,
        "backoff": {key: "no such image" for key in keys if dice.random() < 0.1},
        "changing": frozenset(key for key in keys if dice.random() < 0.5),
    }


def orders(plan: ops.Plan) -> list[str]:
    """The keys as they can be worked on."""
    works, done = {work.key: work for work in plan.works}, list[str]()
    while ready := [k for k, w in works.items() if not (w.needs | w.after) & works.keys()]:
        done += ready
        for key in ready:
            del works[key]
    assert not works, f"these wait for each other: {sorted(works)}"
    return done


@pytest.mark.parametrize("seeds", [range(40), (113, 900, 1759, 1849, 2790)], ids=["sample", "found"])
def test_every_commit_has_an_order(seeds: Sequence[int]) -> None:
    for seed in seeds:
        dice = random.Random(seed)
        world = a_world(a_right_file(dice), a_right_file(dice))
        upset(world, dice)
        plan = world.plan()
        assert plan.defects == ()
        orders(plan)
        left = [f for f in plan.findings if f.reason == "Pending" and " goes to " in f.message]
        assert not left, f"seed {seed}: {left}"


def box(section: str, *lines: str) -> str:
    return f"config container '{section}'\n\toption image 'x'\n" + "".join(f"\t{line}\n" for line in lines)


def test_names_and_ports_are_exchanged_in_one_commit() -> None:
    before = box("aa", "option name 'na'", "list port '80:80'") + box(
        "bb", "option name 'nb'", "list port '81:80'"
    )
    after = box("aa", "option name 'nb'", "list port '81:80'") + box(
        "bb", "option name 'nc'", "list port '80:80'"
    )
    plan = a_world(before, after).plan()
    assert orders(plan) == ["container:bb", "container:aa"]
    assert [o.verb for o in plan.operations] == ["rename", "replace", "stop"]


OTHERS = box("cc") + box("dd", "option memory '64m'")


def test_works_that_wait_for_each_other_cost_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit is known that leads there."""

    def in_a_circle(draft: Draft) -> dict[str, Missing]:
        for one, other in (("container:aa", "container:bb"), ("container:bb", "container:aa")):
            if one in draft.works and other in draft.works:
                draft.works[one] = replace(draft.works[one], after=frozenset({other}))
        return {}

    monkeypatch.setattr(planning, "settle", in_a_circle)
    edited = [box(name, "option memory '64m'") for name in ("aa", "bb")]
    world = a_world(
        box("aa") + box("bb") + box("cc") + box("dd"),
        "".join(edited) + box("ee", "list depends_on 'aa'") + OTHERS,
    )
    plan = world.plan()
    assert orders(plan) == ["container:dd", "container:ee"]
    said = {f.key: f.message for f in plan.findings if f.reason == "Pending"}
    assert said == dict.fromkeys(
        ("container:aa", "container:bb"), "aa, bb wait for each other; change one after the other"
    )


def test_an_order_that_is_not_found_costs_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(draft: Draft) -> dict[str, Missing]:
        stop = Missing(reason="host port 80/tcp goes to container:bb first", stop=True)
        return {} if "container:aa" in draft.left else {"container:aa": stop}

    monkeypatch.setattr(planning, "settle", never)
    plan = a_world(box("aa") + box("cc") + box("dd"), box("aa", "option memory '64m'") + OTHERS).plan()
    assert orders(plan) == ["container:dd"]
    said = [f.message for f in plan.findings if (f.key, f.type) == ("container:aa", "Synced")]
    assert said == ["host port 80/tcp goes to container:bb first"]


@pytest.mark.parametrize("kind", ["container", "network", "volume"])
def test_a_defect_in_planning_one_costs_nobody_else(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(planning, f"plan_{kind}")

    def fails(draft: Draft, resource: Any) -> None:
        real(draft, resource)
        if resource.section == "aa":
            raise KeyError("surprise")

    monkeypatch.setattr(planning, f"plan_{kind}", fails)
    before = f"config {kind} 'aa'\n" + ("\toption image 'x'\n" if kind == "container" else "")
    using = {
        "container": "list depends_on 'aa'",
        "network": "list network 'aa'",
        "volume": "list volume 'aa:/a'",
    }[kind]
    plan = a_world(
        before + OTHERS.replace("memory", "cpus").replace("64m", "1"), before + box("bb", using) + OTHERS
    ).plan()
    assert [(key, repr(defect)) for key, defect in plan.defects] == [(f"{kind}:aa", "KeyError('surprise')")]
    assert "container:dd" in orders(plan)
    synced = [f for f in plan.findings if (f.key, f.type, f.status) == (f"{kind}:aa", "Synced", False)]
    assert [(f.reason, f.message) for f in synced] == [("Failed", "internal error (KeyError); see the log")]
