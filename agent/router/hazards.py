# SPDX-License-Identifier: GPL-2.0-or-later
"""Shows permitted but dangerous settings: containers that can control the router (`HostControl`), ports that share
LuCI's origin (`SharedOriginPorts`), and a web server that answers pages of any origin (a warning).
`agent.plan.router.reach` decides."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import normpath

from agent.errors import PathError, Reason, UcidockdError
from agent.files.config import open_store
from agent.files.options import RuntimeOptions
from agent.files.uci_store import UciStore
from agent.files.user_paths import PATHS, is_read_only, real_path
from agent.model.addresses import IpAddress
from agent.model.dockerd.settings import Document
from agent.model.identity import Key
from agent.model.resources import Container, Desired
from agent.plan.router.reach import (
    HOST_PATHS,
    host_control,
    looked_at,
    open_to_pages,
    plain_luci,
    shared_origin,
)
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType
from agent.uci.syntax import Package

logger = logging.getLogger(__name__)

_WEB_SERVER = "uhttpd"
_DOCKERMAN = (  # a file of each variant of luci-app-dockerman that provides or calls `docker` on ubus
    Path("/usr/share/luci/menu.d/luci-app-dockerman.json"),
    Path("/usr/lib/lua/luci/controller/dockerman.lua"),
)
_NONE = Package(name=_WEB_SERVER)


@dataclass(slots=True, kw_only=True)
class Hazards:
    """Shows the hazards of each container. `folders`: paths of this agent, in the form of `HOST_PATHS`. `docker_host`:
    overrides the agent section."""

    store: UciStore
    board: StatusBoard
    folders: dict[str, tuple[str, bool]]
    docker_host: str = ""
    dockerman: tuple[Path, ...] = _DOCKERMAN
    _read: tuple[str, Package] = ("", _NONE)
    _warned: list[str] = field(default_factory=list)
    _shown: tuple[Desired | None, Package] = (None, _NONE)

    def show(self, desired: Desired) -> None:
        """Updates the conditions. Blocks. Raises nothing, because the router's files are not ours."""
        # Compare hashes first: this runs in every pass, and an unchanged file need not be parsed. The package is
        # empty without OpenWrt's web server, or if its file cannot be read.
        try:
            digest = self.store.content_hash(_WEB_SERVER)
            if digest != self._read[0]:
                self._read = (digest, self.store.load_with_hash(_WEB_SERVER)[0])
        except (UcidockdError, OSError):
            self._read = ("", _NONE)
        uhttpd = self._read[1]
        self._warn([*open_to_pages(uhttpd)], dockerman=any(path.exists() for path in self.dockerman))
        if self._shown[0] is desired and self._shown[1] is uhttpd:
            return
        self._shown = (desired, uhttpd)
        # all paths in one request with one time-out: a dead mount costs 2 s once, not once per container
        paths = [path for container in desired.containers for path in looked_at(container, desired.volumes)]
        view = PATHS.view([(real_path, path) for path in (*HOST_PATHS, *self.folders, *paths)])

        def resolve(path: str) -> str:
            try:
                return view(real_path, path)
            except PathError:  # another condition shows the reason; here the path is judged by its text
                return normpath(path)

        found = {**HOST_PATHS, **self.folders}
        for host in (self.docker_host or desired.agent.docker_host, "unix:///var/run/docker.sock"):
            if host.startswith("unix://"):
                found[host.removeprefix("unix://")] = ("the engine's socket", True)
        precious = {resolve(path): what for path, what in found.items()}
        plain = plain_luci(uhttpd)
        for container in desired.containers:
            control = host_control(container, desired.volumes, precious, resolve)
            self._set(container, ConditionType.HOST_CONTROL, "ControlsHost", _CONTROL, control)
            ports = shared_origin(container) if plain else ()
            self._set(container, ConditionType.SHARED_ORIGIN_PORTS, "PlainLuci", _SHARED, ports)

    def _set(
        self, container: Container, condition: ConditionType, reason: Reason, text: str, found: Sequence[str]
    ) -> None:
        message = text.format(", ".join(found)) if found and container.policy.should_run else None
        self.board.flag(Key("container", container.section), condition, reason, message, name=container.name)

    def _warn(self, sections: Sequence[str], *, dockerman: bool) -> None:
        texts = [f"uhttpd.{name}.ubus_cors is on: {_CORS}" for name in sections]
        if dockerman:
            texts.append(_TWO_APPS)
        # passes come often: the log gets each set of warnings once
        if texts == self._warned:
            return
        self._warned = texts
        self.board.set_agent(warnings=texts)
        for text in texts:
            logger.warning("%s", text)


