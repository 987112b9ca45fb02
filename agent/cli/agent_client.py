# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line's connection to the running agent. Standard library only, so that `status` starts quickly."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from agent.errors import UcidockdError, plain_words
from agent.unix_http import UnixConnection
from agent.wire.bodies import error_message

_PIECE = 65536


class NoAgentError(UcidockdError):
    """No agent listens on the control socket."""

    code = "no-agent"


class AgentError(UcidockdError):
    """The agent, or the engine behind it, refused. `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def call(
    path: str,
    method: str,
    route: str,
    *,
    body: dict[str, Any] | None = None,
    timeout_s: float | None = None,
) -> Any:
    """Sends one request; returns the decoded JSON answer. Raises NoAgentError, UcidockdError with the agent's message."""
    data = None if body is None else json.dumps(body).encode()
    response = _open(path, method, route, data, timeout_s)
    return json.loads(response.read())


def whole_status(path: str, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """The status with all its pages. Returns `known`, an earlier status, if nothing has changed. Raises like `call`."""
    # one entry is enough to learn the version
    if known and call(path, "GET", "/v1/status?limit=1", timeout_s=10)["version"] == known["version"]:
        return known
    status: dict[str, Any] = call(path, "GET", "/v1/status", timeout_s=10)
    page = status
    while "next" in page:
        page = call(path, "GET", f"/v1/status?{urlencode({'after': page['next']})}", timeout_s=10)
        status["resources"] += page["resources"]
    status.pop("next", None)
    return status


def follow(path: str, route: str) -> Iterator[dict[str, Any]]:
    """The data of server-sent events, until the stream or the agent ends."""
    # no deadline: the next event may come in days
    response = _open(path, "GET", route, None, None)
    try:
        for line in response:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    except (OSError, http.client.HTTPException, ValueError):
        return  # a stream that breaks off is treated like one that ends


def stream(path: str, route: str) -> Iterator[bytes]:
    """An answer's body, streamed. Raises UcidockdError, also if the stream breaks off."""
    response = _open(path, "GET", route, None, None)
    try:
        while piece := response.read1(_PIECE):
            yield piece
    except (OSError, http.client.HTTPException) as exc:
        raise UcidockdError(f"the stream broke off: {plain_words(exc)}") from exc


def upload(path: str, route: str, pieces: Iterable[bytes]) -> Any:
    """PUTs a body, streamed; returns the decoded JSON answer. Raises like `call`."""
    connection = UnixConnection(path)
    headers = {"Transfer-Encoding": "chunked"}
    response = answer_of(connection, "PUT", route, (piece for piece in pieces if piece), headers, path)
    return json.loads(response.read())


def _open(
    path: str, method: str, route: str, data: bytes | None, timeout_s: float | None
) -> http.client.HTTPResponse:
    headers = {} if data is None else {"Content-Type": "application/json"}
    try:
        return answer_of(UnixConnection(path, timeout_s), method, route, data, headers, path)
    except TimeoutError as exc:
        raise UcidockdError(f"the agent on {path} does not answer within {timeout_s:g} s") from exc


def answer_of(
    connection: http.client.HTTPConnection,
    method: str,
    route: str,
    data: bytes | Iterable[bytes] | None,
    headers: Mapping[str, str],
    path: str,
) -> http.client.HTTPResponse:
    """The agent's answer, with its body still unread. Raises NoAgentError, TimeoutError, PermissionError, AgentError."""
    try:
        try:
            connection.request(
                method, route, body=data, headers=dict(headers), encode_chunked="Transfer-Encoding" in headers
            )
        except BrokenPipeError:
            if data is None or isinstance(data, bytes):
                raise
            # the agent stops reading a body that it refuses: its answer has the reason
        response = connection.getresponse()
        if response.status < 400:
            return response
        text = response.read()
    # before OSError, which is its base class: the caller knows the timeout and reports it
    except TimeoutError:
        raise
    except PermissionError as exc:
        raise PermissionError(exc.errno, exc.strerror, path) from exc
    except (OSError, http.client.HTTPException) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else ""
        raise NoAgentError(
            f"no agent answers on {path} ({reason or exc}); start it with `/etc/init.d/ucidockd start`,"
            " `systemctl start ucidockd` or `ucidockd run`"
        ) from exc
    raise AgentError(error_message(text, response.status, who="the agent"), response.status)
