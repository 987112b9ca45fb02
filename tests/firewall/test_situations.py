# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of containers in each of many routers' zones."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from agent.model.addresses import Interface
from agent.model.resources import Container, ContainerSpec, Endpoint, Port
from agent.plan.router.reach import Bridge, RouterFacts, no_internet, public_ports, unreachable_ports
from agent.uci.router import devices_of, read_firewall
from agent.uci.syntax import parse
from tests.firewall.situations import ALLOWED, DOCKER, SITUATIONS, STOCK, Situation, both, neither, section

BRIDGES = {
    "bridge": Bridge(device="docker0", subnets=(ipaddress.IPv4Network("172.17.0.0/16"),)),
    "iot": Bridge(device="br-iot", subnets=(ipaddress.IPv4Network("172.30.0.0/24"),)),
}


def around(given: Situation, **changes: object) -> RouterFacts:
    network = parse(given.network, package="network")
    devices = {"lan": "br-lan", "wan": "eth1", "guest": "br-guest"}
    made = RouterFacts(
        firewall=read_firewall(parse(given.firewall, package="firewall")),
        devices=lambda name: devices_of(network, name) or frozenset(),
        bridges=BRIDGES,
        interfaces={
            name: Interface(name=name, up=True, l3_device=device, is_uplink=name == given.uplink)
            for name, device in devices.items()
        },
        docker_first=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def container(*networks: str, mode: str | None = None, ports: int = 1, host_ip: str = "") -> Container:
    port = Port(container_port=80, host_port=8080, host_ip=host_ip, protocol="tcp")
    endpoints = tuple(Endpoint(network=name) for name in networks)
    spec = ContainerSpec(image="web", ports=(port,) * ports, network_mode=mode, endpoints=endpoints)
    return Container(section="web", name="web", spec=spec)


@pytest.mark.parametrize("given", SITUATIONS.values(), ids=SITUATIONS)
def test_what_is_said_is_what_fw4_does(given: Situation) -> None:
    here = around(given)
    assert (unreachable_ports(container(), here) is None) is given.reached
    assert (no_internet(container(), here) is None) is given.online
    assert bool(public_ports(container(), here)) is given.public
    iot_reached = given.reached if given.iot_reached is None else given.iot_reached
    iot_online = given.online if given.iot_online is None else given.iot_online
    assert (unreachable_ports(container("iot"), here) is None) is iot_reached
    assert (no_internet(container("iot"), here) is None) is iot_online


@pytest.mark.parametrize("given", SITUATIONS.values(), ids=SITUATIONS)
def test_the_forwardings_that_are_offered_help(given: Situation) -> None:
    for found in (unreachable_ports(container(), around(given)), no_internet(container(), around(given))):
        if found is None or not found.src:
            continue
        more = section("forwarding", src=found.src, dest=found.dest)
        helped = around(replace(given, firewall=given.firewall + more))
        remedied = (unreachable_ports if "reach" in found.message else no_internet)(container(), helped)
        assert remedied is None
        assert public_ports(container(), helped) == public_ports(container(), around(given))


CLOSED = neither(STOCK + DOCKER)


@pytest.mark.parametrize(
    ("given", "changes"),
    [
        (container(mode="host"), {}),
        (container(mode="none"), {}),
        (container(mode="container:other"), {}),
        (container("far"), {"without_bridge": frozenset({"far"})}),
        (container("iot", "far"), {"without_bridge": frozenset({"far"})}),
        (container("of-somebody-else"), {}),
        (container("iot"), {"bridges": {"iot": replace(BRIDGES["iot"], internal=True)}}),
        (container(), {"docker_first": True}),
    ],
    ids=["host", "none", "another's", "macvlan", "and macvlan", "external", "internal", "fw3"],
)
def test_nothing_is_said_where_the_zones_do_not_decide(given: Container, changes: dict[str, object]) -> None:
    here = around(CLOSED, **changes)
    assert unreachable_ports(given, here) is None
    assert no_internet(given, here) is None


def test_a_container_that_is_on_two_networks_needs_one_way() -> None:
    both_networks = container("bridge", "iot")
    here = around(SITUATIONS["a network in a zone of its own that lets nothing through"])
    assert unreachable_ports(both_networks, here) is None
    assert no_internet(both_networks, here) is None
    inside = around(CLOSED, bridges={**BRIDGES, "iot": replace(BRIDGES["iot"], internal=True)})
    assert no_internet(both_networks, inside) is not None


def test_a_port_for_the_router_itself_or_no_port_is_no_matter_of_zones() -> None:
    assert unreachable_ports(container(host_ip="127.0.0.1"), around(CLOSED)) is None
    assert unreachable_ports(container(ports=0), around(CLOSED)) is None
    assert unreachable_ports(container(host_ip="192.168.1.1"), around(CLOSED)) is not None


def test_a_network_that_publishes_nothing_has_internet_only() -> None:
    here = around(CLOSED, bridges={"iot": replace(BRIDGES["iot"], routed=True)})
    assert unreachable_ports(container("iot"), here) is None
    assert no_internet(container("iot"), here) is not None


@pytest.mark.parametrize(
    ("values", "firewall", "reached"),
    [
        ({"iptables": False}, STOCK + DOCKER, True),  # lan may talk to the router
        ({"iptables": False}, STOCK.replace("input 'ACCEPT'", "input 'REJECT'") + DOCKER, False),
        (
            {"iptables": False, "userland-proxy": False},
            STOCK.replace("input 'ACCEPT'", "input 'REJECT'") + DOCKER,
            True,
        ),
    ],
)
def test_without_rules_of_dockerd_input_decides(
    values: dict[str, object], firewall: str, reached: bool
) -> None:
    here = around(neither(firewall), values=values)
    assert (unreachable_ports(container(), here) is None) is reached


def test_while_nothing_leads_to_the_internet_the_wan_zones_are_meant() -> None:
    assert no_internet(container(), around(both(STOCK + DOCKER + ALLOWED, uplink=""))) is None
    assert no_internet(container(), around(neither(STOCK + DOCKER, uplink=""))) is not None
    assert (
        no_internet(container(), around(neither(STOCK.replace("'wan'", "'x'") + DOCKER, uplink="lan")))
        is not None
    )


def test_unknown_subnets_may_be_in_any_zone() -> None:
    here = around(SITUATIONS["a zone by another subnet"], bridges={"bridge": Bridge(device="docker0")})
    assert unreachable_ports(container(), here) is None


def test_rules_in_a_file_are_not_known() -> None:
    include = section(
        "include", type="nftables", path="/etc/docker.nft", position="chain-pre", chain="forward"
    )
    assert unreachable_ports(container(), around(neither(STOCK + DOCKER + include))) is None
    script = section("include", path="/etc/firewall.user")
    assert unreachable_ports(container(), around(neither(STOCK + DOCKER + script))) is not None


def test_what_to_do_is_said() -> None:
    found = unreachable_ports(container(), around(CLOSED))
    assert found is not None
    assert (found.src, found.dest) == ("lan", "docker")
    assert (
        found.message == "no firewall zone may reach 8080/tcp: allow forwarding from zone lan to zone docker"
    )
    out = no_internet(container(), around(CLOSED))
    assert out is not None
    assert (out.src, out.dest) == ("docker", "wan")
    nowhere = no_internet(container(), around(SITUATIONS["no zone for docker0"]))
    assert nowhere is not None
    assert nowhere.message.startswith("docker0 is in no firewall zone")
    assert not nowhere.src
