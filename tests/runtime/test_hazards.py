# SPDX-License-Identifier: GPL-2.0-or-later
"""What is allowed and dangerous is shown: mounts that control the router, ports beside a LuCI without TLS, `ubus_cors`."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.files.config import load
from agent.files.options import RuntimeOptions
from agent.files.state import StateFile
from agent.router.hazards import make_hazards
from agent.runtime.status_writer import StatusWriter
from agent.status.board import StatusBoard

HTTP = "config uhttpd 'main'\n\tlist listen_http '0.0.0.0:80'\n"


class Router:
    """A configuration directory, and a socket and a state directory that are real: links are followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("config", "run", "state"):
            (folder / name).mkdir()
        (folder / "var").symlink_to("run")
        self.options = RuntimeOptions(
            config_dir=folder / "config",
            override_dir=folder / "override",
            state_dir=folder / "state",
            save_dir=folder / "save",
        )
        self.board = StatusBoard(time.time)
        self.hazards = make_hazards(self.options, self.board, folder / "run" / "agent.sock")

    def show(self, *lines: str, uhttpd: str | None = None, more: str = "") -> None:
        options = "".join(f"\t{line}\n" for line in ("option image 'a'", *lines))
        host = f"config agent 'agent'\n\toption docker_host 'unix://{self.folder}/engine.sock'\n"
        (self.folder / "config" / "containers").write_text(f"{host}config container 'web'\n{options}{more}")
        if uhttpd is not None:
            (self.folder / "config" / "uhttpd").write_text(uhttpd)
        desired = load(self.options).desired
        assert desired is not None
        self.hazards.show(desired)

    def condition(self, name: str) -> str | None:
        found = [c for item in self.board.snapshot()["resources"] for c in item["conditions"]]
        return next((c["message"] for c in found if c["type"] == name and c["status"]), None)


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path)


OURS = (
    "dockerd's settings, the agent's socket, the agent's state and keys, the engine's socket,"
    " the router's configuration"
)
OURS_TO_READ = "the agent's socket, the agent's state and keys, the engine's socket"
MOUNTS = {
    "/var/run/docker.sock:/x": "the engine's socket",
    "/var/run/docker.sock:/x:ro": "the engine's socket",
    "{}/engine.sock:/x": "the engine's socket",
    "{}/run:/x": "dockerd's settings, the agent's socket",
    "{}/run:/x:ro": "the agent's socket",
    "{}/run/app:/x": None,
    "{}/run/daemon.json:/x": "dockerd's settings",
    "{}/run/agent.sock:/x": "the agent's socket",
    "{}/var:/x": "dockerd's settings, the agent's socket",
    "{}/state/tls:/x:ro": "the agent's state and keys",
    "{}/state/files/app/key:/x:ro": None,
    "{}/state/filesystem:/x:ro": "the agent's state and keys",
    "{}:/x": OURS,
    "{}:/x:ro": OURS_TO_READ,
    "{}/./override/../.:/x": OURS,
    "{}/config:/x": "the router's configuration",
    "{}/config/containers:/x": "the router's configuration",
    "{}/override:/x": "the router's configuration",
    "{}/config:/x:ro": None,
    "/:/x": "the router's whole file system",
    "/:/x:ro": "the router's whole file system",
    "//:/x:ro": "the router's whole file system",
    "/etc/crontabs:/x": "what the router runs",
    "/etc/init.d/cron:/x": "what the router runs",
    "/etc/rc.local:/x": "what the router runs",
    "/etc/dropbear:/x:ro": "SSH keys",
    "/root/.ssh:/x": "SSH keys",
    "/root/.ssh/authorized_keys:/x": "SSH keys",
    "/var/run/ubus/ubus.sock:/x": "ubus",
    "/usr/sbin:/x": "the router's programs",
    "/proc:/host/proc": "the kernel's settings",
    "/proc:/host/proc:ro": None,
    "/sys:/sys:ro": None,
    "/lib/modules:/lib/modules:ro": None,
    "/etc/localtime:/etc/localtime:ro": None,
    "/etc/timezone:/etc/timezone": None,
    "/etc/resolv.conf:/x:ro": None,
    "/etc/ssl/certs:/x:ro": None,
    "/var/log:/x": None,
    "/dev/net/tun:/dev/net/tun": None,
    "/dev/serial/by-id:/x": None,
    "/home:/x": None,
    "/srv/etc/config:/x": None,
    "/root/data:/x": None,
    "{}/state-of-mind:/x": None,
    "{}/runner:/x": None,
    "/mnt/sda1:/x": None,
    "data:/var/run/docker.sock": None,
}


