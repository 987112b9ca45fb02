# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules as the kernel has them, by both variants of iptables, in a network namespace."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import FirewallError
from agent.plan.router.firewall import RejectRule, parse_extra
from agent.router.nftables import Iptables
from tests.support.daemon_lab import wait_for
from tests.support.dockerd import is_root
from tests.support.iptables import in_force, iptables_in
from tests.support.netns import OwnNetwork

pytestmark = pytest.mark.skipif(not is_root(), reason="rules need root")

_numbers = itertools.count()
ESTABLISHED = parse_extra("--match conntrack ! --ctstate RELATED,ESTABLISHED")
WAN = RejectRule(inbound="pppoe-wan", bridge="docker0", extra=ESTABLISHED)
WAN_PHYSICAL = RejectRule(inbound="eth1", bridge="docker0", extra=ESTABLISHED)


@pytest.fixture
def network() -> Iterator[OwnNetwork]:
    made = OwnNetwork(f"ucidf{os.getpid()}x{next(_numbers)}")
    yield made
    made.close()


@pytest.fixture(params=["iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft"])
def program(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    return name


def test_rules_are_put_in_once_and_stay_before_dockers_way_out(
    network: OwnNetwork, program: str, tmp_path: Path
) -> None:
    tables = iptables_in(network, program, tmp_path)
    for words in (("-N", "DOCKER-USER"), ("-A", "DOCKER-USER", "-j", "RETURN")):
        network.run(program, *words)
    assert tables.put_in_force([WAN, WAN_PHYSICAL], keep=False)
    assert in_force(network, program) == ["pppoe-wan>docker0", "eth1>docker0"]
    listed = network.run(program, "-S").stdout
    assert listed.count("-A FORWARD -j DOCKER-USER") == 1
    assert listed.rindex("ucidockd:") < listed.index("-A DOCKER-USER -j RETURN")
    assert not tables.put_in_force([WAN, WAN_PHYSICAL], keep=False)
    assert network.run(program, "-S").stdout == listed


@pytest.mark.parametrize(
    "harm",
    [
        [("-F", "DOCKER-USER")],
        [("-F", "FORWARD")],
        [("-F",), ("-X",)],
        [("-D", "DOCKER-USER", "1")],
        [("-I", "DOCKER-USER", "-j", "RETURN")],
        [("-I", "FORWARD", "-o", "docker0", "-j", "ACCEPT")],
    ],
    ids=["chain flushed", "FORWARD flushed", "all flushed", "one deleted", "let out before", "let in before"],
)
def test_what_was_taken_away_is_put_back(
    network: OwnNetwork, tmp_path: Path, harm: list[tuple[str, ...]]
) -> None:
    tables = iptables_in(network, "iptables", tmp_path)
    tables.put_in_force([WAN, WAN_PHYSICAL], keep=False)
    for words in harm:
        network.run("iptables", *words)
    assert tables.put_in_force([WAN, WAN_PHYSICAL], keep=False)
    assert sorted(in_force(network)) == ["eth1>docker0", "pppoe-wan>docker0"]
    assert network.run("iptables", "-S", "FORWARD").stdout.splitlines()[1] == "-A FORWARD -j DOCKER-USER"
    assert not tables.put_in_force([WAN, WAN_PHYSICAL], keep=False)


def test_rules_that_are_unset_go_and_those_of_others_stay(
    network: OwnNetwork, program: str, tmp_path: Path
) -> None:
    tables = iptables_in(network, program, tmp_path)
    tables.put_in_force([WAN, WAN_PHYSICAL], keep=False)
    network.run(
        program, "-A", "DOCKER-USER", "-i", "eth9", "-m", "comment", "--comment", "my own", "-j", "DROP"
    )
    tables.put_in_force([WAN], keep=False)
    assert in_force(network, program) == ["pppoe-wan>docker0"]
    tables.put_in_force([], keep=False)
    left = network.run(program, "-S", "DOCKER-USER").stdout.splitlines()
    assert len(left) == 2
    assert "my own" in left[1]


def test_a_lock_that_somebody_holds_is_waited_for(network: OwnNetwork, tmp_path: Path) -> None:
    if shutil.which("iptables-legacy") is None:
        pytest.skip("no iptables-legacy here: the nft variant has no lock")
    import fcntl

    tables = iptables_in(network, "iptables-legacy", tmp_path)
    with open("/run/xtables.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        putting = threading.Thread(target=tables.put_in_force, args=([WAN],), kwargs={"keep": False})
        putting.start()
        putting.join(0.3)
        assert putting.is_alive()
        fcntl.flock(lock, fcntl.LOCK_UN)
        putting.join(8)
    assert in_force(network, "iptables-legacy") == ["pppoe-wan>docker0"]


def test_a_missing_program_and_refused_words_are_errors_that_say_so(
    network: OwnNetwork, tmp_path: Path
) -> None:
    with pytest.raises(FirewallError, match="there is no program iptables-none"):
        Iptables("iptables-none").put_in_force([WAN], keep=False)
    bad = RejectRule(inbound="eth1", bridge="docker0", extra=("-s", "2001:db8::1"))
    with pytest.raises(FirewallError, match="failed: "):
        iptables_in(network, "iptables", tmp_path).put_in_force([bad], keep=False)
    assert in_force(network) == []


def test_packets_from_a_blocked_interface_do_not_arrive_and_answers_to_containers_do(
    network: OwnNetwork, tmp_path: Path
) -> None:
    """outside -- (eth1) router (docker0) -- inside: real packets through the rules."""
    ends = [OwnNetwork(f"{network.name}{letter}") for letter in "ab"]
    try:
        for end, device, subnet in zip(ends, ("eth1", "docker0"), ("192.0.2", "198.51.100"), strict=True):
            network.run("ip", "link", "add", device, "type", "veth", "peer", "name", "e", "netns", end.name)
            for where, name, number in ((network, device, 1), (end, "e", 2)):
                where.run("ip", "addr", "add", f"{subnet}.{number}/24", "dev", name)
                where.run("ip", "link", "set", name, "up")
            end.run("ip", "route", "add", "default", "via", f"{subnet}.1")
        network.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        outside, inside = ends
        inward = ("ping", "-c1", "-W1", "198.51.100.2")
        outward = ("ping", "-c1", "-W1", "192.0.2.2")
        if shutil.which("ping") is None:
            inward, outward = (("busybox", *words) for words in (inward, outward))

        def arrives(end: OwnNetwork, ping: tuple[str, ...]) -> bool:
            return end.run(*ping, check=False).returncode == 0

        wait_for(lambda: arrives(outside, inward), 10)
        tables = iptables_in(network, "iptables", tmp_path)
        tables.put_in_force([WAN_PHYSICAL], keep=False)
        assert not arrives(outside, inward)
        wait_for(lambda: arrives(inside, outward), 10)
        tables.put_in_force([], keep=False)
        wait_for(lambda: arrives(outside, inward), 10)
    finally:
        for end in ends:
            end.close()
