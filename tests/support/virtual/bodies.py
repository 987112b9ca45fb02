# SPDX-License-Identifier: GPL-2.0-or-later
"""How the engine in memory reads request bodies: it adds defaults and the image's values, and rejects invalid bodies."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from agent.errors import EngineError
from tests.support.virtual.objects import FakeContainer, FakeImage

_STOP_S = 10
_MEMORY_MIN = 6 << 20
_INHERITED = ("Cmd", "Entrypoint", "User", "WorkingDir", "Healthcheck", "StopSignal")


def config_of(body: dict[str, Any], image: FakeImage) -> dict[str, Any]:
    sent = {name: value for name, value in body.items() if name not in {"HostConfig", "NetworkingConfig"}}
    config = dict(sent)
    for name in _INHERITED:
        # an entrypoint in the request replaces the image's entrypoint and drops the image's command as well
        if not config.get(name) and not (name == "Cmd" and sent.get("Entrypoint")):
            config[name] = image.config.get(name)
    config["Labels"] = {**(image.config.get("Labels") or {}), **(body.get("Labels") or {})}
    config["Volumes"] = image.config.get("Volumes")
    names = {entry.partition("=")[0] for entry in body.get("Env") or ()}
    inherited = [e for e in image.config.get("Env") or () if e.partition("=")[0] not in names]
    config["Env"] = [*(body.get("Env") or ()), *inherited]
    return config


def host_of(body: dict[str, Any]) -> dict[str, Any]:
    host = deepcopy(body.get("HostConfig") or {})
    policy = host.get("RestartPolicy") or {}
    host["RestartPolicy"] = {
        "Name": policy.get("Name") or "no",
        "MaximumRetryCount": policy.get("MaximumRetryCount", 0),
    }
    host["NetworkMode"] = host.get("NetworkMode") or "default"
    if host.get("Memory") and not host.get("MemorySwap"):
        host["MemorySwap"] = 2 * host["Memory"]
    log = host.get("LogConfig") or {}
    host["LogConfig"] = {"Type": log.get("Type") or "json-file", "Config": log.get("Config") or {}}
    for name, default in (("Memory", 0), ("ShmSize", 64 << 20), ("IpcMode", "private"), ("Runtime", "runc")):
        host[name] = host.get(name) or default
    return host


def check_host(host: dict[str, Any]) -> None:
    memory, swap = host.get("Memory") or 0, host.get("MemorySwap") or 0
    if 0 < memory < _MEMORY_MIN:
        raise EngineError("Minimum memory limit allowed is 6MB", status=400)
    if memory and swap > 0 and swap < memory:
        text = "Minimum memoryswap limit should be larger than memory limit, see usage"
        raise EngineError(text, status=400)
    policy = host.get("RestartPolicy") or {}
    name, most = policy.get("Name") or "no", policy.get("MaximumRetryCount") or 0
    if name not in {"no", "always", "unless-stopped", "on-failure"}:
        raise EngineError(f"invalid restart policy '{name}'", status=400)
    if name != "on-failure" and most:
        raise EngineError("maximum retry count cannot be used with restart policy '" + name + "'", status=400)


def endpoint_of(sent: dict[str, Any], *, mac: bool = False) -> dict[str, Any]:
    """`mac`: whether the engine honours a MAC address in the request (it depends on the API version)."""
    return {
        "_mac": (sent.get("MacAddress") or "") if mac else "",
        "IPAMConfig": sent.get("IPAMConfig"),
        "Aliases": list(sent.get("Aliases") or ()),
        "NetworkID": "",
        "EndpointID": "",
        "IPAddress": "",
        "Gateway": "",
    }


def endpoints_of(body: dict[str, Any], *, mac: bool = False) -> dict[str, dict[str, Any]]:
    mode = (body.get("HostConfig") or {}).get("NetworkMode") or "default"
    sent = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    if mode.startswith("container:"):
        return {}
    name = "bridge" if mode == "default" else mode
    return {key: endpoint_of(value or {}, mac=mac) for key, value in {name: {}, **sent}.items()}


def host_ports(container: FakeContainer) -> set[tuple[int, str]]:
    bindings = container.host.get("PortBindings") or {}
    exposed = container.config.get("ExposedPorts") or {}
    pairs = (
        (item.get("HostPort"), key.partition("/")[2] or "tcp")
        for key, items in bindings.items()
        for item in items
        if key in exposed
    )
    return {(int(port), protocol) for port, protocol in pairs if port}


def stop_timeout(container: FakeContainer) -> float:
    """Seconds until a stop kills the process. Each test command runs as process 1 and ignores SIGTERM."""
    value = container.config.get("StopTimeout")
    return float(_STOP_S if value is None else value)