@pytest.mark.parametrize("mount", MOUNTS)
def test_a_mount_that_gives_control_of_the_router_is_named(router: Router, mount: str) -> None:
    router.show(f"list volume '{mount.format(router.folder)}'")
    shown, what = router.condition("HostControl"), MOUNTS[mount]
    if what is None:
        assert shown is None
    else:
        assert shown is not None and shown.endswith(f" ({what})")


def volume(device: str, o: str = "bind", **more: str) -> str:
    options = {"type": "none", "o": o, "device": device, **more}
    return "config volume 'vol'\n" + "".join(
        f"\tlist opt '{name}={value}'\n" for name, value in options.items()
    )


VOLUMES = {
    "a bind": (volume("{}/run"), True),
    "a parent": (volume("{}", "rbind,rw"), True),
    "a link": (volume("{}/var"), True),
    "read-only": (volume("{}/config", "bind,ro"), False),
    "its type says it": (volume("{}/config", "rw", type="bind"), True),
    "a disk": (volume("/dev/sda1", "rw", type="ext4"), False),
    "data": (volume("/mnt/sda1/data"), False),
    "NFS": (volume(":/export", "addr=10.0.0.1,bind", type="nfs"), False),
    "another name in Docker": (volume("{}/run") + "\toption name 'other'\n", True),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_a_volume_that_is_a_bind_is_judged_like_one(router: Router, name: str) -> None:
    section, named = VOLUMES[name]
    router.show("list volume 'vol:/x'", more=section.format(router.folder))
    assert (router.condition("HostControl") is not None) is named


RIGHTS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "privileged": (("option privileged '1'",), "privileged"),
    "not privileged": (("option privileged '0'",), None),
    "pid host": (("option pid 'host'",), None),
    "SYS_PTRACE": (("list cap_add 'SYS_PTRACE'",), None),
    "SYS_ADMIN": (("list cap_add 'SYS_ADMIN'",), None),
    "both": (("option pid 'host'", "list cap_add 'sys_ptrace'"), "pid host with CAP_SYS_PTRACE"),
    "pid host, SYS_ADMIN": (
        ("option pid 'host'", "list cap_add 'CAP_SYS_ADMIN'"),
        "pid host with CAP_SYS_ADMIN",
    ),
    "SYS_MODULE": (("list cap_add 'SYS_MODULE'",), "CAP_SYS_MODULE"),
    "SYS_RAWIO": (("list cap_add 'SYS_RAWIO'",), "CAP_SYS_RAWIO"),
    "ALL": (("list cap_add 'ALL'",), "ALL"),
    "NET_ADMIN": (("list cap_add 'NET_ADMIN'",), None),
    "network host": (("option network_mode 'host'",), None),
    "its network": (
        ("option network_mode 'host'", "list cap_add 'NET_ADMIN'"),
        "network_mode host with CAP_NET_ADMIN (the router's network and firewall)",
    ),
    "memory": (("list device '/dev/mem'",), "device /dev/mem"),
    "a disk": (("list device '/dev/sda:/dev/x'",), "device /dev/sda"),
    "flash": (("list device '/dev/mtdblock3'",), "device /dev/mtdblock3"),
    "a whole card": (("list device '/dev/mmcblk0'",), "device /dev/mmcblk0"),
    "all devices": (("list device '/dev:/dev'",), "device /dev"),
    "by a link": (("list device '{}/disk'",), "device {}/disk"),
    "a partition": (("list device '/dev/sda1'",), None),
    "usual ones": (
        (
            "list device '/dev/net/tun'",
            "list device '/dev/ttyUSB0'",
            "list device '/dev/dri'",
            "list device '/dev/fuse'",
        ),
        None,
    ),
    "a rule for disks": (("list device_cgroup_rule 'b 8:* rmw'",), "devices b 8:* rmw"),
    "a rule for all": (("list device_cgroup_rule 'a *:* rwm'",), "devices a *:* rwm"),
    "a rule for serial ports": (("list device_cgroup_rule 'c 188:* rmw'",), None),
}


@pytest.mark.parametrize("name", RIGHTS)
def test_a_right_that_gives_control_of_the_router_is_named(router: Router, name: str) -> None:
    lines, what = RIGHTS[name]
    (router.folder / "disk").symlink_to("/dev/sda")
    router.show(*(line.format(router.folder) for line in lines))
    shown = router.condition("HostControl")
    assert shown is None if what is None else str(shown).endswith(f"by {what.format(router.folder)}")


