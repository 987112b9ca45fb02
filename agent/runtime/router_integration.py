# SPDX-License-Identifier: GPL-2.0-or-later
"""The router around dockerd, in each pass: rules for `blocked_interfaces`, firewall zones of bridges, ports open to the
internet, and containers that the zones cut off.

It runs before the daemon stage, so that the rules exist when dockerd starts, and again after it, because dockerd
recreates its chains. Without /etc/config/firewall (not OpenWrt) there are no zones; with a remote engine there is
nothing to do. Each part can fail on its own: the failure becomes a condition on the board, and the next pass tries
again.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.dockerd.unmanaged import DockerdSettings, declared_settings
from agent.errors import BusError, FirewallError, UcidockdError
from agent.files.config import open_store
from agent.files.options import RuntimeOptions
from agent.files.uci_store import UciMissing, UciStore
from agent.model.addresses import Interface, IpAddress, parse_engine_address
from agent.model.dockerd.settings import DAEMON_KEY, DEFAULT_BRIDGE, FirewallRule
from agent.model.identity import Key
from agent.model.observed import ObservedNetwork, Published
from agent.model.resources import Container, Desired, Network
from agent.plan.router.bridges import (
    BridgeInUci,
    bridges_of,
    our_interfaces,
    with_interfaces,
    with_zones,
)
from agent.plan.router.firewall import Blocked, RejectRule, is_enforced, wanted_rules
from agent.plan.router.reach import (
    Bridge,
    CutOff,
    RouterFacts,
    no_internet,
    public_ports,
    unreachable_ports,
    zones_of,
    zones_reaching,
)
from agent.router.addresses import (
    BusNetifd,
    Netifd,
    UbusNetifd,
    device_addresses,
    has_address,
    has_device,
    machine_addresses,
)
from agent.router.hazards import show_missing_addresses, show_read_only
from agent.router.nftables import Filter, KernelEvents, of_family_4, of_family_6
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType
from agent.uci.decode_network import BRIDGE_NAME
from agent.uci.router import devices_of, read_firewall
from agent.uci.syntax import Package

logger = logging.getLogger(__name__)

_TRIES = 3  # failures in a row to remove the rules of a family; then it counts as clean
GATEWAY_MODE = "com.docker.network.bridge.gateway_mode_ipv4"
_FIREWALL_OPTIONS = frozenset({"device", "blocked_interfaces", "extra_iptables_args", "enforce"})
_FIREWALL4 = Path("/sbin/fw4")
_FW4_STATE = Path("/var/run/fw4.state")  # exists once fw4 has loaded its rules
_RC_D = Path("/etc/rc.d")


def has_fw4() -> bool:
    """Whether firewall4 is in use here, or will be from the next boot on."""
    return _FIREWALL4.exists() and (_FW4_STATE.exists() or any(_RC_D.glob("S*firewall")))


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterTools:
    """What the integration needs from outside; tests replace it."""

    netifd: Netifd = field(default_factory=UbusNetifd)
    ipv4: Filter = field(default_factory=of_family_4)
    ipv6: Filter = field(default_factory=of_family_6)
    has_device: Callable[[str], bool] = has_device
    has_address: Callable[[str], bool] = has_address
    machine_addresses: Callable[[], Iterable[tuple[str, IpAddress]]] = machine_addresses
    addresses: Callable[[str], Iterable[IpAddress]] = lambda device: device_addresses([device])
    has_fw4: Callable[[], bool] = has_fw4
    settings_of: Callable[[Desired], DockerdSettings] = declared_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packages:
    """The router's UCI packages, with their content hashes at the time of reading."""

    network: Package
    firewall: Package
    hashes: Mapping[str, str]


