# SPDX-License-Identifier: GPL-2.0-or-later
"""The real application on real TCP listeners of loopback addresses, with sessions that a test grants and revokes.

Each client has its own address (127.9.x.y), so that limits by address do not connect different tests.
"""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.websockets import WebSocket, WebSocketDisconnect

from agent.api.access.access import Access, Subnets
from agent.api.access.connection import ConnectionLimits
from agent.api.access.listeners import Listeners
from agent.api.access.tcp import ControlServer
from agent.api.app import assemble, make_rules
from agent.api.rules import READER, WEBSOCKET, Need, Rule, read, write
from agent.engine.stream import DockerStream
from agent.errors import BusError
from agent.model.addresses import parse_listen
from agent.model.resources import AgentSettings
from tests.support.controller import Controller, LoopThread, QuietAgent, data_in, read_all
from tests.support.scripted_engine import ScriptedEngine

READ, WRITE, ENDED, ZERO = "a" * 31 + "1", "b" * 31 + "2", "c" * 31 + "3", "0" * 32
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
CORS = "https://router.lan"
NETWORKS: list[dict[str, Any]] = [
    {"Id": "n1", "Name": "bridge", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "127.172.0.0/16"}]}},
]

_clients = itertools.count(256)


def new_client() -> str:
    """A loopback address that no other client uses."""
    number = next(_clients)
    return f"127.9.{number // 250}.{number % 250 + 1}"


class GivenSessions:
    """Sessions: a reader, a writer, and those that a test adds. rpcd would accept the zero session."""

    def __init__(self) -> None:
        self.silent = False
        self.asked: list[str] = []
        self.rights = {READ: Need.READ, WRITE: Need.WRITE, ZERO: Need.WRITE}
        self.readable = {(READER.object, READER.method)}

    async def allowed(self, session: str, object: str, method: str) -> bool:  # noqa: A002
        self.asked.append(session)
        if self.silent:
            raise BusError("rpcd does not answer")
        need = self.rights.get(session)
        return need is Need.WRITE or (need is Need.READ and (object, method) in self.readable)


class Clock:
    """Monotonic seconds that a test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def engine_script(connection: socket.socket, head: bytes) -> None:
    """Answers with networks, and with the form of an inspected container for everything else."""
    body = json.dumps(NETWORKS if head.startswith(b"GET /networks ") else {"Config": {"Tty": True}}).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def echo(websocket: WebSocket) -> None:
    """First sends "writer" or "reader", then echoes."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        return


ECHOES = [
    Rule(method=WEBSOCKET, path="/v1/echo/{id}/ws", grant=read("test", "echo"), handler=echo, summary="Echo"),
    Rule(method=WEBSOCKET, path="/v1/wecho/ws", grant=write("test", "wecho"), handler=echo, summary="Echo"),
]


