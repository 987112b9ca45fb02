# SPDX-License-Identifier: GPL-2.0-or-later
"""A real web server on a loopback port that receives notices and can be made to misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Receiver:
    """`with Receiver() as receiver:`; received requests are in `got`: path, headers, body. `answers`: for the next
    requests."""

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.got: list[tuple[str, dict[str, str], str]] = []
        self.answers: list[int | str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                receiver.got.append((self.path, dict(self.headers), body))
                receiver.answer(self, receiver.answers.pop(0) if receiver.answers else 200)

            def log_message(self, *args: Any) -> None:
                del args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.scheme = "https"
        self._ends = threading.Event()

    def answer(self, handler: BaseHTTPRequestHandler, how: int | str) -> None:
        """Answers with a status, a redirect to an address, or `hang`, `drip`, `huge`, `rubbish`, `later`."""
        if isinstance(how, int):
            handler.send_response(how)
            handler.end_headers()
            repeated = f"{handler.path} {handler.headers.get('authorization', '')}"
            handler.wfile.write(f"said\x1b[31m so of {repeated}".encode())
        elif how == "hang":
            self._ends.wait(30)
        elif how == "drip":
            for letter in "HTTP/1.1 200 OK\r\nX: " + "x" * 1000:
                handler.wfile.write(letter.encode())
                handler.wfile.flush()
                if self._ends.wait(0.1):
                    return
        elif how == "huge":
            handler.send_response(500)
            handler.send_header("Content-Length", str(10**12))
            handler.end_headers()
            try:
                while not self._ends.is_set():
                    handler.wfile.write(b"x" * 100_000)
            except OSError:
                return
        elif how == "rubbish":
            handler.wfile.write(b"\x00\x01 no HTTP\r\n\r\n")
        elif how == "later":
            handler.send_response(429)
            handler.send_header("Retry-After", "7")
            handler.end_headers()
        else:
            handler.send_response(307)
            handler.send_header("Location", str(how))
            handler.end_headers()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self._server.server_address[1]}{path}"

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.got]

    def events(self) -> list[str]:
        return [str(document["event"]) for document in self.documents()]

    def wait_for(self, count: int, limit_s: float = 15) -> None:
        end = time.monotonic() + limit_s
        while len(self.got) < count:
            assert time.monotonic() < end, f"only {len(self.got)} of {count} came"
            time.sleep(0.02)

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._server.shutdown()
        self._server.server_close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A new certificate for 127.0.0.1, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    make = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=t -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


@contextlib.contextmanager
def answering(answer: bytes, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that reads something, sends the bytes to each client and keeps the connection; returns its port."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as clients:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client = server.accept()[0]
                    client = tls.wrap_socket(client, server_side=True) if tls is not None else client
                    clients.enter_context(client)
                    client.recv(65536)
                    client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
