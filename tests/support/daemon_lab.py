# SPDX-License-Identifier: GPL-2.0-or-later
"""A dockerd that the agent's own daemon stage runs, in a network namespace and with separate directories."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.dockerd.change import Limits
from agent.dockerd.stage import DaemonStage, Tools
from agent.dockerd.status import DaemonStatus
from agent.engine import process as daemon_process
from agent.engine.probe import DaemonProbe
from agent.files.config import load
from agent.files.options import RuntimeOptions
from agent.model.dockerd.settings import Process
from agent.status.board import StatusBoard
from tests.support.dockerd import BUSYBOX, busybox_tar
from tests.support.netns import OwnNetwork

KEY = "daemon:dockerd"
SHORT = Limits(start_s=40, reload_s=5, watch_s=0.5)


@dataclass
class DaemonLab:
    """The test runs each pass itself. `engine` is the directory of the programs, "" for the installed ones."""

    network: OwnNetwork
    engine: str = ""
    limits: Limits = SHORT
    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ucidd-", dir="/tmp")))
    before: list[str] = field(default_factory=list)  # shell lines of the wrapper, before dockerd
    extra: list[str] = field(default_factory=list)  # arguments that the wrapper adds
    tools: dict[str, Any] = field(default_factory=dict)
    board: StatusBoard = field(default_factory=lambda: StatusBoard(time.time))

    def __post_init__(self) -> None:
        for name in ("config", "state", "run", "data"):
            (self.root / name).mkdir()
        self.options = RuntimeOptions(
            config_dir=self.root / "config",
            override_dir=self.root / "override",
            state_dir=self.root / "state",
            socket=str(self.root / "run" / "agent.sock"),
            docker_host=f"unix://{self.socket}",
        )
        self.write_wrapper()
        self.stage = self.new_stage()

    @property
    def socket(self) -> Path:
        return self.root / "docker.sock"

    @property
    def program(self) -> Path:
        return self.root / "dockerd"

    @property
    def daemon_json(self) -> Path:
        return self.root / "run" / "daemon.json"

    @property
    def probe(self) -> DaemonProbe:
        return DaemonProbe(str(self.socket))

    def write_wrapper(self) -> None:
        """Writes the `dockerd` program of the agent section: it prepares the environment and executes the real one."""
        path = f"{self.engine}:{os.environ['PATH']}" if self.engine else os.environ["PATH"]
        real = shutil.which("dockerd", path=f"{path}:/usr/sbin")
        lines = [
            "#!/bin/sh",
            f"export PATH='{path}:/usr/sbin:/sbin'",
            f'case " $* " in *" --version "*|*" --validate "*) exec {real} "$@" ;; esac',
            *self.before,
            f'exec nsenter --net={self.network.path} {real} "$@" {" ".join(self.extra)}',
        ]
        self.program.write_text("\n".join(lines) + "\n")
        self.program.chmod(0o755)

    def new_stage(self, *, wake: Callable[[float], None] = lambda seconds: None) -> DaemonStage:
        """A stage as a new agent has it: memory is lost, files stay."""
        return DaemonStage(
            options=self.options,
            run_dir=self.root / "run",
            status=DaemonStatus(board=self.board),
            tools=replace(Tools(limits=self.limits), **self.tools),
            wake=wake,
        )

    def restart_agent(self) -> None:
        self.board = StatusBoard(time.time)
        self.stage = self.new_stage()

    def agent_section(self, kind: str = "child") -> str:
        arguments = (f"--exec-root={self.root}/exec", f"--pidfile={self.root}/dockerd.pid")
        lines = [f"option daemon '{kind}'", f"option dockerd '{self.program}'"]
        lines += [f"list dockerd_args '{argument}'" for argument in arguments]
        return "config agent 'agent'\n" + "".join(f"\t{line}\n" for line in lines)

    def write(self, globals_: str = "", rest: str = "", *, kind: str = "child") -> None:
        """`globals_`: lines of the section globals; data_root is the lab's unless given."""
        root = "" if "data_root" in globals_ else f"option data_root '{self.root}/data'\n"
        (self.root / "config" / "containers").write_text(self.agent_section(kind))
        (self.root / "config" / "dockerd").write_text(f"config globals 'globals'\n{root}{globals_}\n{rest}\n")

    def apply(self, globals_: str | None = None, rest: str = "", *, busy: bool = False) -> bool:
        """Runs one pass, on new settings if given; returns whether containers may be reconciled."""
        if globals_ is not None:
            self.write(globals_, rest)
        desired = load(self.options).desired
        assert desired is not None
        return self.stage.reconcile(desired, busy=busy)

    def settle(self) -> None:
        """Waits for the end of the watch and runs a pass that sees it."""
        time.sleep(self.limits.watch_s)
        self.apply()

    @property
    def process(self) -> Process:
        found = daemon_process.find_with_config(self.daemon_json)
        assert found is not None, "no dockerd runs"
        return found

    def conditions(self) -> dict[str, tuple[bool, str]]:
        resources = {item["key"]: item for item in self.board.snapshot()["resources"]}
        return {c["type"]: (c["status"], c["reason"]) for c in resources.get(KEY, {}).get("conditions", [])}

    def whose(self) -> tuple[bool, bool, str]:
        """Whether we start it, whether UCI's settings apply, and why not."""
        found = self.board.snapshot()["agent"]["dockerd"]
        return found["starts"], found["settings"], found["why"]

    def message(self, condition: str) -> str:
        resources = {item["key"]: item for item in self.board.snapshot()["resources"]}
        return next(str(c["message"]) for c in resources[KEY]["conditions"] if c["type"] == condition)

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.daemon_json.read_text())
        return found

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = self.probe._json("/info")
        return found

    # containers

    def client(self) -> Any:
        import docker

        return docker.DockerClient(base_url=f"unix://{self.socket}", version="auto")

    def run_container(self, name: str = "web", **options: Any) -> int:
        """Starts a container that sleeps; returns its pid."""
        with contextlib.closing(self.client()) as client:
            if not client.images.list(BUSYBOX):
                repository, _, tag = BUSYBOX.rpartition(":")
                client.api.import_image_from_data(busybox_tar(), repository=repository, tag=tag)
            client.containers.run(
                BUSYBOX,
                **{
                    "command": "sleep 1000",
                    "name": name,
                    "detach": True,
                    "stop_signal": "SIGKILL",
                    **options,
                },
            )
        return self.pid_of(name)

    def pid_of(self, name: str = "web") -> int:
        with contextlib.closing(self.client()) as client:
            return int(client.api.inspect_container(name)["State"]["Pid"])

    # clean-up

    def stop(self) -> None:
        process = daemon_process.find_with_config(self.daemon_json)
        if process is None:
            return
        daemon_process.send_signal(process, signal.SIGTERM)
        if not daemon_process.wait_end(process, 30):
            daemon_process.send_signal(process, signal.SIGKILL)
            daemon_process.wait_end(process, 10)

    def close(self) -> None:
        with contextlib.suppress(Exception), contextlib.closing(self.client()) as client:
            for container in client.containers.list(all=True):
                container.remove(force=True, v=True)
        self._end_leftovers()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{self.root}/"):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        self.network.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _end_leftovers(self) -> None:
        """Kills dockerd, containerd and shims that name our directory; none of them is needed any more."""
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if f"{self.root}/exec".encode() in (entry / "cmdline").read_bytes():
                    process = daemon_process.process_of(int(entry.name))
                    if process is not None:
                        daemon_process.send_signal(process, signal.SIGKILL)
                        daemon_process.wait_end(process, 10)

    def kill(self) -> None:
        """Sends SIGKILL like the kernel's out-of-memory killer, and does init's work for the containerd that ends with
        it.

        A test container may have no init that reaps processes; then dockerd takes the dead containerd for a running
        one.
        """
        process = self.process
        containerd = int((self.root / "exec" / "containerd" / "containerd.pid").read_text())
        with adopting_orphans():
            os.kill(process.pid, signal.SIGKILL)
            daemon_process.wait_end(process, 10)
            wait_for(lambda: _reaped(containerd), 5)


def _reaped(pid: int) -> bool:
    """Whether the process is gone; a dead process is reparented to us shortly after its parent has ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not Path("/proc", str(pid)).exists()


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Makes orphans of our children our children (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    libc = ctypes.CDLL(None, use_errno=True)
    for on in (1, 0):
        if libc.prctl(36, on, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        if on:
            yield


def wait_for(check: Callable[[], Any], limit_s: float = 40) -> None:
    """Polls, for conditions without an event to wait for."""
    deadline = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < deadline, "not seen in time"
        time.sleep(0.02)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
