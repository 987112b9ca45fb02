# SPDX-License-Identifier: GPL-2.0-or-later
"""Decodes `container` sections into specs and policies.

Called by `agent.uci.decode`. Network and volume names stay section names here; `agent.uci.crosscheck` maps them to
Docker names, because that needs all sections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from agent.errors import PathAwayError, PathError
from agent.model.addresses import parse_webui
from agent.model.container_table import TABLE, ContainerOption, Shape, parse_sysctl
from agent.model.entries import (
    parse_address,
    parse_dependency,
    parse_endpoint,
    parse_exposed,
    parse_mac,
    parse_ports,
    parse_tmpfs,
    parse_volume,
    parse_wait,
)
from agent.model.kernel_names import (
    parse_profile,
    seccomp_file,
    sysctl_namespace,
)
from agent.model.quantities import (
    QuantityError,
    few_bytes,
    parse_age,
    parse_duration,
    parse_int,
    parse_seconds,
)
from agent.model.resources import (
    Container,
    ContainerPolicy,
    ContainerSpec,
    Endpoint,
    Healthcheck,
    Mount,
    OnDrift,
    OnUnhealthy,
    Port,
    Pull,
    RunState,
    Strategy,
    Update,
)
from agent.model.updates import parse_window
from agent.uci.decode_network import labels
from agent.uci.reader import SectionReader

ReadFile = Callable[[str], str]
T = TypeVar("T")

# option -> field of the spec that is read from a file
_OF_FILE = {"env_file": "env", "security_opt": "seccomp"}

SHELL = ("/bin/sh", "-c")
MEMORY_MIN = 6 * 1024 * 1024  # the engine's minimum
PORTS_MAX = 16384  # each port costs rules of the engine, and a proxy process unless `userland_proxy` is 0


def decode_container(reader: SectionReader, *, read_file: ReadFile | None) -> Container:
    """The container as far as the section can be read. `reader.failed` says that it must not be used."""
    values = {row.field: _value(reader, row) for row in TABLE if row.shape is not Shape.APART}
    spec = ContainerSpec(
        **values | {"image": values["image"] or "", "labels": labels(reader)},
        health=_health(reader),
        env=environment(reader, read_file),
        ports=_ports(reader),
        expose=tuple(sorted({port for ports in reader.values("expose", parse_exposed) for port in ports})),
        mounts=_mounts(reader),
        tmpfs=tuple(sorted(reader.values("tmpfs", parse_tmpfs), key=lambda entry: entry.target)),
        endpoints=_endpoints(reader),
    )
    spec = _with_profile(reader, spec, read_file)
    # an invalid option is unset in the spec, so these checks do not report it again
    _check_targets(reader)
    _check_limits(reader, spec)
    _check_namespaces(reader, spec)
    policy = _policy(reader)
    _check_strategy(reader, spec, policy)
    return Container(
        section=reader.name,
        name=reader.docker_name,
        spec=spec,
        policy=policy,
        stack=reader.text("stack") or "",
        unread=tuple(reader.away),
    )


def _value(reader: SectionReader, row: ContainerOption) -> Any:
    match row.shape:
        case Shape.WORDS:
            return reader.words(row.uci)
        case Shape.LIST:
            return reader.values(row.uci, row.codec.parse)
        case Shape.SET:
            # the order does not matter to the engine: sorting keeps the hash of a reordered section
            found = {row.codec.order(value): value for value in reader.values(row.uci, row.codec.parse)}
            return tuple(found[key] for key in sorted(found))
        case Shape.PAIRS:
            return tuple(sorted(dict(reader.values(row.uci, row.codec.parse)).items()))
    return reader.parsed(row.uci, row.codec.parse)


def _with_profile(reader: SectionReader, spec: ContainerSpec, read_file: ReadFile | None) -> ContainerSpec:
    """Replaces `seccomp=/file` by the content of the file: the engine wants the profile itself, and docker's command
    line also reads the file."""
    profile = None
    for index, text in reader.items("security_opt"):
        path = seccomp_file(text)
        if path:
            content = _read(reader, read_file, "security_opt", index, path, parse_profile)
            # the engine accepts one profile: the last readable one counts, as with docker's command line
            profile = profile if content is None else content
    options = tuple(option for option in spec.security_opt if not seccomp_file(option))
    return replace(spec, security_opt=options, seccomp=profile)


def _read(
    reader: SectionReader,
    read_file: ReadFile | None,
    option: str,
    index: int,
    path: str,
    parse: Callable[[str], T],
) -> T | None:
    """The parsed content of a file that an option names; None if it cannot be read. That is a mistake of the option,
    unless the file may appear later."""
    # only the agent may access users' paths; a check of the text alone (`read_file` None) ignores the content
    if read_file is None:
        reader.warn("the file was not read", option=option, index=index)
        return None
    # a disk may be mounted after the agent starts: the section is valid, and its container waits for the file
    try:
        return parse(read_file(path))
    except PathAwayError as exc:
        reader.wait_for_file(
            str(exc),
            field=_OF_FILE[option],
            option=option,
            index=index,
            expected="the file, or its disk mounted",
        )
    except PathError as exc:
        reader.report(str(exc), option=option, index=index, expected="a UTF-8 text file of at most 1 MiB")
    except QuantityError as exc:
        reader.report(f"{path}: {exc.wrong}", option=option, index=index, expected=exc.expected)
    return None


def _check_namespaces(reader: SectionReader, spec: ContainerSpec) -> None:
    """Reports sysctls and hostnames that a container cannot set in a namespace of the router (runc, validator)."""
    shared = {"net": spec.network_mode == "host", "ipc": spec.ipc == "host", "uts": spec.uts == "host"}
    # `list network 'host'` also means the mode `host`, but `crosscheck` resolves it only later
    shared["net"] = shared["net"] or any(endpoint.network == "host" for endpoint in spec.endpoints)
    # checked here, because the engine accepts it and the start fails much later, with a message about a file in /proc
    for index, (name, _) in reader.parsed_items("sysctl", parse_sysctl):
        kind = sysctl_namespace(name)
        if shared[kind]:
            mode = "network host" if kind == "net" else f"{kind} host"
            reader.report(
                f"{name} cannot be set with {mode}: it is the router's own",
                option="sysctl",
                index=index,
                expected="no such sysctl, or another network"
                if kind == "net"
                else f"no such sysctl, or no `{mode}`",
            )
    # a container that shares another one's network may find a name server there
    if spec.network_mode is None and not shared["net"]:
        reader.warn_of_loopback("dns")
    if spec.uts == "host" and spec.hostname is not None:
        reader.report("cannot be combined with `uts host`", option="hostname", expected="only one of them")


def _ports(reader: SectionReader) -> tuple[Port, ...]:
    found: set[Port] = set()
    total = 0
    # one entry at a time: a few ranges of 65,535 ports would fill a router's memory before they could be refused
    for index, ports in reader.each_item("port", parse_ports):
        total += len(ports)
        if total > PORTS_MAX:
            reader.report(
                "too many ports",
                option="port",
                index=index,
                expected=f"{PORTS_MAX} ports of one container at most (network_mode host needs none)",
            )
            break
        found.update(ports)
    return tuple(
        sorted(found, key=lambda p: (p.container_port, p.protocol, p.host_ip, p.host_port, p.host_text))
    )


def _mounts(reader: SectionReader) -> tuple[Mount, ...]:
    # sorted, so that the order of volumes in the section is not a change
    found = list(reader.values("volume", parse_volume))
    return tuple(sorted(found, key=lambda mount: (mount.target, mount.source)))


def _check_targets(reader: SectionReader) -> None:
    """Reports two mounts with the same target."""
    # the engine refuses it too ("Duplicate mount point"), but only when it creates the container
    seen: set[str] = set()
    targets = [(("volume", i), mount.target) for i, mount in reader.parsed_items("volume", parse_volume)]
    targets += [(("tmpfs", i), entry.target) for i, entry in reader.parsed_items("tmpfs", parse_tmpfs)]
    for (option, index), target in targets:
        if target in seen:
            reader.report(
                f"{target} is mounted twice", option=option, index=index, expected="one entry per target"
            )
        seen.add(target)


def _health(reader: SectionReader) -> Healthcheck | None:
    # an option is a line for a shell, a list is the exec form; `text` is None for a list
    cmd = reader.text("health_cmd")
    health = Healthcheck(
        cmd=cmd,
        argv=reader.texts("health_cmd") if cmd is None else (),
        interval_ns=reader.parsed("health_interval", _parse_health_time),
        timeout_ns=reader.parsed("health_timeout", _parse_health_time),
        retries=reader.parsed("health_retries", parse_int),
        start_period_ns=reader.parsed("health_start_period", _parse_health_time),
        start_interval_ns=reader.parsed("health_start_interval", _parse_health_time),
    )
    return None if health == Healthcheck() else health


def _parse_health_time(text: str) -> int:
    """moby daemon/container.go, validateHealthCheck: at least one millisecond, or 0 for the image's value."""
    found = parse_duration(text)
    if 0 < found < 1_000_000:
        raise QuantityError(f"{text!r} is less than a millisecond", "1ms at least, or 0 for the default")
    return found


