# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns a container that ucidockd did not create into the UCI section that would create the same container. Pure.

The section keeps only what differs from the defaults of the image and of the engine, so that it reads as if a person
had written it. Settings that UCI has no option for are listed in `notes`, never dropped silently. `agent.uci.encode`
writes the result, `agent.runtime.requests.adopt` collects the input.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from agent.model.container_table import keys_of
from agent.model.engine_json import is_gpus, read_exposed
from agent.model.identity import Key
from agent.model.resources import (
    DEFAULT_NETWORKS,
    NO_NETWORKS,
    Container,
    ContainerPolicy,
    ContainerSpec,
    Endpoint,
    Healthcheck,
    Network,
    NetworkSpec,
    Pool,
    RunState,
    Volume,
    VolumeSpec,
)
from agent.plan.container.bodies import is_anonymous, is_lent, read_spec
from agent.plan.container.difference import network_options

_PREDEFINED = DEFAULT_NETWORKS | NO_NETWORKS
_SHM_SIZE = 64 << 20  # dockerd's `default-shm-size` when the user has not set it
# machine name of uname -> architecture name of images (Go's GOARCH); GOARCH is less specific for ARM and MIPS
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "i386": "386"}
_COMPOSE = "com.docker.compose."
_OWN = "ucidockd."

# fmt: off
_READ_CONFIG = keys_of("Config") | {"Labels", "Image", "MacAddress"}
# Attach* belongs to the client session that created the container; OnBuild, Shell and ArgsEscaped belong to the
# image; Volumes shows up in the list of mounts, which is read instead
_IGNORED_CONFIG = frozenset({
    "AttachStdin", "AttachStdout", "AttachStderr", "Volumes", "OnBuild", "Shell", "ArgsEscaped",
})
_READ_HOST = keys_of("HostConfig") | {
    "Binds", "Mounts", "Tmpfs", "NetworkMode", "LogConfig", "SecurityOpt", "DeviceRequests",
}
# set by the client that created the container, or checked elsewhere (in `_notes`; AutoRemove in
# `agent.runtime.requests.adopt`)
_IGNORED_HOST = frozenset({
    "ConsoleSize", "ContainerIDFile", "AutoRemove", "MaskedPaths", "ReadonlyPaths",
})
_KNOWN_MOUNT = frozenset({
    "Type", "Source", "Target", "ReadOnly", "BindOptions", "VolumeOptions", "TmpfsOptions",
})
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptionContext:
    """What the engine reports besides the container itself. Bodies are those of the inspect calls."""

    image: Mapping[str, Any] = field(default_factory=dict)  # the image that the container was created from
    image_id_now: str = ""  # the image id that the container's image name refers to now, "" = none
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    volumes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # container id -> name, for containers whose namespaces it joins
    names: Mapping[str, str] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)  # GET /info
    sections: Mapping[str, str] = field(default_factory=dict)  # `network:<Docker name>` -> existing section
    taken: Collection[str] = ()  # section names already used in the package


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """The sections, and what they do not express: `lost` is what the new container would lack, `notes` the rest."""

    container: Container
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    notes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def adopt(inspect: Mapping[str, Any], around: AdoptionContext, *, section: str) -> Adoption:
    """Makes the sections for a container. `inspect`: body of GET /containers/{id}/json; `section`: the name of its
    section."""
    seen = read_spec(inspect, around.names)
    image, tags = around.image.get("Config") or {}, sorted(around.image.get("RepoTags") or ())
    # a container created from an image id: use a tag if the image has one, because an id tells people nothing
    if tags and seen.image.startswith("sha256:"):
        seen = replace(seen, image=tags[0])
    spec = _without_image(_without_engine(seen, inspect, around.info), image)
    labels, dropped = _labels(spec.labels, image.get("Labels") or {})
    spec = replace(spec, labels=labels, platform=_platform(around))
    notes: list[str] = []
    if dropped:
        notes.append(
            "the labels com.docker.compose.* are left out: Compose would take the container for its own"
        )
    taken = {*around.taken, section}
    networks, more = _networks(spec, around, taken)
    volumes = _volumes(spec, around, taken | {network.section for network in networks})
    status = str((inspect.get("State") or {}).get("Status") or "")
    runs = status in {"running", "restarting", "paused"}
    policy = ContainerPolicy(adopt=True, state=RunState.RUNNING if runs else RunState.STOPPED)
    notes += [*more, *_notes(inspect, around, spec)]
    lost = tuple(_lost(inspect))
    notes += ["it is paused: the adopted container will run"] if status == "paused" else []
    name = str(inspect.get("Name") or "").removeprefix("/")
    container = Container(section=section, name=name, spec=spec, policy=policy)
    return Adoption(container=container, networks=networks, volumes=volumes, notes=tuple(notes), lost=lost)


