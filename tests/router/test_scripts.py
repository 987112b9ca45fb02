# SPDX-License-Identifier: GPL-2.0-or-later
"""Every script under `busybox ash` in a root directory of its own."""

from __future__ import annotations

import subprocess

import pytest

from tests.router.rootfs import FILES, PROJECT, Router

SCRIPTS = sorted(FILES)


@pytest.mark.parametrize("path", SCRIPTS)
def test_busybox_ash_parses_it(path: str) -> None:
    subprocess.run(["/bin/busybox", "ash", "-n", PROJECT / path], check=True)


def test_the_list_of_scripts_is_complete() -> None:
    folders = ("init.d", "hotplug.d", "uci-defaults")
    found = {str(p.relative_to(PROJECT)) for f in folders for p in (PROJECT / f).rglob("*") if p.is_file()}
    assert found == set(FILES)


HOTPLUG = {
    "a stick comes": (
        "tty",
        {"ACTION": "add", "DEVNAME": "ttyUSB0", "DEVPATH": "/devices/x"},
        {"ACTION": "add", "DEVNAME": "ttyUSB0", "DEVPATH": "/devices/x"},
    ),
    "another terminal": ("tty", {"ACTION": "add", "DEVNAME": "tty7"}, None),
    "a usb device": (
        "usb",
        {"ACTION": "add", "DEVTYPE": "usb_device", "PRODUCT": "10c4/ea60/100", "DEVPATH": "/devices/y"},
        {"ACTION": "add", "PRODUCT": "10c4/ea60/100", "DEVPATH": "/devices/y"},
    ),
    "its interface": ("usb", {"ACTION": "add", "DEVTYPE": "usb_interface"}, None),
    "a disk": ("block", {"ACTION": "add", "DEVNAME": "sda1"}, {"ACTION": "add", "DEVNAME": "sda1"}),
    "a disk that changes": ("block", {"ACTION": "change", "DEVNAME": "sda1"}, None),
    "a mount": ("mount", {"ACTION": "add", "DEVICE": "sda1"}, {"ACTION": "add", "DEVICE": "sda1"}),
    "an interface comes up": (
        "iface",
        {"ACTION": "ifup", "INTERFACE": "wan", "DEVICE": "eth0"},
        {"ACTION": "ifup", "INTERFACE": "wan", "DEVICE": "eth0"},
    ),
    "an interface is reloaded": ("iface", {"ACTION": "reload", "INTERFACE": "wan"}, None),
    "the clock is set": ("ntp", {"ACTION": "step"}, {"ACTION": "step"}),
    "the clock ticks": ("ntp", {"ACTION": "periodic"}, None),
    "docker0 is gone": (
        "net",
        {"ACTION": "remove", "INTERFACE": "docker0"},
        {"ACTION": "remove", "INTERFACE": "docker0"},
    ),
    "another device": ("net", {"ACTION": "add", "INTERFACE": "eth1"}, None),
    "hostile names": (
        "tty",
        {"ACTION": "add", "DEVNAME": "ttyUSB0\"; $(touch /owned) `touch /owned`'"},
        {"ACTION": "add", "DEVNAME": "ttyUSB0\"; $(touch /owned) `touch /owned`'"},
    ),
}


@pytest.mark.parametrize("row", HOTPLUG.values(), ids=HOTPLUG.keys())
def test_an_event_is_one_notification_or_none(
    router: Router, row: tuple[str, dict[str, str], dict[str, str] | None]
) -> None:
    subsystem, env, expected = row
    sent = router.hotplug(subsystem, **env)
    assert sent == ([] if expected is None else [{"subsystem": subsystem, "env": expected}])
    assert not (router.root / "owned").exists()


def test_an_event_without_an_agent_is_no_error(router: Router) -> None:
    router.script("bin/ubus", "#!/bin/ash\nexit 4\n")
    assert router.run("ash", "-c", ". /etc/hotplug.d/mount/90-ucidockd", ACTION="add").returncode == 0


def test_start_gives_procd_the_agent_that_is_never_given_up(router: Router) -> None:
    router.init("start")
    calls = router.calls()
    assert ["procd_set_param", "command", "/usr/bin/ucidockd", "run"] in calls
    assert ["procd_set_param", "respawn", "3600", "5", "0"] in calls
    assert ["procd_open_instance", "rescue"] in calls