def environment(reader: SectionReader, read_file: ReadFile | None) -> tuple[tuple[str, str], ...]:
    """The variables of `env_file` and `env`, sorted by name; later ones override earlier ones."""
    found: dict[str, str] = {}
    # Files first, whatever the order of the lines: docker reads `--env-file` before `--env`, and people expect the
    # section to override files.
    for index, path in reader.items("env_file"):
        found.update(_read(reader, read_file, "env_file", index, path, parse_env_file) or {})
    for index, entry in reader.items("env"):
        key, equals, value = entry.partition("=")
        if equals:
            found[key] = value
        elif key not in found:
            # docker takes the value from the environment of its shell; the agent has no such environment
            reader.warn(
                "a bare name that no `env_file` sets is left out", option="env", index=index, expected="K=V"
            )
    return tuple(sorted(found.items()))


def parse_env_file(text: str) -> dict[str, str]:
    """Parses docker's env file: `K=V` lines without quoting, `#` comments; names without a value are left out."""
    found: dict[str, str] = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        # editors on Windows begin a file with a byte order mark, which would become part of the first name
        line = raw.removesuffix("\r").lstrip().removeprefix("\ufeff")
        if not line or line.startswith("#"):
            continue
        # quotes are kept, as in docker; removing them would change values that work there
        key, equals, value = line.partition("=")
        if not key or any(char.isspace() for char in key):
            raise QuantityError(f"line {number} has no proper name", "K=V lines")
        if equals:
            found[key] = value
    return found