class TcpController:
    """The served application. `control` is its control socket."""

    def __init__(self, engine: ScriptedEngine, folder: Path, app: Any = None) -> None:
        self.engine = engine
        self.thread = LoopThread()
        self.sessions = GivenSessions()
        self.clock = Clock()
        self.agent = QuietAgent()
        stream = DockerStream(engine.url)
        self.access = Access(self.sessions, Subnets(stream), clock=self.clock, hostname=lambda: "router")
        self.rules = [
            *make_rules(self.agent, stream, self.access, data=data_in(folder, self.agent, stream)),
            *ECHOES,
        ]
        self.sessions.readable |= {
            (rule.grant.object, rule.grant.method) for rule in self.rules if rule.grant.need is Need.READ
        }
        self.app = assemble(self.rules, self.access)
        self._control = ControlServer(self.app, folder / "c" / "agent.sock")
        self.thread.run(self._start())
        self.control = Controller(folder / "c" / "agent.sock", self.agent)
        self.settings = AgentSettings()

    async def _start(self) -> None:
        await self._control.__aenter__()
        self.listeners = Listeners(self.app, self.access, self.agent.board, wan=frozenset)
        await self.listeners.__aenter__()

    def want(self, *listen: str, **more: Any) -> list[str]:
        """Applies an agent section; returns the state of each listener."""
        self.settings = AgentSettings(listen=tuple(parse_listen(text) for text in listen), **more)
        self.thread.run(self.listeners._follow(self.settings))
        self.listeners._wanted = self.settings
        return [state["state"] for state in self.agent.board.snapshot()["agent"].get("listen", [])]

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return self.listeners._servers[self.settings.listen[0]].port

    @property
    def limits(self) -> ConnectionLimits:
        """The limits of the first listener."""
        return self.listeners._servers[self.settings.listen[0]]._limits

    @property
    def ip(self) -> str:
        return str(self.settings.listen[0].ip)

    def asked(self) -> list[bytes]:
        """Request lines that the engine received, except those about its networks and version."""
        lines = [head.partition(b"\r\n")[0] for head in self.engine.heads]
        return [line for line in lines if line.split(b" ")[1] not in (b"/networks", b"/version")]

    def client(self, session: str = "", address: str = "", **more: Any) -> httpx.Client:
        headers = {"authorization": f"Bearer {session}"} if session else {}
        transport = httpx.HTTPTransport(
            local_address=address or new_client(), verify=more.pop("verify", False)
        )
        scheme = more.pop("scheme", "http")
        return httpx.Client(
            transport=transport, base_url=f"{scheme}://{self.ip}:{self.port}", headers=headers, timeout=10
        )

    def connect(self, address: str = "") -> socket.socket:
        made = socket.create_connection((self.ip, self.port), 10, (address or new_client(), 0))
        made.settimeout(10)
        return made

    def raw(self, data: bytes, address: str = "") -> bytes:
        """Sends bytes on a separate connection; returns everything until the server closes it."""
        with self.connect(address) as made:
            made.sendall(data)
            return read_all(made)

    def status(self, data: bytes | str, address: str = "", connection: socket.socket | None = None) -> int:
        """The status of the answer to a request; 0 if the connection is closed without one."""
        made = connection or self.connect(address)
        try:
            made.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))
            line = head_of(made).partition(b"\r\n")[0].split(b" ")
        finally:
            if connection is None:
                made.close()
        return int(line[1]) if len(line) > 1 else 0

    def host(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    def upgrade(self, target: str, headers: str = "", *, address: str = "", host: str | None = None) -> int:
        """The status of a WebSocket handshake; the connection is closed."""
        text = f"GET {target} HTTP/1.1\r\nHost: {self.host() if host is None else host}\r\n{UPGRADE}{headers}\r\n"
        return self.status(text, address)

    def ticket(self, path: str, *, session: str = READ, address: str) -> str:
        with self.client(session, address) as client:
            answer = client.post("/v1/tickets", json={"path": path})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["ticket"])

    def close(self) -> None:
        self.control.client.close()
        self.thread.run(self.listeners.__aexit__(None, None, None))
        self.thread.run(self._control.__aexit__(None, None, None))
        self.thread.close()


def head_of(connection: socket.socket) -> bytes:
    """The head of an answer, b"" if there is none."""
    head = b""
    try:
        while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
            head += piece
    except ConnectionResetError:
        pass
    return head


@contextmanager
def serving_tcp(folder: Path, *listen: str, **settings: Any) -> Iterator[TcpController]:
    """The application on `listen`, with an engine that only counts."""
    engine = ScriptedEngine(folder / "engine.sock", engine_script)
    made = TcpController(engine, folder)
    try:
        states = made.want(*listen, **settings)
        assert set(states) <= {"Listening"}, states
        yield made
    finally:
        made.close()
        engine.close()


def make_certificate(folder: Path, name: str, *, der: str = "", key: str = "ec") -> tuple[Path, Path]:
    """A self-signed certificate for `name`, and its key: PEM, or DER with a `traditional` or a `pkcs8` key."""
    cert, secret = folder / f"{name}.crt", folder / f"{name}.key"
    kind = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if key == "ec" else ["rsa:2048"]
    command = ["openssl", "req", "-x509", "-nodes", "-days", "30", "-newkey", *kind, "-subj", f"/CN={name}"]
    subprocess.run([*command, "-keyout", secret, "-out", cert], check=True, capture_output=True)
    if der:
        for path, tool in (
            (cert, ["x509"]),
            (secret, ["pkey", *(["-traditional"] if der == "traditional" else [])]),
        ):
            pem = path.rename(path.with_suffix(".pem"))
            command = ["openssl", *tool, "-in", str(pem), "-outform", "der", "-out", str(path)]
            subprocess.run(command, check=True, capture_output=True)
    return cert, secret


def served_name(host: str, port: int) -> str:
    """The common name of the certificate that a listener presents now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), 10, (new_client(), 0)) as raw,
        context.wrap_socket(raw) as made,
    ):
        shown = made.getpeercert(binary_form=True)
    assert shown is not None
    text = subprocess.run(
        ["openssl", "x509", "-inform", "der", "-noout", "-subject"],
        input=shown,
        capture_output=True,
        check=True,
    )
    return text.stdout.decode().strip().rpartition("=")[2].strip()
