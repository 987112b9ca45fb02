# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks and volumes on a real engine: every option by `inspect`, replacement, adoption, what foreigners use."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.box import Box

Inspect = dict[str, Any]
Row = tuple[str, Callable[[Inspect], Any], Any]
SCHEMAS = Path(__file__).parents[1] / "schemas"

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.2'
	list network 'lan,ip=10.219.5.9,alias=www'
"""
LAN = """
config network 'lan'
	list subnet '10.219.5.0/24'
"""


def _pool(key: str) -> Callable[[Inspect], Any]:
    return lambda body: body["IPAM"]["Config"][0].get(key)


def _opt(key: str) -> Callable[[Inspect], Any]:
    return lambda body: body["Options"].get(key)


V4 = "list subnet '10.219.5.0/24'\n\t"
NETWORK_ROWS: dict[str, Row] = {
    "name": ("option name 'other'", lambda body: body["Name"], "other"),
    "driver": ("option driver 'bridge'", lambda body: body["Driver"], "bridge"),
    "internal": ("option internal '1'", lambda body: body["Internal"], True),
    "attachable": ("option attachable '1'", lambda body: body["Attachable"], True),
    "ipv6": (
        V4 + "list subnet 'fd00:7::/64'\n\toption ipv6 '1'",
        lambda body: (body["EnableIPv6"], body["IPAM"]["Config"][1]["Subnet"]),
        (True, "fd00:7::/64"),
    ),
    "subnet": (V4, _pool("Subnet"), "10.219.5.0/24"),
    "gateway": (V4 + "list gateway '10.219.5.7'", _pool("Gateway"), "10.219.5.7"),
    "ip_range": (V4 + "list ip_range '10.219.5.128/25'", _pool("IPRange"), "10.219.5.128/25"),
    "aux_address": (
        V4 + "list aux_address 'nas=10.219.5.5'",
        _pool("AuxiliaryAddresses"),
        {"nas": "10.219.5.5"},
    ),
    "opt": (
        "list opt 'com.docker.network.bridge.enable_icc=false'",
        _opt("com.docker.network.bridge.enable_icc"),
        "false",
    ),
    "label": ("list label 'a=b'", lambda body: body["Labels"]["a"], "b"),
    "parent": ("option driver 'macvlan'\n\toption parent 'ucidt1'", _opt("parent"), "ucidt1"),
    "mode": (
        "option driver 'macvlan'\n\toption parent 'ucidt1'\n\toption mode 'vepa'",
        _opt("macvlan_mode"),
        "vepa",
    ),
    "zone": ("option zone 'guest'", _opt("com.docker.network.bridge.name"), "br-net"),
}
VOLUME_ROWS: dict[str, Row] = {
    "name": ("option name 'other'", lambda body: body["Name"], "other"),
    "driver": ("option driver 'local'", lambda body: body["Driver"], "local"),
    "opt": (
        "list opt 'type=tmpfs'\n\tlist opt 'device=tmpfs'",
        lambda body: body["Options"]["type"],
        "tmpfs",
    ),
    "label": ("list label 'a=b'", lambda body: body["Labels"]["a"], "b"),
}
ELSEWHERE = {"adopt", "external"}  # no settings of the engine: tested below


def _options(schema: str) -> set[str]:
    return set(json.loads((SCHEMAS / schema).read_text())["properties"])


def test_every_option_has_a_row() -> None:
    assert set(NETWORK_ROWS) == _options("network.schema.json") - ELSEWHERE
    assert set(VOLUME_ROWS) == _options("volume.schema.json") - ELSEWHERE


@pytest.mark.parametrize("option", NETWORK_ROWS)
def test_a_network_option_reaches_the_engine(box: Box, option: str) -> None:
    text, look, expected = NETWORK_ROWS[option]
    assert box.errors(f"config network 'net'\n\t{text}\n") == []
    name = "other" if option == "name" else "net"
    assert look(box.client.api.inspect_network(name)) == expected
    assert box.apply()[0].works == ()


@pytest.mark.parametrize("option", VOLUME_ROWS)
def test_a_volume_option_reaches_the_engine(box: Box, option: str) -> None:
    text, look, expected = VOLUME_ROWS[option]
    assert box.errors(f"config volume 'vol'\n\t{text}\n") == []
    assert look(box.client.api.inspect_volume("other" if option == "name" else "vol")) == expected
    assert box.apply()[0].works == ()


def _address(box: Box) -> dict[str, Any]:
    return dict(box.get("web").attrs["NetworkSettings"]["Networks"]["lan"])


def test_a_changed_network_is_replaced_and_its_members_keep_their_process(box: Box) -> None:
    box.apply(LAN + WEB)
    before = box.get("web").attrs["State"]["Pid"]
    assert box.errors(LAN + "\tlist label 'a=b'\n" + WEB) == []
    assert box.client.api.inspect_network("lan")["Labels"]["a"] == "b"
    assert box.get("web").attrs["State"]["Pid"] == before
    assert _address(box)["IPAddress"] == "10.219.5.9"
    assert "www" in _address(box)["Aliases"]
    assert box.apply()[0].works == ()


def test_a_stopped_member_starts_on_the_replaced_network(box: Box) -> None:
    stopped = WEB + "\toption state 'stopped'\n"
    box.apply(LAN + stopped)
    assert box.errors(LAN + "\tlist label 'a=b'\n" + stopped) == []
    assert box.errors(LAN + "\tlist label 'a=b'\n" + WEB) == []
    assert _address(box)["IPAddress"] == "10.219.5.9"


def test_a_network_that_foreigners_use_is_not_replaced_and_says_who(box: Box) -> None:
    box.apply(LAN)
    stranger = box.client.containers.run(
        "busybox:test", "sleep 1000", name="stranger", network="lan", detach=True
    )
    (error,) = box.errors(LAN + "\tlist label 'a=b'\n")
    assert "stranger" in error
    stranger.reload()
    assert "lan" in stranger.attrs["NetworkSettings"]["Networks"]
    stranger.remove(force=True)


def test_a_removed_network_section_in_use_by_foreigners_stays(box: Box) -> None:
    box.apply(LAN)
    stranger = box.client.containers.run(
        "busybox:test", "sleep 1000", name="stranger", network="lan", detach=True
    )
    box.apply("")
    box.later(200)
    (error,) = box.errors("")
    assert "has active endpoints" in error
    stranger.remove(force=True)
    box.reconciler.backoff.clear()
    assert box.errors("") == []
    assert box.client.networks.list(names=["lan"]) == []


def test_a_network_removed_behind_our_back_comes_back_with_its_members(box: Box) -> None:
    box.apply(LAN + WEB)
    box.client.networks.get("lan").disconnect("web", force=True)
    box.client.networks.get("lan").remove()
    box.apply()
    assert _address(box)["IPAddress"] == "10.219.5.9"
    assert box.apply()[0].works == ()


def test_a_network_removed_under_a_stopped_container_comes_back(box: Box) -> None:
    box.apply(LAN + WEB)
    box.get("web").stop(timeout=0)
    box.client.networks.get("lan").remove()
    outcomes = box.apply()[1]
    assert [str(o.error) for o in outcomes if o.error] == []
    assert _address(box)["IPAddress"] == "10.219.5.9"
    assert box.get("web").status == "running"


def test_a_foreign_network_is_a_conflict_that_holds_its_users_until_adopted(box: Box) -> None:
    foreign = box.client.networks.create(
        "lan", ipam=None, options={"com.docker.network.bridge.name": "br-lan"}, driver="bridge"
    )
    plan, _ = box.apply(LAN + WEB)
    assert plan.works == ()
    reasons = {
        finding.key: finding.reason for finding in plan.findings if finding.type in {"Synced", "Waiting"}
    }
    assert reasons == {"network:lan": "Conflict", "container:web": "Waiting"}
    # another subnet than declared: taken over, then replaced as any changed network of ours
    assert box.errors(LAN + "\toption adopt '1'\n" + WEB) == []
    assert box.client.networks.get("lan").id != foreign.id
    assert _address(box)["IPAddress"] == "10.219.5.9"
    assert box.apply()[0].works == ()


def test_an_adopted_network_that_is_as_declared_stays(box: Box) -> None:
    foreign = box.client.networks.create("lan", options={"com.docker.network.bridge.name": "br-lan"})
    text = "config network 'lan'\n\toption adopt '1'\n"
    assert box.errors(text) == []
    assert box.apply()[0].works == ()
    assert box.client.networks.get("lan").id == foreign.id


def test_an_adopted_volume_keeps_its_data(box: Box) -> None:
    volume = box.client.volumes.create("data")
    Path(volume.attrs["Mountpoint"], "precious").write_text("x")
    plan, _ = box.apply("config volume 'data'\n")
    assert [f.reason for f in plan.findings] == ["Conflict"]
    assert box.errors("config volume 'data'\n\toption adopt '1'\n") == []
    assert box.apply()[0].works == ()
    assert Path(volume.attrs["Mountpoint"], "precious").exists()


def test_a_volume_that_would_have_to_change_is_left_alone_and_said(box: Box) -> None:
    box.apply("config volume 'data'\n")
    plan, _ = box.apply("config volume 'data'\n\tlist label 'a=b'\n")
    assert plan.works == ()
    assert [f.reason for f in plan.findings] == ["VolumeDiffers"]


def test_volumes_outlive_their_section_unless_remove_is_set(box: Box) -> None:
    box.apply("config volume 'keep'\n")
    box.apply("")
    box.later(200)
    box.apply("")
    assert box.client.volumes.get("keep")
    assert box.reconciler.records.records() == ()
    box.apply("config volume 'gone'\n")
    box.apply("config agent 'agent'\n\toption remove '1'\n")
    box.later(200)
    box.apply("config agent 'agent'\n\toption remove '1'\n")
    assert [v.name for v in box.client.volumes.list()] == ["keep"]


def test_a_volume_whose_data_changes_stays_ours(box: Box) -> None:
    site = "\nconfig volume 'site'\n"
    box.apply(site)
    folder = Path(box.client.volumes.get("site").attrs["Mountpoint"])
    # engines up to 20.10 give the time of this as the volume's creation time
    os.utime(folder, (2_000_000_000, 2_000_000_000))
    (folder / "file").write_text("x")
    assert str(box.apply()[0]) == "nothing to do"
    assert "Conflict" not in json.dumps(box.reconciler.board.snapshot())


def test_a_volume_of_its_name_that_somebody_made_anew_is_foreign(box: Box) -> None:
    box.apply("\nconfig volume 'site'\n")
    box.client.volumes.get("site").remove()
    box.client.volumes.create("site")
    box.apply()
    assert "Conflict" in json.dumps(box.reconciler.board.snapshot())


def test_a_second_network_of_its_name_stops_and_changes_nothing_until_it_is_gone(box: Box) -> None:
    box.apply(LAN + WEB)
    web = box.get("web").id
    try:
        box.client.api.create_network("lan", check_duplicate=False)
    except docker.errors.APIError as exc:
        pytest.skip(f"this engine makes no two networks of one name: {exc.explanation}")
    changed = LAN + WEB.replace("sleep 1000", "sleep 2000")
    plan, outcomes = box.apply(changed)
    assert (plan.works, outcomes) == ((), ())
    assert (box.get("web").id, box.get("web").status) == (web, "running")
    (lan,) = (r for r in box.reconciler.board.snapshot()["resources"] if r["key"] == "network:lan")
    said = next(c for c in lan["conditions"] if c["type"] == "Synced")
    assert said["reason"] == "NameTaken"
    (other,) = (n for n in box.client.networks.list(names=["lan"]) if n.id != lan["object_id"])
    assert other.id[:12] in said["message"]
    other.remove()
    assert box.errors(changed) == []
    assert box.get("web").attrs["Config"]["Cmd"] == ["sleep", "2000"]
    assert str(box.apply()[0]) == "nothing to do"


def test_beside_a_second_network_of_its_name_a_lost_endpoint_comes_back_on_ours(box: Box) -> None:
    box.apply(LAN + WEB)
    web, ours = box.get("web").id, _address(box)["NetworkID"]
    try:
        other = box.client.api.create_network("lan", check_duplicate=False)["Id"]
    except docker.errors.APIError as exc:
        pytest.skip(f"this engine makes no two networks of one name: {exc.explanation}")
    box.client.networks.get(ours).disconnect("web")
    box.client.networks.get(other).connect("web")
    assert box.errors(LAN + WEB) == []
    assert (box.get("web").id, box.get("web").status) == (web, "running")
    assert (_address(box)["NetworkID"], _address(box)["IPAddress"]) == (ours, "10.219.5.9")
    assert "www" in _address(box)["Aliases"]
    assert box.apply()[0].works == ()


EXTERNAL = "\nconfig network 'lan'\n\toption name 'theirs'\n\toption external '1'\n"


def test_a_network_of_others_is_joined_never_changed_and_never_removed(box: Box) -> None:
    web = WEB.replace("IMAGE", "busybox:test")
    plan, _ = box.apply(EXTERNAL + web)
    (found,) = (f for f in plan.findings if f.key == "network:lan" and f.type == "Waiting")
    assert "docker network create theirs" in found.message
    assert box.names() == []
    pool = docker.types.IPAMPool(subnet="10.219.5.0/24")
    theirs = box.client.networks.create("theirs", ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    assert box.errors(EXTERNAL + web) == []
    assert box.get("web").attrs["NetworkSettings"]["Networks"]["theirs"]["IPAddress"] == "10.219.5.9"
    assert str(box.apply()[0]) == "nothing to do"
    box.later(600)
    assert box.errors("\n") == []
    box.later(600)
    assert box.errors("\n") == []
    assert [network.id for network in box.client.networks.list(names=["theirs"])] == [theirs.id]


def test_one_of_ours_that_becomes_external_is_let_go_of(box: Box) -> None:
    assert box.errors(LAN + WEB) == []
    mine = box.client.networks.list(names=["lan"])[0].id
    kept = box.get("web").id
    assert box.errors("\nconfig network 'lan'\n\toption external '1'\n" + WEB) == []
    assert str(box.apply()[0]) == "nothing to do"
    assert box.get("web").id == kept
    assert box.errors("\n") == []
    box.later(600)
    assert box.errors("\n") == []
    assert [network.id for network in box.client.networks.list(names=["lan"])] == [mine]
    assert box.names() == []


@pytest.mark.parametrize(
    ("driver", "parent", "named"), [("macvlan", "br-lan9", "br-lan9"), ("ipvlan", "eth9.10", "eth9")]
)
def test_a_parent_that_does_not_exist_is_told_with_those_that_do(
    box: Box, driver: str, parent: str, named: str
) -> None:
    text = f"config network 'lan'\n\toption driver '{driver}'\n\toption parent '{parent}'\n"
    (error,) = box.errors(text + "\tlist subnet '192.168.77.0/24'\n")
    assert error.startswith(f"the parent interface {named} does not exist on this machine (there are: ")
    assert error.endswith("): correct `option parent`")
    assert "ucidt1" in error  # the engine's own bridge
