# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports and addresses that go from hand to hand: who goes first, who waits, who stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from agent.plan import operations as ops
from agent.plan.containers import attempt_of
from tests.support.plans import NOW, World, a_world

LAN = "config network 'lan'\n\tlist subnet '10.1.0.0/24'\n\tlist subnet 'fd01::/64'\n"
OLD, NEW = "list port '8080:80'", "list port '8081:80'"
NINE, TEN = "list network 'lan,ip=10.1.0.9'", "list network 'lan,ip=10.1.0.10'"


def box(section: str, *lines: str) -> str:
    return f"config container '{section}'\n\toption image 'x'\n" + "".join(f"\t{line}\n" for line in lines)


@dataclass(frozen=True)
class Row:
    """`plan`: `verb section < whom it waits for`, in order. `waits`: section -> why."""

    before: str
    after: str
    plan: tuple[str, ...]
    waits: tuple[tuple[str, str], ...] = ()
    change: Callable[[World], None] = lambda world: None


def failed(section: str) -> Callable[[World], None]:
    """Its change was rolled back."""

    def change(world: World) -> None:
        declared = next(c for c in world.desired.containers if c.section == section)
        world.record(section, failed_hash=attempt_of(declared, "sha256:x"))

    return change


def exited(*sections: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        for section in sections:
            world.see(section, state="exited", exit_code=137)

    return change


def both(one: Callable[[World], None], other: Callable[[World], None]) -> Callable[[World], None]:
    def change(world: World) -> None:
        one(world)
        other(world)

    return change


PORT_IS_B = "host port 8080/tcp is container:b's"
ROWS: dict[str, Row] = {
    "who gives a port up goes before who takes it": Row(
        box("a") + box("b", OLD), box("a", OLD) + box("b"), ("replace a < b", "replace b")
    ),
    "so it is with an address": Row(
        LAN + box("a", "list network 'lan'") + box("b", NINE),
        LAN + box("a", NINE) + box("b", "list network 'lan'"),
        ("reconnect a < b", "reconnect b"),
    ),
    "and with an address of version 6": Row(
        LAN + box("a", "list network 'lan'") + box("b", "list network 'lan,ip6=fd01::9'"),
        LAN + box("a", "list network 'lan,ip6=fd01::9'") + box("b", "list network 'lan'"),
        ("reconnect a < b", "reconnect b"),
    ),
    "and with a MAC address": Row(
        LAN
        + box("a", "list network 'lan'")
        + box("b", "list network 'lan'", "option mac_address '02:00:00:00:00:09'"),
        LAN
        + box("a", "list network 'lan'", "option mac_address '02:00:00:00:00:09'")
        + box("b", "list network 'lan'"),
        ("replace a < b", "replace b"),
    ),
    "a port goes to a section that is new": Row(
        box("b", OLD), box("a", OLD) + box("b"), ("create a < b", "start a < b", "replace b")
    ),
    "a port of a section that is gone": Row(
        box("b", OLD), box("a", OLD), ("create a < b", "start a < b", "retire b")
    ),
    "a port of a section that is stopped": Row(
        box("a") + box("b", OLD),
        box("a", OLD) + box("b", OLD, "option state 'stopped'").replace("8080", "8082"),
        ("replace a < b", "replace b"),
    ),
    "a port of what was left running after its grace period": Row(
        box("b", OLD),
        box("a", OLD),
        ("create a < b", "start a < b", "remove b"),
        change=lambda w: w.record("b", removed_at=NOW - 999),
    ),
    "a row of three, from hand to hand": Row(
        box("a", OLD) + box("b", NEW) + box("c"),
        box("a") + box("b", OLD) + box("c", NEW),
        ("replace a", "replace b < a", "replace c < b"),
    ),
    "one protocol is not the other": Row(
        box("a") + box("b", "list port '8080:80/udp'"),
        box("a", OLD) + box("b"),
        ("replace a", "replace b"),
    ),
    "one address of the host is not the other": Row(
        box("a") + box("b", "list port '127.0.0.1:8080:80'"),
        box("a", "list port '127.0.0.2:8080:80'") + box("b"),
        ("replace a", "replace b"),
    ),
    "all addresses of the host are each of them": Row(
        box("a") + box("b", "list port '127.0.0.1:8080:80'"),
        box("a", OLD) + box("b"),
        ("replace a < b", "replace b"),
    ),
    "one address of two networks is two": Row(
        LAN + LAN.replace("lan", "dmz") + box("a", "list network 'dmz'") + box("b", NINE),
        LAN
        + LAN.replace("lan", "dmz")
        + box("a", NINE.replace("lan", "dmz"))
        + box("b", "list network 'lan'"),
        ("reconnect a", "reconnect b"),
    ),
    "one that does not run has nothing": Row(
        box("a") + box("b", OLD),
        box("a", OLD) + box("b"),
        ("replace a", "replace b"),
        change=exited("b"),
    ),
    "an exchange: one stops first": Row(
        box("a", OLD) + box("b", NEW),
        box("a", NEW) + box("b", OLD),
        ("stop a", "replace b < a"),
        (("a", "host port 8080/tcp goes to container:b first"),),
    ),
    "an exchange whose first half is done": Row(
        box("a", OLD) + box("b", NEW),
        box("a", NEW) + box("b", OLD),
        ("replace a < b", "replace b"),
        change=exited("a"),
    ),
    "an exchange whose other half failed: the old ones run": Row(
        box("a", OLD) + box("b", NEW),
        box("a", NEW) + box("b", OLD),
        ("start a",),
        (("a", "host port 8081/tcp is container:b's"),),
        both(exited("a"), failed("b")),
    ),
    "an exchange of three": Row(
        box("a", OLD) + box("b", NEW) + box("c", "list port '8082:80'"),
        box("a", NEW) + box("b", "list port '8082:80'") + box("c", OLD),
        ("stop a", "replace b < c", "replace c < a"),
        (("a", "host port 8080/tcp goes to container:c first"),),
    ),
    "an exchange of addresses": Row(
        LAN + box("a", NINE) + box("b", TEN),
        LAN + box("a", TEN) + box("b", NINE),
        ("stop a", "reconnect b < a"),
        (("a", "address 10.1.0.9 goes to container:b first"),),
    ),
    "who gives depends on who takes": Row(
        box("a") + box("b", OLD, "list depends_on 'a'"),
        box("a", OLD) + box("b", "list depends_on 'a'"),
        ("replace a < b", "stop b"),
        (("b", "host port 8080/tcp goes to container:a first"),),
    ),
    "who would take what another keeps waits, and runs on": Row(
        box("a") + box("b", OLD),
        box("a", OLD) + box("b", "option user 'nobody'"),
        (),
        (("a", PORT_IS_B),),
        failed("b"),
    ),
    "and is started again as it was": Row(
        box("a") + box("b", OLD),
        box("a", OLD) + box("b", "option user 'nobody'"),
        ("start a",),
        (("a", PORT_IS_B),),
        both(exited("a"), failed("b")),
    ),
    "but not with what another takes at this moment": Row(
        box("a", OLD) + box("b", NEW),
        box("a", NEW) + box("b", OLD),
        (),
        (("a", "host port 8080/tcp is container:b's"),),
        both(exited("a"), lambda w: w.context.update(busy=frozenset({"container:b"}))),
    ),
    "an earlier plan is at who gives": Row(
        box("a") + box("b", OLD),
        box("a", OLD) + box("b"),
        (),
        (("a", PORT_IS_B),),
        lambda w: w.context.update(busy=frozenset({"container:b"})),
    ),
    "an earlier plan is at who takes": Row(
        box("a") + box("b"),
        box("a", OLD) + box("b", NEW),
        ("replace b",),
        change=lambda w: w.context.update(busy=frozenset({"container:a"})),
    ),
    "who gives is in back-off": Row(
        box("a") + box("b", OLD),
        box("a", OLD) + box("b"),
        (),
        (("a", PORT_IS_B),),
        lambda w: w.context.update(backoff={"container:b": "no such image"}),
    ),
    "who gives has an error in its section": Row(
        box("a") + box("b", OLD),
        box("a", OLD),
        (),
        (("a", PORT_IS_B),),
        lambda w: setattr(w, "desired", replace(w.desired, broken=frozenset({"container:b"}))),
    ),
    "of two that take one address the first in order gets it": Row(
        LAN,
        LAN + box("a", NINE) + box("b", NINE),
        ("create a", "start a"),
        (("b", "address 10.1.0.9 is container:a's"),),
    ),
    "what is declared stopped takes nothing": Row(
        LAN,
        LAN + box("a", NINE, "option state 'stopped'") + box("b", NINE),
        ("create a", "create b", "start b"),
    ),
}


def lines(plan: ops.Plan) -> tuple[str, ...]:
    found = []
    for work in plan.works:
        needs = "".join(
            f" < {key.removeprefix('container:')}" for key in sorted(work.needs) if key in _containers(plan)
        )
        found += [f"{o.verb} {o.key.removeprefix('container:')}{needs}" for o in work.operations]
    return tuple(found)


def _containers(plan: ops.Plan) -> set[str]:
    return {work.key for work in plan.works if work.key.startswith("container:")}


def waits(plan: ops.Plan) -> tuple[tuple[str, str], ...]:
    found = [f for f in plan.findings if f.type == "Waiting" and f.status]
    return tuple((f.key.removeprefix("container:"), f.message) for f in found)


@pytest.mark.parametrize("name", ROWS)
def test_from_hand_to_hand(name: str) -> None:
    row = ROWS[name]
    plan = a_world(row.before, row.after, row.change).plan()
    assert (lines(plan), waits(plan)) == (row.plan, row.waits)
