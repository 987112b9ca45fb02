# SPDX-License-Identifier: GPL-2.0-or-later
"""The load of containers over a day: gaps, restarts, bounds."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.observe import load
from agent.status.metrics import (
    CONTAINERS_MAX,
    SLOTS,
    STEP_S,
    Counters,
    LoadHistory,
    format_metrics,
    load_between,
    load_metrics,
)


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
    history = LoadHistory()
    for slot in slots:
        history.add({"web": counters(slot * STEP_S, memory=slot + 1)})
    end = slots[-1] if slots else 5
    shown = history.show("web", hours=hours, now=end * STEP_S + 1, wall=1e9)
    expected = [slot + 1 if slot in slots else None for slot in range(end - hours * 60 + 1, end + 1)]
    assert shown["memory"] == expected and len(expected) == hours * 60
    assert shown["start"] == round(1e9 - 1 - (hours * 60 - 1) * STEP_S)


def test_a_day_of_a_hundred_containers_takes_little() -> None:
    tracemalloc.start()
    history = LoadHistory()
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


OBJECT_ID = "ff83237aaccdbc1e8debb2af955e7d0e550ae96c0bb9d60ee2d4fa8bb466dd8d"
V1 = {
    "cpuacct/{}/cpuacct.usage": "290488123",
    "memory/{}/memory.usage_in_bytes": "50331648",
    "memory/{}/memory.limit_in_bytes": "{limit}",
    "memory/{}/memory.stat": "cache 31457280\ninactive_file 1048576\ntotal_cache 31457280\ntotal_inactive_file 20971520",
}
V2 = {
    "{}/cpu.stat": "usage_usec 290488\nuser_usec 283886\nsystem_usec 6602\nnice_usec 0",
    "{}/memory.current": "50331648",
    "{}/memory.max": "{limit}",
    "{}/memory.stat": "anon 29360128\nfile 31457280\nkernel 1048576\ninactive_file 20971520\nactive_file 8388608",
}
GROUPS_V1 = "12:memory:/{0}\n5:cpu,cpuacct:/{0}\n1:name=systemd:/{0}\n0::/\n"


@pytest.mark.parametrize("below", ["", "/init", "/init.scope/payload"])
@pytest.mark.parametrize(("limit", "limit_bytes"), [("67108864", 64 << 20), ("none", 0)])
@pytest.mark.parametrize(
    ("files", "groups", "group"),
    [
        (V1, GROUPS_V1, f"docker/{OBJECT_ID}"),
        (V2, "0::/{0}\n", f"docker/{OBJECT_ID}"),
        (V2, "0::/{0}\n", f"system.slice/docker-{OBJECT_ID}.scope"),
    ],
)
def test_the_kernels_files_of_both_versions_say_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    groups: str,
    group: str,
    below: str,
    limit: str,
    limit_bytes: int,
) -> None:
    """Also of a container whose first process has moved into a group below (docker in docker, systemd)."""
    unlimited = "9223372036854771712" if files is V1 else "max"
    for name, text in files.items():
        path = tmp_path / "cgroup" / name.format(group)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(limit=unlimited if limit == "none" else limit) + "\n")
    for process in ("7", "self"):
        (tmp_path / process / "ns").mkdir(parents=True)
        (tmp_path / process / "ns/net").touch()
    (tmp_path / "7/cgroup").write_text(groups.format(group + below))
    (tmp_path / "7/net").mkdir()
    (tmp_path / "7/net/dev").write_text(
        "Inter-|\n face |\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 5 0 0 0 0 0 0 0 6 0\n"
    )
    monkeypatch.setattr(load, "_PROC", tmp_path)
    monkeypatch.setattr(load, "_CGROUPS", tmp_path / "cgroup")
    found = load.counters_of(OBJECT_ID, load.files_of(7, OBJECT_ID))
    assert found.cpu_ns // 1000 == 290488
    assert (found.memory, found.limit, found.rx, found.tx) == (29_360_128, limit_bytes, 5, 6)


# of an engine 20.10 on cgroup v2, whole: there is neither `cache` nor a name with `total_`
V2_ANSWER = {
    "usage": 155774976,
    "stats": {
        "active_anon": 0, "active_file": 49065984, "anon": 1622016, "anon_thp": 0, "file": 141791232, "file_dirty": 0,
        "file_mapped": 3379200, "file_writeback": 405504, "inactive_anon": 1351680, "inactive_file": 92590080,
        "kernel_stack": 147456, "pgactivate": 11649, "pgdeactivate": 0, "pgfault": 424644, "pglazyfree": 0,
        "pglazyfreed": 0, "pgmajfault": 165, "pgrefill": 0, "pgscan": 0, "pgsteal": 0, "shmem": 0, "slab": 12309152,
        "slab_reclaimable": 11822024, "slab_unreclaimable": 487128, "sock": 69632,
        "thp_collapse_alloc": 0, "thp_fault_alloc": 0, "unevictable": 0, "workingset_activate": 0,
        "workingset_nodereclaim": 0, "workingset_refault": 0,
    },
    "limit": 16584396800,
}  # fmt: skip


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (
            {
                "usage": 50_331_648,
                "limit": 64 << 20,
                "stats": {"inactive_file": 20_971_520, "file": 31_457_280},
            },
            29_360_128,
        ),
        (V2_ANSWER, 63_184_896),
        ({"usage": 50_331_648, "stats": {"inactive_file": 1, "total_inactive_file": 20_971_520}}, 29_360_128),
        ({"usage": 100, "stats": {"inactive_file": 200}}, 100),
        ({}, 0),
        (None, 0),
    ],
)
def test_the_engines_stats_of_both_versions_are_counted_as_docker_does(memory: Any, expected: int) -> None:
    cpu = {"cpu_usage": {"total_usage": 290_488_123}}
    found = load.counters_of_stats(OBJECT_ID, {"cpu_stats": cpu, "memory_stats": memory})
    assert (found.memory, found.cpu_ns) == (expected, 290_488_123)
