# SPDX-License-Identifier: GPL-2.0-or-later
"""The status for people: a sum, problems of the agent, and a table of sections with their state in words.

Drawn from the JSON of `GET /v1/status` to the width of the terminal. The status itself says how bad each state is
(`agent.status.conditions`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.cli.output import PLAIN, Style, wait_words, wrapped
from agent.model.issues import plain

SCHEMA = 1
"""The version of `ucidockd status --json`: incremented when a field changes its meaning or is removed."""

STATES = ("running", "stopped", "waiting", "failed", "warning", "in-sync")
_COLOURS = {"error": "bad", "warning": "busy", "waiting": "busy", "off": "dim", "ok": "good"}
# the order of the table: what needs a person comes first
_RANK = {"error": 0, "waiting": 1, "warning": 2, "off": 3, "ok": 4}
_SUM = {"ok": "in sync", "waiting": "waiting", "warning": "with a warning", "off": "off", "error": "failed"}
_IN_SUM = ("in sync", "completed", "waiting", "with a warning", "off", "failed")
_NARROW = 60  # a narrower terminal shows only name and state
_CUT = {
    "NAME": 12,
    "IMAGE": 14,
    "PORTS": 11,
}  # columns that are cut if there is no room, and their minimum width
_DROPPED = ("RESTARTS", "IMAGE", "PORTS", "MEM", "CPU", "AGE")  # then these are removed, in this order
_STATE_LEAST, _STATE_MINIMUM = 20, 12
_STATE_LINES = 4

Row = dict[str, str]


def status_view(
    status: Mapping[str, Any],
    style: Style = PLAIN,
    *,
    now: float | None = None,
    loads: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """The whole status. `now` (unix seconds) is the base for ages. `loads` maps key -> processor and memory in words."""
    now = time.time() if now is None else now
    return "\n".join(
        [*head_lines(status, style), *table_lines(status["resources"], style, now=now, loads=loads)]
    )


def head_lines(status: Mapping[str, Any], style: Style) -> list[str]:
    """The sum, and what is wrong with the agent, its configuration and its engine."""
    agent = status["agent"]
    engine = agent.get("engine") or {}
    known = bool(engine) or bool(status["resources"])
    # with a filter an empty table is a result; without one it means that nothing is declared
    total = "No section is in this state." if status.get("total") and not status["resources"] else ""
    lines = wrapped(total or sum_of(status["resources"]), style, bold=True) if known else []
    # before the engine has answered there is nothing to sum up: zeros would look like an empty router
    if not engine:
        text = (
            "The agent has just started and has not looked at everything yet; `ucidockd wait` waits for it."
        )
        lines += [style("busy", line) for line in wrapped(text, style)]
    elif not engine.get("reachable"):
        text = f"The engine is not reachable: {engine.get('error')}"
        lines += [style("bad", line) for line in wrapped(text, style)]
    issues = [*agent.get("config_issues", []), *agent.get("warnings", [])]
    if agent.get("config") == "Invalid":
        text = "The configuration cannot be read; the last good one stays in force. `ucidockd check` lists every mistake."
        lines += [style("bad", line) for line in wrapped(text, style)]
    for issue in issues:
        lines += [style("bad", line) for line in wrapped(str(issue), style, indent=2)]
    return lines


def sum_of(resources: Sequence[Mapping[str, Any]]) -> str:
    """`57 in sync, 3 waiting, 1 failed`."""
    words = [_completed(resource) or _SUM[resource["level"]] for resource in resources]
    told = [f"{words.count(each)} {each}" for each in _IN_SUM if each in words]
    return ", ".join(told) if told else "No section is declared in /etc/config/containers."


def _completed(resource: Mapping[str, Any]) -> str:
    running = _condition(resource, "Running")
    is_done = resource["level"] in ("ok", "off") and running is not None and running["reason"] == "Completed"
    return "completed" if is_done else ""


def is_in_state(resource: Mapping[str, Any], state: str) -> bool:
    """Whether `--state` selects it. `state` is one of STATES."""
    running = _condition(resource, "Running")
    match state:
        case "running":
            return bool(running and running["status"])
        case "stopped":
            return resource["kind"] == "container" and not (running and running["status"])
        case "in-sync":
            return resource["level"] in ("ok", "warning")
    return bool(resource["level"] == ("error" if state == "failed" else state))


def problems_first(resources: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sorted by severity, worst first; otherwise in their order."""
    return sorted(resources, key=lambda resource: _RANK.get(resource["level"], 0))


