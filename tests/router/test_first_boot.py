# SPDX-License-Identifier: GPL-2.0-or-later
"""uci-defaults: what is there after an install or a sysupgrade, and what of the user's is kept."""

from __future__ import annotations

import stat

import pytest

from agent.files.config import load
from agent.files.options import RuntimeOptions
from agent.model.issues import Issue
from agent.uci.router import text, words
from agent.uci.syntax import parse
from tests.router.rootfs import Router

STOCK = "config globals 'globals'\n\toption data_root '/opt/docker/'\n\toption log_level 'warn'\n"


def first_boot(router: Router) -> None:
    assert router.run("/etc/uci-defaults/60-ucidockd").returncode == 0


def test_a_fresh_system_gets_a_configuration_and_daemon_json_of_ours(router: Router) -> None:
    router.write("etc/config/dockerd", STOCK)
    first_boot(router)
    assert router.uci("get", "containers.agent") == "agent"
    assert router.uci("get", "dockerd.globals.alt_config_file") == "/etc/ucidockd/daemon.json"
    assert router.uci("get", "dockerd.globals.data_root") == "/opt/docker/"


def test_without_a_dockerd_package_nothing_is_made_up(router: Router) -> None:
    first_boot(router)
    assert not (router.root / "etc/config/dockerd").exists()


def test_it_changes_nothing_when_it_runs_again(router: Router) -> None:
    router.write("etc/config/dockerd", STOCK)
    router.write("etc/config/network", "")
    router.write("etc/config/firewall", "")
    first_boot(router)
    before = {p.name: p.read_bytes() for p in (router.root / "etc/config").iterdir()}
    first_boot(router)
    assert {p.name: p.read_bytes() for p in (router.root / "etc/config").iterdir()} == before


def test_a_users_own_values_are_kept(router: Router) -> None:
    router.write(
        "etc/config/dockerd",
        STOCK + "\toption alt_config_file '/etc/docker/daemon.json'\n\nconfig auth\n\toption username 'me'\n",
    )
    router.write("etc/config/containers", "config agent 'agent'\n\toption workers '2'\n")
    router.write("etc/config/network", "config interface 'docker'\n\toption proto 'static'\n")
    router.write("etc/config/firewall", "config zone 'docker'\n\toption input 'REJECT'\n")
    first_boot(router)
    assert router.uci("get", "dockerd.globals.alt_config_file") == "/etc/docker/daemon.json"
    assert router.uci("get", "dockerd.@auth[0].username") == "me"
    assert router.uci("get", "containers.agent.workers") == "2"
    assert router.uci("get", "network.docker.proto") == "static"
    assert router.uci("get", "firewall.docker.input") == "REJECT"


def test_docker0_gets_its_place_in_network_and_firewall(router: Router) -> None:
    router.write("etc/config/network", "")
    router.write("etc/config/firewall", "")
    first_boot(router)
    assert router.uci("get", "network.docker.device") == "docker0"
    assert router.uci("get", "network.docker0.type") == "bridge"
    assert router.uci("get", "firewall.docker.network") == "docker"


# docker0's place: every kind of router that people have posted or that the stock script makes

DEFAULTS = "config defaults\n\toption forward 'REJECT'\n\n"
LAN = "config zone\n\toption name 'lan'\n\tlist network 'lan'\n\n"
WAN = "config zone\n\toption name 'wan'\n\tlist network 'wan'\n\tlist network 'wan6'\n\toption masq '1'\n\n"
BASE = DEFAULTS + LAN + WAN
STOCK_NETWORK = (
    "config interface 'docker'\n\toption device 'docker0'\n\toption proto 'none'\n\toption auto '0'\n\n"
)
ANONYMOUS_DEVICE = "config device\n\toption type 'bridge'\n\toption name 'docker0'\n\n"


def zone(*lines: str, name: str = "docker", section: str = "") -> str:
    head = f"config zone '{section}'\n" if section else "config zone\n"
    return head + f"\toption name '{name}'\n" + "".join(f"\t{line}\n" for line in lines) + "\n"


def forwarding(src: str, dest: str, *lines: str) -> str:
    given = f"config forwarding\n\toption src '{src}'\n\toption dest '{dest}'\n"
    return given + "".join(f"\t{line}\n" for line in lines) + "\n"


