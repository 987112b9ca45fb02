# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy in front of a real registry: counts requests and answers some of them itself, like large public registries.

It speaks TLS if it has a certificate, and can also be an HTTP proxy (absolute URLs and CONNECT).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import socket
import ssl
import tarfile
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Request:
    """One request as it was received; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]


Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Front:
    """`answer`: returns the answer in place of the registry, None to forward the request. `headers`: added to the
    registry's answers."""

    port: int  # the registry's
    tls: tuple[Path, Path] | None = None  # certificate, key
    answer: Callable[[Request], Answer | None] = lambda request: None
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    tunnels: list[str] = field(default_factory=list)  # hosts in CONNECT requests

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up
        if self.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def count(self, *, method: str = "", path: str = "") -> int:
        """The number of requests with that method whose path contains that text."""
        return sum((not method or r.method == method) and path in r.path for r in list(self.requests))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            if front.tls is None and self.connection.recv(1, socket.MSG_PEEK) == b"\x16":
                # Go's servers answer a TLS client like this; engines then try without TLS
                self.connection.recv(65536)
                self.connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                return
            super().handle()

        def _any(self) -> None:
            parts = urlsplit(self.path)
            headers = {n.lower(): ", ".join(self.headers.get_all(n, [])) for n in self.headers}
            asked = Request(self.command, self.path, headers)
            front.requests.append(asked)
            length = int(headers.get("content-length") or 0)
            body = self.rfile.read(length)
            said = front.answer(asked)
            if said is None:
                port = parts.port if parts.scheme else front.port
                host = parts.hostname if parts.scheme else "127.0.0.1"
                passed = http.client.HTTPConnection(host or "", port or 80, timeout=30)
                path = parts._replace(scheme="", netloc="").geturl()
                sent = {name: value for name, value in headers.items() if name != "connection"}
                passed.request(self.command, path, body or None, sent)
                answer = passed.getresponse()
                kept = {n: v for n, v in answer.getheaders() if n.lower() not in _HOP}
                said = (answer.status, {**kept, **front.headers}, answer.read())
                passed.close()
            status, found, content = said
            self.send_response_only(status)
            names = {name.lower() for name in found}
            for name, value in found.items():
                self.send_header(name, value)
            if "content-length" not in names:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _any

        def do_CONNECT(self) -> None:
            front.tunnels.append(self.path)
            front.requests.append(Request("CONNECT", self.path, dict(self.headers.items())))
            host, _, port = self.path.rpartition(":")
            far = socket.create_connection((host, int(port)))
            self.send_response_only(200)
            self.end_headers()
            there = threading.Thread(target=_carry, args=(self.connection, far), daemon=True)
            there.start()
            _carry(far, self.connection)
            self.close_connection = True

        def log_message(self, *words: Any) -> None:
            del words

    return Handler


_HOP = frozenset({"connection", "transfer-encoding"})


def _carry(source: socket.socket, sink: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def bearer(realm: str, *, user: str = "", password: str = "") -> Callable[[Request], Answer | None]:
    """Docker Hub's scheme: requires a token for the repository, which `realm` issues for this login, or for anyone."""

    def answer(asked: Request) -> Answer | None:
        if asked.path.startswith("/token"):
            if user and asked.headers.get("authorization") != basic_header(user, password):
                return 401, {}, b"{}"
            scope = asked.path.partition("scope=")[2].partition("&")[0]
            return 200, {"Content-Type": "application/json"}, json.dumps({"token": f"t-{scope}"}).encode()
        name = asked.path.removeprefix("/v2/").partition("/manifests/")[0].partition("/blobs/")[0]
        wanted = f"Bearer t-repository%3A{name.replace('/', '%2F')}%3Apull"
        if asked.headers.get("authorization") == wanted:
            return None
        said = f'Bearer realm="{realm}",service="the service",scope="repository:{name}:pull"'
        return 401, {"WWW-Authenticate": said}, b'{"errors":[{"code":"UNAUTHORIZED"}]}'

    return answer


def basic_header(user: str, password: str) -> str:
    """The Authorization header for a login."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def publish(
    address: str,
    name: str,
    tag: str,
    *,
    words: str = "one",
    size: int = 0,
    architecture: str = "amd64",
    login: str = "",
) -> str:
    """Pushes an image with one layer that contains a file of `size` bytes; returns the digest of its manifest."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = size
        tar.addfile(entry, io.BytesIO(bytes(size)))
    plain = packed.getvalue()
    layer = gzip.compress(plain, mtime=0)
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Labels": {"words": words}},
            "rootfs": {"type": "layers", "diff_ids": [_sha(plain)]},
        }
    ).encode()
    for blob in (layer, config):
        _push_blob(address, name, blob, login)
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": _sha(config), "size": len(config)},
        "layers": [{"mediaType": _LAYER, "digest": _sha(layer), "size": len(layer)}],
    }
    return put_manifest(address, name, tag, body, login=login)


def publish_index(address: str, name: str, tag: str, digests: dict[str, str], *, words: str = "") -> str:
    """Pushes an index of existing manifests by architecture; returns its digest."""
    manifests = []
    for architecture, digest in digests.items():
        with urllib.request.urlopen(
            urllib.request.Request(
                f"http://{address}/v2/{name}/manifests/{digest}", headers={"Accept": MANIFEST}
            )
        ) as answer:
            size = len(answer.read())
        platform = {"os": "linux", "architecture": architecture}
        manifests.append({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform})
    body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": {"words": words}}
    return put_manifest(address, name, tag, body)


def put_manifest(address: str, name: str, tag: str, body: dict[str, Any], *, login: str = "") -> str:
    """Pushes a manifest or an index; returns its digest."""
    data = json.dumps(body).encode()
    headers = {"Content-Type": body["mediaType"]} | ({"Authorization": login} if login else {})
    url = f"http://{address}/v2/{name}/manifests/{tag}"
    urllib.request.urlopen(urllib.request.Request(url, data, headers, method="PUT")).close()
    return _sha(data)


def _push_blob(address: str, name: str, blob: bytes, login: str) -> None:
    headers = {"Authorization": login} if login else {}
    begin = urllib.request.Request(f"http://{address}/v2/{name}/blobs/uploads/", b"", headers, method="POST")
    with urllib.request.urlopen(begin) as answer:
        place = answer.headers["Location"]
    place = place if "://" in place else f"http://{address}{place}"
    url = place + ("&" if "?" in place else "?") + f"digest={_sha(blob)}"
    headers = {**headers, "Content-Type": "application/octet-stream"}
    urllib.request.urlopen(urllib.request.Request(url, blob, headers, method="PUT")).close()


def _sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