class RouterIntegration:
    """Keeps the router's zones, interfaces and firewall rules as the sections want them.

    `reconcile` never raises because of them: containers do not depend on it.
    """

    def __init__(
        self,
        store: UciStore,
        board: StatusBoard,
        tools: RouterTools | None = None,
        *,
        docker_host: str = "",
        wake: Callable[[], None] | None = None,
    ) -> None:
        """`docker_host`: overrides the agent section. `wake`: requests a pass, from a thread; without it, removed rules
        are not noticed."""
        self._store, self._board, self._docker_host = store, board, docker_host
        self._tools = tools or RouterTools()
        self._interfaces: Mapping[str, Interface] | None = None  # None without netifd
        self._asked = False
        self._read: _Packages | None = None
        # by family, as last wanted; None before the first pass
        self._rules: Mapping[str, tuple[RejectRule, ...]] | None = None
        self._by_nftables = False  # dockerd uses nftables for its rules
        self._enforced: tuple[FirewallRule, ...] = ()
        self._problems: tuple[str, ...] = ()  # mistakes in sections, independent of the kernel's state
        self._in_force = True
        self._clean: set[str] = set()  # address families in which none of our rules is left
        self._failures = {"4": 0, "6": 0}  # consecutive failures while no rule is wanted
        self._owed: dict[str, Callable[[], None]] = {}  # reloads that changes of UCI still require
        self._compared = False
        self._said: dict[str, str] = {}  # topic -> last logged message
        self._around: RouterFacts | None = None  # at the last pass; None without UCI's files
        self._events: KernelEvents | None = None
        self._wake = wake

    def stop(self) -> None:
        """Stops watching the kernel."""
        if self._events is not None:
            self._events.stop()
            self._events = None

    def reconcile(self, desired: Desired) -> None:
        """Handles everything about the router. Blocks."""
        if not parse_engine_address(self._docker_host or desired.agent.docker_host).is_local:
            return
        packages = self._packages()
        interfaces = self._ask()
        settings = self._tools.settings_of(desired)
        self._block(desired, settings, packages, interfaces)
        if packages is not None:
            packages = self._zones(desired, packages)
            # an earlier agent may have been killed between its commit and the reload
            if interfaces is not None and not self._compared:
                self._compared = True
                if our_interfaces(packages.network) - interfaces.keys():
                    self._owed.setdefault("network", self._tools.netifd.reload_network)
                    self._owed.setdefault("firewall", self._tools.netifd.reload_firewall)
            self._show_reach(desired, settings, packages, interfaces)
        self._reload()
        show_read_only(desired, self._board)
        show_missing_addresses(
            desired,
            settings.values,
            self._board,
            has_address=self._tools.has_address,
            addresses=self._tools.machine_addresses,
        )

    def put_rules_back(self) -> None:
        """Restores the rules if dockerd may have been started since `reconcile`."""
        if self._rules is not None and any(self._rules.values()):
            self._show_open((*self._problems, *self._put(self._rules, keep=True)))

    def interfaces(self) -> Mapping[str, Interface] | None:
        """The interfaces found by the last `reconcile`; None without netifd."""
        return self._interfaces if self._asked else self._ask()

    @property
    def silent(self) -> str:
        """Why netifd did not answer last time, "" if it did."""
        return self._said.get("netifd", "")

    # the present state

    def _packages(self) -> _Packages | None:
        """The router's packages; None if this is not OpenWrt, or while its files cannot be read."""
        try:
            # parsing them would be most of the work of a pass; comparing hashes is cheap
            if self._read is not None and all(
                self._store.content_hash(name) == known for name, known in self._read.hashes.items()
            ):
                return self._read
            network, network_hash = self._store.load_with_hash("network")
            firewall, firewall_hash = self._store.load_with_hash("firewall")
        except UcidockdError as exc:
            self._say("zones", "" if isinstance(exc, UciMissing) else f"no firewall zones: {exc}")
            return None
        hashes = {"network": network_hash, "firewall": firewall_hash}
        self._say("zones", "")
        self._read = _Packages(network=network, firewall=firewall, hashes=hashes)
        return self._read

    def _ask(self) -> Mapping[str, Interface] | None:
        """netifd's interfaces; the last known ones while it does not answer."""
        self._asked = True
        try:
            self._interfaces = self._tools.netifd.interfaces()
        except BusError as exc:
            # logged once, and the last answer stays: rules must not be removed because netifd is restarting
            self._say("netifd", str(exc))
        else:
            self._say("netifd", "")
        return self._interfaces

    def _say(self, topic: str, text: str) -> None:
        """Logs a lasting warning only once."""
        if text and text != self._said.get(topic):
            logger.warning("%s", text)
        self._said[topic] = text

    # rules

    def _block(
        self,
        desired: Desired,
        settings: DockerdSettings,
        packages: _Packages | None,
        interfaces: Mapping[str, Interface] | None,
    ) -> None:
        sections = desired.daemon.firewall if desired.daemon is not None else ()
        values, managed = settings.values, settings.managed
        self._enforced = tuple(rule for rule in sections if is_enforced(rule, values, managed=managed))
        ignored = any(s.blocked_interfaces and s not in self._enforced for s in sections)
        why = (
            "dockerd makes no rules (iptables 0)"
            if managed
            else "dockerd's settings are in a file of your own"
        )
        text = f"blocked_interfaces are not enforced, since {why}; `option enforce '1'` blocks anyway"
        self._say("enforced", text if ignored else "")
        wanted = wanted_rules(self._enforced, lambda name: self._resolve(name, packages, interfaces))
        self._by_nftables = values.get("firewall-backend") == "nftables"
        self._rules = {"4": wanted.rules, "6": wanted.rules if values.get("ip6tables") else ()}
        places = (
            (text, text.partition(":")[0].partition("[")[0].rpartition(".")[2])
            for text in desired.daemon_mistakes
        )
        in_sections = (text for text, option in places if option in _FIREWALL_OPTIONS)
        self._problems = (*wanted.problems, *in_sections, *self._refused_by_fw4(packages))
        self._watch()
        # a rule may come from a section that is invalid now: whatever it blocked stays blocked
        keep = bool(wanted.problems or desired.daemon_mistakes)
        failed = self._put(self._rules, keep=keep)
        self._in_force = not failed
        self._show_open((*self._problems, *failed))

    def _refused_by_fw4(self, packages: _Packages | None) -> tuple[str, ...]:
        """Duplicate zone names: firewall4 defines names for each zone, and nft refuses the whole ruleset if one is
        defined twice."""
        if packages is None or not self._tools.has_fw4():
            return ()
        names = [zone.name for zone in read_firewall(packages.firewall).zones]
        return tuple(
            f"/etc/config/firewall has {names.count(name)} zones named {name}, so the firewall loads no rules at all: delete"
            " one, or give it another name"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        )

    def _watch(self) -> None:
        """Watches the kernel, so that removed rules are restored soon, not only at the next resync."""
        if self._events is None and self._wake is not None and self._rules is not None and self._rules["4"]:
            self._events = KernelEvents(self._wake)
            self._events.start()

    def _resolve(
        self, name: str, packages: _Packages | None, interfaces: Mapping[str, Interface] | None
    ) -> Blocked:
        """All devices that the interface has or may get, so that the rule already exists when the interface comes up."""
        declared = devices_of(packages.network, name) if packages is not None else None
        # both: the present device according to netifd, and the device after the next dial-in according to UCI
        found = set(declared or ())
        known = (interfaces or {}).get(name)
        if known is not None:
            found |= {device for device in (known.device, known.l3_device) if device}
        # a name that neither UCI nor netifd knows may be a device name
        if declared is None and known is None:
            return Blocked(devices=frozenset({name}), unknown=not self._tools.has_device(name))
        return Blocked(devices=frozenset(found))

    def _put(self, rules: Mapping[str, tuple[RejectRule, ...]], *, keep: bool) -> tuple[str, ...]:
        """Puts the rules into force; returns the problems."""
        problems: list[str] = []
        for family, tables in (("4", self._tools.ipv4), ("6", self._tools.ipv6)):
            if not rules[family] and family in self._clean:
                continue
            try:
                tables.put_in_force(rules[family], keep=keep, dockerd_uses_nftables=self._by_nftables)
            except FirewallError as exc:
                if rules[family]:
                    problems.append(str(exc))
                else:
                    # without iptables and nft there are no rules of ours to remove: stop checking in every pass
                    self._failures[family] += 1
                    if self._failures[family] >= _TRIES:
                        logger.debug("%s", exc)
                        self._clean.add(family)
                continue
            self._clean.discard(family)
            self._failures[family] = 0
            if not rules[family] and not keep:
                self._clean.add(family)
        return tuple(problems)

    def _show_open(self, problems: Sequence[str]) -> None:
        text = "; ".join(problems)
        if self._board.flag(DAEMON_KEY, ConditionType.FIREWALL_OPEN, "BlockFailed", text) and text:
            logger.error("the firewall is open: %s", text)

    # zones

    def _zones(self, desired: Desired, packages: _Packages) -> _Packages:
        """Puts the bridges into their zones; returns the packages afterwards."""
        bridges = bridges_of(desired.networks)
        broken = frozenset(key.section for key in map(Key.parse, desired.broken) if key.kind == "network")
        network = with_interfaces(packages.network, bridges, broken=broken)
        firewall = with_zones(packages.firewall, network, bridges, broken=broken)
        try:
            # interface first; otherwise the firewall would have a zone with a missing interface
            self._commit(packages.network, network, packages.hashes, self._tools.netifd.reload_network)
            self._commit(packages.firewall, firewall, packages.hashes, self._tools.netifd.reload_firewall)
        except UcidockdError as exc:
            self._show_zones(bridges, str(exc))
            return packages
        self._show_zones(bridges, "")
        return _Packages(network=network, firewall=firewall, hashes=packages.hashes)

    def _commit(
        self, before: Package, after: Package, hashes: Mapping[str, str], reload: Callable[[], None]
    ) -> None:
        if after == before:
            return
        self._store.commit(after, expected=hashes[after.name])
        logger.info("%s: interfaces and zones of the managed bridges were changed", after.name)
        self._owed[after.name] = reload

    def _show_zones(self, bridges: Sequence[BridgeInUci], problem: str) -> None:
        for bridge in bridges:
            text = f"{bridge.device} is not in zone {bridge.zone}: {problem}" if problem else None
            self._board.flag(Key("network", bridge.section), ConditionType.ZONE_UNSET, "NotWritten", text)

    def _reload(self) -> None:
        """Reloads what changed, once per change; network before firewall, which resolves network's interfaces."""
        for name in sorted(self._owed, reverse=True):
            try:
                self._owed[name]()
            except BusError as exc:
                logger.warning("%s was changed, and its reload failed: %s", name, exc)
            else:
                del self._owed[name]

    # reachability

    def _show_reach(
        self,
        desired: Desired,
        settings: DockerdSettings,
        packages: _Packages,
        interfaces: Mapping[str, Interface] | None,
    ) -> None:
        around = self._around = self._surroundings(desired, settings, packages, interfaces)
        for container in desired.containers:
            enabled = container.policy.enabled
            public = public_ports(container, around) if enabled else ()
            # skipped for disabled sections: their ports are closed, whatever the zones say
            text = f"these ports can be reached from the internet: {', '.join(public)}"
            found = CutOff(reason="Reachable", message=text) if public else None
            self._show_container(container, ConditionType.PUBLIC_PORT, found)
            reach = zones_reaching(container, around) if enabled else {}
            key = Key("container", container.section)
            self._board.ensure(key, container.name)
            self._board.set_facts(key, reach=reach)
            closed = unreachable_ports(container, around) if enabled else None
            self._show_container(container, ConditionType.PORT_UNREACHABLE, closed)
            alone = no_internet(container, around) if enabled else None
            self._show_container(container, ConditionType.NO_INTERNET, alone)

    def reach_of(
        self, published: Mapping[str, Published], networks: Iterable[ObservedNetwork]
    ) -> dict[str, dict[str, list[str]]]:
        """Container -> port -> the firewall zones that reach it, as of the last pass, for whatever runs on the engine.
        Empty if the router's files are not known."""
        around = self._around
        if around is None:
            return {}
        # networks that no section declares have a bridge as well
        others = {
            n.name: n.inspect for n in networks if n.name not in around.bridges.keys() | around.without_bridge
        }
        around = replace(
            around,
            bridges={**{name: self._bridge_of(found) for name, found in others.items()}, **around.bridges},
            without_bridge=around.without_bridge
            | {name for name, found in others.items() if found.get("Driver") != "bridge"},
        )
        return {key: zones_of(one.networks, one.ports, around) for key, one in published.items()}

    def _bridge_of(self, found: Mapping[str, Any]) -> Bridge:
        options: Mapping[str, str] = found.get("Options") or {}
        device = options.get(BRIDGE_NAME) or f"br-{found['Id'][:12]}"  # libnetwork, drivers/bridge
        mode = options.get(GATEWAY_MODE)
        pools = [
            str(pool["Subnet"])
            for pool in (found.get("IPAM") or {}).get("Config") or ()
            if pool.get("Subnet")
        ]
        return Bridge(
            device=device,
            subnets=self._subnets(device, pools),
            internal=bool(found.get("Internal")) or mode == "isolated",
            routed=mode == "routed",
        )

    def _show_container(self, container: Container, condition: ConditionType, found: CutOff | None) -> None:
        key = Key("container", container.section)
        if found is None:
            self._board.clear(key, condition)
            return
        details = {"src": found.src, "dest": found.dest} if found.src and found.dest else {}
        self._board.flag(key, condition, found.reason, found.message, name=container.name, details=details)

    def _surroundings(
        self,
        desired: Desired,
        settings: DockerdSettings,
        packages: _Packages,
        interfaces: Mapping[str, Interface] | None,
    ) -> RouterFacts:
        devices = {bridge.section: bridge.device for bridge in bridges_of(desired.networks)}
        known = [network for network in desired.networks if network.section in devices]
        default = str(settings.values.get("bridge") or DEFAULT_BRIDGE)
        bip = settings.values.get("bip")
        return RouterFacts(
            firewall=read_firewall(packages.firewall),
            rules=self._enforced if self._in_force else (),
            devices=lambda name: self._resolve(name, packages, interfaces).devices,
            bridges={
                "bridge": Bridge(
                    device=default,
                    subnets=self._subnets(default, (str(bip),) if bip else ()),
                    internal=default == "none",
                ),
                **{network.name: self._bridge(network, devices[network.section]) for network in known},
            },
            without_bridge=frozenset(n.name for n in desired.networks if n.section not in devices),
            interfaces=interfaces or {},
            values=settings.values,
            # fw3 adds its rules to the iptables chains in which dockerd puts its own rules first
            docker_first=not self._tools.has_fw4() and not self._by_nftables,
        )

    def _bridge(self, network: Network, device: str) -> Bridge:
        subnets = [pool.subnet for pool in network.spec.pools]
        modes = {value for name, value in network.spec.options if name == GATEWAY_MODE}
        return Bridge(
            device=device,
            subnets=self._subnets(device, subnets),
            internal=network.spec.internal or "isolated" in modes,
            routed="routed" in modes,
        )

    def _subnets(self, device: str, declared: Iterable[str]) -> tuple[ipaddress.IPv4Network, ...]:
        """The declared subnets, or else the present subnets of the device."""
        given = [ipaddress.ip_interface(text).network for text in declared]
        given = given or [
            ipaddress.ip_interface(address).network for address in self._tools.addresses(device)
        ]
        return tuple(subnet for subnet in given if isinstance(subnet, ipaddress.IPv4Network))


def make_router(
    options: RuntimeOptions,
    board: StatusBoard,
    settings_of: Callable[[Desired], DockerdSettings],
    *,
    ask: Callable[[str, str], Mapping[str, Any] | None] | None = None,
    wake: Callable[[], None] | None = None,
) -> RouterIntegration:
    """The router integration of the running agent. `ask`: a ubus call, see `BusNetifd`."""
    # over the agent's ubus connection without starting a program; through the program while ubus is unavailable
    programs = UbusNetifd()
    tools = RouterTools(
        netifd=BusNetifd(ask, programs) if ask is not None else programs, settings_of=settings_of
    )
    return RouterIntegration(
        open_store(options), board, tools, docker_host=options.docker_host or "", wake=wake
    )