OURS = {"lan>docker", "docker>wan"}
PLACES = {
    "nothing there": ("", BASE, OURS),
    "as the stock script makes it": (
        STOCK_NETWORK + ANONYMOUS_DEVICE,
        BASE + zone("list network 'docker'", section="docker"),
        OURS,
    ),
    "a zone as LuCI makes it": (STOCK_NETWORK, BASE + zone("list network 'docker'"), OURS),
    "a zone with an option of several words": (
        STOCK_NETWORK,
        BASE + zone("option network 'docker vpn'"),
        OURS,
    ),
    "a zone by device": ("", BASE + zone("list device 'docker0'"), OURS),
    "a zone by the beginning of devices": (
        "",
        BASE + zone("list device 'br-x'", "list device 'docker+'", name="things"),
        set(),
    ),
    "a zone for an interface that is not docker0's": (
        "config interface 'mine'\n\toption device 'docker0'\n",
        BASE + zone("list network 'docker'"),
        OURS,
    ),
    "a zone by subnet": ("", BASE + zone("list subnet '172.16.0.0/12'"), OURS),
    "two zones and devices by the stock script": (
        STOCK_NETWORK
        + ANONYMOUS_DEVICE
        + "config device 'docker0'\n\toption type 'bridge'\n\toption name 'docker0'\n\n",
        BASE
        + zone("list network 'docker'", "option input 'REJECT'")
        + zone(
            "list network 'docker'",
            "option input 'ACCEPT'",
            "option output 'ACCEPT'",
            "option forward 'ACCEPT'",
            section="docker",
        ),
        OURS,
    ),
    "an anonymous device": (ANONYMOUS_DEVICE, BASE, OURS),
    "the same zone and device three times": (
        STOCK_NETWORK + ANONYMOUS_DEVICE * 3,
        BASE + zone("list network 'docker'") * 3,
        OURS,
    ),
    "an interface of the user's in lan": (
        "config interface 'mine'\n\toption device 'docker0'\n\toption proto 'static'\n",
        DEFAULTS + LAN.replace("list network 'lan'", "list network 'lan'\n\tlist network 'mine'") + WAN,
        set(),
    ),
    "an interface of the user's by the older name": (
        "config interface 'mine'\n\toption ifname 'docker0'\n",
        BASE + zone("list network 'mine'", name="things"),
        set(),
    ),
    "an interface of the user's in no zone": (
        "config interface 'mine'\n\toption device 'docker0'\n",
        BASE,
        OURS,
    ),
    "an interface named docker for something else": (
        "config interface 'docker'\n\toption device 'eth0.5'\n",
        BASE,
        OURS,
    ),
    "a zone that says nothing of its members": (STOCK_NETWORK, BASE + zone(), OURS),
    "forwardings as LuCI makes them": (
        STOCK_NETWORK,
        BASE + zone("list network 'docker'") + forwarding("docker", "wan") + forwarding("lan", "docker"),
        OURS,
    ),
    "one forwarding only": (
        STOCK_NETWORK,
        BASE + zone("list network 'docker'") + forwarding("docker", "wan"),
        OURS,
    ),
    "a forwarding that is off": (
        STOCK_NETWORK,
        BASE + zone("list network 'docker'") + forwarding("docker", "wan", "option enabled '0'"),
        OURS,
    ),
    "zones of other names": (
        "",
        DEFAULTS + LAN.replace("'lan'", "'home'", 1) + WAN.replace("'wan'", "'world'", 1),
        set(),
    ),
    "values that are no addresses": (
        "",
        BASE + zone("list subnet 'fd00::/8'", "list subnet '!10.0.0.0/08'", name="odd"),
        OURS,
    ),
}


def zones_of_docker0(router: Router) -> list[str]:
    """The names of the zones that have docker0, as fw4 resolves them."""
    network = parse((router.root / "etc/config/network").read_text(), package="network")
    firewall = parse((router.root / "etc/config/firewall").read_text(), package="firewall")
    mine = {
        s.name
        for s in network.sections
        if s.type == "interface" and "docker0" in (*words(s, "device"), *words(s, "ifname"))
    }
    return [
        text(s, "name")
        for s in firewall.sections
        if s.type == "zone"
        and (
            mine & set(words(s, "network"))
            or {"docker0", "docker+"} & set(words(s, "device"))
            or "172.16.0.0/12" in words(s, "subnet")
        )
    ]


def forwardings(router: Router) -> list[str]:
    firewall = parse((router.root / "etc/config/firewall").read_text(), package="firewall")
    return [f"{text(s, 'src')}>{text(s, 'dest')}" for s in firewall.sections if s.type == "forwarding"]


