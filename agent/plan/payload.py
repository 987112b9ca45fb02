# SPDX-License-Identifier: GPL-2.0-or-later
"""The Engine API's JSON of our resources (POST /containers/create, /containers/{id}/update, /networks/create ...).

Only what the user set is sent: everything else stays the engine's or the image's default. Mounts, not Binds: the
engine makes a missing bind source of Binds as a directory, on a router that is the flash.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from agent.model.kernel_names import is_systempaths
from agent.model.resources import (
    Container,
    ContainerSpec,
    Device,
    Endpoint,
    Healthcheck,
    Mount,
    Network,
    Volume,
)

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
    body: dict[str, Any] = {"Image": image, "Labels": {**dict(spec.labels), **labels}, **_config(spec)}
    body["HostConfig"] = host_config(spec, dict(container.plugged))
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
        body["NetworkingConfig"] = {"EndpointsConfig": {first.network: endpoint_body(first)}}
        if first.mac_address and api < ENDPOINT_MAC_SINCE:
            body["MacAddress"] = first.mac_address
    return body


def _config(spec: ContainerSpec) -> dict[str, Any]:
    values: dict[str, Any] = {
        "Hostname": spec.hostname,
        "Domainname": spec.domainname,
        "User": spec.user,
        "WorkingDir": spec.workdir,
        "Tty": spec.tty,
        "OpenStdin": spec.stdin,
        "StopSignal": spec.stop_signal,
        "StopTimeout": spec.stop_timeout_s,
        "Cmd": list(spec.command) if spec.command is not None else None,
        "Entrypoint": list(spec.entrypoint) if spec.entrypoint is not None else None,
        "Env": [f"{key}={value}" for key, value in spec.env] or None,
        "ExposedPorts": {f"{p.container_port}/{p.protocol}": {} for p in spec.ports} or None,
        "Healthcheck": _healthcheck(spec.health) if spec.health else None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _healthcheck(health: Healthcheck) -> dict[str, Any]:
    test = None
    if health.cmd is not None:
        test = ["NONE"] if health.cmd == "none" else ["CMD-SHELL", health.cmd]
    values = {
        "Test": test,
        "Interval": health.interval_ns,
        "Timeout": health.timeout_ns,
        "Retries": health.retries,
        "StartPeriod": health.start_period_ns,
    }
    return {name: value for name, value in values.items() if value is not None}


def host_config(spec: ContainerSpec, plugged: Mapping[str, str]) -> dict[str, Any]:
    """The HostConfig object. `plugged`: `usb:` name -> path of the device."""
    network_mode = spec.endpoints[0].network if spec.endpoints else spec.network_mode
    values: dict[str, Any] = {
        "Privileged": spec.privileged,
        **_resources(spec),
        "ShmSize": spec.shm_size,
        "OomKillDisable": spec.oom_kill_disable,
        "Init": spec.init,
        "ReadonlyRootfs": spec.read_only,
        "Runtime": spec.runtime,
        "NetworkMode": network_mode,
        "IpcMode": spec.ipc,
        "PidMode": spec.pid,
        "UsernsMode": spec.userns,
        "PublishAllPorts": spec.publish_all,
        "PortBindings": port_bindings(spec) or None,
        "Mounts": [_mount(mount) for mount in spec.mounts] or None,
        "Tmpfs": {item.target: item.options for item in spec.tmpfs} or None,
        "Devices": [_device(device, plugged) for device in spec.devices] or None,
        "DeviceCgroupRules": list(spec.device_cgroup_rules) or None,
        "CapAdd": list(spec.cap_add) or None,
        "CapDrop": list(spec.cap_drop) or None,
        "Sysctls": dict(spec.sysctls) or None,
        "Ulimits": [{"Name": u.name, "Soft": u.soft, "Hard": u.hard} for u in spec.ulimits] or None,
        "Dns": list(spec.dns) or None,
        "DnsSearch": list(spec.dns_search) or None,
        "DnsOptions": list(spec.dns_opt) or None,
        "ExtraHosts": list(spec.extra_hosts) or None,
        "GroupAdd": list(spec.group_add) or None,
        **_security(spec),
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": list(spec.cdi_devices)}]
        if spec.cdi_devices
        else None,
        "LogConfig": _log_config(spec),
    }
    return {name: value for name, value in values.items() if value is not None}


def _security(spec: ContainerSpec) -> dict[str, Any]:
    """`systempaths=unconfined` is docker's own: the engine knows two lists of paths instead, and empty ones hide none."""
    options = [option for option in spec.security_opt if not is_systempaths(option)]
    options += [f"seccomp={spec.seccomp}"] if spec.seccomp is not None else []
    found: dict[str, Any] = {"SecurityOpt": options or None}
    if any(is_systempaths(option) for option in spec.security_opt):
        found |= {"MaskedPaths": [], "ReadonlyPaths": []}
    return found


