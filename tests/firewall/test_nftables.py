# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules in a table of our own, by real nft in a network namespace."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import ConfigError, FirewallError
from agent.model.dockerd.settings import parse_extra
from agent.plan.router.firewall import NEW_ONLY, RejectRule, script, statement
from agent.router.nftables import Filter, Iptables, Nftables
from tests.support.dockerd import is_root
from tests.support.iptables import filter_in, in_force, iptables_in, nft_in, nft_in_force
from tests.support.netns import OwnNetwork

pytestmark = [
    pytest.mark.skipif(not is_root(), reason="rules need root"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="no nft here"),
]

_numbers = itertools.count()
WAN = RejectRule(inbound="pppoe-wan", bridge="docker0", extra=NEW_ONLY)
PHYSICAL = RejectRule(inbound="eth1", bridge="docker0", extra=NEW_ONLY)
OTHER = RejectRule(inbound="eth2", bridge="br-iot")


@pytest.fixture
def network() -> Iterator[OwnNetwork]:
    made = OwnNetwork(f"ucidn{os.getpid()}x{next(_numbers)}")
    yield made
    made.close()


@pytest.mark.parametrize("family", ["4", "6"])
def test_rules_are_put_in_once_and_changed_without_a_gap(
    network: OwnNetwork, tmp_path: Path, family: str
) -> None:
    tables, printed = nft_in(network, family, tmp_path), {"4": "ip", "6": "ip6"}[family]
    assert tables.put_in_force([WAN, PHYSICAL], keep=False)
    assert nft_in_force(network, printed) == ["pppoe-wan>docker0", "eth1>docker0"]
    assert not tables.put_in_force([WAN, PHYSICAL], keep=False)
    assert tables.put_in_force([OTHER], keep=True)
    assert nft_in_force(network, printed) == ["pppoe-wan>docker0", "eth1>docker0", "eth2>br-iot"]
    assert tables.put_in_force([PHYSICAL], keep=False)
    assert nft_in_force(network, printed) == ["eth1>docker0"]
    network.run("nft", "flush", "table", printed, "ucidockd")
    assert tables.put_in_force([PHYSICAL], keep=False)
    assert nft_in_force(network, printed) == ["eth1>docker0"]
    assert not tables.put_in_force([], keep=True)
    assert tables.put_in_force([], keep=False)
    assert not tables.put_in_force([], keep=False)
    assert network.run("nft", "list", "tables").stdout == ""


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("", ""),
        ("-p tcp --dport 80:90", "tcp dport 80-90"),
        ("! -p udp", 'meta l4proto != "udp"'),
        ("-p tcp -m multiport --dports=80,443", "tcp dport { 80, 443 }"),
        ("-p udp --sport 53", "udp sport 53"),
        ("! -s 203.0.113.0/24", "ip saddr != 203.0.113.0/24"),
        ("-d 172.17.0.2", "ip daddr 172.17.0.2"),
        ("-m iprange ! --src-range 203.0.113.1-203.0.113.9", "ip saddr != 203.0.113.1-203.0.113.9"),
        ("-m conntrack ! --ctstate RELATED,ESTABLISHED", "ct state !="),
        ("-m conntrack --ctstate NEW", "ct state new"),
        ("-m conntrack --ctstate DNAT", "ct status dnat"),
        ("-m state --state NEW,INVALID", "ct state { invalid, new }"),
        ("-m conntrack --ctorigdstport 8080 -p tcp", "ct original proto-dst 8080"),
        ("-m conntrack --ctorigdstport 8080", "tcp, udp } ct original proto-dst (0x1f90|8080)"),
        ("-m conntrack --ctorigdst 192.168.1.1", "ct original ip daddr 192.168.1.1"),
        ("-m conntrack --ctdir ORIGINAL", "ct direction original"),
        ("-m mac ! --mac-source 00:11:22:33:44:55", "ether saddr != 00:11:22:33:44:55"),
        ("-m mark --mark 0x1", "meta mark 0x00000001"),
        ("-m mark ! --mark 0x1/0xff", "!= 0x00000001"),
        ("-m pkttype --pkt-type unicast", "meta pkttype host"),
        ("-m addrtype --dst-type LOCAL", "fib daddr type local"),
        ("-m limit --limit 10/minute", "limit rate 10/minute"),
        ("-p tcp --syn", r"tcp flags (syn / fin,syn,rst,ack|& \(fin \| syn \| rst \| ack\) == syn)"),
    ],
)
def test_matches_of_iptables_are_said_in_nft(
    network: OwnNetwork, tmp_path: Path, extra: str, expected: str
) -> None:
    given = RejectRule(inbound="eth1", bridge="docker0", extra=parse_extra(extra))
    assert nft_in(network, "4", tmp_path).put_in_force([given], keep=False)
    listed = network.run("nft", "list", "table", "ip", "ucidockd").stdout
    written = (
        expected if "|" in expected else re.escape(expected)
    )  # versions of nft print some in different words
    assert re.search(written.replace('"', ""), listed.replace('"', ""))
    # the same words are iptables' own
    assert iptables_in(network, "iptables", tmp_path).put_in_force([given], keep=False)


