# SPDX-License-Identifier: GPL-2.0-or-later
"""The load of containers over a day: gaps, restarts, bounds."""

from __future__ import annotations

import math
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.status.load import CONTAINERS_MAX, SLOTS, STEP_S, Counters, History, load_between, load_metrics
from agent.status.metrics import format_metrics


def counters(
    at: float, *, cpu_s: float = 0.0, object_id: str = "a", memory: int = 1 << 20, rx: int | None = 0
) -> Counters:
    return Counters(
        object_id=object_id, at=at, cpu_ns=int(cpu_s * 1e9), memory=memory, limit=2 << 20, rx=rx, tx=rx
    )


def test_rates_are_of_one_run_of_one_container() -> None:
    before = counters(100, cpu_s=10, rx=1000)
    found = load_between(before, counters(110, cpu_s=15, rx=3000))
    assert (found.cpu, found.rx) == (50, 200)
    for other in (counters(110, object_id="b"), counters(100), counters(90)):
        assert math.isnan(load_between(before, other).cpu) and load_between(before, other).memory == 1 << 20
    restarted = load_between(before, counters(110, cpu_s=1, rx=None))
    assert math.isnan(restarted.cpu) and math.isnan(restarted.rx)
    assert math.isnan(load_between(None, before).cpu)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3 * SLOTS), unique=True, max_size=30).map(sorted), st.integers(1, 24))
def test_what_is_shown_is_what_was_sampled(slots: list[int], hours: int) -> None:
    """Against a plain table of all samples."""
    history = History()
    for slot in slots:
        history.add({"web": counters(slot * STEP_S, memory=slot + 1)})
    end = slots[-1] if slots else 5
    shown = history.show("web", hours=hours, now=end * STEP_S + 1, wall=1e9)
    expected = [slot + 1 if slot in slots else None for slot in range(end - hours * 60 + 1, end + 1)]
    assert shown["memory"] == expected and len(expected) == hours * 60
    assert shown["start"] == round(1e9 - 1 - (hours * 60 - 1) * STEP_S)


def test_a_day_of_a_hundred_containers_takes_little() -> None:
    tracemalloc.start()
    history = History()
    for minute in (0, 1, SLOTS - 1):
        history.add({f"c{n}": counters(minute * STEP_S) for n in range(CONTAINERS_MAX + 20)})
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 6 << 20
    assert len(history.last()) == CONTAINERS_MAX
    history.keep(["c1", "new"])
    assert history.last().keys() == {"c1"}
    history.clear()
    assert not history.last()


def test_metrics_have_a_series_a_container() -> None:
    text = format_metrics(load_metrics({"web": counters(1, cpu_s=2.5, rx=None)}, {"web": 3}))
    assert 'ucidockd_container_cpu_seconds_total{container="web"} 2.5' in text
    assert 'ucidockd_container_restarts_total{container="web"} 3' in text
    assert "network" not in text and 'memory_limit_bytes{container="web"} 2097152' in text
