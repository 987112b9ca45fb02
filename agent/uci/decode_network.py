# SPDX-License-Identifier: GPL-2.0-or-later
"""Decodes the sections other than containers: `network`, `volume` and `notify`. Called by `agent.uci.decode`.

References between sections are checked later. Mistakes in secret options are reported without the value.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace

from agent.model.entries import parse_address, parse_subnet
from agent.model.notices import DEFAULT_EVENTS, Event, NotifySection, check_template
from agent.model.quantities import parse_assignment, parse_pair, parse_seconds
from agent.model.resources import Network, NetworkSpec, Pool, Volume, VolumeSpec
from agent.schema.validate import properties
from agent.uci.reader import SectionReader

BUILT_IN = frozenset({"bridge", "host", "none"})
BRIDGE_NAME = "com.docker.network.bridge.name"
INTERFACE_NAME_MAX = 15  # IFNAMSIZ - 1

# checked here because the engine, when it refuses a mode, does not list the valid ones; the engine's name for it is
# the driver's own option
_MODES = {
    "macvlan": frozenset({"bridge", "private", "vepa", "passthru"}),
    "ipvlan": frozenset({"l2", "l3", "l3s"}),
}

# options that apply to one type only
_ONLY = {
    "webhook": ("header",),
    "mqtt": ("topic", "retain", "username", "password"),
    "exec": ("command",),
}
# the required option of each type, with an example for the message
_NEEDED = {
    "webhook": ("url", "https://ntfy.sh/my-topic"),
    "mqtt": ("url", "mqtt://192.168.1.2"),
    "exec": ("command", "/path/of/a/program"),
}
_SCHEMES = {"webhook": ("http", "https"), "mqtt": ("mqtt", "mqtts")}


def labels(reader: SectionReader) -> tuple[tuple[str, str], ...]:
    """The `label` entries sorted by key, the last one of equal keys; our own prefix is refused."""
    found: dict[str, str] = {}
    for index, (key, value) in reader.parsed_items("label", parse_pair):
        # labels with our prefix identify our objects if `state.json` is lost: a label of the user's could claim
        # someone else's object
        if key.startswith("ucidockd."):
            reader.report(
                "labels that begin with `ucidockd.` are ours",
                option="label",
                index=index,
                expected="another key",
            )
        found[key] = value
    # sorted, because the order of labels does not matter to the engine and must not change a hash
    return tuple(sorted(found.items()))


def pairs(reader: SectionReader, name: str) -> dict[str, str]:
    """A list of `key=value`, the last one of equal keys."""
    return dict(reader.values(name, parse_pair))


def decode_volume(reader: SectionReader) -> Volume:
    return Volume(
        section=reader.name,
        name=reader.docker_name,
        adopt=reader.flag("adopt") or False,
        spec=VolumeSpec(
            # "local" is written out, so that sections with and without the default have the same hash
            driver=reader.text("driver") or "local",
            options=tuple(sorted(pairs(reader, "opt").items())),
            labels=labels(reader),
        ),
    )


def _external(reader: SectionReader) -> Network:
    """A network that others manage, with their settings."""
    # refused instead of ignored: people would expect a subnet that we never set on a network of someone else
    for option in sorted(properties("network").keys() - {"name", "external"}):
        if reader.has(option):
            reader.report("cannot be combined with `external`", option=option, expected="only one of them")
    if reader.docker_name in BUILT_IN:
        wish = f"`list network '{reader.docker_name}'` in the container, without a network section"
        reader.report("names a network that every engine has", option="name", expected=wish)
    return Network(section=reader.name, name=reader.docker_name, external=True, spec=NetworkSpec())


def decode_network(reader: SectionReader) -> Network:
    if reader.flag("external"):
        return _external(reader)
    driver = reader.text("driver") or "bridge"
    pools = _pools(reader)
    # libnetwork drivers/bridge: one subnet per address family; other drivers accept several
    six = sum(":" in pool.subnet for pool in pools)
    # checked before anything is taken down: the engine only refuses the network when the old one is gone
    if driver == "bridge" and max(six, len(pools) - six) > 1:
        reader.report(
            "a bridge takes one subnet for each family",
            option="subnet",
            expected="one IPv4 subnet and one IPv6 subnet at most, or another network section",
        )
    return Network(
        section=reader.name,
        name=reader.docker_name,
        zone=reader.text("zone") or "docker",
        adopt=reader.flag("adopt") or False,
        spec=NetworkSpec(
            driver=driver,
            internal=reader.flag("internal") or False,
            attachable=reader.flag("attachable") or False,
            ipv6=_ipv6(reader, pools),
            pools=pools,
            options=_options(reader, driver),
            labels=labels(reader),
        ),
    )


def _ipv6(reader: SectionReader, pools: tuple[Pool, ...]) -> bool:
    wanted = reader.flag("ipv6")
    # Docker requires the flag in addition to an IPv6 subnet; here the subnet is sufficient
    has_ipv6 = any(":" in pool.subnet for pool in pools)
    if wanted is False and has_ipv6:
        reader.report("IPv6 is off but a subnet is IPv6", option="ipv6", expected="1, or no IPv6 subnet")
    return has_ipv6 if wanted is None else wanted


def bridge_name(section: str) -> str:
    """The name of a network's bridge if the section sets none."""
    return f"br-{section}"[:INTERFACE_NAME_MAX]


