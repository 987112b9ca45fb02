# SPDX-License-Identifier: GPL-2.0-or-later
"""`ttyd_start`. Debian has no ttyd: a program of that name notes how it was started, and stays as ttyd does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.api.ubus import docker as ubus_ttyd
from agent.api.ubus.docker import Ttyd

_NOTES = """#!/bin/sh
printf '%s\\n' "$@" >"$0.$$.args"
case "$*" in *refuse*) exit 1 ;; esac
exec sleep 60
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ttyd", "docker"):
        made = tmp_path / name
        made.write_text(_NOTES)
        made.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
async def ttyd(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ttyd]:
    monkeypatch.setattr(ubus_ttyd, "_START_S", 0.2)
    made = Ttyd(("-H", "unix:///var/run/docker.sock"))
    yield made
    await made.close()


def started(programs: Path) -> list[list[str]]:
    return sorted(path.read_text().splitlines() for path in programs.glob("ttyd.*.args"))


async def test_it_listens_on_the_loopback_device_for_one_container(programs: Path, ttyd: Ttyd) -> None:
    got = await ttyd.start({"id": "web", "cmd": "sh -c 'echo $HOME; id'", "port": 7700, "uid": "www:www"})
    assert got == {"status": "ttyd started"}
    listen = ["-q", "--once", "--writable", "-i", "lo", "-p", "7700"]
    run = [
        str(programs / "docker"),
        "-H",
        "unix:///var/run/docker.sock",
        "exec",
        "-it",
        "--user=www:www",
        "web",
    ]
    assert started(programs) == [[*listen, *run, "sh", "-c", "echo $HOME; id"]]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({}, "Invalid container ID"),
        ({"id": "-rm"}, "Invalid container ID"),
        ({"id": "a;reboot"}, "Invalid container ID"),
        ({"id": "web", "port": 0}, "Invalid port number"),
        ({"id": "web", "port": 65536}, "Invalid port number"),
        ({"id": "web", "uid": "-x"}, "Invalid user"),
        ({"id": "web", "uid": "a b"}, "Invalid user"),
        ({"id": "web", "cmd": "'"}, "Invalid command: No closing quotation"),
        ({"id": "web", "cmd": "  "}, "Invalid command"),
    ],
)
async def test_what_it_does_not_take_starts_nothing(
    programs: Path, ttyd: Ttyd, args: dict[str, str | int], error: str
) -> None:
    assert await ttyd.start(args) == {"error": error}
    assert started(programs) == []


async def test_one_that_does_not_start_is_told(programs: Path, ttyd: Ttyd) -> None:
    got = await ttyd.start({"id": "web", "cmd": "refuse"})
    assert got is not None
    assert "is the port in use?" in got["error"]


async def test_a_second_one_replaces_that_of_its_container_and_no_other(programs: Path, ttyd: Ttyd) -> None:
    foreign = await asyncio.create_subprocess_exec(str(programs / "ttyd"), "somebody's")
    for container in ("web", "db", "web"):
        assert await ttyd.start({"id": container}) == {"status": "ttyd started"}
    assert foreign.returncode is None
    await ttyd.close()
    assert foreign.returncode is None
    foreign.terminate()
    await foreign.wait()


async def test_where_ttyd_is_not_installed_it_says_so(ttyd: Ttyd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert await ttyd.start({"id": "web"}) == {"error": "ttyd is not installed"}
