# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine shows of a container (body of GET /containers/{id}/json), in the words of a ContainerSpec.

The inverse of `agent.plan.container.payload`, in the canonical forms that decoding gives (sorted, full capability
names ...). It holds what the image and the engine filled in as well: `agent.plan.adoption` takes that away, and
`agent.plan.container.difference` only looks at what a section says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from agent.model import engine_json
from agent.model.container_table import fields_of
from agent.model.kernel_names import parse_profile
from agent.model.quantities import QuantityError
from agent.model.resources import DEFAULT_NETWORKS, NO_NETWORKS, ContainerSpec, Endpoint, Mount, Tmpfs

ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


def read_spec(inspect: Mapping[str, Any], names: Mapping[str, str]) -> ContainerSpec:
    """`names`: id -> name of containers whose namespaces this one may share."""
    config, host = inspect.get("Config") or {}, inspect.get("HostConfig") or {}
    mode, endpoints = _networks(inspect, names)
    logging = host.get("LogConfig") or {}
    found = fields_of(inspect)
    requests = host.get("DeviceRequests") or ()
    cdi = (item for item in requests if item.get("Driver") == "cdi")
    # the engine exposes what it publishes by itself
    published = engine_json.read_exposed(host.get("PortBindings"))
    apart = {
        "image": str(config.get("Image") or ""),
        "labels": tuple(sorted((config.get("Labels") or {}).items())),
        "ipc": shared(found["ipc"], names),
        "pid": shared(found["pid"], names),
        "log_driver": logging.get("Type") or None,
        "log_opts": tuple(sorted((logging.get("Config") or {}).items())),
        "network_mode": mode,
        "endpoints": endpoints,
        "mounts": tuple(sorted(_mounts(inspect), key=lambda mount: (mount.target, mount.source))),
        "tmpfs": tuple(sorted(_tmpfs(host), key=lambda entry: entry.target)),
        "cdi_devices": _sorted(name for item in cdi for name in item.get("DeviceIDs") or ()),
        "gpus": tuple(map(engine_json.read_gpus, filter(engine_json.is_gpus, requests))),
        "expose": tuple(port for port in found["expose"] if port not in published),
        "volumes_from": tuple(_lender(entry, names) for entry in host.get("VolumesFrom") or ()),
        **_security(host),
    }
    return ContainerSpec(**found | apart)


def _security(host: Mapping[str, Any]) -> dict[str, Any]:
    options = _sorted(host.get("SecurityOpt"))
    profile = next((option.partition("=")[2] for option in options if option.startswith("seccomp={")), None)
    if profile is not None:
        with contextlib.suppress(QuantityError):  # of another client, which the engine took all the same
            profile = parse_profile(profile)
    if host.get("MaskedPaths") == [] and host.get("ReadonlyPaths") == []:
        options = _sorted([*options, "systempaths=unconfined"])
    return {"security_opt": options, "seccomp": profile}


def _lender(entry: str, names: Mapping[str, str]) -> str:
    """An entry of VolumesFrom: `name[:mode]`, or an id."""
    other, _, mode = entry.partition(":")
    found = names.get(other, other)
    return f"{found}:ro" if "ro" in mode.split(",") else found


