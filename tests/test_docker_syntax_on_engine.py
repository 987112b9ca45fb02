# SPDX-License-Identifier: GPL-2.0-or-later
"""What docker's command line does before it asks the engine, we do as well; what no engine takes is tried once."""

from __future__ import annotations

import json
from pathlib import Path

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


@pytest.mark.variants(2)
@pytest.mark.parametrize(
    "line",
    [
        "option log_driver 'nosuch'",
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
