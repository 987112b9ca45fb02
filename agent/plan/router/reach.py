# SPDX-License-Identifier: GPL-2.0-or-later
"""How forwarded packets pass the router's firewall zones, following the rules that firewall4 generates (ruleset.uc).
Finds ports that the internet can reach and networks that the firewall cuts off. Also what a container can do to the
router because of its section, and what the router's web server allows web pages to do. Pure.

Every zone that contains the packet's source device is asked in turn: its rules and forwardings first, then its own
`forward` policy if the target device is in the same zone. If no zone decides, the `forward` policy of `config
defaults` does. Rules that reject packets are ignored: the user made them on purpose. `agent.uci.router` parses the
firewall's UCI package.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import commonpath

from agent.errors import ConfigError, Reason
from agent.model.addresses import Interface
from agent.model.dockerd.settings import Document, FirewallRule, parse_extra
from agent.model.quantities import TRUE_WORDS
from agent.model.resources import DEFAULT_NETWORKS, Container, Port, Volume, VolumeSpec
from agent.uci.router import Firewall, Zone, text, words
from agent.uci.syntax import Package, Section

IPv4 = ipaddress.IPv4Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """The bridge of a Docker network. `subnets`: IPv4; empty if they are not known.

    `internal`: the engine itself blocks traffic in both directions. `routed`: the engine publishes no port of it.
    """

    device: str
    subnets: tuple[IPv4, ...] = ()
    internal: bool = False
    routed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterFacts:
    """The facts that decide. `devices`: a UCI interface -> its devices. `bridges`: Docker network -> its bridge, for
    networks that we know. `without_bridge`: networks whose containers are on a link of their own.

    `rules`: the rules in force. `values`: dockerd's settings. `docker_first`: dockerd's rules come before those of
    the zones (fw3).
    """

    firewall: Firewall
    rules: Sequence[FirewallRule] = ()
    devices: Callable[[str], frozenset[str]]
    bridges: Mapping[str, Bridge]
    without_bridge: frozenset[str] = frozenset()
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    values: Document = field(default_factory=dict)
    docker_first: bool

    @property
    def forwards(self) -> bool:
        """Whether dockerd redirects packets to containers; otherwise its userland proxy listens on the router."""
        return self.values.get("iptables") is not False


def networks_of(container: Container) -> tuple[str, ...]:
    """The Docker networks that a container is on; empty if it uses the network of the host or of another container."""
    spec = container.spec
    if spec.endpoints:
        return tuple(endpoint.network for endpoint in spec.endpoints)
    return ("bridge",) if (spec.network_mode or "") in DEFAULT_NETWORKS else ()


def zones_with(device: str, subnets: Collection[IPv4], around: RouterFacts) -> tuple[Zone, ...]:
    """The zones that contain a device, in order."""
    return tuple(zone for zone in around.firewall.zones if _has(zone, device, subnets, around))


def _has(zone: Zone, device: str, subnets: Collection[IPv4], around: RouterFacts) -> bool:
    if zone.family == "6" or (zone.implied and not around.docker_first):
        return False
    named = members(zone, around)
    if not named and not zone.subnets:
        return False
    # the device must match none of the names with `!` and, if there are names without, at least one of those
    refused = [name[1:].strip() for name in named if name.startswith("!")]
    taken = [name for name in named if not name.startswith("!")]
    if any(is_named(device, name) for name in refused):
        return False
    by_device = not taken or any(is_named(device, name) for name in taken)
    return by_device and (not zone.subnets or _inside(subnets, zone.subnets))


def members(zone: Zone, around: RouterFacts) -> frozenset[str]:
    """The names of a zone's devices; each may end in `+` or begin with `!`."""
    return frozenset(zone.devices).union(*(around.devices(name) for name in zone.networks))


def is_named(device: str, name: str) -> bool:
    """Whether a device name in the firewall matches the device: `*` matches any, `br-+` any with that prefix."""
    return name == "*" or name == device or (name.endswith("+") and device.startswith(name[:-1]))


