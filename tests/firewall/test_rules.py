# SPDX-License-Identifier: GPL-2.0-or-later
"""Which rules are wanted, and the commands that lead there."""

from __future__ import annotations

import pytest

from agent.errors import ConfigError
from agent.model.dockerd.settings import FirewallRule
from agent.plan.router.firewall import (
    NEW_ONLY,
    Blocked,
    RejectRule,
    parse_extra,
    parse_listing,
    steps,
    wanted_rules,
)

ESTABLISHED = "--match conntrack ! --ctstate RELATED,ESTABLISHED"
DEVICES = {"wan": {"pppoe-wan", "eth1"}, "lan": {"br-lan"}, "gone": set()}
DOCKER = "-P FORWARD ACCEPT\n-N DOCKER\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\n"
RETURN = "-A DOCKER-USER -j RETURN\n"
RULE = RejectRule(inbound="eth1", bridge="docker0")
OTHER = RejectRule(inbound="eth2", bridge="docker0")


def resolve(name: str) -> Blocked:
    return Blocked(devices=frozenset(DEVICES.get(name, {name})), unknown=name not in DEVICES)


def section(*blocked: str, device: str = "docker0", extra: str = "") -> FirewallRule:
    return FirewallRule(device=device, blocked_interfaces=blocked, extra_iptables_args=extra)


def printed(rule: RejectRule) -> str:
    return f"-A DOCKER-USER {' '.join(rule.words)} --reject-with icmp-port-unreachable\n"


def test_each_device_of_each_blocked_interface_gets_a_rule_per_bridge() -> None:
    wanted = wanted_rules(
        [
            section("wan", extra=ESTABLISHED),
            section("lan", device="br-iot"),
            section("wan", extra=ESTABLISHED),
        ],
        resolve,
    )
    assert wanted.problems == ()
    extra = ("--match", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED")
    assert [(rule.bridge, rule.inbound, rule.extra) for rule in wanted.rules] == [
        ("br-iot", "br-lan", NEW_ONLY),
        ("docker0", "eth1", extra),
        ("docker0", "pppoe-wan", extra),
    ]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("", NEW_ONLY),
        ("-p tcp --dport 80", (*NEW_ONLY, "-p", "tcp", "--dport", "80")),
        ("-m conntrack --ctorigdstport 80", (*NEW_ONLY, "-m", "conntrack", "--ctorigdstport", "80")),
        ("-m state --state NEW,ESTABLISHED", ("-m", "state", "--state", "NEW,ESTABLISHED")),
        ("-m conntrack --ctstate=NEW", ("-m", "conntrack", "--ctstate", "NEW")),
    ],
)
def test_replies_pass_unless_the_section_says_otherwise(extra: str, expected: tuple[str, ...]) -> None:
    (rule,) = wanted_rules([section("lan", extra=extra)], resolve).rules
    assert rule.extra == expected


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (section("wann"), "blocked interface wann is neither a UCI interface nor a device here"),
        (section("gone"), "blocked interface gone has no device"),
        (section("wan", device='x"accept'), "is not a device name"),
        (section("wan", extra="-j ACCEPT"), "extra_iptables_args: -j is not allowed"),
    ],
)
def test_what_cannot_be_put_in_force_is_said_and_the_rest_is_wanted(
    given: FirewallRule, problem: str
) -> None:
    wanted = wanted_rules([given, section("lan")], resolve)
    assert any(problem in text for text in wanted.problems)
    assert any(rule.inbound == "br-lan" for rule in wanted.rules)


@pytest.mark.parametrize(
    "given",
    [
        "",
        ESTABLISHED,
        "-p tcp --dport 80:90 --syn",
        "-p tcp -m multiport --dports=80,443",
        "! -s 203.0.113.5/24",
        "-m set --match-set friends src",
        "-m mac --mac-source 00:11:22:33:44:55",
    ],
)
def test_matches_are_taken(given: str) -> None:
    assert list(parse_extra(given)) == given.replace("=", " ").split()


