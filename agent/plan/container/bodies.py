# SPDX-License-Identifier: GPL-2.0-or-later
"""Converts containers, networks and volumes to and from the JSON of the Engine API (POST /containers/create, GET
/containers/{id}/json).

To the engine: only options that the user set are sent; everything else keeps the default of the engine or image.
Mounts are sent as Mounts, not as Binds: for Binds the engine would create a missing source directory, on a router
usually on its flash.

From the engine: `read_spec` returns a ContainerSpec in the canonical forms that decoding produces (sorted, full
capability names ...). It still contains what the image and the engine filled in: `agent.plan.adoption` removes that,
and `agent.plan.container.difference` only compares options that a section sets.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from agent.model import engine_json
from agent.model.container_table import BY_FIELD, body_of, fields_of
from agent.model.kernel_names import is_systempaths, parse_profile
from agent.model.quantities import QuantityError
from agent.model.resources import (
    DEFAULT_NETWORKS,
    NO_NETWORKS,
    Container,
    ContainerSpec,
    Endpoint,
    Mount,
    Network,
    Tmpfs,
    Volume,
)

ENDPOINT_MAC_SINCE = (1, 44)  # older engines take one MAC address for the whole container, in Config
ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")  # the name that the engine gives a volume without one


def container_body(
    container: Container,
    *,
    labels: Mapping[str, str],
    image: str,
    api: tuple[int, int],
    carry: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Body of POST /containers/create. `carry`: target -> name, of the anonymous volumes to take over from an old
    container."""
    spec = container.spec
    body: dict[str, Any] = {
        "Image": image,
        "Labels": {**dict(spec.labels), **labels},
        **body_of(spec)["Config"],
    }
    body["HostConfig"] = host_config(spec, dict(container.plugged))
    if spec.ports:
        published = (f"{p.container_port}/{p.protocol}" for p in spec.ports)
        body["ExposedPorts"] = body.get("ExposedPorts", {}) | engine_json.exposed(published)
    # anonymous volumes move to the new container, unless the section now mounts something at their target
    declared = {mount.target for mount in spec.mounts if mount.source}
    carried = [
        {"Type": "volume", "Source": name, "Target": target}
        for target, name in sorted((carry or {}).items())
        if target not in declared
    ]
    if carried:
        fresh = [m for m in body["HostConfig"].get("Mounts", []) if m["Target"] not in (carry or {})]
        body["HostConfig"]["Mounts"] = fresh + carried
    if spec.endpoints:
        first = spec.endpoints[0]
        at_once = {endpoint.network: endpoint_body(endpoint) for endpoint in _at_create(spec, api)}
        body["NetworkingConfig"] = {"EndpointsConfig": at_once}
        # older engines take a single MAC address outside of the networks and use it for the first one
        if first.mac_address and api < ENDPOINT_MAC_SINCE:
            body["MacAddress"] = first.mac_address
    return body


def host_config(spec: ContainerSpec, plugged: Mapping[str, str]) -> dict[str, Any]:
    """The HostConfig object. `plugged`: `usb:` name -> path of the device."""
    devices = tuple(replace(device, host=plugged.get(device.host, device.host)) for device in spec.devices)
    mounts = [engine_json.mount(mount) for mount in spec.mounts]
    # `VolumeDriver` only affects Binds and volumes of the image, so Mounts need a DriverConfig
    for mount in mounts if spec.volume_driver else ():
        if mount["Type"] == "volume":
            driver = {"DriverConfig": {"Name": spec.volume_driver}}
            mount["VolumeOptions"] = mount.get("VolumeOptions", {}) | driver
    logging: dict[str, Any] = {"Config": dict(spec.log_opts)}
    if spec.log_driver is not None:
        logging["Type"] = spec.log_driver
    values: dict[str, Any] = {
        # the first network is joined at create: a container that is connected later would start on the default bridge
        "NetworkMode": spec.endpoints[0].network if spec.endpoints else spec.network_mode,
        "Mounts": mounts or None,
        "Tmpfs": {item.target: item.options for item in spec.tmpfs} or None,
        **_security(spec),
        "DeviceRequests": _requests(spec) or None,
        "LogConfig": logging if spec.log_driver is not None or spec.log_opts else None,
    }
    found = body_of(replace(spec, devices=devices))["HostConfig"]
    return found | {name: value for name, value in values.items() if value is not None}


