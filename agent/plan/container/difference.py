# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares desired, applied and observed state field by field: for `ucidockd diff`, and to describe conflicts.

Only options that the section sets are compared with the engine; the image or the engine decides about the rest.
Planning itself uses `agent.plan.container.changes` (applied against desired) and the drift below (the settings that
can change on a container of ours). `differences` is for people, and for containers that are not ours.

Planning (is there drift?) and applying (what to reconnect?) both take the endpoints of a container's networks from here,
so that a reconnect touches exactly the endpoints that were found to differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from agent.model import entry_text
from agent.model.container_table import BY_FIELD, ChangeLevel
from agent.model.identity import canonical, fingerprint, masked
from agent.model.observed import ObservedNetwork, Record
from agent.model.resources import DEFAULT_NETWORKS, Container, ContainerSpec, Endpoint, Network, Volume
from agent.plan.container.bodies import (
    ENDPOINT_MAC_SINCE,
    ENDPOINT_SYSCTLS,
    driver_opts,
    read_spec,
    update_body,
)
from agent.plan.container.changes import (
    LIMITS,
    FieldChange,
    OptionChange,
    is_same_limit,
    level_of,
    option_changes,
    option_of,
    words,
)
from agent.plan.container.meaning import PLAIN, Defaults, changed_fields
from agent.plan.records import as_applied
from agent.uci.decode_network import BRIDGE_NAME

# compared by name: each start of the engine gives these networks new ids
PREDEFINED = frozenset({"bridge", "host", "none"})
# from API 1.44 until this version, POST /networks/{id}/connect ignores MacAddress
CONNECT_MAC_SINCE = (1, 54)
# value in Record.ignored: the engine chose another address even for a new container
MAC_FIELD = "mac_address"
_OURS = ".ucidockd-"  # part of the temporary names during a swap


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointChanges:
    """Names of networks. `wrong`: networks to connect, after a disconnect if there is an endpoint; `extra`: networks to
    disconnect."""

    wrong: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    other_mac: frozenset[str] = frozenset()  # those of `wrong` that differ only in the MAC address

    def __bool__(self) -> bool:
        return bool(self.wrong or self.extra)


def wanted_endpoints(spec: ContainerSpec) -> tuple[Endpoint, ...]:
    """The networks that a container should be on; empty if its network mode rules out networks (host, none, shared)."""
    if spec.endpoints:
        return spec.endpoints
    return (Endpoint(network="bridge"),) if (spec.network_mode or "") in DEFAULT_NETWORKS else ()


def network_ids(networks: Iterable[ObservedNetwork], records: Iterable[Record]) -> dict[str, str]:
    """Name -> id of the networks that the engine lists, including the predefined ones.

    Before 25.0 several networks can have the same name. Then the name stands for the one that is ours. Unless
    exactly one of them is ours, the name is left out, because it is unknown which network is meant.
    """
    ours = {record.object_id for record in records if record.kind == "network" and not record.swap}
    named: dict[str, list[str]] = {}
    for network in networks:
        named.setdefault(network.name, []).append(network.id)
    known = {}
    # leave out an ambiguous name: a wrong guess would move a container into another network
    for name, ids in named.items():
        meant = ids if len(ids) == 1 else [each for each in ids if each in ours]
        if len(meant) == 1:
            known[name] = meant[0]
    return known


