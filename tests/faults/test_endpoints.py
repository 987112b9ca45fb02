# SPDX-License-Identifier: GPL-2.0-or-later
"""The networks of a container are exactly the declared ones, and getting there touches only what differs."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd
from tests.support.versions import VERSIONS, a_box, an_engine

PORT = 18477
NETWORKS = """
config network 'a'
	list subnet '10.219.60.0/24'

config network 'b'
	list subnet '10.219.61.0/24'

config network 'c'
	list subnet '10.219.62.0/24'
"""
SRV = """
config container 'srv'
	option image 'IMAGE'
	option command 'httpd -f -p 80'
	option stop_timeout '0'
	option gate '0.2'
"""
ON_A = NETWORKS + SRV + "\tlist network 'a'\n"
BOTH = ON_A + "\tlist network 'b'\n"
PLAIN = NETWORKS + SRV
MAC = "02:42:0a:db:51:77"


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Iterator[PrivateDockerd]:
    with an_engine(request.param) as dockerd:
        yield dockerd


@pytest.fixture
def room(version: PrivateDockerd, tmp_path: Path) -> Iterator[Box]:
    with a_box(version, tmp_path) as made:
        yield made


def endpoints(box: Box, name: str = "srv") -> dict[str, dict[str, Any]]:
    return dict(box.get(name).attrs["NetworkSettings"]["Networks"])


def network(box: Box, name: str) -> Any:
    return next(n for n in box.client.networks.list(names=[name]) if n.name == name)


def verbs(box: Box, text: str | None = None) -> list[str]:
    plan, outcomes = box.apply(text)
    assert [str(o.error) for o in outcomes if o.error] == []
    return [operation.verb for operation in plan.operations]


def is_settled(box: Box) -> bool:
    return str(box.apply()[0]) == "nothing to do"


BY_HAND: dict[str, Callable[[Box], object]] = {
    "disconnected": lambda box: network(box, "bridge").disconnect("srv"),
    "joined another": lambda box: network(box, "a").connect("srv"),
    "moved to another": lambda box: (
        network(box, "a").connect("srv"),
        network(box, "bridge").disconnect("srv"),
    ),
}


@pytest.mark.variants(2)
@pytest.mark.parametrize("edit", BY_HAND)
@pytest.mark.parametrize("text", [PLAIN, PLAIN + "\toption network_mode 'bridge'\n"])
def test_without_a_network_it_is_on_the_default_bridge_alone(room: Box, edit: str, text: str) -> None:
    assert verbs(room, text)
    before = room.get("srv").attrs["State"]["Pid"]
    assert is_settled(room)
    BY_HAND[edit](room)
    assert verbs(room) == ["reconnect"]
    assert endpoints(room).keys() == {"bridge"}
    assert endpoints(room)["bridge"]["IPAddress"]
    assert room.get("srv").attrs["State"]["Pid"] == before
    assert is_settled(room)


@pytest.mark.parametrize("edit", BY_HAND)
def test_a_stopped_container_is_put_back_on_the_default_bridge_too(room: Box, edit: str) -> None:
    stopped = PLAIN + "\toption state 'stopped'\n"
    verbs(room, stopped)
    assert is_settled(room)
    BY_HAND[edit](room)
    assert verbs(room) == ["reconnect"]
    assert is_settled(room)
    verbs(room, PLAIN)
    assert endpoints(room).keys() == {"bridge"}
    assert endpoints(room)["bridge"]["IPAddress"]


@pytest.mark.parametrize("mode", ["host", "none", "container:other"])
def test_a_network_mode_that_has_no_networks_is_left_alone(room: Box, mode: str) -> None:
    other = SRV.replace("'srv'", "'other'").replace("-p 80", "-p 81")
    assert verbs(room, NETWORKS + other + SRV + f"\toption network_mode '{mode}'\n")
    assert is_settled(room)


def again(**how: Any) -> Callable[[Box], None]:
    def edit(box: Box) -> None:
        network(box, "a").disconnect("srv")
        network(box, "a").connect("srv", **how)

    return edit


@pytest.mark.variants(2)
@pytest.mark.parametrize(
    "edit",
    [
        again(aliases=["db"]),
        again(ipv4_address="10.219.60.200"),
        again(aliases=["db", "www"], ipv4_address="10.219.60.201"),
        again(links=[("other", "nas")]),
    ],
    ids=["alias", "address", "both", "link"],
)
def test_what_was_added_to_an_endpoint_is_drift(room: Box, edit: Callable[[Box], None]) -> None:
    other = SRV.replace("'srv'", "'other'") + "\tlist network 'a'\n"
    verbs(room, BOTH + other)
    assert is_settled(room)
    kept = endpoints(room)["b"]
    edit(room)
    assert verbs(room) == ["reconnect"]
    seen = endpoints(room)["a"]
    assert not seen["IPAMConfig"]
    assert not seen["Links"]
    assert set(seen["Aliases"] or ()) <= {room.get("srv").id[:12]}
    assert endpoints(room)["b"] == kept
    assert is_settled(room)


def test_names_that_the_engine_adds_are_no_drift(room: Box) -> None:
    """The short id, also after a swap and a rename, beside an alias that is the container's own name."""
    text = NETWORKS + SRV + "\tlist network 'a,alias=srv'\n\tlist network 'b'\n"
    verbs(room, text)
    assert is_settled(room)
    verbs(room, text.replace("-p 80", "-p 81"))
    assert is_settled(room)
    verbs(room, text.replace("-p 80", "-p 81") + "\toption name 'other'\n")
    assert is_settled(room)


