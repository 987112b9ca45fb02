# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports and addresses that go from hand to hand: who goes first, who waits, who stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from agent.plan import operations as ops
from agent.plan.container.image import attempt_of
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


PORT_IS_B = "host port 8080/tcp is container:bb's"
ROWS: dict[str, Row] = {
    "who gives a port up goes before who takes it": Row(
        box("aa") + box("bb", OLD), box("aa", OLD) + box("bb"), ("replace aa < bb", "replace bb")
    ),
    "so it is with an address": Row(
        LAN + box("aa", "list network 'lan'") + box("bb", NINE),
        LAN + box("aa", NINE) + box("bb", "list network 'lan'"),
        ("reconnect aa < bb", "reconnect bb"),
    ),
    "and with an address of version 6": Row(
        LAN + box("aa", "list network 'lan'") + box("bb", "list network 'lan,ip6=fd01::9'"),
        LAN + box("aa", "list network 'lan,ip6=fd01::9'") + box("bb", "list network 'lan'"),
        ("reconnect aa < bb", "reconnect bb"),
    ),
    "and with a MAC address": Row(
        LAN
        + box("aa", "list network 'lan'")
        + box("bb", "list network 'lan'", "option mac_address '02:00:00:00:00:09'"),
        LAN
        + box("aa", "list network 'lan'", "option mac_address '02:00:00:00:00:09'")
        + box("bb", "list network 'lan'"),
        ("replace aa < bb", "replace bb"),
    ),
    "a port goes to a section that is new": Row(
        box("bb", OLD), box("aa", OLD) + box("bb"), ("create aa < bb", "start aa < bb", "replace bb")
    ),
    "a port of a section that is gone": Row(
        box("bb", OLD), box("aa", OLD), ("create aa < bb", "start aa < bb", "retire bb")
    ),
    "a port of a section that is stopped": Row(
        box("aa") + box("bb", OLD),
        box("aa", OLD) + box("bb", OLD, "option state 'stopped'").replace("8080", "8082"),
        ("replace aa < bb", "replace bb"),
    ),
    "a port of what was left running after its grace period": Row(
        box("bb", OLD),
        box("aa", OLD),
        ("create aa < bb", "start aa < bb", "remove bb"),
        change=lambda w: w.record("bb", removed_at=NOW - 999),
    ),
    "a row of three, from hand to hand": Row(
        box("aa", OLD) + box("bb", NEW) + box("cc"),
        box("aa") + box("bb", OLD) + box("cc", NEW),
        ("replace aa", "replace bb < aa", "replace cc < bb"),
    ),
    "one protocol is not the other": Row(
        box("aa") + box("bb", "list port '8080:80/udp'"),
        box("aa", OLD) + box("bb"),
        ("replace aa", "replace bb"),
    ),
    "one address of the host is not the other": Row(
        box("aa") + box("bb", "list port '127.0.0.1:8080:80'"),
        box("aa", "list port '127.0.0.2:8080:80'") + box("bb"),
        ("replace aa", "replace bb"),
    ),
    "all addresses of the host are each of them": Row(
        box("aa") + box("bb", "list port '127.0.0.1:8080:80'"),
        box("aa", OLD) + box("bb"),
        ("replace aa < bb", "replace bb"),
    ),
    "one address of two networks is two": Row(
        LAN + LAN.replace("lan", "dmz") + box("aa", "list network 'dmz'") + box("bb", NINE),
        LAN
        + LAN.replace("lan", "dmz")
        + box("aa", NINE.replace("lan", "dmz"))
        + box("bb", "list network 'lan'"),
        ("reconnect aa", "reconnect bb"),
    ),
    "one that does not run has nothing": Row(
        box("aa") + box("bb", OLD),
        box("aa", OLD) + box("bb"),
        ("replace aa", "replace bb"),
        change=exited("bb"),
    ),
    "an exchange: one stops first": Row(
        box("aa", OLD) + box("bb", NEW),
        box("aa", NEW) + box("bb", OLD),
        ("stop aa", "replace bb < aa"),
        (("aa", "host port 8080/tcp goes to container:bb first"),),
    ),
    "an exchange whose first half is done": Row(
        box("aa", OLD) + box("bb", NEW),
        box("aa", NEW) + box("bb", OLD),
        ("replace aa < bb", "replace bb"),
        change=exited("aa"),
    ),
    "an exchange whose other half failed: the old ones run": Row(
        box("aa", OLD) + box("bb", NEW),
        box("aa", NEW) + box("bb", OLD),
        ("start aa",),
        (("aa", "host port 8081/tcp is container:bb's"),),
        both(exited("aa"), failed("bb")),
    ),
    "an exchange of three": Row(
        box("aa", OLD) + box("bb", NEW) + box("cc", "list port '8082:80'"),
        box("aa", NEW) + box("bb", "list port '8082:80'") + box("cc", OLD),
        ("stop aa", "replace bb < cc", "replace cc < aa"),
        (("aa", "host port 8080/tcp goes to container:cc first"),),
    ),
    "an exchange of addresses": Row(
        LAN + box("aa", NINE) + box("bb", TEN),
        LAN + box("aa", TEN) + box("bb", NINE),
        ("stop aa", "reconnect bb < aa"),
        (("aa", "address 10.1.0.9 goes to container:bb first"),),
    ),
    "who gives depends on who takes": Row(
        box("aa") + box("bb", OLD, "list depends_on 'aa'"),
        box("aa", OLD) + box("bb", "list depends_on 'aa'"),
        ("replace aa < bb", "stop bb"),
        (("bb", "host port 8080/tcp goes to container:aa first"),),
    ),
    "what who takes has to do before who gives may change": Row(
        LAN + box("aa", NINE, "option restart 'no'") + box("bb", NINE, "list depends_on 'aa:completed'"),
        LAN + box("aa", NINE, "option restart 'no'") + box("bb", "list depends_on 'aa:completed'"),
        ("start aa < bb", "stop bb"),
        (("bb", "address 10.1.0.9 goes to container:aa first"),),
        exited("aa"),
    ),
    "but what was refused keeps what it has": Row(
        LAN + box("aa", NINE, "option restart 'no'") + box("bb", NINE, "list depends_on 'aa:completed'"),
        LAN + box("aa", NINE, "option restart 'no'") + box("bb", "list depends_on 'aa:completed'"),
        (),
        (("aa", "address 10.1.0.9 is container:bb's"),),
        both(exited("aa"), lambda w: w.context.update(backoff={"container:bb": "no such image"})),
    ),
    "who would take what another keeps waits, and runs on": Row(
        box("aa") + box("bb", OLD),
        box("aa", OLD) + box("bb", "option user 'nobody'"),
        (),
        (("aa", PORT_IS_B),),
        failed("bb"),
    ),
    "and is started again as it was": Row(
        box("aa") + box("bb", OLD),
        box("aa", OLD) + box("bb", "option user 'nobody'"),
        ("start aa",),
        (("aa", PORT_IS_B),),
        both(exited("aa"), failed("bb")),
    ),
    "but not with what another takes at this moment": Row(
        box("aa", OLD) + box("bb", NEW),
        box("aa", NEW) + box("bb", OLD),
        (),
        (("aa", "host port 8080/tcp is container:bb's"),),
        both(exited("aa"), lambda w: w.context.update(busy=frozenset({"container:bb"}))),
    ),
    "an earlier plan is at who gives": Row(
        box("aa") + box("bb", OLD),
        box("aa", OLD) + box("bb"),
        (),
        (("aa", PORT_IS_B),),
        lambda w: w.context.update(busy=frozenset({"container:bb"})),
    ),
    "an earlier plan is at who takes": Row(
        box("aa") + box("bb"),
        box("aa", OLD) + box("bb", NEW),
        ("replace bb",),
        change=lambda w: w.context.update(busy=frozenset({"container:aa"})),
    ),
    "who gives is in back-off": Row(
        box("aa") + box("bb", OLD),
        box("aa", OLD) + box("bb"),
        (),
        (("aa", PORT_IS_B),),
        lambda w: w.context.update(backoff={"container:bb": "no such image"}),
    ),
    "who gives has an error in its section": Row(
        box("aa") + box("bb", OLD),
        box("aa", OLD),
        (),
        (("aa", PORT_IS_B),),
        lambda w: setattr(w, "desired", replace(w.desired, broken=frozenset({"container:bb"}))),
    ),
    "of two that take one address the first in order gets it": Row(
        LAN,
        LAN + box("aa", NINE) + box("bb", NINE),
        ("create aa", "start aa"),
        (("bb", "address 10.1.0.9 is container:aa's"),),
    ),
    "what is declared stopped takes nothing": Row(
        LAN,
        LAN + box("aa", NINE, "option state 'stopped'") + box("bb", NINE),
        ("create aa", "create bb", "start bb"),
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


def test_who_takes_a_fixed_address_starts_before_those_who_get_any() -> None:
    """Unless it needs one of them, or is pulled first; nobody fails because it does."""
    free, later = "list network 'lan'", "list depends_on 'aa'"
    after = LAN + box("aa", free) + box("bb", NINE) + box("cc", TEN, later) + box("dd", free)
    plan = a_world(LAN, after).plan()
    order = {work.key.removeprefix("container:"): work for work in plan.works}
    names = {
        name: sorted(key.removeprefix("container:") for key in work.after) for name, work in order.items()
    }
    assert names == {"aa": ["bb"], "bb": [], "cc": [], "dd": ["bb", "cc"]}
    assert order["dd"].needs == frozenset()
    missing = a_world(LAN, after, lambda world: world.context.update(image_ids={"x": ""})).plan()
    assert all(work.after == frozenset() for work in missing.works)