def _inside(subnets: Collection[IPv4], given: Collection[str]) -> bool:
    """Whether a zone limited to the `given` subnets may contain these. Unknown subnets may be anything."""
    taken: list[IPv4] = []
    refused: list[IPv4] = []
    for entry in given:
        try:
            found = ipaddress.ip_network(entry.removeprefix("!").strip(), strict=False)
        except ValueError:  # a netmask in an unusual form
            return True
        if isinstance(found, IPv4):
            (refused if entry.startswith("!") else taken).append(found)
    if not taken and not refused:
        return False
    return not subnets or any(
        (not taken or any(subnet.overlaps(one) for one in taken))
        and not any(subnet.subnet_of(one) for one in refused)
        for subnet in subnets
    )


def passes(
    sources: Iterable[Zone],
    targets: Sequence[Zone],
    firewall: Firewall,
    *,
    protocol: str = "",
    port: int = 0,
    redirected: bool = False,
) -> bool:
    """Whether a new connection may go from a device in `sources` to one in `targets`; without `protocol`: a connection
    of any kind.

    `redirected`: destination NAT changed the target address.
    """
    asked = tuple(sources)
    inward = {"*", *(zone.name for zone in targets)}
    # fw4 puts rules with any source before the chains of the zones
    if _may("*", inward, firewall, protocol, port):
        return True
    for zone in asked:
        if _may(zone.name, inward, firewall, protocol, port):
            return True
        if redirected and zone.name in firewall.redirected:
            return True
        # the policy ends the zone's chain, so later zones of the same device are not reached
        if zone in targets:
            return zone.forward == "ACCEPT"
    return firewall.forward == "ACCEPT"


def _may(src: str, inward: Collection[str], firewall: Firewall, protocol: str, port: int) -> bool:
    forwarded = any(
        each.src == src and each.dest in inward and each.family != "6" for each in firewall.forwardings
    )
    return forwarded or permitted(firewall, src, inward, protocol, port)


def permitted(firewall: Firewall, src: str, dests: Collection[str], protocol: str, port: int) -> bool:
    """Whether a rule accepts the packet. A destination of "" is the router itself."""
    return any(
        rule.src in {src, "*"}
        and rule.dest in dests
        and (not protocol or not rule.protocols or protocol in rule.protocols)
        and (not protocol or not rule.ports or any(port in ports for ports in rule.ports))
        for rule in firewall.permits
    )


# Which published ports can be reached from a wan zone, as far as UCI tells. Pure.
#
# dockerd turns a published port into destination NAT. Such packets are forwarded, so the zone's input policy does not
# apply. With fw3 dockerd's own rules come first and accept. fw4 has its own table and rejects packets without a
# matching forwarding, except if the zone has any port forward: then it accepts everything that was redirected. Rules
# that the user made outside UCI are not seen. `agent.runtime.router_integration` shows the result.


# matches of the connection's state: a rule with only these covers all new connections
_OF_CONNECTIONS = frozenset({"-m", "--match", "--ctstate", "--state", "!"})


def public_ports(container: Container, around: RouterFacts) -> tuple[str, ...]:
    """The published ports that can be reached, as `8080/tcp from wan`."""
    wans = dict.fromkeys(zone.name for zone in around.firewall.zones if zone.is_wan)
    reach = zones_reaching(container, around)
    return tuple(f"{port} from {zone}" for zone in wans for port in reach if zone in reach[port])


def zones_reaching(container: Container, around: RouterFacts) -> dict[str, list[str]]:
    """Published port -> the firewall zones that reach it, without the zones of the container's own networks:
    {"8080/tcp": ["lan"]}."""
    return zones_of(networks_of(container), container.spec.ports, around)


