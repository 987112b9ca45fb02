# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that involve several sections, and replaces section names by Docker names.

`agent.uci.decode` calls it with everything that could be read, including broken sections: a reference to a broken
section is not a reference to an unknown one. Mistakes go to the readers of their sections.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.model.addresses import UNKNOWN_MACHINE, Listener, Machine, webui_ports
from agent.model.dockerd import log_drivers
from agent.model.dockerd.settings import Json
from agent.model.dockerd.values import Discouraged
from agent.model.entries import addresses_meet, parse_dependency, parse_endpoint, parse_ports, same_address
from agent.model.notices import NotifySection
from agent.model.quantities import QuantityError
from agent.model.resources import (
    DEFAULT_NETWORKS,
    NO_NETWORKS,
    AgentSettings,
    Backup,
    Container,
    ContainerSpec,
    Dependency,
    Endpoint,
    Mount,
    Network,
    Port,
    RegistryAuth,
    Volume,
)
from agent.uci.decode_network import BRIDGE_NAME, BUILT_IN, contains, reserved_address
from agent.uci.reader import SectionReader

_SHARED_BY = ("container:", "service:")  # forms of a namespace that is another container's
_RESERVED, _UNPRIVILEGED, _PORT_MAX = 1024, 8000, 65535


@dataclass(slots=True, kw_only=True)
class DecodedSections:
    """Everything read so far, each value with its reader; `crosscheck` rewrites `containers`."""

    containers: list[tuple[SectionReader, Container]] = field(default_factory=list)
    networks: list[tuple[SectionReader, Network]] = field(default_factory=list)
    volumes: list[tuple[SectionReader, Volume]] = field(default_factory=list)
    auths: list[tuple[SectionReader, RegistryAuth]] = field(default_factory=list)
    notices: list[tuple[SectionReader, NotifySection]] = field(default_factory=list)
    agents: list[tuple[SectionReader, AgentSettings]] = field(default_factory=list)
    backups: list[tuple[SectionReader, Backup]] = field(default_factory=list)


def crosscheck(
    draft: DecodedSections, machine: Machine = UNKNOWN_MACHINE, *, daemon: Mapping[str, Json]
) -> None:
    """Reports every mistake between sections, and resolves names.

    `machine`: the one that the engine runs on; `daemon`: dockerd's settings.
    """
    for reader, _ in draft.agents[1:]:
        reader.report("there is already an agent section", expected="one agent section")
    items: Sequence[tuple[SectionReader, Container | Network | Volume]]
    # The engine would only refuse the second one when it is created, and which one comes second is random.
    for items in (draft.containers, draft.networks, draft.volumes):
        _check_unique(
            [(reader, resource.name) for reader, resource in items],
            message="the Docker name {name!r} is also that of section {others}",
            option="name",
            expected="its own name",
        )
    # the engine refuses a second network on a bridge, with a message that names no section
    _check_unique(
        [(reader, dict(network.spec.options).get(BRIDGE_NAME, "")) for reader, network in draft.networks],
        message="the bridge {name} is also that of network {others} too",
        option="opt",
        expected=f"another section name, or `list opt {BRIDGE_NAME}=...`",
    )
    for reader, container in draft.containers:
        _check_endpoints(reader, container, draft)
        _check_network_mode(reader, container)
        _check_volume_driver(reader, container, draft)
    _check_platforms(draft)
    # names are Docker names from here on: the checks above see what the user wrote, those below what the engine will
    # see
    draft.containers = [
        (reader, _resolved(reader, container, draft)) for reader, container in draft.containers
    ]
    # checked here because `userns_remap` is dockerd's, while containers are in another package
    if "userns-remap" in daemon:
        for reader, container in draft.containers:
            _check_remapped(reader, container.spec)
    _check_pools(draft)
    _check_dependencies(draft)
    _check_logging(draft, machine.listeners, daemon)
    # the agent listens before any container starts, so a container could never get its ports
    own = [
        Listener(
            port=place.port,
            protocol="tcp",
            ip=str(place.ip),
            said=f"the agent itself listens on {place} (`list listen`)",
        )
        for _, agent in draft.agents
        for place in agent.listen
        if place.port
    ]
    listeners = (*own, *machine.listeners)
    _check_host_ports(draft, listeners)
    _check_listeners(draft, listeners)
    for reader, container in draft.containers:
        if container.policy.enabled and (container.spec.network_mode or "") in DEFAULT_NETWORKS:
            for port in container.spec.ports:
                index = _entry_of(reader, port)
                check_address(reader, port.host_ip, machine, option="port", index=index)


