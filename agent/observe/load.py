# SPDX-License-Identifier: GPL-2.0-or-later
"""Samples the load of containers: from kernel files if the engine is on this machine, otherwise from the engine.

Reading the files of one container is five small reads. The engine's `stats` reads the same files plus disk counters,
and takes a second sample itself unless told not to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.engine.stream import DockerStream
from agent.errors import ConfigError, EngineError
from agent.model.identity import Key
from agent.status.board import StatusBoard
from agent.status.conditions import runs
from agent.status.metrics import (
    CONTAINERS_MAX,
    STEP_S,
    Counters,
    LoadHistory,
    Metric,
    load_between,
    load_metrics,
)

logger = logging.getLogger(__name__)

_APART_S = 1.0  # between two samples, whose difference is the load
_KEPT_S = 2.0  # an answer is reused for this long
_AT_ONCE = 4
_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_UNLIMITED = 1 << 60  # cgroup v1 writes the largest number of pages for "no limit"
_STATS = (("stream", "false"), ("one-shot", "true"))  # since API 1.41


@dataclass(frozen=True, slots=True)
class _Files:
    """The kernel's files for one container. `network` is None if it has no network of its own."""

    pid: int
    usage: Path
    memory: Path
    stat: Path
    limit: Path
    network: Path | None


class Loads:
    """Samples the load and keeps its history. `wanted`: whether to keep history. `is_here`: whether the engine is on
    this machine."""

    def __init__(
        self, engine: DockerStream, board: StatusBoard, *, wanted: Callable[[], bool], is_here: bool
    ) -> None:
        self._engine, self._board, self._wanted, self._is_here = engine, board, wanted, is_here
        self._history = LoadHistory()
        self._files: dict[str, _Files | None] = {}  # by container id; None: its files cannot be read
        self._answer: tuple[float, dict[str, Any]] = (-math.inf, {})
        self._asking = asyncio.Lock()

    async def run(self) -> None:
        """Takes samples until it is cancelled."""
        while True:
            try:
                if self._wanted():
                    self._history.keep(self._sections())
                    self._history.add(await self._sample())
                else:
                    self._history.clear()
            except EngineError as exc:
                # a gap in the history; the next sample is due soon
                logger.debug("load: %s", exc)
            # at multiples of the step, so that the time that samples take does not add up
            await asyncio.sleep(STEP_S - time.monotonic() % STEP_S)

    async def now(self) -> dict[str, Any]:
        """The present load of all running containers, from two samples one second apart. `containers` by key."""
        # clients that ask at the same time share one pair of samples
        async with self._asking:
            if time.monotonic() - self._answer[0] > _KEPT_S:
                before = await self._sample()
                await asyncio.sleep(_APART_S)
                after = await self._sample()
                shown = {Key("container", s): self._shown(s, before.get(s), c) for s, c in after.items()}
                self._answer = (time.monotonic(), {"history": self._wanted(), "containers": shown})
        return self._answer[1]

    def of(self, name: str, *, hours: float) -> dict[str, Any]:
        """The history of one section, by its name or its Docker name. Raises ConfigError."""
        section = next((s for s, each in self._containers().items() if name in (s, each["name"])), "")
        if not section:
            raise ConfigError(
                f"{name[:64]}: no container section has this name; `ucidockd status` lists them"
            )
        return {
            "section": section,
            "history": self._wanted(),
            **self._history.show(section, hours=hours, now=time.monotonic(), wall=time.time()),
        }

    def metrics(self) -> list[Metric]:
        """The metrics of the last sample."""
        restarts = {s: int(each["restarts"]) for s, each in self._containers().items() if "restarts" in each}
        return load_metrics(self._history.last(), restarts)

    def _shown(self, section: str, before: Counters | None, now: Counters) -> dict[str, Any]:
        load = load_between(before, now)
        return {
            "cpu_percent": _known(load.cpu),
            "memory_bytes": now.memory,
            "memory_limit_bytes": now.limit,
            "rx_bytes_per_s": _known(load.rx),
            "tx_bytes_per_s": _known(load.tx),
            "restarts": self._board.fact(Key("container", section), "restarts") or 0,
        }

    def _containers(self) -> dict[str, dict[str, Any]]:
        found = (self._board.resource(key) for key in self._board.keys())  # noqa: SIM118 - not a dict
        return {r["section"]: r for r in found if r is not None and r["kind"] == "container"}

    def _sections(self) -> frozenset[str]:
        return frozenset(self._containers())

    async def _sample(self) -> dict[str, Counters]:
        """Counters by section, for running containers."""
        running = {
            s: r["object_id"] for s, r in sorted(self._containers().items()) if r["object_id"] and runs(r)
        }
        # limited, because each container's history takes memory
        running = dict(list(running.items())[:CONTAINERS_MAX])
        self._files = {key: value for key, value in self._files.items() if key in running.values()}
        found = await asyncio.to_thread(self._read_files, running) if self._is_here else {}
        places = asyncio.Semaphore(_AT_ONCE)

        async def ask(section: str, object_id: str) -> None:
            async with places:
                with contextlib.suppress(EngineError):  # the container has ended meanwhile
                    found[section] = await self._ask(object_id)

        async with asyncio.TaskGroup() as group:
            for section, object_id in running.items():
                if section not in found:
                    group.create_task(ask(section, object_id))
        return found

    def _read_files(self, running: Mapping[str, str]) -> dict[str, Counters]:
        made = {}
        for section, object_id in running.items():
            files = self._files.get(object_id)
            if files is not None:
                try:
                    made[section] = counters_of(object_id, files)
                except (OSError, ValueError):
                    self._files.pop(object_id)  # its process has changed
        return made

    async def _ask(self, object_id: str) -> Counters:
        """Looks for the container's files if that was not tried yet, otherwise asks the engine."""
        if self._is_here and object_id not in self._files:
            # the engine is asked only once, for the process id; after that, kernel files are sufficient
            pid = await self._engine.call(
                "GET", f"/containers/{object_id}/json", read=lambda inspect: int(inspect["State"]["Pid"])
            )
            try:
                files = files_of(pid, object_id)
                made = counters_of(object_id, files)
            except (OSError, ValueError):
                self._files[object_id] = None
            else:
                self._files[object_id] = files
                return made
        stats = await self._engine.call("GET", f"/containers/{object_id}/stats", query=_STATS, read=dict)
        return counters_of_stats(object_id, stats)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 1)


