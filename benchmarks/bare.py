# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine without any library in between: the baseline for the agent."""

from __future__ import annotations

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

API = "/v1.41"


class Bare(http.client.HTTPConnection):
    """A keep-alive connection to the engine's unix socket, or to a socket that offers its API under `prefix`."""

    def __init__(self, path: str, *, prefix: str = "", api: str = API) -> None:
        super().__init__("localhost")
        self._path = path
        self._prefix = f"{prefix}{api}"

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)

    def call(self, method: str, path: str, body: Any = None, **params: str) -> Any:
        """Sends a request; returns the decoded answer. Raises RuntimeError for an error status."""
        url = f"{self._prefix}{path}" + (f"?{urlencode(params)}" if params else "")
        content = None if body is None else json.dumps(body)
        self.request(method, url, body=content, headers={"Content-Type": "application/json"})
        response = self.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.decode()}")
        return json.loads(answer) if answer else None

    def fetch(self, path: str) -> int:
        """GETs a body of any kind; returns its length in bytes. Raises RuntimeError for an error status."""
        self.request("GET", path)
        response = self.getresponse()
        size = 0
        while piece := response.read(65536):
            size += len(piece)
        if response.status >= 400:
            raise RuntimeError(f"GET {path}: {response.status}")
        return size


def create_and_start(path: str, bodies: dict[str, Any], *, workers: int) -> None:
    """POST /containers/create and .../start for each name, `workers` at a time."""

    def work(name: str) -> None:
        connection = Bare(path)
        try:
            made = connection.call("POST", "/containers/create", bodies[name], name=name)
            connection.call("POST", f"/containers/{made['Id']}/start")
        finally:
            connection.close()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, bodies))


def remove_all(path: str) -> None:
    """Removes all containers from the engine."""
    connection = Bare(path)
    ids = [item["Id"] for item in connection.call("GET", "/containers/json", all="1")]
    connection.close()

    def work(object_id: str) -> None:
        own = Bare(path)
        own.call("DELETE", f"/containers/{object_id}", force="1", v="1")
        own.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, ids))
