# SPDX-License-Identifier: GPL-2.0-or-later
"""Configurations that are wrong, or that the engine refuses: nothing that runs is lost, and the error says why."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.plan import operations as ops
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.4'
	option restart 'always'
"""
LAN = """
config network 'lan'
	list subnet '10.219.8.0/24'
"""
ON_LAN = WEB + "\tlist network 'lan,ip=10.219.8.9'\n"
OTHER = WEB.replace("'web'", "'other'")


def conditions(box: Box, key: str) -> dict[str, tuple[bool, str, str]]:
    """Type -> status, reason, message."""
    resources = {r["key"]: r for r in box.reconciler.board.snapshot()["resources"]}
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in resources[key]["conditions"]}


def identity(box: Box, name: str = "web") -> tuple[str, str, str]:
    """Changes when a container was replaced or restarted."""
    web = box.get(name)
    return str(web.id), web.status, web.attrs["State"]["StartedAt"]


def damaged(text: str) -> Iterator[str]:
    for k in range(len(text)):
        yield text[:k]
        yield text[:k] + "'" + text[k + 1 :]
        yield text[:k] + "\x00" + text[k + 1 :]


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_a_file_damaged_at_any_byte_deletes_nothing_and_never_brings_the_agent_down(
    box: Box, step: int
) -> None:
    text = LAN + ON_LAN + "\tlist env 'A=1'\n" + OTHER + "\nconfig volume 'data'\n"
    box.apply(text)
    before = identity(box), identity(box, "other")
    for broken in list(damaged(text))[::step]:
        box.write(broken)
        box.reconciler.read_config()
        plan = box.reconciler.make_plan(deep=frozenset())
        removed = (ops.RemoveContainer, ops.RemoveNetwork, ops.RemoveVolume, ops.Forget)
        assert not [o for o in plan.operations if isinstance(o, removed)], broken
        if box.reconciler.last.desired is None:
            assert box.reconciler.board.snapshot()["agent"]["config"] == "Invalid"
    assert str(box.apply(text)[0]) == "nothing to do"
    assert (identity(box), identity(box, "other")) == before


WRONG = {
    "a type": ("option memory 'much'", "memory"),
    "a boolean": ("option read_only 'perhaps'", "read_only"),
    "a port": ("list port '80:notaport'", "port"),
    "a static address": ("list network 'lan,ip=10.0.0.999'", "network"),
    "a relative bind": ("list volume './data:/data'", "volume"),
    "a restart policy": ("option restart 'sometimes'", "restart"),
    "itself as dependency": ("list depends_on 'c6'", "depends_on"),
    "an unknown dependency": ("list depends_on 'nobody'", "depends_on"),
}


def test_wrong_sections_are_refused_by_name_and_the_others_go_on(box: Box) -> None:
    names = [f"c{n}" for n in range(len(WRONG))]
    box.apply("".join(WEB.replace("'web'", f"'{name}'") for name in names))
    before = [identity(box, name) for name in names]
    wrong = WEB.replace("sleep 1000", "sleep 2000").replace("\toption restart 'always'\n", "")
    pairs = zip(names, WRONG.values(), strict=True)
    box.apply(
        "".join(wrong.replace("'web'", f"'{name}'") + f"\t{line}\n" for name, (line, _) in pairs) + OTHER
    )
    assert [identity(box, name) for name in names] == before
    assert box.get("other").status == "running"
    for name, (_, where) in zip(names, WRONG.values(), strict=True):
        status, reason, message = conditions(box, f"container:{name}")["Accepted"]
        assert (status, reason) == (False, "Invalid")
        assert f"containers.{name}.{where}" in message
        assert "expected" in message


def test_a_cycle_of_dependencies_is_refused_on_all_its_members_and_the_rest_goes_on(box: Box) -> None:
    a = WEB.replace("'web'", "'a'") + "\tlist depends_on 'b'\n"
    b = WEB.replace("'web'", "'b'") + "\tlist depends_on 'a'\n"
    box.apply(a + b + OTHER)
    assert box.names() == ["other"]
    assert [conditions(box, f"container:{x}")["Accepted"][1] for x in "ab"] == ["Invalid", "Invalid"]


def test_two_sections_of_one_name_are_refused_both_and_what_runs_stays(box: Box) -> None:
    box.apply(WEB)
    before = identity(box)
    box.apply(WEB.replace("1000", "2000") + OTHER + "\toption name 'web'\n")
    assert identity(box) == before
    assert box.names() == ["web"]
    assert [conditions(box, f"container:{x}")["Accepted"][1] for x in ("web", "other")] == [
        "Invalid",
        "Invalid",
    ]