def zones_of(networks: Iterable[str], ports: Iterable[Port], around: RouterFacts) -> dict[str, list[str]]:
    """As `zones_reaching`, for ports of a container on these Docker networks."""
    # an unmanaged network gets a bridge without a device, which is in no known zone
    names = [name for name in networks if name not in around.without_bridge]
    found = [around.bridges.get(name, Bridge(device="")) for name in names]
    bridges = [bridge for bridge in found if not bridge.internal and not bridge.routed]
    own = {zone for each in bridges if each.device for zone in zones_with(each.device, each.subnets, around)}
    # a port may be published at several addresses of the router, each of them in another zone
    published: dict[str, list[Port]] = {}
    for port in ports:
        published.setdefault(f"{port.host_text}/{port.protocol}", []).append(port)
    return {
        name: [
            zone.name
            for zone in around.firewall.zones
            if bridges
            and zone not in own
            and any(_listens(one, zone, around) and _passes(one, zone, bridges, around) for one in same)
        ]
        for name, same in published.items()
    }


def _listens(port: Port, zone: Zone, around: RouterFacts) -> bool:
    """Whether the port is on an address that hosts of the zone can reach."""
    if not port.host_ip:
        return True
    address = ipaddress.ip_address(port.host_ip)
    if address.is_unspecified:
        return True
    known = [around.interfaces[name] for name in zone.networks if name in around.interfaces]
    return port.host_ip in frozenset().union(*(each.addresses for each in known)) or address.is_global


def _passes(port: Port, zone: Zone, bridges: Iterable[Bridge], around: RouterFacts) -> bool:
    """Whether nothing blocks the way from the zone to at least one of the bridges."""
    # without iptables, dockerd's userland proxy listens on the router: nothing is forwarded, and an input rule
    # decides
    if not around.forwards:
        return any(
            permitted(around.firewall, zone.name, {""}, port.protocol, number) for number in port.host_ports
        )
    for bridge in bridges:
        if _blocked(zone, bridge.device, around):
            continue
        # with fw3, dockerd's own rules come first and accept; with fw4, the zones decide about redirected packets
        if around.docker_first:
            return True
        targets = zones_with(bridge.device, bridge.subnets, around) if bridge.device else ()
        inner, protocol = port.container_port, port.protocol
        if passes([zone], targets, around.firewall, protocol=protocol, port=inner, redirected=True):
            return True
    return False


def _blocked(zone: Zone, bridge: str, around: RouterFacts) -> bool:
    """Whether `blocked_interfaces` covers every device of the zone for this bridge, for all new connections."""
    closed: set[str] = set()
    for rule in around.rules:
        if is_named(bridge, rule.device) and _is_whole(rule):
            closed = closed.union(*(around.devices(name) for name in rule.blocked_interfaces))
    comes_by = members(zone, around)
    return bool(comes_by) and comes_by <= closed


def _is_whole(rule: FirewallRule) -> bool:
    """Whether the rule rejects all new connections: with any match other than the connection state it rejects only some
    packets."""
    try:
        # the code that builds the rules reports a parse error; here the error only means that nothing is certain
        extra = parse_extra(rule.extra_iptables_args)
    except ConfigError:
        return False
    states = [word.split(",") for word in extra if word not in _OF_CONNECTIONS | {"conntrack", "state"}]
    if not states:
        return not extra
    only_of_connections = {word for word in extra if word.startswith("-")} <= _OF_CONNECTIONS
    # "NEW" or "not ESTABLISHED": both reject every connection that begins outside
    return only_of_connections and len(states) == 1 and ("NEW" in states[0]) is not ("!" in extra)


# Finds containers that the firewall's zones cut off: ports that no zone can reach, or no way to the internet. Pure.
#
# Reported only if UCI is conclusive. Not reported: networks that others manage, a firewall that includes a file with
# rules for forwarded packets, and fw3, whose zones come after dockerd's own rules. `agent.runtime.router_integration`
# shows the result.


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOff:
    """A cut-off container. `src` and `dest`: the zones between which a forwarding would help, "" if none would."""

    reason: Reason
    message: str
    src: str = ""
    dest: str = ""


