# SPDX-License-Identifier: GPL-2.0-or-later
"""netifd's answer, asked by a program that prints what `ubus` does."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from agent.errors import BusError
from agent.files.config import open_store
from agent.files.options import RuntimeOptions
from agent.model.addresses import Interface
from agent.router.addresses import BusNetifd, UbusNetifd, is_up
from agent.runtime.router_integration import RouterIntegration, RouterTools
from agent.runtime.servers import Bus
from agent.runtime.triggers import Triggers
from agent.status.board import StatusBoard
from agent.ubus.client import Arguments, BusObject, Method, Reply, UbusClient
from tests.support.bus import running
from tests.support.fake_ubusd import FakeUbusd

DUMP = {
    "interface": [
        {
            "interface": "lan",
            "up": True,
            "l3_device": "br-lan",
            "device": "br-lan",
            "ipv4-address": [{"address": "192.168.1.1", "mask": 24}],
            "ipv6-address": [{"address": "fd00::1", "mask": 60}],
        },
        {"interface": "wan", "up": False, "available": True, "device": "eth1"},
    ]
}


def ubus(folder: Path, body: str) -> UbusNetifd:
    """A netifd client whose programs are shell scripts that note their arguments."""
    for name, text in (("ubus", body), ("firewall", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/calls\n{text}\n')
        script.chmod(0o755)
    return UbusNetifd(ubus=str(folder / "ubus"), firewall=str(folder / "firewall"))


def test_interfaces_are_read_with_their_devices_and_addresses(tmp_path: Path) -> None:
    found = ubus(tmp_path, f"cat <<'EOF'\n{json.dumps(DUMP)}\nEOF").interfaces()
    assert found == {
        "lan": Interface(
            name="lan",
            up=True,
            device="br-lan",
            l3_device="br-lan",
            addresses=frozenset({"192.168.1.1", "fd00::1"}),
        ),
        "wan": Interface(name="wan", device="eth1"),
    }
    assert is_up("lan", found)
    assert not is_up("wan", found)
    assert (tmp_path / "calls").read_text() == "ubus -t 5 call network.interface dump\n"


def test_reloads_are_one_call_each(tmp_path: Path) -> None:
    netifd = ubus(tmp_path, "")
    netifd.reload_network()
    netifd.reload_firewall()
    assert (tmp_path / "calls").read_text() == "ubus -t 5 call network reload\nfirewall reload\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo 'Command failed: Not found' >&2; exit 4", "failed .4.: Command failed: Not found"),
        ("echo '{'", "unexpected answer"),
        ("echo '[]'", "unexpected answer"),
        ('echo \'{"interface": [{"up": true}]}\'', "unexpected answer"),
    ],
)
def test_a_bus_that_fails_is_an_error(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(BusError, match=said):
        ubus(tmp_path, body).interfaces()


def test_without_ubus_there_is_no_netifd_and_devices_count(tmp_path: Path) -> None:
    assert UbusNetifd(ubus=str(tmp_path / "none")).interfaces() is None
    assert is_up("lo", None)
    assert not is_up("nonesuch0", None)
    assert not is_up("", None)
    assert not is_up("a-name-that-is-too-long", None)
    with pytest.raises(BusError):
        UbusNetifd(firewall=str(tmp_path / "none")).reload_firewall()


async def test_the_agents_own_connection_is_asked_where_there_is_one(tmp_path: Path) -> None:
    """Over ubus' protocol; the program would fail."""
    asked: list[str] = []

    async def dump(_: Arguments) -> Reply:
        asked.append("dump")
        return DUMP

    async def reload(_: Arguments) -> Reply:
        asked.append("reload")
        return {}

    path = tmp_path / "ubus.sock"
    bus = Bus(str(path), Triggers())
    router = RouterIntegration(
        open_store(RuntimeOptions(config_dir=tmp_path)),
        StatusBoard(time.time),
        RouterTools(netifd=BusNetifd(bus.ask, ubus(tmp_path, "echo 'no such thing' >&2; exit 1"))),
    )
    with pytest.raises(BusError, match="no such thing"):
        router._tools.netifd.interfaces()  # no connection yet: the program
    async with FakeUbusd(path), running(UbusClient(str(path))) as netifd, running(bus.client):
        await netifd.add_object(BusObject(name="network.interface", methods={"dump": Method(handler=dump)}))
        await netifd.add_object(BusObject(name="network", methods={"reload": Method(handler=reload)}))
        found = await asyncio.to_thread(router._tools.netifd.interfaces)
        assert found is not None
        assert found["lan"].device == "br-lan"
        await asyncio.to_thread(router._tools.netifd.reload_network)
    assert asked == ["dump", "reload"]
    assert (tmp_path / "calls").read_text() == "ubus -t 5 call network.interface dump\n"
