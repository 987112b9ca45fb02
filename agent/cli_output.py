# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command line prints: tables for people, with whatever control characters outside text carries escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_HEAD = ("KIND", "SECTION", "NAME", "SYNCED", "RUNNING", "DETAIL")


def plain(text: str) -> str:
    """`text` without the power to move a terminal's cursor or colours."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def table(rows: Iterable[Sequence[str]]) -> str:
    """Left-aligned columns; the last is as long as it likes."""
    lines = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in lines) for i in range(len(lines[0]) - 1)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in lines
    )


def status_table(status: dict[str, Any]) -> str:
    """The answer of /v1/status for a person."""
    agent = status["agent"]
    engine = agent.get("engine") or {}
    reach = (
        f"API {engine.get('api')}" if engine.get("reachable") else f"not reachable: {engine.get('error', '')}"
    )
    wanted, reached = agent.get("desired_generation", "-"), agent.get("generation", "-")
    head = f"engine {reach}; configuration {wanted} ({agent.get('config', '?')}), reached {reached}"
    issues = [f"  {plain(text)}" for text in agent.get("config_issues", [])]
    rows = [_HEAD, *(_row(resource) for resource in status["resources"])]
    return "\n".join([plain(head), *issues, table(rows)])


def _row(resource: dict[str, Any]) -> tuple[str, ...]:
    conditions = {item["type"]: item for item in resource["conditions"]}
    synced, running = conditions.get("Synced"), conditions.get("Running")
    return (
        resource["kind"],
        resource["section"],
        resource["name"],
        _word(synced),
        _word(running) if resource["kind"] == "container" else "",
        _detail(conditions),
    )


def _word(condition: dict[str, Any] | None) -> str:
    if condition is None:
        return "?"
    return "yes" if condition["status"] else f"no ({condition['reason']})"


_TELLING = (  # the first that holds is shown; the last three are dockerd's own
    ("Accepted", False),
    ("Waiting", True),
    ("Degraded", True),
    ("Synced", False),
    ("EngineChanged", True),
    ("InsecureAPI", True),
    ("DaemonUnmanaged", True),
)


def _detail(conditions: dict[str, dict[str, Any]]) -> str:
    for name, bad in _TELLING:
        condition = conditions.get(name)
        if condition is not None and condition["status"] is bad:
            return str(condition["message"] or condition["reason"])
    running = conditions.get("Running")
    return str(running["message"]) if running else ""