def unreachable_ports(container: Container, around: RouterFacts) -> CutOff | None:
    """The published ports that no zone can reach, in words; None if there are none or if UCI is not conclusive."""
    bridges = _blocked_bridges(container, around)
    published = [port for port in container.spec.ports if not port.is_local]
    open_to = [bridge for bridge in bridges or () if not bridge.internal and not bridge.routed]
    if not published or not open_to or not _is_sure(around):
        return None
    zones = [zone for zone in around.firewall.zones if _has_others(zone, around)]
    if not zones:
        return None
    if not around.forwards:
        return _unheard(published, zones, around)
    targets = [zones_with(bridge.device, bridge.subnets, around) for bridge in open_to]
    closed = [
        f"{port.host_port or port.container_port}/{port.protocol}"
        for port in published
        for inner, protocol in [(port.container_port, port.protocol)]
        if not any(
            passes([zone], each, around.firewall, protocol=protocol, port=inner, redirected=True)
            for zone in zones
            for each in targets
        )
    ]
    if not closed:
        return None
    ports = ", ".join(dict.fromkeys(closed))
    home = _zone_name(open_to, around)
    # propose the zone of the router's own network; never suggest to open the port to strangers
    trusted = [zone.name for zone in zones if zone.input == "ACCEPT" and not zone.is_wan]
    local = "lan" if "lan" in trusted else next(iter(trusted), "")
    if not home:
        text = f"{open_to[0].device} is in no firewall zone, so no zone may reach {ports}: add it to one"
        return CutOff(reason="NoZone", message=text)
    text = f"no firewall zone may reach {ports}"
    if local:
        return CutOff(
            reason="NoForwarding",
            message=f"{text}: allow forwarding from zone {local} to zone {home}",
            src=local,
            dest=home,
        )
    return CutOff(reason="NoForwarding", message=f"{text}: allow forwarding to zone {home}")


def no_internet(container: Container, around: RouterFacts) -> CutOff | None:
    """A container without internet access, in words; None if it has access, needs none, or if UCI is not conclusive."""
    bridges = _blocked_bridges(container, around)
    outward = [bridge for bridge in bridges or () if not bridge.internal]
    # the zones of all interfaces with a default route, or the wan zones while there is no default route
    ours = {bridge.device for bridge in around.bridges.values()}
    ways = [
        zones_with(each.l3_device or each.device, (), around)
        for each in around.interfaces.values()
        if each.is_uplink and (each.l3_device or each.device) not in ours
    ] or [(zone,) for zone in around.firewall.zones if zone.is_wan]
    if not outward or not ways or not _is_sure(around):
        return None
    for bridge in outward:
        sources = zones_with(bridge.device, bridge.subnets, around)
        if any(passes(sources, targets, around.firewall) for targets in ways):
            return None
    home = _zone_name(outward, around)
    out = next((zone.name for targets in ways for zone in targets), "")
    if not home:
        text = (
            f"{outward[0].device} is in no firewall zone, so its containers have no internet: add it to one"
        )
        return CutOff(reason="NoZone", message=text)
    if not out:
        return CutOff(reason="NoUplinkZone", message="the interface to the internet is in no firewall zone")
    text = f"no internet: allow forwarding from zone {home} to zone {out}"
    return CutOff(reason="NoForwarding", message=text, src=home, dest=out)


def _is_sure(around: RouterFacts) -> bool:
    return not around.docker_first and not around.firewall.has_includes


def _blocked_bridges(container: Container, around: RouterFacts) -> tuple[Bridge, ...] | None:
    """The bridges of a container's networks; None if it uses a network that we do not know, or the network of the host
    or of another container."""
    names = networks_of(container)
    if not names or any(name not in around.bridges for name in names):
        return None
    return tuple(around.bridges[name] for name in names)


