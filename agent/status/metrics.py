# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics of the board in Prometheus' text format (version 0.0.4), and the load history of containers.

The only resource names in labels are container sections. Processor, memory and network load of containers are kept
for the last day, in memory only. Pure.
"""

from __future__ import annotations

import math
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

STEP_S = 60  # seconds between two samples
SLOTS = 24 * 3600 // STEP_S  # a day
CONTAINERS_MAX = 100
"""Each container takes FIELDS times SLOTS times 4 bytes: 23 KiB."""
FIELDS = ("cpu", "memory", "rx", "tx")


# written by threads of the runtime, read by the API
@dataclass(slots=True)
class PassCounters:
    """Number of passes so far, and their duration in seconds."""

    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0
    last_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, seconds: float, *, ok: bool) -> None:
        """Counts a pass."""
        with self._lock:
            if ok:
                self.succeeded += 1
            else:
                self.failed += 1
            self.seconds += seconds
            self.last_seconds = seconds


MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric. `kind` is counter or gauge; each sample has labels and a value."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[Labels, float], ...]


def one(name: str, kind: str, text: str, value: float) -> Metric:
    """A metric without labels."""
    return Metric(name=name, kind=kind, help=text, samples=(((), value),))


def many(name: str, kind: str, text: str, values: Mapping[Labels, float]) -> Metric:
    """A metric with a sample for each set of labels."""
    return Metric(name=name, kind=kind, help=text, samples=tuple(sorted(values.items())))


def format_metrics(metrics: Iterable[Metric]) -> str:
    """The metrics in Prometheus' text format."""
    return "".join(line + "\n" for metric in metrics for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for labels, value in metric.samples:
        inner = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
        yield f"{metric.name}{{{inner}}} {value:.17g}" if labels else f"{metric.name} {value:.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def board_metrics(snapshot: Mapping[str, Any], passes: PassCounters) -> list[Metric]:
    """The board's metrics: resources by kind and level, conditions by status, the engine, and the passes."""
    resources: Counter[Labels] = Counter()
    conditions: Counter[Labels] = Counter()
    for resource in snapshot["resources"]:
        kind = ("kind", str(resource["kind"]))
        resources[kind, ("level", str(resource["level"]))] += 1
        for condition in resource["conditions"]:
            status = "true" if condition["status"] else "false"
            conditions[("condition", str(condition["type"])), kind, ("status", status)] += 1
    # counted by state instead of one series per container: forty containers should not fill a database with names
    updates: Counter[Labels] = Counter(
        (("state", str(resource["update"]["state"])),)
        for resource in snapshot["resources"]
        if resource.get("update")
    )
    agent = snapshot["agent"]
    reachable = bool(agent.get("engine", {}).get("reachable"))
    results: dict[Labels, float] = {
        (("result", "ok"),): passes.succeeded,
        (("result", "failed"),): passes.failed,
    }
    return [
        many(
            "ucidockd_resources",
            "gauge",
            "Known sections, by kind and state.",
            dict(resources),
        ),
        many(
            "ucidockd_image_updates",
            "gauge",
            "Containers by what the last update check of their image found.",
            dict(updates),
        ),
        many("ucidockd_conditions", "gauge", "Conditions of resources, by status.", dict(conditions)),
        one(
            "ucidockd_engine_reachable",
            "gauge",
            "1 when the engine answered the last pass.",
            float(reachable),
        ),
        many("ucidockd_passes_total", "counter", "Reconcile passes.", results),
        one("ucidockd_pass_seconds_total", "counter", "Time spent in passes.", passes.seconds),
        one("ucidockd_pass_last_seconds", "gauge", "Time that the last pass took.", passes.last_seconds),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The counters of one container at one moment. `at`: monotonic, seconds. `cpu_ns`: total of all processors. Memory
    in bytes, without file cache that can be dropped; `limit` 0 means none. `rx`, `tx`: total bytes, None without a
    network of its own."""

    object_id: str
    at: float
    cpu_ns: int
    memory: int
    limit: int = 0
    rx: int | None = None
    tx: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load of a container. `cpu` in percent of one processor, `rx` and `tx` in bytes per second; NaN if unknown."""

    cpu: float
    memory: float
    rx: float
    tx: float


def load_between(before: Counters | None, now: Counters) -> Load:
    """The load of a container between two moments."""
    # the counters belong to another container, or the clock was restarted: the difference is meaningless
    if before is None or before.object_id != now.object_id or now.at <= before.at:
        return Load(cpu=math.nan, memory=now.memory, rx=math.nan, tx=math.nan)
    passed = now.at - before.at
    return Load(
        cpu=_rate(before.cpu_ns, now.cpu_ns, passed) / 1e7,
        memory=now.memory,
        rx=_rate(before.rx, now.rx, passed),
        tx=_rate(before.tx, now.tx, passed),
    )


def _rate(before: int | None, now: int | None, passed: float) -> float:
    """The rate, NaN after a restart, which resets the counter."""
    return math.nan if before is None or now is None or now < before else (now - before) / passed


class _Series:
    """The history of one container. Its memory grows during the first day only."""

    def __init__(self, now: Counters) -> None:
        self.last = now
        self.first = self.slot = int(now.at // STEP_S)  # slots count minutes of the monotonic clock
        self.values = {field: array("f") for field in FIELDS}
        self._put(self.slot, load_between(None, now))

    def add(self, now: Counters) -> None:
        slot = int(now.at // STEP_S)
        for gap in range(max(self.slot + 1, slot - SLOTS + 1), slot):  # no samples in these slots
            self._put(gap, Load(cpu=math.nan, memory=math.nan, rx=math.nan, tx=math.nan))
        self._put(slot, load_between(self.last, now))
        self.slot, self.last = slot, now

    def _put(self, slot: int, load: Load) -> None:
        index = (slot - self.first) % SLOTS
        for name, values in self.values.items():
            values.extend([math.nan] * (index + 1 - len(values)))
            values[index] = getattr(load, name)

    def value(self, field: str, slot: int) -> float | None:
        if not max(self.first, self.slot - SLOTS + 1) <= slot <= self.slot:
            return None
        value = self.values[field][(slot - self.first) % SLOTS]
        return None if math.isnan(value) else round(value, 1)


class LoadHistory:
    """History by section: containers that were sampled in the last day, at most CONTAINERS_MAX."""

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {}  # by section

    def add(self, found: Mapping[str, Counters]) -> None:
        """Adds a sample of all running containers."""
        now = max((each.at for each in found.values()), default=0.0)
        # drop a container that was not sampled for the whole period
        for section in [s for s, each in self._series.items() if now - each.last.at > STEP_S * SLOTS]:
            del self._series[section]
        for section, counters in found.items():
            if section in self._series:
                self._series[section].add(counters)
            # limited, because each container allocates its arrays at once
            elif len(self._series) < CONTAINERS_MAX:
                self._series[section] = _Series(counters)

    def clear(self) -> None:
        """Forgets everything."""
        self._series.clear()

    def keep(self, sections: Iterable[str]) -> None:
        """Forgets all other sections."""
        wanted = frozenset(sections)
        self._series = {section: each for section, each in self._series.items() if section in wanted}

    def last(self) -> dict[str, Counters]:
        """The newest sample of each container that was part of the last round of samples."""
        newest = max((each.last.at for each in self._series.values()), default=0.0)
        return {s: each.last for s, each in self._series.items() if newest - each.last.at < STEP_S}

    def show(self, section: str, *, hours: float, now: float, wall: float) -> dict[str, Any]:
        """`start` (unix seconds), `step_s`, and a list for each of FIELDS, None where unknown. `now`: monotonic."""
        # at least one step, so that a caller always gets the present value
        count = min(SLOTS, max(1, math.ceil(hours * 3600 / STEP_S)))
        end = int(now // STEP_S) + 1
        series = self._series.get(section)
        slots = range(end - count, end)
        return {
            # converted to the wall clock only here: it may be set while the agent runs, and samples would seem to
            # jump
            "start": round(wall - now + slots.start * STEP_S),
            "step_s": STEP_S,
            **{
                field: [series.value(field, slot) if series is not None else None for slot in slots]
                for field in FIELDS
            },
        }


def load_metrics(found: Mapping[str, Counters], restarts: Mapping[str, int]) -> list[Metric]:
    """One series per container, labelled with its section."""
    rows: list[tuple[str, str, str, Callable[[Counters], float | None]]] = [
        ("cpu_seconds_total", "counter", "Processor time of a container.", lambda c: c.cpu_ns / 1e9),
        ("memory_bytes", "gauge", "Memory of a container, without droppable cache.", lambda c: c.memory),
        (
            "memory_limit_bytes",
            "gauge",
            "Memory limit of a container, where it has one.",
            lambda c: c.limit or None,
        ),
        ("network_receive_bytes_total", "counter", "Bytes that a container received.", lambda c: c.rx),
        ("network_transmit_bytes_total", "counter", "Bytes that a container sent.", lambda c: c.tx),
    ]
    made = []
    for name, kind, words, pick in rows:
        values = {
            _labels(section): float(value) for section, c in found.items() if (value := pick(c)) is not None
        }
        made.append(many(f"ucidockd_container_{name}", kind, words, values))
    counts = {_labels(section): float(count) for section, count in restarts.items()}
    made.append(
        many("ucidockd_container_restarts_total", "counter", "Restarts of a container by the engine.", counts)
    )
    # no samples instead of zero: a container on the host network has no counters of its own
    return [metric for metric in made if metric.samples]


def _labels(section: str) -> Labels:
    return (("container", section),)
