# SPDX-License-Identifier: GPL-2.0-or-later
"""A client behind a proxy that cuts every request after a while, on a slow line. It knows `/v1/transfers`."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


class CutClient:
    """`cuts` counts the requests that the proxy cut."""

    def __init__(self, path: Path, *, bytes_per_s: int, cut_s: float) -> None:
        self.cuts = 0
        self._path = path
        self._rate = bytes_per_s
        self._cut_s = cut_s

    def call(self, method: str, route: str, body: dict[str, Any] | None = None) -> Any:
        """A short request with JSON in both directions; returns the transfer if there is one."""
        connection = _Connection(self._path)
        try:
            connection.request(method, route, body=None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer = json.loads(response.read() or b"{}")
            assert response.status < 400, answer
            return answer.get("transfer", answer)
        finally:
            connection.close()

    def text(self, route: str) -> str:
        """The body of a short answer."""
        connection = _Connection(self._path)
        try:
            connection.request("GET", route)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def create(self, **body: Any) -> str:
        return str(self.call("POST", "/v1/transfers", body)["id"])

    def put(self, number: str, size: int, read: Callable[[int, int], bytes]) -> None:
        """Sends the data from `read(offset, length)` until all of `size` has been received."""
        while (offset := self.call("GET", f"/v1/transfers/{number}")["offset"]) < size:
            self._put_once(f"/v1/transfers/{number}/{offset}", offset, size, read)

    def _put_once(self, route: str, offset: int, size: int, read: Callable[[int, int], bytes]) -> None:
        begin, sent = time.monotonic(), 0
        connection = _Connection(self._path)
        try:
            connection.putrequest("PUT", route)
            connection.putheader("Content-Length", str(size - offset))
            connection.endheaders()
            while offset + sent < size:
                sent += self._send(connection, read(offset + sent, 32768))
                if self._pause(begin, sent):
                    return
            response = connection.getresponse()
            assert response.status == 200, response.read()
        finally:
            connection.close()

    def _send(self, connection: _Connection, piece: bytes) -> int:
        connection.send(piece)
        return len(piece)

    def get(self, number: str, take: Callable[[bytes], object], *, length: str = "all") -> int:
        """Passes every byte to `take`, once; returns the number of bytes."""
        have = 0
        while True:
            got, whole = self._get_once(f"/v1/transfers/{number}/{have}?length={length}", take)
            have += got
            if whole and (length == "all" or got < int(length)):
                return have

    def _get_once(self, route: str, take: Callable[[bytes], object]) -> tuple[int, bool]:
        begin, got = time.monotonic(), 0
        connection = _Connection(self._path)
        try:
            connection.request("GET", route)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            while piece := response.read1(32768):
                take(piece)
                got += len(piece)
                if self._pause(begin, got):
                    return got, False
            return got, True
        finally:
            connection.close()

    def _pause(self, begin: float, count: int) -> bool:
        """Limits the rate. True if the proxy has cut the request."""
        ahead = count / self._rate - (time.monotonic() - begin)
        if ahead > 0:
            time.sleep(ahead)
        if time.monotonic() - begin < self._cut_s:
            return False
        self.cuts += 1
        return True
