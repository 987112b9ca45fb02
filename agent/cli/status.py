# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd status`: the state of each section; `--watch` redraws on a terminal and prints changes in a pipe."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, TextIO

from agent.cli.ask import agent_socket, call, check_options, follow, whole_status
from agent.cli.output import Style
from agent.cli.view.status import (
    SCHEMA,
    head_lines,
    is_in_state,
    problems_first,
    state_words,
    status_view,
    table_lines,
)
from agent.errors import ConfigError, UsageError
from agent.model.issues import plain

_CLEAR = "\x1b[H\x1b[J"  # cursor home, clear to the end
_REDRAW_S = 1.0  # often enough for the ages
_NEXT, _BACK, _END = " nf\x1b[6~", "bp\x1b[5~", "q"


def status(args: argparse.Namespace) -> int:
    """Prints the status once, or with --watch until the agent ends."""
    # the status is that of the running agent: with other folders it would describe another configuration
    check_options(args)
    if args.watch and args.load:
        raise UsageError("--load measures once: leave out --watch, or --load")
    socket = agent_socket(args)
    if args.watch:
        return _watch(socket, args)
    found = picked(whole_status(socket), args)
    loads = None
    if args.load:
        loads = loads_of(socket)
    if args.json:
        if loads is not None:
            for resource in found["resources"]:
                resource["load"] = loads.get(resource["key"])
        print(json.dumps({"schema": SCHEMA, **found}, indent=1))
        return 0
    shown = {key: (load["cpu"], load["memory"]) for key, load in (loads or {}).items()}
    print(status_view(found, Style.of(sys.stdout), loads=shown if args.load else None))
    return 0


