# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent as a separate process, on the directories of a box."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.cli.commands import COMMANDS
from tests.support.box import Box

ROOT = Path(__file__).parents[2]


class Agent:
    """`ucidockd run`; `module` may be another program that runs the agent."""

    def __init__(
        self, box: Box, *, module: str = "agent", prefix: tuple[str, ...] = (), ubus: Path | None = None
    ) -> None:
        self.box = box
        # not the ubus of the machine that runs the tests
        self.ubus = ubus or box.config.parent / "no-ubus" / "ubus.sock"
        self.module, self.prefix = module, prefix
        options = box.options
        self.words = [f"--config-dir={options.config_dir}", f"--override-dir={options.override_dir}"]
        self.words += [f"--state-dir={options.state_dir}", f"--socket={options.socket}"]
        if options.docker_host:
            self.words += [f"--docker-host={options.docker_host}"]
        if options.docker_cert_path:
            self.words += [f"--docker-cert-path={options.docker_cert_path}"]
        self.log = box.config.parent / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        """Starts the agent and returns once its control socket exists."""
        self.spawn(**environment)
        wait_for(lambda: Path(str(self.box.options.socket)).exists(), 60)

    def spawn(self, **environment: str) -> None:
        """Begins to start the agent."""
        Path(str(self.box.options.socket)).unlink(missing_ok=True)  # left by an agent that was killed
        bus = f"--ubus-socket={self.ubus}"
        command = [*self.prefix, sys.executable, "-m", self.module, "run", *self.words, bus]
        env = {**os.environ, **environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=ROOT)

    def wait_killed(self, limit_s: float = 60) -> None:
        """Waits until the agent was killed."""
        assert self.process is not None
        assert self.process.wait(limit_s) == -signal.SIGKILL, self.log.read_text()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `ucidockd WORDS` on the same directories."""
        inside: tuple[str, ...] = ()
        if self.prefix and self.process is not None:
            # the agent refuses clients from another user namespace
            inside = ("nsenter", "--user", f"--target={self.process.pid}")
        command = [*inside, sys.executable, "-m", "agent", *self.words_of(words), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    def spawned(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts `ucidockd WORDS` on the same directories."""
        command = [sys.executable, "-m", "agent", *self.words_of(words), *words]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)

    def words_of(self, words: Sequence[str]) -> list[str]:
        """The options with all locations, as far as this command accepts them; they come before the command."""
        command = next(c for c in COMMANDS if c.name.split() == list(words[: len(c.name.split())]))
        return [word for word in self.words if word.removeprefix("--").partition("=")[0] in command.common]

    def status(self) -> dict[str, Any]:
        """The output of `ucidockd status --json`; empty while the agent does not answer."""
        done = self.command("status", "--json")
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    def commit(self, text: str) -> None:
        """Replaces the file, like `uci commit`."""
        temporary = self.box.config / ".containers.uci-x"
        temporary.write_text(text.replace("IMAGE", "busybox:test"))
        temporary.replace(self.box.config / "containers")

    def send(self, number: int) -> None:
        """Sends a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal and waits; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def close(self) -> None:
        """Ends the agent if it is still running."""
        if self.process is not None and self.process.poll() is None:
            self.end(signal.SIGKILL)


def wait_for(check: Callable[[], Any], limit_s: float = 30) -> None:
    """Polls until `check` is true; fails after the limit."""
    deadline = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < deadline, "not seen in time"
        time.sleep(0.05)


def running(box: Box, name: str) -> bool:
    """Whether a container of that name is running."""
    return any(c["State"] == "running" and f"/{name}" in c["Names"] for c in box.client.api.containers())