@pytest.mark.parametrize(("network", "firewall", "expected"), PLACES.values(), ids=PLACES)
def test_docker0_gets_one_interface_one_zone_and_its_forwardings_once(
    router: Router, network: str, firewall: str, expected: set[str]
) -> None:
    router.write("etc/config/network", network)
    router.write("etc/config/firewall", firewall)
    first_boot(router)
    there = parse((router.root / "etc/config/network").read_text(), package="network").sections
    assert sum("docker0" in (*words(s, "device"), *words(s, "ifname")) for s in there) <= 1
    assert sum(s.type == "device" and text(s, "name") == "docker0" for s in there) <= 1
    assert len(zones_of_docker0(router)) == 1
    names = [
        text(s, "name")
        for s in parse((router.root / "etc/config/firewall").read_text(), package="firewall").sections
        if s.type == "zone"
    ]
    assert sorted(set(names)) == sorted(names)
    assert sorted(forwardings(router)) == sorted(expected)
    before = {p.name: p.read_bytes() for p in (router.root / "etc/config").iterdir()}
    first_boot(router)
    assert {p.name: p.read_bytes() for p in (router.root / "etc/config").iterdir()} == before


def test_a_router_that_runs_takes_up_what_was_changed_and_no_more(router: Router) -> None:
    router.write("etc/config/network", "")
    router.write("etc/config/firewall", BASE)
    router.write("var/run/fw4.state", "{}")
    router.script("etc/init.d/firewall", '#!/bin/ash\necho "firewall\t$1" >>/calls\n')
    first_boot(router)
    assert router.calls() == [["ubus", "call", "network", "reload"], ["firewall", "reload"]]
    first_boot(router)
    assert router.calls() == []


def test_forwardings_that_were_deleted_never_come_back(router: Router) -> None:
    router.write("etc/config/network", "")
    router.write("etc/config/firewall", BASE)
    first_boot(router)
    assert router.uci("get", "firewall.lan_docker.dest") == "docker"
    assert router.uci("get", "firewall.docker_wan.dest") == "wan"
    router.run(
        "ash", "-c", "uci delete firewall.lan_docker; uci delete firewall.docker_wan; uci commit firewall"
    )
    first_boot(router)
    assert forwardings(router) == []


def test_an_upgrade_of_a_version_that_added_none_adds_none(router: Router) -> None:
    router.write("etc/config/network", STOCK_NETWORK)
    router.write("etc/config/firewall", BASE + zone("list network 'docker'"))
    router.write("etc/ucidockd/state.json", "{}")
    first_boot(router)
    assert forwardings(router) == []


def test_a_device_of_docker0_that_somebody_took_away_stays_away(router: Router) -> None:
    router.write("etc/config/network", STOCK_NETWORK)
    router.write("etc/config/firewall", BASE)
    first_boot(router)
    assert "device" not in [
        s.type for s in parse((router.root / "etc/config/network").read_text(), package="network").sections
    ]


# who starts dockerd, and the sections that are there already

AUTOSTART = '#!/bin/ash\n# {word}\n[ "$1" != enabled ] || exit {code}\n'


@pytest.mark.parametrize("globals_", ["config globals\n", "config globals 'main'\n"])
def test_a_globals_section_without_its_name_gets_it(router: Router, globals_: str) -> None:
    router.write("etc/config/dockerd", globals_ + "\toption data_root '/mnt/sda1/docker'\n")
    first_boot(router)
    found = parse((router.root / "etc/config/dockerd").read_text(), package="dockerd").sections
    assert [(s.type, s.name) for s in found] == [("globals", "globals")]
    assert text(found[0], "data_root") == "/mnt/sda1/docker"
    assert text(found[0], "alt_config_file") == "/etc/ucidockd/daemon.json"


def test_the_second_globals_section_of_version_0_1_0_goes(router: Router) -> None:
    router.write(
        "etc/config/dockerd",
        "config globals\n\toption bip '10.9.0.1/24'\n\n"
        "config globals 'globals'\n\toption alt_config_file '/var/run/ucidockd/daemon.json'\n",
    )
    first_boot(router)
    found = parse((router.root / "etc/config/dockerd").read_text(), package="dockerd").sections
    assert [(s.name, text(s, "bip")) for s in found] == [("globals", "10.9.0.1/24")]


def test_an_agent_section_without_a_name_is_the_agents(router: Router) -> None:
    router.write("etc/config/containers", "config agent\n\toption workers '2'\n")
    first_boot(router)
    found = parse((router.root / "etc/config/containers").read_text(), package="containers").sections
    assert [s.type for s in found] == ["agent"]


