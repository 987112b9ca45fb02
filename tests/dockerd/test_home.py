# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether an engine's data is what the containers were made for."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pytest

from agent.dockerd import target
from agent.dockerd.files import DaemonFiles, EngineData
from agent.dockerd.identity import MARK, EngineHome
from agent.dockerd.status import DaemonStatus
from agent.status.board import StatusBoard


class House:
    """A home over directories; `disk` says whether they count as mounts."""

    def __init__(self, folder: Path) -> None:
        self.disk = True
        self.root = folder / "docker"
        self.root.mkdir()
        self.files = DaemonFiles(run_dir=folder / "run", state_dir=folder / "state")
        status = DaemonStatus(board=StatusBoard(time.time))
        status.begin(())
        self.home = EngineHome(self.files, status, on_disk=lambda _: self.disk)

    def other(self, *, accepted: bool = False) -> str:
        return self.home.other(str(self.root), accepted=accepted)

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
    assert "data_root was" in house.home.other(str(tmp_path / "elsewhere"), accepted=False)


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
