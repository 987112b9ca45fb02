# SPDX-License-Identifier: GPL-2.0-or-later
"""Validates one raw section against its schema and reports every mistake in words.

`agent.uci.syntax` runs before it. `agent.uci.decode` runs after it and checks what a schema cannot (sizes in bytes,
references). jsonschema takes 3 MiB, so it is imported at the first mistake, to find out which one it is.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.model.dockerd.successors import successor_of
from agent.model.issues import Code, Severity

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

KINDS = ("container", "network", "volume", "stack", "backup", "auth", "notify", "agent")
DAEMON_KINDS = ("firewall", "globals", "proxies", "tls")  # of package dockerd: about dockerd itself


_NOTHING = "nothing: "  # the start of a row of WORDS that suggests no other option

RawValue = str | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake in one section; the caller knows the section's place."""

    severity: Severity
    code: Code
    option: str
    index: int | None = None
    wrong: str
    expected: str = ""


# left out of what is kept in memory: only LuCI and the documents need them
_FOR_PEOPLE = ("title", "description", "x-effect", "x-tab")


@functools.cache
def _kept(kind: str) -> Mapping[str, Any]:
    """A schema without its texts for forms and manuals, which a running agent never shows."""
    name = f"{kind}.schema.json"
    try:
        # in a checkout the schemas are a separate folder; installed, they are package data (see `package-dir` in
        # pyproject.toml)
        text = (Path(__file__).parents[2] / "schemas" / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        text = resources.files("agent.schema").joinpath("files", name).read_text(encoding="utf-8")
    # the texts would take several times as much memory as the rules
    found: Mapping[str, Any] = json.loads(
        text,
        object_hook=lambda item: {
            key: value for key, value in item.items() if key not in _FOR_PEOPLE or isinstance(value, dict)
        },
    )
    return found


def properties(kind: str) -> Mapping[str, Mapping[str, Any]]:
    """Option name -> its schema, without texts for people."""
    found: Mapping[str, Mapping[str, Any]] = _kept(kind)["properties"]
    return found


@functools.cache
def _validator(kind: str) -> Draft202012Validator:
    # imported here, because a configuration without mistakes needs none of it
    from jsonschema import Draft202012Validator

    return Draft202012Validator(_kept(kind))


def is_list(kind: str, option: str) -> bool:
    """Whether the schema defines the option as a list, however it is written."""
    return properties(kind).get(option, {}).get("type") == "array"


def is_secret(kind: str, option: str) -> bool:
    """Whether the option's value must never be shown; unknown options count as secret."""
    return bool(properties(kind).get(option, {"writeOnly": True}).get("writeOnly", False))


def validate(kind: str, values: Mapping[str, RawValue]) -> tuple[Mistake, ...]:
    """All mistakes of a section; unknown options are warnings."""
    known = properties(kind)
    # report each unknown option separately: `additionalProperties` would name all of them in one message
    instance = {name: _instance(kind, name, value) for name, value in values.items() if name in known}
    mistakes = [_unknown(kind, name) for name in values if name not in known]
    # nearly all sections are valid and never load jsonschema; for the others it finds the words for the mistake
    is_whole = instance.keys() >= set(_kept(kind).get("required", ()))
    if not is_whole or not all(_is_right(known[name], instance[name]) for name in instance):
        for error in _validator(kind).iter_errors(instance):
            mistakes.extend(_mistakes(kind, error))
    # in a stable order, because readers of the status compare the mistakes as text
    return tuple(sorted(mistakes, key=lambda m: (m.option, -1 if m.index is None else m.index, m.wrong)))


def _instance(kind: str, name: str, value: RawValue) -> str | list[str]:
    # people write a single entry of a list as `option`, which libuci returns as a string
    if isinstance(value, str):
        return [value] if is_list(kind, name) else value
    return list(value)


def _is_right(schema: Mapping[str, Any], value: str | list[str]) -> bool:
    """Like `Draft202012Validator.is_valid`, for the few keywords that the schemas of options use."""
    # `type` is a name or a list of names, none of which is a part of another
    if isinstance(value, list):
        return "array" in schema["type"] and all(_is_right(schema["items"], item) for item in value)
    return (
        "string" in schema["type"]
        and len(value) >= schema.get("minLength", 0)
        and ("enum" not in schema or value in schema["enum"])
        # `search`, because a pattern in JSON Schema is not anchored
        and ("pattern" not in schema or re.search(schema["pattern"], value) is not None)
    )


def _unknown(kind: str, name: str) -> Mistake:
    import difflib  # late, because only a mistake needs it

    successor = successor_of(name.lower()) if kind in DAEMON_KINDS else None
    # names from docker and compose have their own table; a guess by similarity would mislead
    meant = WORDS.get(kind, {}).get(name)
    if meant is not None:
        wrong, expected = f"is not an option of {kind} sections", meant
        if meant.startswith(_NOTHING):
            wrong, expected = f"is not an option of {kind} sections: {meant.removeprefix(_NOTHING)}", ""
        return Mistake(severity="warning", code="unknown-option", option=name, wrong=wrong, expected=expected)
    # cut, because the comparison takes quadratic time, and the name comes from outside
    near = difflib.get_close_matches(name[:64].lower(), properties(kind), n=1)
    if successor is not None:
        expected = successor.text
    else:
        expected = f"perhaps `{near[0]}`" if near else "one of the documented options"
    return Mistake(
        severity="warning",
        code="unknown-option",
        option=name,
        # whole sentences, which LuCI translates
        wrong=f"unknown option of an {kind} section"
        if kind[:1] in "aeio"
        else f"unknown option of a {kind} section",
        expected=expected,
    )


_LIKE_YAML = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)\s*:\s")