def check_address(
    reader: SectionReader, address: str, machine: Machine, *, option: str, index: int | None = None
) -> None:
    """Warns of an address to publish ports at that the machine does not have. Not an error, because it may get it: by
    DHCP, or from a tunnel."""
    if address and machine.lacks(address):
        reader.warn(
            f"this router does not have the address {address} now, and no port can be published at it until it does",
            option=option,
            index=index,
            expected="an address of this router, or none for all of them",
        )


def _check_unique(
    items: Iterable[tuple[SectionReader, str]], *, message: str, option: str, expected: str
) -> None:
    """Reports each section whose name another section has too. Sections without a name are skipped."""
    by_name: dict[str, list[SectionReader]] = {}
    for reader, name in items:
        if name:
            by_name.setdefault(name, []).append(reader)
    for name, readers in by_name.items():
        if len({reader.name for reader in readers}) < 2:
            continue  # one section, or a section name in two packages, which is already reported
        for reader in readers:
            others = ", ".join(sorted({other.name for other in readers} - {reader.name}))
            reader.report(message.format(name=name, others=others), option=option, expected=expected)


def _check_endpoints(reader: SectionReader, container: Container, draft: DecodedSections) -> None:
    networks = {network.section: (source, network) for source, network in draft.networks}
    seen: set[str] = set()
    # entries and endpoints correspond by position: decoding has left out the same invalid entries
    for position, (index, written) in enumerate(reader.parsed_items("network", parse_endpoint)):
        endpoint = container.spec.endpoints[position]
        if endpoint.network in seen:
            reader.report(
                f"{endpoint.network} is listed twice",
                option="network",
                index=index,
                expected="each network once",
            )
        seen.add(written.network)
        if endpoint.network in networks:
            source, network = networks[endpoint.network]
            # skipped if the network's subnets are not fully known: its section was refused, or others manage the
            # network
            if not source.failed and not network.external:
                _check_addresses(reader, endpoint, written, index, network)
        # the engine accepts any name and only says "network not found" when the container starts
        elif endpoint.network not in BUILT_IN:
            known = ", ".join(sorted(networks)) or "none is declared"
            reader.report(
                f"unknown network {endpoint.network!r}",
                option="network",
                index=index,
                expected=f"a network section ({known}), bridge, host or none",
            )
        elif endpoint.ip or endpoint.ip6 or endpoint.aliases or endpoint.link_local:
            reader.report(
                f"{endpoint.network} cannot have an address or an alias",
                option="network",
                index=index,
                expected="a network section",
            )
    # `host` and `none` are modes of the engine, in which a container cannot have other networks
    alone = seen & NO_NETWORKS
    if alone and len(seen) > 1:
        reader.report(
            f"{min(alone)} cannot be combined with another network", option="network", expected="one of them"
        )


def _check_addresses(
    reader: SectionReader, endpoint: Endpoint, written: Endpoint, index: int, network: Network
) -> None:
    subnets = [pool.subnet for pool in network.spec.pools]
    # an address is in the entry or, for the first network, in an option of its own: report the mistake there
    for option, address, in_entry in (("ip", endpoint.ip, written.ip), ("ip6", endpoint.ip6, written.ip6)):
        if address and not any(contains(subnet, address) for subnet in subnets):
            reader.report(
                f"{address} is not in any subnet of network {network.section!r}",
                option="network" if in_entry else option,
                index=index if in_entry else None,
                expected=f"an address in {', '.join(subnets)}" if subnets else "a network with `list subnet`",
            )
        reserved = (reserved_address(s, address) for s in subnets if address and contains(s, address))
        for word in filter(None, reserved):
            reader.report(
                f"{address} is the {word} of network {network.section!r}",
                option="network" if in_entry else option,
                index=index if in_entry else None,
                expected="an address of a host",
            )


