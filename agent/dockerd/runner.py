# SPDX-License-Identifier: GPL-2.0-or-later
"""Who runs dockerd here, and with which program, as the agent section says."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.dockerd.supervisor import engine_version
from agent.errors import DaemonError
from agent.files.options import RuntimeOptions
from agent.model.resources import AgentSettings

INIT_SCRIPT = Path("/etc/init.d/dockerd")
DEFAULT_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """`kind` is procd, child or external; `socket` the path that dockerd listens at whatever UCI's hosts say."""

    kind: str
    program: str
    arguments: tuple[str, ...]
    socket: str
    elsewhere: str = ""  # the address of an engine on another machine


def runner_of(agent: AgentSettings, options: RuntimeOptions) -> Runner:
    """What the agent section asks for; the command line goes before it."""
    address = options.engine_address(agent)
    return Runner(
        kind=agent.daemon or ("procd" if on_openwrt() else "external"),
        program=agent.dockerd,
        arguments=agent.dockerd_args,
        socket=address.path or DEFAULT_SOCKET,
        elsewhere="" if address.is_local else str(address),
    )


def version_of(program: str) -> tuple[int, int]:
    """The version of that program; asked again only when the file is another one. Raises DaemonError."""
    found = shutil.which(program)
    if found is None:
        raise DaemonError(f"there is no program {program}", reason="NoProgram")
    stat = Path(found).stat()
    return _version(found, (stat.st_mtime_ns, stat.st_ino))


@functools.lru_cache(maxsize=4)
def _version(program: str, stamp: tuple[int, int]) -> tuple[int, int]:
    del stamp
    return engine_version(program)


def on_openwrt() -> bool:
    """Whether procd runs services here."""
    return INIT_SCRIPT.exists() and Path("/sbin/procd").exists()
