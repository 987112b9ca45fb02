# SPDX-License-Identifier: GPL-2.0-or-later
"""Which published ports a wan zone can reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.model.addresses import Interface
from agent.model.dockerd.settings import FirewallRule
from agent.model.resources import Container, ContainerSpec, Endpoint, Port
from agent.plan.router.reach import Bridge, RouterFacts, public_ports, zones_reaching
from agent.uci.router import devices_of, read_firewall
from agent.uci.syntax import parse
from tests.support.router import FIREWALL, NETWORK

_NETWORK = parse(NETWORK, package="network")
_BLOCKED = FirewallRule(device="docker0", blocked_interfaces=("wan",))
_WAN = Interface(name="wan", up=True, l3_device="pppoe-wan", addresses=frozenset({"203.0.113.7", "10.9.9.9"}))
FORWARDING = "\nconfig forwarding\n\toption src 'wan'\n\toption dest 'docker'\n"
REDIRECT = "\nconfig redirect\n\toption src 'wan'\n\toption src_dport '80'\n\toption dest_ip '192.168.1.9'\n"


def rule(**options: str) -> str:
    given = {"src": "wan", "target": "ACCEPT", **options}
    return "\nconfig rule\n" + "".join(f"\toption {name} '{value}'\n" for name, value in given.items())


def around(
    more: str = "", *, blocked: Sequence[FirewallRule] = (), fw4: bool = False, iptables: bool = True
) -> RouterFacts:
    return RouterFacts(
        firewall=read_firewall(parse(FIREWALL + more, package="firewall")),
        rules=blocked,
        devices=lambda name: devices_of(_NETWORK, name) or frozenset({name}),
        bridges={"bridge": Bridge(device="docker0"), "iot": Bridge(device="br-iot")},
        interfaces={"wan": _WAN},
        values={"iptables": iptables},
        docker_first=not fw4,
    )


def container(
    host_ip: str = "", *, mode: str | None = None, networks: Sequence[str] = (), protocol: str = "tcp"
) -> Container:
    port = Port(container_port=80, host_port=8080, host_ip=host_ip, protocol=protocol)
    endpoints = tuple(Endpoint(network=name) for name in networks)
    spec = ContainerSpec(image="web", ports=(port,), network_mode=mode, endpoints=endpoints)
    return Container(section="web", name="web", spec=spec)


def test_a_port_on_all_addresses_is_public_where_docker_comes_first() -> None:
    assert public_ports(container(), around()) == ("8080/tcp from wan",)
    reach = zones_reaching(container(), around())
    assert list(reach) == ["8080/tcp"]
    assert "wan" in reach["8080/tcp"] and "docker" not in reach["8080/tcp"]
    assert "wan" not in zones_reaching(container("192.168.1.1"), around())["8080/tcp"]


def test_a_port_at_two_addresses_is_public_if_one_of_them_is() -> None:
    wan = "203.0.113.7"
    open_at = [port for ip in (wan, "127.0.0.1") for port in container(ip).spec.ports]
    for ports in (open_at, open_at[::-1]):
        two = replace(container(), spec=replace(container().spec, ports=tuple(ports)))
        assert public_ports(two, around()) == ("8080/tcp from wan",)


@pytest.mark.parametrize(
    ("host_ip", "public"),
    [
        ("0.0.0.0", True),
        ("::", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("192.168.1.1", False),
        ("203.0.113.7", True),
        ("10.9.9.9", True),  # a wan behind another router
        ("8.8.4.4", True),  # what nobody knows here, but is not a private address
    ],
)
def test_the_address_decides(host_ip: str, public: bool) -> None:
    assert bool(public_ports(container(host_ip), around())) is public


ESTABLISHED = "-m conntrack ! --ctstate RELATED,ESTABLISHED"


@pytest.mark.parametrize(
    ("blocked", "public"),
    [
        ([_BLOCKED], False),
        ([replace(_BLOCKED, extra_iptables_args=ESTABLISHED)], False),
        ([replace(_BLOCKED, extra_iptables_args="-m conntrack --ctstate NEW")], False),
        ([replace(_BLOCKED, extra_iptables_args=f"{ESTABLISHED} ! -s 198.51.100.0/24")], True),
        ([replace(_BLOCKED, extra_iptables_args="-m conntrack --ctstate RELATED,ESTABLISHED")], True),
        ([replace(_BLOCKED, extra_iptables_args="-j ACCEPT")], True),
        ([replace(_BLOCKED, device="br-iot")], True),
        ([replace(_BLOCKED, device="dock+")], False),
        ([replace(_BLOCKED, blocked_interfaces=("lan",))], True),
        ([replace(_BLOCKED, blocked_interfaces=())], True),
    ],
)
def test_blocked_interfaces_close_it_when_they_cover_every_new_connection(
    blocked: list[FirewallRule], public: bool
) -> None:
    assert bool(public_ports(container(), around(blocked=blocked))) is public


@pytest.mark.parametrize(
    ("more", "public"),
    [
        ("", False),
        (FORWARDING, True),
        (FORWARDING + "\toption enabled '0'\n", False),
        (REDIRECT, True),
        (rule(dest="docker", dest_port="80"), True),
        (rule(dest="docker", dest_port="70-90", proto="tcp udp"), True),
        (rule(dest="*", proto="all"), True),
        (rule(dest="docker", dest_port="8080"), False),
        (rule(dest="docker", dest_port="80", proto="udp"), False),
        (rule(dest="lan", dest_port="80"), False),
        (rule(dest="docker", dest_port="80", target="DROP"), False),
        (rule(dest_port="80"), False),
    ],
)
def test_fw4_stops_what_it_has_no_way_for(more: str, public: bool) -> None:
    assert bool(public_ports(container(), around(more, fw4=True))) is public


def test_without_rules_of_dockerd_the_port_is_the_routers_own() -> None:
    assert public_ports(container(), around(iptables=False)) == ()
    assert public_ports(container(), around(rule(dest_port="8080"), iptables=False))


def test_a_container_on_two_bridges_is_closed_when_both_are() -> None:
    both = container(networks=("bridge", "iot"))
    assert public_ports(both, around(blocked=[_BLOCKED]))
    assert not public_ports(both, around(blocked=[_BLOCKED, replace(_BLOCKED, device="br-iot")]))


@pytest.mark.parametrize("mode", ["host", "none", "container:other"])
def test_where_no_port_is_published_none_is_public(mode: str) -> None:
    assert public_ports(container(mode=mode), around()) == ()


def test_a_guest_zone_is_no_wan() -> None:
    guest = "\nconfig zone\n\toption name 'guest'\n\toption input 'REJECT'\n\toption forward 'REJECT'\n"
    assert public_ports(container(), around(guest)) == ("8080/tcp from wan",)