@pytest.mark.parametrize(("code", "state", "noted"), [(0, False, "on"), (1, False, "off"), (1, True, "on")])
def test_whether_dockerd_had_an_autostart_is_noted_once(
    router: Router, code: int, state: bool, noted: str
) -> None:
    """Version 0.1.0 took it without a note: its state shows that it was there."""
    router.script("etc/init.d/dockerd", AUTOSTART.format(word="", code=code))
    if state:
        router.write("etc/ucidockd/state.json", "{}")
    first_boot(router)
    assert (router.root / "etc/ucidockd/autostart").read_text() == f"{noted}\n"
    router.script("etc/init.d/dockerd", AUTOSTART.format(word="", code=1 - code))
    first_boot(router)
    assert (router.root / "etc/ucidockd/autostart").read_text() == f"{noted}\n"


@pytest.mark.parametrize(
    ("word", "value", "enabled"),
    [("auto_start", "0", "0"), ("auto_start", "off", "0"), ("auto_start", "1", ""), ("nothing", "0", "")],
)
def test_a_dockerd_that_its_script_keeps_off_stays_off(
    router: Router, word: str, value: str, enabled: str
) -> None:
    """The stock script does not know auto_start: there dockerd has always been started."""
    router.write("etc/config/dockerd", STOCK + f"\toption auto_start '{value}'\n")
    router.script("etc/init.d/dockerd", AUTOSTART.format(word=word, code=0))
    first_boot(router)
    assert router.uci("get", "containers.agent.enabled") == enabled
    assert any("auto_start" in call[-1] for call in router.calls() if call[0] == "logger") is (enabled == "0")
    router.run("ash", "-c", "uci -q delete containers.agent.enabled; uci commit containers")
    first_boot(router)
    assert router.uci("get", "containers.agent.enabled") == "", "asked once"


# settings of luci-app-dockerman

DOCKERMAN = """config section 'local'
	option daemon_data_root '/mnt/sda1/docker'
	option daemon_log_level 'debug'
	list daemon_registry_mirrors 'https://mirror.example'
	list daemon_registry_mirrors "it's; $(touch /owned)"
	list daemon_hosts 'unix://var/run/docker.sock'
	list daemon_hosts 'tcp://127.0.0.1:2375'
	option daemon_bip '172.18.0.1/24'
"""
IN_DOCKERD = """
config dockerman 'dockerman'
	option socket_path '/var/run/docker.sock'
	option status_path '/tmp/.docker_action_status'
	option debug 'false'
	option remote_endpoint '0'
	list ac_allowed_interface 'br-lan'
"""
INTERFACES = """
config interface 'loopback'
	option device 'lo'

config interface 'lan'
	option device 'br-lan'

config interface 'wan'
	option device 'eth1'
	option proto 'pppoe'

config interface 'wan6'
	option device '@wan'

config interface 'guest'
	option device 'br-guest'

config interface 'vpn'
	option proto 'wireguard'
"""


def take_over(router: Router) -> list[Issue]:
    """Does what the log says, and what our own check has to say about the result."""
    done = router.run("ash", "-c", "uci batch </etc/ucidockd/from-dockerman.uci")
    assert done.stdout == ""
    config = router.root / "etc/config"
    options = RuntimeOptions(
        config_dir=config, override_dir=router.root / "none", state_dir=router.root / "s"
    )
    return [issue for issue in load(options).issues if issue.severity == "error"]


def test_settings_of_the_old_dockerman_are_offered_and_not_applied(router: Router) -> None:
    router.write("etc/config/dockerd", "config globals 'globals'\n\toption log_level 'warn'\n")
    router.write("etc/config/dockerman", DOCKERMAN)
    first_boot(router)
    assert router.uci("get", "dockerd.globals.data_root") == ""
    offer = router.root / "etc/ucidockd/from-dockerman.uci"
    assert stat.S_IMODE(offer.parent.stat().st_mode) == 0o700
    said = [call[-1] for call in router.calls() if call[0] == "logger"]
    assert any(line.endswith("this is left out: it's; $(touch /owned)") for line in said)
    assert take_over(router) == []
    assert router.uci("get", "dockerd.globals.data_root") == "/mnt/sda1/docker"
    assert router.uci("get", "dockerd.globals.log_level") == "warn"
    assert router.uci("get", "dockerd.globals.bip") == "172.18.0.1/24"
    assert router.uci("get", "dockerd.globals.registry_mirrors") == "https://mirror.example"
    assert router.uci("get", "dockerd.globals.hosts") == "unix:///var/run/docker.sock tcp://127.0.0.1:2375"
    assert not (router.root / "owned").exists()