def section_name(name: str, taken: Collection[str] = (), *, suffix: str = "") -> str:
    """A valid section name for a Docker name: UCI allows only letters, digits and `_`."""
    base = re.sub(r"[^A-Za-z0-9_]", "_", name)
    candidates = [base, f"{base}_{suffix}"] if suffix else [base]
    candidates += [f"{candidates[-1]}{number}" for number in range(2, len(taken) + 3)]
    return next(candidate for candidate in candidates if candidate not in taken)


# what differs from the defaults


def _platform(around: AdoptionContext) -> str | None:
    """The image's platform if it is not this machine's. The engine does not report the platform of a container itself."""
    image, machine = around.image, str(around.info.get("Architecture") or "")
    architecture = str(image.get("Architecture") or "")
    mine = _MACHINES.get(machine, machine)
    # `uname -m` has a name for each variant (armv7l, mips64el), images have one for the family
    same = architecture == mine or (architecture[:4] in {"arm", "mips"} and mine.startswith(architecture[:4]))
    if not architecture or not machine or same:
        return None
    parts = (str(image.get("Os") or "linux"), architecture, str(image.get("Variant") or ""))
    return "/".join(filter(None, parts))


def _without_engine(
    spec: ContainerSpec, inspect: Mapping[str, Any], info: Mapping[str, Any]
) -> ContainerSpec:
    """Removes what the engine fills in by itself."""
    mode = spec.network_mode or ""
    # A container has a hostname of its own only if it has its own network namespace. If unset, the hostname is the
    # short id.
    elsewhere = mode.startswith("container:")
    hosts = mode == "host" and str(info.get("Name") or "").startswith(spec.hostname or "")
    unnamed = elsewhere or hosts or spec.hostname == str(inspect.get("Id") or "")[:12]
    # these modes switch SELinux labels off by themselves
    labelled = spec.privileged or "host" in (spec.ipc, spec.pid)
    plain_log = not spec.log_opts and spec.log_driver == info.get("LoggingDriver", "json-file")
    # without a swap limit the engine sets memory_swap to twice the memory
    twice = spec.memory is not None and spec.memory_swap == 2 * spec.memory
    cgroupns = "private" if str(info.get("CgroupVersion") or "1") == "2" else "host"
    return replace(
        spec,
        hostname=None if unnamed else spec.hostname,
        domainname=None if elsewhere or hosts else spec.domainname,
        privileged=spec.privileged or None,
        memory_swap=None if twice else spec.memory_swap,
        shm_size=None if spec.shm_size == _SHM_SIZE else spec.shm_size,
        oom_kill_disable=spec.oom_kill_disable or None,
        read_only=spec.read_only or None,
        tty=spec.tty or None,
        stdin=spec.stdin or None,
        stdin_once=spec.stdin_once or None,
        oom_score_adj=spec.oom_score_adj or None,
        cgroupns=None if spec.cgroupns == cgroupns or spec.privileged else spec.cgroupns,
        volume_driver=None if spec.volume_driver == "local" else spec.volume_driver,
        publish_all=spec.publish_all or None,
        runtime=None if spec.runtime == info.get("DefaultRuntime", "runc") else spec.runtime,
        ipc=None if spec.ipc == "private" else spec.ipc,
        log_driver=None if plain_log else spec.log_driver,
        seccomp=None,  # the `seccomp` option carries it
        security_opt=tuple(o for o in spec.security_opt if not (labelled and o == "label=disable")),
    )


def _without_image(spec: ContainerSpec, image: Mapping[str, Any]) -> ContainerSpec:
    """Removes what comes from the image. A container that overrides the entrypoint does not inherit the image's command."""
    entrypoint = tuple(image.get("Entrypoint") or ()) or None
    command = tuple(image.get("Cmd") or ()) or None
    if spec.entrypoint != entrypoint:
        # the image has an entrypoint and the container has none: that is the result of `--entrypoint ""`
        spec = replace(spec, entrypoint=spec.entrypoint or ("",))
    elif spec.command == command or spec.command is not None:
        spec = replace(spec, entrypoint=None, command=None if spec.command == command else spec.command)
    volumes = image.get("Volumes") or {}
    variables = dict(entry.partition("=")[::2] for entry in image.get("Env") or ())
    return replace(
        spec,
        user=None if spec.user == (image.get("User") or None) else spec.user,
        workdir=None if spec.workdir == (image.get("WorkingDir") or None) else spec.workdir,
        stop_signal=None if spec.stop_signal == (image.get("StopSignal") or "SIGTERM") else spec.stop_signal,
        health=_health(spec.health, image.get("Healthcheck") or {}),
        expose=tuple(p for p in spec.expose if p not in read_exposed(image.get("ExposedPorts"))),
        env=tuple((key, value) for key, value in spec.env if variables.get(key) != value),
        mounts=tuple(m for m in spec.mounts if m.source or m.target not in volumes),
    )