@pytest.mark.parametrize(
    "given",
    [
        "; reboot",
        "$(reboot)",
        "-j ACCEPT",
        "--jump=ACCEPT",
        "-g evil",
        "-t nat",
        "-A FORWARD",
        "-I INPUT",
        "-D DOCKER-USER 1",
        "-F",
        "-i lo",
        "-o br-lan",
        "-m comment --comment ucidockd:0",
        "--modprobe=/tmp/evil",
        "-M /tmp/evil",
        "-m ../../tmp/evil",
        "-m bpf --bytecode 1",
        "-s example.org",
        "-s 203.0.113.5,203.0.113.6",
        "-s",
        "-p -j",
        "!",
        "-p 'tcp --jump ACCEPT'",
        "-p tcp\n-j ACCEPT",
        "'unclosed",
        "--dport 80;reboot",
    ],
)
def test_everything_but_matches_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="extra_iptables_args"):
        parse_extra(given)


WORDS = " ".join(RULE.words)
DELETE = f"-D DOCKER-USER {WORDS} --reject-with icmp-port-unreachable"


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            "-P FORWARD ACCEPT\n",
            ["-N DOCKER-USER", "-I FORWARD 1 -j DOCKER-USER", f"-I DOCKER-USER 1 {WORDS}"],
        ),
        (DOCKER + RETURN, [f"-I DOCKER-USER 1 {WORDS}"]),
        (DOCKER + printed(RULE) + RETURN, []),
        (DOCKER + printed(RULE) + printed(OTHER) + RETURN, [DELETE.replace(WORDS, " ".join(OTHER.words))]),
        (DOCKER + RETURN + printed(RULE), [DELETE, f"-I DOCKER-USER 1 {WORDS}"]),
        (DOCKER + printed(RULE) + RETURN + printed(RULE), [DELETE, DELETE, f"-I DOCKER-USER 1 {WORDS}"]),
        (DOCKER + "-A DOCKER-USER -s 192.0.2.1/32 -j RETURN\n" + printed(RULE) + RETURN, []),
        (DOCKER.replace("-A FORWARD -j DOCKER-USER\n", "") + printed(RULE), ["-I FORWARD 1 -j DOCKER-USER"]),
        (
            DOCKER.replace("-A FORWARD -j DOCKER-USER\n", "") + "-A FORWARD -j DOCKER-USER\n" + printed(RULE),
            ["-I FORWARD 1 -j DOCKER-USER"],
        ),
    ],
    ids=[
        "nothing there",
        "docker's chains only",
        "in force",
        "one too many",
        "behind the way out",
        "twice",
        "behind a user's exception",
        "jump lost",
        "jump too late",
    ],
)
def test_steps_lead_to_the_wanted_rules(table: str, expected: list[str]) -> None:
    assert [" ".join(words) for words in steps(parse_listing(table), [RULE], keep=False)] == expected


def test_without_wanted_rules_only_ours_go_and_nothing_is_made() -> None:
    table = DOCKER + printed(RULE) + "-A DOCKER-USER -i eth9 -j DROP\n" + RETURN
    assert [" ".join(words) for words in steps(parse_listing(table), [], keep=False)] == [DELETE]
    assert steps(parse_listing("-P FORWARD ACCEPT\n"), [], keep=False) == ()


def test_a_comment_of_somebody_else_that_cannot_be_split_is_no_obstacle() -> None:
    table = DOCKER + "-A DOCKER-USER -m comment --comment \"it's -j DROP\n" + printed(RULE)
    assert steps(parse_listing(table), [RULE], keep=False) == ()


def test_while_something_is_wrong_no_rule_is_taken_away() -> None:
    table = DOCKER + printed(OTHER) + RETURN
    assert [words[:3] for words in steps(parse_listing(table), [RULE], keep=True)] == [
        ("-I", "DOCKER-USER", "1")
    ]


def test_a_new_rule_comes_in_before_the_old_one_goes() -> None:
    todo = steps(parse_listing(DOCKER + printed(OTHER) + RETURN), [RULE], keep=False)
    assert [words[0] for words in todo] == ["-I", "-D"]
