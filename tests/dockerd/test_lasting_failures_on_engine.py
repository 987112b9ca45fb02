# SPDX-License-Identifier: GPL-2.0-or-later
"""What is proven is tried again until it works, and what stands in for a failed configuration stays the same engine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from agent.engine import process as daemon_process
from agent.files.config import load
from agent.runtime.requests.foresight import foreseen
from tests.support.daemon_lab import DaemonLab

FAILS = 5


def slow(lab: DaemonLab, starts: int) -> None:
    """dockerd fails that many starts, as with a containerd that is slow after a boot."""
    left = lab.root / "left"
    left.write_text("x" * starts)
    lab.before = [f"n=$(cat {left})", f'[ -z "$n" ] || {{ printf %s "${{n#x}}" >{left}; exit 3; }}']
    lab.write_wrapper()


def reboot(lab: DaemonLab) -> None:
    """dockerd and all that is in /var/run end, and so does the agent."""
    process = lab.process
    os.kill(process.pid, signal.SIGTERM)
    assert daemon_process.wait_end(process, 20)
    for file in (lab.root / "run").iterdir():
        file.unlink()
    lab.restart_agent()


def passes_until_up(lab: DaemonLab, limit: int) -> int:
    """Passes that it takes, back-off over each time."""
    for number in range(limit):
        lab.stage._watch.forget_backoff()
        if lab.apply():
            return number
    return limit


def test_a_proven_configuration_is_tried_until_it_works(lab: DaemonLab) -> None:
    assert lab.apply("option bip '10.216.9.1/24'\nlist registry_mirrors 'https://m.lan'\n")
    lab.settle()
    reboot(lab)
    slow(lab, FAILS)
    assert not lab.apply()
    assert lab.conditions()["Degraded"] == (True, "NotStarted")
    assert not lab.apply(), "back-off"
    assert passes_until_up(lab, FAILS + 2) == FAILS - 1
    assert (lab.document()["bip"], lab.document()["registry-mirrors"]) == (
        "10.216.9.1/24",
        ["https://m.lan/"],
    )
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert "RolledBack" not in lab.conditions()


def test_a_reconcile_tries_again_what_failed(lab: DaemonLab) -> None:
    assert lab.apply("")
    lab.settle()
    slow(lab, 1)
    assert lab.apply("option log_level 'info'\n")
    assert lab.conditions()["RolledBack"][0]
    desired = load(lab.options).desired
    assert desired is not None
    operations, (told,) = foreseen(lab.stage, desired)
    assert (operations, told.state) == ((), "rolled back"), "a plan says so"
    process = lab.process
    assert lab.apply()
    assert lab.process == process, "not tried again by itself"
    lab.stage.accept_engine()
    assert lab.apply()
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert lab.document()["log-level"] == "info"


def test_what_stands_in_for_a_failure_is_the_same_engine(lab: DaemonLab) -> None:
    assert lab.apply("option storage_driver 'vfs'\n")
    lab.settle()
    pid = lab.run_container()
    (lab.root / "state" / "daemon-last-good.json").unlink()
    assert lab.apply("option storage_driver 'vfs'\nlist log_opts 'nosuch=1'\n")
    assert lab.conditions()["RolledBack"][0]
    assert (lab.info()["Driver"], lab.pid_of()) == ("vfs", pid)
    assert "EngineChanged" not in lab.conditions()


def test_a_first_boot_with_a_driver_that_does_not_start_creates_nothing_on_another(lab: DaemonLab) -> None:
    assert not lab.apply("option storage_driver 'zfs'\n")
    assert lab.conditions()["Running"] == (True, "Running")
    assert lab.conditions()["RolledBack"][0]
    assert lab.conditions()["EngineChanged"] == (True, "Fallback")
    assert lab.apply("option storage_driver 'vfs'\n")
    assert "EngineChanged" not in lab.conditions()


def test_another_storage_driver_is_another_engine(lab: DaemonLab) -> None:
    assert lab.apply("option storage_driver 'vfs'\n")
    lab.settle()
    assert not lab.apply("option storage_driver 'overlay2'\n")
    assert lab.conditions()["EngineChanged"] == (True, "Store")
    assert "kept by vfs, now by overlay2" in lab.message("EngineChanged")
    lab.stage.accept_engine()
    assert lab.apply()
    assert "EngineChanged" not in lab.conditions()


def test_a_driver_that_this_dockerd_no_longer_has_is_told_and_not_tried(any_lab: DaemonLab) -> None:
    from agent.dockerd.unmanaged import version_of

    if version_of(str(any_lab.program)) < (25, 0):
        pytest.skip("it still has devicemapper")
    assert not any_lab.apply("option storage_driver 'devicemapper'\n")
    assert any_lab.conditions()["Running"] == (True, "Running")
    assert "removed the storage driver devicemapper" in any_lab.message("Synced")
    assert "RolledBack" not in any_lab.conditions()


def test_a_bip_over_a_network_of_the_router_is_not_applied(lab: DaemonLab) -> None:
    """docker0 with an address of the LAN cuts the router off."""
    from agent.model.addresses import Route

    lan: list[Route] = [Route(device="br-lan", subnet="10.216.4.0/24", direct=True)]
    lab.tools = {"routes": lambda: tuple(lan)}
    lab.restart_agent()
    assert lab.apply("option bip '10.216.4.129/25'\noption debug '1'\n")
    assert "bip" not in lab.document()
    assert lab.info()["Debug"]
    assert lab.conditions()["Synced"] == (False, "LeftOut")
    assert (
        "10.216.4.128/25 overlaps 10.216.4.0/24, which the router itself reaches through br-lan"
        in lab.message("Synced")
    )
    lan.clear()
    assert lab.apply()
    assert lab.document()["bip"] == "10.216.4.129/25"
    assert lab.conditions()["Synced"] == (True, "Applied")


def test_the_file_system_of_data_root_is_looked_at(lab: DaemonLab) -> None:
    lab.tools = {"file_system": lambda root: "exfat"}
    lab.restart_agent()
    assert not lab.apply("")
    assert lab.conditions()["StorageUnsuitable"] == (True, "FileSystem")
    assert "ext4" in lab.message("StorageUnsuitable")
    lab.tools = {}
    lab.restart_agent()
    assert lab.apply()
    assert "StorageUnsuitable" not in lab.conditions()


FINE = "option bip '10.216.9.1/24'\nlist registry_mirrors 'https://m.lan'\n"
WRONG = {
    "a storage option of another driver": (
        "option storage_driver 'overlay2'\nlist storage_opts 'size=10G'",  # else 29 does not look at it
        ("storage-opts",),
    ),
    "a driver for another file system": ("option storage_driver 'btrfs'", ("storage-driver",)),
    "an unknown log option": ("list log_opts 'nosuch=1'", ("log-opts",)),
    "a user that does not exist": ("option userns_remap 'nosuchuser:nosuchgroup'", ("userns-remap",)),
    "two of them": (
        "list log_opts 'nosuch=1'\noption userns_remap 'nosuchuser:nosuchgroup'",
        ("log-opts", "userns-remap"),
    ),
}


@pytest.mark.long
def test_a_cgroup_driver_of_systemd_is_left_out_where_there_is_none(any_lab: DaemonLab) -> None:
    """dockerd would start, and no container."""
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here")
    assert any_lab.apply("list exec_opts 'native.cgroupdriver=systemd'\noption debug '1'\n")
    assert "exec-opts" not in any_lab.document() and any_lab.document()["debug"] is True
    assert "needs systemd, which does not run here" in any_lab.message("Synced")
    any_lab.run_container("one")


@pytest.mark.long
def test_a_profile_on_a_disk_that_is_not_there_yet_costs_no_start_of_dockerd(
    any_lab: DaemonLab, tmp_path: Path
) -> None:
    lab, profile = any_lab, tmp_path / "disk" / "profile.json"
    lines = f"option seccomp_profile '{profile}'\noption debug '1'\n"
    assert lab.apply(lines)
    assert lab.document()["debug"] is True and "seccomp-profile" not in lab.document()
    assert "it is applied once the file is there" in lab.message("Synced")
    assert not any("did not start" in str(c) for c in lab.conditions().values())
    profile.parent.mkdir()
    profile.write_text("not JSON")
    assert lab.apply()
    assert "no container could start" in lab.message("Synced")
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert lab.apply()
    assert lab.document()["seccomp-profile"] == str(profile)
    assert lab.conditions()["Synced"] == (True, "Applied")
    lab.settle()
    before = lab.process
    profile.unlink()
    assert lab.apply()
    assert lab.process == before, "it has read the file already"
    os.kill(before.pid, signal.SIGKILL)
    assert daemon_process.wait_end(before, 20)
    passes_until_up(lab, 3)
    assert "seccomp-profile" not in lab.document()


@pytest.mark.long
@pytest.mark.parametrize(
    ("lines", "key", "left"),
    [
        ("list log_opts 'nosuch=1'\nlist log_opts 'max-size=2m'", "log-opts", {"max-size": "2m"}),
        (
            (
                "option log_driver 'gelf'\nlist log_opts 'gelf-address=udp://127.0.0.1:12201'\n"
                "list log_opts 'gelf-compression-type=nosuch'\nlist log_opts 'tag=x'"
            ),
            "log-opts",
            {"gelf-address": "udp://127.0.0.1:12201", "tag": "x"},
        ),
        (
            "list insecure_registries 'r.lan:5000'\nlist insecure_registries 'a_b.lan:5000'",
            "insecure-registries",
            ["r.lan:5000"],
        ),
    ],
)
def test_what_only_a_start_shows_to_be_wrong_costs_that_entry(
    any_lab: DaemonLab, lines: str, key: str, left: object
) -> None:
    any_lab.apply(FINE + lines + "\n")
    any_lab.apply()
    assert any_lab.probe.answers()
    assert (any_lab.document()[key], any_lab.document()["bip"]) == (left, "10.216.9.1/24")
    assert any_lab.conditions()["Synced"] == (False, "LeftOut")
    assert "is not applied: dockerd did" in any_lab.message("Synced")


@pytest.mark.variants(1)
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_what_only_a_start_shows_to_be_wrong_costs_that_option(
    lab: DaemonLab, name: str, later: bool
) -> None:
    lines, keys = WRONG[name]
    if later:
        assert lab.apply("option debug '1'\n")
        lab.settle()
    lab.apply(FINE + lines + "\n")
    for _ in keys:  # from 23.0 on dockerd says some without a start, one at a time
        lab.apply()
    before = lab.process
    lab.apply()
    assert lab.probe.answers()
    assert (lab.document()["bip"], lab.document()["registry-mirrors"]) == (
        "10.216.9.1/24",
        ["https://m.lan/"],
    )
    assert not set(keys) & lab.document().keys()
    assert lab.conditions()["Synced"] == (False, "LeftOut")
    for key in keys:
        assert f"{key.replace('-', '_')} is not applied: dockerd " in lab.message("Synced")
    assert "RolledBack" not in lab.conditions()
    lab.restart_agent()
    lab.apply()
    assert lab.process == before, "one more restart"
