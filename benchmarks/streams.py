# SPDX-License-Identifier: GPL-2.0-or-later
"""The resident memory that 50 streams of logs and events need while 10 of their readers do not read.

A container has printed 8 MiB and then prints a line each second. Readers that read get everything; for the others the
engine has to hold it back. Peer: nginx without buffering, with the same streams.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bare import Bare
from benchmarks.lab import Lab
from benchmarks.nginx import nginx
from benchmarks.processes import begin_peak, peak_kib, resident_kib
from benchmarks.result import Result
from tests.support.dockerd import BUSYBOX

LOGS, EVENTS, STUCK = 30, 10, 10
LIMIT_KIB = 12 * 1024
PRINTED = 8 * 1024 * 1024
_LOGGER = "logger"
_PROGRAM = (
    f"busybox head -c {PRINTED} /dev/zero | busybox tr '\\0' x | busybox fold -w 1023;"
    " while :; do sleep 1; echo x; done"
)
_DEADLINE_S = 90.0


def run(lab: Lab) -> Iterator[Result]:
    """streams."""
    lab.empty()
    _start_logger(lab)
    fleet = lab.fresh()
    fleet.commit(0)
    query = "?follow=1&stdout=1"
    with fleet.agent() as agent, nginx(lab.folder / "nginx-streams", lab.engine.socket) as peer:
        control = Path(str(fleet.options().socket))
        mine = _growth(agent.pid, control, f"/v1/containers/{_LOGGER}/logs{query}", "/v1/events")
        theirs = _growth(peer.pid, peer.socket, f"/containers/{_LOGGER}/logs{query}", "/events")
    lab.empty()
    yield Result(
        name="streams",
        ours=mine,
        peer=max(theirs, 4),
        unit="KiB",
        goal=f"{LOGS + EVENTS + STUCK} streams take less than {LIMIT_KIB} KiB",
        met=mine < LIMIT_KIB,
    )


def _growth(pid: int, path: Path, logs: str, events: str) -> int:
    """The growth in KiB at the worst moment."""
    with _open(path, logs) as first, _open(path, events):  # the first stream of each kind loads code
        _read_all([first])
    begin_peak(pid)
    before = resident_kib(pid)
    with contextlib.ExitStack() as stack:
        for _ in range(STUCK):
            stack.enter_context(_open(path, logs))
        readers = [stack.enter_context(_open(path, logs)) for _ in range(LOGS)]
        for _ in range(EVENTS):
            stack.enter_context(_open(path, events))
        _read_all(readers)
        return peak_kib(pid) - before


def _open(path: Path, target: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(str(path))
    made.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return made


def _read_all(readers: list[socket.socket]) -> None:
    """Reads until each reader has received what was printed. Raises RuntimeError if that takes too long."""
    deadline = time.monotonic() + _DEADLINE_S
    left = dict.fromkeys(readers, PRINTED)
    buffer = bytearray(256 * 1024)
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader, selectors.EVENT_READ)
        while left:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(left)} of {len(readers)} streams did not come in {_DEADLINE_S:g} s")
            for key, _ in selector.select(1):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                size = ready.recv_into(buffer)
                if size == 0:
                    raise RuntimeError("a stream ended early")
                left[ready] -= size
                if left[ready] <= 0:
                    del left[ready]
                    selector.unregister(ready)


def _start_logger(lab: Lab) -> None:
    connection = Bare(str(lab.engine.socket))
    body = {
        "Image": BUSYBOX,
        "Cmd": ["sh", "-c", _PROGRAM],
        "HostConfig": {"NetworkMode": "none"},
    }
    connection.call("POST", "/containers/create", body, name=_LOGGER)
    connection.call("POST", f"/containers/{_LOGGER}/start")
    connection.close()
    with _open(lab.engine.socket, f"/containers/{_LOGGER}/logs?follow=1&stdout=1") as reader:
        _read_all([reader])  # returns when the container has printed everything
