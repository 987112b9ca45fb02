# SPDX-License-Identifier: GPL-2.0-or-later
"""The names and addresses that dockerd's certificate is valid for (subject alternative names, RFC 5280 4.2.1.6).

Pure: the edge (`clients/local_names.py`) brings the host name and the addresses of the LAN.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable

from agent.errors import ConfigError

_ALWAYS = ("localhost", "127.0.0.1", "::1")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def server_names(*, hostname: str, addresses: Iterable[str] = (), san: Iterable[str] = ()) -> tuple[str, ...]:
    """Names, then addresses, each sorted and once. Raises ConfigError that lists every `san` that is neither.

    A host name that no certificate can carry is left out: the kernel takes any bytes as one.
    """
    found = {normal_name(text) for text in (*_ALWAYS, *addresses)}
    with contextlib.suppress(ConfigError):
        found.add(normal_name(hostname))
    return tuple(sorted(found | set(normal_names(san)), key=lambda name: (is_address(name), name)))


def normal_names(names: Iterable[str]) -> tuple[str, ...]:
    """`normal_name` of each, in order. Raises ConfigError that lists all that are wrong."""
    good, wrong = [], []
    for name in names:
        try:
            good.append(normal_name(name))
        except ConfigError as exc:
            wrong.append(str(exc))
    if wrong:
        raise ConfigError("; ".join(wrong))
    return tuple(good)


def normal_name(text: str) -> str:
    """The one spelling of a DNS name or IP address. Raises ConfigError."""
    if is_address(text):
        return str(ipaddress.ip_address(text))
    name = text.lower().removesuffix(".")
    labels = name.removeprefix("*.").split(".")
    # a last label of digits is an address gone wrong, and no resolver would look it up
    if len(name) > 253 or labels[-1].isdigit() or not all(map(_LABEL.fullmatch, labels)):
        raise ConfigError(
            f"{text[:80]!r} is not a name for a certificate, expected a DNS name or an IP address"
        )
    return name


def is_address(text: str) -> bool:
    """An IPv4 or IPv6 address; one with a zone is none, it means nothing on another host."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