def _health(health: Healthcheck | None, image: Mapping[str, Any]) -> Healthcheck | None:
    """Removes what comes from the image: the engine takes every part of a health check that is not given from there."""
    base = read_spec({"Config": {"Healthcheck": image}}, {}).health
    if health is None or base is None:
        return health
    unset = Healthcheck()
    names = (part.name for part in fields(Healthcheck))
    same = {name: getattr(unset, name) for name in names if getattr(health, name) == getattr(base, name)}
    rest = replace(health, **same)
    return None if rest == Healthcheck() else rest


def _labels(
    labels: Iterable[tuple[str, str]], image: Mapping[str, str]
) -> tuple[tuple[tuple[str, str], ...], bool]:
    own = [(key, value) for key, value in labels if image.get(key) != value and not key.startswith(_OWN)]
    kept = tuple((key, value) for key, value in own if not key.startswith(_COMPOSE))
    return kept, len(kept) < len(own)


# networks and volumes that have no section yet


def _networks(
    spec: ContainerSpec, around: AdoptionContext, taken: Collection[str]
) -> tuple[tuple[Network, ...], list[str]]:
    found: list[Network] = []
    notes: list[str] = []
    for endpoint in spec.endpoints:
        name = endpoint.network
        # a network that already has a section belongs to that section, not to this container
        if name in _PREDEFINED or Key("network", name) in around.sections:
            continue
        body = around.networks.get(name) or {}
        section = section_name(name, {*taken, *(n.section for n in found)}, suffix="net")
        found.append(adopt_network(body, name=name, section=section))
        scope, ipam = body.get("Scope", "local"), body.get("IPAM") or {}
        if scope != "local":
            notes.append(f"network {name}: its scope is {scope}, sections support the local scope only")
        if ipam.get("Driver", "default") != "default" or ipam.get("Options"):
            notes.append(f"network {name}: the IPAM driver and its options cannot be expressed in UCI")
        if body.get("ConfigOnly") or (body.get("ConfigFrom") or {}).get("Network"):
            notes.append(f"network {name}: configuration networks cannot be expressed in UCI")
    return tuple(found), notes


def adopt_network(body: Mapping[str, Any], *, name: str, section: str) -> Network:
    """The section of an existing network; `body`: GET /networks/{id}."""
    # Compose recognizes its networks by these labels: with them `docker compose down` would remove ours.
    labels = (body.get("Labels") or {}).items()
    spec = NetworkSpec(
        driver=str(body.get("Driver") or "bridge"),
        internal=bool(body.get("Internal")),
        attachable=bool(body.get("Attachable")),
        ipv6=bool(body.get("EnableIPv6")),
        pools=tuple(_pool(item) for item in (body.get("IPAM") or {}).get("Config") or ()),
        options=tuple(sorted(network_options(body).items())),
        labels=tuple(sorted((k, v) for k, v in labels if not k.startswith((_COMPOSE, _OWN)))),
    )
    return Network(section=section, name=name, spec=spec, adopt=True)


def _pool(item: Mapping[str, Any]) -> Pool:
    return Pool(
        subnet=str(item.get("Subnet") or ""),
        gateway=str(item.get("Gateway") or "").partition("/")[0],
        ip_range=str(item.get("IPRange") or ""),
        aux_addresses=tuple(sorted((item.get("AuxiliaryAddresses") or {}).items())),
    )


def _volumes(spec: ContainerSpec, around: AdoptionContext, taken: Collection[str]) -> tuple[Volume, ...]:
    found: list[Volume] = []
    # anonymous volumes get no section: a replacement container takes them over from the old one
    for name in sorted({m.source for m in spec.mounts if m.source and not m.is_bind}):
        if Key("volume", name) in around.sections or is_anonymous(name):
            continue
        section = section_name(name, {*taken, *(v.section for v in found)}, suffix="vol")
        found.append(adopt_volume(around.volumes.get(name) or {}, name=name, section=section))
    return tuple(found)


