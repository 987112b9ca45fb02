# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes whose new files do not fit on Docker's disk: a real engine on a disk that is really full."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from agent.unix_http import UnixConnection
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd
from tests.support.loop_disk import LoopDisk

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

MIB = 1024**2
TEXT = """
config volume 'data'

config backup 'nightly'
	list volume 'data'
	option target 'TARGET'

config container 'db'
	option image 'IMAGE'
	list volume 'data:/data'
	option command 'sleep 600'
	option network_mode 'none'
	option stop_timeout '0'
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent whose engine has a disk of 128 MiB for its data."""
    disk = LoopDisk(tmp_path / "image", tmp_path / "disk", size_mib=128)
    disk.plug()
    engine = PrivateDockerd(subnet=7)
    engine.data = disk.target / "data"
    (tmp_path / "backup").mkdir()
    try:
        engine.start()
        engine.import_busybox()
        client = docker.DockerClient(base_url=engine.host, version="auto")
        made = Agent(Box.make(tmp_path, engine, client))
        try:
            made.commit(TEXT.replace("TARGET", str(tmp_path / "backup")))
            made.start()
            wait_for(lambda: running(made.box, "db"))
            yield made
        finally:
            made.close()
            client.close()
    finally:
        engine.close()
        disk.pull()


def put(agent: Agent, query: str, body: bytes, *, chunked: bool) -> tuple[int, dict[str, str]]:
    connection = UnixConnection(str(agent.box.options.socket), 60)
    content = iter([body[i : i + MIB] for i in range(0, len(body), MIB)]) if chunked else body
    connection.request("PUT", f"/v1/volumes/{query}", body=content, encode_chunked=chunked)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())["error"]


def archive(size: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, data in (("first", b"new"), ("big", os.urandom(size))):
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("chunked", [False, True], ids=["length-known", "length-unknown"])
def test_files_that_do_not_fit_are_said_with_the_volume_and_change_nothing(
    agent: Agent, *, chunked: bool
) -> None:
    box = agent.box

    disk = box.config.parent / "disk"

    def free() -> int:
        return os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize

    assert box.get("db").exec_run(["sh", "-c", "echo old >/data/first"])[0] == 0
    before, archived = free(), archive(160 * MIB)
    for query in ("data/archive?replace=1", "other/archive?create=1"):
        status, error = put(agent, query, archived, chunked=chunked)
        assert (status, error["code"]) == (507, "no-space")
        assert f"no room for the files of volume {query.partition('/')[0]}" in error["message"]
        assert ("are missing" in error["message"]) is not chunked
        assert "prune --images unused" in error["message"]
    assert box.get("db").exec_run(["cat", "/data/first"])[1] == b"old\n"
    assert [volume.name for volume in box.client.volumes.list()] == ["data"]
    assert abs(free() - before) < 2 * MIB
    # over the files that are there: what fitted stays
    status, error = put(agent, "data/archive", archived, chunked=chunked)
    assert (status, error["code"]) == (507, "no-space")
    assert "volume data: it was full after about" in error["message"]
    # on the full disk no copy can begin
    with contextlib.suppress(OSError), (disk / "fill").open("wb", buffering=0) as fill:
        while True:
            fill.write(bytes(512))
    done = agent.command("backup", "nightly")
    assert done.returncode == 1
    assert "too full to read volume data" in " ".join((done.stdout + done.stderr).split())
    (disk / "fill").unlink()
    (disk / "data/volumes/data/_data/big").unlink()
    assert agent.command("backup", "nightly").returncode == 0


def test_a_restore_that_does_not_fit_says_what_is_missing(agent: Agent) -> None:
    box = agent.box
    fill = "head -c {} /dev/urandom >/data/{}"
    assert box.get("db").exec_run(["sh", "-c", fill.format(50 * MIB, "saved")])[0] == 0
    assert agent.command("backup", "nightly").returncode == 0
    assert box.get("db").exec_run(["sh", "-c", fill.format(30 * MIB, "later")])[0] == 0
    done = agent.command("restore", "nightly")
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert "no room for the files of volume data: the archive has" in said
    assert "are missing" in said
    assert box.get("db").exec_run(["ls", "/data"])[1] == b"later\nsaved\n"


def test_an_unfinished_archive_takes_no_room_from_the_next_backup(agent: Agent) -> None:
    folder = agent.box.config.parent / "disk"
    agent.commit(TEXT.replace("TARGET", str(folder)))
    # left by an agent that was killed in the middle of a backup
    left = folder / ".nightly-data-20260101T000000Z.tar.partial"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    left.write_bytes(bytes(free - 16 * MIB))
    wait_for(lambda: agent.command("backup", "nightly").returncode == 0, 20)
    assert not left.exists()
