# SPDX-License-Identifier: GPL-2.0-or-later
"""Who runs dockerd here and with which program, whether ucidockd manages its settings, and its settings otherwise."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.dockerd.supervisor import engine_version
from agent.dockerd.unmanaged import exists, user_settings
from agent.engine import process as daemon_process
from agent.errors import DaemonError, PathError
from agent.files.config import open_store
from agent.files.options import RuntimeOptions
from agent.files.user_paths import PATHS
from agent.model.dockerd.settings import DaemonSettings, Document
from agent.model.resources import AgentSettings, Desired

INIT_SCRIPT = Path("/etc/init.d/dockerd")
DEFAULT_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """How dockerd is run. `kind` is procd, child or external; `socket`: the path on which dockerd listens in addition to
    UCI's hosts."""

    kind: str
    program: str
    arguments: tuple[str, ...]
    socket: str
    elsewhere: str = ""  # the address of an engine on another machine, "" if it is local


def runner_of(agent: AgentSettings, options: RuntimeOptions) -> Runner:
    """The runner according to the agent section; the command line takes precedence."""
    address = options.engine_address(agent)
    return Runner(
        # on other systems than OpenWrt the system starts dockerd and does not expect us to
        kind=agent.daemon or ("procd" if on_openwrt() else "external"),
        program=agent.dockerd,
        arguments=agent.dockerd_args,
        socket=address.path or DEFAULT_SOCKET,
        elsewhere="" if address.is_local else str(address),
    )


def version_of(program: str) -> tuple[int, int]:
    """The version of that program; queried again only if the file changes. Raises DaemonError."""
    try:
        found = PATHS.ask(shutil.which, program)
        stat = PATHS.ask(os.stat, found) if found else None
    except PathError as exc:
        raise DaemonError(str(exc), reason="NoProgram") from exc
    if not found or stat is None:
        raise DaemonError(f"there is no program {program}", reason="NoProgram")
    return _version(found, (stat.st_mtime_ns, stat.st_ino))


@functools.lru_cache(maxsize=4)
def _version(program: str, stamp: tuple[int, int]) -> tuple[int, int]:
    del stamp
    return engine_version(program)


def on_openwrt() -> bool:
    """Whether this system runs services with procd."""
    return INIT_SCRIPT.exists() and Path("/sbin/procd").exists()


# Whether ucidockd manages dockerd's settings, and dockerd's settings if it does not.


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerdSettings:
    """`values`: as in daemon.json. `managed`: the values come from UCI, and dockerd follows them."""

    values: Document
    managed: bool = True


def declared_settings(desired: Desired) -> DockerdSettings:
    """The settings according to UCI."""
    return DockerdSettings(values=desired.daemon.values if desired.daemon is not None else {})


def not_ours(
    settings: DaemonSettings | None, runner: Runner, config_file: Path, *, init_script: Path = INIT_SCRIPT
) -> str:
    """Why ucidockd does not manage dockerd's settings, "" if it does."""
    if runner.elsewhere:
        return f"the engine is on another machine, {runner.elsewhere}: configure dockerd there"
    if settings is None:
        decides = f": {init_script} sets its options" if runner.kind == "procd" else ""
        return f"no section in /etc/config/dockerd configures dockerd{decides}"
    # compare real paths: on OpenWrt /var is a link to /tmp
    given = settings.alt_config_file
    if given and PATHS.real(given) != PATHS.real(str(config_file)):
        if runner.kind == "procd" and not exists(given):
            return f"dockerd.globals.alt_config_file is {given}, which does not exist: {init_script} writes its own file"
        return f"dockerd.globals.alt_config_file is {given}: dockerd's settings are in that file"
    if runner.kind == "procd" and not given:
        ours = PATHS.real(str(config_file))
        return f"{init_script} writes its own file; set dockerd.globals.alt_config_file to {ours}"
    return ""


def settings_source(options: RuntimeOptions, config_file: Path) -> Callable[[Desired], DockerdSettings]:
    """Returns a function that gives dockerd's settings for each pass. `config_file`: the daemon.json that we write."""

    def found(desired: Desired) -> DockerdSettings:
        settings = desired.daemon
        runner = runner_of(desired.agent, options)
        if settings is not None and not not_ours(settings, runner, config_file):
            # an external dockerd may have been started with another file
            managed = runner.kind != "external" or daemon_process.find_with_config(config_file) is not None
            return DockerdSettings(values=settings.values if managed else {}, managed=managed)
        own = user_settings(settings, has_package=has_package(options))
        declared = settings.values if settings is not None else {}
        return DockerdSettings(
            values=_checked(own.document) if own.file is not None else declared, managed=False
        )

    return found


def has_package(options: RuntimeOptions) -> bool:
    """Whether the file /etc/config/dockerd exists."""
    return open_store(options).source_path("dockerd").exists()


def _checked(document: dict[str, Any]) -> Document:
    """The relevant options of a user's daemon.json."""
    kinds = {
        "iptables": bool,
        "userland-proxy": bool,
        "ip6tables": bool,
        "firewall-backend": str,
        "bridge": str,
    }
    values = {name: document[name] for name, kind in kinds.items() if isinstance(document.get(name), kind)}
    bip = document.get("bip")
    with contextlib.suppress(ValueError):  # dockerd does not start with an invalid value
        if isinstance(bip, str) and ipaddress.ip_interface(bip):
            values["bip"] = bip
    return values