def _device(device: Device, plugged: Mapping[str, str]) -> dict[str, str]:
    path = plugged.get(device.host, device.host)
    inside = device.container or path
    return {"PathOnHost": path, "PathInContainer": inside, "CgroupPermissions": device.permissions}


def _resources(spec: ContainerSpec) -> dict[str, Any]:
    restart = spec.restart
    return {
        "Memory": spec.memory,
        "MemorySwap": spec.memory_swap,
        "MemoryReservation": spec.memory_reservation,
        "NanoCpus": spec.nano_cpus,
        "CpuShares": spec.cpu_shares,
        "CpusetCpus": spec.cpuset,
        "PidsLimit": spec.pids_limit,
        "BlkioWeight": spec.blkio_weight,
        "RestartPolicy": {"Name": restart.name, "MaximumRetryCount": restart.max_retries}
        if restart
        else None,
    }


_UPDATE_KEYS = {
    "memory": "Memory",
    "memory_swap": "MemorySwap",
    "memory_reservation": "MemoryReservation",
    "nano_cpus": "NanoCpus",
    "cpu_shares": "CpuShares",
    "cpuset": "CpusetCpus",
    "pids_limit": "PidsLimit",
    "blkio_weight": "BlkioWeight",
    "restart": "RestartPolicy",
}


def update_body(spec: ContainerSpec, changed: Collection[str]) -> dict[str, Any]:
    """Body of POST /containers/{id}/update for the fields `changed`."""
    values = _resources(spec)
    body = {_UPDATE_KEYS[name]: values[_UPDATE_KEYS[name]] for name in sorted(changed)}
    if "restart" in changed and spec.restart is None:
        body["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    if "pids_limit" in changed and spec.pids_limit is None:
        body["PidsLimit"] = -1
    if "memory" in changed and "memory_swap" not in changed and spec.memory is not None:
        # the engine set swap to twice the old memory by itself and refuses memory above it (moby#39541)
        body["MemorySwap"] = spec.memory_swap or 2 * spec.memory
    return body


def _log_config(spec: ContainerSpec) -> dict[str, Any] | None:
    if spec.log_driver is None and not spec.log_opts:
        return None
    config: dict[str, Any] = {"Config": dict(spec.log_opts)}
    if spec.log_driver is not None:
        config["Type"] = spec.log_driver
    return config


def port_bindings(spec: ContainerSpec) -> dict[str, list[dict[str, str]]]:
    """HostConfig.PortBindings."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in spec.ports:
        host_port = str(port.host_port) if port.host_port else ""
        host_port += f"-{port.host_port_end}" if port.host_port_end else ""
        key = f"{port.container_port}/{port.protocol}"
        bindings.setdefault(key, []).append({"HostIp": port.host_ip, "HostPort": host_port})
    return bindings


def _mount(mount: Mount) -> dict[str, Any]:
    body: dict[str, Any] = {"Type": "bind" if mount.is_bind else "volume", "Target": mount.target}
    if mount.source:
        body["Source"] = mount.source
    if mount.read_only:
        body["ReadOnly"] = True
    if mount.propagation:
        body["BindOptions"] = {"Propagation": mount.propagation}
    if mount.no_copy:
        body["VolumeOptions"] = {"NoCopy": True}
    return body


def endpoint_body(endpoint: Endpoint) -> dict[str, Any]:
    """An EndpointSettings object."""
    body: dict[str, Any] = {}
    if endpoint.aliases:
        body["Aliases"] = list(endpoint.aliases)
    addresses = {"IPv4Address": endpoint.ip, "IPv6Address": endpoint.ip6}
    if any(addresses.values()):
        body["IPAMConfig"] = {name: value for name, value in addresses.items() if value}
    if endpoint.mac_address:
        body["MacAddress"] = endpoint.mac_address
    return body


def extra_endpoints(container: Container) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The networks after the first, to be connected before the start: old engines take one endpoint at create."""
    return tuple((endpoint.network, endpoint_body(endpoint)) for endpoint in container.spec.endpoints[1:])


def network_body(network: Network, labels: Mapping[str, str]) -> dict[str, Any]:
    """Body of POST /networks/create."""
    spec = network.spec
    body: dict[str, Any] = {
        "Name": network.name,
        "Driver": spec.driver,
        "CheckDuplicate": True,
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
