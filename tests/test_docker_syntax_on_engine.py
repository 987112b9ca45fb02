# SPDX-License-Identifier: GPL-2.0-or-later
"""What docker's command line does before it asks the engine, we do as well; what no engine takes is tried once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.box import Box

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.2'
"""


def with_lines(*lines: str) -> str:
    return WEB + "".join(f"\t{line}\n" for line in lines)


def test_a_range_of_host_ports_takes_one_that_is_free(box: Box) -> None:
    other = WEB.replace("'web'", "'other'")
    assert (
        box.errors(with_lines("list port '21900-21901:80'") + other + "\tlist port '21900-21901:80'\n") == []
    )
    found = {
        box.get(name).attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"] for name in ("web", "other")
    }
    assert found == {"21900", "21901"}
    assert str(box.apply()[0]) == "nothing to do"


def test_masked_paths_user_signal_and_modes(box: Box) -> None:
    lines = (
        "list security_opt 'systempaths=unconfined'",
        "list security_opt 'no-new-privileges'",
        "option user ':100'",
        "option stop_signal 'sigterm'",
        "list volume '/tmp:/x:cached'",
    )
    assert box.errors(with_lines(*lines)) == []
    body = box.get("web").attrs
    assert (body["HostConfig"]["MaskedPaths"], body["HostConfig"]["ReadonlyPaths"]) == ([], [])
    assert box.get("web").exec_run("id -g").output.strip() == b"100"
    assert str(box.apply()[0]) == "nothing to do"


def test_a_seccomp_profile_takes_effect(box: Box, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(profile, indent=2))
    line = f"list security_opt 'seccomp={file}'"
    assert box.errors(with_lines(line)) == []
    web = box.get("web")
    assert web.exec_run("/bin/busybox mkdir /x").exit_code == 1
    file.write_text(json.dumps(profile))
    assert str(box.apply()[0]) == "nothing to do"
    file.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    assert "security_opt" in str(box.apply()[0])
    assert box.get("web").exec_run("/bin/busybox mkdir /x").exit_code == 0
    file.unlink()
    kept = box.get("web").id
    assert str(box.apply()[0]) == "nothing to do"
    assert box.get("web").id == kept


def test_a_mac_address_with_dashes(box: Box) -> None:
    lan = "config network 'lan'\n\tlist subnet '10.219.7.0/24'\n"
    text = lan + with_lines("list network 'lan'", "option mac_address '02-42-0A-DB-07-07'")
    assert box.errors(text) == []
    assert box.get("web").attrs["NetworkSettings"]["Networks"]["lan"]["MacAddress"] == "02:42:0a:db:07:07"
    assert str(box.apply()[0]) == "nothing to do"
    # without a network it is for the default bridge, as for `docker run`
    assert box.errors(with_lines("option mac_address '02:42:0a:db:07:08'")) == []
    assert box.get("web").attrs["NetworkSettings"]["Networks"]["bridge"]["MacAddress"] == "02:42:0a:db:07:08"
    assert str(box.apply()[0]) == "nothing to do"


@pytest.mark.variants(2)
@pytest.mark.parametrize(
    "line",
    [
        # the engine itself looks for such a plugin for 15 s
        pytest.param("option log_driver 'nosuch'", marks=pytest.mark.long),
        "list log_opt 'nosuch=1'",
        "option runtime 'nosuch'",
        "list security_opt 'seccomp={}x'",
        "list device 'vendor.com/gpu=all'",
    ],
)
def test_what_the_engine_can_never_take_is_tried_once(box: Box, line: str) -> None:
    box.apply(WEB)
    started = box.get("web").attrs["State"]["StartedAt"]
    assert len(box.errors(with_lines(line))) == 1
    for _ in range(2):
        box.later(4000)
        assert str(box.apply()[0]) == "nothing to do"
    assert box.reconciler.records.records()[0].failed_hash
    if "device" not in line and "seccomp" not in line:  # those are found out by a start
        assert box.get("web").attrs["State"]["StartedAt"] == started
    assert str(box.apply(WEB)[0]) == "nothing to do"


LANS = """
config network 'lan'
	list subnet '10.219.7.0/24'

config network 'back'
	list subnet '10.219.8.0/24'
"""


def of_network(box: Box, name: str) -> dict[str, Any]:
    found: dict[str, Any] = box.get("web").attrs["NetworkSettings"]["Networks"][name]
    return found


