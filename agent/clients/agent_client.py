# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line's connection to the running agent: standard library only, so that `status` starts quickly."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

from agent.errors import UcidockdError


class NoAgentError(UcidockdError):
    """No agent listens on the control socket."""

    code = "no-agent"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost")
        self._path, self._timeout_s = path, timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(self._path)


def call(path: str, method: str, route: str, *, timeout_s: float | None = None) -> Any:
    """One request; the decoded JSON body. Raises NoAgentError, UcidockdError with the agent's message."""
    response = _open(path, method, route, timeout_s)
    body = json.loads(response.read())
    if response.status >= 400:
        raise UcidockdError(body["error"]["message"])
    return body


def follow(path: str, route: str) -> Iterator[dict[str, Any]]:
    """The data of server-sent events until the agent ends the stream."""
    response = _open(path, "GET", route, None)
    for line in response:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def _open(path: str, method: str, route: str, timeout_s: float | None) -> http.client.HTTPResponse:
    connection = _UnixConnection(path, timeout_s)
    try:
        connection.request(method, route)
        return connection.getresponse()
    except OSError as exc:
        raise NoAgentError(f"no agent answers on {path} ({exc.strerror or exc})") from exc