# an init script whose autostart is on unless there is a file /off
DOCKERD_INIT = """#!/bin/ash
case "$1" in
enabled) [ ! -e /off ]; exit ;;
enable) rm /off ;;
disable) : >/off ;;
esac
echo "dockerd\t$1" >>/calls
"""
OURS = "option alt_config_file '/etc/ucidockd/daemon.json'"
OWN = "option alt_config_file '/etc/docker/daemon.json'"


def done(router: Router) -> list[str]:
    return [call[1] for call in router.calls() if call[0] == "dockerd"]


@pytest.mark.parametrize("action", ["start", "reload"])
@pytest.mark.parametrize("dockerd", [OURS, OWN, "", None])
def test_the_autostart_of_dockerd_is_taken_whoever_makes_its_settings(
    router: Router, dockerd: str | None, action: str
) -> None:
    """The agent starts it in each of these cases."""
    if dockerd is not None:
        router.write("etc/config/dockerd", f"config globals 'globals'\n\t{dockerd}\n")
    router.script("etc/init.d/dockerd", DOCKERD_INIT)
    router.init(action)
    assert done(router) == ["disable"]
    router.init(action)
    assert done(router) == []


@pytest.mark.parametrize("name", ["agent 'agent'", "agent"])
@pytest.mark.parametrize(
    "option", ["daemon 'external'", "daemon 'child'", "docker_host 'tcp://192.168.1.5:2376'"]
)
def test_a_dockerd_that_the_agent_does_not_start_keeps_its_autostart(
    router: Router, option: str, name: str
) -> None:
    router.write("etc/config/containers", f"config {name}\n\toption {option}\n")
    router.script("etc/init.d/dockerd", DOCKERD_INIT)
    router.init("start")
    assert done(router) == []
    router.write("off", "")  # taken by an agent that started it
    router.write("etc/ucidockd/autostart", "off\n")
    router.init("start")
    assert done(router) == [], "it had none before us"
    router.write("etc/ucidockd/autostart", "on\n")
    router.init("reload")
    assert done(router) == ["enable", "start"]
    router.init("start")
    assert done(router) == []


@pytest.mark.parametrize("host", ["unix:///run/other.sock", "tcp://127.0.0.1:2375", "tcp://localhost:2375"])
def test_an_engine_on_this_router_is_started_by_the_agent(router: Router, host: str) -> None:
    router.write("etc/config/containers", f"config agent\n\toption docker_host '{host}'\n")
    router.script("etc/init.d/dockerd", DOCKERD_INIT)
    router.init("start")
    assert done(router) == ["disable"]


def test_status_is_the_agents_own(router: Router) -> None:
    router.script("usr/bin/ucidockd", '#!/bin/ash\necho "asked for $*"\n')
    assert router.init("status_service").stdout == "asked for status\n"


def test_reload_is_a_signal(router: Router) -> None:
    router.init("reload")
    assert router.calls() == [["procd_send_signal", "ucidockd", "agent", "HUP"]]


def test_triggers_are_configuration_interfaces_and_mounts(router: Router) -> None:
    router.init("service_triggers")
    calls = router.calls()
    assert ["procd_add_reload_trigger", "dockerd", "containers", "firewall"] in calls
    assert {call[1] for call in calls if call[0] == "procd_add_raw_trigger"} == {"interface.*", "mount.*"}


def test_shutdown_waits_until_dockerd_has_ended(router: Router) -> None:
    """A process that takes 1.5 s to end after SIGTERM, as dockerd does with databases in its containers."""
    slow = subprocess.Popen(
        [
            "/bin/busybox",
            "ash",
            "-c",
            'trap "sleep 1.5; exit 0" TERM; echo ready; while :; do sleep 0.1; done',
        ],
        stdout=subprocess.PIPE,
    )
    assert slow.stdout is not None
    slow.stdout.readline()
    router.script("bin/ubus", f"#!/bin/ash\necho '{{\"pid\": {slow.pid}}}'\n")
    router.script(
        "etc/init.d/dockerd",
        f'#!/bin/ash\nkill -0 {slow.pid} 2>/dev/null && echo "dockerd\tearly" >>/calls\necho "dockerd\t$1" >>/calls\n',
    )
    with subprocess.Popen(
        ["chroot", router.root, "/etc/init.d/ucidockd", "shutdown"], env={"PATH": "/sbin:/bin"}
    ) as run:
        slow.wait(10)
        assert run.wait(10) == 0
    assert router.calls() == [["stop"], ["dockerd", "stop"]]


def test_shutdown_without_dockerd_is_quick(router: Router) -> None:
    assert router.init("shutdown").returncode == 0
    assert router.calls()[0] == ["stop"]