@pytest.mark.parametrize(
    "extra",
    [
        "-m set --match-set friends src",
        "-p tcp --tcp-flags SYN,ACK SYN",
        "-m limit --limit 5/s --limit-burst 9",
        "-m limit ! --limit 5/s",
        "-m conntrack --ctstate NEW,DNAT",
        "-m conntrack --ctstatus ASSURED",
        "-p tcp -m multiport --ports 80",
    ],
)
def test_what_nft_does_not_have_is_refused_by_name(extra: str) -> None:
    with pytest.raises(ConfigError, match="extra_iptables_args: --"):
        statement(RejectRule(inbound="eth1", bridge="docker0", extra=parse_extra(extra)), "4")


def test_a_rule_that_the_kernel_refuses_leaves_what_was_there(network: OwnNetwork, tmp_path: Path) -> None:
    tables = nft_in(network, "4", tmp_path)
    tables.put_in_force([WAN], keep=False)
    bad = RejectRule(inbound="eth1", bridge="docker0", extra=("-s", "2001:db8::1"))
    with pytest.raises(FirewallError, match="nft failed: "):
        tables.put_in_force([WAN, bad], keep=False)
    assert nft_in_force(network) == ["pppoe-wan>docker0"]


def test_names_of_devices_are_quoted() -> None:
    text = script("", [RejectRule(inbound="eth0.5@x", bridge="br-+")], "4", keep=False)
    assert 'iifname "eth0.5@x" oifname "br-*"' in text


def test_each_is_used_where_it_belongs_and_the_other_one_is_emptied(
    network: OwnNetwork, tmp_path: Path
) -> None:
    used = filter_in(network, "4", tmp_path)
    used.put_in_force([WAN], keep=False)
    assert (in_force(network), nft_in_force(network)) == (["pppoe-wan>docker0"], [])
    used.put_in_force([WAN], keep=False, dockerd_uses_nftables=True)
    assert (in_force(network), nft_in_force(network)) == ([], ["pppoe-wan>docker0"])
    used.put_in_force([WAN], keep=False)
    assert (in_force(network), nft_in_force(network)) == (["pppoe-wan>docker0"], [])
    uninstalled = Filter(Iptables("no-iptables"), nft_in(network, "4", tmp_path))
    uninstalled.put_in_force([WAN], keep=False)
    assert nft_in_force(network) == ["pppoe-wan>docker0"]


def test_a_missing_program_is_named(network: OwnNetwork, tmp_path: Path) -> None:
    neither = Filter(Iptables("no-iptables"), Nftables("4", "no-nft"))
    with pytest.raises(FirewallError, match="neither iptables nor nft is installed"):
        neither.put_in_force([WAN], keep=False)
    wanted = Filter(iptables_in(network, "iptables", tmp_path), Nftables("4", "no-nft"))
    wanted.put_in_force([WAN], keep=False)
    # what iptables refuses is refused for dockerd's nftables too
    wanted.put_in_force([WAN], keep=False, dockerd_uses_nftables=True)
    assert in_force(network) == ["pppoe-wan>docker0"]