def _check_pools(draft: DecodedSections) -> None:
    """Warns of fixed addresses that the engine may give to another container, or to none."""
    # by Docker names, because the containers' names are resolved by now
    networks = {network.name: network for source, network in draft.networks if not source.failed}
    fixed = [
        (reader, networks[endpoint.network], address)
        for reader, container in draft.containers
        for endpoint in container.spec.endpoints
        if endpoint.network in networks
        for address in filter(None, (endpoint.ip, endpoint.ip6))
    ]
    for reader, network, address in fixed:
        # subnets of one network do not overlap, so at most one pool contains the address
        pool = next((pool for pool in network.spec.pools if contains(pool.subnet, address)), None)
        if pool is None:
            continue  # already reported: it is in no subnet
        reserved = next((name for name, each in pool.aux_addresses if same_address(each, address)), None)
        if reserved is not None or same_address(pool.gateway, address):
            what = f"aux_address {reserved}" if reserved is not None else "gateway"
            reader.warn(
                f"{address} is the {what} of network {network.section!r}: the engine assigns it to no container",
                option="network",
                expected="another address",
            )
        # Without `ip_range` the engine assigns addresses from the whole subnet. Then the container that starts first
        # may get this address, and after a reboot the order is random.
        elif not pool.ip_range or contains(pool.ip_range, address):
            subnet = ipaddress.ip_network(pool.subnet)
            wish = "`list ip_range` in that network that leaves it out"
            # half of a subnet with four addresses or fewer would leave nothing to assign
            if subnet.prefixlen < subnet.max_prefixlen - 2:
                halves = subnet.subnets(prefixlen_diff=1)
                other = next(half for half in halves if ipaddress.ip_address(address) not in half)
                wish = f"`list ip_range` in that network that leaves it out, such as {other}"
            reader.warn(
                f"{address} lies where network {network.section!r} hands out addresses: another container may get it first",
                option="network",
                expected=wish,
            )


def _check_network_mode(reader: SectionReader, container: Container) -> None:
    mode, spec = container.spec.network_mode, container.spec
    # `list network` may also contain a mode, see `_resolved`
    if mode is None:
        _check_published(
            reader, spec, next((e.network for e in spec.endpoints if e.network in NO_NETWORKS), "")
        )
        return
    if reader.has("network"):
        reader.report(
            "cannot be combined with `list network`", option="network_mode", expected="only one of them"
        )
    _check_published(reader, spec, mode)
    # names and name servers belong to the container whose network is shared: the engine refuses them here (moby
    # runconfig, validateNetContainerMode)
    if mode.startswith(_SHARED_BY):
        for option in ("hostname", "domainname", "dns", "dns_search", "dns_opt", "extra_host"):
            if reader.has(option):
                reader.report(
                    f"cannot be combined with network_mode {mode}",
                    option=option,
                    expected="it in the section of that container",
                )


def _check_remapped(reader: SectionReader, spec: ContainerSpec) -> None:
    """Warns of settings that the engine refuses when users are remapped (moby daemon, verifyPlatformContainerSettings).
    Only a warning, because `userns_remap` may be left out on this router."""
    # `userns host` excludes the container from remapping, which is what the engine requires here
    if spec.userns == "host":
        return
    for option, asked in (
        ("privileged", spec.privileged),
        ("network_mode" if reader.has("network_mode") else "network", spec.network_mode == "host"),
        ("pid", spec.pid == "host"),
    ):
        if asked:
            reader.warn(
                "the engine refuses it to a container whose users are remapped (dockerd's userns_remap)",
                option=option,
                expected="`option userns 'host'` as well",
            )


def _check_published(reader: SectionReader, spec: ContainerSpec, mode: str) -> None:
    # with `host` the container listens on the router itself, so the link may name any port
    if mode != "host":
        inner = {port.container_port for port in spec.ports if port.protocol == "tcp"}
        for number in sorted(webui_ports(reader.text("webui") or "") - inner):
            reader.warn(
                f"the section publishes no port {number} of the container",
                option="webui",
                expected="[port:N] with a port that `list port` names last",
            )
    # on the default networks, ports are published as usual
    if mode in DEFAULT_NETWORKS:
        return
    for option, given in (("port", bool(spec.ports)), ("publish_all", bool(spec.publish_all))):
        if given and mode.startswith(_SHARED_BY):
            reader.report(
                f"cannot be combined with network_mode {mode}",
                option=option,
                expected="it in the section of that container",
            )
        elif given:
            reader.warn(f"has no effect with the network {mode}", option=option, expected="another network")