def _sorted(items: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(sorted(set(items or ())))


# mounts


def _mounts(inspect: Mapping[str, Any]) -> list[Mount]:
    """The mounts in effect: of `-v`, `--mount`, `--volumes-from` and the image alike."""
    host = inspect.get("HostConfig") or {}
    no_copy = {
        item["Target"] for item in host.get("Mounts") or () if (item.get("VolumeOptions") or {}).get("NoCopy")
    }
    return [
        _mount(item, no_copy=item["Destination"] in no_copy)
        for item in inspect.get("Mounts") or ()
        if item.get("Type") in {"bind", "volume"} and not is_lent(item, inspect)
    ]


def is_lent(item: Mapping[str, Any], inspect: Mapping[str, Any]) -> bool:
    """Whether a mount is there because of VolumesFrom: neither the container's creator nor its image asked for it."""
    host = inspect.get("HostConfig") or {}
    if not host.get("VolumesFrom"):
        return False
    own = {mount.get("Target") for mount in host.get("Mounts") or ()}
    own |= set((inspect.get("Config") or {}).get("Volumes") or ())
    own |= {bind.split(":")[1] for bind in host.get("Binds") or () if ":" in bind}
    return item.get("Destination") not in own


def _mount(item: Mapping[str, Any], *, no_copy: bool) -> Mount:
    bind = item["Type"] == "bind"
    name = str(item.get("Name") or "")
    source = str(item.get("Source") or "") if bind else ("" if is_anonymous(name) else name)
    propagation = str(item.get("Propagation") or "") if bind else ""
    return Mount(
        source=source,
        target=item["Destination"],
        read_only=not item.get("RW", True),
        propagation="" if propagation == "rprivate" else propagation,
        no_copy=not bind and (no_copy or "nocopy" in str(item.get("Mode") or "").split(",")),
    )


def is_anonymous(volume: str) -> bool:
    """The engine names anonymous volumes with 64 hex digits."""
    return _ANONYMOUS.fullmatch(volume) is not None


def anonymous_volumes(inspect: Mapping[str, Any]) -> dict[str, str]:
    """Target -> name of the anonymous volumes of a container."""
    mounts = (item for item in inspect.get("Mounts") or () if item.get("Type") == "volume")
    own = (item for item in mounts if not is_lent(item, inspect))
    return {item["Destination"]: item["Name"] for item in own if is_anonymous(item.get("Name") or "")}


def volumes_of(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """The same as records name them."""
    return volume_words(anonymous_volumes(inspect))


def volume_words(volumes: Mapping[str, str]) -> tuple[str, ...]:
    """Target -> volume as `NAME=TARGET`."""
    return tuple(sorted(f"{name}={target}" for target, name in volumes.items()))


def _tmpfs(host: Mapping[str, Any]) -> list[Tmpfs]:
    found = [
        Tmpfs(target=target, options=options or "") for target, options in (host.get("Tmpfs") or {}).items()
    ]
    for item in host.get("Mounts") or ():
        if item.get("Type") == "tmpfs":
            given = item.get("TmpfsOptions") or {}
            options = [f"size={given['SizeBytes']}"] if given.get("SizeBytes") else []
            options += [f"mode={given['Mode']:o}"] if given.get("Mode") else []
            options += ["ro"] if item.get("ReadOnly") else []
            found.append(Tmpfs(target=item["Target"], options=",".join(options)))
    return found


# networks


def shared(mode: str | None, names: Mapping[str, str]) -> str | None:
    """A namespace mode; the engine keeps `container:` with an id, a section has the name."""
    if not mode or not mode.startswith("container:"):
        return mode or None
    other = mode.removeprefix("container:")
    return f"container:{names.get(other, other)}"


def _networks(
    inspect: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[str | None, tuple[Endpoint, ...]]:
    """The network mode if it leaves no choice of networks, otherwise the endpoints, the one of the mode first.

    The mode keeps the name of a network that the container was disconnected from: the endpoints decide.
    """
    mode = str((inspect.get("HostConfig") or {}).get("NetworkMode") or "")
    if mode in NO_NETWORKS or mode.startswith("container:"):
        return shared(mode, names), ()
    running = bool((inspect.get("State") or {}).get("Running"))
    seen = {
        name: item
        for name, item in ((inspect.get("NetworkSettings") or {}).get("Networks") or {}).items()
        if not running or item.get("EndpointID")  # a failed connect leaves an entry without
    }
    first = "bridge" if mode in DEFAULT_NETWORKS else mode
    order = sorted(seen, key=lambda name: (name != first and seen[name].get("NetworkID") != first, name))
    mac = str((inspect.get("Config") or {}).get("MacAddress") or "")
    endpoints = [_endpoint(name, seen[name], str(inspect.get("Id") or "")) for name in order]
    if mac and endpoints:
        endpoints[0] = replace(endpoints[0], mac_address=mac.lower())
    if endpoints == [Endpoint(network="bridge")]:
        return None, ()  # what every container gets
    return None, tuple(endpoints)


def _endpoint(network: str, item: Mapping[str, Any], container_id: str) -> Endpoint:
    """The static addresses; engines before API 1.45 add the short id to the aliases."""
    ipam = item.get("IPAMConfig") or {}
    aliases = [alias for alias in item.get("Aliases") or () if alias != container_id[:12]]
    return Endpoint(
        network=network,
        aliases=tuple(dict.fromkeys(aliases)),
        ip=ipam.get("IPv4Address") or "",
        ip6=ipam.get("IPv6Address") or "",
        link_local=_sorted(ipam.get("LinkLocalIPs")),
        driver_opts=driver_opts(item),
        gw_priority=item.get("GwPriority") or None,
    )


def driver_opts(item: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """An endpoint's, without those that the engine moves there by itself: sysctls of `net.*.eth0.*`."""
    return tuple(sorted((k, v) for k, v in (item.get("DriverOpts") or {}).items() if k != ENDPOINT_SYSCTLS))