class Prober:
    """Asks a published port for as long as it is used; `lost` are the probes that had no answer."""

    def __init__(self) -> None:
        self.asked, self.lost, self._over = 0, 0, threading.Event()

    def _probe(self) -> None:
        while not self._over.is_set():
            self.asked += 1
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=1)
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except OSError:
                self.lost += 1
            finally:
                connection.close()
            time.sleep(0.01)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        thread = threading.Thread(target=self._probe)
        thread.start()
        try:
            yield
        finally:
            time.sleep(0.2)
            self._over.set()
            thread.join()


def interfaces(box: Box) -> dict[str, str]:
    """Interface -> its MAC address, in the container."""
    seen = box.get("srv").exec_run("ls /sys/class/net").output.decode().split()
    read = {
        name: box.get("srv").exec_run(f"cat /sys/class/net/{name}/address").output.decode() for name in seen
    }
    return {name: mac.strip() for name, mac in read.items() if name != "lo"}


CHANGES: dict[str, tuple[Callable[[Box], object] | None, str]] = {
    "another network lost": (lambda box: network(box, "b").disconnect("srv"), BOTH),
    "an extra network joined": (lambda box: network(box, "c").connect("srv"), BOTH),
    "an alias of another": (None, ON_A + "\tlist network 'b,alias=www'\n"),
    "a network more": (None, BOTH + "\tlist network 'c'\n"),
}


@pytest.mark.variants(1)
@pytest.mark.parametrize("change", CHANGES)
def test_a_reconnect_leaves_the_other_networks_their_interfaces_and_ports(room: Box, change: str) -> None:
    edit, after = CHANGES[change]
    port = f"\tlist port '{PORT}:80'\n"
    verbs(room, BOTH + port)
    before, kept = interfaces(room), endpoints(room)["a"]
    mine = next(name for name, mac in before.items() if mac == kept["MacAddress"])
    prober = Prober()
    with prober.watch():
        time.sleep(0.2)
        if edit is not None:
            edit(room)
        assert verbs(room, after + port) == ["reconnect"]
    assert endpoints(room)["a"] == kept
    assert interfaces(room)[mine] == before[mine]
    assert prober.asked > 10
    assert prober.lost == 0, f"{prober.lost} of {prober.asked} probes lost"
    assert is_settled(room)


def test_a_refused_reconnect_puts_back_only_what_it_touched(room: Box) -> None:
    verbs(room, BOTH)
    room.client.containers.run("busybox:test", "sleep 1000", name="stranger", detach=True)
    network(room, "b").connect("stranger", ipv4_address="10.219.61.77")
    kept = endpoints(room)["a"]
    (error,) = room.errors(ON_A + "\tlist network 'b,ip=10.219.61.77'\n")
    assert "already in use" in error
    assert endpoints(room)["a"] == kept
    assert endpoints(room)["b"]["IPAddress"]
    assert is_settled(room)


MACS = NETWORKS + SRV + f"\tlist network 'a,ip=10.219.60.77'\n\toption mac_address '{MAC.upper()}'\n"
MAC_EDITS: dict[str, tuple[Callable[[Box], object] | None, str]] = {
    "disconnected": (lambda box: network(box, "a").disconnect("srv"), MACS),
    "another address": (
        lambda box: (network(box, "a").disconnect("srv"), network(box, "a").connect("srv")),
        MACS,
    ),
    "an alias more": (None, MACS.replace("ip=10.219.60.77", "ip=10.219.60.77,alias=www")),
    "another subnet": (None, MACS.replace("10.219.60.0/24", "10.219.60.0/25")),
    "a network more": (None, MACS + "\tlist network 'b'\n"),
    "network removed": (
        lambda box: (network(box, "a").disconnect("srv"), network(box, "a").remove()),
        MACS,
    ),
}


@pytest.mark.variants(1)
@pytest.mark.parametrize("edit", MAC_EDITS)
def test_a_mac_address_outlives_whatever_reconnects(room: Box, edit: str) -> None:
    do, after = MAC_EDITS[edit]
    verbs(room, MACS)
    assert endpoints(room)["a"]["MacAddress"] == MAC
    assert is_settled(room)
    if do is not None:
        do(room)
    verbs(room, after)
    verbs(room)  # a network that was replaced is followed by its members
    assert endpoints(room)["a"]["MacAddress"] == MAC
    assert endpoints(room)["a"]["IPAddress"] == "10.219.60.77"
    assert is_settled(room)
    assert room.names() == ["srv"]