def _check_volume_driver(reader: SectionReader, container: Container, draft: DecodedSections) -> None:
    """Reports a volume with another driver: the engine uses an existing volume only with its own driver."""
    driver, volumes = container.spec.volume_driver, {v.section: v for _, v in draft.volumes}
    # without `volume_driver` the engine uses a volume with the driver that created it
    for mount in container.spec.mounts if driver else ():
        other = volumes.get(mount.source)
        if other is not None and other.spec.driver != driver:
            reader.report(
                f"the volume section {other.section!r} has the driver {other.spec.driver}",
                option="volume_driver",
                expected="the same driver, or no `volume_driver`: it is for volumes without a section",
            )


def _check_platforms(draft: DecodedSections) -> None:
    """Reports different platforms of one image: an engine keeps only one image under a name, so each platform would
    replace the other."""
    platforms: dict[str, set[str]] = {}
    for _, container in draft.containers:
        platforms.setdefault(container.spec.image, set()).add(container.spec.platform or "")
    # reported only for sections with a platform: the others use whatever image is present
    for reader, container in draft.containers:
        if container.spec.platform and len(platforms[container.spec.image]) > 1:
            reader.report(
                f"another section uses {container.spec.image} for another platform",
                option="platform",
                expected="one platform for all of them, or an image by its digest",
            )


def _resolved(reader: SectionReader, container: Container, draft: DecodedSections) -> Container:
    """The container with Docker names instead of section names, and the dependencies that follow from sharing."""
    networks = {network.section: network.name for _, network in draft.networks}
    volumes = {volume.section: volume.name for _, volume in draft.volumes}
    spec = container.spec
    endpoints = tuple(replace(e, network=networks.get(e.network, e.network)) for e in spec.endpoints)
    mode = spec.network_mode
    # people write `list network 'host'`, but to the engine that is a mode and not a network
    if mode is None and endpoints and endpoints[0].network in NO_NETWORKS:
        mode, endpoints = endpoints[0].network, ()
    implied: list[Dependency] = []
    spec = replace(
        spec,
        endpoints=endpoints,
        mounts=tuple(_mount(mount, volumes) for mount in spec.mounts),
        network_mode=_shared(reader, "network_mode", mode, draft, implied),
        ipc=_shared(reader, "ipc", spec.ipc, draft, implied),
        pid=_shared(reader, "pid", spec.pid, draft, implied),
        volumes_from=tuple(_lender(reader, entry, draft, implied) for entry in spec.volumes_from),
    )
    # A container that shares a namespace must wait for its owner. If the user declared that dependency, keep it,
    # because its condition may be stricter (healthy, completed).
    declared = container.policy.depends_on
    named = {dependency.section for dependency in declared}
    more = tuple(dict.fromkeys(d for d in implied if d.section not in named))
    return replace(container, spec=spec, policy=replace(container.policy, depends_on=declared + more))


def _mount(mount: Mount, volumes: dict[str, str]) -> Mount:
    return mount if mount.is_bind else replace(mount, source=volumes.get(mount.source, mount.source))


def _shared(
    reader: SectionReader, option: str, value: str | None, draft: DecodedSections, implied: list[Dependency]
) -> str | None:
    """Resolves `service:SECTION` and `container:NAME` to `container:<Docker name>`; our containers become dependencies."""
    if value is None or not value.startswith(_SHARED_BY):
        return value
    kind, _, target = value.partition(":")
    found = next(
        (c for _, c in draft.containers if target == (c.section if kind == "service" else c.name)),
        None,
    )
    if found is None and kind == "service":
        reader.report(f"unknown container section {target!r}", option=option, expected="a container section")
        return value
    # a container that is not ours may exist; a missing section cannot
    if found is None:
        reader.warn(
            f"{target!r} is not a container of ours", option=option, expected="the name of one that exists"
        )
        return value
    implied.append(Dependency(section=found.section))
    return f"container:{found.name}"


