# SPDX-License-Identifier: GPL-2.0-or-later
"""Converts values with several parts to and from the JSON of the Engine API. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agent.model.kernel_names import parse_capability
from agent.model.quantities import QuantityError
from agent.model.resources import Device, DeviceLimit, Gpus, Healthcheck, Mount, Port, RestartPolicy, Ulimit

_PORT = re.compile(r"([0-9]{1,5})(?:/([a-z]+))?")


def restart(policy: RestartPolicy) -> dict[str, Any]:
    return {"Name": policy.name, "MaximumRetryCount": policy.max_retries}


def read_restart(given: Mapping[str, Any] | None) -> RestartPolicy:
    policy = given or {}
    return RestartPolicy(name=policy.get("Name") or "no", max_retries=policy.get("MaximumRetryCount") or 0)


def env(variables: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{key}={value}" for key, value in variables]


def read_env(given: Iterable[str] | None) -> tuple[tuple[str, str], ...]:
    """A name without a value removes the image's variable; it is left out here."""
    return tuple(sorted(dict(entry.split("=", 1) for entry in given or () if "=" in entry).items()))


def device(item: Device) -> dict[str, str]:
    inside = item.container or item.host
    return {"PathOnHost": item.host, "PathInContainer": inside, "CgroupPermissions": item.permissions}


def read_device(item: Mapping[str, str]) -> Device:
    host = item.get("PathOnHost", "")
    return Device(
        host=host,
        container=item.get("PathInContainer") or host,
        permissions=item.get("CgroupPermissions") or "rwm",
    )


def ulimit(limit: Ulimit) -> dict[str, Any]:
    return {"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard}


def read_ulimit(item: Mapping[str, Any]) -> Ulimit:
    return Ulimit(name=item["Name"], soft=item["Soft"], hard=item["Hard"])


def weight(item: DeviceLimit) -> dict[str, Any]:
    return {"Path": item.path, "Weight": item.limit}


def rate(item: DeviceLimit) -> dict[str, Any]:
    return {"Path": item.path, "Rate": item.limit}


def read_limit(item: Mapping[str, Any]) -> DeviceLimit:
    return DeviceLimit(path=str(item.get("Path") or ""), limit=item.get("Rate", item.get("Weight", 0)))


def gpus(item: Gpus) -> dict[str, Any]:
    """A DeviceRequest, as docker's command line makes it (docker/cli opts/gpus.go)."""
    return {
        "Driver": item.driver or "",
        "Count": item.count or 0,
        "DeviceIDs": list(item.devices) or None,
        "Capabilities": [["gpu", *item.capabilities]],
        "Options": dict(item.options),
    }


def read_gpus(item: Mapping[str, Any]) -> Gpus:
    named = {name for names in item.get("Capabilities") or () for name in names}
    return Gpus(
        count=item.get("Count") or None,
        driver=item.get("Driver") or None,
        devices=tuple(item.get("DeviceIDs") or ()),
        capabilities=tuple(sorted(named - {"gpu"})),
        options=tuple(sorted((item.get("Options") or {}).items())),
    )


def made_gpus(**record: Any) -> Gpus:
    """Builds the value from a record, which has lists instead of tuples."""
    return Gpus(
        count=record.get("count"),
        driver=record.get("driver"),
        devices=tuple(record.get("devices", ())),
        capabilities=tuple(record.get("capabilities", ())),
        options=tuple((str(key), str(value)) for key, value in record.get("options", ())),
    )


def is_gpus(item: Mapping[str, Any]) -> bool:
    """Whether a DeviceRequest is for GPUs and `gpus` can express it."""
    (named, *others) = item.get("Capabilities") or [()]
    return item.get("Driver") != "cdi" and "gpu" in named and not others


def exposed(ports: Iterable[str]) -> dict[str, dict[str, Any]]:
    return {port: {} for port in ports}


def read_exposed(given: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(sorted(port if "/" in port else f"{port}/tcp" for port in given or ()))


def read_capability(name: str) -> str:
    try:
        return parse_capability(name)
    except QuantityError:
        return name


def health(check: Healthcheck) -> dict[str, Any]:
    test = None
    if check.cmd is not None:
        test = ["NONE"] if check.cmd == "none" else ["CMD-SHELL", check.cmd]
    elif check.argv:
        test = ["CMD", *check.argv]
    values = {
        "Test": test,
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "Retries": check.retries,
        "StartPeriod": check.start_period_ns,
        "StartInterval": check.start_interval_ns,
    }
    # send only what is set: zero means the image's value, and null is not always equivalent
    return {name: value for name, value in values.items() if value is not None}


def read_health(given: Mapping[str, Any] | None) -> Healthcheck | None:
    check = given or {}
    # empty or missing if the image defines the test
    kind, *words = check.get("Test") or ("",)
    health = Healthcheck(
        cmd={"NONE": "none", "CMD-SHELL": " ".join(words)}.get(kind) or None,
        argv=tuple(words) if kind == "CMD" else (),
        # the engine's answer does not distinguish 0 and unset
        interval_ns=check.get("Interval") or None,
        timeout_ns=check.get("Timeout") or None,
        retries=check.get("Retries") or None,
        start_period_ns=check.get("StartPeriod") or None,
        start_interval_ns=check.get("StartInterval") or None,
    )
    return None if health == Healthcheck() else health


def port_bindings(published: Iterable[Port]) -> dict[str, list[dict[str, str]]]:
    """HostConfig.PortBindings."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in published:
        host_port = str(port.host_port) if port.host_port else ""
        host_port += f"-{port.host_port_end}" if port.host_port_end else ""
        key = f"{port.container_port}/{port.protocol}"
        bindings.setdefault(key, []).append({"HostIp": port.host_ip, "HostPort": host_port})
    return bindings


def read_ports(given: Mapping[str, list[Mapping[str, str]] | None] | None) -> tuple[Port, ...]:
    """Reads HostConfig.PortBindings; from a range of host ports the engine chooses one."""
    found = set()
    for key, entries in (given or {}).items():
        match = _PORT.fullmatch(key)
        for entry in (entries or ()) if match else ():
            first, _, last = (entry.get("HostPort") or "0").partition("-")
            # host port 0 and an empty one both let the engine choose
            port = Port(
                container_port=int(match[1]) if match else 0,
                host_port=int(first) if first.isdigit() else 0,
                host_port_end=int(last) if last.isdigit() and last != first else None,
                host_ip=entry.get("HostIp") or "",
                protocol=(match[2] if match else "") or "tcp",
            )
            found.add(port)
    return tuple(
        sorted(found, key=lambda p: (p.container_port, p.protocol, p.host_ip, p.host_port, p.host_text))
    )


def mount(item: Mount) -> dict[str, Any]:
    body: dict[str, Any] = {"Type": "bind" if item.is_bind else "volume", "Target": item.target}
    # without Source the engine makes an anonymous volume
    if item.source:
        body["Source"] = item.source
    if item.read_only:
        body["ReadOnly"] = True
    if item.propagation:
        body["BindOptions"] = {"Propagation": item.propagation}
    if item.no_copy:
        body["VolumeOptions"] = {"NoCopy": True}
    return body
