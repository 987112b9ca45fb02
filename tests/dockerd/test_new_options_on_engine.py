# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that only a newer dockerd knows, or that make another engine of it, on an engine 29 with its own image store."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model.dockerd.table import LEFT_OUT, TABLE
from tests.dockerd.conftest import _make
from tests.support.daemon_lab import DaemonLab
from tests.support.debian import CannotFetchError
from tests.support.engines import programs

# every key of daemon.json that dockerd 29.6 takes: its flags by their names in the file, and what has no flag
KEYS: list[str] = json.loads((Path(__file__).parents[1] / "data" / "dockerd-29-keys.json").read_text())


@pytest.fixture
def new() -> Iterator[DaemonLab]:
    try:
        engine = programs("29")
    except CannotFetchError as exc:
        pytest.skip(f"no dockerd 29: {exc}")
    made = _make(engine)
    yield made
    made.close()


def test_every_key_of_dockerd_29_is_an_option_or_is_left_out_for_a_reason() -> None:
    offered = {row.key.rpartition(".")[2] for row in TABLE}
    assert set(KEYS) - offered - LEFT_OUT.keys() == set()
    assert offered & LEFT_OUT.keys() == set()
    assert LEFT_OUT.keys() - set(KEYS) == {"resolv-conf"}, "29 refuses it, although it reads one"
    assert all(LEFT_OUT.values())


@pytest.mark.long
def test_the_keys_are_those_of_the_engine(new: DaemonLab, tmp_path: Path) -> None:
    """dockerd names every key that it does not know; it is asked for all that we know of, and for wrong ones."""
    wrong = ["nosuch-key", "resolv-conf"]
    asked = tmp_path / "daemon.json"
    asked.write_text(json.dumps(dict.fromkeys([*KEYS, *wrong], "x")))
    said = subprocess.run(
        [f"{new.engine.partition(':')[0]}/dockerd", "--validate", f"--config-file={asked}"],
        capture_output=True,
        text=True,
        check=False,
    ).stderr
    unknown = said.partition("don't match any configuration option: ")[2].splitlines()[0]
    assert sorted(unknown.split(", ")) == sorted(wrong)


NEW = """
option log_format 'json'
option log_level 'info'
option firewall_backend 'nftables'
option ip_forward_no_drop '1'
option allow_direct_routing '1'
option bridge_accept_fwmark '0x1/0x3'
option ipv6 '1'
option bip6 'fd00:216::1/64'
list features 'cdi=false'
"""


@pytest.mark.long
def test_options_of_newer_engines_are_in_force(new: DaemonLab) -> None:
    for what in ("ipv4.ip_forward", "ipv6.conf.all.forwarding", "ipv6.conf.default.forwarding"):
        # with nftables dockerd leaves that to the system; OpenWrt has it on
        new.network.run("sysctl", "-w", f"net.{what}=1")
    assert new.apply(NEW)
    assert new.conditions()["Synced"] == (True, "Applied"), new.message("Synced")
    new.run_container("web", ports={"80/tcp": 8099})
    assert '"level":"info"' in (new.root / "run" / "dockerd.log").read_text()
    assert "fd00:216::1/64" in new.network.run("ip", "addr", "show", "docker0").stdout
    rules = new.network.run("nft", "list", "ruleset").stdout
    assert "table ip docker-bridges" in rules
    assert "8099" in rules
    assert "0x00000001" in rules, "the mark"
    assert new.document()["features"] == {"cdi": False}
    assert new.info()["FirewallBackend"]["Driver"].startswith("nftables")


@pytest.mark.long
@pytest.mark.parametrize(
    ("settings", "store"),
    [
        ("option storage_driver 'native'", "containerd's native"),
        ("option containerd_snapshotter '0'\noption storage_driver 'vfs'", "vfs"),
        ("option containerd_snapshotter '1'", "containerd's overlayfs"),
        ("", "containerd's overlayfs"),
    ],
)
def test_the_image_store_is_the_one_that_is_asked_for(new: DaemonLab, settings: str, store: str) -> None:
    assert new.apply(f"{settings}\n")
    assert new.conditions()["Synced"] == (True, "Applied"), new.message("Synced")
    assert new.probe.store() == store
    new.run_container()


@pytest.mark.long
def test_a_remapped_engine_is_another_one(new: DaemonLab) -> None:
    if "dockremap" not in Path("/etc/subuid").read_text():
        pytest.skip("/etc/subuid has no range for dockremap")
    new.apply("option userns_remap 'default'\n")
    assert new.conditions()["Synced"] == (False, "LeftOut")
    assert f"chmod o+x {new.root}" in new.message("Synced")
    assert new.conditions()["Running"] == (True, "Running")
    assert not any("did not start" in str(c) for c in new.conditions().values())
    new.root.chmod(0o711)
    new.stage.accept_engine()
    assert new.apply("")
    new.settle()
    assert not new.apply("option userns_remap 'default'\n")
    assert new.conditions()["EngineChanged"] == (True, "Store")


@pytest.mark.long
def test_on_an_overlay_nothing_is_tried_and_native_works(new: DaemonLab) -> None:
    """OpenWrt's root is an overlay, and the stock data_root is on it."""
    with overlay(new.root) as merged:
        root = f"option data_root '{merged}/docker'\n"
        assert not new.apply(root)
        assert new.conditions()["Running"] == (True, "Running")
        assert new.conditions()["StorageUnsuitable"] == (True, "FileSystem")
        text = new.message("StorageUnsuitable")
        assert "set storage_driver 'native'" in text
        assert "ext4" in text
        new.stop()
        assert not new.apply(f"{root}option storage_driver 'native'\n"), (
            "another store, which has to be accepted"
        )
        new.stage.accept_engine()
        assert new.apply()
        assert "StorageUnsuitable" not in new.conditions()
        new.run_container()
        new.client().api.remove_container("web", force=True)
        new.stop()


@pytest.mark.long
def test_an_option_that_only_dockerd_refuses_costs_that_option(new: DaemonLab) -> None:
    """On a first boot, and later: whether a user is there is nothing that the text of an option can say."""
    wrong = "option userns_remap 'nosuchuser'\n"
    for settings, level in ((wrong, "warn"), (f"{wrong}option log_level 'info'\n", "info")):
        new.apply(settings)
        new.apply()
        assert new.conditions()["Running"] == (True, "Running")
        assert new.conditions()["Synced"] == (False, "LeftOut")
        assert "userns_remap is not applied: dockerd refuses" in new.message("Synced")
        assert new.document()["log-level"] == level
        assert "RolledBack" not in new.conditions()
    assert new.apply("option log_level 'info'\n")
    assert new.conditions()["Synced"] == (True, "Applied")


@contextlib.contextmanager
def overlay(root: Path) -> Iterator[Path]:
    """A mounted overlay; its layers are on the lab's own file system."""
    lower, upper, work, merged = (root / name for name in ("lower", "upper", "work", "merged"))
    for folder in (lower, upper, work, merged):
        folder.mkdir()
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    if subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, merged], check=False).returncode:
        pytest.skip("no overlay can be mounted here")
    try:
        yield merged
    finally:
        subprocess.run(["umount", "-l", merged], check=False)
