# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose subnet a declared one overlaps: another network's, the router's own; and what is no overlap."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agent.model.addresses import Route
from agent.model.observed import ObservedNetwork
from tests.support.plans import a_world

LAN = "config network 'apps'\n\tlist subnet '10.1.0.0/24'\n"
WEB = "config container 'web'\n\toption image 'x'\n\tlist network 'apps'\n"


@dataclass(frozen=True)
class Row:
    """What else there is, and what is said of it; "" where the network is made."""

    message: str
    network: tuple[str, str] = ("", "")  # name, subnet
    route: tuple[str, str, bool] = ("", "", True)  # device, subnet, without another router between
    text: str = LAN


ROWS: dict[str, Row] = {
    "the same": Row("subnet 10.1.0.0/24 overlaps 10.1.0.0/24 of the network dmz", ("dmz", "10.1.0.0/24")),
    "a part": Row("subnet 10.1.0.0/24 overlaps 10.1.0.128/25 of the network dmz", ("dmz", "10.1.0.128/25")),
    "the whole": Row("subnet 10.1.0.0/24 overlaps 10.0.0.0/8 of the network dmz", ("dmz", "10.0.0.0/8")),
    "its neighbour": Row("", ("dmz", "10.1.1.0/24")),
    "one of version 6": Row("", ("dmz", "fd01::/64")),
    "no subnet": Row("", ("dmz", "")),
    "the router's own": Row(
        "subnet 10.1.0.0/24 overlaps 10.1.0.0/16, which the router itself reaches through br-lan",
        route=("br-lan", "10.1.0.0/16", True),
    ),
    "a part of what lies behind another router": Row("", route=("wg0", "10.0.0.0/8", False)),
    "all of what lies behind another router": Row(
        "subnet 10.1.0.0/24 overlaps 10.1.0.64/26, which the router itself reaches through wg0",
        route=("wg0", "10.1.0.64/26", False),
    ),
    "its own bridge, left by an engine that was killed": Row("", route=("br-apps", "10.1.0.0/24", True)),
    "the LAN that a macvlan lies on": Row(
        "",
        route=("br-lan", "10.1.0.0/16", True),
        text=LAN + "\toption driver 'macvlan'\n\toption parent 'br-lan'\n",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_network_is_made_unless_its_subnet_is_taken(name: str) -> None:
    row = ROWS[name]
    world = a_world("", row.text + WEB)
    if row.network[0]:
        pools = [{"Subnet": row.network[1]}] if row.network[1] else []
        world.networks["x"] = ObservedNetwork(
            id="X", name=row.network[0], inspect={"IPAM": {"Config": pools}}
        )
    device, subnet, direct = row.route
    world.context["routes"] = (Route(device=device, subnet=subnet, direct=direct),) if device else ()
    plan = world.plan()
    said = [f.message for f in plan.findings if f.reason == "SubnetOverlaps"]
    assert said == ([row.message] if row.message else [])
    assert [work.key for work in plan.works] == ([] if row.message else ["network:apps", "container:web"])


def test_one_that_moves_into_a_taken_subnet_stays_and_who_is_on_it_is_started_again() -> None:
    world = a_world(LAN + WEB, LAN.replace("10.1", "10.2") + WEB)
    taken = {"IPAM": {"Config": [{"Subnet": "10.2.0.0/16"}]}}
    world.networks["dmz"] = ObservedNetwork(id="DMZ", name="dmz", inspect=taken)
    world.see("web", state="exited", exit_code=137)
    assert [(o.verb, o.key) for o in world.plan().operations] == [("start", "container:web")]


def test_a_change_within_its_own_subnet_is_no_overlap() -> None:
    world = a_world(LAN, LAN.replace("/24", "/25"))
    own = {"IPAM": {"Config": [{"Subnet": "10.1.0.0/24"}]}}
    world.networks["apps"] = ObservedNetwork(id="APPS", name="apps", inspect=own)
    world.context["routes"] = (Route(device="br-0123", subnet="10.1.0.0/24", direct=True),)
    assert [(o.verb, o.key) for o in world.plan().operations] == [("replace", "network:apps")]


def test_the_routers_own_bridge_is_not_given_away() -> None:
    world = a_world("", LAN.replace("apps", "lan") + WEB.replace("apps", "lan"))
    world.context["router_devices"] = frozenset({"br-lan", "wan"})
    plan = world.plan()
    assert plan.works == ()
    (found,) = (f for f in plan.findings if f.reason == "BridgeTaken")
    assert found.key == "network:lan"
    assert "br-lan is the router's own" in found.message
