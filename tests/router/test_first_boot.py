# SPDX-License-Identifier: GPL-2.0-or-later
"""uci-defaults: what is there after an install or a sysupgrade, and what of the user's is kept."""

from __future__ import annotations

import stat

from tests.router.rootfs import Router

STOCK = "config globals 'globals'\n\toption data_root '/opt/docker/'\n\toption log_level 'warn'\n"


def first_boot(router: Router) -> None:
    assert router.run("/etc/uci-defaults/60-ucidockd").returncode == 0


def test_a_fresh_system_gets_a_configuration_and_daemon_json_of_ours(router: Router) -> None:
    router.write("etc/config/dockerd", STOCK)
    first_boot(router)
    assert router.uci("get", "containers.agent") == "agent"
    assert router.uci("get", "dockerd.globals.alt_config_file") == "/var/run/ucidockd/daemon.json"
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


DOCKERMAN = """config section 'local'
	option daemon_data_root '/mnt/sda1/docker'
	option daemon_log_level 'debug'
	list daemon_registry_mirrors 'https://mirror.example'
	list daemon_registry_mirrors "it's; $(touch /owned)"
"""


def test_settings_of_the_old_dockerman_are_offered_and_not_applied(router: Router) -> None:
    router.write("etc/config/dockerd", "config globals 'globals'\n\toption log_level 'warn'\n")
    router.write("etc/config/dockerman", DOCKERMAN)
    first_boot(router)
    assert router.uci("get", "dockerd.globals.data_root") == ""
    offer = router.root / "etc/ucidockd/from-dockerman.uci"
    assert stat.S_IMODE(offer.parent.stat().st_mode) == 0o700
    router.run("ash", "-c", "uci batch </etc/ucidockd/from-dockerman.uci")
    assert router.uci("get", "dockerd.globals.data_root") == "/mnt/sda1/docker"
    assert router.uci("get", "dockerd.globals.log_level") == "warn"
    mirrors = "'https://mirror.example' 'it'\\''s; $(touch /owned)'"
    assert router.uci("show", "dockerd.globals.registry_mirrors").partition("=")[2] == mirrors
    assert not (router.root / "owned").exists()