def _requests(spec: ContainerSpec) -> list[dict[str, Any]]:
    named = [{"Driver": "cdi", "DeviceIDs": list(spec.cdi_devices)}] if spec.cdi_devices else []
    return [*named, *map(engine_json.gpus, spec.gpus)]


def _security(spec: ContainerSpec) -> dict[str, Any]:
    """Translates `systempaths=unconfined`, which only the docker client knows: the API has two lists of paths to hide,
    and empty lists hide none."""
    options = [option for option in spec.security_opt if not is_systempaths(option)]
    options += [f"seccomp={spec.seccomp}"] if spec.seccomp is not None else []
    found: dict[str, Any] = {"SecurityOpt": options or None}
    if any(is_systempaths(option) for option in spec.security_opt):
        found |= {"MaskedPaths": [], "ReadonlyPaths": []}
    return found


def update_body(spec: ContainerSpec, changed: Collection[str]) -> dict[str, Any]:
    """Body of POST /containers/{id}/update for the fields `changed`."""
    keys = [BY_FIELD[name].key.partition(".")[2] for name in sorted(changed)]
    stated = body_of(spec)["HostConfig"]
    body = {key: stated.get(key) for key in keys}
    if "restart" in changed and spec.restart is None:
        body["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    if "pids_limit" in changed and spec.pids_limit is None:
        body["PidsLimit"] = -1
    if "memory" in changed and "memory_swap" not in changed and spec.memory is not None:
        # the engine set swap to twice the old memory, and refuses a memory limit above the swap limit (moby#39541)
        body["MemorySwap"] = spec.memory_swap or 2 * spec.memory
    return body


def endpoint_body(endpoint: Endpoint) -> dict[str, Any]:
    """An EndpointSettings object."""
    # send only what is set: an empty object would override the engine's own choice
    body: dict[str, Any] = {}
    if endpoint.aliases:
        body["Aliases"] = list(endpoint.aliases)
    addresses = {"IPv4Address": endpoint.ip, "IPv6Address": endpoint.ip6}
    if any(addresses.values()):
        body["IPAMConfig"] = {name: value for name, value in addresses.items() if value}
    if endpoint.link_local:
        body.setdefault("IPAMConfig", {})["LinkLocalIPs"] = list(endpoint.link_local)
    if endpoint.driver_opts:
        body["DriverOpts"] = dict(endpoint.driver_opts)
    if endpoint.gw_priority is not None:
        body["GwPriority"] = endpoint.gw_priority
    if endpoint.mac_address:
        body["MacAddress"] = endpoint.mac_address
    return body


def _at_create(spec: ContainerSpec, api: tuple[int, int]) -> list[Endpoint]:
    """The first network, and networks with a MAC address: engines since 25.0 accept that address at create but not in a
    later connect."""
    first, *others = spec.endpoints
    return [first, *(e for e in others if e.mac_address and api >= ENDPOINT_MAC_SINCE)]


def extra_endpoints(
    container: Container, api: tuple[int, int] = (1, 41)
) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The networks to connect after the create and before the start: old engines accept only one endpoint at create."""
    if not container.spec.endpoints:
        return ()
    made = _at_create(container.spec, api)
    return tuple((e.network, endpoint_body(e)) for e in container.spec.endpoints if e not in made)


def network_body(network: Network, labels: Mapping[str, str]) -> dict[str, Any]:
    """Body of POST /networks/create."""
    spec = network.spec
    body: dict[str, Any] = {
        "Name": network.name,
        "Driver": spec.driver,
        "CheckDuplicate": True,  # without it, engines before 25.0 create a second network of the same name
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "EnableIPv6": spec.ipv6,
        "Options": dict(spec.options),
        "Labels": {**dict(spec.labels), **labels},
    }
    if spec.pools:
        pools = []
        for pool in spec.pools:
            item: dict[str, Any] = {"Subnet": pool.subnet, "Gateway": pool.gateway, "IPRange": pool.ip_range}
            item["AuxiliaryAddresses"] = dict(pool.aux_addresses)
            pools.append({name: value for name, value in item.items() if value})
        body["IPAM"] = {"Driver": "default", "Config": pools}
    return body


def volume_body(volume: Volume, labels: Mapping[str, str]) -> dict[str, Any]:
    """Body of POST /volumes/create."""
    spec = volume.spec
    merged = {**dict(spec.labels), **labels}
    return {"Name": volume.name, "Driver": spec.driver, "DriverOpts": dict(spec.options), "Labels": merged}


def read_spec(inspect: Mapping[str, Any], names: Mapping[str, str]) -> ContainerSpec:
    """The spec of an existing container. `names`: id -> name, of containers whose namespaces it may share."""
    config, host = inspect.get("Config") or {}, inspect.get("HostConfig") or {}
    mode, endpoints = _networks(inspect, names)
    logging = host.get("LogConfig") or {}
    found = fields_of(inspect)
    requests = host.get("DeviceRequests") or ()
    cdi = (item for item in requests if item.get("Driver") == "cdi")
    # the engine exposes published ports by itself
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
        **_security_shown(host),
    }
    return ContainerSpec(**found | apart)


def _security_shown(host: Mapping[str, Any]) -> dict[str, Any]:
    options = _sorted(host.get("SecurityOpt"))
    profile = next((option.partition("=")[2] for option in options if option.startswith("seccomp={")), None)
    if profile is not None:
        # another client sent a profile that we cannot parse, and the engine accepted it
        with contextlib.suppress(QuantityError):
            profile = parse_profile(profile)
    if host.get("MaskedPaths") == [] and host.get("ReadonlyPaths") == []:
        options = _sorted([*options, "systempaths=unconfined"])
    return {"security_opt": options, "seccomp": profile}


def _lender(entry: str, names: Mapping[str, str]) -> str:
    """Converts an entry of VolumesFrom: `name[:mode]`, or an id instead of the name."""
    other, _, mode = entry.partition(":")
    found = names.get(other, other)
    return f"{found}:ro" if "ro" in mode.split(",") else found


def _sorted(items: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(sorted(set(items or ())))


# mounts


def _mounts(inspect: Mapping[str, Any]) -> list[Mount]:
    """The mounts in effect that come from `-v`, `--mount` or the image; mounts of `volumes_from` are left out."""
    host = inspect.get("HostConfig") or {}
    # `nocopy` appears only in the request (HostConfig.Mounts), not in the mounts in effect
    no_copy = {
        item["Target"] for item in host.get("Mounts") or () if (item.get("VolumeOptions") or {}).get("NoCopy")
    }
    return [
        _mount(item, no_copy=item["Destination"] in no_copy)
        for item in inspect.get("Mounts") or ()
        if item.get("Type") in {"bind", "volume"} and not is_lent(item, inspect)
    ]


def is_lent(item: Mapping[str, Any], inspect: Mapping[str, Any]) -> bool:
    """Whether a mount comes from VolumesFrom, that is, neither the container's creator nor its image asked for it."""
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
    # the engine chose the name of an anonymous volume; as a source it would tie the section to this one container
    source = str(item.get("Source") or "") if bind else ("" if is_anonymous(name) else name)
    propagation = str(item.get("Propagation") or "") if bind else ""
    return Mount(
        source=source,
        target=item["Destination"],
        read_only=not item.get("RW", True),
        # the engine fills in `rprivate` if nothing was requested
        propagation="" if propagation == "rprivate" else propagation,
        no_copy=not bind and (no_copy or "nocopy" in str(item.get("Mode") or "").split(",")),
    )


def is_anonymous(volume: str) -> bool:
    """Whether the engine chose this volume's name: 64 hex digits."""
    return _ANONYMOUS.fullmatch(volume) is not None


def anonymous_volumes(inspect: Mapping[str, Any]) -> dict[str, str]:
    """Target -> name of the anonymous volumes of a container."""
    mounts = (item for item in inspect.get("Mounts") or () if item.get("Type") == "volume")
    own = (item for item in mounts if not is_lent(item, inspect))
    return {item["Destination"]: item["Name"] for item in own if is_anonymous(item.get("Name") or "")}


def volumes_of(inspect: Mapping[str, Any]) -> tuple[str, ...]:
    """The anonymous volumes of a container, in the form that records store."""
    return volume_words(anonymous_volumes(inspect))


def volume_words(volumes: Mapping[str, str]) -> tuple[str, ...]:
    """Target -> volume as `NAME=TARGET`."""
    return tuple(sorted(f"{name}={target}" for target, name in volumes.items()))


def _tmpfs(host: Mapping[str, Any]) -> list[Tmpfs]:
    # the engine reports `--tmpfs` and `--mount type=tmpfs` in two different places
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
    """A namespace mode with the container's name: the engine stores `container:` with an id, a section has the name."""
    if not mode or not mode.startswith("container:"):
        return mode or None
    other = mode.removeprefix("container:")
    return f"container:{names.get(other, other)}"


def _networks(
    inspect: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[str | None, tuple[Endpoint, ...]]:
    """The network mode if it allows no networks, otherwise the endpoints, with the network of the mode first.

    The endpoints decide: the mode keeps the name of a network even after the container was disconnected from it.
    """
    mode = str((inspect.get("HostConfig") or {}).get("NetworkMode") or "")
    if mode in NO_NETWORKS or mode.startswith("container:"):
        return shared(mode, names), ()
    running = bool((inspect.get("State") or {}).get("Running"))
    seen = {
        name: item
        for name, item in ((inspect.get("NetworkSettings") or {}).get("Networks") or {}).items()
        if not running or item.get("EndpointID")  # a failed connect leaves an entry without an EndpointID
    }
    first = "bridge" if mode in DEFAULT_NETWORKS else mode
    order = sorted(seen, key=lambda name: (name != first and seen[name].get("NetworkID") != first, name))
    mac = str((inspect.get("Config") or {}).get("MacAddress") or "")
    endpoints = [_endpoint(name, seen[name], str(inspect.get("Id") or "")) for name in order]
    if mac and endpoints:
        endpoints[0] = replace(endpoints[0], mac_address=mac.lower())
    if endpoints == [Endpoint(network="bridge")]:
        return None, ()  # every container gets this one by default
    return None, tuple(endpoints)


def _endpoint(network: str, item: Mapping[str, Any], container_id: str) -> Endpoint:
    """The static settings of an endpoint."""
    ipam = item.get("IPAMConfig") or {}
    # engines before API 1.45 add the short id to the aliases; it is different for every container
    aliases = [alias for alias in item.get("Aliases") or () if alias != container_id[:12]]
    return Endpoint(
        network=network,
        aliases=tuple(dict.fromkeys(aliases)),
        ip=ipam.get("IPv4Address") or "",
        ip6=ipam.get("IPv6Address") or "",
        link_local=_sorted(ipam.get("LinkLocalIPs")),
        driver_opts=driver_opts(item),
        # the engine reports 0 if no priority was requested
        gw_priority=item.get("GwPriority") or None,
    )


def driver_opts(item: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The driver options of an endpoint, without the sysctls of `net.*.eth0.*`, which the engine moves there by itself."""
    return tuple(sorted((k, v) for k, v in (item.get("DriverOpts") or {}).items() if k != ENDPOINT_SYSCTLS))
