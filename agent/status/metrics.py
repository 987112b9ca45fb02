# SPDX-License-Identifier: GPL-2.0-or-later
"""Prometheus' text format (version 0.0.4), and the metrics that the board gives. The sections of containers are
the only names of resources in labels.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Counts of passes, for the metrics. Written by the runtime's threads, read by the controller.


@dataclass(slots=True)
class PassCounters:
    """Passes so far, and the seconds that they took."""

    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0
    last_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, seconds: float, *, ok: bool) -> None:
        """One more pass."""
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
    """`kind` is counter or gauge; each sample has labels and a value."""

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
    """The text."""
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
    """Resources by kind and level, conditions by status, the engine, and the passes."""
    resources: Counter[Labels] = Counter()
    conditions: Counter[Labels] = Counter()
    for resource in snapshot["resources"]:
        kind = ("kind", str(resource["kind"]))
        resources[kind, ("level", str(resource["level"]))] += 1
        for condition in resource["conditions"]:
            status = "true" if condition["status"] else "false"
            conditions[("condition", str(condition["type"])), kind, ("status", status)] += 1
    # Counted here, by state, and not one series for each container: a router with forty of them should not fill a
    # database with names.
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
            "Sections that are known, by kind and by how well they are.",
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
