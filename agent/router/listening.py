# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds other users of this router's ports: services according to their configuration, foreign containers, and
processes.

A service may be stopped at the moment and a process may have no configuration, so all three sources are read.
Blocking. Raises nothing, because none of this is ours: unreadable sources are skipped.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agent.engine.probe import DaemonProbe
from agent.errors import UcidockdError
from agent.files.config import open_store
from agent.files.options import RuntimeOptions
from agent.files.uci_store import UciStore
from agent.model.addresses import UNKNOWN_MACHINE, Listener, Machine
from agent.model.identity import LABEL_SECTION
from agent.model.quantities import TRUE_WORDS
from agent.router.addresses import has_address
from agent.uci.router import text, words
from agent.uci.syntax import Package, Section

_PORT = re.compile(r"(?:(.*):)?([0-9]{1,5})", re.ASCII)
# file, protocol, and the state of a socket that listens, as /proc shows it
_TABLES = (("tcp", "tcp", "0A"), ("tcp6", "tcp", "0A"), ("udp", "udp", "07"), ("udp6", "udp", "07"))
# the engine's list of containers covers the ports of these processes
_OF_THE_ENGINE = frozenset({"docker-proxy", "rootlessport"})
_PROC = Path("/proc")


def machine_of(options: RuntimeOptions, docker_host: str) -> Machine:
    """Users of this machine's ports other than our sections, and its addresses. Unknown if the engine is on another
    machine.

    `docker_host`: the engine's address.
    """
    if not docker_host.startswith("unix://"):
        return UNKNOWN_MACHINE
    store = open_store(options)
    containers = DaemonProbe(docker_host.removeprefix("unix://")).containers()
    listeners = (*of_services(store), *of_containers(containers), *of_processes(_PROC))
    return Machine(listeners=listeners, lacks=lambda address: not has_address(address))


def of_services(store: UciStore) -> Iterator[Listener]:
    """The ports of uhttpd, dropbear and dnsmasq, as configured in UCI."""
    # unset options have the service's own default
    for section in _sections(store, "uhttpd", "uhttpd"):
        for option in ("listen_http", "listen_https"):
            for entry in words(section, option):
                if place := _place(entry):
                    yield _of_uci("uhttpd", section, option, *place)
    for section in _sections(store, "dropbear", "dropbear"):
        if (text(section, "enable") or "1") in TRUE_WORDS:
            for port in words(section, "Port") or ("22",):
                if place := _place(port):
                    yield _of_uci("dropbear", section, "Port", *place)
    for section in _sections(store, "dhcp", "dnsmasq"):
        if place := _place(text(section, "port") or "53"):
            for protocol in ("tcp", "udp"):
                yield _of_uci("dnsmasq", section, "port", *place, protocol=protocol, package="dhcp")
    for section in _sections(store, "dhcp", "dhcp"):
        if text(section, "ignore") not in TRUE_WORDS and text(section, "start"):
            yield _of_uci("dnsmasq", section, "start", "", 67, protocol="udp", package="dhcp")


def _sections(store: UciStore, package: str, kind: str) -> tuple[Section, ...]:
    try:
        found: Package = store.load(package)
    except (UcidockdError, OSError):
        return ()
    return tuple(section for section in found.sections if section.type == kind)


def _place(entry: str) -> tuple[str, int] | None:
    """(address, port) of `80`, `0.0.0.0:80` and `[::]:80`; None for port 0, which means off, and for anything else."""
    match = _PORT.fullmatch(entry)
    if match is None or not 0 < int(match[2]) <= 65535:
        return None
    host = (match[1] or "").strip("[]")
    try:
        return (str(ipaddress.ip_address(host)) if host else ""), int(match[2])
    except ValueError:
        return "", int(match[2])  # a host name


def _of_uci(
    service: str,
    section: Section,
    option: str,
    ip: str,
    port: int,
    *,
    protocol: str = "tcp",
    package: str = "",
) -> Listener:
    name = f"@{section.type}[0]" if section.anonymous else section.name
    where = f"{package or service}.{name}.{option}"
    said = f"{service} is set to listen on {_written(ip, port)} (`{where}`)"
    return Listener(port=port, protocol=protocol, ip=ip, said=said)


def _written(ip: str, port: int) -> str:
    if not ip:
        return f"port {port}"
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def of_containers(containers: Iterable[dict[str, Any]]) -> Iterator[Listener]:
    """The ports of foreign containers, from GET /containers/json. Conflicts between sections are found in UCI instead."""
    for container in containers:
        if LABEL_SECTION in (container.get("Labels") or {}):
            continue
        name = str((container.get("Names") or [container.get("Id", "?")[:12]])[0]).removeprefix("/")
        for port in container.get("Ports") or ():
            if number := port.get("PublicPort"):
                ip = str(port.get("IP") or "")
                said = f"the container {name}, which is not managed, publishes {_written(ip, number)}"
                yield Listener(port=number, protocol=str(port.get("Type") or "tcp"), ip=ip, said=said)


def of_processes(proc: Path) -> Iterator[Listener]:
    """The listening sockets in /proc/net/{tcp,tcp6,udp,udp6} (proc_net_tcp(5)), with the process if it can be found."""
    sockets = [found for table, protocol, state in _TABLES for found in _table(proc, table, protocol, state)]
    owners = _owners(proc, {inode for _, _, _, inode in sockets})
    for ip, port, protocol, inode in sockets:
        owner = owners.get(inode, "")
        if owner not in _OF_THE_ENGINE:
            place = _written(ip, port)
            said = f"the process {owner} listens on {place}" if owner else f"a process listens on {place}"
            yield Listener(port=port, protocol=protocol, ip=ip, said=said)


def _table(proc: Path, table: str, protocol: str, state: str) -> Iterator[tuple[str, int, str, str]]:
    try:
        lines = (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]
    except (OSError, ValueError):
        return
    for line in lines:
        fields = line.split()
        # the tenth field is the inode, by which the process is found
        if len(fields) > 9 and fields[3] == state:
            address, _, port = fields[1].partition(":")
            yield _address(address), int(port, 16), protocol, fields[9]


def _address(digits: str) -> str:
    """Parses an address in the kernel's form: 32-bit words in the machine's byte order."""
    words_of = [bytes.fromhex(digits[at : at + 8]) for at in range(0, len(digits), 8)]
    raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words_of)
    address = ipaddress.ip_address(raw)
    # an IPv6 wildcard socket receives IPv4 too
    return "" if len(raw) == 16 and address.is_unspecified else str(address)


def _owners(proc: Path, inodes: set[str]) -> dict[str, str]:
    """Inode of a socket -> name of a process that has it open."""
    found: dict[str, str] = {}
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    for pid in filter(str.isdigit, os.listdir(proc)):
        with contextlib.suppress(OSError):  # the process has ended, or we may not look at it
            for descriptor in os.scandir(proc / pid / "fd"):
                with contextlib.suppress(OSError):
                    if inode := wanted.get(os.readlink(descriptor.path)):
                        found[inode] = (proc / pid / "comm").read_text(errors="replace").strip()
    return found
