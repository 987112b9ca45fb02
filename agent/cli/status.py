# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd status`: what became of each section; `--watch` redraws on a terminal and prints changes in a pipe."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from agent.cli.agent_client import follow, whole_status
from agent.cli.ask import agent_socket, check_options
from agent.cli.output import Style, status_table, word
from agent.model.plain_text import plain

_CLEAR = "\x1b[H\x1b[J"  # cursor home, clear to the end


def status(args: argparse.Namespace) -> int:
    """The status once, or for as long as the agent runs."""
    check_options(args)
    return show_status(agent_socket(args), as_json=args.json, watch=args.watch)


def show_status(socket: str, *, as_json: bool, watch: bool) -> int:
    """Prints the status once, or for as long as the agent runs."""
    if not watch:
        found = whole_status(socket)
        print(json.dumps(found, indent=1) if as_json else status_table(found, Style.of(sys.stdout)))
        return 0
    events = follow(socket, "/v1/status/stream")
    try:
        for text in _watched(events, as_json=as_json, redraw=sys.stdout.isatty()):
            print(text, flush=True)
    except KeyboardInterrupt:
        return 0
    print("ucidockd: the agent ended", file=sys.stderr)
    return 1


def _watched(events: Iterable[dict[str, Any]], *, as_json: bool, redraw: bool) -> Iterator[str]:
    picture = Picture()
    for event in events:
        before = picture.conditions()
        whole = picture.take(event)
        if as_json:
            yield json.dumps(event)
        elif "next" in event:
            continue  # a page of the status, and not the last
        elif redraw:
            yield _CLEAR + status_table(picture.status(), Style.of(sys.stdout))
        elif whole:
            yield status_table(picture.status())
        else:
            stamp = time.strftime("%H:%M:%S")
            yield from (f"{stamp} {line}" for line in changes(before, picture.conditions()))


class Picture:
    """The status as it stands after the events so far: first its pages, and again after a gap."""

    def __init__(self) -> None:
        self._agent: dict[str, Any] = {}
        self._resources: dict[str, dict[str, Any]] = {}

    def take(self, event: dict[str, Any]) -> bool:
        """Takes an event in. True for the last page of a status."""
        if "resources" in event:
            if "after" not in event:
                self._agent, self._resources = event["agent"], {}
            self._resources |= {resource["key"]: resource for resource in event["resources"]}
            return "next" not in event
        if "agent" in event:
            self._agent = event["agent"]
        elif event.get("removed"):
            self._resources.pop(event["key"], None)
        elif "resource" in event:
            self._resources[event["key"]] = event["resource"]
        return False

    def status(self) -> dict[str, Any]:
        """As /v1/status gives it."""
        return {"agent": self._agent, "resources": [self._resources[key] for key in sorted(self._resources)]}

    def conditions(self) -> dict[str, dict[str, str]]:
        """Key -> type -> the condition in words; the agent's own facts under `agent`."""
        found = {
            key: {item["type"]: _words(item) for item in resource["conditions"]}
            for key, resource in self._resources.items()
        }
        engine = self._agent.get("engine") or {}
        found["agent"] = {
            "engine": "reachable" if engine.get("reachable") else f"not reachable: {engine.get('error', '')}",
            "configuration": f"{self._agent.get('desired_generation', '-')} ({self._agent.get('config', '?')})",
            "reached": str(self._agent.get("generation", "-")),
        }
        return found


def _words(condition: dict[str, Any]) -> str:
    message = f": {condition['message']}" if condition["message"] else ""
    reason = f" ({condition['reason']})" if condition["status"] else ""
    return word(condition) + reason + message


def changes(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> Iterator[str]:
    """A line for each condition that is another one now: `container:web Synced no (Pending): ...`."""
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            yield f"{key} removed"
            continue
        old = before.get(key, {})
        for name, text in after[key].items():
            if old.get(name) != text:
                yield plain(f"{key} {name} {text}")
        for name in old.keys() - after[key].keys():
            yield f"{key} {name} no more"
