# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether an engine's data is what the containers were made for."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from agent.dockerd import target
from agent.dockerd.files import DaemonFiles, EngineData
from agent.dockerd.health import MARK, EngineRecognition
from agent.dockerd.status import DaemonStatus
from agent.model.dockerd.settings import DaemonSettings, Json
from agent.status.board import StatusBoard
from tests.support.dockerd import is_root
from tests.support.hanging import HangingMount


class House:
    """A home over directories; `disk` says whether they count as mounts."""

    def __init__(self, folder: Path) -> None:
        self.disk = True
        self.root = folder / "docker"
        self.root.mkdir()
        self.files = DaemonFiles(run_dir=folder / "run", state_dir=folder / "state")
        status = DaemonStatus(board=StatusBoard(time.time))
        status.begin(())
        self.home = EngineRecognition(self.files, status, on_disk=lambda _: self.disk)

    def other(self, *, accepted: bool = False) -> str:
        return self.home.why_another(str(self.root), accepted=accepted)

    def swap_disk(self) -> None:
        shutil.rmtree(self.root)
        self.root.mkdir()


def test_the_first_engine_is_taken_and_its_disk_marked(tmp_path: Path) -> None:
    house = House(tmp_path)
    assert house.other() == ""
    assert (house.root / MARK).read_text().strip() == house.files.engine().mark
    assert house.other() == ""


def test_an_emptied_disk_is_another_one_until_that_was_said_to_be_right(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.other()
    house.swap_disk()
    assert "another disk" in house.other()
    assert "another disk" in house.other()
    assert not (house.root / MARK).exists()
    assert house.other(accepted=True) == ""
    assert house.other() == ""


def test_a_disk_of_an_older_agent_is_marked_and_not_doubted(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.files.write_engine(EngineData(data_root=str(house.root)))
    assert house.other() == ""
    assert house.files.engine().mark


def test_data_on_the_flash_is_not_marked_so_that_a_sysupgrade_may_empty_it(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.disk = False
    assert house.other() == ""
    house.swap_disk()
    assert house.other() == ""
    assert list(house.root.iterdir()) == []


def test_a_disk_that_takes_no_mark_is_marked_later(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.root.rmdir()
    assert house.other() == ""
    assert house.files.engine() == EngineData(data_root=str(house.root))
    house.root.mkdir()
    assert house.other() == ""
    assert house.files.engine().mark


def test_another_data_root_is_another_engine(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.other()
    (tmp_path / "elsewhere").mkdir()
    assert "data_root was" in house.home.why_another(str(tmp_path / "elsewhere"), accepted=False)


@pytest.mark.parametrize(
    ("remap", "ranges", "adds", "mode", "said"),
    [
        ("root", {"root"}, True, 0o711, ""),
        ("0:0", {"0"}, True, 0o711, ""),
        ("root", set(), True, 0o711, "/etc/subuid has no range for root: add the line"),
        ("root", {"root"}, True, 0o700, "chmod o+x"),
        ("default", set(), False, 0o711, "no useradd or adduser"),
        ("default", set(), True, 0o711, ""),  # dockerd adds both
        ("nosuchuser", set(), False, 0o711, ""),  # dockerd says so itself
    ],
)
def test_ids_that_cannot_be_mapped_are_named_before_dockerd_is_disturbed(
    monkeypatch: pytest.MonkeyPatch,
    remap: str,
    ranges: set[str],
    adds: bool,  # whether users can be added
    mode: int,
    said: str,
) -> None:
    monkeypatch.setattr(target, "with_ranges", lambda _: ranges)
    monkeypatch.setattr(target, "_REMAPPED", "nosuchdockremap")
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/adduser" if adds else None)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(mode)
        why = target.not_mappable(remap, f"{folder}/docker")
    assert said in why and bool(said) is bool(why)


def test_ranges_of_ids_are_read_as_subuid_has_them(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    assert target.with_ranges(file) == set()
    file.write_text("dockremap:100000:65536\n1000:200000:65536\n\n# one:2\n")
    assert target.with_ranges(file) == {"dockremap", "1000"}


@pytest.mark.parametrize(
    ("values", "left_out"),
    [
        ({"data-root": "{file}"}, {"data-root": "a file, not a folder"}),
        ({"data-root": "{file}/docker"}, {"data-root": "a file, not a folder"}),
        ({"data-root": "{folder}/new/docker"}, {}),
        ({"log-driver": "journald", "log-opts": {"tag": "x"}}, {"log-driver": "journald", "log-opts": "journald"}),
        ({"log-driver": "syslog"}, {"log-driver": "syslog-address"}),
        ({"log-driver": "syslog", "log-opts": {"syslog-address": "udp://192.168.1.5:514"}}, {}),
        ({"log-driver": "loki:latest"}, {"log-driver": "docker plugin install"}),
        ({"log-driver": "here:latest"}, {}),
        ({"log-driver": "local"}, {}),
    ],
)  # fmt: skip
def test_what_no_container_would_start_with_here_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], left_out: dict[str, str]
) -> None:
    (tmp_path / "file").write_text("")
    plugin = tmp_path / "data/plugins" / ("a" * 64)
    plugin.mkdir(parents=True)
    (plugin / "config.json").write_text('{"plugin":{"Config":{},"Name":"here:latest","Enabled":true}}')
    for name, value in (("_JOURNAL", tmp_path / "no"), ("_SYSLOGS", ()), ("_OLD_PLUGINS", ())):
        monkeypatch.setattr(target, name, value)
    places = {"folder": tmp_path, "file": tmp_path / "file"}
    given = {key: value.format(**places) if key == "data-root" else value for key, value in values.items()}
    found = target.not_here(DaemonSettings(values=given), str(tmp_path / "data"), {})
    assert found.keys() == left_out.keys()
    assert all(word in found[key] for key, word in left_out.items())
    assert target.not_here(DaemonSettings(values=given), str(tmp_path / "data"), given).keys() <= {
        "data-root"
    }


@pytest.mark.parametrize("limit", [-1, 10**15, 1024])
def test_a_limit_above_the_kernels_own_is_left_out(limit: int) -> None:
    limits: dict[str, Json] = {
        name: {"Name": name, "Soft": limit, "Hard": limit} for name in ("nofile", "nproc")
    }
    settings, left_out = target.possible(DaemonSettings(values={"default-ulimits": limits}))
    possible = limit == 1024
    assert [option for option, _ in left_out] == ([] if possible else ["default_ulimits"])
    kept = settings.values["default-ulimits"]
    assert isinstance(kept, dict)
    assert kept.keys() == ({"nofile", "nproc"} if possible else {"nproc"})


def test_data_that_does_not_answer_holds_nothing_up(tmp_path: Path) -> None:
    if not is_root():
        pytest.skip("needs root")
    with HangingMount(tmp_path / "nas") as mount:
        assert target.prior_drivers(f"{mount.path}/docker") == ()
        assert target.not_here(DaemonSettings(values={"data-root": f"{mount.path}/docker"}), "", {}) == {}
