# SPDX-License-Identifier: GPL-2.0-or-later
"""The router around dockerd: files and rules of one pass, on real files, real `uci` and the kernel's rules."""

from __future__ import annotations

import ipaddress
import itertools
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.dockerd.unmanaged import settings_source
from agent.files.config import load, open_store
from agent.files.options import RuntimeOptions
from agent.model.addresses import Interface, IpAddress
from agent.model.observed import ObservedNetwork, Published
from agent.model.resources import Port
from agent.router.nftables import Filter, Iptables, Nftables
from agent.runtime.router_integration import RouterIntegration, RouterTools
from agent.status.board import StatusBoard
from agent.uci.syntax import Package
from tests.support.dockerd import is_root
from tests.support.iptables import filter_in, in_force, nft_in, nft_in_force
from tests.support.netns import OwnNetwork
from tests.support.real_uci import RealUci, why_not
from tests.support.router import FIREWALL, NETWORK, FakeNetifd, write_router

_numbers = itertools.count()
BLOCKING = "config firewall 'firewall'\n\tlist blocked_interfaces 'wan'\n"
IOT = "config network 'iot'\n"


class Router:
    """A configuration directory and the stage on it."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config"
        self.config.mkdir()
        self.options = RuntimeOptions(
            config_dir=self.config, override_dir=folder / "override", state_dir=folder / "state"
        )
        self.netifd = FakeNetifd()
        none = Filter(Iptables("no-iptables-in-this-test"), Nftables("4", "no-nft-in-this-test"))
        self.fw4 = False
        self.tools = RouterTools(
            netifd=self.netifd,
            ipv4=none,
            ipv6=none,
            has_device=lambda name: name == "usb0",
            addresses=lambda device: (),
            has_fw4=lambda: self.fw4,
        )
        self.restart_agent()

    def restart_agent(self) -> None:
        self.board = StatusBoard(time.time)
        self.integration = RouterIntegration(open_store(self.options), self.board, self.tools)

    def apply(self, containers: str = "", dockerd: str = "config globals 'globals'\n") -> None:
        (self.config / "containers").write_text(containers)
        (self.config / "dockerd").write_text(dockerd)
        desired = load(self.options).desired
        assert desired is not None
        self.integration.reconcile(desired)

    def condition(self, key: str, name: str) -> str | None:
        """The message of a condition that is set."""
        resources = {item["key"]: item for item in self.board.snapshot()["resources"]}
        found = resources.get(key, {"conditions": []})["conditions"]
        return next((c["message"] for c in found if c["type"] == name and c["status"]), None)

    def details(self, key: str, name: str) -> dict[str, str]:
        """What a program can do about it."""
        resource = next(item for item in self.board.snapshot()["resources"] if item["key"] == key)
        found = next(c for c in resource["conditions"] if c["type"] == name)
        details: dict[str, str] = found["details"]
        return details

    def open(self) -> str | None:
        return self.condition("daemon:dockerd", "FirewallOpen")

    def uci(self, *words: str) -> str:
        done = RealUci(self.config, self.config.parent / "save").run("-q", *words)
        return done.stdout.decode().strip()


@pytest.fixture
def router(tmp_path: Path) -> Router:
    made = Router(tmp_path)
    write_router(made.config)
    return made


@pytest.fixture
def network() -> Iterator[OwnNetwork]:
    if not is_root():
        pytest.skip("rules need root")
    made = OwnNetwork(f"ucide{os.getpid()}x{next(_numbers)}")
    yield made
    made.close()


@pytest.fixture
def guarded(router: Router, network: OwnNetwork, tmp_path: Path) -> Router:
    """A router whose rules are in the kernel."""
    router.tools = replace(
        router.tools,
        ipv4=filter_in(network, "4", tmp_path),
        ipv6=filter_in(network, "6", tmp_path),
    )
    router.restart_agent()
    return router


# rules


def test_a_blocked_interface_is_closed_on_every_device_that_it_may_have(
    guarded: Router, network: OwnNetwork
) -> None:
    guarded.apply(dockerd=BLOCKING)
    assert set(in_force(network)) == {"eth1>docker0", "pppoe-wan>docker0", "wan>docker0"}
    assert in_force(network, "ip6tables") == []
    guarded.netifd.known = {"wan": Interface(name="wan", up=True, device="eth1", l3_device="wwan0")}
    guarded.apply(dockerd=BLOCKING)
    assert "wwan0>docker0" in in_force(network)
    assert guarded.open() is None


def test_ipv6_is_closed_as_well_when_dockerd_opens_it(guarded: Router, network: OwnNetwork) -> None:
    guarded.apply(dockerd=BLOCKING + "config globals 'globals'\n\toption ip6tables '1'\n")
    assert in_force(network, "ip6tables") == in_force(network) != []
    guarded.apply(dockerd=BLOCKING)
    assert in_force(network, "ip6tables") == []


def test_rules_go_when_they_are_unset_even_by_an_agent_that_did_not_make_them(
    guarded: Router, network: OwnNetwork
) -> None:
    guarded.apply(dockerd=BLOCKING)
    guarded.restart_agent()
    guarded.apply()
    assert in_force(network) == []


def test_rules_outlive_a_mistake_in_their_section_and_it_is_said(
    guarded: Router, network: OwnNetwork
) -> None:
    guarded.apply(dockerd=BLOCKING)
    before = in_force(network)
    guarded.apply(dockerd=BLOCKING + "\toption extra_iptables_args '; reboot'\n")
    assert in_force(network) == before
    assert "extra_iptables_args" in (guarded.open() or "")
    guarded.apply(dockerd="config firewall 'firewall'\n\toption device 'a b'\n")
    assert in_force(network) == before
    assert "dockerd.firewall.device: " in (guarded.open() or "")
    guarded.apply(dockerd=BLOCKING)
    assert guarded.open() is None


def test_without_iptables_and_nft_the_board_says_that_it_is_open(router: Router) -> None:
    router.apply(dockerd=BLOCKING)
    assert "neither iptables nor nft is installed" in (router.open() or "")
    router.apply()
    assert router.open() is None


def test_a_name_that_nothing_has_is_open(guarded: Router) -> None:
    guarded.apply(dockerd=BLOCKING.replace("wan", "wann"))
    assert "wann is neither" in (guarded.open() or "")
    guarded.apply(dockerd=BLOCKING.replace("wan", "usb0"))
    assert guarded.open() is None


def test_two_zones_of_one_name_are_told_where_fw4_refuses_them(router: Router) -> None:
    zone = "\nconfig zone\n\toption name 'docker'\n"
    with (router.config / "firewall").open("a") as file:
        file.write(f"{zone}\toption masq '1'\n")
    router.apply()
    assert router.open() is None
    router.fw4 = True
    router.apply()
    assert "2 zones named docker" in (router.open() or "")


def test_off_openwrt_names_are_devices(guarded: Router, network: OwnNetwork) -> None:
    for name in ("network", "firewall"):
        (guarded.config / name).unlink()
    guarded.apply(dockerd=BLOCKING.replace("wan", "usb0"))
    assert in_force(network) == ["usb0>docker0"]


def test_nothing_is_done_here_for_a_remote_engine(router: Router) -> None:
    router.apply("config agent 'agent'\n\toption docker_host 'tcp://192.0.2.1:2376'\n" + IOT, BLOCKING)
    assert router.open() is None
    assert router.netifd.reloads == []


def test_put_back_restores_the_rules_that_dockerds_start_displaced(
    guarded: Router, network: OwnNetwork
) -> None:
    guarded.apply(dockerd=BLOCKING + "\tlist blocked_interfaces 'wann'\n")
    network.run("iptables", "-F", "DOCKER-USER")
    guarded.integration.put_rules_back()
    assert {"eth1>docker0", "pppoe-wan>docker0"} <= set(in_force(network))
    assert "wann is neither" in (guarded.open() or "")


@pytest.mark.parametrize(
    "globals_", ["option iptables '0'", "option alt_config_file '/etc/docker/daemon.json'"]
)
def test_where_dockerd_makes_no_rules_or_is_not_ours_none_are_made_unless_asked_for(
    guarded: Router, network: OwnNetwork, globals_: str
) -> None:
    guarded.tools = replace(
        guarded.tools, settings_of=settings_source(guarded.options, guarded.config / "daemon.json")
    )
    guarded.restart_agent()
    agent = "config agent 'agent'\n\toption daemon 'child'\n"
    section = f"config globals 'globals'\n\t{globals_}\n"
    guarded.apply(agent, BLOCKING)
    assert in_force(network)
    guarded.apply(agent, section + BLOCKING)
    assert in_force(network) == []
    assert guarded.open() is None
    guarded.apply(agent, section + BLOCKING + "\toption enforce '1'\n")
    assert in_force(network)


def test_what_a_daemon_json_of_the_users_says_is_what_counts(guarded: Router, network: OwnNetwork) -> None:
    ours = guarded.config / "daemon.json"
    guarded.tools = replace(guarded.tools, settings_of=settings_source(guarded.options, ours))
    guarded.restart_agent()
    theirs = guarded.config.parent / "theirs.json"
    dockerd = f"config globals 'globals'\n\toption alt_config_file '{theirs}'\n"
    web = "config agent 'agent'\n\toption daemon 'child'\n" + WEB
    guarded.fw4 = False
    for text, public in (
        ("{}", True),
        ('{"iptables": false, "bip": 5}', False),
        ("[broken", True),
        ("[]", True),
    ):
        theirs.write_text(text)
        guarded.apply(web, dockerd + BLOCKING)
        assert (guarded.condition("container:web", "PublicPort") is not None) is public
    assert in_force(network) == []


def test_without_iptables_nft_does_it(guarded: Router, network: OwnNetwork, tmp_path: Path) -> None:
    missing = Iptables("no-iptables-in-this-test")
    guarded.tools = replace(
        guarded.tools,
        ipv4=Filter(missing, nft_in(network, "4", tmp_path)),
        ipv6=Filter(missing, nft_in(network, "6", tmp_path)),
    )
    guarded.restart_agent()
    guarded.apply(dockerd=BLOCKING)
    assert set(nft_in_force(network)) == {"eth1>docker0", "pppoe-wan>docker0", "wan>docker0"}
    assert guarded.open() is None
    guarded.apply(dockerd=BLOCKING + "\toption extra_iptables_args '-m set --match-set friends src'\n")
    assert "--match-set needs iptables" in (guarded.open() or "")
    assert nft_in_force(network)
    guarded.apply()
    assert nft_in_force(network) == []


# zones

needs_uci = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@needs_uci
def test_a_bridge_gets_an_interface_in_its_zone_and_both_are_reloaded_once(router: Router) -> None:
    router.apply(IOT)
    assert router.uci("get", "network.ucidockd_iot") == "interface"
    assert router.uci("get", "network.ucidockd_iot.device") == "br-iot"
    assert router.uci("get", "network.ucidockd_iot.proto") == "none"
    assert router.uci("get", "network.ucidockd_iot.auto") == "0"
    assert router.uci("get", "firewall.docker.network") == "docker ucidockd_iot"
    assert router.netifd.reloads == ["network", "firewall"]
    before = {name: (router.config / name).stat().st_mtime_ns for name in ("network", "firewall")}
    router.apply(IOT)
    assert router.netifd.reloads == ["network", "firewall"]
    assert before == {name: (router.config / name).stat().st_mtime_ns for name in ("network", "firewall")}


@needs_uci
def test_what_we_made_goes_with_the_section_and_the_users_files_are_as_before(router: Router) -> None:
    before = router.uci("show", "network"), router.uci("show", "firewall")
    router.apply(IOT + "\toption zone 'things'\n" + "config network 'media'\n\toption zone 'lan'\n")
    assert router.uci("get", "firewall.ucidockd_things.name") == "things"
    assert router.uci("get", "firewall.ucidockd_things.input") == "ACCEPT"
    assert router.uci("get", "firewall.@zone[0].network") == "lan ucidockd_media"
    router.restart_agent()
    router.apply()
    assert (router.uci("show", "network"), router.uci("show", "firewall")) == before


@needs_uci
def test_another_zone_is_a_move(router: Router) -> None:
    router.apply(IOT)
    router.apply(IOT + "\toption zone 'lan'\n")
    assert router.uci("get", "firewall.docker.network") == "docker"
    assert router.uci("get", "firewall.@zone[0].network") == "lan ucidockd_iot"
    assert router.netifd.reloads == ["network", "firewall", "firewall"]


@needs_uci
def test_a_mistake_in_the_network_section_takes_nothing_away(router: Router) -> None:
    router.apply(IOT)
    before = router.uci("show", "network"), router.uci("show", "firewall")
    router.apply(IOT + "\toption gateway 'nonsense'\n")
    assert (router.uci("show", "network"), router.uci("show", "firewall")) == before


@needs_uci
def test_an_interface_of_the_user_is_left_alone(router: Router) -> None:
    own = "\nconfig interface 'mine'\n\toption device 'br-iot'\n\toption proto 'static'\n"
    (router.config / "network").write_text((router.config / "network").read_text() + own)
    before = router.uci("show", "network"), router.uci("show", "firewall")
    router.apply(IOT)
    assert (router.uci("show", "network"), router.uci("show", "firewall")) == before


@needs_uci
def test_a_zone_that_names_no_interface_keeps_the_one_of_its_own_name(router: Router) -> None:
    text = FIREWALL.replace("\toption network 'docker'\n", "")
    (router.config / "firewall").write_text(text)
    router.apply(IOT)
    assert router.uci("get", "firewall.docker.network") == "docker ucidockd_iot"


def test_networks_without_a_bridge_have_no_zone(router: Router) -> None:
    before = (router.config / "firewall").read_bytes(), (router.config / "network").read_bytes()
    router.apply("config network 'far'\n\toption driver 'macvlan'\n\toption parent 'eth0'\n")
    assert ((router.config / "firewall").read_bytes(), (router.config / "network").read_bytes()) == before


def test_off_openwrt_no_file_is_made(tmp_path: Path) -> None:
    router = Router(tmp_path)
    router.apply(IOT)
    assert sorted(path.name for path in router.config.iterdir()) == ["containers", "dockerd"]
    assert router.netifd.reloads == []


def test_a_reload_that_fails_is_asked_for_again(router: Router) -> None:
    router.netifd.failing = "ubus is away"
    router.apply(IOT)
    router.netifd.failing = ""
    router.apply(IOT)
    assert router.netifd.reloads == ["network", "firewall"]


def test_a_reload_that_a_killed_agent_still_owed_is_made_up_for_once(router: Router) -> None:
    router.netifd.known = {"lan": Interface(name="lan", up=True)}
    router.netifd.failing = "killed before the reload"
    router.apply(IOT)
    router.restart_agent()
    router.netifd.failing = ""
    for _ in range(2):
        router.apply(IOT)
    assert router.netifd.reloads == ["network", "firewall"]
    router.netifd.known = {"ucidockd_iot": Interface(name="ucidockd_iot")}
    router.restart_agent()
    router.apply(IOT)
    assert router.netifd.reloads == ["network", "firewall"]


def test_a_firewall_file_that_does_not_parse_is_left_as_it_is(router: Router) -> None:
    (router.config / "firewall").write_text("config zone 'a\n")
    router.apply(IOT)
    assert (router.config / "firewall").read_text() == "config zone 'a\n"
    assert "ucidockd" not in (router.config / "network").read_text()


def test_a_change_by_somebody_else_meanwhile_is_not_lost(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        store = router.integration._store
        load_with_hash = store.load_with_hash

        def racing(package: str) -> tuple[Package, str]:
            found = load_with_hash(package)
            if package == "network":
                (router.config / package).write_text(NETWORK + "\nconfig interface 'new'\n")
            return found

        patched.setattr(store, "load_with_hash", racing)
        router.apply(IOT)
    assert "changed by another program" in (router.condition("network:iot", "ZoneUnset") or "")
    router.apply(IOT)
    assert router.condition("network:iot", "ZoneUnset") is None
    assert {"new", "ucidockd_iot"} <= {section.name for section in store.load("network").sections}


# ports


def test_a_public_port_is_a_condition_until_it_is_closed(guarded: Router) -> None:
    web = "config container 'web'\n\toption image 'web'\n\tlist port '8080:80'\n"
    guarded.apply(web)
    assert "8080/tcp from wan" in (guarded.condition("container:web", "PublicPort") or "")
    guarded.apply(web, dockerd=BLOCKING)
    assert guarded.condition("container:web", "PublicPort") is None
    guarded.apply(web.replace("8080:80", "192.168.1.1:8080:80"))
    assert guarded.condition("container:web", "PublicPort") is None


def test_who_reaches_the_ports_of_containers_of_others_is_known(guarded: Router) -> None:
    # an unmanaged container, in Docker's bridge and in a network that no section declares
    def published(*networks: str, ip: str = "0.0.0.0") -> Published:
        return Published(networks=networks, ports=(Port(container_port=80, host_port=9000, host_ip=ip),))

    home = ObservedNetwork(
        id="a" * 64,
        name="home",
        inspect={
            "Id": "a" * 64,
            "Driver": "bridge",
            "Options": {},
            "IPAM": {"Config": [{"Subnet": "10.9.0.0/24"}]},
        },
    )
    on_the_lan = replace(home, name="far", inspect={**home.inspect, "Driver": "macvlan"})
    shut = replace(home, name="shut", inspect={**home.inspect, "Internal": True})
    asked = {
        "plain": published("bridge"),
        "home": published("home"),
        "far": published("far"),
        "shut": published("shut"),
        "lan": published("bridge", ip="192.168.1.1"),
    }
    assert guarded.integration.reach_of(asked, [home]) == {}
    guarded.apply()
    found = guarded.integration.reach_of(asked, [home, on_the_lan, shut])
    assert {name: ports["9000/tcp"] for name, ports in found.items()} == {
        "plain": ["lan", "wan"],
        "home": ["lan", "wan", "docker"],
        "far": [],
        "shut": [],
        "lan": [],  # netifd names no address of this router here
    }
    guarded.apply(dockerd=BLOCKING)
    found = guarded.integration.reach_of(asked, [home])
    assert found["plain"] == {"9000/tcp": ["lan"]}


WEB = "config container 'web'\n\toption image 'web'\n\tlist port '8080:80'\n"


def test_who_is_cut_off_is_told_until_the_zones_let_it_through(router: Router) -> None:
    router.fw4 = True
    router.apply(WEB)
    assert "from zone lan to zone docker" in (router.condition("container:web", "PortUnreachable") or "")
    assert "from zone docker to zone wan" in (router.condition("container:web", "NoInternet") or "")
    assert router.details("container:web", "NoInternet") == {"src": "docker", "dest": "wan"}
    allowed = "".join(
        f"\nconfig forwarding\n\toption src '{src}'\n\toption dest '{dest}'\n"
        for src, dest in (("lan", "docker"), ("docker", "wan"))
    )
    (router.config / "firewall").write_text(FIREWALL + allowed)
    router.apply(WEB)
    for name in ("PortUnreachable", "NoInternet", "PublicPort"):
        assert router.condition("container:web", name) is None
    router.fw4 = False
    (router.config / "firewall").write_text(FIREWALL)
    router.apply(WEB)
    assert router.condition("container:web", "NoInternet") is None


@needs_uci
@pytest.mark.parametrize(
    ("options", "cut_off"),
    [
        ("", True),
        ("\toption internal '1'\n", False),
        ("\toption driver 'macvlan'\n\toption parent 'eth0'\n", False),
    ],
)
def test_a_network_in_a_zone_that_it_made_is_looked_at_too(
    router: Router, options: str, cut_off: bool
) -> None:
    router.fw4 = True
    zoned = IOT + ("\toption zone 'things'\n" if "driver" not in options else "") + options
    router.apply(zoned + WEB + "\tlist network 'iot'\n")
    for name, zones in (
        ("PortUnreachable", "from zone lan to zone things"),
        ("NoInternet", "from zone things to zone wan"),
    ):
        assert (zones in (router.condition("container:web", name) or "")) is cut_off
    router.apply(WEB.replace("list port", "option network_mode 'host'\n\tlist port").split("\tlist port")[0])
    assert router.condition("container:web", "NoInternet") is None


@needs_uci
def test_a_zone_by_subnet_is_not_narrowed(router: Router) -> None:
    text = FIREWALL.replace("\toption network 'docker'\n", "\tlist subnet '172.16.0.0/12'\n")
    (router.config / "firewall").write_text(text)
    router.apply(IOT)
    assert (router.config / "firewall").read_text() == text


def test_rules_that_are_not_in_force_close_no_port(router: Router) -> None:
    router.apply("config container 'web'\n\toption image 'web'\n\tlist port '8080:80'\n", BLOCKING)
    assert router.open() is not None
    assert router.condition("container:web", "PublicPort") is not None


def test_a_port_at_an_address_that_the_router_lost_is_a_condition_until_it_is_back(
    router: Router, network: OwnNetwork
) -> None:
    """Asked of the kernel, in a network whose addresses come and go."""

    def ask(call: str) -> str:
        code = f"from agent.router.addresses import *; print({call})"
        return network.run(sys.executable, "-c", code).stdout.strip()

    def machine_addresses() -> tuple[tuple[str, IpAddress], ...]:
        found = ask("*(f'{device} {address}' for device, address in machine_addresses()), sep=','")
        pairs = (line.split() for line in found.split(",") if line)
        return tuple((device, ipaddress.ip_address(address)) for device, address in pairs)

    network.run("ip", "link", "add", "br-lan", "type", "bridge")
    network.run("ip", "link", "set", "br-lan", "up")
    network.run("ip", "addr", "add", "192.168.1.1/24", "dev", "br-lan")
    router.tools = replace(
        router.tools,
        has_address=lambda text: ask(f"has_address({text!r})") == "True",
        machine_addresses=machine_addresses,
    )
    router.restart_agent()
    ports = "".join(
        f"\tlist port '{port}'\n"
        for port in ("192.168.1.4:8080:80", "127.0.0.1:1:1", "0.0.0.0:2:2", "3:3", "[::1]:4:4")
    )
    section = f"config container 'web'\n\toption image 'a'\n{ports}"
    router.apply(section)
    text = router.condition("container:web", "AddressMissing")
    assert text is not None
    assert text.startswith("a port is published at 192.168.1.4, which this router does not have")
    assert "it has 192.168.1.1 (br-lan)" in text
    network.run("ip", "addr", "add", "192.168.1.4/24", "dev", "br-lan")
    router.apply(section)
    assert router.condition("container:web", "AddressMissing") is None
    network.run("ip", "addr", "del", "192.168.1.4/24", "dev", "br-lan")
    router.apply(section)
    assert router.condition("container:web", "AddressMissing") is not None
    router.apply(section + "\toption enabled '0'\n")
    assert router.condition("container:web", "AddressMissing") is None


def test_the_address_that_dockerd_publishes_at_by_default_counts_too(router: Router) -> None:
    router.tools = replace(router.tools, has_address=lambda text: False, machine_addresses=lambda: ())
    router.restart_agent()
    section = "config container 'web'\n\toption image 'a'\n\tlist port '8080:80'\n"
    router.apply(section)
    assert router.condition("container:web", "AddressMissing") is None
    router.apply(section, "config globals 'globals'\n\toption ip '192.168.1.4'\n")
    text = router.condition("container:web", "AddressMissing")
    assert text is not None
    assert "192.168.1.4" in text


def test_the_addresses_of_the_machine_are_asked_for_only_where_one_is_missing(router: Router) -> None:
    """They took 70 ms of each pass over 100 containers, for a message that nobody saw."""

    def unasked() -> tuple[tuple[str, IpAddress], ...]:
        raise AssertionError("nothing is missing")

    router.tools = replace(router.tools, has_address=lambda text: True, machine_addresses=unasked)
    router.restart_agent()
    router.apply("config container 'web'\n\toption image 'a'\n\tlist port '192.168.1.1:8080:80'\n")
    assert router.condition("container:web", "AddressMissing") is None