def adopt_volume(body: Mapping[str, Any], *, name: str, section: str) -> Volume:
    """The section of an existing volume; `body`: GET /volumes/{name}."""
    labels = (body.get("Labels") or {}).items()
    spec = VolumeSpec(
        driver=str(body.get("Driver") or "local"),
        options=tuple(sorted((body.get("Options") or {}).items())),
        labels=tuple(sorted((k, v) for k, v in labels if not k.startswith((_COMPOSE, _OWN)))),
    )
    return Volume(section=section, name=name, spec=spec, adopt=True)


# what UCI cannot express


def _notes(inspect: Mapping[str, Any], around: AdoptionContext, spec: ContainerSpec) -> Iterator[str]:
    config = inspect.get("Config") or {}
    if around.image_id_now != inspect.get("Image"):
        what = "refers to another image now" if around.image_id_now else "is not there any more"
        yield f"the image {config.get('Image')} {what}: the adopted container keeps the one that it was created from"
    yield from _endpoint_notes(inspect, spec.endpoints)


def _lost(inspect: Mapping[str, Any]) -> Iterator[str]:
    config, host = inspect.get("Config") or {}, inspect.get("HostConfig") or {}
    yield from _unknown(config, _READ_CONFIG | _IGNORED_CONFIG)
    removed = [entry for entry in config.get("Env") or () if "=" not in entry]
    if removed:
        yield f"env: removing the image's variable {', '.join(sorted(removed))} cannot be expressed in UCI"
    yield from _unknown(host, _READ_HOST | _IGNORED_HOST)
    # `security_opt systempaths=unconfined` empties both lists
    bared = [key for key in ("MaskedPaths", "ReadonlyPaths") if host.get(key) == []]
    if len(bared) == 1 and not host.get("Privileged"):
        yield f"an empty {bared[0]}: UCI can only empty MaskedPaths and ReadonlyPaths together"
    for request in host.get("DeviceRequests") or ():
        if request.get("Driver") != "cdi" and not is_gpus(request):
            yield f"a device request of the driver {request.get('Driver') or '-'} cannot be expressed in UCI"
    yield from _mounts_lost(inspect)
    networks = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    for name in sorted(name for name, item in networks.items() if item.get("Links")):
        yield f"network {name}: Links cannot be expressed in UCI"


def _unknown(values: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """Names every other setting that has a value, including settings that future engines add."""
    for key in sorted(values.keys() - known):
        value = values[key]
        if value in (None, "", 0, -1, False, "default") or value in ([], {}):
            continue
        shown = f" {value}" if isinstance(value, str | int) and not isinstance(value, bool) else ""
        yield f"{key}{shown}: UCI has no option for it"


def _mounts_lost(inspect: Mapping[str, Any]) -> Iterator[str]:
    host = inspect.get("HostConfig") or {}
    for item in host.get("Mounts") or ():
        more = sorted(key for key in item.keys() - _KNOWN_MOUNT if item[key] and item[key] != "default")
        bind = (item.get("BindOptions") or {}).items()
        more += sorted(k for k, v in bind if v and k not in {"Propagation", "CreateMountpoint"})
        volume = dict(item.get("VolumeOptions") or {})
        if volume.get("DriverConfig") == {"Name": host.get("VolumeDriver")}:
            del volume["DriverConfig"]  # the `volume_driver` option carries it
        more += sorted(k for k, v in volume.items() if v and k != "NoCopy")
        if item.get("Type") not in {"bind", "volume", "tmpfs"}:
            more = [f"a mount of type {item.get('Type')}"]
        if more:
            yield f"mount {item.get('Target')}: {', '.join(more)} cannot be expressed in UCI"
    for item in inspect.get("Mounts") or ():
        mine = item.get("Type") == "volume" and not is_lent(item, inspect)
        if mine and is_anonymous(item.get("Name", "")) and not item.get("RW", True):
            yield f"mount {item['Destination']}: an anonymous volume cannot be read-only in UCI"


def _endpoint_notes(inspect: Mapping[str, Any], endpoints: Sequence[Endpoint]) -> Iterator[str]:
    networks = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    fixed = {e.network for e in endpoints if e.mac_address}
    # older engines report the configured address, but only for the first network
    if "MacAddress" in (inspect.get("Config") or {}):
        fixed |= {e.network for e in endpoints[:1]} or {"bridge"}
    for name, item in sorted(networks.items()):
        mac = str(item.get("MacAddress") or "").lower()
        # before 27 the engine derives the MAC address from the IPv4 address: 02:42 and its four bytes
        parts = str(item.get("IPAddress") or "").split(".")
        made = ":".join(["02", "42", *(f"{int(part):02x}" for part in parts)]) if len(parts) == 4 else ""
        if mac and name not in fixed and mac != made:
            yield f"network {name}: the MAC address {mac} is not taken over; the engine does not say who chose it"
