# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of `agent.plan.router.firewall` for nftables, in a table of our own. Pure.

A packet that any table refuses is refused, whatever the others say (nft(8), "Hooks"): such a table works beside dockerd's
own ones, by iptables or by nftables, and beside fw4's, and needs no iptables. Comes before `agent.router.nftables`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from agent.errors import ConfigError
from agent.plan.router.firewall import Rule

TABLE = "ucidockd"
_CHAIN = "forward"
_BEFORE_OTHERS = -5  # of priority: the filter chains of dockerd and fw4 are at 0
_MARK = re.compile(r'comment "(ucidockd:[0-9a-f]+)"')

_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_LIMIT = re.compile(r"(\d+)(?:/([smhd])[a-z]*)?\Z")
_PACKETS = {"unicast": "host"}
_LETTERS = {"4": "ip", "6": "ip6"}

Translate = Callable[[str, str, str], str]  # (family, operator with a blank or "", value) -> a match


def _address(side: str) -> Translate:
    return lambda family, no, value: f"{_LETTERS[family]} {side} {no}{value}"


def _ports(side: str) -> Translate:
    return lambda family, no, value: f"th {side} {no}{_set_of(value)}"


def _set_of(value: str) -> str:
    """`80`, `80:90` or `80,443` of iptables as nft has it."""
    items = value.replace(":", "-").split(",")
    return items[0] if len(items) == 1 else f"{{ {', '.join(items)} }}"


def _states(family: str, no: str, value: str) -> str:
    words = {word.lower() for word in value.split(",")}
    if words <= {"dnat", "snat"}:
        return f"ct status {no}{', '.join(sorted(words))}"
    if words & {"dnat", "snat"}:
        raise _unknown(f"--ctstate {value}")
    return f"ct state {no}{{ {', '.join(sorted(words))} }}"


def _mark(family: str, no: str, value: str) -> str:
    wanted, _, mask = value.partition("/")
    return f"meta mark and {mask} {no or '== '}{wanted}" if mask else f"meta mark {no}{wanted}"


def _limit(family: str, no: str, value: str) -> str:
    found = _LIMIT.match(value)
    if found is None or no:
        raise _unknown(f"--limit {value}")
    return f"limit rate {found[1]}/{_UNITS[found[2] or 's']}"


def _original(what: str) -> Translate:
    return lambda family, no, value: f"ct original {what.format(_LETTERS[family])} {no}{_set_of(value)}"


_MATCHES: dict[str, Translate] = {
    **dict.fromkeys(("-s", "--src", "--source"), _address("saddr")),
    **dict.fromkeys(("-d", "--dst", "--destination"), _address("daddr")),
    **dict.fromkeys(("--src-range",), _address("saddr")),
    **dict.fromkeys(("--dst-range",), _address("daddr")),
    **dict.fromkeys(("-p", "--protocol"), lambda family, no, value: f"meta l4proto {no}{value.lower()}"),
    **dict.fromkeys(("--sport", "--source-port", "--sports", "--source-ports"), _ports("sport")),
    **dict.fromkeys(("--dport", "--destination-port", "--dports", "--destination-ports"), _ports("dport")),
    **dict.fromkeys(("--ctstate", "--state"), _states),
    "--ctdir": lambda family, no, value: f"ct direction {no}{value.lower()}",
    "--ctorigsrc": _original("{} saddr"),
    "--ctorigdst": _original("{} daddr"),
    "--ctorigsrcport": _original("proto-src"),
    "--ctorigdstport": _original("proto-dst"),
    "--mac-source": lambda family, no, value: f"ether saddr {no}{value}",
    "--mark": _mark,
    "--pkt-type": lambda family, no, value: f"meta pkttype {no}{_PACKETS.get(value, value)}",
    "--src-type": lambda family, no, value: f"fib saddr type {no}{value.lower()}",
    "--dst-type": lambda family, no, value: f"fib daddr type {no}{value.lower()}",
    "--limit": _limit,
}


def statement(rule: Rule, family: str) -> str:
    """A rule of the chain. `family` is "4" or "6". Raises ConfigError for a match that nftables does not have."""
    # nft reads a port by the protocol that stands before it
    matches = sorted(_matches(rule.extra, family), key=lambda text: not text.startswith("meta l4proto"))
    if any("proto-" in text for text in matches) and not matches[0].startswith("meta l4proto"):
        matches.insert(0, "meta l4proto { tcp, udp }")
    words = [f"iifname {_device(rule.inbound)}", f"oifname {_device(rule.bridge)}", *matches]
    return f'{" ".join(words)} reject comment "{rule.mark}"'


def _device(name: str) -> str:
    """iptables takes a `+` at the end for any end."""
    return f'"{name[:-1]}*"' if name.endswith("+") else f'"{name}"'


def _matches(extra: Sequence[str], family: str) -> Iterator[str]:
    left = iter(extra)
    no = ""
    for word in left:
        if word == "!":
            no = "!= "
            continue
        if word in {"-m", "--match"}:  # nft finds what a match needs by itself
            next(left)
            continue
        if word == "--syn":
            yield f"tcp flags {no or '== '}syn / fin,syn,rst,ack"
        elif word in _MATCHES:
            yield _MATCHES[word](family, no, next(left))
        else:
            raise _unknown(word)
        no = ""


def _unknown(what: str) -> ConfigError:
    return ConfigError(
        f"dockerd firewall extra_iptables_args: {what} needs iptables, which is not in use here, "
        "expected a match that nftables has too"
    )


def marks_in(listed: str) -> tuple[str, ...]:
    """Our rules in what `nft list table` printed, in order."""
    return tuple(_MARK.findall(listed))


def script(listed: str, rules: Sequence[Rule], family: str, *, keep: bool) -> str:
    """What `nft -f` has to be given, in one transaction; "" when all is there. `keep`: no rule is taken away.

    Raises ConfigError for rules that cannot be expressed.
    """
    table = f"{_LETTERS[family]} {TABLE}"
    there = marks_in(listed)
    wanted = {rule.mark: statement(rule, family) for rule in rules}
    missing = [text for mark, text in wanted.items() if mark not in there]
    stale = [mark for mark in there if mark not in wanted]
    if not wanted:
        return f"delete table {table}\n" if listed and not keep else ""
    if not missing and (keep or not stale):
        return ""
    lines = [
        f"add table {table}",
        f"add chain {table} {_CHAIN} {{ type filter hook forward priority {_BEFORE_OTHERS}; policy accept; }}",
    ]
    if stale and not keep:
        lines.append(f"flush chain {table} {_CHAIN}")
        missing = list(wanted.values())
    lines += [f"add rule {table} {_CHAIN} {text}" for text in missing]
    return "\n".join(lines) + "\n"
