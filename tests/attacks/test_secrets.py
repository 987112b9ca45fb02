# SPDX-License-Identifier: GPL-2.0-or-later
"""A planted secret comes out nowhere: not in an answer to a reader, an error, a log at level debug, or a file."""

from __future__ import annotations

import copy
import json
import logging
import secrets
import socket
from pathlib import Path
from typing import Any

import pytest

from agent.api.access.access import may_write
from agent.api.app import assemble
from agent.api.engine_requests import for_readers
from agent.api.rules import Rule, read
from tests.support.tcp import READ, WRITE, TcpController, engine_script, serving_tcp

SECRET = f"S3CRET-{secrets.token_hex(8)}"
INSPECT: dict[str, Any] = {
    "Id": "abc",
    "Config": {
        "Env": ["PATH=/bin", f"PASSWORD={SECRET}", f"URL=http://u:{SECRET}@h/?a=b", "FLAG"],
        "Tty": False,
    },
    "ContainerConfig": {"Env": [f"A={SECRET}"]},
    "Spec": {"TaskTemplate": {"ContainerSpec": {"Env": [f"B={SECRET}=", "C="]}}},
    "Settings": {"Env": None, "Mounts": [{"Source": "/a"}]},
    "Plugin": {"Env": [{"Name": "D", "Value": SECRET, "Description": SECRET}]},
    "Other": [{"env": {"E": SECRET}}, {"Environment": SECRET}],
    "Name": "/web",
}


def test_values_of_variables_are_masked_and_the_rest_is_as_it_was() -> None:
    before = copy.deepcopy(INSPECT)
    masked = for_readers(INSPECT)
    assert before == INSPECT, "the original is left alone"
    assert SECRET not in json.dumps(masked)
    assert masked["Config"] == {"Env": ["PATH=***", "PASSWORD=***", "URL=***", "FLAG"], "Tty": False}
    assert masked["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["B=***", "C=***"]
    assert masked["Settings"] == INSPECT["Settings"] and masked["Name"] == "/web"
    assert masked["Plugin"]["Env"] == [{"Name": "D", "Value": "***", "Description": "***"}]
    assert masked["Other"][0] == {"env": {"E": "***"}}
    for plain in (None, 1, "text", [], {}, [1, [2, {"a": None}]]):
        assert for_readers(plain) == plain


def test_a_handler_can_tell_readers_from_writers_and_root(tmp_path: Path) -> None:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

    async def inspect(request: Request) -> Response:
        return JSONResponse(INSPECT if await may_write(request) else for_readers(INSPECT))

    rule = Rule(method="GET", path="/v1/inspect", grant=read("test", "echo"), handler=inspect, summary="")
    with serving_tcp(tmp_path, "127.0.0.1:0") as made:
        app = assemble([*made.rules, rule], made.access)
        made.app.router.routes[:] = app.router.routes
        seen = {}
        for session in (READ, WRITE):
            with made.client(session) as client:
                seen[session] = client.get("/v1/inspect").text
        assert SECRET not in seen[READ] and "PASSWORD=***" in seen[READ]
        assert SECRET in seen[WRITE]
        assert SECRET in made.control.client.get("/v1/inspect").text


def test_what_a_client_sends_as_secret_comes_back_nowhere(
    served: TcpController, caplog: pytest.LogCaptureFixture
) -> None:
    outputs = []
    with caplog.at_level(logging.DEBUG), served.client(READ) as client:
        for headers in (
            {"authorization": f"Bearer {SECRET}"},
            {"authorization": f"Basic {SECRET}"},
            {"cookie": f"sysauth={SECRET}"},
            {"x-registry-auth": SECRET},
        ):
            outputs.append(client.get("/v1/status", headers=headers).text)
            outputs.append(client.get("/v1/containers/web/logs", headers=headers).text)
        for path in (f"/v1/events?ticket={SECRET}", f"/v1/containers/web/logs?token={SECRET}"):
            outputs.append(client.get(path).text)
        outputs.append(client.post("/v1/tickets", content=f'{{"path": "{SECRET}').text)
        outputs.append(client.post("/v1/tickets", json={"password": SECRET}).text)
        outputs.append(
            served.raw(f"GET / HTTP/1.1\r\nAuthorization: {SECRET}\r\n X: {SECRET}\r\n\r\n".encode()).decode()
        )
        outputs.append(json.dumps(served.agent.board.snapshot()))
    assert not [text for text in outputs if SECRET in text]
    ours = [
        record
        for record in caplog.records
        if record.name.startswith(("agent", "uvicorn", "websockets.server"))
    ]
    assert not [record for record in ours if SECRET in record.getMessage() + repr(record.args)]


def test_an_error_of_the_engine_is_cut_and_a_defect_tells_the_client_nothing(
    served: TcpController, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def script(connection: socket.socket, head: bytes) -> None:
        if b"/networks" in head:
            engine_script(connection, head)
            return
        body = json.dumps({"message": "x" * 5000 + SECRET}).encode()
        connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def broken() -> dict[str, Any]:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(served.engine, "_script", script)
    monkeypatch.setattr(served.agent, "plan", broken)
    with served.client(READ) as client:
        assert SECRET not in client.get("/v1/containers/web/logs").text
        answer = client.get("/v1/plan")
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "internal"
    assert SECRET not in answer.text
