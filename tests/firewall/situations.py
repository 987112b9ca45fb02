# SPDX-License-Identifier: GPL-2.0-or-later
"""Routers as people have them, and what their zones let through. Each row was tried with the rules that fw4 makes of it.

Devices: br-lan, br-guest, eth1 (the internet), docker0 (172.17.0.1/16), and br-iot (172.30.0.1/24) of a network `iot`.
"""

from __future__ import annotations

from dataclasses import dataclass


def section(kind: str, **options: str | list[str]) -> str:
    """An anonymous section, as LuCI writes them."""
    lines = [f"config {kind}"]
    for option, value in options.items():
        items = [("option", value)] if isinstance(value, str) else [("list", item) for item in value]
        lines += [f"\t{word} {option} '{item}'" for word, item in items]
    return "\n".join(lines) + "\n\n"


def interface(name: str, device: str, **options: str) -> str:
    return section("interface", device=device, **options).replace("interface\n", f"interface '{name}'\n")


def defaults(forward: str = "REJECT") -> str:
    return section("defaults", input="REJECT", output="ACCEPT", forward=forward)


def zone(name: str, forward: str = "ACCEPT", **options: str | list[str]) -> str:
    return section("zone", name=name, input="ACCEPT", output="ACCEPT", forward=forward, **options)


def forwarding(src: str, dest: str, **options: str) -> str:
    return section("forwarding", src=src, dest=dest, **options)


def rule(src: str, dest: str, **options: str) -> str:
    return section("rule", src=src, dest=dest, target="ACCEPT", **options)


def redirect(src: str, **options: str) -> str:
    given = {"src_dport": "8443", "dest_ip": "192.168.1.9", "dest_port": "443", "proto": "tcp", **options}
    return section("redirect", src=src, **given)


LAN_NET = interface("lan", "br-lan", proto="static", ipaddr="192.168.1.1/24")
WAN_NET = interface("wan", "eth1", proto="dhcp")
GUEST_NET = interface("guest", "br-guest", proto="static", ipaddr="192.168.3.1/24")
DOCKER_NET = interface("docker", "docker0", proto="none", auto="0")
IOT_NET = interface("ucidockd_iot", "br-iot", proto="none", auto="0")
NETWORK = LAN_NET + WAN_NET + GUEST_NET + DOCKER_NET + IOT_NET