def _lender(reader: SectionReader, entry: str, draft: DecodedSections, implied: list[Dependency]) -> str:
    """An entry of `volumes_from` with a Docker name. Without a prefix a section takes precedence over a Docker name."""
    kind, colon, rest = entry.partition(":")
    if kind not in {"service", "container"}:
        kind, rest = "", entry
    target, colon, mode = rest.partition(":")
    wanted = {"service": [True], "container": [False]}.get(kind, [True, False])
    # a resolved container becomes a dependency, because it has to be created first
    found = [
        c
        # order by convention: `volumes_from` names services in compose files, and containers with `docker run`
        for by_section in wanted
        for _, c in draft.containers
        if target == (c.section if by_section else c.name)
    ]
    if found:
        implied.append(Dependency(section=found[0].section))
        return f"{found[0].name}{colon}{mode}"
    if kind == "service":
        reader.report(
            f"unknown container section {target!r}", option="volumes_from", expected="a container section"
        )
    else:
        # only a warning: the engine may know a container that was started with `docker run`
        wish = "a container section, or the name of a container that exists"
        reader.warn(f"{target!r} is not a container of ours", option="volumes_from", expected=wish)
    return f"{target}{colon}{mode}"


def _check_dependencies(draft: DecodedSections) -> None:
    # by section: a Docker name may belong to a container that is not ours, which is not a dependency
    edges = {c.section: {d.section for d in c.policy.depends_on} for _, c in draft.containers}
    for reader, container in draft.containers:
        for index, dependency in reader.parsed_items("depends_on", parse_dependency):
            if dependency.section not in edges:
                known = ", ".join(sorted(set(edges) - {container.section})) or "none is declared"
                reader.report(
                    f"unknown container section {dependency.section!r}",
                    option="depends_on",
                    index=index,
                    expected=f"a container section ({known})",
                )
        # reported for each member: a person who edits one section may not know the others
        if container.section in _reachable(container.section, edges):
            members = sorted(
                s for s in _reachable(container.section, edges) if container.section in _reachable(s, edges)
            )
            # sharing is a dependency too: report the mistake at whichever option the section has
            options = ("depends_on", "network_mode", "ipc", "pid", "volumes_from")
            option = next((name for name in options if reader.has(name)), "network_mode")
            reader.report(
                f"depends on itself through {', '.join(members)}",
                option=option,
                expected="dependencies without a cycle",
            )


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(edges.get(start, ()))
    while todo:
        section = todo.pop()
        if section not in found:
            found.add(section)
            todo.extend(edges.get(section, ()))
    return found


def _check_host_ports(draft: DecodedSections, listeners: Sequence[Listener]) -> None:
    """Reports enabled containers that use the same host port on overlapping addresses."""
    # Group by number and protocol first: comparing all ports with each other would take minutes for ranges of
    # thousands of ports.
    taken: dict[tuple[int, str], list[tuple[SectionReader, Port]]] = {}
    for reader, container in draft.containers:
        if container.policy.enabled and (container.spec.network_mode or "") in DEFAULT_NETWORKS:
            for port in container.spec.ports:
                if port.host_port and not port.host_port_end:  # for a range the engine chooses a free port
                    taken.setdefault((port.host_port, port.protocol), []).append((reader, port))
    used = _used(draft, listeners)
    clashes: dict[tuple[str, int | None], tuple[SectionReader, set[str], str]] = {}
    # one message per `list port` line: overlapping ranges would otherwise fill pages
    for (number, protocol), users in sorted(taken.items(), key=lambda item: item[0]):
        for reader, port in users:
            for other, theirs in users:
                if theirs is not port and addresses_meet(port.host_ip, theirs.host_ip):
                    name = other.name if other is not reader else "this one"
                    # counted per entry, because users can only correct an entry
                    place = (f"{reader.package}.{reader.key}", _entry_of(reader, port))
                    free = _free(number, protocol, used)
                    _, words, _ = clashes.setdefault(place, (reader, set(), free))
                    words.add(f"{number}/{protocol} ({name})")
    for (_, index), (reader, words, free) in clashes.items():
        reader.report(
            f"host ports taken by other containers: {', '.join(sorted(words))}",
            option="port",
            index=index,
            expected=f"its own host port or address{free}",
        )


def _entry_of(reader: SectionReader, port: Port) -> int | None:
    """The index of the `port` entry that publishes this port."""
    return next((index for index, ports in reader.parsed_items("port", parse_ports) if port in ports), None)