# states in words


def state_words(resource: Mapping[str, Any], now: float) -> str:
    """`running, healthy`, `waiting: nothing is mounted on /mnt/sda1`, `failed: ...; next try in 40 s`."""
    image = _condition(resource, "ImageReady")
    if image is not None and image["reason"] == "Pulling":
        return str(image["message"])
    does = _does(resource)
    told = _condition(resource, resource["verdict"])
    if resource["level"] == "ok" or told is None or told["type"] in ("Running", "Healthy"):
        notes = (
            label
            for kind, label in _NOTES.items()
            if (found := _condition(resource, kind)) and found["status"]
        )
        return ", ".join([does, *notes]) + _next_try(resource, now)
    why = _why(told) + _next_try(resource, now)
    running = _condition(resource, "Running")
    runs = running is not None and (running["status"] or running["reason"] in ("CrashLoop", "Paused"))
    if not runs and resource["level"] != "warning":
        return why
    return f"{does}; {why}"


_NOTES = {"UpdateAvailable": "update available", "Pinned": "pinned"}


def _does(resource: Mapping[str, Any]) -> str:
    if resource["kind"] == "daemon":
        running = _condition(resource, "Running")
        return "running" if running is not None and running["status"] else "not running"
    if resource["kind"] != "container":
        synced = _condition(resource, "Synced")
        if synced is not None:
            return "in place" if synced["status"] else "not known yet"
        own = _condition(resource, resource["verdict"])  # of a notify or backup section
        return str(own["label"]).lower() if own is not None else "not used yet"
    running, health = _condition(resource, "Running"), _condition(resource, "Healthy")
    if running is None:
        return "not known yet"
    message, reason = running["message"], running["reason"]
    if running["status"]:
        words = {"Healthy": ", healthy", "Unhealthy": ", unhealthy", "Starting": ", health check pending"}
        return "running" + (words.get(health["reason"], "") if health is not None else "")
    if reason == "CrashLoop":
        return f"keeps ending: {message}" if message else "keeps ending"
    words = {
        "Absent": "not created",
        "Disabled": "disabled",
        "Completed": "completed",
        "Created": "created, not started",
        "Unknown": "not known: the engine does not answer",
    }
    if reason in words:
        return words[reason]
    return str(message) if reason == "Exited" and message.startswith("exited") else str(reason).lower()


_WHY = {
    "BackOff": "failed",
    "Failed": "failed",
    "RolledBack": "rolled back",
    "Conflict": "conflict",
    "NameTaken": "conflict",
    "Waiting": "waiting",
    "Invalid": "mistake in the section",
    "Drift": "drift",
}


def _why(told: Mapping[str, Any]) -> str:
    message = str(told["message"])
    if told["reason"] == "Pending":
        doing = told.get("details", {}).get("operations", "").replace(" ", ", ")
        return f"in progress: {doing}" if doing else f"waiting: {message}"
    word = _WHY.get(told["reason"], "")
    if told["type"] == "Waiting":
        word = "waiting"
    return f"{word}: {message}" if word and message else message or word or str(told["reason"])


def _next_try(resource: Mapping[str, Any], now: float) -> str:
    at = resource.get("retry_at")
    return f"; next try in {wait_words(at - now)}" if at and at > now else ""


