# SPDX-License-Identifier: GPL-2.0-or-later
"""The real application on a real socket, in a thread with its own event loop."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from agent.api.access.tcp import ControlServer
from agent.api.app import make_app
from agent.api.port import ProgressSink
from agent.api.streams.consoles import Consoles
from agent.convert.requests import ImportRequest
from agent.data.parts import Data
from agent.engine.stream import DockerStream
from agent.model.dockerd.settings import DaemonAction
from agent.model.issues import GivenConfig
from agent.model.resources import RegistryAuth
from agent.status.board import StatusBoard
from agent.status.metrics import Metric, PassCounters


class QuietAgent:
    """An agent without a loop: the API's port to the agent, and a board that tests write to."""

    def __init__(self) -> None:
        self.board = StatusBoard(time.time)
        self.passes = PassCounters()
        self.logins: tuple[RegistryAuth, ...] = ()
        self.wanted_api = ""
        self.manual_actions: list[str] = []  # including failed ones

    def api_version(self) -> str:
        return self.wanted_api

    def auths(self) -> tuple[RegistryAuth, ...]:
        return self.logins

    async def validate(self, texts: Mapping[str, str]) -> list[dict[str, Any]]:
        raise NotImplementedError("the running agent's tests ask for it")

    async def reach(self) -> dict[str, Any]:
        return {"containers": {}}

    async def load(self, name: str = "", *, hours: float = 24.0) -> dict[str, Any]:
        return {"name": name, "hours": hours}

    def load_metrics(self) -> list[Metric]:
        return []

    async def plan(self, given: GivenConfig | None = None) -> dict[str, Any]:
        del given
        return {"operations": []}

    async def reconcile(self, *, settle_s: float = 0.0) -> dict[str, Any]:
        del settle_s
        return {"operations": []}

    async def adopt(
        self, container: str, *, section: str, commit: bool, show_secrets: bool
    ) -> dict[str, Any]:
        return {"section": section or container, "committed": commit}

    async def import_text(self, request: ImportRequest) -> dict[str, Any]:
        return asdict(request)

    def export_text(self, form: str, names: Sequence[str]) -> str:
        return f"{form} {' '.join(names)}"

    async def diff(self, name: str) -> dict[str, Any]:
        return {"name": name}

    async def updates(self) -> dict[str, Any]:
        return {"containers": []}

    async def check_updates(self, names: Sequence[str] = ()) -> dict[str, Any]:
        return {"containers": [{"name": name} for name in names]}

    async def update(self, names: Sequence[str]) -> dict[str, Any]:
        return {"containers": [{"name": name} for name in names]}

    async def rollback(self, name: str, *, with_data: bool = False) -> dict[str, Any]:
        return {"containers": [{"name": name}]}

    async def prune(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {"going": [], "kept": [], "bytes": 0}

    async def look_at_move(self, target: str) -> dict[str, Any]:
        return {"target": target}

    async def move_data(self, target: str, progress: ProgressSink) -> None:
        pass

    async def notify_test(self, name: str) -> dict[str, Any]:
        return {"sent": True, "error": "", "took_s": 0.0}

    async def describe(self, name: str) -> dict[str, Any]:
        return {"name": name}

    async def history(self, name: str) -> dict[str, Any]:
        return {"section": name, "text": "", "versions": []}

    async def revert(self, name: str, number: int, *, commit: bool) -> dict[str, Any]:
        return {"section": name, "text": str(number), "options": {}, "notes": [], "committed": commit}

    async def tls_client(self, name: str, *, days: int) -> dict[str, Any]:
        return {"name": name, "files": {}, "days": days}

    async def dockerd(self, wish: DaemonAction) -> None:
        self.manual_actions.append(f"dockerd {wish}")

    async def manual(self, container: str, action: str) -> None:
        del container
        self.manual_actions.append(action)

    async def begin_copy(self, volumes: Iterable[str]) -> frozenset[str]:
        self.manual_actions.append(f"copy {' '.join(sorted(volumes))}")
        return frozenset()

    async def end_copy(self, keys: frozenset[str]) -> None:
        del keys
        self.manual_actions.append("copied")

    def managed(self, containers: Iterable[str]) -> frozenset[str]:
        return frozenset(containers)

    async def manual_failed(self, container: str) -> None:
        del container
        self.manual_actions.append(f"{self.manual_actions[-1]} failed")


class LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any], limit_s: float = 20) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(limit_s)

    def close(self) -> None:
        self.run(_settle())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


async def _settle() -> None:
    """Checks that no task outlives the code that started it."""
    for _ in range(100):
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if not others:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"tasks were left behind: {others}")


class Controller:
    """A served application."""

    def __init__(self, path: Path, agent: QuietAgent) -> None:
        self.path = path
        self.agent = agent
        self.client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=30
        )

    def raw(self, data: bytes, *, limit_s: float = 5) -> bytes:
        """Sends bytes on a separate connection; returns everything until the server closes it."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(limit_s)
            client.connect(str(self.path))
            client.sendall(data)
            return read_all(client)


def read_all(client: socket.socket) -> bytes:
    parts = []
    try:
        while piece := client.recv(65536):
            parts.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def data_in(folder: Path, agent: QuietAgent, engine: DockerStream) -> Data:
    """Volumes and backups whose files are in a test's folder."""
    return Data(engine, agent, agent.board, instance=lambda: "", run_dir=folder, state_dir=folder)


@contextmanager
def serving(
    folder: Path,
    engine_url: str,
    *,
    app: Callable[[QuietAgent, DockerStream], Any] | None = None,
    away_s: float = 60,
    ready: str = "/healthz",
) -> Iterator[Controller]:
    """The application on `folder`/c/agent.sock, with the engine at `engine_url`. Yields once the socket exists; `ready`
    answers."""
    thread = LoopThread()
    agent = QuietAgent()
    path = folder / "c" / "agent.sock"
    engine = DockerStream(engine_url)
    consoles = Consoles(engine, away_s=away_s)
    data = data_in(folder, agent, engine)
    made_app = app(agent, engine) if app else make_app(agent, engine, consoles=consoles, data=data)
    server = ControlServer(made_app, path)
    thread.run(server.__aenter__())
    made = Controller(path, agent)
    try:
        assert made.client.get(ready).status_code == 200
        yield made
    finally:
        thread.run(consoles.__aexit__(None, None, None))
        thread.run(server.__aexit__(None, None, None))
        made.client.close()
        thread.close()


def sse_events(lines: Iterator[str]) -> Iterator[tuple[str, Any, str]]:
    """(name, data, id) of each server-sent event."""
    name, data, number = "", "", ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data = line[6:]
        elif line.startswith("id: "):
            number = line[4:]
        elif not line and name:
            yield name, json.loads(data), number
            name, data, number = "", "", ""