def taken_address(box: Box) -> Callable[[], object]:
    squatter = box.client.containers.create(BUSYBOX, ["sleep", "1000"], name="squatter")
    box.client.networks.get("lan").connect(squatter, ipv4_address="10.219.8.77")
    squatter.start()
    return lambda: squatter.remove(force=True)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("", marks=pytest.mark.long, id="reconnected"),
        pytest.param("\tlist env 'A=1'\n", id="swapped"),
    ],
)
def test_an_address_in_use_leaves_the_container_as_it_was(box: Box, more: str) -> None:
    box.apply(LAN + ON_LAN + OTHER)
    before, free = identity(box), taken_address(box)
    changed = LAN + ON_LAN.replace("8.9", "8.77") + more + OTHER
    (error,) = box.errors(changed)
    assert "ddress" in error
    box.reconciler.backoff.clear()
    assert str(box.apply(changed)[0]) == "nothing to do"  # not tried again, which would cut it off each time
    web = box.get("web")
    assert (web.id, web.status) == before[:2]
    assert web.attrs["NetworkSettings"]["Networks"]["lan"]["IPAddress"] == "10.219.8.9"
    assert conditions(box, "container:web")["Synced"][1] in {"RolledBack", "Failed"}
    free()
    box.reconciler.forget_failures()
    assert box.errors(changed) == []
    assert box.get("web").attrs["NetworkSettings"]["Networks"]["lan"]["IPAddress"] == "10.219.8.77"


def test_a_network_that_cannot_be_changed_comes_back_with_its_members(box: Box) -> None:
    box.apply(LAN + ON_LAN)
    before = identity(box)
    changed = LAN + "\tlist opt 'com.docker.network.bridge.inhibit_ipv4=perhaps'\n" + ON_LAN
    (error,) = box.errors(changed)
    assert "perhaps" in error
    box.reconciler.backoff.clear()
    box.apply(changed)
    assert identity(box) == before
    assert box.get("web").attrs["NetworkSettings"]["Networks"]["lan"]["IPAddress"] == "10.219.8.9"
    assert conditions(box, "network:lan")["Synced"][1] in {"RolledBack", "Failed"}
    box.apply(LAN + ON_LAN)
    assert box.apply()[0].works == ()
    assert "Degraded" not in conditions(box, "network:lan")


OVERLAPS = {
    "another network": " of the network foreign",
    "the router's own": ", which the router itself reaches through overlapped0",
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_a_subnet_that_is_taken_leaves_the_network_and_its_members_and_says_whose_it_is(
    box: Box, name: str
) -> None:
    if name == "another network":
        box.client.networks.create("foreign", ipam=pool("10.219.9.0/24"))
    else:
        _device("overlapped0", "10.219.9.1/24")
    try:
        box.apply(LAN + ON_LAN)
        before, network = identity(box), box.client.networks.get("lan").id
        changed = LAN.replace("8.0/24", "0.0/20") + ON_LAN.replace("8.9", "9.9")
        assert box.errors(changed) == []
        assert box.errors(changed) == []
        assert (identity(box), box.client.networks.get("lan").id) == (before, network)
        message = f"subnet 10.219.0.0/20 overlaps 10.219.9.0/24{OVERLAPS[name]}"
        assert conditions(box, "network:lan")["Synced"] == (False, "SubnetOverlaps", message)
        box.get("web").kill()
        assert box.errors(changed) == []
        assert box.get("web").status == "running"  # as it was
    finally:
        subprocess.run(["ip", "link", "del", "overlapped0"], check=False, capture_output=True)
    if name == "another network":
        box.client.networks.get("foreign").remove()
    assert box.errors(changed) == []
    assert box.get("web").attrs["NetworkSettings"]["Networks"]["lan"]["IPAddress"] == "10.219.9.9"
    assert str(box.apply()[0]) == "nothing to do"


def _device(name: str, address: str) -> None:
    for words in (
        ("link", "add", name, "type", "bridge"),
        ("addr", "add", address, "dev", name),
        ("link", "set", name, "up"),
    ):
        subprocess.run(["ip", *words], check=True)


def pool(subnet: str) -> Any:
    from docker.types import IPAMConfig, IPAMPool

    return IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)])


def test_a_removed_network_that_its_container_still_wants_is_refused_with_the_reason(box: Box) -> None:
    box.apply(LAN + ON_LAN)
    before = identity(box)
    box.apply(ON_LAN)
    assert identity(box) == before
    assert box.client.networks.list(names=["lan"])


def test_a_rolled_back_container_is_kept_running_under_its_name(box: Box) -> None:
    box.apply(WEB)
    bad = WEB.replace("sleep 1000", "false")
    assert box.errors(bad)
    box.get("web").stop(timeout=0)
    box.get("web").rename("elsewhere")
    box.reconciler.backoff.clear()
    assert sorted(op.verb for op in box.apply(bad)[0].operations) == ["rename", "start"]
    assert (box.get("web").status, box.get("web").attrs["Config"]["Cmd"]) == ("running", ["sleep", "1000"])


def test_what_was_rolled_back_is_said_until_the_section_changes_and_tried_again_on_request(box: Box) -> None:
    box.apply(WEB)
    bad = WEB.replace("sleep 1000", "false")
    (error,) = box.errors(bad)
    box.reconciler.backoff.clear()
    box.apply(bad)
    assert conditions(box, "container:web")["Degraded"] == (True, "RolledBack", error)
    box.restart_agent()
    box.apply(bad)
    assert conditions(box, "container:web")["Synced"][:2] == (False, "RolledBack")
    box.reconciler.forget_failures()
    assert [op.verb for op in box.apply(bad)[0].operations] == ["replace"]
    box.apply(WEB)
    assert "Degraded" not in conditions(box, "container:web")
    assert conditions(box, "container:web")["Synced"][:2] == (True, "InSync")


