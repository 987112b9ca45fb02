# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of dockerd's own settings, on a dockerd that the agent runs in a separate network.

Peers without an agent: for `daemon-noop` reading and checking the same configuration; for `daemon-reload` writing the
file, SIGHUP and the engine's event; for `daemon-restart` SIGTERM and a new start with live-restore enabled.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from agent.engine.process import send_signal, wait_end
from agent.files.config import load
from benchmarks.lab import Lab
from benchmarks.result import Result, interleave
from tests.support.daemon_lab import DaemonLab, wait_for
from tests.support.netns import OwnNetwork

ROUNDS = 20
COUNT = 20


@contextlib.contextmanager
def _daemon() -> Iterator[DaemonLab]:
    lab = DaemonLab(OwnNetwork(f"uciddbench{os.getpid()}"))
    try:
        if not lab.apply("option live_restore '1'\n"):
            raise RuntimeError("dockerd does not run")
        yield lab
    finally:
        lab.close()


def noop(lab: Lab) -> Iterator[Result]:
    """daemon-noop: CPU time of a pass that has nothing to change."""
    del lab
    with _daemon() as daemon:
        desired = load(daemon.options).desired
        if desired is None:
            raise RuntimeError("the configuration cannot be read")
        ours = _cpu_ms(lambda: daemon.stage.reconcile(desired, busy=False))
        mine, reading = interleave(ours, _cpu_ms(lambda: load(daemon.options)), rounds=ROUNDS)
    yield Result(
        name="daemon-noop",
        ours=mine,
        peer=reading,
        unit="ms",
        goal="an unchanged commit costs less than 5 ms of CPU after parsing",
        met=mine < 5,
    )


def _cpu_ms(action: Callable[[], object]) -> Callable[[], float]:
    def measure() -> float:
        begun = time.thread_time()
        action()
        return (time.thread_time() - begun) * 1000

    return measure


def reload(lab: Lab) -> Iterator[Result]:
    """daemon-reload: from the commit to the engine's confirmation."""
    del lab
    with _daemon() as daemon:
        timeouts = itertools.cycle((20, 21))

        def ours() -> float:
            daemon.write(f"option live_restore '1'\noption shutdown_timeout '{next(timeouts)}'\n")
            begun = time.perf_counter()
            daemon.apply()
            return (time.perf_counter() - begun) * 1000

        def bare() -> float:
            begun = time.perf_counter()
            daemon.daemon_json.write_bytes(daemon.daemon_json.read_bytes())
            with daemon.probe.reload_events(5) as events:
                send_signal(daemon.process, signal.SIGHUP)
                if events.wait(5) is None:
                    raise RuntimeError("the reload was not confirmed")
            return (time.perf_counter() - begun) * 1000

        mine, floor = interleave(ours, bare, rounds=ROUNDS)
    yield Result(
        name="daemon-reload",
        ours=mine,
        peer=floor,
        unit="ms",
        goal="a reloadable change is confirmed within 300 ms",
        met=mine < 300,
    )


def restart(lab: Lab) -> Iterator[Result]:
    """daemon-restart: time without an answer while containers run, all of which keep their processes."""
    del lab
    with _daemon() as daemon:
        pids = {name: daemon.run_container(name) for name in (f"c{n}" for n in range(COUNT))}
        levels = itertools.cycle(("info", "warn"))

        def commit() -> None:
            daemon.apply(f"option live_restore '1'\noption log_level '{next(levels)}'\n")

        mine, floor = interleave(
            lambda: _silence(daemon, commit),
            lambda: _silence(daemon, lambda: _restart_without_agent(daemon)),
            rounds=3,
        )
        kept = all(daemon.pid_of(name) == pid for name, pid in pids.items())
    yield Result(
        name="daemon-restart",
        ours=mine,
        peer=floor,
        unit="s",
        goal=f"less than 3 s without API with {COUNT} containers, which keep their processes",
        met=mine < 3 and kept,
    )


def _restart_without_agent(daemon: DaemonLab) -> None:
    process = daemon.process
    send_signal(process, signal.SIGTERM)
    wait_end(process, 30)
    words = [str(daemon.program), f"--config-file={daemon.daemon_json}", f"--exec-root={daemon.root}/exec"]
    subprocess.Popen(
        [*words, f"--pidfile={daemon.root}/dockerd.pid"], stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for(daemon.probe.answers)


def _silence(daemon: DaemonLab, action: Callable[[], object]) -> float:
    """The longest time in which the engine did not answer, in seconds."""
    longest, ended = 0.0, threading.Event()

    def ask() -> None:
        nonlocal longest
        last = time.monotonic()
        while not ended.wait(0.01):
            if daemon.probe.answers():
                longest, last = max(longest, time.monotonic() - last), time.monotonic()

    asking = threading.Thread(target=ask)
    asking.start()
    action()
    time.sleep(0.1)
    ended.set()
    asking.join()
    return longest