def compare(
    spec: ContainerSpec,
    inspect: Mapping[str, Any],
    known: Mapping[str, str],
    *,
    ignored: Collection[str] = (),
) -> EndpointChanges:
    """The differences between the spec and the body of GET /containers/{id}/json.

    `known`: see `network_ids`; a container may still refer to a network that was removed. `ignored`: see
    `Record.ignored`.
    """
    wanted = wanted_endpoints(spec)
    seen = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    if not wanted or (not spec.endpoints and seen.keys() == {"none"}):  # an engine without a default bridge
        return EndpointChanges()
    state = inspect.get("State") or {}
    # between two restarts the engine reports Running although the container has no endpoints
    running = bool(state.get("Running")) and not state.get("Restarting")
    current = {name: item for name, item in seen.items() if not _is_of_old_network(name, item, known)}
    wrong, other_mac = [], set()
    for endpoint in wanted:
        item = current.get(endpoint.network)
        if not _is_connected(endpoint, item, inspect, running=running):
            wrong.append(endpoint.network)
        elif MAC_FIELD not in ignored and not has_mac(endpoint, item):
            wrong.append(endpoint.network)
            other_mac.add(endpoint.network)
    extra = sorted(seen.keys() - {endpoint.network for endpoint in wanted})
    return EndpointChanges(wrong=tuple(wrong), extra=tuple(extra), other_mac=frozenset(other_mac))


def endpoint_drift(
    container: Container,
    inspect: Mapping[str, Any],
    known: Mapping[str, str],
    *,
    api: tuple[int, int],
    ignored: Collection[str] = (),
) -> FieldChange | None:
    """The differences that `compare` finds, in words; None if there are none."""
    found = compare(container.spec, inspect, known, ignored=ignored)
    if not found:
        return None
    seen = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    # A network that was recreated has a new id. The engine still shows the container's old network under the same
    # name, but the container is not on the new one.
    shown = sorted(n for n, item in seen.items() if not _is_of_old_network(n, item, known))
    wanted = wanted_endpoints(container.spec)
    old = ", ".join(f"{name}{_how_wrong(name, found)}" for name in shown)
    new = ", ".join(endpoint.network for endpoint in wanted)
    touched = [endpoint for endpoint in wanted if endpoint.network in found.wrong]
    level = level_of_reconnect(touched, api)
    option = OptionChange(
        option="network",
        before=tuple(f"{name}{_how_wrong(name, found)}" for name in shown) or None,
        after=tuple(map(entry_text.endpoint, wanted)) or None,
        level=level,
    )
    return FieldChange(field="endpoints", old=f"[{old}]", new=f"[{new}]", level=level, options=(option,))


def with_mac_level(
    changes: Iterable[FieldChange], before: Mapping[str, Any], container: Container, api: tuple[int, int]
) -> tuple[FieldChange, ...]:
    """The changes, but at level RECREATE if the engine cannot reconnect the changed endpoints.

    `before`: the canonical spec that was applied.
    """
    # compare by network name, not by position: another order of the networks is not a change
    old = {str(item.get("network")): item for item in before.get("endpoints", ())}
    touched = [e for e in container.spec.endpoints if old.get(e.network) != canonical(e)]
    dear = level_of_reconnect(touched, api) is ChangeLevel.RECREATE
    # only the level of reconnects is raised; all other levels stay as in the table
    return tuple(
        replace(change, level=ChangeLevel.RECREATE)
        if dear and change.level is ChangeLevel.RECONNECT
        else change
        for change in changes
    )


def level_of_reconnect(touched: Iterable[Endpoint], api: tuple[int, int]) -> ChangeLevel:
    """The level for reconnecting these endpoints: RECREATE if one has a MAC address and this engine ignores it in a
    connect."""
    forgets = ENDPOINT_MAC_SINCE <= api < CONNECT_MAC_SINCE
    return ChangeLevel.RECREATE if forgets and any(e.mac_address for e in touched) else ChangeLevel.RECONNECT


def has_mac(wanted: Endpoint, seen: Mapping[str, Any] | None) -> bool:
    """Whether an endpoint has the MAC address that it should have. True also for an endpoint that is not connected and
    so has none."""
    shown = str((seen or {}).get("MacAddress") or "").lower()
    return not wanted.mac_address or not shown or shown == wanted.mac_address


def shows_macs(spec: ContainerSpec, inspect: Mapping[str, Any]) -> bool:
    """Whether a container has all MAC addresses of its spec."""
    seen = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    return all(has_mac(endpoint, seen.get(endpoint.network)) for endpoint in spec.endpoints)


