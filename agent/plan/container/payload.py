# SPDX-License-Identifier: GPL-2.0-or-later
"""The Engine API's JSON of our resources (POST /containers/create, /containers/{id}/update, /networks/create ...).

Only what the user set is sent: everything else stays the engine's or the image's default. Mounts, not Binds: the
engine makes a missing bind source of Binds as a directory, on a router that is the flash.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from agent.model import engine_json
from agent.model.container_table import BY_FIELD, body_of
from agent.model.kernel_names import is_systempaths
from agent.model.resources import Container, ContainerSpec, Endpoint, Network, Volume

ENDPOINT_MAC_SINCE = (1, 44)  # older engines take the container's MAC address in Config


def container_body(
    container: Container,
    *,
    labels: Mapping[str, str],
    image: str,
    api: tuple[int, int],
    carry: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Body of POST /containers/create. `carry`: target -> name of anonymous volumes to take over."""
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
    # anonymous volumes move to the new container, unless the section mounts something at their place now
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
        # older engines take one MAC address, beside the networks, for the first of them
        if first.mac_address and api < ENDPOINT_MAC_SINCE:
            body["MacAddress"] = first.mac_address
    return body


def host_config(spec: ContainerSpec, plugged: Mapping[str, str]) -> dict[str, Any]:
    """The HostConfig object. `plugged`: `usb:` name -> path of the device."""
    devices = tuple(replace(device, host=plugged.get(device.host, device.host)) for device in spec.devices)
    mounts = [engine_json.mount(mount) for mount in spec.mounts]
    # `VolumeDriver` alone is for Binds and for volumes that the image asks for
    for mount in mounts if spec.volume_driver else ():
        if mount["Type"] == "volume":
            driver = {"DriverConfig": {"Name": spec.volume_driver}}
            mount["VolumeOptions"] = mount.get("VolumeOptions", {}) | driver
    logging: dict[str, Any] = {"Config": dict(spec.log_opts)}
    if spec.log_driver is not None:
        logging["Type"] = spec.log_driver
    values: dict[str, Any] = {
        # the first network is joined at create: a container that is connected only later starts on the default bridge
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
    """`systempaths=unconfined` is docker's own: the engine knows two lists of paths instead, and empty ones hide none."""
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
        # the engine set swap to twice the old memory by itself and refuses memory above it (moby#39541)
        body["MemorySwap"] = spec.memory_swap or 2 * spec.memory
    return body


def endpoint_body(endpoint: Endpoint) -> dict[str, Any]:
    """An EndpointSettings object."""
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
    """The first network, and those with a MAC address, which engines since 25.0 take at create but not in a connect."""
    first, *others = spec.endpoints
    return [first, *(e for e in others if e.mac_address and api >= ENDPOINT_MAC_SINCE)]


def extra_endpoints(
    container: Container, api: tuple[int, int] = (1, 41)
) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The networks after the first, to be connected before the start: old engines take one endpoint at create."""
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
        "CheckDuplicate": True,  # before 25.0 the engine makes a second network of the name without it
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
