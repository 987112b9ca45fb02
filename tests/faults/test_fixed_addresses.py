# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixed addresses on a network whose pool does not keep them free: who has one is moved, or named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd
from tests.support.versions import VERSIONS, a_box, an_engine

LAN = """
config network 'a'
	list subnet '10.219.81.0/24'
	list subnet 'fd00:81::/64'
	option ipv6 '1'
"""


def box(section: str, *lines: str) -> str:
    common = ("image 'IMAGE'", "command 'sleep 1000'", "stop_timeout '0'", "gate '0.2'", "restart 'always'")
    text = f"\nconfig container '{section}'\n" + "".join(f"\toption {line}\n" for line in common)
    return text + "".join(f"\t{line}\n" for line in lines)


DYNAMIC = box("a1", "list network 'a'") + box("a2", "list network 'a,alias=two'")


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Any:
    with an_engine(request.param) as dockerd:
        yield dockerd


@pytest.fixture
def room(version: PrivateDockerd, tmp_path: Path) -> Any:
    with a_box(version, tmp_path) as made:
        yield made


def endpoint(box: Box, name: str) -> dict[str, Any]:
    return dict(box.get(name).attrs["NetworkSettings"]["Networks"]["a"])


def address(box: Box, name: str) -> str:
    return str(endpoint(box, name)["IPAddress"])


def settle(box: Box, text: str | None = None) -> None:
    for _ in range(4):
        plan, outcomes = box.apply(text)
        assert [str(o.error) for o in outcomes if o.error] == []
        if not plan.works:
            return
    raise AssertionError(f"still to do: {plan}")


def test_at_a_first_apply_the_fixed_one_has_its_address(room: Box) -> None:
    settle(
        room,
        LAN
        + DYNAMIC
        + box("z2", "list network 'a,ip=10.219.81.3'")
        + box("z3", "list network 'a,ip=10.219.81.2'"),
    )
    assert (address(room, "z2"), address(room, "z3")) == ("10.219.81.3", "10.219.81.2")


@pytest.mark.variants(1)
@pytest.mark.parametrize("how", ["new", "edited", "swapped"])
def test_one_of_ours_moves_out_of_the_way(room: Box, how: str) -> None:
    plain = box("pin", "list network 'a'")
    settle(room, LAN + DYNAMIC + ("" if how == "new" else plain))
    taken, pid = address(room, "a2"), room.get("a2").attrs["State"]["Pid"]
    pin = plain.replace("'a'", f"'a,ip={taken}'")
    settle(room, LAN + DYNAMIC + (pin.replace("sleep 1000", "sleep 2000") if how == "swapped" else pin))
    assert address(room, "pin") == taken
    assert address(room, "a2") not in ("", taken)
    assert "two" in endpoint(room, "a2")["Aliases"]
    assert room.get("a2").attrs["State"]["Pid"] == pid


def test_so_it_is_with_addresses_of_version_6(room: Box) -> None:
    settle(room, LAN + DYNAMIC)
    taken = str(endpoint(room, "a2")["GlobalIPv6Address"])
    settle(room, LAN + DYNAMIC + box("pin", f"list network 'a,ip6={taken}'"))
    assert endpoint(room, "pin")["GlobalIPv6Address"] == taken


def test_one_that_depends_on_the_one_in_the_way_gets_it_too(room: Box) -> None:
    pin = box("pin", "list network 'a,ip=10.219.81.2'", "list depends_on 'a1'")
    settle(room, LAN + DYNAMIC + pin)
    assert address(room, "pin") == "10.219.81.2"
    assert {room.get(name).status for name in ("a1", "a2", "pin")} == {"running"}


def test_after_a_restart_of_the_engine_it_has_its_address(
    version: PrivateDockerd, room: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        LAN
        + DYNAMIC
        + box("z2", "list network 'a,ip=10.219.81.3'")
        + box("z1", "list network 'a,ip=10.219.81.2'")
    )
    settle(room, text)
    version.stop()
    version.start()
    settle(room)
    assert (address(room, "z2"), address(room, "z1")) == ("10.219.81.3", "10.219.81.2")
    assert {room.get(name).status for name in ("a1", "a2", "z1", "z2")} == {"running"}


def test_after_a_replaced_network_too(room: Box) -> None:
    text = (
        DYNAMIC + box("z2", "list network 'a,ip=10.219.81.3'") + box("z1", "list network 'a,ip=10.219.81.2'")
    )
    settle(room, LAN + text)
    settle(room, LAN + "\tlist label 'a=b'\n" + text)
    assert (address(room, "z2"), address(room, "z1")) == ("10.219.81.3", "10.219.81.2")


@pytest.mark.variants(1)
@pytest.mark.parametrize("how", ["start", "reconnect", "swap"])
def test_a_foreign_container_that_has_it_is_named_and_left_alone(room: Box, how: str) -> None:
    plain = box("pin", "list network 'a'")
    settle(room, LAN + ("" if how == "start" else plain))
    stranger = room.client.containers.run(
        "busybox:test", "sleep 1000", name="stranger", network="a", detach=True
    )
    taken = address(room, "stranger")
    pin = plain.replace("'a'", f"'a,ip={taken}'")
    (error,) = room.errors(LAN + (pin.replace("sleep 1000", "sleep 2000") if how == "swap" else pin))
    assert f"{taken} of network a is used by the container stranger" in error
    assert address(room, "stranger") == taken
    if how != "start":
        assert room.get("pin").status == "running"
    stranger.remove(force=True)


def test_the_gateway_and_reserved_addresses_are_named(room: Box) -> None:
    reserved = LAN + "\tlist aux_address 'nas=10.219.81.5'\n"
    (error,) = room.errors(reserved + box("pin", "list network 'a,ip=10.219.81.5'"))
    assert "aux_address nas" in error