def _mistakes(kind: str, error: ValidationError) -> Iterator[Mistake]:
    if error.validator == "required":
        values = error.instance if isinstance(error.instance, dict) else {}
        missing = (name for name in _kept(kind)["required"] if name not in values)
        # iter_errors reports each missing option separately, with its name in the message
        for name in missing:
            if error.message.startswith(repr(name)):
                yield Mistake(
                    severity="error",
                    code="missing-option",
                    option=name,
                    wrong="is missing",
                    expected=_wish(error, kind, name),
                )
        return
    path = list(error.absolute_path)
    option = str(path[0]) if path else ""
    index = path[1] if len(path) > 1 and isinstance(path[1], int) else None
    yield Mistake(
        severity="error",
        code="wrong-type" if error.validator == "type" else "invalid-value",
        option=option,
        index=index,
        wrong=_wrong(kind, option, error),
        expected=_wish(error, kind, option),
    )


def _wrong(kind: str, option: str, error: ValidationError) -> str:
    if error.validator == "type":
        # UCI knows only strings and lists: a list in place of a string means that `option` was written as `list`
        return "is a list" if isinstance(error.instance, list) else "is of the wrong type"
    if error.instance == "":
        return "is empty"
    if is_secret(kind, option):
        # The value must not be shown. Of `TOKEN: abc`, pasted from a compose file into `list env`, the part before
        # the colon is only a name, and showing it helps.
        like_yaml = _LIKE_YAML.match(error.instance) if isinstance(error.instance, str) else None
        if like_yaml:
            return f"the value does not have the right form: write `{like_yaml[1]}=...`"
        return "the value does not have the right form"
    return f"{error.instance!r} is not valid here"


