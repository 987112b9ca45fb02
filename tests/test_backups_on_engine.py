# SPDX-License-Identifier: GPL-2.0-or-later
"""`config backup` sections on a real engine: archives into a folder and a command, and back."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box

TEXT = """
config volume 'data'

config container 'db'
	option image 'IMAGE'
	list volume 'data:/data'
	option command 'sh -c "echo row >>/data/rows; exec sleep 600"'
	option stop_timeout '0'
	option network_mode 'none'

config backup 'nightly'
	list section 'db'
	option target 'TARGET'
	option keep '2'
	option stop '1'

config backup 'away'
	list volume 'data'
	option exec 'cat >"TARGET/$UCIDOCKD_VOLUME.out"; echo said; exit $(cat TARGET/code)'
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "backup"
    made.mkdir()
    (made / "code").write_text("0")
    return made


@pytest.fixture
def agent(box: Box, target: Path) -> Iterator[Agent]:
    made = Agent(box)
    made.commit(TEXT.replace("TARGET", str(target)))
    made.start()
    try:
        wait_for(lambda: running(box, "db"))
        yield made
    finally:
        made.close()


def rows(box: Box) -> str:
    return str(box.get("db").exec_run(["cat", "/data/rows"])[1].decode())


def write(box: Box, text: str) -> None:
    assert box.get("db").exec_run(["sh", "-c", f"echo {text} >/data/rows"])[0] == 0


def test_a_backup_is_made_verified_and_brought_back(agent: Agent, box: Box, target: Path) -> None:
    write(box, "precious")
    # links of all kinds come back, also those that lead out of the volume
    files = Path(box.client.volumes.get("data").attrs["Mountpoint"])
    (files / "out").symlink_to("../../etc/passwd")
    (files / "same").hardlink_to(files / "rows")
    done = agent.command("backup", "nightly")
    assert done.returncode == 0, done.stderr
    (archive,) = target.glob("nightly-data-*.tar")
    assert str(archive) in done.stdout
    subprocess.run(["sha256sum", "-c", f"{archive.name}.sha256"], cwd=target, check=True, capture_output=True)
    with tarfile.open(archive) as tar:
        assert "./rows" in tar.getnames()
    wait_for(lambda: running(box, "db"))
    write(box, "spoilt")
    restored = agent.command("restore", "nightly")
    assert restored.returncode == 0, restored.stderr
    wait_for(lambda: running(box, "db"))
    assert rows(box) == "precious\nrow\n"
    assert (files / "out").readlink() == Path("../../etc/passwd")
    assert (files / "same").samefile(files / "rows")

    whole = archive.read_bytes()
    archive.write_bytes(whole[:600] + b"x" + whole[601:])
    damaged = agent.command("restore", "nightly")
    assert damaged.returncode == 1
    assert "nothing is changed" in damaged.stderr
    assert "sha256" in damaged.stderr
    assert running(box, "db")
    assert rows(box) == "precious\nrow\n"


@pytest.mark.long
def test_so_many_are_kept_and_what_fails_is_told(agent: Agent, box: Box, target: Path) -> None:
    for _ in range(3):
        assert agent.command("backup", "nightly").returncode == 0
        wait_for(lambda: running(box, "db"))
    assert len([*target.glob("nightly-data-*.tar")]) == 2
    assert len([*target.glob("nightly-data-*.sha256")]) == 2
    listed = json.loads(agent.command("backup", "--list", "--json", "nightly").stdout)
    assert [(each["name"], len(each["archives"])) for each in listed] == [("nightly", 2)]

    target.rename(target.with_name("unplugged"))
    failed = agent.command("backup", "nightly")
    assert failed.returncode == 1
    assert "is its disk mounted?" in failed.stderr
    assert not target.exists()
    listed = agent.command("backup", "--list")
    assert listed.returncode == 0
    assert "is its disk mounted?" in listed.stdout
    assert "away" in listed.stdout
    status = agent.status()["resources"]
    found = next(r for r in status if r["key"] == "backup:nightly")["conditions"]
    assert [(c["type"], c["status"], c["reason"]) for c in found] == [("BackupFailed", True, "Failed")]
    target.with_name("unplugged").rename(target)
    assert agent.command("backup", "nightly").returncode == 0
    wait_for(lambda: not [r for r in agent.status()["resources"] if r["key"] == "backup:nightly"])


@pytest.mark.long
def test_a_command_gets_the_archive_and_its_failure_is_told(agent: Agent, box: Box, target: Path) -> None:
    done = agent.command("backup", "away")
    assert done.returncode == 0, done.stderr
    with tarfile.open(target / "data.out") as tar:
        assert "./rows" in tar.getnames()
    (target / "code").write_text("3")
    failed = agent.command("backup", "away")
    assert failed.returncode == 1
    assert "the command ended with 3: said" in failed.stderr
    write(box, "spoilt")
    words = ("restore", "away", "--from", str(target / "data.out"), "--into", "copy")
    assert agent.command(*words).returncode == 0
    assert agent.command("volume", "ls", "copy").stdout.count("rows") == 1
    assert agent.command(*words).returncode == 1, "it is there already"
    box.client.volumes.get("copy").remove()