def test_an_old_container_that_cannot_start_again_does_not_hold_up_the_others(box: Box) -> None:
    """Its port was taken while the new one was tried."""
    text = WEB + "\tlist port '127.0.0.1:18561:80'\n"
    box.apply(text)
    start = box.reconciler.engine.start

    def squat(ref: str) -> None:
        if not [c for c in box.names() if c == "squatter"]:
            box.client.containers.run(
                BUSYBOX,
                ["sleep", "1000"],
                name="squatter",
                detach=True,
                ports={"80/tcp": ("127.0.0.1", 18561)},
            )
        start(ref)

    box.reconciler.engine.start = squat  # type: ignore[method-assign]
    assert box.errors(text.replace("1000", "2000"))
    box.reconciler.engine.start = start  # type: ignore[method-assign]
    box.reconciler.backoff.clear()
    errors = box.errors(text.replace("1000", "2000") + OTHER)
    assert box.get("other").status == "running"
    assert any("port is already allocated" in error for error in errors)
    box.get("squatter").remove(force=True)
    box.reconciler.backoff.clear()
    box.apply()
    assert box.get("web").attrs["Config"]["Cmd"] == ["sleep", "1000"]
    assert box.get("web").status == "running"


def test_what_needs_a_failed_resource_waits_and_the_others_do_not(box: Box) -> None:
    box.reconciler.monotonic = lambda: 0.0  # a slow machine must not let the back-off run out
    refused = LAN + "\tlist opt 'com.docker.network.bridge.inhibit_ipv4=perhaps'\n"
    config = refused + ON_LAN + OTHER + WEB.replace("'web'", "'last'") + "\tlist depends_on 'web'\n"
    errors = box.errors(config)
    assert [error.split()[2].rstrip(",") for error in errors if error.endswith(", which failed")] == [
        "network:lan",
        "container:web",
    ]
    assert box.names() == ["other"]
    box.apply(config)
    assert conditions(box, "container:web")["Waiting"] == (
        True,
        "Waiting",
        "network lan could not be created",
    )
    assert box.errors(config.replace(refused, LAN)) == []
    assert box.names() == ["last", "other", "web"]


SECRET = "S3CRET-9f3a"
LEAKS = {
    "an environment value": f"list env 'TOKEN={SECRET}'",
    "an environment entry without a name": f"list env '={SECRET}'",
    "an env entry with a NUL": f"list env 'A B={SECRET}'",
    "a log option": f"option log_driver 'syslog'\n\tlist log_opt 'syslog-token={SECRET}'",
}


@pytest.mark.parametrize("line", LEAKS.values(), ids=LEAKS.keys())
def test_a_secret_is_in_no_error_plan_status_or_log(
    box: Box, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("docker").setLevel(logging.INFO)
    box.apply(WEB)
    login = f"config auth\n\toption serveraddress '127.0.0.1:1'\n\toption token '{SECRET}'\n"
    bad = f"{WEB}\t{line}\n\n{login}"
    plan, outcomes = box.apply(bad + OTHER)
    texts = [str(plan), str([str(o.error) for o in outcomes]), caplog.text]
    texts += [str(box.reconciler.board.snapshot()), str([i.text() for i in box.reconciler.last.issues])]
    for text in texts:
        assert SECRET not in text


def test_a_broken_file_with_a_secret_is_reported_without_it(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    box.apply(WEB)
    box.apply(WEB + f"\tlist env 'TOKEN={SECRET}\n")
    assert SECRET not in str(box.reconciler.board.snapshot()) + caplog.text
    box.apply(f"config auth\n\toption password '{SECRET}' 'x'\n" + WEB)
    assert SECRET not in str(box.reconciler.board.snapshot()) + caplog.text


def test_a_secret_that_the_engine_echoes_is_blotted_out(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    (error,) = box.errors(WEB + f"\toption user '{SECRET}'\n\tlist env 'TOKEN={SECRET}'\n")
    assert "unable to find user ***" in error
    assert SECRET not in str(box.reconciler.board.snapshot()) + caplog.text


def test_one_that_is_healthy_by_turns_does_not_pass_the_gate_and_is_not_tried_again(box: Box) -> None:
    box.apply(WEB)
    before = identity(box)
    by_turns = "[ -e /tmp/x ] && rm /tmp/x && exit 1; touch /tmp/x"
    check = (
        f"\toption health_cmd '{by_turns}'\n\toption health_interval '200ms'\n\toption health_retries '1'\n"
    )
    changed = WEB.replace("gate '0.4'", "gate '60'") + check
    (error,) = box.errors(changed)
    assert "unhealthy" in error
    assert box.errors(changed) == []
    assert (box.get("web").id, box.get("web").status, box.names()) == (*before[:2], ["web"])
    box.reconciler.backoff.clear()
    assert box.errors(changed) == []
    assert conditions(box, "container:web")["Synced"][1] == "RolledBack"