def _endpoints(reader: SectionReader) -> tuple[Endpoint, ...]:
    """The `network` entries; top-level addresses apply to the first one."""
    # `docker run --ip` and similar options also apply to the first network
    own = {
        "ip": reader.parsed("ip", lambda text: parse_address(text, version=4)),
        "ip6": reader.parsed("ip6", lambda text: parse_address(text, version=6)),
        "mac_address": reader.parsed("mac_address", parse_mac),
    }
    endpoints = list(reader.values("network", parse_endpoint))
    if own["mac_address"] and not endpoints and not reader.text("network_mode") and not reader.text("stack"):
        endpoints.append(Endpoint(network="bridge"))  # same as `docker run --mac-address` alone
    for option, value in own.items():
        if value is None:
            continue
        if not endpoints:
            reader.report(
                "the container has no network that it could apply to",
                option=option,
                expected="a `list network`",
            )
        # two different values are ambiguous: the user has to decide
        elif getattr(endpoints[0], option):
            reader.report(
                "the first network entry sets it as well", option=option, expected="only one of them"
            )
    if endpoints:
        endpoints[0] = replace(
            endpoints[0],
            ip=endpoints[0].ip or own["ip"] or "",
            ip6=endpoints[0].ip6 or own["ip6"] or "",
            mac_address=endpoints[0].mac_address or own["mac_address"] or "",
        )
    return tuple(endpoints)


def _check_limits(reader: SectionReader, spec: ContainerSpec) -> None:
    # the engine would refuse all of this too, but only at create, and without naming the option
    memory, swap, reserved = spec.memory, spec.memory_swap, spec.memory_reservation
    # moby's minimum (daemon, linuxMinMemory), whose message "Minimum memory limit allowed is 6MB" does not name the
    # section
    if memory is not None and 0 < memory < MEMORY_MIN:
        text = reader.text("memory") or ""
        # docker takes a bare number as bytes, but most people who write 64 mean megabytes
        wrong = f"is too small ({text} means {text} bytes)" if text.isdigit() else "is too small"
        wish = f"at least 6m; did you mean `{text}m`?" if text.isdigit() else "at least 6m"
        reader.report(wrong, option="memory", expected=wish)
    for option in ("memory_reservation", "memory_swap", "shm_size"):
        text = reader.text(option) or ""
        if wrong := few_bytes(text):
            reader.warn(wrong, option=option, expected=f"{text}m")
    if reserved is not None and memory and reserved > memory:
        reader.report("is above `memory`", option="memory_reservation", expected="at most `memory`")
    if swap is not None and swap > 0 and not memory:
        reader.report("is set without `memory`", option="memory_swap", expected="`memory` as well")
    elif swap is not None and swap > 0 and memory and swap < memory:
        reader.report(
            "is less than `memory`", option="memory_swap", expected="memory and swap together, or -1"
        )
    # the engine refuses both together, because `cpus` is just a period and a quota
    for option in ("cpu_period", "cpu_quota"):
        if spec.nano_cpus is not None and getattr(spec, option):
            reader.report(
                "cannot be combined with `cpus`", option=option, expected=f"`cpus`, or {option} without it"
            )
    # only a warning: the engine accepts it, and then the kernel's OOM killer acts on the whole router
    if spec.oom_kill_disable and not memory:
        reader.warn(
            "has no effect without a memory limit", option="oom_kill_disable", expected="`memory` as well"
        )