def _options(reader: SectionReader, driver: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    parent, mode = reader.text("parent"), reader.text("mode")
    modes = _MODES.get(driver)
    # the engine would name the bridge after the network's id, which changes with each replacement; firewall zones and
    # the router's `network` package need a stable name
    if driver == "bridge":
        found[BRIDGE_NAME] = bridge_name(reader.name)
    if parent and modes is None:
        reader.report(
            f"the driver {driver} has no parent", option="parent", expected="driver macvlan or ipvlan"
        )
    elif parent:
        found["parent"] = parent
    if mode and modes is None:
        reader.report(f"the driver {driver} has no mode", option="mode", expected="driver macvlan or ipvlan")
    elif mode and modes and mode not in modes:
        reader.report(f"{mode!r} is not a mode of {driver}", option="mode", expected=", ".join(sorted(modes)))
    elif mode:
        found[f"{driver}_mode"] = mode
    # driver options of the user override those derived from other options
    found.update(pairs(reader, "opt"))
    bridge = found.get(BRIDGE_NAME, "")
    if len(bridge) > INTERFACE_NAME_MAX:
        reader.report(
            "the bridge name is too long", option="opt", expected=f"{INTERFACE_NAME_MAX} characters at most"
        )
    return tuple(sorted(found.items()))


def _parse_aux(text: str) -> tuple[str, str]:
    name, address = parse_assignment(text)
    return name, parse_address(address)


def _pools(reader: SectionReader) -> tuple[Pool, ...]:
    """Subnets in the user's order, each with the gateway, range and reserved addresses inside it."""
    pools: list[Pool] = []
    for index, subnet in reader.parsed_items("subnet", parse_subnet):
        # the engine would refuse the whole network for one bad pool; without that pool the others may still work
        if any(
            ipaddress.ip_network(subnet).overlaps(ipaddress.ip_network(pool.subnet))
            for pool in pools
            if (":" in pool.subnet) is (":" in subnet)  # subnets of the same address family
        ):
            reader.report(
                f"{subnet} overlaps another subnet",
                option="subnet",
                index=index,
                expected="subnets apart from each other",
            )
            continue
        pools.append(Pool(subnet=subnet))
    # after all subnets are known, because lists in UCI have no order relative to each other
    _place(reader, pools, "gateway", _addresses(reader, "gateway"), lambda p, v: replace(p, gateway=v[1]))
    _place(reader, pools, "ip_range", _ranges(reader), lambda p, v: replace(p, ip_range=v[1]))
    aux = [(index, pair) for index, pair in reader.parsed_items("aux_address", _parse_aux)]
    _place(
        reader,
        pools,
        "aux_address",
        aux,
        lambda p, v: replace(p, aux_addresses=tuple(sorted({**dict(p.aux_addresses), v[0]: v[1]}.items()))),
    )
    return tuple(pools)


_Entry = tuple[int, tuple[str, str]]


def _addresses(reader: SectionReader, name: str) -> list[_Entry]:
    return [(index, ("", address)) for index, address in reader.parsed_items(name, parse_address)]


def _ranges(reader: SectionReader) -> list[_Entry]:
    return [(index, ("", cidr)) for index, cidr in reader.parsed_items("ip_range", parse_subnet)]


def _place(
    reader: SectionReader,
    pools: list[Pool],
    name: str,
    entries: list[_Entry],
    put: Callable[[Pool, tuple[str, str]], Pool],
) -> None:
    taken: set[int] = set()
    # UCI has flat lists, but the engine wants each value with its subnet: assign it to the subnet that contains it
    for index, entry in entries:
        at = next((n for n, pool in enumerate(pools) if contains(pool.subnet, entry[1])), None)
        if at is None:
            reader.report(
                f"{entry[1]} is not in any subnet of this network",
                option=name,
                index=index,
                expected="a value inside one of `list subnet`",
            )
        elif reserved := reserved_address(pools[at].subnet, entry[1]):
            reader.report(
                f"{entry[1]} is the {reserved} of {pools[at].subnet}",
                option=name,
                index=index,
                expected="an address of a host",
            )
        # a subnet may have many reserved addresses, but only one gateway and one range
        elif name != "aux_address" and at in taken:
            reader.report(
                f"{pools[at].subnet} has one already", option=name, index=index, expected="one per subnet"
            )
        else:
            taken.add(at)
            pools[at] = put(pools[at], entry)


def reserved_address(subnet: str, address: str) -> str:
    """The role of an address that no host may have, otherwise "". The engine reserves both ends of a subnet.

    For IPv6 only the first address is reserved (RFC 4291, subnet-router anycast). Subnets of one or two addresses
    have no reserved ones.
    """
    outer = ipaddress.ip_network(subnet)
    # a range is not a host; in subnets of one or two addresses all addresses are usable (RFC 3021)
    if "/" in address or outer.num_addresses <= 2:
        return ""
    found = ipaddress.ip_address(address)
    if found == outer.network_address:
        return "network address"
    return "broadcast address" if found == outer.broadcast_address and outer.version == 4 else ""


def contains(subnet: str, inner: str) -> bool:
    """Whether an address or CIDR is inside a subnet; never across address families."""
    outer, candidate = ipaddress.ip_network(subnet), ipaddress.ip_network(inner)
    # compared by type, because `subnet_of` raises for different address families
    if isinstance(outer, ipaddress.IPv4Network) and isinstance(candidate, ipaddress.IPv4Network):
        return candidate.subnet_of(outer)
    if isinstance(outer, ipaddress.IPv6Network) and isinstance(candidate, ipaddress.IPv6Network):
        return candidate.subnet_of(outer)
    return False


def decode_notify(reader: SectionReader) -> NotifySection:
    base = NotifySection(section=reader.name, type=reader.text("type") or "")
    _check_type(reader, base.type)
    enabled, retain = reader.flag("enabled"), reader.flag("retain")
    cooldown_s, timeout_s = reader.parsed("cooldown", parse_seconds), reader.parsed("timeout", parse_seconds)
    form = reader.text("format") or base.format
    # a set: an event that is listed twice must not be notified twice
    events = frozenset(Event(text) for text in reader.texts("event"))
    # without `list event` the default events apply: a section without events would be useless
    return NotifySection(
        section=reader.name,
        type=base.type,
        enabled=base.enabled if enabled is None else enabled,
        events=events or DEFAULT_EVENTS,
        cooldown_s=base.cooldown_s if cooldown_s is None else cooldown_s,
        url=reader.text("url") or "",
        headers=reader.values("header", _parse_header),
        format=form,
        template=reader.parsed("template", lambda text: check_template(text, as_json=form == "json")) or "",
        cacert=reader.text("cacert") or "",
        topic=reader.parsed("topic", check_template) or base.topic,
        retain=bool(retain),
        username=reader.text("username") or "",
        password=reader.text("password") or "",
        command=reader.words("command") or (),
        timeout_s=timeout_s or base.timeout_s,
    )


def _parse_header(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name, check_template(value.strip())


def _check_type(reader: SectionReader, kind: str) -> None:
    # without a type the schema has reported the mistake, and there is nothing to compare with
    if not kind:
        return
    option, example = _NEEDED[kind]
    if not reader.has(option):
        form = "list" if option == "command" else "option"
        reader.report(f"a {kind} needs `{option}`", expected=f"`{form} {option} '{example}'`")
    scheme = (reader.text("url") or "").partition("://")[0]
    # otherwise a wrong scheme would only show when the first notice is due, which is when it is needed
    if scheme and kind in _SCHEMES and scheme not in _SCHEMES[kind]:
        wish = " or ".join(f"{each}://" for each in _SCHEMES[kind])
        reader.report(
            f"{scheme}:// is not for type {kind}",
            option="url",
            expected=f"an address that begins with {wish}",
        )
    # only a warning: such an option is left over from another type and harmless
    for other, names in _ONLY.items():
        for name in names:
            if other != kind and reader.has(name):
                reader.warn(
                    f"has no effect: it is for type {other}", option=name, expected="a section without it"
                )
