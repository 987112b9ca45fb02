# SPDX-License-Identifier: GPL-2.0-or-later
"""What is allowed and dangerous is shown: mounts that control the router, ports beside a LuCI without TLS, `ubus_cors`."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agent.runtime.config import load
from agent.runtime.hazards import make_hazards
from agent.runtime.options import RuntimeOptions
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
            config_dir=folder / "config", override_dir=folder / "override", state_dir=folder / "state"
        )
        self.board = StatusBoard()
        self.hazards = make_hazards(self.options, self.board, folder / "run")

    def show(self, *lines: str, uhttpd: str | None = None) -> None:
        options = "".join(f"\t{line}\n" for line in ("option image 'a'", *lines))
        host = f"config agent 'agent'\n\toption docker_host 'unix://{self.folder}/engine.sock'\n"
        (self.folder / "config" / "containers").write_text(f"{host}config container 'web'\n{options}")
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


MOUNTS = {
    "/var/run/docker.sock:/x": "the engine's socket",
    "/var/run/docker.sock:/x:ro": "the engine's socket",
    "{}/engine.sock:/x": "the engine's socket",
    "{}/run:/x": "the agent's socket",
    "{}/run/agent.sock:/x": "the agent's socket",
    "{}/var:/x": "the agent's socket",
    "{}/state/tls:/x:ro": "the agent's state and keys",
    "{}:/x": "the agent's socket, the agent's state and keys, the engine's socket",
    "/:/x": "the agent's socket, the agent's state and keys, the engine's socket",
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
        assert shown is not None
        assert shown.endswith(f"by {mount.format(router.folder).partition(':')[0]} ({what})")


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
    assert shown is None if port is None else str(shown).startswith(f"{port}: ")


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