def _policy(reader: SectionReader) -> ContainerPolicy:
    base = ContainerPolicy()
    # False and 0 are valid values here, which `or` would replace by the default
    enabled, rollback = reader.flag("enabled"), reader.flag("rollback")
    gate, grace = reader.parsed("gate", parse_seconds), reader.parsed("grace", parse_seconds)
    return ContainerPolicy(
        enabled=base.enabled if enabled is None else enabled,
        state=RunState(reader.text("state") or base.state),
        pull=Pull(reader.text("pull") or base.pull),
        adopt=reader.flag("adopt") or False,
        on_drift=OnDrift(reader.text("on_drift") or base.on_drift),
        on_unhealthy=OnUnhealthy(reader.text("on_unhealthy") or base.on_unhealthy),
        rollback=base.rollback if rollback is None else rollback,
        gate_s=base.gate_s if gate is None else gate,
        grace_s=base.grace_s if grace is None else grace,
        remove_volumes=reader.flag("remove_volumes") or False,
        # without duplicates, but in the section's order: the first missing item is the reason that is shown
        wait_for=tuple(dict.fromkeys(reader.values("wait_for", parse_wait))),
        depends_on=tuple(dict.fromkeys(reader.values("depends_on", parse_dependency))),
        update=reader.parsed("update", Update),
        update_window=reader.parsed("update_window", parse_window),
        update_age_s=reader.parsed("update_age", parse_age),
        strategy=reader.parsed("strategy", Strategy),
        hold_cmd=_hook(reader, "hold_cmd"),
        hold_limit_s=reader.parsed("hold_limit", parse_age),
        pre_stop=_hook(reader, "pre_stop"),
        pre_stop_timeout_s=reader.parsed("pre_stop_timeout", parse_seconds),
        post_start=_hook(reader, "post_start"),
        post_start_timeout_s=reader.parsed("post_start_timeout", parse_seconds),
        backup_before_update=reader.flag("backup_before_update"),
        webui=reader.parsed("webui", parse_webui),
    )


def _hook(reader: SectionReader, option: str) -> tuple[str, ...]:
    """Like `health_cmd`: an option runs in the container's shell, a list is a program with its arguments."""
    text = reader.text(option)
    return (*SHELL, text) if text is not None else reader.texts(option)


def _check_strategy(reader: SectionReader, spec: ContainerSpec, policy: ContainerPolicy) -> None:
    # free-first removes the old container and its image before the pull, which leaves no time for a backup
    if policy.strategy is Strategy.FREE_FIRST and policy.backup_before_update:
        reader.report(
            "with `free-first` no copy of the volumes is made before an update",
            option="strategy",
            expected="`swap`, or no `option backup_before_update`",
        )
    if policy.strategy is not Strategy.HANDOVER:
        return
    # With handover both containers run at the same time: find what they cannot share. For a range the engine chooses
    # a free port for each of them.
    shared = ["port"] * any(port.host_port and not port.host_port_end for port in spec.ports)
    shared += ["network"] * any(e.ip or e.ip6 or e.mac_address for e in spec.endpoints)
    shared += ["network_mode"] * (spec.network_mode == "host")
    shared += ["device"] * bool(spec.devices or spec.cdi_devices or spec.gpus)
    # two processes that write the same database corrupt it; read-only volumes may be shared
    shared += ["volume"] * any(not mount.read_only for mount in spec.mounts)
    shared += ["volumes_from"] * any(not entry.endswith(":ro") for entry in spec.volumes_from)
    if shared:
        reader.report(
            f"the old and the new container cannot both have what `{'`, `'.join(shared)}` says",
            option="strategy",
            expected="`swap`, or neither fixed host ports and addresses, nor devices, nor volumes without `:ro`",
        )