def test_a_path_that_cannot_be_looked_at_is_judged_by_its_name(router: Router) -> None:
    router.show(f"list volume '/etc/crontabs/{'a' * 300}:/x'", "list volume '/proc/1/root/x:/y:ro'")
    assert "what the router runs" in str(router.condition("HostControl"))


def test_the_condition_goes_with_the_mount(router: Router) -> None:
    router.show("list volume '/var/run/docker.sock:/x'")
    assert router.condition("HostControl")
    router.show("list volume '/var/run/docker.sock:/x'", "option enabled '0'")
    assert router.condition("HostControl") is None
    router.show("list volume '/var/run/docker.sock:/x'")
    assert router.condition("HostControl")
    router.show()
    assert router.condition("HostControl") is None


PORTS = {
    "list port '8080:80'": "8080/tcp",
    "list port '192.168.1.1:8080:80'": "8080/tcp",
    "list port '127.0.0.1:8080:80'": None,
    "list port '[::1]:8080:80'": None,
    "list port '53:53/udp'": None,
    "option hostname 'web'": None,
}


@pytest.mark.parametrize("line", PORTS)
def test_a_port_beside_a_luci_without_tls_is_shown(router: Router, line: str) -> None:
    router.show(line, uhttpd=HTTP)
    shown, port = router.condition("SharedOriginPorts"), PORTS[line]
    assert shown is None if port is None else f"({port})" in str(shown)


def test_what_is_said_of_a_section_ends_with_it(router: Router) -> None:
    """Its container stays for the grace period."""
    router.show("option privileged '1'")
    writer = StatusWriter(board=router.board, records=StateFile(router.folder / "state.json"))
    desired = load(router.options).desired
    assert desired is not None
    writer.config(desired, ())
    assert router.condition("HostControl")
    writer.config(replace(desired, containers=()), ())
    assert router.condition("HostControl") is None


def test_what_is_not_to_run_is_no_hazard(router: Router) -> None:
    lines = ("list port '8080:80'", "option privileged '1'")
    for stopped, is_shown in (("option state 'running'", True), ("option state 'stopped'", False)):
        router.show(*lines, stopped, uhttpd=HTTP)
        for name in ("SharedOriginPorts", "HostControl"):
            assert (router.condition(name) is not None) is is_shown


@pytest.mark.parametrize(
    "uhttpd",
    [
        f"{HTTP}\toption redirect_https '1'\n",
        "config uhttpd 'main'\n\tlist listen_https '0.0.0.0:443'\n",
        "config uhttpd 'main\n",
        "",
    ],
    ids=["sent on to https", "https only", "a file that is none", "an empty file"],
)
def test_without_plain_http_it_is_not_shown(router: Router, uhttpd: str) -> None:
    router.show("list port '8080:80'", uhttpd=HTTP)
    assert router.condition("SharedOriginPorts")
    router.show("list port '8080:80'", uhttpd=uhttpd)
    assert router.condition("SharedOriginPorts") is None


def test_where_there_is_no_uhttpd_nothing_is_said_of_it(router: Router) -> None:
    router.show("list port '8080:80'")
    assert router.condition("SharedOriginPorts") is None
    assert "warnings" not in router.board.snapshot()["agent"]


def test_ubus_cors_is_warned_of_as_long_as_it_is_on(router: Router, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        router.show(uhttpd=f"{HTTP}\toption ubus_cors '1'\n")
    (warning,) = router.board.snapshot()["agent"]["warnings"]
    assert warning.startswith("uhttpd.main.ubus_cors is on: ")
    assert [record.getMessage() for record in caplog.records] == [warning]
    router.show(uhttpd=f"{HTTP}\toption ubus_cors '0'\n")
    assert router.board.snapshot()["agent"]["warnings"] == []


def test_dockerman_beside_us_is_warned_of_until_it_is_gone(router: Router) -> None:
    theirs = router.folder / "luci-app-dockerman.json"
    router.hazards.dockerman = (theirs,)
    router.show()
    assert router.board.snapshot()["agent"].get("warnings", []) == []
    desired = load(router.options).desired
    assert desired is not None
    theirs.write_text("{}")
    router.hazards.show(desired)
    (warning,) = router.board.snapshot()["agent"]["warnings"]
    assert warning.startswith("luci-app-dockerman is installed") and "apk del luci-app-dockerman" in warning
    theirs.unlink()
    router.hazards.show(desired)  # the same configuration
    assert router.board.snapshot()["agent"]["warnings"] == []