def files_of(pid: int, object_id: str) -> _Files:
    """The files from /proc/PID/cgroup (cgroups(7)), for the container's whole group. Raises OSError, ValueError if they
    cannot be found."""
    if pid <= 0:
        raise ValueError("no process")
    groups: dict[str, str] = {}
    process = _PROC / str(pid)
    for line in (process / "cgroup").read_text(encoding="ascii").splitlines():
        _, names, path = line.split(":", 2)
        # an init in the container may have moved to a subgroup: docker in docker, systemd
        whole, its_id, _ = path.strip("/").partition(object_id)
        tail = path.strip("/")[len(whole + its_id) :].partition("/")[0]
        groups |= dict.fromkeys(names.split(","), whole + its_id + tail)
    # on the host network the counters would be those of the whole router
    own_network = os.stat(process / "ns/net").st_ino != os.stat(_PROC / "self/ns/net").st_ino
    network = process / "net/dev" if own_network else None
    if "memory" in groups and "cpuacct" in groups:
        used, memory = _CGROUPS / "cpuacct" / groups["cpuacct"], _CGROUPS / "memory" / groups["memory"]
        return _Files(
            pid,
            used / "cpuacct.usage",
            memory / "memory.usage_in_bytes",
            memory / "memory.stat",
            memory / "memory.limit_in_bytes",
            network,
        )
    group = _CGROUPS / groups[""]
    # its cgroup namespace is not ours, or the kernel has none: the root group counts the whole router
    if group == _CGROUPS:
        raise ValueError("the group of all")
    return _Files(
        pid,
        group / "cpu.stat",
        group / "memory.current",
        group / "memory.stat",
        group / "memory.max",
        network,
    )


def counters_of(object_id: str, files: _Files) -> Counters:
    """Reads the counters. Raises OSError, ValueError if the container has ended."""
    usage, stat = _pairs(files.usage), _pairs(files.stat)
    cpu_ns = int(usage["usage_usec"]) * 1000 if "usage_usec" in usage else int(next(iter(usage)))
    # as `docker stats` does: cache that the kernel can drop is not memory that a container needs; v1 has the `total_`
    # names
    cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    limit = files.limit.read_text(encoding="ascii").strip()
    bounded = int(limit) if limit != "max" and int(limit) < _UNLIMITED else 0
    rx, tx = _network(files.network) if files.network is not None else (None, None)
    return Counters(
        object_id=object_id,
        at=time.monotonic(),
        cpu_ns=cpu_ns,
        memory=_without_cache(int(files.memory.read_text(encoding="ascii")), cache),
        limit=bounded,
        rx=rx,
        tx=tx,
    )


def _without_cache(usage: int, cache: int) -> int:
    """As in `docker stats`: the two values are read one after the other and may be inconsistent."""
    return usage - cache if cache < usage else usage


def _pairs(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="ascii").splitlines()
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def _network(path: Path) -> tuple[int, int]:
    """Bytes of all devices except loopback (proc_pid_net(5))."""
    rx = tx = 0
    for line in path.read_text(encoding="ascii").splitlines()[2:]:
        device, _, numbers = line.partition(":")
        if device.strip() != "lo":
            fields = numbers.split()
            rx, tx = rx + int(fields[0]), tx + int(fields[8])
    return rx, tx


def counters_of_stats(object_id: str, stats: Mapping[str, Any]) -> Counters:
    """The counters from GET /containers/{id}/stats."""
    memory = stats.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    # `total_inactive_file` in cgroup v1, `inactive_file` in v2. `docker stats` subtracts it too, because the kernel
    # can drop this cache at any time.
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    networks = stats.get("networks")
    limit = int(memory.get("limit", 0))
    return Counters(
        object_id=object_id,
        at=time.monotonic(),
        cpu_ns=int(((stats.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage", 0)),
        memory=_without_cache(int(memory.get("usage", 0)), int(cache)),
        # without a limit cgroup v1 reports a number near 2^63, v2 the memory of the machine
        limit=limit if limit < _UNLIMITED else 0,
        rx=sum(each["rx_bytes"] for each in networks.values()) if networks else None,
        tx=sum(each["tx_bytes"] for each in networks.values()) if networks else None,
    )
