# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes from this machine: values in UCI that are made to do harm, files and folders of others, records of another
version, and events and processes that the kernel does not give."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from agent.api.local_access import bind
from agent.dockerd.supervisor import ChildSupervisor
from agent.engine.client import DockerEngine
from agent.errors import AlreadyRunningError, ConfigError
from agent.files.watcher import FileWatcher
from agent.runtime import loop as loop_module
from agent.runtime.loop import Loop
from agent.runtime.main import locked
from tests.support.box import Box
from tests.support.dockerd import PrivateDockerd, is_root
from tests.support.fault_proxy import FaultProxy
from tests.support.state import state_of
from tests.support.unprivileged import said_unprivileged

ROOT = Path(__file__).parents[2]
WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
	option memory '64m'
"""


SHELLS = {"system", "popen", "create_subprocess_shell", "getoutput", "getstatusoutput"}


def test_no_shell_is_started_anywhere() -> None:
    found = []
    for path in sorted((ROOT / "agent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                found.append(f"{path.name}: shell=")
            if isinstance(node, ast.Attribute) and node.attr in SHELLS:
                found.append(f"{path.name}: {node.attr}")
    assert found == []


TOUCH = "touch /tmp/ucidockd-owned"
HOSTILE = {
    "an option for an image": ("image", "--privileged"),
    "a command in an image": ("image", f"busybox$({TOUCH})"),
    "a command in a name": ("name", f"$({TOUCH})"),
    "an option for a name": ("name", "-v"),
    "two commands in a host name": ("hostname", f"a;{TOUCH}"),
    "a line end in a label": ("label", "a=b\nc=d"),
    "a command in a variable": ("env", f"A=`{TOUCH}`"),
    "a variable in a port": ("port", "${HOME}:80"),
    "an option for a volume": ("volume", "--privileged:/x"),
    "a way out of a volume": ("volume", "../../etc:/x"),
    "an option for a user": ("user", "--privileged"),
    "a line end in a mac address": ("mac_address", "02:42:00:00:00:01\n--privileged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_value_is_a_value_and_never_an_argument(box: Box, name: str) -> None:
    """It is refused by name, by us or by the engine, or is there as it was written; the other container runs."""
    option, value = HOSTILE[name]
    image = "" if option == "image" else "\toption image 'IMAGE'\n"
    text = WEB.replace("'web'", "'other'") + WEB.replace("\toption image 'IMAGE'\n", image)
    Path("/tmp/ucidockd-owned").unlink(missing_ok=True)
    errors = box.errors(text + f"\toption {option} '{value}'\n")
    errors += [issue.text() for issue in box.reconciler.last.issues if issue.severity == "error"]
    assert box.get("other").status == "running"
    assert not Path("/tmp/ucidockd-owned").exists()
    if "web" in box.names():
        assert box.get("web").attrs["HostConfig"]["Privileged"] is False
        assert value in _strings(box.get("web").attrs)
    else:
        assert len(errors) == 1


def _strings(value: Any) -> set[str]:
    """All texts in it, also keys with their values."""
    if isinstance(value, dict):
        return set().union(*map(_strings, value.values())) | {f"{k}={v}" for k, v in value.items()}
    return set().union(*map(_strings, value)) if isinstance(value, list) else {str(value)}


# files and folders


def test_a_run_directory_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o777)
    os.chown(folder, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to another user"):
        bind(folder / "agent.sock")
    assert list(folder.iterdir()) == []


def test_what_lies_at_the_sockets_place_is_removed_only_when_it_is_our_own_dead_socket(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="not a socket of ours"):
        bind(path)
    assert path.read_text() == "precious"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="not a socket of ours"):
        bind(path)
    os.chown(path, os.geteuid(), os.getegid())
    with bind(path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_lock_does_not_follow_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / "agent.lock").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "agent.lock"):
        pass
    assert precious.read_text() == "x"


HOLDS = """
import fcntl, os, socket, subprocess, sys
lock = os.open(sys.argv[1] + "/agent.lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1] + "/agent.sock")
listener.listen()
print(subprocess.Popen(["sleep", "60"], pass_fds=[lock, listener.fileno()], stdout=subprocess.DEVNULL).pid, flush=True)
sys.stdin.readline()
"""


def test_what_only_a_dead_process_holds_is_taken(tmp_path: Path) -> None:
    """Its lock and its socket stay, here in a child, else in its threads that hang in the kernel."""
    words = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(AlreadyRunningError), locked(tmp_path / "agent.lock"):
                pass
            with pytest.raises(ConfigError, match="already listening"):
                bind(tmp_path / "agent.sock")
            holder.stdin.close()
            os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
            lock = tmp_path / "agent.lock"
            with (
                bind(tmp_path / "agent.sock"),
                locked(lock),
                pytest.raises(AlreadyRunningError),
                locked(lock),
            ):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


# records of another version


def test_a_container_of_a_newer_version_is_only_looked_at(
    box: Box, engine: PrivateDockerd, tmp_path: Path
) -> None:
    box.apply(WEB)
    before = box.get("web").attrs
    state = state_of(box.options.state_dir)
    state["records"][0] |= {"spec_hash": "v2:0123", "spec": {"something": {"new": True}}, "colour": "red"}
    (box.options.state_dir / "state.json").write_text(json.dumps(state))
    with FaultProxy(tmp_path / "proxy.sock", engine.socket) as proxy:
        box.options = replace(box.options, docker_host=proxy.host)
        box.restart_agent()
        plan, _ = box.apply(WEB.replace("64m", "65m").replace("1000", "2000"))
        assert str(plan) == "nothing to do"
        assert [call for call in proxy.calls if call.changes] == []
    (resource,) = box.reconciler.board.snapshot()["resources"]
    assert "NewerVersion" in {c["reason"] for c in resource["conditions"]}
    assert box.get("web").attrs == before


def test_labels_of_other_versions_or_none_recreate_nothing_that_a_record_names(box: Box) -> None:
    """Labels cannot be changed in place: those of an older release stay until the next swap."""
    box.apply(WEB)
    made = box.get("web")
    made.remove(force=True)
    labels = {**made.labels, "ucidockd.spec-version": "0", "ucidockd.unheard-of": "x" * 70_000}
    assert set(made.labels) <= set(labels)
    older = box.client.containers.run(
        "busybox:test", "sleep 1000", name="web", labels=labels, mem_limit="64m", detach=True
    )
    state = state_of(box.options.state_dir)
    state["records"][0]["object_id"] = older.id
    (box.options.state_dir / "state.json").write_text(json.dumps(state))
    box.restart_agent()
    assert str(box.apply()[0]) == "nothing to do"
    assert box.errors(WEB.replace("1000", "2000")) == []
    assert "ucidockd.unheard-of" not in box.get("web").labels
    assert box.get("web").labels["ucidockd.spec-version"] == made.labels["ucidockd.spec-version"]


# what the kernel does not give


async def test_an_event_that_the_kernel_dropped_is_made_up_for(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "LOST_S", 0.3)
    monkeypatch.setattr(FileWatcher, "_note", lambda self, path, kind: None)
    box.write(WEB)
    agent = Loop(box.reconciler, watch=(box.config,))
    running = asyncio.create_task(agent.run())
    try:
        await reached(box, 64)
        box.write(WEB.replace("64m", "65m"))
        await reached(box, 65)
    finally:
        agent.stop()
        await running


async def reached(box: Box, mib: int) -> None:
    """The container has that much memory."""
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(has_memory, box, mib):  # noqa: ASYNC110 - the engine tells nobody here
            await asyncio.sleep(0.05)


def has_memory(box: Box, mib: int) -> bool:
    with contextlib.suppress(docker.errors.NotFound):
        return bool(box.get("web").attrs["HostConfig"]["Memory"] == mib << 20)
    return False


@pytest.mark.skipif(not is_root(), reason="becoming somebody else needs root")
def test_a_dockerd_that_cannot_be_forked_is_an_error_with_its_reason() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o777)
        supervisor = ChildSupervisor(program="true", config_file=Path(folder) / "daemon.json")
        said = said_unprivileged(lambda: supervisor.start(()), processes=0)
        assert said == "DaemonError: true cannot be started: Resource temporarily unavailable"
        assert said_unprivileged(lambda: supervisor.start(())) == ""


@pytest.mark.skipif(not is_root(), reason="becoming somebody else needs root")
def test_a_socket_that_may_not_be_opened_is_an_engine_that_is_not_reached_and_says_why() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as door:
        Path(folder).chmod(0o755)
        path = Path(folder) / "docker.sock"
        door.bind(str(path))
        path.chmod(0o600)
        door.listen()
        said = said_unprivileged(DockerEngine(f"unix://{path}").api_version)
    assert said.startswith(f"EngineUnreachableError: permission denied on unix://{path}")
