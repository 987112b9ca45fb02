# SPDX-License-Identifier: GPL-2.0-or-later
"""The router's network service: which interface is up and on which device, and reloading it.

`Netifd` is the port. `BusNetifd` uses the agent's ubus connection; `UbusNetifd` uses the `ubus` program while there
is no connection. Without that program (not OpenWrt), names are devices of the kernel. Devices are queried by ioctl(2)
(netdevice(7)), because /sys shows the network namespace in which it was mounted.
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from agent.errors import BusError
from agent.model.addresses import Interface

logger = logging.getLogger(__name__)

_LIMIT_S = 10.0  # for one program
_UNEXPECTED = "network.interface dump: unexpected answer"
_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_UP, _RUNNING = 0x1, 0x40  # linux/if.h
_REQUEST = struct.Struct("16sH14x")
# IFNAMSIZ - 1; a longer name would be cut and ask about another interface
_NAME_MAX = 15
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # the target of a default route


class Netifd(Protocol):
    """Port: UCI interfaces, and the reloads that changes of UCI require."""

    def interfaces(self) -> Mapping[str, Interface] | None:
        """All interfaces by name; None without netifd. Raises BusError."""

    def reload_network(self) -> None:
        """Reloads the network. Raises BusError."""

    def reload_firewall(self) -> None:
        """Reloads the firewall. Raises BusError."""


class UbusNetifd:
    """Netifd through OpenWrt's programs."""

    def __init__(self, *, ubus: str = "ubus", firewall: str = "/etc/init.d/firewall") -> None:
        self._ubus = ubus
        self._firewall = firewall

    def interfaces(self) -> Mapping[str, Interface] | None:
        if shutil.which(self._ubus) is None:
            return None
        return parse_dump(_run([self._ubus, "-t", "5", "call", "network.interface", "dump"]))

    def reload_network(self) -> None:
        _run([self._ubus, "-t", "5", "call", "network", "reload"])

    def reload_firewall(self) -> None:
        _run([self._firewall, "reload"])


class BusNetifd:
    """Netifd through the agent's ubus connection, which saves starting a process in each pass.

    `call(object, method)` blocks and returns the answer, or None without a connection; then `programs` are used.
    """

    def __init__(self, call: Callable[[str, str], Mapping[str, Any] | None], programs: Netifd) -> None:
        self._call = call
        self._programs = programs

    def interfaces(self) -> Mapping[str, Interface] | None:
        answer = self._call("network.interface", "dump")
        return self._programs.interfaces() if answer is None else _interfaces(answer)

    def reload_network(self) -> None:
        if self._call("network", "reload") is None:
            self._programs.reload_network()

    def reload_firewall(self) -> None:
        self._programs.reload_firewall()


def parse_dump(printed: str) -> dict[str, Interface]:
    """Parses the output of `network.interface dump` (netifd: ubus.c). Raises BusError."""
    try:
        return _interfaces(json.loads(printed))
    except ValueError as exc:
        raise BusError(_UNEXPECTED) from exc


def _interfaces(answer: Mapping[str, Any]) -> dict[str, Interface]:
    try:
        return {str(item["interface"]): _interface(item) for item in answer["interface"]}
    except (KeyError, TypeError, AttributeError) as exc:
        raise BusError(_UNEXPECTED) from exc


def _interface(item: Mapping[str, Any]) -> Interface:
    addresses = [*item.get("ipv4-address", ()), *item.get("ipv6-address", ())]
    return Interface(
        name=str(item["interface"]),
        up=bool(item.get("up")),
        device=str(item.get("device") or ""),
        l3_device=str(item.get("l3_device") or ""),
        addresses=frozenset(str(address["address"]) for address in addresses),
        is_uplink=any(
            route.get("target") in _EVERYWHERE and not route.get("mask") for route in item.get("route", ())
        ),
    )


def is_up(name: str, interfaces: Mapping[str, Interface] | None) -> bool:
    """Whether a UCI interface, or else a device of that name, is up."""
    if interfaces is not None and name in interfaces:
        return interfaces[name].up
    flags = _flags(name)
    return flags is not None and flags & (_UP | _RUNNING) == _UP | _RUNNING


def has_device(name: str) -> bool:
    """Whether the kernel has a network device of that name."""
    return _flags(name) is not None


def _flags(name: str) -> int | None:
    raw = name.encode("utf-8", "surrogateescape")
    if not 0 < len(raw) <= _NAME_MAX or b"\0" in raw:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        try:
            answer = fcntl.ioctl(asked, _SIOCGIFFLAGS, _REQUEST.pack(raw, 0))
        except OSError:
            return None
    return int(_REQUEST.unpack(answer[: _REQUEST.size])[1])


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise BusError(f"{command[0]} failed: {type(exc).__name__}") from exc
    if done.returncode:
        said = " ".join(done.stderr.split())[:256]
        raise BusError(f"{' '.join(command)} failed ({done.returncode}): {said}")
    return done.stdout
