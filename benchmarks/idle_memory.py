# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of an idle agent with 100 containers: after a start and a few commits, and after all features were used.

Peer: an interpreter with only the agent's third-party imports.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from websockets.sync.client import unix_connect

from benchmarks.bare import Bare
from benchmarks.lab import Fleet, Lab, name_of, wait_for, wait_until_idle
from benchmarks.processes import rollup
from benchmarks.result import Result
from tests.support.tcp import make_certificate

COUNT = 100
LIMIT_KIB = 46 * 1024
LIMIT_ASKED_KIB = 50 * 1024
LIMIT_ALL_KIB = 56 * 1024
PORT = 29380
_PEER = "import docker, jsonschema, watchdog"
_PEER_ALL = f"{_PEER}, starlette, uvicorn, h11, websockets, ssl"


def run(lab: Lab) -> Iterator[Result]:
    """idle-memory (resident set) and idle-memory-pss (shared pages divided among their users)."""
    fleet = lab.fleet(COUNT)
    with fleet.agent() as process:
        # after the start and a few commits, as on a running router
        for number in range(5):
            fleet.commit_again(str(number))
            time.sleep(1)
        mine = rollup(process.pid)
        asked = _asked_for_status(fleet, process.pid)
    peer = _bare_interpreter(_PEER)
    for name, field in (("idle-memory", "Rss"), ("idle-memory-pss", "Pss")):
        yield Result(
            name=name,
            ours=mine[field],
            peer=peer[field],
            unit="KiB",
            goal=f"under {LIMIT_KIB} KiB",
            met=mine[field] < LIMIT_KIB,
            note=f"once it was asked for its status: {asked[field]} KiB",
        )
    yield Result(
        name="idle-memory-asked",
        ours=asked["Rss"],
        peer=peer["Rss"],
        unit="KiB",
        goal=f"under {LIMIT_ASKED_KIB} KiB",
        met=asked["Rss"] < LIMIT_ASKED_KIB,
    )


def _asked_for_status(fleet: Fleet, pid: int) -> dict[str, int]:
    """The memory after a status request: the web server is loaded with its first client."""
    connection = Bare(str(fleet.options().socket), prefix="", api="")
    connection.call("GET", "/v1/status")
    connection.close()
    wait_until_idle(pid)
    return rollup(pid)


def run_all(lab: Lab) -> Iterator[Result]:
    """idle-memory-all: with a TLS listener, and after console, streams, job, transfer and engine API were used."""
    fleet = lab.fleet(COUNT)
    with fleet.agent() as process:
        cert, key = make_certificate(fleet.folder, "localhost")
        _listen(fleet, f"127.0.0.1:{PORT}", cert, key)
        wait_until_idle(process.pid)
        for number in range(5):
            fleet.commit_again(str(number))
            time.sleep(1)
        _use_all(Path(str(fleet.options().socket)))
        wait_until_idle(process.pid)
        mine = rollup(process.pid)
    fleet.commit(COUNT)
    peer = _bare_interpreter(_PEER_ALL)
    yield Result(
        name="idle-memory-all",
        ours=mine["Rss"],
        peer=peer["Rss"],
        unit="KiB",
        goal=f"under {LIMIT_ALL_KIB} KiB",
        met=mine["Rss"] < LIMIT_ALL_KIB,
        note=f"without shared pages of others: {mine['Pss']} KiB",
    )


def _listen(fleet: Fleet, address: str, cert: Path, key: Path) -> None:
    """Adds an agent section with a listener. Raises RuntimeError if it does not start to listen."""
    options = f"\tlist listen '{address}'\n\toption cert '{cert}'\n\toption key '{key}'\n"
    fleet.commit(COUNT, before=f"config agent 'agent'\n{options}\n")
    host, _, port = address.partition(":")
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False

    def greeted() -> bool:
        try:
            with (
                socket.create_connection((host, int(port)), 5) as plain,
                context.wrap_socket(plain, server_hostname="localhost"),
            ):
                return True
        except OSError:
            return False

    wait_for(greeted, "the TLS listener", 20)


def _use_all(control: Path) -> None:
    """Uses each feature that loads code or takes memory at first use. Raises RuntimeError for an error."""
    connection = Bare(str(control), prefix="", api="")
    container = name_of(0)
    for path in ("/v1/status", "/v1/plan", "/v1/jobs", "/docker/containers/json", "/docker/info"):
        connection.call("GET", path)
    for path in ("/metrics", f"/v1/containers/{container}/export", f"/v1/containers/{container}/logs"):
        connection.fetch(path)
    connection.call("POST", "/v1/reconcile")
    connection.call("POST", "/v1/jobs", {"kind": "prune", "what": "images"})
    console = connection.call("POST", f"/v1/containers/{container}/exec", {"command": ["true"], "tty": True})
    connection.close()
    with unix_connect(str(control), uri=f"ws://localhost/v1/exec/{console['id']}/ws") as web_socket:
        for _ in web_socket:
            pass


def _bare_interpreter(imports: str) -> dict[str, int]:
    program = f"{imports}; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = rollup(process.pid)
        process.communicate(b"\n")
    return found