def _has_others(zone: Zone, around: RouterFacts) -> bool:
    """Whether the zone contains anything other than containers."""
    # fw3 implies the interface with the zone's name; with fw4 such a zone contains nothing
    if zone.implied and not around.docker_first:
        return False
    ours = {bridge.device for bridge in around.bridges.values()}
    named = members(zone, around)
    if named:
        return any(name not in ours for name in named)
    return bool(zone.subnets) and not any(
        zone in zones_with(bridge.device, bridge.subnets, around) for bridge in around.bridges.values()
    )


def _unheard(published: Iterable[Port], zones: Iterable[Zone], around: RouterFacts) -> CutOff | None:
    """Ports that no zone can reach with `iptables 0`, when dockerd's userland proxy listens on the router and the zone's
    input policy decides."""
    # dockerd then does not forward these ports; another program listens
    if around.values.get("userland-proxy") is False:
        return None
    closed = [
        port
        for port in published
        if not any(
            zone.input == "ACCEPT"
            or permitted(around.firewall, zone.name, {""}, port.protocol, port.host_port)
            for zone in zones
        )
    ]
    if not closed:
        return None
    ports = ", ".join(dict.fromkeys(f"{port.host_port or 'a port'}/{port.protocol}" for port in closed))
    text = f"no firewall zone may reach {ports} on the router: add a rule that accepts it"
    return CutOff(reason="NoRule", message=text)


def _zone_name(bridges: Iterable[Bridge], around: RouterFacts) -> str:
    found = (zone.name for bridge in bridges for zone in zones_with(bridge.device, bridge.subnets, around))
    return next(found, "")


# path -> (what it is, whether reading it or connecting to it is enough); changing any of them, or anything in it, gives
# control of the router
HOST_PATHS: Mapping[str, tuple[str, bool]] = {
    "/var/run/ubus": ("ubus", True),
    "/run/containerd": ("the engine's socket", True),
    "/etc/dropbear": ("SSH keys", True),
    "/etc/ssh": ("SSH keys", True),
    "/root/.ssh": ("SSH keys", True),
    "/etc/shadow": ("passwords", True),
    "/etc/passwd": ("passwords", False),
    **dict.fromkeys(
        ("/etc/crontabs", "/etc/init.d", "/etc/rc.d", "/etc/rc.local", "/etc/hotplug.d", "/etc/uci-defaults"),
        ("what the router runs", False),
    ),
    **dict.fromkeys(
        (
            "/bin",
            "/sbin",
            "/lib",
            "/usr/bin",
            "/usr/sbin",
            "/usr/lib",
            "/usr/libexec",
            "/www",
            "/usr/share/rpcd",
        ),
        ("the router's programs", False),
    ),
    **dict.fromkeys(("/overlay", "/boot"), ("the router's file system", False)),
    **dict.fromkeys(("/proc", "/sys"), ("the kernel's settings", False)),
}
_ROOT = "the router's whole file system"
_ALL = "ALL"
# each is enough to leave the container
_CAPABILITIES = ("CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_DAC_READ_SEARCH", _ALL)
_BESIDE_PID_HOST = ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE")  # enough where the host's processes can be seen
# memory, whole disks and flash; partitions are left out because they may hold plain data
_DEVICES = re.compile(
    r"/dev(/(mem|kmem|port|sd[a-z]+|vd[a-z]+|hd[a-z]+|nvme\d+n\d+|mmcblk\d+|mtd(block)?\d+(ro)?|ubi\d+(_\d+)?))?"
)
_DEVICE_RULE = re.compile(r"([ab] .*|c (\*|1):(\*|1|2|4) .*)")  # devices(5): 1:1 mem, 1:2 kmem, 1:4 port
_READ_ONLY, _BIND = frozenset({"ro"}), frozenset({"bind", "rbind"})