def _wish(error: ValidationError, kind: str, option: str) -> str:
    if error.validator == "type":
        return "a single `option`"
    schema = properties(kind).get(option, {})
    schema = schema.get("items", schema)
    # the schema's words come first, because a pattern does not help people
    if "x-expected" in schema:
        return str(schema["x-expected"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    return "a value"


# Option names of `docker run`, compose and dockerman, with what to write here instead.
#
# They come before a guess by similarity, which would suggest `internal` for `external` and cut the containers off.


_BACKGROUND = "nothing: containers always run in the background"
_TERMINAL = "nothing: it is about the terminal that starts the container"
_WINDOWS = "nothing: it is for Windows only"
_ELSEWHERE = "nothing: this cannot be set here"
_EXISTING = "`option name` and `option adopt '1'` for one that exists already"

_CONTAINER: Mapping[str, str] = {
    "publish": "`list port`",
    "ports": "`list port`",
    "p": "`list port`",
    "environment": "`list env`",
    "environments": "`list env`",
    "envs": "`list env`",
    "e": "`list env`",
    "env_files": "`list env_file`",
    "volumes": "`list volume`",
    "v": "`list volume`",
    "mount": "`list volume`",
    "mounts": "`list volume`",
    "bind": "`list volume '/path:/target'`",
    "binds": "`list volume '/path:/target'`",
    "gpu": "`list gpus`",
    "devices": "`list device`",
    "pull_policy": "`option pull`",
    "detach": _BACKGROUND,
    "d": _BACKGROUND,
    "rm": "nothing: a container is removed when its section is",
    "auto_remove": "nothing: a container is removed when its section is",
    "interactive": "`option stdin '1'`",
    "stdin_open": "`option stdin '1'`",
    "t": "`option tty '1'`",
    "container_name": "`option name`",
    "networks": "`list network`",
    "net": "`list network`, or `option network_mode`",
    "network_alias": "`list network 'NETWORK,alias=NAME'`",
    "aliases": "`list network 'NETWORK,alias=NAME'`",
    "links": "`list network`: containers of one network reach each other by name",
    "link": "`list network`: containers of one network reach each other by name",
    "labels": "`list label`",
    "l": "`list label`",
    "extra_hosts": "`list extra_host`",
    "add_host": "`list extra_host`",
    "hosts": "`list extra_host`",
    "working_dir": "`option workdir`",
    "w": "`option workdir`",
    "mem_limit": "`option memory`",
    "mem": "`option memory`",
    "m": "`option memory`",
    "memory_limit": "`option memory`",
    "memswap_limit": "`option memory_swap`",
    "mem_swappiness": "`option memory_swappiness`",
    "mem_reservation": "`option memory_reservation`",
    "cpu": "`option cpus`",
    "cpu_count": "`option cpus`",
    "cpuset_cpus": "`option cpuset`",
    "pids": "`option pids_limit`",
    "shm": "`option shm_size`",
    "stop_grace_period": "`option stop_timeout`",
    "healthcheck": "`option health_cmd`",
    "health": "`option health_cmd`",
    "health_test": "`option health_cmd`",
    "no_healthcheck": "`option health_cmd 'none'`",
    "logging": "`option log_driver` and `list log_opt`",
    "log_opts": "`list log_opt`",
    "log_options": "`list log_opt`",
    "restart_policy": "`option restart`",
    "security_opts": "`list security_opt`",
    "sysctls": "`list sysctl`",
    "ulimits": "`list ulimit`",
    "capabilities": "`list cap_add`",
    "cap": "`list cap_add`",
    "groups": "`list group_add`",
    "group": "`option user 'USER:GROUP'`, or `list group_add`",
    "uid": "`option user`",
    "gid": "`option user 'USER:GROUP'`",
    "secrets": "a file and `list volume '/path:/run/secrets/NAME:ro'`",
    "configs": "a file and `list volume '/path:/target:ro'`",
    "build": "`option image` with an image that is built elsewhere",
    "deploy": "`option memory`, `option cpus` and the like",
    "profiles": "`option enabled`",
    "args": "`list command`",
    "cmd": "`list command`",
    "mac": "`option mac_address`",
    "ip_address": "`option ip`",
    "ipv4_address": "`option ip`",
    "ipv6_address": "`option ip6`",
    "ipv6": "`option ip6`",
    "userns_mode": "`option userns`",
    "ipc_mode": "`option ipc`",
    "pid_mode": "`option pid`",
    "annotations": "`list annotation`",
    "cgroup": "`option cgroupns`",
    "cpu_rt_quota": "`option cpu_rt_runtime`",
    "cpuset_memory": "`option cpuset_mems`",
    "blkio_config": "`option blkio_weight`, and `list device_write_bps` and the like",
    "storage_opts": "`list storage_opt`",
    "link_local_ips": "`list network 'NETWORK,link_local=ADDRESS'`",
    "link_local_ip": "`list network 'NETWORK,link_local=ADDRESS'`",
    "link_local": "`list network 'NETWORK,link_local=ADDRESS'`",
    "gw_priority": "`list network 'NETWORK,gw_priority=1'`",
    "driver_opt": "`list network 'NETWORK,driver_opt=KEY=VALUE'`",
    "driver_opts": "`list network 'NETWORK,driver_opt=KEY=VALUE'`",
    "scale": "a section for each container",
    "replicas": "a section for each container",
    "timezone": "`list env 'TZ=Europe/Berlin'`",
    "tz": "`list env 'TZ=Europe/Berlin'`",
    "TZ": "`list env 'TZ=Europe/Berlin'`",
    "tag": "`option image 'NAME:TAG'`",
    "autostart": "`option enabled`",
    "disabled": "`option enabled '0'`",
    "readonly": "`option read_only`",
    "depends": "`list depends_on`",
    "a": _TERMINAL,
    "attach": _TERMINAL,
    "detach_keys": _TERMINAL,
    "sig_proxy": _TERMINAL,
    "i": "`option stdin '1'`",
    "h": "`option hostname`",
    "q": "nothing: the agent says in its log what it pulls",
    "quiet": "nothing: the agent says in its log what it pulls",
    "c": "`option cpu_shares`",
    "P": "`option publish_all '1'`",
    "u": "`option user`",
    "add_hosts": "`list extra_host`",
    "cidfile": "nothing: the agent keeps the ids of containers itself",
    "cpu_percent": _WINDOWS,
    "isolation": _WINDOWS,
    "credential_spec": _WINDOWS,
    "io_maxbandwidth": _WINDOWS,
    "io_maxiops": _WINDOWS,
    "device_cgroup_rules": "`list device_cgroup_rule`",
    "disable_content_trust": "`option image 'NAME@sha256:...'` for an image that cannot be exchanged",
    "dns_option": "`list dns_opt`",
    "dns_options": "`list dns_opt`",
    "help": "nothing: `ucidockd.containers`(5) and docs/reference/containers.md list the options",
    "kernel_memory": "nothing: the kernel has no such limit any more",
    "label_file": "`list label` for each line of it",
    "external_links": "`list network`: containers of one network reach each other by name",
    "net_alias": "`list network 'NETWORK,alias=NAME'`",
    "use_api_socket": "`list volume '/var/run/docker.sock:/var/run/docker.sock'`, which makes it root on this router",
    "extends": "all options in each section",
    "develop": "nothing: it is for `docker compose watch`",
    "models": _ELSEWHERE,
    "provider": _ELSEWHERE,
    "ip6_address": "`option ip6`",
    "services": "one `config container` section for each service",
    "version": "nothing: there is one version of the syntax",
}
_NETWORK: Mapping[str, str] = {
    "subnets": "`list subnet`",
    "ipam": "`list subnet`, `list gateway` and `list ip_range`",
    "driver_opts": "`list opt`",
    "options": "`list opt`",
    "option": "`list opt`",
    "labels": "`list label`",
    "enable_ipv6": "`option ipv6`",
    "interface": "`option parent`",
    "device": "`option parent`",
    "bridge": "`list opt 'com.docker.network.bridge.name=br-NAME'`",
    "mtu": "`list opt 'com.docker.network.driver.mtu=1400'`",
    "vlan": "`option parent 'eth0.VLAN'`",
    "aux_addresses": "`list aux_address`",
    "enable_ipv4": "nothing: a network has IPv4 addresses, unless `list subnet` is of IPv6 alone",
}
_VOLUME: Mapping[str, str] = {
    "external": _EXISTING,
    "driver_opts": "`list opt`",
    "options": "`list opt`",
    "o": "`list opt 'o=...'`",
    "type": "`list opt 'type=...'`",
    "device": "`list opt 'device=...'`",
    "labels": "`list label`",
    "path": "in the container section `list volume '/path:/target'`",
    "mountpoint": "in the container section `list volume '/path:/target'`",
    "source": "in the container section `list volume '/path:/target'`",
}
_AUTH: Mapping[str, str] = {
    "registry": "`option serveraddress`",
    "host": "`option serveraddress`",
    "url": "`option serveraddress`",
    "user": "`option username`",
    "pass": "`option password`",
}
WORDS: Mapping[str, Mapping[str, str]] = {
    "container": _CONTAINER,
    "network": _NETWORK,
    "volume": _VOLUME,
    "auth": _AUTH,
    "notify": {
        "events": "`list event`",
        "headers": "`list header`",
        "address": "`option url`",
        "broker": "`option url 'mqtt://ADDRESS'`",
        "host": "`option url`",
        "token": "`list header 'Authorization: Bearer TOKEN'`",
        "script": "`list command`",
        "user": "`option username`",
        "body": "`option template`",
        "message": "`option template`",
    },
}