def _check_listeners(draft: DecodedSections, listeners: Sequence[Listener]) -> None:
    """Warns of container ports on which another program listens: either the engine or that program would fail. Not an
    error, because the program may be gone when the container starts."""
    # the suggestion must also avoid declared ports of containers that do not run now
    used = _used(draft, listeners)
    for reader, container in draft.containers:
        # no port is published in the network of the router or of another container, nor by a disabled section
        if not container.policy.enabled or (container.spec.network_mode or "") not in DEFAULT_NETWORKS:
            continue
        for port in container.spec.ports if listeners else ():
            found = next(
                (
                    each
                    for number in port.host_ports
                    for each in listeners
                    if (each.port, each.protocol) == (number, port.protocol)
                    and addresses_meet(port.host_ip, each.ip)
                ),
                None,
            )
            if found is not None:
                reader.warn(
                    found.said,
                    option="port",
                    index=_entry_of(reader, port),
                    expected=f"another host port or address{_free(port.host_port, port.protocol, used)}",
                )


def _check_logging(draft: DecodedSections, listeners: Sequence[Listener], daemon: Mapping[str, Json]) -> None:
    """Warns of log options with which the container cannot be created or started. Only warnings: the engine itself refuses
    the new container.
    """
    open_ports = {number for number, protocol in _used(draft, listeners) if protocol == "tcp"}
    options = daemon.get("log-opts")
    by_default = {name: str(value) for name, value in options.items()} if isinstance(options, dict) else {}
    default = str(daemon.get("log-driver") or log_drivers.DEFAULT)
    for reader, container in draft.containers:
        own = container.spec.log_driver
        driver = own or default
        # dockerd's options also complete those of a section that names the same driver (moby daemon/logs.go)
        given = {**(by_default if driver == default else {}), **dict(container.spec.log_opts)}
        # without a driver here nor in UCI, the engine may have another default, with other options
        _check_log_options(reader, driver, given, is_certain=bool(own or daemon.get("log-driver")))
        # which programs listen is not known offline
        port = log_drivers.local_port(driver, given) if listeners and container.policy.enabled else 0
        if port and port not in open_ports:
            reader.warn(
                f"nothing listens on port {port}, where the log driver {driver} delivers: the container cannot start",
                option="log_driver",
                expected=f"a program on port {port}, or another log driver",
            )


def _check_log_options(
    reader: SectionReader, driver: str, given: Mapping[str, str], *, is_certain: bool
) -> None:
    places = {text.partition("=")[0].strip(): index for index, text in reader.items("log_opt")}
    if missing := log_drivers.missing_options(driver, given):
        reader.warn(
            f"{driver} needs {' and '.join(missing)}: the container cannot run",
            option="log_driver",
            expected=f"`list log_opt '{missing[0]}=...'` beside it",
        )
    if not places:
        return  # dockerd's own options are checked where they are set
    for name, wrong, expected in log_drivers.wrong_options(driver, given):
        if is_certain or not log_drivers.drivers_with(name):
            reader.warn(wrong, option="log_opt", index=places.get(name), expected=expected)
    if driver in {"json-file", "local"}:
        for index, text in reader.items("log_opt"):
            try:
                found = log_drivers.parse_log_opt(text)
                if isinstance(found, Discouraged):
                    reader.warn(found.wrong, option="log_opt", index=index, expected=found.better)
            except QuantityError as exc:
                reader.warn(exc.wrong, option="log_opt", index=index, expected=exc.expected)


def _used(draft: DecodedSections, listeners: Iterable[Listener]) -> frozenset[tuple[int, str]]:
    # including disabled sections, which may be enabled again
    declared = {
        (number, port.protocol)
        for _, container in draft.containers
        for port in container.spec.ports
        for number in port.host_ports
    }
    return frozenset(declared | {(each.port, each.protocol) for each in listeners})


def _free(number: int, protocol: str, used: frozenset[tuple[int, str]]) -> str:
    """A suggestion for a free port: 8080 for port 80, the next one for ports such as 8080."""
    # images conventionally map 80 to 8080; above the privileged ports the next number is easier to remember
    first = number + _UNPRIVILEGED if number < _RESERVED else number + 1
    free = next((each for each in range(first, _PORT_MAX + 1) if (each, protocol) not in used), 0)
    return f"; {free} is free" if free else ""
