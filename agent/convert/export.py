# SPDX-License-Identifier: GPL-2.0-or-later
"""Sections as `docker run` lines and as a compose file: the inverse of `run_line` and `compose`.

Both start from the options of `agent.uci.encode` and use the tables of the imports. A comment mentions what docker cannot
express (waiting for a disk, a USB device by its number). The text contains what the sections contain, including secrets.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent.convert.command_line import BY_NAME
from agent.convert.compose_service import KEYS, OWN
from agent.model.entries import parse_endpoint, parse_gpus
from agent.model.resources import Container, Gpus, Network, Volume
from agent.uci.decode_network import BRIDGE_NAME, bridge_name
from agent.uci.encode import encode_container, encode_network, encode_volume

# options of our own: they concern when and how, not the container itself
_OURS = (
    "adopt", "depends_on", "enabled", "gate", "grace", "on_drift", "on_unhealthy", "pull", "remove_volumes", "rollback",
    "stack", "state", "update", "update_age", "update_window", "wait_for", "strategy", "hold_cmd", "hold_limit", "pre_stop",
    "pre_stop_timeout", "post_start", "post_start_timeout", "webui", "backup_before_update",
)  # fmt: skip
# what a section without `restart` is to the agent, in docker's words
_SERVICE = "unless-stopped"
# the flag that is written for an option, if docker has several
_FLAGS = {
    flag.option: flag for flag in reversed(tuple(BY_NAME.values())) if flag.option and flag.name not in (
        "dns-option", "link-local-ip", "mount", "net", "net-alias", "network-alias", "no-healthcheck",
    )
}  # fmt: skip
_KEYS = {key.option: (name, key) for name, key in KEYS.items() if key.option}
_NETWORK_WORDS = {
    "mac": "mac-address",
    "gw_priority": "gw-priority",
    "driver_opt": "driver-opt",
    "link_local": "link-local-ip",
}

Options = dict[str, str | tuple[str, ...]]


def _options(item: Container | Network | Volume) -> Options:
    match item:
        case Container():
            section = encode_container(item)
        case Network():
            section = encode_network(item)
        case Volume():
            section = encode_volume(item)
    return {option.name: option.value for option in section.options}


def _network_options(network: Network) -> Options:
    options = _options(network)
    # Docker gives a network no IPv6 for its subnets alone
    options |= {"ipv6": "1"} if network.spec.ipv6 else {}
    # an import derives sections from Docker names, and the bridge's name would come from that section
    bridge = dict(network.spec.options).get(BRIDGE_NAME)
    if bridge and network.name != network.section and bridge == bridge_name(network.section):
        options["opt"] = (*_items(options.get("opt", ())), f"{BRIDGE_NAME}={bridge}")
    return options


def _items(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


# docker run


def export_run(
    containers: Iterable[Container], networks: Iterable[Network] = (), volumes: Iterable[Volume] = ()
) -> str:
    """Shell lines that create the same containers, with the networks and volumes that they need."""
    lines = [
        _create("network", network.name, _network_options(network))
        if not network.external
        else f"# network {network.name}: others make it"
        for network in networks
    ]
    lines += [_create("volume", volume.name, _options(volume)) for volume in volumes]
    lines += [_run(container) for container in containers]
    return "\n".join(lines) + "\n" if lines else ""


def _create(kind: str, name: str, options: Options) -> str:
    words = ["docker", kind, "create"]
    for option, value in options.items():
        if option in ("name", "adopt", "zone", "external"):
            continue
        flag = f"--{option.replace('_', '-')}"
        switch = option in ("internal", "attachable", "ipv6")
        # with the value, because `--ipv6=false` is not the same as no flag
        words += [
            part
            for item in _items(value)
            for part in ([f"{flag}={_switch(item)}"] if switch else [flag, item])
        ]
    return shlex.join([*words, name])


def _switch(value: str) -> str:
    return "true" if value == "1" else "false"


def _run(container: Container) -> str:
    options = _options(container)
    head = ["docker", "create" if options.get("state") == "stopped" else "run"]
    head += [] if head[-1] == "create" else ["-d"]
    parts = [shlex.join([*head, "--name", container.name])]
    if "restart" not in options:
        parts.append(shlex.join(["--restart", _SERVICE]))
    notes = [
        f"# {option} {item}"
        for option in ("depends_on", "wait_for")
        for item in _items(options.get(option, ()))
    ]
    entrypoint, command = _items(options.get("entrypoint", ())), _items(options.get("command", ()))
    for option, value in options.items():
        if option in (*_OURS, "name", "image", "entrypoint", "command"):
            continue
        for flag in _flags(option, value):
            if flag.startswith("#"):
                notes.append(flag)
            else:
                parts.append(flag)
    if entrypoint:  # the flag takes a single word; the others come before the command
        parts.append(shlex.join(["--entrypoint", entrypoint[0]]))
    parts.append(shlex.join([str(options["image"]), *entrypoint[1:], *command]))
    return "\n".join([*notes, " \\\n  ".join(parts)])


def _flags(option: str, value: str | tuple[str, ...]) -> Iterator[str]:
    if option == "network":
        for item in _items(value):
            name, *settings = item.split(",")
            words = (setting.partition("=") for setting in settings)
            rest = [f"{_NETWORK_WORDS.get(key, key)}={text}" for key, _, text in words]
            # docker allows settings only after `name=`
            yield shlex.join(["--network", ",".join([f"name={name}", *rest]) if rest else name])
    elif option == "network_mode":
        yield shlex.join(["--network", str(value)])
    elif option == "health_cmd" and value == "none":
        yield "--no-healthcheck"
    elif option == "health_cmd" and not isinstance(value, str):
        yield "# health_cmd: a program with arguments, which the flag gives to a shell"
        yield shlex.join(["--health-cmd", shlex.join(value)])
    elif option == "device" and any(item.startswith("usb:") for item in _items(value)):
        for item in _items(value):
            usb = item.startswith("usb:")
            yield (
                f"# device {item}: docker does not find it by its number"
                if usb
                else shlex.join(["--device", item])
            )
    elif option in _FLAGS:
        flag = _FLAGS[option]
        for item in _items(value):
            yield f"--{flag.name}={_switch(item)}" if flag.switch else shlex.join([f"--{flag.name}", item])
    else:
        yield f"# {option}: docker run has no flag for it"


# compose


def export_compose(
    containers: Iterable[Container],
    networks: Iterable[Network] = (),
    volumes: Iterable[Volume] = (),
    *,
    project: str = "",
) -> str:
    """A compose file (YAML) with the containers, and the networks and volumes that they need."""
    listed = list(containers)
    document: dict[str, Any] = {"name": project} if project else {}
    names = {container.section: container.name for container in listed}
    document["services"] = {container.name: _service(container, names) for container in listed}
    # names are explicit: compose would otherwise add the project's name, and create another object
    declared = {network.name: network for network in networks}
    used = dict.fromkeys(endpoint.network for container in listed for endpoint in container.spec.endpoints)
    if used:
        document["networks"] = {name: _network(name, declared.get(name)) for name in used}
    known = {volume.name: volume for volume in volumes}
    named = dict.fromkeys(
        mount.source for c in listed for mount in c.spec.mounts if mount.source and not mount.is_bind
    )
    if named:
        document["volumes"] = {name: _volume(name, known.get(name)) for name in named}
    return "".join(_yaml(_escaped(document), 0))


_CONDITIONS = {
    "": "service_started",
    "started": "service_started",
    "healthy": "service_healthy",
    "completed": "service_completed_successfully",
}


def _service(container: Container, names: Mapping[str, str]) -> dict[str, Any]:
    options = _options(container)
    service: dict[str, Any] = {"image": options["image"], "container_name": container.name}
    for option, value in options.items():
        if option in ("name", "image"):
            continue
        if option == "depends_on":
            split = (item.partition(":") for item in _items(value))
            # a section that is not exported cannot be waited for: compose would refuse the file
            wanted = {names[section]: _CONDITIONS[word] for section, _, word in split if section in names}
            if wanted:
                service["depends_on"] = {name: {"condition": condition} for name, condition in wanted.items()}
        elif option in _WRITERS:
            service |= _WRITERS[option](value)
        elif option in _KEYS:
            name, key = _KEYS[option]
            service[name] = _formed(key.form, value)
        elif option.startswith("health_"):
            service.setdefault("healthcheck", {}).update(_health(option, value))
        elif option in ("log_driver", "log_opt"):
            inner = {"driver": value} if option == "log_driver" else {"options": _pairs(value)}
            service.setdefault("logging", {}).update(inner)
        elif option.startswith(("blkio_", "device_read", "device_write")):
            service.setdefault("blkio_config", {}).update(_blkio(option, value))
        elif option not in _OURS:
            service.setdefault(OWN, {})[option] = value if isinstance(value, str) else list(value)
    service.setdefault("restart", _SERVICE)
    if not container.spec.endpoints and container.spec.network_mode is None:
        service["network_mode"] = "bridge"  # otherwise compose would create a network
    # `option mac_address` belongs to the first network, and so does compose's key
    if "mac_address" in options and service.get("networks"):
        first = next(iter(service["networks"]))
        settings = service["networks"][first] or {}
        service["networks"][first] = {**settings, "mac_address": service.pop("mac_address")}
    return service


def _formed(form: str, value: str | tuple[str, ...]) -> Any:
    if form == "flag":
        return value == "1"
    if form == "pairs":
        return _pairs(value)
    return list(_items(value)) if form == "list" else value


def _pairs(value: str | tuple[str, ...]) -> dict[str, str]:
    return {key: text for key, _, text in (item.partition("=") for item in _items(value))}


def _health(option: str, value: str | tuple[str, ...]) -> dict[str, Any]:
    if option != "health_cmd":
        return {option.removeprefix("health_"): value}
    if value == "none":
        return {"test": ["NONE"]}
    return {"test": ["CMD-SHELL", value] if isinstance(value, str) else ["CMD", *value]}


def _blkio(option: str, value: str | tuple[str, ...]) -> dict[str, Any]:
    if option == "blkio_weight":
        return {"weight": int(str(value))}  # compose takes no text here
    key, word = (option, "rate") if option.startswith("device") else ("weight_device", "weight")
    split = (item.rpartition(":") for item in _items(value))
    return {
        key: [{"path": path, word: int(amount) if amount.isdigit() else amount} for path, _, amount in split]
    }


def _networks(value: str | tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in _items(value):
        endpoint = parse_endpoint(item)
        settings: dict[str, Any] = {"aliases": list(endpoint.aliases)} if endpoint.aliases else {}
        settings |= {"ipv4_address": endpoint.ip} if endpoint.ip else {}
        settings |= {"ipv6_address": endpoint.ip6} if endpoint.ip6 else {}
        settings |= {"mac_address": endpoint.mac_address} if endpoint.mac_address else {}
        settings |= {"link_local_ips": list(endpoint.link_local)} if endpoint.link_local else {}
        settings |= {"driver_opts": dict(endpoint.driver_opts)} if endpoint.driver_opts else {}
        settings |= {"gw_priority": endpoint.gw_priority} if endpoint.gw_priority is not None else {}
        found[endpoint.network] = settings or None
    count = len(found)
    if count > 1:  # mappings have no order in compose; for us the first network is the main one
        for position, name in enumerate(found):
            found[name] = {**(found[name] or {}), "priority": count - position}
    return {"networks": found}


def _ulimits(value: str | tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in _items(value):
        name, _, limits = item.partition("=")
        soft, colon, hard = limits.partition(":")
        found[name] = {"soft": int(soft), "hard": int(hard)} if colon else int(soft)
    return {"ulimits": found}


def _gpus(value: str | tuple[str, ...]) -> str | list[dict[str, Any]]:
    found = [parse_gpus(item) for item in _items(value)]
    if found == [Gpus(count=-1)]:
        return "all"
    made = []
    for item in found:
        entry: dict[str, Any] = {"driver": item.driver} if item.driver else {}
        if item.devices:
            entry["device_ids"] = list(item.devices)
        elif item.count is not None:
            entry["count"] = "all" if item.count < 0 else item.count
        if item.capabilities:
            entry["capabilities"] = ["gpu", *item.capabilities]
        made.append(entry | ({"options": dict(item.options)} if item.options else {}))
    return made


_WRITERS: Mapping[str, Any] = {
    "command": lambda value: {"command": list(_items(value))},
    "device": lambda value: {"devices": list(_items(value))},
    "entrypoint": lambda value: {"entrypoint": list(_items(value))},
    "env": lambda value: {"environment": _pairs(value)},
    "extra_host": lambda value: {"extra_hosts": list(_items(value))},
    "gpus": lambda value: {"gpus": _gpus(value)},
    "ipc": lambda value: {"ipc": value},
    # compose takes -1 as a number only
    "memory_swap": lambda value: {"memswap_limit": int(value) if value == "-1" else value},
    "network": _networks,
    "network_mode": lambda value: {"network_mode": value},
    "pid": lambda value: {"pid": value},
    "port": lambda value: {"ports": list(_items(value))},
    "pull": lambda value: {"pull_policy": value},
    "restart": lambda value: {"restart": value},
    "security_opt": lambda value: {"security_opt": list(_items(value))},
    # compose takes no number without a unit
    "stop_timeout": lambda value: {"stop_grace_period": f"{value}s" if str(value).isdigit() else value},
    "state": lambda value: {"scale": 0} if value == "stopped" else {},
    "tmpfs": lambda value: {"tmpfs": list(_items(value))},
    "ulimit": _ulimits,
    "volume": lambda value: {
        "volumes": list(_items(value))
    },  # the short form covers propagation and `nocopy` too
    "volumes_from": lambda value: {"volumes_from": [f"container:{item}" for item in _items(value)]},
}


def _network(name: str, network: Network | None) -> dict[str, Any]:
    # without a section of its own, or with `external`, the network exists already, and compose must not create it
    if network is None or network.external:
        return {"name": name, "external": True}
    options = _network_options(network)
    made: dict[str, Any] = {"name": name}
    made |= {"driver": options["driver"]} if "driver" in options else {}
    made |= {key: True for key in ("internal", "attachable") if options.get(key) == "1"}
    made |= {"enable_ipv6": options["ipv6"] == "1"} if "ipv6" in options else {}
    made |= {"driver_opts": _pairs(options["opt"])} if "opt" in options else {}
    made |= {"labels": _pairs(options["label"])} if "label" in options else {}
    pools = []
    for pool in network.spec.pools:
        item: dict[str, Any] = {"subnet": pool.subnet}
        item |= {"gateway": pool.gateway} if pool.gateway else {}
        item |= {"ip_range": pool.ip_range} if pool.ip_range else {}
        item |= {"aux_addresses": dict(pool.aux_addresses)} if pool.aux_addresses else {}
        pools.append(item)
    return made | ({"ipam": {"config": pools}} if pools else {})


def _volume(name: str, volume: Volume | None) -> dict[str, Any]:
    options = _options(volume) if volume is not None else {}
    made: dict[str, Any] = {"name": name}
    made |= {"driver": options["driver"]} if "driver" in options else {}
    made |= {"driver_opts": _pairs(options["opt"])} if "opt" in options else {}
    return made | ({"labels": _pairs(options["label"])} if "label" in options else {})


# YAML


def _escaped(value: Any) -> Any:
    """Escapes `$`, which would begin a variable."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _yaml(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Block style with every text in JSON's quotes, which YAML 1.2 reads the same way; so it needs no library."""
    space = "  " * depth
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield f"{space}{_key(key)}:\n"
            yield from _yaml(item, depth + 1)
        elif isinstance(item, list) and item:
            yield f"{space}{_key(key)}:\n"
            for each in item:
                yield f"{space}  - {_scalar(each)}\n"  # a mapping as JSON, which is YAML's flow style
        else:
            yield f"{space}{_key(key)}: {_scalar(item)}\n"


# what YAML does not allow unescaped (YAML 1.2, c-printable, without line ends)
_NOT_PRINTABLE = re.compile("[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _scalar(value: Any) -> str:
    return _NOT_PRINTABLE.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, ensure_ascii=False))


def _key(key: str) -> str:
    plain = key.replace("_", "").replace("-", "").isalnum() and not key[0].isdigit() and key.isascii()
    return (
        key
        if plain and key.lower() not in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
        else json.dumps(key)
    )