def picked(found: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The resources that pass the filters. Raises ConfigError for an unknown name."""
    resources = found["resources"]
    if args.names:
        for name in args.names:
            if not any(_is_named(resource, name) for resource in resources):
                raise ConfigError(
                    f"{name}: no section and no container of ucidockd has this name{_near(name, resources)}"
                )
        resources = [r for r in resources if any(_is_named(r, name) for name in args.names)]
    if args.stack:
        resources = [r for r in resources if r.get("stack") == args.stack]
    if args.state:
        resources = [r for r in resources if is_in_state(r, args.state)]
    # an empty table would look like a router without containers: report a mistyped stack
    if found["resources"] and not resources:
        stacks = sorted({r["stack"] for r in found["resources"] if r.get("stack")})
        if args.stack and args.stack not in stacks:
            raise ConfigError(
                f"no section is in the stack {args.stack}; there are: {', '.join(stacks) or 'none'}"
            )
    shown = problems_first(resources) if args.problems else list(resources)
    return {**found, "total": len(found["resources"]), "resources": shown}


def _is_named(resource: Mapping[str, Any], name: str) -> bool:
    return name in (resource["section"], resource["name"], resource["key"])


def _near(name: str, resources: Iterable[Mapping[str, Any]]) -> str:
    import difflib  # late, because only a mistake needs it

    names = sorted({str(each["section"]) for each in resources})
    near = difflib.get_close_matches(name[:64], names, n=1)
    return f"; did you mean {near[0]}?" if near else "; `ucidockd status` lists them"


def _watch(socket: str, args: argparse.Namespace) -> int:
    events = follow(socket, "/v1/status/stream")
    try:
        if sys.stdout.isatty() and not args.json:
            return _redrawn(events, args)
        for text in _watched(events, args):
            print(text, flush=True)
    except KeyboardInterrupt:
        return 0
    print("ucidockd: the agent ended", file=sys.stderr)
    return 1


def _watched(events: Iterable[dict[str, Any]], args: argparse.Namespace) -> Iterator[str]:
    """For a pipe: the status, then a line for each change."""
    picture = Picture()
    for event in events:
        before = picture.words()
        whole = picture.take(event)
        if args.json:
            yield json.dumps(event)
        elif "next" in event:
            continue  # a page of the status that is not the last
        elif whole:
            yield status_view(picked(picture.status(), args))
        else:
            stamp = time.strftime("%H:%M:%S")
            shown = {resource["key"] for resource in picked(picture.status(), args)["resources"]}
            after = picture.words()
            yield from (
                f"{stamp} {line}" for key, line in changes(before, after) if key in shown or key not in after
            )


class Picture:
    """The current status, built from its pages and then from each change; after a gap the pages come again."""

    def __init__(self) -> None:
        self._agent: dict[str, Any] = {}
        self._resources: dict[str, dict[str, Any]] = {}

    def take(self, event: dict[str, Any]) -> bool:
        """Applies an event. Returns True after the last page of a status."""
        # the first page resets the picture: what is missing in the pages no longer exists
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
        """The status in the form of /v1/status."""
        return {"agent": self._agent, "resources": [self._resources[key] for key in sorted(self._resources)]}

    def words(self) -> dict[str, str]:
        """Key -> state in words; the engine and the configuration are under `agent`."""
        found = {key: state_words(resource, 0.0) for key, resource in self._resources.items()}
        engine = self._agent.get("engine") or {}
        reach = "reachable" if engine.get("reachable") else f"not reachable: {engine.get('error', '')}"
        reach = reach if engine else "not asked yet"
        found["agent"] = f"engine {reach}; configuration {self._agent.get('config', '?')}"
        return found


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """A key and a line for each state that has changed."""
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            yield key, f"{key}: removed"
        elif before.get(key) != after[key]:
            yield key, plain(f"{key}: {after[key]}")


# --watch on a terminal


def page_of(status: Mapping[str, Any], style: Style, *, rows: int, page: int, now: float) -> tuple[str, int]:
    """The screen of a page with `rows` rows, and the page's number. Sum and head of the table stay; the last row
    shows the keys.
    """
    head = head_lines(status, style)
    first, *body = table_lines(status["resources"], style, now=now) or [""]
    # on a small screen the head takes half of it at most
    head = [*head[: max(1, rows // 2)], first]
    room = max(1, rows - len(head) - 1)
    pages = max(1, -(-len(body) // room))
    page = min(max(page, 0), pages - 1)
    shown = body[page * room : (page + 1) * room]
    keys = "q: end" if pages == 1 else f"page {page + 1} of {pages}; space: next, b: back, q: end"
    return "\n".join([*head, *shown, style("dim", keys[: max(style.width - 1, 10)])]), page


def _redrawn(events: Iterable[dict[str, Any]], args: argparse.Namespace) -> int:
    """Redraws until `q`, Ctrl-C or the end of the agent."""
    import threading

    picture, ended, changed = Picture(), threading.Event(), threading.Event()
    whole = threading.Event()
    lock = threading.Lock()

    def read() -> None:
        try:
            for event in events:
                with lock:
                    if picture.take(event):
                        whole.set()
                changed.set()
        finally:
            ended.set()
            changed.set()

    # in a thread, because reading events blocks, and so does waiting for a key
    threading.Thread(target=read, name="events", daemon=True).start()
    page, drawn = 0, 0.0
    with Keys(sys.stdin) as keys:
        while not ended.is_set():
            key = keys.read(0.1)
            if key and key in _END:
                return 0
            page += (key in _NEXT) - (key in _BACK) if key else 0
            # a partial status would make sections look removed
            if not whole.is_set() or not (key or changed.is_set() or time.monotonic() > drawn + _REDRAW_S):
                continue
            changed.clear()
            with lock:
                found = picked(picture.status(), args)
            style = Style.of(sys.stdout)
            rows = os.get_terminal_size(sys.stdout.fileno()).lines
            text, page = page_of(found, style, rows=rows, page=page, now=time.time())
            sys.stdout.write(_CLEAR + text)
            sys.stdout.flush()
            drawn = time.monotonic()
    print("\nucidockd: the agent ended", file=sys.stderr)
    return 1


class Keys:
    """Reads the keys of a terminal as they are pressed, without echo. A context manager, which restores the terminal.
    Without a terminal it only waits.
    """

    def __init__(self, terminal: TextIO) -> None:
        self._fd = terminal.fileno() if terminal.isatty() else -1
        self._before: list[object] = []  # the terminal's settings, which the end restores

    def __enter__(self) -> Keys:
        if self._fd >= 0:
            import termios
            import tty

            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)  # in cbreak mode Ctrl-C is still a signal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            import termios

            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]

    def read(self, timeout_s: float) -> str:
        """A key, or the sequence that a special key sends; "" if none was pressed."""
        if self._fd < 0:
            time.sleep(timeout_s)
            return ""
        import select

        if not select.select([self._fd], [], [], timeout_s)[0]:
            return ""
        return os.read(self._fd, 16).decode(errors="replace")


# the load of containers


def loads_of(socket: str) -> dict[str, dict[str, Any]]:
    """Key -> load of each running container: `cpu` and `memory` in words, beside the agent's figures."""
    found = call(socket, "GET", "/v1/load", timeout_s=30)["containers"]
    return {key: {**load, **_words(load)} for key, load in found.items()}


def _words(load: Mapping[str, Any]) -> dict[str, str]:
    percent, size, limit = load["cpu_percent"], load["memory_bytes"], load["memory_limit_bytes"]
    share = f" ({100 * size / limit:.0f} %)" if limit else ""
    return {
        "cpu": "-" if percent is None else f"{_short(percent)} %",
        "memory": f"{_short(size / (1 << 20))} MiB{share}",
    }


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