def host_control(
    container: Container,
    volumes: Iterable[Volume],
    precious: Mapping[str, tuple[str, bool]],
    resolve: Callable[[str], str],
) -> tuple[str, ...]:
    """What gives the container control of the router, such as `/var/run/docker.sock (the engine's socket)` or
    `privileged`.

    `precious`: resolved path -> (what it is, whether reading it is enough); "" for a harmless folder in a precious one.
    `resolve` follows symbolic links.
    """
    spec = container.spec
    found = ["privileged"] if spec.privileged else []
    has = frozenset(spec.cap_add)
    found += [name for name in _CAPABILITIES if name in has]
    # these give access to the router's own processes or network only if the container shares them
    if spec.pid == "host":
        found += [f"pid host with {name}" for name in _BESIDE_PID_HOST if name in has]
    if spec.network_mode == "host" and "CAP_NET_ADMIN" in has:
        found.append("network_mode host with CAP_NET_ADMIN (the router's network and firewall)")
    declared = {name: volume.spec for volume in volumes for name in (volume.section, volume.name)}
    for mount in spec.mounts:
        source, read_only = mount.source, mount.read_only
        if not mount.is_bind:
            # a volume of the driver local may be a disguised bind mount: type none, o=bind, device=/
            source, is_read_only = _bound(declared.get(source))
            read_only = read_only or is_read_only
        if source and (what := _reached(resolve(source), precious, read_only=read_only)):
            found.append(f"{source} ({what})")
    for device in spec.devices:
        if device.host.startswith("/") and _DEVICES.fullmatch(resolve(device.host)):
            found.append(f"device {device.host}")
    found += [f"devices {rule}" for rule in spec.device_cgroup_rules if _DEVICE_RULE.fullmatch(rule)]
    return tuple(dict.fromkeys(found))


def looked_at(container: Container, volumes: Iterable[Volume]) -> tuple[str, ...]:
    """The paths that `host_control` passes to `resolve`."""
    bound = [_bound(volume.spec)[0] for volume in volumes]
    mounts = [mount.source for mount in container.spec.mounts if mount.is_bind]
    devices = [device.host for device in container.spec.devices if device.host.startswith("/")]
    return tuple(path for path in (*bound, *mounts, *devices) if path)


def _bound(volume: VolumeSpec | None) -> tuple[str, bool]:
    """The directory that a volume binds ("" if it is not a bind mount), and whether it is read-only (mount(8))."""
    if volume is None or volume.driver != "local":
        return "", False
    options = dict(volume.options)
    words = frozenset(options.get("o", "").split(","))
    device = options.get("device", "")
    is_bind = device.startswith("/") and (words & _BIND or options.get("type") in ("bind", "none"))
    return (device, bool(words & _READ_ONLY)) if is_bind else ("", False)


def _reached(source: str, precious: Mapping[str, tuple[str, bool]], *, read_only: bool) -> str:
    if source == "/":
        return _ROOT
    # all that is in the source, and of the paths that the source is in the nearest
    reached = [path for path in precious if commonpath((source, path)) == source]
    reached += sorted((path for path in precious if commonpath((source, path)) == path), key=len)[-1:]
    found = {
        what
        for what, by_reading in map(precious.__getitem__, reached)
        if what and (by_reading or not read_only)
    }
    return ", ".join(sorted(found))


def plain_luci(uhttpd: Package) -> bool:
    """Whether LuCI is available over plain HTTP: then its session cookie is sent to every port of the router's address."""
    return any(
        section.type == "uhttpd" and words(section, "listen_http") and not _is_on(section, "redirect_https")
        for section in uhttpd.sections
    )


def shared_origin(container: Container) -> tuple[str, ...]:
    """The container's ports on the router's own addresses that a browser can open."""
    ports = (port for port in container.spec.ports if port.protocol == "tcp" and not port.is_local)
    return tuple(dict.fromkeys(f"{port.host_text}/tcp" for port in ports))


def open_to_pages(uhttpd: Package) -> tuple[str, ...]:
    """The uhttpd sections whose /ubus answers pages of any origin with the user's session (`ubus_cors`)."""
    return tuple(
        section.name
        for section in uhttpd.sections
        if section.type == "uhttpd" and _is_on(section, "ubus_cors")
    )


def _is_on(section: Section, option: str) -> bool:
    return text(section, option) in TRUE_WORDS
