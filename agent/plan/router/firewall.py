# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that `DOCKER-USER` needs for the `firewall` sections of /etc/config/dockerd, and the commands to get there.
Pure.

The stock init script would add these rules (OpenWrt packages: utils/dockerd, dockerd.init), but it returns early if
daemon.json is ours. Blocking concerns new connections: replies to connections that a container opened pass, unless
the section says otherwise. Our rules are recognized by their comment, which contains a digest of the rule, so the
output of iptables need not be compared word by word. The second half translates the same rules to nftables for a
router without iptables. `agent.router.nftables` puts both into force.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agent.errors import ConfigError
from agent.model.dockerd.settings import Document, FirewallRule, parse_extra

CHAIN = "DOCKER-USER"
_MARK = "ucidockd:"
_LETS_PASS = frozenset({"RETURN", "ACCEPT"})  # rules behind these are not reached

# matches of the connection's state: with one of their own no other is added
_STATES = frozenset({"--ctstate", "--state"})
# answers of connections that containers began must come back
NEW_ONLY = ("-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED")
_DEVICE = re.compile(r"[A-Za-z0-9_.:@+-]{1,15}\Z")  # the kernel's limit for names is 15 characters

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectRule:
    """Rejects packets that come in on one device and are forwarded to a bridge of containers."""

    inbound: str
    bridge: str
    extra: Words = ()

    @property
    def mark(self) -> str:
        """The comment that identifies the rule."""
        text = "\0".join((self.inbound, self.bridge, *self.extra))
        return _MARK + hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def words(self) -> Words:
        """The arguments for iptables."""
        path = ("-i", self.inbound, "-o", self.bridge, *self.extra)
        return (*path, "-m", "comment", "--comment", self.mark, "-j", "REJECT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`problems`: what cannot be put into force, in words; while there are problems, none of our rules is removed."""

    rules: tuple[RejectRule, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """The devices of a blocked interface; `unknown` if there is neither an interface nor a device of that name."""

    devices: frozenset[str]
    unknown: bool = False


def wanted_rules(sections: Sequence[FirewallRule], resolve: Callable[[str], Blocked]) -> Wanted:
    """The rules of all sections, sorted. `resolve`: a UCI interface -> its devices."""
    rules: set[RejectRule] = set()
    problems: list[str] = []
    for section in sections:
        try:
            extra = matches_of(section) if section.blocked_interfaces else ()
        except ConfigError as exc:
            problems.append(str(exc))
            continue
        if not _DEVICE.match(section.device):
            problems.append(f"{section.device} is not a device name, so nothing is blocked for it")
            continue
        for interface in section.blocked_interfaces:
            found = resolve(interface)
            # an interface that is down may come up with any device: show a problem, but do not open what is closed
            if found.unknown:
                problems.append(f"blocked interface {interface} is neither a UCI interface nor a device here")
            devices = {device for device in found.devices if _DEVICE.match(device)}
            if not devices:
                problems.append(f"blocked interface {interface} has no device")
            rules |= {RejectRule(inbound=device, bridge=section.device, extra=extra) for device in devices}
    ordered = sorted(rules, key=lambda rule: (rule.bridge, rule.inbound, rule.extra))
    return Wanted(rules=tuple(ordered), problems=tuple(dict.fromkeys(problems)))


def is_enforced(rule: FirewallRule, values: Document, *, managed: bool) -> bool:
    """Whether the section has rules at all.

    Like the stock script, it has none with `iptables 0` or if the user manages daemon.json: the rules would block
    ports that the user forwards to containers with rules of their own. `values`: dockerd's settings; `managed`:
    ucidockd manages them.
    """
    return rule.enforce or (managed and values.get("iptables") is not False)


def matches_of(section: FirewallRule) -> Words:
    """The matches that a packet must meet besides coming in on the device. Raises ConfigError."""
    extra = parse_extra(section.extra_iptables_args)
    return extra if _STATES & frozenset(extra) else (*NEW_ONLY, *extra)


# reading the present chains


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterTable:
    """The filter table as `iptables -S` prints it: the names of the chains, and the rules in order."""

    chains: frozenset[str]
    rules: tuple[Words, ...]  # each rule begins with the name of its chain

    def of(self, chain: str) -> tuple[Words, ...]:
        """The rules of one chain, without its name."""
        return tuple(rule[1:] for rule in self.rules if rule[0] == chain)


def parse_listing(printed: str) -> FilterTable:
    """Parses the output of `iptables -S`; lines that are not rules are skipped."""
    chains: set[str] = set()
    rules: list[Words] = []
    for line in printed.splitlines():
        kind, _, rest = line.partition(" ")
        if kind in {"-N", "-P"}:
            chains.add(rest.split()[0])
        elif kind == "-A":
            try:
                words = shlex.split(rest)
            except ValueError:  # a rule of someone else may have a comment with unbalanced quotes
                words = rest.split()
            rules.append(tuple(words))
    return FilterTable(chains=frozenset(chains), rules=tuple(rules))


def steps(listing: FilterTable, wanted: Sequence[RejectRule], *, keep: bool) -> tuple[Words, ...]:
    """The iptables commands that bring the chains to `wanted`; none if they already are. `keep`: remove no rule.

    New rules are inserted before old ones are deleted, so that one of them is always in force.
    """
    rules = listing.of(CHAIN)
    marks = [_mark_of(rule) for rule in rules]
    # only the rules before the first unconditional way out are reached
    ends = (number for number, rule in enumerate(rules) if rule[:1] == ("-j",) and rule[1] in _LETS_PASS)
    reached = rules[: next(ends, len(rules))]
    in_force = {mark for mark, _ in zip(marks, reached, strict=False) if mark and marks.count(mark) == 1}
    missing = [rule for rule in wanted if rule.mark not in in_force]
    again = {rule.mark for rule in missing}
    known = {rule.mark for rule in wanted}
    todo = _way_in(listing) if wanted else ()
    # of a rule that exists twice, or after a way out, delete all copies: iptables deletes the first match each time
    todo += tuple(("-D", CHAIN, *rule) for rule, mark in zip(rules, marks, strict=True) if mark in again)
    todo += tuple(("-I", CHAIN, "1", *rule.words) for rule in reversed(missing))
    if not keep:
        stale = [rule for rule, mark in zip(rules, marks, strict=True) if mark and mark not in known]
        todo += tuple(("-D", CHAIN, *rule) for rule in stale)
    return todo


def _way_in(listing: FilterTable) -> tuple[Words, ...]:
    """The commands that make FORWARD jump to our chain before any rule that lets packets pass to a container."""
    todo: tuple[Words, ...] = () if CHAIN in listing.chains else (("-N", CHAIN),)
    forward = listing.of("FORWARD")
    jump = ("-j", CHAIN)
    if jump not in forward:
        return (*todo, ("-I", "FORWARD", "1", *jump))
    before = forward[: forward.index(jump)]
    # dockerd and fw3 put their chains first when they start: then move our jump to the front again
    if any(_target(rule) == "ACCEPT" or _target(rule).startswith("DOCKER") for rule in before):
        todo += (("-I", "FORWARD", "1", *jump),)
    return todo


def _mark_of(rule: Words) -> str:
    return _after(rule, "--comment") if _after(rule, "--comment").startswith(_MARK) else ""


def _target(rule: Words) -> str:
    return _after(rule, "-j")


def _after(rule: Words, option: str) -> str:
    return rule[rule.index(option) + 1] if option in rule[:-1] else ""


# The same rules for nftables, in a table of our own. Pure.
#
# A packet that any table rejects is rejected, whatever other tables say (nft(8), "Hooks"). So this table works next
# to dockerd's own rules (iptables or nftables) and next to fw4's table, and needs no iptables.
# `agent.router.nftables` loads it.


TABLE = "ucidockd"
_CHAIN = "forward"
_BEFORE_OTHERS = -5  # priority; the filter chains of dockerd and fw4 are at 0
_MARKED = re.compile(r'comment "(ucidockd:[0-9a-f]+)"')

_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_LIMIT = re.compile(r"(\d+)(?:/([smhd])[a-z]*)?\Z")
_PACKETS = {"unicast": "host"}  # nft's word for iptables' `unicast`
_LETTERS = {"4": "ip", "6": "ip6"}

Translate = Callable[[str, str, str], str]  # (family, "!= " or "", value) -> an nft match


def _address(side: str) -> Translate:
    return lambda family, no, value: f"{_LETTERS[family]} {side} {no}{value}"


def _ports(side: str) -> Translate:
    return lambda family, no, value: f"th {side} {no}{_set_of(value)}"


def _set_of(value: str) -> str:
    """Converts `80`, `80:90` or `80,443` of iptables to nft syntax."""
    items = value.replace(":", "-").split(",")
    return items[0] if len(items) == 1 else f"{{ {', '.join(items)} }}"


def _states(_family: str, no: str, value: str) -> str:
    words = {word.lower() for word in value.split(",")}
    if words <= {"dnat", "snat"}:
        return f"ct status {no}{', '.join(sorted(words))}"
    if words & {"dnat", "snat"}:
        raise _unknown(f"--ctstate {value}")
    return f"ct state {no}{{ {', '.join(sorted(words))} }}"


def _mark(_family: str, no: str, value: str) -> str:
    wanted, _, mask = value.partition("/")
    return f"meta mark and {mask} {no or '== '}{wanted}" if mask else f"meta mark {no}{wanted}"


def _limit(_family: str, no: str, value: str) -> str:
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


def statement(rule: RejectRule, family: str) -> str:
    """A rule of the chain in nft syntax. `family` is "4" or "6". Raises ConfigError for a match that nftables does not
    have."""
    # nft needs the protocol before a port match
    matches = sorted(_matches(rule.extra, family), key=lambda text: not text.startswith("meta l4proto"))
    if any("proto-" in text for text in matches) and not matches[0].startswith("meta l4proto"):
        matches.insert(0, "meta l4proto { tcp, udp }")
    words = [f"iifname {_device(rule.inbound)}", f"oifname {_device(rule.bridge)}", *matches]
    return f'{" ".join(words)} reject comment "{rule.mark}"'


def _device(name: str) -> str:
    """The device name in nft syntax; a trailing `+` of iptables is a wildcard."""
    return f'"{name[:-1]}*"' if name.endswith("+") else f'"{name}"'


def _matches(extra: Sequence[str], family: str) -> Iterator[str]:
    left = iter(extra)
    no = ""
    for word in left:
        if word == "!":
            no = "!= "
            continue
        if word in {"-m", "--match"}:  # nft loads the modules that a match needs by itself
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
    """The marks of our rules in the output of `nft list table`, in order."""
    return tuple(_MARKED.findall(listed))


def script(listed: str, rules: Sequence[RejectRule], family: str, *, keep: bool) -> str:
    """The input for `nft -f`, a single transaction; "" if nothing has to change. `keep`: remove no rule.

    Raises ConfigError for rules that nftables cannot express.
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
    # `add` does nothing if the object exists, so one script serves the first run and later ones
    lines = [
        f"add table {table}",
        f"add chain {table} {_CHAIN} {{ type filter hook forward priority {_BEFORE_OTHERS}; policy accept; }}",
    ]
    if stale and not keep:
        lines.append(f"flush chain {table} {_CHAIN}")
        missing = list(wanted.values())
    lines += [f"add rule {table} {_CHAIN} {text}" for text in missing]
    return "\n".join(lines) + "\n"