def _how_wrong(name: str, found: EndpointChanges) -> str:
    if name in found.other_mac:
        return " (other MAC address)"
    return " (other address or aliases)" if name in found.wrong else ""


def _is_connected(
    wanted: Endpoint, seen: Mapping[str, Any] | None, inspect: Mapping[str, Any], *, running: bool
) -> bool:
    """Whether an endpoint is exactly as declared. An additional alias or address counts as a difference: it could belong
    to another container.

    A failed connect leaves an entry without an EndpointID, which means not connected.
    """
    if seen is None or (running and not seen.get("EndpointID")):
        return False
    aliases = set(seen.get("Aliases") or ())
    # Engines before API 1.45 add the short id; later ones add the container's name, which may be its temporary name
    # from a swap.
    own = {str(inspect.get("Id") or "")[:12], str(inspect.get("Name") or "").removeprefix("/")}
    more = {alias for alias in aliases - own - set(wanted.aliases) if _OURS not in alias}
    if more or not set(wanted.aliases) <= aliases:
        return False
    ipam = seen.get("IPAMConfig") or {}
    addresses = ((wanted.ip, ipam.get("IPv4Address")), (wanted.ip6, ipam.get("IPv6Address")))
    if any(address != (found or "") for address, found in addresses):
        return False
    if sorted(ipam.get("LinkLocalIPs") or ()) != list(wanted.link_local) or seen.get("Links"):
        return False
    stated = tuple(pair for pair in wanted.driver_opts if pair[0] != ENDPOINT_SYSCTLS)
    return stated == driver_opts(seen) and (wanted.gw_priority or 0) == (seen.get("GwPriority") or 0)


def _is_of_old_network(name: str, endpoint: Mapping[str, Any], known: Mapping[str, str]) -> bool:
    held, now = endpoint.get("NetworkID"), known.get(name)  # the NetworkID is "" before the first start
    return bool(name not in PREDEFINED and held and now and held != now)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDifference:
    """One field in words, named by its option.

    `edited`: the section changed since it was applied. `drifted`: the engine reports another value than the applied
    one or, if nothing was applied, than the declared one.
    """

    field: str
    desired: str
    applied: str  # "" without a record
    observed: str  # "" without a container
    edited: bool
    drifted: bool


def differences(
    container: Container,
    record: Record | None,
    inspect: Mapping[str, Any] | None,
    *,
    names: Mapping[str, str],
    image_id: str,
    defaults: Defaults = PLAIN,
) -> tuple[FieldDifference, ...]:
    """The fields in which desired, applied and observed state are not all the same, in the order of the spec.

    `names`: see `read_spec`. `image_id`: id of the desired image, "" if the image is not present. Images are compared
    by id, because the container may have been created from an id, or from a reference that now names another image.
    `defaults`: for comparing with the record.
    """
    seen = read_spec(inspect, names) if inspect is not None else None
    if seen is not None and inspect is not None and image_id:
        used = str(inspect.get("Image") or "")
        if used == image_id:
            seen = replace(seen, image=container.spec.image)
        elif used and seen.image == container.spec.image:
            seen = replace(seen, image=used)
    wanted = masked(canonical(container.spec))
    shown = masked(canonical(seen)) if seen is not None else {}
    applied = record.spec if record is not None else {}
    # `endpoint_drift` knows which networks count: a section without networks means the default network only
    networks = endpoint_drift(container, inspect, {}, api=(1, 41)) if inspect is not None else None
    changed = changed_fields("container", applied, wanted, defaults) if record is not None else ()
    found = []
    unread = {each.field for each in container.unread}
    for field in (f.name for f in fields(ContainerSpec) if f.name not in unread):
        edited = field in changed
        differs = seen is not None and not is_met(field, container.spec, seen)
        if field == "endpoints":
            differs = networks is not None
        if edited or differs:
            drifted = differs
            if edited and record is not None and seen is not None and inspect is not None:
                drifted = _has_drifted(field, container, record, seen, inspect)
            was = words(field, applied.get(field), wanted.get(field))[0] if record is not None else ""
            now, new = words(field, shown.get(field), wanted.get(field))
            if field == "endpoints" and networks is not None:
                now, new = networks.old, new if field in wanted else networks.new
            if field == "image" and inspect is not None:
                # the reference that the container was created from, and its image id
                now = str((inspect.get("Config") or {}).get("Image") or "")
                short = str(inspect.get("Image") or "").removeprefix("sha256:")[:12]
                if short:
                    now = short if not now or now.startswith("sha256:") else f"{now} ({short})"
            observed = now if seen is not None and (field in wanted or differs) else ""
            found.append(
                FieldDifference(
                    field=option_of(field),
                    desired=new,
                    applied=was,
                    observed=observed,
                    edited=edited,
                    drifted=drifted,
                )
            )
    return tuple(found)


