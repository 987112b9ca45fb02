# SPDX-License-Identifier: GPL-2.0-or-later
"""Downtime while a container is replaced: from the last answer of the old one to the first answer of the new one.

Peer: stopping and starting a container with the bare calls, on the same bridge. No replacement can be faster, because
two containers cannot share an address or port. Measured by TCP connections to the container's fixed address.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator

from benchmarks.bare import Bare
from benchmarks.lab import Lab, must_be_fine
from benchmarks.result import Result, interleave
from tests.support.dockerd import BUSYBOX

ROUNDS = 11
RATIO = 1.15
_NETWORK = "downtime"
_OURS, _THEIRS = "10.219.90.10", "10.219.90.11"
_STEP_S = 0.001
_SECTIONS = f"""
config network '{_NETWORK}'
	list subnet '10.219.90.0/24'
	list ip_range '10.219.90.128/25'

config container 'web'
	option image '{BUSYBOX}'
	option command 'httpd -f -p 80'
	option stop_timeout '0'
	option gate '0'
	list network '{_NETWORK},ip={_OURS}'
"""


def run(lab: Lab) -> Iterator[Result]:
    """recreate-downtime."""
    lab.empty()
    fleet = lab.fresh()
    fleet.commit(0, before=_SECTIONS)
    fleet.apply()
    reconciler = fleet.reconciler()
    connection = Bare(str(lab.engine.socket))
    _make_peer(connection)
    rounds = itertools.count(1)

    def ours() -> float:
        fleet.commit(0, before=f"{_SECTIONS}\tlist env 'ROUND={next(rounds)}'\n")
        reconciler.read_config()

        def replace() -> None:
            plan, outcomes = reconciler.run_pass(deep=frozenset())
            must_be_fine([outcome.error for outcome in outcomes])
            if [operation.verb for operation in plan.operations] != ["replace"]:
                raise RuntimeError(f"not a replacement: {plan}")

        return _gap_ms(_OURS, replace)

    def theirs() -> float:
        def restart() -> None:
            connection.call("POST", "/containers/peer/stop", t="0")
            connection.call("POST", "/containers/peer/start")

        return _gap_ms(_THEIRS, restart)

    try:
        mine, peer = interleave(ours, theirs, rounds=ROUNDS)
    finally:
        connection.close()
        lab.empty()
    yield Result(
        name="recreate-downtime",
        ours=mine,
        peer=peer,
        unit="ms",
        goal=f"at most {RATIO} of stop and start",
        met=mine <= RATIO * peer,
    )


def _make_peer(connection: Bare) -> None:
    body = {
        "Image": BUSYBOX,
        "Cmd": ["httpd", "-f", "-p", "80"],
        "HostConfig": {"NetworkMode": _NETWORK},
        "NetworkingConfig": {"EndpointsConfig": {_NETWORK: {"IPAMConfig": {"IPv4Address": _THEIRS}}}},
    }
    connection.call("POST", "/containers/create", body, name="peer")
    connection.call("POST", "/containers/peer/start")


def _gap_ms(address: str, act: Callable[[], None]) -> float:
    """The longest time without an answer while `act` runs, in milliseconds."""
    moments = [_next_answer(address)]
    over = threading.Event()

    def probe() -> None:
        while not over.is_set():
            if _answers(address):
                moments.append(time.perf_counter())
            time.sleep(_STEP_S)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        act()
        moments.append(_next_answer(address))
    finally:
        over.set()
        thread.join()
    ordered = sorted(moments)
    return max(b - a for a, b in itertools.pairwise(ordered)) * 1000


def _next_answer(address: str, limit_s: float = 30.0) -> float:
    deadline = time.perf_counter() + limit_s
    while not _answers(address):
        if time.perf_counter() > deadline:
            raise RuntimeError(f"{address} does not answer")
        time.sleep(_STEP_S)
    return time.perf_counter()


def _answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 80), timeout=0.02):
            return True
    except OSError:
        return False