def test_who_may_reach_containers_becomes_who_may_not(router: Router) -> None:
    router.write("etc/config/dockerd", STOCK + IN_DOCKERD)
    router.write("etc/config/network", INTERFACES)
    first_boot(router)
    assert take_over(router) == []
    assert router.uci("get", "dockerd.firewall.blocked_interfaces") == "wan guest vpn"
    assert router.uci("get", "dockerd.firewall.device") == "docker0"
    assert router.uci("get", "containers.agent.docker_host") == ""


@pytest.mark.parametrize("allowed", ["pppoe-wan", "eth1", "wan"])
def test_an_allowed_interface_is_known_by_each_of_its_names(router: Router, allowed: str) -> None:
    router.write("etc/config/dockerd", STOCK + IN_DOCKERD.replace("br-lan", allowed))
    router.write("etc/config/network", INTERFACES)
    first_boot(router)
    take_over(router)
    assert router.uci("get", "dockerd.firewall.blocked_interfaces") == "lan guest vpn"


REMOTE = {
    "host and port": (
        "option remote_host '192.168.1.5'\n\toption remote_port '2376'",
        "tcp://192.168.1.5:2376",
    ),
    "a host": ("option remote_host 'nas.lan'", "tcp://nas.lan:2375"),
    "IPv6": ("option remote_host 'fd00::5'\n\toption remote_port '2375'", "tcp://[fd00::5]:2375"),
    "no host": ("option remote_port '2375'", ""),
    "not a host": ("option remote_host 'a b;c'", ""),
}


@pytest.mark.parametrize(("options", "expected"), REMOTE.values(), ids=REMOTE)
@pytest.mark.parametrize("on", ["1", "true"])
def test_a_remote_engine_becomes_docker_host(router: Router, options: str, expected: str, on: str) -> None:
    router.write("etc/config/dockerd", STOCK)
    router.write(
        "etc/config/dockerman",
        f"config dockerman\n\toption remote_endpoint '{on}'\n\t{options}\n\toption daemon_log_level 'info'\n",
    )
    first_boot(router)
    assert router.uci("get", "containers.agent.docker_host") == "", "offered, not applied"
    if (router.root / "etc/ucidockd/from-dockerman.uci").exists():
        assert take_over(router) == []
    assert router.uci("get", "containers.agent.docker_host") == expected


@pytest.mark.parametrize(
    ("option", "gone"),
    [
        ("option daemon_data_root 'opt/docker'", "data_root"),
        ("option daemon_log_level 'verbose'", "log_level"),
        ("list daemon_registry_mirrors 'docker.1ms.run'", "registry_mirrors"),
        ("list daemon_hosts '0.0.0.0:2375'", "hosts"),
        ("option daemon_bip '172.18.0.1'", "bip"),
        ("option daemon_bip '172.18.0.300/24'", "bip"),
    ],
)
def test_what_our_own_check_would_refuse_is_not_offered(router: Router, option: str, gone: str) -> None:
    router.write("etc/config/dockerd", "config globals 'globals'\n")
    router.write("etc/config/dockerman", f"config section 'local'\n\t{option}\n\toption daemon_ea '0'\n")
    first_boot(router)
    assert take_over(router) == []
    assert router.uci("get", f"dockerd.globals.{gone}") == ""
    assert router.uci("get", "containers.agent.enabled") == "0"


def test_each_old_word_is_answered_with_its_successor_or_why_there_is_none(router: Router) -> None:
    router.write(
        "etc/config/dockerd",
        IN_DOCKERD + "\toption remote_host 'x'\n\tlist ac_allowed_ports '80/tcp'\n\toption nonsense '1'\n",
    )
    first_boot(router)
    config = router.root / "etc/config"
    options = RuntimeOptions(
        config_dir=config, override_dir=router.root / "none", state_dir=router.root / "s"
    )
    found = {issue.option: issue.expected for issue in load(options).issues}
    assert "dockerd.firewall.blocked_interfaces" in found["ac_allowed_interface"]
    assert "containers.agent.docker_host" in found["remote_host"]
    assert "containers.NAME.port" in found["ac_allowed_ports"]
    assert found["status_path"].startswith("nothing")
    assert found["nonsense"].startswith("nothing")
    assert {issue.severity for issue in load(options).issues} == {"warning"}
