# SPDX-License-Identifier: GPL-2.0-or-later
"""What a container may do to the router by its own section, and what the router's web server lets pages do. Pure.

Nothing here is refused: it is the user's to decide. Comes after agent.uci.decode; `agent.runtime.hazards` shows it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from posixpath import commonpath

from agent.model.resources import Container, Port
from agent.uci.router import text, words
from agent.uci.syntax import Package, Section

_ON = frozenset({"1", "yes", "on", "true", "enabled"})


def host_control(
    container: Container, precious: Mapping[str, str], resolve: Callable[[str], str]
) -> tuple[str, ...]:
    """The mounts that give the container control of the router, as `/var/run/docker.sock (the engine's socket)`.

    `precious`: resolved path -> what it is. `resolve` follows links. A socket, and a key, do their harm read-only too.
    """
    found = []
    for mount in container.spec.mounts:
        if mount.is_bind:
            source = resolve(mount.source)
            reached = sorted(
                {what for path, what in precious.items() if commonpath((source, path)) in (source, path)}
            )
            if reached:
                found.append(f"{mount.source} ({', '.join(reached)})")
    return tuple(found)


def plain_luci(uhttpd: Package) -> bool:
    """Whether LuCI can be used by http: its session cookie then goes to every port of the router's address."""
    return any(
        section.type == "uhttpd" and words(section, "listen_http") and not _is_on(section, "redirect_https")
        for section in uhttpd.sections
    )


def shared_origin(container: Container) -> tuple[str, ...]:
    """Its ports on the router's own addresses that a browser can open."""
    return tuple(dict.fromkeys(_name(port) for port in container.spec.ports if _is_open(port)))


def open_to_pages(uhttpd: Package) -> tuple[str, ...]:
    """The uhttpd sections whose /ubus answers pages of every origin, with the user's session (`ubus_cors`)."""
    return tuple(
        section.name
        for section in uhttpd.sections
        if section.type == "uhttpd" and _is_on(section, "ubus_cors")
    )


def _is_on(section: Section, option: str) -> bool:
    return text(section, option) in _ON


def _is_open(port: Port) -> bool:
    if port.protocol != "tcp":
        return False
    return not port.host_ip or not ipaddress.ip_address(port.host_ip).is_loopback


def _name(port: Port) -> str:
    return f"{port.host_text}/tcp"