def test_settings_of_networks_reach_the_engine_and_change_in_place(box: Box) -> None:
    lines = (
        "list network 'lan,link_local=169.254.7.9,driver-opt=com.example.a=b'",
        "list network 'back,ip=10.219.8.9'",
    )
    assert box.errors(LANS + with_lines(*lines)) == []
    kept = box.get("web").id
    assert of_network(box, "lan")["IPAMConfig"] == {"LinkLocalIPs": ["169.254.7.9"]}
    assert of_network(box, "lan")["DriverOpts"] == {"com.example.a": "b"}
    assert str(box.apply()[0]) == "nothing to do"
    assert box.errors(LANS + with_lines("list network 'lan,driver_opt=com.example.a=c'", lines[1])) == []
    assert of_network(box, "lan")["DriverOpts"] == {"com.example.a": "c"}
    assert not (of_network(box, "lan")["IPAMConfig"] or {}).get("LinkLocalIPs")
    assert box.get("web").id == kept
    box.client.api.disconnect_container_from_network("web", "lan")
    box.client.api.connect_container_to_network("web", "lan")  # without the option
    assert "reconnect" in str(box.apply()[0])
    assert of_network(box, "lan")["DriverOpts"] == {"com.example.a": "c"}


def test_what_takes_a_newer_engine_is_set_or_said_before_anything_is_touched(box: Box) -> None:
    first = "list network 'lan'"
    assert box.errors(LANS + with_lines(first)) == []
    kept = box.get("web").id
    lines = (f"{first[:-1]},gw_priority=-1'", "list network 'back,gw_priority=7,mac=02-42-0A-DB-08-08'")
    plan, outcomes = box.apply(LANS + with_lines(*lines))
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    if box.reconciler.engine.api_version() < (1, 48):
        (found,) = (finding for finding in plan.findings if finding.reason == "EngineTooOld")
        assert "gw_priority needs Docker 28.0 (API 1.48)" in found.message
        assert (box.get("web").id, box.get("web").status) == (kept, "running")
    else:
        assert of_network(box, "back")["GwPriority"] == 7
        assert of_network(box, "back")["MacAddress"] == "02:42:0a:db:08:08"
    assert box.apply()[1] == ()


def test_cpu_time_changes_in_place(box: Box) -> None:
    assert box.errors(with_lines("option cpu_quota '20000'", "option cpuset_mems '0'")) == []
    kept = box.get("web").id
    lines = ("option cpu_quota '30000'", "option cpu_period '50000'", "option cpuset_mems '0'")
    assert box.errors(with_lines(*lines)) == []
    host = box.get("web").attrs["HostConfig"]
    assert (host["CpuQuota"], host["CpuPeriod"], box.get("web").id) == (30000, 50000, kept)
    box.client.api.update_container("web", cpu_quota=40000)
    assert "cpu_quota 40000 -> 30000" in str(box.apply()[0])
    assert box.get("web").attrs["HostConfig"]["CpuQuota"] == 30000
    assert str(box.apply()[0]) == "nothing to do"


def test_volumes_of_another_container_are_those_of_its_new_one(box: Box) -> None:
    lender = WEB.replace("'web'", "'lender'")
    web = with_lines("list volumes_from 'lender:ro'")
    assert box.errors(web + lender + "\tlist volume 'one:/lent'\n") == []
    assert str(box.apply()[0]) == "nothing to do"
    assert box.errors(web + lender + "\tlist volume 'two:/lent'\n") == []
    (mount,) = box.get("web").attrs["Mounts"]
    assert (mount["Name"], mount["RW"]) == ("two", False)
    assert str(box.apply()[0]) == "nothing to do"


def test_a_check_as_a_list_is_run_without_a_shell_and_port_0_is_any(box: Box) -> None:
    lines = (
        "list health_cmd 'true'",
        "list health_cmd 'a b'",
        "list port '0:80/TCP'",
        "option stop_signal 'int'",
    )
    assert box.errors(with_lines(*lines)) == []
    body = box.get("web").attrs
    assert body["Config"]["Healthcheck"]["Test"] == ["CMD", "true", "a b"]
    assert body["Config"]["StopSignal"] in {"INT", "SIGINT"}
    assert int(body["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]) > 0
    assert str(box.apply()[0]) == "nothing to do"


def test_an_image_for_another_platform_is_not_taken_for_the_wanted_one(box: Box) -> None:
    mine = with_lines("option platform 'linux/amd64'", "option pull 'never'")
    assert box.errors(mine) == []
    kept = box.get("web").id
    (error,) = box.errors(mine.replace("linux/amd64", "linux/s390x"))
    assert "for linux/s390x is not there" in error
    assert (box.get("web").id, box.get("web").status) == (kept, "running")
