# SPDX-License-Identifier: GPL-2.0-or-later
"""The environment of the benchmarks: a private engine, a configuration of N containers, the agent as a process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent.files.options import RuntimeOptions
from agent.model.resources import AgentSettings
from agent.plan.operations import Plan
from agent.runtime.main import make_reconciler
from agent.runtime.reconciler import Reconciler
from benchmarks.bare import remove_all
from tests.support.dockerd import BUSYBOX, PrivateDockerd

ROOT = Path(__file__).parents[1]
WAIT_S = 120.0


class Lab:
    """One engine for all benchmarks of a run; `fleet` keeps containers running from one benchmark to the next."""

    def __init__(self, *, mebibytes: int = 1024) -> None:
        self.mebibytes = mebibytes  # size of transferred bodies
        self.engine = PrivateDockerd(subnet=91)
        self.folder = Path(tempfile.mkdtemp(prefix="ucidockd-bench-"))
        self._fleet: Fleet | None = None
        self._made = 0

    def start(self) -> None:
        """Starts the engine and creates the image."""
        self.engine.start()
        self.engine.import_busybox()

    def close(self) -> None:
        """Stops everything."""
        self.engine.close()
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)

    def empty(self) -> None:
        """Removes all containers and the fleet."""
        self._fleet = None
        remove_all(str(self.engine.socket))

    def fresh(self) -> Fleet:
        """A configuration without containers."""
        self._made += 1
        folder = self.folder / str(self._made)
        (folder / "config").mkdir(parents=True)
        return Fleet(folder, self.engine)

    def fleet(self, count: int, **each: str) -> Fleet:
        """`count` running containers created by the agent, with these options; kept until `empty`."""
        if self._fleet is None or (self._fleet.count, self._fleet.each) != (count, each):
            self.empty()
            self._fleet = self.fresh()
            self._fleet.each = each
            self._fleet.commit(count)
            self._fleet.apply()
        return self._fleet


class Fleet:
    """A configuration directory, and the containers that the agent created from it."""

    def __init__(self, folder: Path, engine: PrivateDockerd) -> None:
        self.folder = folder
        self.engine = engine
        self.config = folder / "config"
        self.count = 0
        self.each: dict[str, str] = {}  # options of all containers

    def options(self, host: str | None = None) -> RuntimeOptions:
        """The agent's options; with `host` None it uses the engine without a proxy."""
        return RuntimeOptions(
            config_dir=self.config,
            override_dir=self.folder / "override",
            state_dir=self.folder / "state",
            socket=str(self.folder / "run" / "agent.sock"),
            docker_host=host or self.engine.host,
        )

    def commit(self, count: int, before: str = "", **first: str) -> float:
        """Commits like `uci commit`: writes a new file and renames it over the old one. `before`: further sections;
        `first`: options of the first container.

        Returns the monotonic time of the rename.
        """
        self.count = count
        self._write(
            before + "".join(_section(i, self.each | (first if i == 0 else {})) for i in range(count))
        )
        return self._rename()

    def commit_again(self, remark: str) -> float:
        """Commits the same sections with another comment at the end: new content, but nothing to do."""
        text = (self.config / "containers").read_text().partition("# ")[0]
        self._write(f"{text}# {remark}\n")
        return self._rename()

    def _write(self, text: str) -> None:
        (self.config / ".containers.uci-bench").write_text(text)

    def _rename(self) -> float:
        moment = time.monotonic()
        (self.config / ".containers.uci-bench").replace(self.config / "containers")
        return moment

    def reconciler(self, host: str | None = None) -> Reconciler:
        """A reconciler like the agent's, with the configuration read."""
        made = make_reconciler(self.options(host), AgentSettings())
        made.read_config()
        return made

    def apply(self) -> Plan:
        """Runs one pass with a fresh reconciler. Raises RuntimeError if an operation failed."""
        plan, outcomes = self.reconciler().run_pass(deep=None)
        must_be_fine([outcome.error for outcome in outcomes])
        return plan

    def _compiled(self) -> dict[str, str]:
        """Compiles the agent's code, as in a package, and returns the environment to use: compiling costs 2 MiB that
        stay in memory.
        """
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run([sys.executable, "-m", "compileall", "-q", "agent"], cwd=ROOT, env=env, check=True)
        return env

    @contextlib.contextmanager
    def agent(self, host: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """A running and idle `ucidockd run`."""
        options = self.options(host)
        with (self.folder / "agent.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", *words(options)],
                cwd=ROOT,
                env=self._compiled(),
                stderr=log,
            )
        try:
            wait_for(
                lambda: Path(str(options.socket)).exists() or process.poll() is not None, "the control socket"
            )
            wait_until_idle(process.pid)
            yield process
        finally:
            process.terminate()
            process.wait(30)


def words(options: RuntimeOptions) -> list[str]:
    """The command line for these options."""
    return [
        f"--config-dir={options.config_dir}",
        f"--override-dir={options.override_dir}",
        f"--state-dir={options.state_dir}",
        f"--socket={options.socket}",
        f"--docker-host={options.docker_host}",
    ]


def _section(number: int, more: dict[str, str]) -> str:
    options = {"image": BUSYBOX, "command": "sleep 100000", "network_mode": "none", "stop_timeout": "0"}
    lines = [f"\toption {name} '{value}'" for name, value in {**options, **more}.items()]
    return "\n".join([f"config container '{name_of(number)}'", *lines, "\tlist env 'A=b'", "\n"])


def name_of(number: int) -> str:
    """The name of a fleet's container."""
    return f"c{number}"


def services(count: int, **first: Any) -> dict[str, dict[str, Any]]:
    """The same containers as compose services."""
    common = {
        "image": BUSYBOX,
        "command": ["sleep", "100000"],
        "network_mode": "none",
        "stop_grace_period": "0s",
        "environment": ["A=b"],
    }
    return {f"s{i}": {**common, **(first if i == 0 else {})} for i in range(count)}


def must_be_fine(errors: list[Any]) -> None:
    """Raises RuntimeError if there is an error: timing something that failed measures nothing."""
    found = [str(error) for error in errors if error is not None]
    if found:
        raise RuntimeError(f"{len(found)} operations failed, the first: {found[0]}")


def wait_for(check: Callable[[], Any], what: str, limit_s: float = WAIT_S) -> None:
    """Polls until `check` returns true. Raises RuntimeError after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not check():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} was not seen within {limit_s:.0f} s")
        time.sleep(0.01)


def wait_until_idle(pid: int, quiet_s: float = 2.0) -> None:
    """Waits until the process has used at most 20 ms of CPU time in `quiet_s`. Raises RuntimeError if it has ended."""
    used, since = -1, time.monotonic()
    while time.monotonic() - since < quiet_s:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError as exc:
            raise RuntimeError("the agent ended; see agent.log") from exc
        if fields[0] == "Z":
            raise RuntimeError("the agent ended; see agent.log")
        now = int(fields[11]) + int(fields[12])  # utime and stime, which proc(5) counts in ticks of 10 ms
        if now > used + 2:
            used, since = now, time.monotonic()
        time.sleep(0.1)
