# SPDX-License-Identifier: GPL-2.0-or-later
"""`examples/nginx.conf` before the control socket and before a dockerd with TLS: streams, WebSockets, a real page."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.api.conftest import Containers
from tests.support.controller import Controller, serving
from tests.support.dockerd import PrivateDockerd
from tests.support.nginx import PASSWORD, USER, Nginx, free_port, why_not

HERE = Path(__file__).parent
PLAYWRIGHT = HERE.parents[1] / ".browser" / "node_modules" / "playwright-core"

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def why_no_browser() -> str:
    if not shutil.which("chromium") or not shutil.which("node"):
        return "no chromium or node: `make browser` installs them"
    return (
        "" if (PLAYWRIGHT.parents[1] / ".done").exists() else "no playwright-core: `make browser` installs it"
    )


@pytest.fixture
def control(engine: PrivateDockerd, tmp_path: Path) -> Iterator[Controller]:
    with serving(tmp_path, engine.host) as made:
        yield made


@pytest.fixture
def nginx(control: Controller, tmp_path: Path) -> Iterator[Nginx]:
    with Nginx(tmp_path, control.path) as made:
        yield made


@pytest.fixture
def client(nginx: Nginx) -> Iterator[httpx.Client]:
    with client_of(nginx.agent) as made:
        yield made


def client_of(port: int) -> httpx.Client:
    return httpx.Client(
        base_url=f"https://127.0.0.1:{port}", auth=(USER, PASSWORD), verify=unverified(), timeout=30
    )


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_nobody_gets_through_without_the_password(nginx: Nginx, client: httpx.Client) -> None:
    assert client.get("/v1/status").status_code == 200
    for path in ("/v1/status", "/docker/info", "/", "/v1/exec/x/ws"):
        assert client.get(path, auth=(USER, "wrong")).status_code == 401
    with pytest.raises(InvalidStatus) as caught:
        connect(f"wss://127.0.0.1:{nginx.agent}/v1/exec/x/ws", ssl=unverified())
    assert caught.value.response.status_code == 401


def test_pages_of_other_origins_do_not_get_through(nginx: Nginx, client: httpx.Client) -> None:
    own = f"https://127.0.0.1:{nginx.agent}"
    assert client.post("/v1/reconcile", headers={"origin": own}).status_code == 200
    for origin in ("https://evil.example", "null", "https://127.0.0.1", "https://127.0.0.1:8080"):
        assert client.post("/v1/reconcile", headers={"origin": origin}).status_code == 403


def test_a_stream_comes_through_as_it_is_written(client: httpx.Client, containers: Containers) -> None:
    made = containers.run("echo one; read forever", stdin_open=True)
    with client.stream("GET", f"/v1/containers/{made}/logs?follow=1") as response:
        pieces = response.iter_raw()
        assert next(pieces) == b"one\n"  # a proxy that buffers would wait for more, and there is none


def test_a_raw_upgrade_is_not_passed_on(client: httpx.Client, containers: Containers) -> None:
    made = containers.finished("echo done")
    headers = {"upgrade": "tcp", "connection": "upgrade"}
    answer = client.post(f"/docker/containers/{made}/attach?stdout=1&logs=1", headers=headers)
    assert answer.status_code == 200  # to the agent it is a plain request: no connection was handed over
    assert answer.content == b"\x01\0\0\0\0\0\0\x05done\n"


@pytest.mark.long
@pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser())
def test_a_page_in_a_browser_uses_the_engine_and_a_console(nginx: Nginx, containers: Containers) -> None:
    (nginx.www / "page.html").write_text((HERE / "page.html").read_text())
    busy = containers.run("while :; do echo tick; sleep 0.5; done", name="busy", stop_signal="KILL")
    attached = containers.run("read a; echo got $a", name="attached", stdin_open=True)
    url = f"https://127.0.0.1:{nginx.agent}/page.html"
    done = subprocess.run(
        ["node", HERE / "drive.mjs", PLAYWRIGHT, url, USER, PASSWORD, busy, attached],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + nginx.log()
    seen = json.loads(done.stdout)
    assert isinstance(seen["status"], int)
    assert {"/busy", "/attached"} <= set(seen["names"])
    assert "40 100\r\n" in seen["socket"]["output"] and "got wörld\r\n" in seen["socket"]["output"]
    assert seen["socket"]["texts"] == [{"type": "exit", "code": 3, "reason": ""}]
    assert seen["socket"]["code"] == 1000
    assert seen["events"] == {"output": "got wörld\n", "exit": {"code": 4, "reason": ""}}
    assert seen["attach"] == {"output": "got wörld\n", "texts": [], "code": 1000}
    assert seen["gap"] > 200
    assert seen["tar"]["status"] == 200 and seen["tar"]["size"] > 8 * 2**20


class TlsDockerd(PrivateDockerd):
    """A dockerd that listens on TLS as well, and asks for a certificate of its CA."""

    def __init__(self, keys: Path) -> None:
        super().__init__(subnet=77)
        self.port = free_port()
        self._keys = keys

    def _command(self) -> list[str]:
        return [
            *super()._command(),
            f"--host=tcp://127.0.0.1:{self.port}",
            "--tlsverify",
            f"--tlscacert={self._keys / 'ca.crt'}",
            f"--tlscert={self._keys / 'server.crt'}",
            f"--tlskey={self._keys / 'server.key'}",
        ]


def make_keys(folder: Path) -> None:
    """A CA, and a server's and a client's certificate of it."""
    folder.mkdir()
    new_key = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    _openssl(folder, "req", "-x509", *new_key, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
    for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        (folder / "extensions").write_text(f"subjectAltName=DNS:localhost\nextendedKeyUsage={usage}\n")
        _openssl(folder, "req", *new_key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "request")
        signing = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions"]
        _openssl(folder, "x509", "-req", "-in", "request", *signing, "-out", f"{name}.crt")


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.mark.long
def test_dockerd_with_tls_is_reached_with_the_proxys_certificate(control: Controller, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys")
    dockerd = TlsDockerd(tmp_path / "keys")
    try:
        dockerd.start()
        with (
            Nginx(tmp_path, control.path, docker_port=dockerd.port, docker_keys=tmp_path / "keys") as nginx,
            client_of(nginx.docker) as client,
        ):
            assert client.get("/_ping").text == "OK"
            assert client.get("/containers/json").json() == []
            assert client.get("/_ping", auth=(USER, "wrong")).status_code == 401
    finally:
        dockerd.close()