def _has_drifted(
    field: str, container: Container, record: Record, seen: ContainerSpec, inspect: Mapping[str, Any]
) -> bool:
    """Whether the engine reports another value for this field than the one applied."""
    before = as_applied(container, record)
    if before is None:
        return False  # not known
    match field:
        case "image":
            return bool(record.image_id) and inspect.get("Image") != record.image_id
        case "endpoints":
            return endpoint_drift(before, inspect, {}, api=(1, 41)) is not None
        case "env":  # the record stores hashes of the values
            shown = masked({"env": [list(pair) for pair in seen.env]})["env"]
            return not {tuple(pair) for pair in record.spec.get("env", ())} <= {tuple(pair) for pair in shown}
        case "seccomp":
            return seen.seccomp is None or fingerprint(seen.seccomp) != before.spec.seccomp
    return not is_met(field, before.spec, seen)


def is_met(field: str, wanted: ContainerSpec, seen: ContainerSpec) -> bool:
    """Whether the engine reports what the section sets for one field. A field that the section does not set is met."""
    want, have = getattr(wanted, field), getattr(seen, field)
    if want in (None, ()):
        return True
    match field:
        case "network_mode":
            return want == have or (want in DEFAULT_NETWORKS and have is None)
        case "env" | "labels" | "log_opts":
            return set(want) <= set(have)
        case "mounts":
            # a mount without a source is an anonymous volume, whose name the engine chose
            shown = [(other.target, other.read_only, other.source) for other in have]
            return all(
                any(
                    (target, read_only) == (mount.target, mount.read_only) and mount.source in ("", source)
                    for target, read_only, source in shown
                )
                for mount in want
            )
        case "health":
            return all(
                getattr(want, part.name) in (None, (), getattr(have, part.name, None))
                for part in fields(want)
            )
        case "devices":
            return all(d in have for d in want if not d.host.startswith("usb:"))
        case "entrypoint":
            return bool(want == (have or ("",)))
        case "platform":
            return True  # the engine reports the platform of the image only, and not for every container
        case "security_opt" | "cap_add" | "cap_drop" | "cdi_devices" | "expose":
            return set(want) <= set(have)
    if field in LIMITS:
        return is_same_limit(field, want, have, seen.memory)
    return bool(want == have) or (want is False and have is None)


# Changes made to a container outside of ucidockd.
#
# The engine can change only three things of an existing container: the fields of `POST /containers/{id}/update`, its
# networks and its name (compared elsewhere). Everything else is fixed for the container id in state.json. Only fields
# that the user set are compared.


FIELDS = tuple(  # ContainerSpec field, HostConfig key
    (field, BY_FIELD[field].key.partition(".")[2]) for field in sorted(LIMITS)
)


