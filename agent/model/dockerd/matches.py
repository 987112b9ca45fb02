# SPDX-License-Identifier: GPL-2.0-or-later
"""The matches of iptables that `extra_iptables_args` of a `firewall` section may hold."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from agent.errors import ConfigError
from agent.model.quantities import split_words

_MODULES = frozenset(
    {
        "addrtype",
        "conntrack",
        "iprange",
        "limit",
        "mac",
        "mark",
        "multiport",
        "pkttype",
        "set",
        "state",
        "tcp",
        "udp",
    }
)
_ADDRESSES = frozenset({"-s", "--src", "--source", "-d", "--dst", "--destination"})
_VALUES = {  # option -> how many values it takes
    **dict.fromkeys(_ADDRESSES, 1),
    **dict.fromkeys(("-p", "--protocol", "-m", "--match", "--mac-source", "--mark", "--pkt-type"), 1),
    **dict.fromkeys(("--sport", "--source-port", "--dport", "--destination-port"), 1),
    **dict.fromkeys(("--sports", "--source-ports", "--dports", "--destination-ports", "--ports"), 1),
    **dict.fromkeys(("--ctstate", "--ctstatus", "--ctdir", "--ctproto", "--state"), 1),
    **dict.fromkeys(("--ctorigsrc", "--ctorigdst", "--ctorigsrcport", "--ctorigdstport"), 1),
    **dict.fromkeys(
        ("--limit", "--limit-burst", "--src-type", "--dst-type", "--src-range", "--dst-range"), 1
    ),
    **dict.fromkeys(("--match-set", "--tcp-flags"), 2),
    "--syn": 0,
}
_VALUE = re.compile(r"[A-Za-z0-9_.,:/+][A-Za-z0-9_.,:/+-]*\Z")


def parse_extra(given: str) -> tuple[str, ...]:
    """`extra_iptables_args` as words; only matches are allowed. Raises ConfigError naming the word that is not."""
    found: list[str] = []
    left = iter(_split_options(given))
    for word in left:
        if word == "!":
            found.append(word)
            continue
        if word not in _VALUES:
            raise _refused(word, "a match such as --match conntrack ! --ctstate RELATED,ESTABLISHED")
        values = [next(left, "") for _ in range(_VALUES[word])]
        for value in values:
            if not _VALUE.match(value):
                raise _refused(f"{word} {value}", "letters, digits and .,:/+_- as its value")
            if word in {"-m", "--match"} and value not in _MODULES:
                raise _refused(f"{word} {value}", f"one of {', '.join(sorted(_MODULES))}")
            if word in _ADDRESSES:
                # a single address only: iptables would wait for a name server to resolve a name, and makes several
                # rules of a list
                try:
                    ipaddress.ip_network(value, strict=False)
                except ValueError as exc:
                    raise _refused(f"{word} {value}", "one address or subnet") from exc
        found += [word, *values]
    if found[-1:] == ["!"]:
        raise _refused("!", "a match after it")
    return tuple(found)


def _split_options(given: str) -> Iterator[str]:
    """The words, with `--dport=80` split into two."""
    try:
        parts = split_words(given)
    except ValueError as exc:
        raise ConfigError(f"dockerd firewall extra_iptables_args: {exc}") from exc
    for word in parts:
        name, sign, value = word.partition("=")
        yield from (name, value) if sign and name.startswith("--") else (word,)


def _refused(what: str, expected: str) -> ConfigError:
    return ConfigError(f"dockerd firewall extra_iptables_args: {what} is not allowed, expected {expected}")
