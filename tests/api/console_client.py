# SPDX-License-Identifier: GPL-2.0-or-later
"""A browser's side of a console: what it types, and what it has seen."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, unix_connect

from tests.support.controller import Controller, sse_events


class Events:
    """A console over server-sent events and POST."""

    def __init__(self, controller: Controller, container: str, **options: Any) -> None:
        self._http = controller.client
        answer = self._http.post(f"/v1/containers/{container}/exec", json=options)
        assert answer.status_code == 201, answer.text
        self.id = str(answer.json()["id"])
        self.last = ""

    def type(self, text: str | bytes, **query: Any) -> httpx.Response:
        data = text.encode() if isinstance(text, str) else text
        return self._http.post(f"/v1/exec/{self.id}/input", content=data, params=query)

    def resize(self, rows: int, columns: int) -> httpx.Response:
        return self._http.post(f"/v1/exec/{self.id}/resize", json={"rows": rows, "columns": columns})

    @contextmanager
    def events(self, *, resume: bool = False) -> Iterator[Iterator[tuple[str, Any]]]:
        """(name, data) of events; `resume` after the last one seen. An output's data are its bytes."""
        headers = {"last-event-id": self.last} if resume else {}
        with self._http.stream("GET", f"/v1/exec/{self.id}/stream", headers=headers) as response:
            assert response.status_code == 200
            yield self._seen(response.iter_lines())

    def _seen(self, lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
        for name, data, number in sse_events(lines):
            self.last = number or self.last
            yield name, base64.b64decode(data["data"]) if name == "output" else data

    def everything(self) -> tuple[bytes, dict[str, Any]]:
        """All output, and how it ended."""
        out, exit_ = b"", {}
        with self.events() as events:
            for name, data in events:
                if name == "output":
                    out += data
                elif name == "exit":
                    exit_ = data
        return out, exit_


class Screen:
    """A console over a WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.out = b""
        self.texts: list[dict[str, Any]] = []

    def type(self, text: str | bytes) -> None:
        self.socket.send(text.encode() if isinstance(text, str) else text)

    def control(self, **body: Any) -> None:
        self.socket.send(json.dumps(body))

    def until(self, wanted: str | bytes, limit_s: float = 10) -> bytes:
        """All output so far once it has `wanted`, which is cut off from what later calls look at."""
        mark = wanted.encode() if isinstance(wanted, str) else wanted
        deadline = time.monotonic() + limit_s
        while mark not in self.out:
            try:
                self._receive(max(0.01, deadline - time.monotonic()))
            except TimeoutError:
                raise AssertionError(f"{mark!r} did not come, but {self.out[-2000:]!r}") from None
        before, _, self.out = self.out.partition(mark)
        return before

    def end(self, limit_s: float = 10) -> dict[str, Any]:
        """Reads to the exit code."""
        while not any(text["type"] == "exit" for text in self.texts):
            self._receive(limit_s)
        return self.texts[-1]

    def _receive(self, limit_s: float) -> None:
        message = self.socket.recv(timeout=limit_s)
        if isinstance(message, bytes):
            self.out += message
        else:
            self.texts.append(json.loads(message))


@contextmanager
def web_socket(controller: Controller, path: str, **options: Any) -> Iterator[ClientConnection]:
    """A WebSocket to the control socket."""
    with unix_connect(
        str(controller.path), f"ws://localhost{path}", compression=None, max_size=None, **options
    ) as socket:
        yield socket


@contextmanager
def screen(controller: Controller, container: str, **options: Any) -> Iterator[Screen]:
    """Opens a console and shows it on a WebSocket."""
    console = Events(controller, container, **options)
    with web_socket(controller, f"/v1/exec/{console.id}/ws") as socket:
        yield Screen(socket)