def _condition(resource: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((item for item in resource["conditions"] if item["type"] == name), None)


def _age(resource: Mapping[str, Any], now: float) -> str:
    """How long the container has been running, or not running."""
    told = _condition(resource, "Running")
    if told is None or told["reason"] in ("Unknown", "Absent") or not told["since"]:
        return ""
    seconds = max(0, int(now - told["since"]))
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        # from two on: `90m` says more than `1h`
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _row(resource: Mapping[str, Any], now: float, loads: Mapping[str, tuple[str, str]] | None) -> Row:
    is_container = resource["kind"] == "container"
    # a container is shown by its section's name alone; other kinds with their kind, as they may have the same name
    name = resource["section"] if is_container else resource["key"]
    if resource["name"] != resource["section"]:
        name += f" ({resource['name']})"
    row = {
        "NAME": name,
        "IMAGE": resource.get("image") or "",
        "STATE": state_words(resource, now),
        "PORTS": ", ".join(resource.get("ports") or ()),
        "AGE": _age(resource, now),
        "RESTARTS": str(resource["restarts"]) if resource.get("restarts") is not None else "",
    }
    if loads is not None:
        row["CPU"], row["MEM"] = loads.get(resource["key"], ("", ""))
    return row


# the table


def table_lines(
    resources: Sequence[Mapping[str, Any]],
    style: Style,
    *,
    now: float,
    loads: Mapping[str, tuple[str, str]] | None = None,
) -> list[str]:
    """A head, and one or more lines for each resource."""
    if not resources:
        return []
    # escape everything before widths are counted: a control character has no width, or moves the cursor
    rows = [{n: plain(text) for n, text in _row(each, now, loads).items()} for each in resources]
    load = ["CPU", "MEM"] if loads is not None else []
    names = ["NAME", "IMAGE", "STATE", "PORTS", *load, "AGE", "RESTARTS"]
    widths = _widths(names, rows, style.width)
    lines = [style("head", _line(widths, {name: name for name in widths}))]
    for resource, row in zip(resources, rows, strict=True):
        colour = _COLOURS.get(resource["level"], "bad")
        # a long state is wrapped
        room = Style(colours=False, width=widths["STATE"] + 1) if style.width else PLAIN
        words = wrapped(row["STATE"], room)
        if len(words) > _STATE_LINES:
            last = " ".join(words[_STATE_LINES - 1 :])
            words = [*words[: _STATE_LINES - 1], _cut(last, widths["STATE"], "")]
        for number, text in enumerate(words):
            cells = {**row, "STATE": text} if number == 0 else {"STATE": text}
            lines.append(_line(widths, cells, style(colour, text)))
    return lines


def _widths(names: Sequence[str], rows: Sequence[Row], width: int) -> dict[str, int]:
    """Column -> width: that of the longest cell if the terminal has room."""
    natural = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    # an empty column takes room that the state needs
    natural = {
        name: size for name, size in natural.items() if name == "STATE" or any(row[name] for row in rows)
    }
    natural["STATE"] = max(natural["STATE"], _STATE_MINIMUM)
    if not width:
        return natural
    # on a phone's terminal only name and state matter
    if width < _NARROW:
        first = min(natural["NAME"], max(5, width // 3))
        return {"NAME": first, "STATE": max(width - 1 - first - 2, _STATE_MINIMUM)}
    shown = dict(natural)
    # Remove columns, the least important first, until the state is readable. Cut long cells before removing a column.
    for dropped in ("", *_DROPPED):
        shown.pop(dropped, None)
        state = _room(shown, width)
        if state >= min(natural["STATE"], _STATE_LEAST):
            break
        for name, least in _CUT.items():
            if name in shown:
                shown[name] = max(min(shown[name], least), shown[name] - (natural["STATE"] - state))
                state = _room(shown, width)
        if state >= min(natural["STATE"], _STATE_LEAST):
            break
    shown["STATE"] = max(min(natural["STATE"], _room(shown, width)), _STATE_MINIMUM)
    return shown


def _room(shown: Mapping[str, int], width: int) -> int:
    """The width left for STATE."""
    return width - 1 - sum(size + 2 for name, size in shown.items() if name != "STATE")


def _line(widths: Mapping[str, int], row: Mapping[str, str], state: str | None = None) -> str:
    cells = []
    for name, size in widths.items():
        text = row.get(name, "")
        if name == "STATE" and state is not None:
            cells.append(state + " " * (size - len(row[name])))
        else:
            cells.append(_cut(text, size, name).ljust(size))
    return "  ".join(cells).rstrip()


def _cut(text: str, size: int, name: str) -> str:
    """Shortens an image at its start, because its end says more; all else at its end."""
    if len(text) <= size:
        return text
    return "…" + text[1 - size :] if name == "IMAGE" else text[: size - 1] + "…"