LAN = zone("lan", network=["lan"])
WAN = section(
    "zone",
    name="wan",
    network=["wan"],
    input="REJECT",
    output="ACCEPT",
    forward="REJECT",
    masq="1",
    mtu_fix="1",
)
GUEST = section("zone", name="guest", network=["guest"], input="REJECT", output="ACCEPT", forward="REJECT")
STOCK = defaults() + LAN + WAN + forwarding("lan", "wan")
DOCKER = zone("docker", network=["docker", "ucidockd_iot"])
ALLOWED = forwarding("lan", "docker") + forwarding("docker", "wan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """`reached`: some zone reaches a port of a container on docker0; `online`: it has internet; `public`: wan reaches it.

    `iot_...`: the same for one on br-iot. None: as on docker0.
    """

    firewall: str
    network: str = NETWORK
    reached: bool
    online: bool
    public: bool = False
    iot_reached: bool | None = None
    iot_online: bool | None = None
    uplink: str = "wan"


def both(firewall: str, **more: bool | str) -> Situation:
    """A zone lets both through."""
    return Situation(firewall=firewall, reached=True, online=True, **more)  # type: ignore[arg-type]


def neither(firewall: str, **more: bool | str) -> Situation:
    return Situation(firewall=firewall, reached=False, online=False, **more)  # type: ignore[arg-type]


IOT_ZONE = zone("iot", network=["ucidockd_iot"])
DOCKER_ONLY = zone("docker", network=["docker"])
SITUATIONS: dict[str, Situation] = {
    "the stock script's zone and nothing else": neither(STOCK + DOCKER),
    "what the first installation adds": both(STOCK + DOCKER + ALLOWED),
    "only from the lan": Situation(
        firewall=STOCK + DOCKER + forwarding("lan", "docker"), reached=True, online=False
    ),
    "only to wan": Situation(
        firewall=STOCK + DOCKER + forwarding("docker", "wan"), reached=False, online=True
    ),
    "the wrong way round": neither(STOCK + DOCKER + forwarding("docker", "lan") + forwarding("wan", "lan")),
    "forwardings that are off": neither(
        STOCK + DOCKER + forwarding("lan", "docker", enabled="0") + forwarding("docker", "wan", enabled="0")
    ),
    "forwardings for IPv6 only": neither(
        STOCK
        + DOCKER
        + forwarding("lan", "docker", family="ipv6")
        + forwarding("docker", "wan", family="ipv6")
    ),
    "a forwarding from everywhere": both(
        STOCK + DOCKER + forwarding("*", "docker") + forwarding("docker", "*"), public=True
    ),
    "no zone for docker0": neither(STOCK, network=NETWORK),
    "no zone, and forward ACCEPT by default": both(defaults("ACCEPT") + LAN + WAN, public=True),
    "a zone, and forward ACCEPT by default": both(defaults("ACCEPT") + LAN + WAN + DOCKER, public=True),
    "a zone that drops among its own, and forward ACCEPT by default": both(
        defaults("ACCEPT") + LAN + WAN + zone("docker", "DROP", network=["docker", "ucidockd_iot"]),
        public=True,
    ),
    "forward ACCEPT of the zones is about their own members": neither(
        defaults() + LAN + WAN.replace("forward 'REJECT'", "forward 'ACCEPT'") + DOCKER
    ),
    "docker0 in lan": both(
        defaults() + zone("lan", network=["lan", "docker", "ucidockd_iot"]) + WAN + forwarding("lan", "wan")
    ),
    "docker0 in lan, whose members do not talk": Situation(
        firewall=defaults()
        + zone("lan", "REJECT", network=["lan", "docker", "ucidockd_iot"])
        + WAN
        + forwarding("lan", "wan"),
        reached=False,
        online=True,
    ),
    "a zone by device": both(STOCK + zone("docker", device=["docker0", "br-iot"]) + ALLOWED),
    "a zone by the beginning of devices": Situation(
        firewall=STOCK + zone("docker", device=["docker+"]) + ALLOWED,
        reached=True,
        online=True,
        iot_reached=False,
        iot_online=False,
    ),
    "a zone by subnet": both(STOCK + zone("docker", subnet=["172.16.0.0/12"]) + ALLOWED),
    "a zone by another subnet": neither(STOCK + zone("docker", subnet=["10.0.0.0/8"]) + ALLOWED),
    "a zone by subnet and interface": Situation(
        firewall=STOCK
        + zone("docker", subnet=["172.17.0.0/16"], network=["docker", "ucidockd_iot"])
        + ALLOWED,
        reached=True,
        online=True,
        iot_reached=False,
        iot_online=False,
    ),
    "a zone by an IPv6 subnet": neither(STOCK + zone("docker", subnet=["fd00::/8"]) + ALLOWED),
    "a zone for IPv6": neither(
        STOCK + zone("docker", network=["docker", "ucidockd_iot"], family="ipv6") + ALLOWED
    ),
    "a zone without members": neither(STOCK + zone("docker") + ALLOWED),
    "a zone that is off": neither(
        STOCK + zone("docker", network=["docker", "ucidockd_iot"], enabled="0") + ALLOWED
    ),
    "an option of several interfaces": both(STOCK + zone("docker", network="docker ucidockd_iot") + ALLOWED),
    "an interface of the user's": both(
        STOCK + zone("docker", network=["mine", "ucidockd_iot"]) + ALLOWED,
        network=LAN_NET + WAN_NET + GUEST_NET + interface("mine", "docker0", proto="static") + IOT_NET,
    ),
    "a network in a zone of its own that lets nothing through": Situation(
        firewall=STOCK + DOCKER_ONLY + IOT_ZONE + ALLOWED,
        reached=True,
        online=True,
        iot_reached=False,
        iot_online=False,
    ),
    "a network in a zone of its own that may": Situation(
        firewall=STOCK + DOCKER_ONLY + IOT_ZONE + forwarding("lan", "iot") + forwarding("iot", "wan"),
        reached=False,
        online=False,
        iot_reached=True,
        iot_online=True,
    ),
    "a network in lan": Situation(
        firewall=defaults()
        + zone("lan", network=["lan", "ucidockd_iot"])
        + WAN
        + forwarding("lan", "wan")
        + DOCKER_ONLY,
        reached=False,
        online=False,
        iot_reached=True,
        iot_online=True,
    ),
    "guests only": Situation(
        firewall=STOCK + GUEST + DOCKER + forwarding("guest", "docker"), reached=True, online=False
    ),
    "wan only": Situation(
        firewall=STOCK + DOCKER + forwarding("wan", "docker"), reached=True, online=False, public=True
    ),
    "rules in place of forwardings": both(
        STOCK
        + DOCKER
        + rule("lan", "docker", proto="tcp", dest_port="80")
        + rule("docker", "wan", proto="all")
    ),
    "a rule for another port": Situation(
        firewall=STOCK
        + DOCKER
        + rule("lan", "docker", proto="tcp", dest_port="81")
        + forwarding("docker", "wan"),
        reached=False,
        online=True,
    ),
    "a rule from everywhere": both(STOCK + DOCKER + rule("*", "*", proto="all"), public=True),
    "a rule for the router only": neither(STOCK + DOCKER + rule("lan", "", proto="tcp", dest_port="80")),
    "a port forward from wan, which lan may use too": Situation(
        firewall=STOCK + DOCKER + redirect("wan", dest="lan"), reached=True, online=False, public=True
    ),
    "a port forward from wan to an address": Situation(
        firewall=STOCK + DOCKER + redirect("wan"), reached=True, online=False, public=True
    ),
    "a port forward from the lan": Situation(
        firewall=STOCK + DOCKER + redirect("lan", dest="lan"), reached=True, online=False
    ),
    "a port forward from wan without reflection": Situation(
        firewall=STOCK + DOCKER + redirect("wan", dest="lan", reflection="0"),
        reached=True,
        online=False,
        public=True,
    ),
    "zones of other names": both(
        defaults()
        + zone("home", network=["lan"])
        + WAN.replace("'wan'", "'world'", 1)
        + DOCKER
        + forwarding("home", "docker")
        + forwarding("docker", "world")
    ),
    "an access point without wan": Situation(
        firewall=defaults() + LAN + DOCKER + forwarding("lan", "docker"),
        reached=True,
        online=False,
        uplink="lan",
    ),
    "an access point whose containers may go to lan": both(
        defaults() + LAN + DOCKER + forwarding("lan", "docker") + forwarding("docker", "lan"), uplink="lan"
    ),
    "an access point with a wan that nothing is on": Situation(
        firewall=STOCK + DOCKER + ALLOWED, reached=True, online=False, uplink="lan"
    ),
    "zones that overlap": both(STOCK + zone("all", device=["docker+", "br-iot"]) + DOCKER + ALLOWED),
}