_TWO_APPS = (
    "luci-app-dockerman is installed beside ucidockd: both serve the ubus objects docker.*, so pages may reach the wrong"
    " one. Remove it with `opkg remove luci-app-dockerman` or `apk del luci-app-dockerman`; its settings stay"
)
_CONTROL = "this container can take control of the router, by {}"
_SHARED = "browsers send your LuCI login to the web pages of this container too ({}), because LuCI is used over http"
_CORS = "web pages of any origin can use /ubus with the session of the user who opens them; turn it off"


def make_hazards(options: RuntimeOptions, board: StatusBoard, socket: Path) -> Hazards:
    """The hazards of the running agent. `socket`: its control socket; the folder may hold anything else as well."""
    folders = {
        str(socket): ("the agent's socket", True),
        str(socket.parent / "daemon.json"): ("dockerd's settings", False),
        str(options.state_dir): ("the agent's state and keys", True),
        str(options.state_dir / "files"): ("", False),  # what imports write for containers
        **dict.fromkeys(
            map(str, (options.config_dir, options.override_dir, options.save_dir)),
            ("the router's configuration", False),
        ),
    }
    return Hazards(
        store=open_store(options), board=board, folders=folders, docker_host=options.docker_host or ""
    )


# Reports containers that publish a port on an address that the router no longer has, and containers that write to a
# read-only file system.


# devices whose addresses do not count as the router's own
_OF_CONTAINERS = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}|veth.*", re.ASCII)


def show_missing_addresses(
    desired: Desired,
    values: Document,
    board: StatusBoard,
    *,
    has_address: Callable[[str], bool],
    addresses: Callable[[], Iterable[tuple[str, IpAddress]]],
) -> None:
    """Sets the condition `AddressMissing` of each container, for an engine on this machine.

    `values`: dockerd's settings; ports without an address are published on its `ip`.
    """

    def is_always_there(text: str) -> bool:
        address = ipaddress.ip_address(text)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_unspecified or (mapped or address).is_loopback

    for container in desired.containers:
        key = Key("container", container.section)
        # a port without an address is published on dockerd's `ip`; loopback and wildcard addresses always exist
        default = str(values.get("ip") or "")
        wanted = dict.fromkeys(port.host_ip or default for port in container.spec.ports)
        own = (a for a in wanted if a and container.policy.enabled and not is_always_there(a))
        missing = [address for address in own if not has_address(address)]
        found = None
        if missing:  # only now, because asking the kernel for each container would make up most of a pass
            there = ", ".join(f"{address} ({device})" for device, address in addresses() if _counts(device))
            found = f"a port is published at {', '.join(missing)}, which this router does not have; it has {there or 'none'}"
        board.flag(key, ConditionType.ADDRESS_MISSING, "NotHere", found, name=container.name)


def _counts(device: str) -> bool:
    return not _OF_CONTAINERS.fullmatch(device)


# Reports containers with writable mounts on a read-only file system: the kernel remounts a disk with errors this way.
#
# The containers keep running: stopping them would not help, and some only read.


def show_read_only(desired: Desired, board: StatusBoard) -> None:
    """Sets the condition `StorageReadOnly` of each container, for an engine on this machine."""
    sources = {
        container.section: tuple(m.source for m in container.spec.mounts if m.is_bind and not m.read_only)
        for container in desired.containers
        if container.policy.enabled
    }
    look = PATHS.view((is_read_only, path) for paths in sources.values() for path in paths)
    for container in desired.containers:
        key = Key("container", container.section)
        found = []
        for path in sources.get(container.section, ()):
            with contextlib.suppress(PathError):  # unknown; `Waiting` reports it
                if look(is_read_only, path):
                    found.append(path)
        text = f"the container cannot write to {', '.join(found)}: the file system is mounted read-only"
        shown = text if found else None
        board.flag(key, ConditionType.STORAGE_READ_ONLY, "ReadOnly", shown, name=container.name)