def container_drift(
    container: Container,
    inspect: dict[str, Any],
    networks: Mapping[str, str],
    *,
    api: tuple[int, int],
    ignored: Collection[str] = (),
) -> tuple[FieldChange, ...]:
    """The differences between a container's spec and the body of GET /containers/{id}/json.

    `networks`: see `endpoints.network_ids`; a container may still refer to a network that was removed. `api`: the API
    version that the engine speaks. `ignored`: see `Record.ignored`.
    """
    # compare only what can be changed in place: the engine has no call that changes anything else, so it cannot drift
    changes = _resources(container, inspect.get("HostConfig") or {})
    endpoints = endpoint_drift(container, inspect, networks, api=api, ignored=ignored)
    found = (*changes, endpoints) if endpoints else changes
    return tuple(change for change in found if change.field not in ignored)


def _resources(container: Container, host: dict[str, Any]) -> tuple[FieldChange, ...]:
    changes = []
    for field, key in FIELDS:
        wanted, seen = getattr(container.spec, field), host.get(key)
        if wanted is not None and not is_same_limit(field, wanted, seen, host.get("Memory")):
            level = level_of(field, seen, wanted)
            old, new = words(field, seen, wanted)
            options = option_changes(field, seen, wanted, level)
            changes.append(FieldChange(field=field, old=old, new=new, level=level, options=options))
    # restart is compared apart from the limits: it is an object in which the engine omits zero values
    if container.spec.restart is not None:
        wanted = update_body(container.spec, ["restart"])["RestartPolicy"]
        seen = host.get("RestartPolicy") or {}
        if (wanted["Name"], wanted["MaximumRetryCount"]) != (
            seen.get("Name"),
            seen.get("MaximumRetryCount", 0),
        ):
            was = {"name": seen.get("Name") or "no", "max_retries": seen.get("MaximumRetryCount", 0)}
            now = canonical(container.spec.restart)
            old, new = words("restart", was, now)
            options = option_changes("restart", was, now, ChangeLevel.UPDATE)
            changes.append(
                FieldChange(field="restart", old=old, new=new, level=ChangeLevel.UPDATE, options=options)
            )
    return tuple(changes)


def network_difference(network: Network, inspect: dict[str, Any]) -> tuple[str, ...]:
    """The option groups in which a foreign network (body of GET /networks/{id}) differs from its section."""
    spec = network.spec
    pairs = {
        "driver": (spec.driver, inspect.get("Driver")),
        "internal": (spec.internal, inspect.get("Internal")),
        "attachable": (spec.attachable, inspect.get("Attachable")),
        "ipv6": (spec.ipv6, inspect.get("EnableIPv6")),
    }
    differing = [name for name, (wanted, seen) in pairs.items() if wanted != seen]
    # for lists compare only the section's entries: the creator of the network may have set more
    if not set(spec.options) <= set(network_options(inspect).items()):
        differing.append("options")
    if not set(spec.labels) <= set((inspect.get("Labels") or {}).items()):
        differing.append("labels")
    pools = {p.get("Subnet"): p for p in ((inspect.get("IPAM") or {}).get("Config") or ())}
    for pool in spec.pools:
        seen = pools.get(pool.subnet)
        wanted = {"Gateway": pool.gateway, "IPRange": pool.ip_range}
        if seen is None or any(value and seen.get(name) != value for name, value in wanted.items()):
            differing.append("pools")
            break
    return tuple(differing)


def network_options(inspect: Mapping[str, Any]) -> dict[str, str]:
    """The options of a network. If no bridge name was set, it includes the name that the engine chose.

    `libnetwork/drivers/bridge`: `br-` and the first 12 digits of the network's id.
    """
    options = dict(inspect.get("Options") or {})
    if inspect.get("Driver") == "bridge":
        options.setdefault(BRIDGE_NAME, f"br-{str(inspect.get('Id') or '')[:12]}")
    return options


def volume_difference(volume: Volume, inspect: dict[str, Any]) -> tuple[str, ...]:
    """The option groups in which a foreign volume (body of GET /volumes/{name}) differs from its section. Labels are not
    compared: a difference in labels is harmless."""
    differing = ["driver"] if volume.spec.driver != inspect.get("Driver") else []
    if set(volume.spec.options) != set((inspect.get("Options") or {}).items()):
        differing.append("options")
    return tuple(differing)
