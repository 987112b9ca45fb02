# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd diff`, `adopt` and `logs`: commands about one container."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

from agent.cli.agent_client import stream, whole_status
from agent.cli.ask import agent_socket, ask_or_do, check_options
from agent.cli.output import Style, output_lines, output_of, table
from agent.errors import ConfigError
from agent.model.plain_text import plain

_LINE_END = re.compile(r"\r+\n")


def route_name(name: str) -> str:
    """A name as a part of a path; the agent checks it."""
    return quote(name, safe="")


# diff


def diff(args: argparse.Namespace) -> int:
    """`ucidockd diff`."""
    request = ("GET", f"/v1/containers/{route_name(args.name)}/diff")
    answer = ask_or_do(args, request, lambda single: single.diff(args.name))
    return print_diff(answer, as_json=args.json)


def print_diff(answer: dict[str, Any], *, as_json: bool) -> int:
    """The fields that differ, and what a plan would do."""
    if as_json:
        print(json.dumps(answer, indent=1))
        return 0
    print(diff_text(answer, Style.of(sys.stdout)))
    return 0


def diff_text(answer: dict[str, Any], style: Style) -> str:
    """A table FIELD DESIRED APPLIED OBSERVED WHY, and the operations or the reasons for none."""
    about = "" if answer["ours"] else (" (not ours)" if answer["object_id"] else " (not created)")
    lines = [plain(f"{answer['key']}, Docker name {answer['name']}{about}")]
    rows = [_diff_row(field) for field in answer["fields"]]
    if rows:
        head = ("FIELD", "DESIRED", "APPLIED", "OBSERVED", "WHY")
        lines.append(
            table([head, *rows], style, colour=lambda row, column: _diff_colour(column, rows[row][column]))
        )
    else:
        lines.append("no differences")
    for operation in answer["operations"]:
        lines.append(plain(f"plan: {operation['op']}: {operation['cause']}"))
    if not answer["operations"]:
        said = [
            f for f in answer["findings"] if f["type"] in {"Synced", "Waiting", "Degraded"} and f["message"]
        ]
        lines += [plain(f"plan: nothing, {f['reason']}: {f['message']}") for f in said] or [
            "plan: nothing to do"
        ]
    if answer.get("output"):
        lines += ["the failed container printed last:", *output_lines(answer["output"])]
    return "\n".join(lines)


def show_failed(socket: str, name: str) -> int:
    """The last lines of a container whose start failed, or that ends again and again."""
    status = whole_status(socket)
    named = [r for r in status["resources"] if r["kind"] == "container" and name in (r["section"], r["name"])]
    if not named:
        raise ConfigError(f"{name}: no container section has this name")
    output = output_of(named[0])
    if not output:
        raise ConfigError(f"{name}: no output of a failed container is kept; see `ucidockd logs {name}`")
    print("\n".join(plain(line) for line in output.split("\n")))
    return 0


def _diff_row(field: dict[str, Any]) -> tuple[str, ...]:
    why = [name for name, holds in (("edited", field["edited"]), ("drift", field["drifted"])) if holds]
    return (field["field"], field["desired"], field["applied"], field["observed"], ", ".join(why))


def _diff_colour(column: int, cell: str) -> str:
    if column != 4:
        return ""
    return "bad" if "drift" in cell else "busy"


# adopt


def adopt(args: argparse.Namespace) -> int:
    """`ucidockd adopt`."""
    body = {
        "container": args.name,
        "section": args.section,
        "commit": args.commit,
        "show_secrets": args.show_secrets,
    }
    answer = ask_or_do(args, ("POST", "/v1/adopt"), lambda single: single.adopt(body), body)
    return print_adoption(answer, as_json=args.json)


def print_adoption(answer: dict[str, Any], *, as_json: bool) -> int:
    """The sections, and what they do not say."""
    if as_json:
        print(json.dumps(answer, indent=1))
        return 0
    style = Style.of(sys.stderr)
    for line in str(answer["text"]).splitlines():
        print("\t" * (len(line) - len(line.lstrip("\t"))) + plain(line.lstrip("\t")))
    for note in answer["notes"]:
        print(f"{style('busy', 'note')}: {plain(note)}", file=sys.stderr)
    names = ", ".join(f"{section['type']} {section['name']}" for section in answer["sections"])
    if answer["committed"]:
        print(f"committed: {plain(names)}", file=sys.stderr)
    else:
        print("a preview: --commit writes it, environment values included", file=sys.stderr)
    return 0


# logs


def logs(args: argparse.Namespace) -> int:
    """`ucidockd logs`."""
    check_options(args)
    if args.failed:
        return show_failed(agent_socket(args), args.name)
    form = "json" if args.json else "raw" if args.raw else "text"
    return show_logs(
        agent_socket(args), args.name, follow=args.follow, tail=args.tail, since=args.since, form=form
    )


def show_logs(socket: str, name: str, *, follow: bool, tail: str, since: str, form: str) -> int:
    """A container's output; what it wrote to stderr goes to stderr. `form`: text, raw or json."""
    query = {"format": "text" if form == "raw" else "ndjson", "tail": tail}
    query |= {"follow": "1"} if follow else {}
    query |= {"since": since_when(since, time.time())} if since else {}
    route = f"/v1/containers/{route_name(_container_id(socket, name))}/logs?{urlencode(query)}"
    try:
        pieces = stream(socket, route)
        if form == "text":
            _print_text(pieces)
        else:
            _print_bytes(pieces)
    except KeyboardInterrupt:
        return 0
    return 0


def _container_id(socket: str, name: str) -> str:
    """The engine's id for a section or one of our Docker names; any other name is the engine's own business."""
    resources = whole_status(socket)["resources"]
    ours = [r for r in resources if r["kind"] == "container" and r["object_id"]]
    by_section = [r["object_id"] for r in ours if r["section"] == name]
    by_name = [r["object_id"] for r in ours if r["name"] == name]
    return str((by_section or by_name or [name])[0])


def since_when(text: str, now: float) -> str:
    """What the engine takes: seconds or an RFC 3339 time as they are, a duration such as 10m counted back."""
    from agent.model.quantities import QuantityError, parse_duration

    if re.fullmatch(r"[0-9.]+|[0-9]{4}-.*", text):
        return text
    try:
        return f"{now - parse_duration(text) / 1e9:.3f}"
    except QuantityError as exc:
        wish = "a duration such as 10m, seconds since 1970 or an RFC 3339 time"
        raise ConfigError(f"--since {text}: expected {wish}") from exc


def _print_bytes(pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _print_text(pieces: Iterator[bytes]) -> None:
    streams = {"stdout": Printer(sys.stdout.write, terminal=sys.stdout.isatty())}
    streams["stderr"] = Printer(sys.stderr.write, terminal=sys.stderr.isatty())
    for line in _lines(pieces):
        item = json.loads(line)
        streams["stderr" if item["stream"] == "stderr" else "stdout"].write(item["text"])
        sys.stdout.flush()
        sys.stderr.flush()
    for printer in streams.values():
        printer.end()


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


class Printer:
    """Writes a container's text; on a terminal without what could move its cursor, its colours or its title.

    A carriage return before a line end is what a terminal inside the container makes of a line end.
    """

    def __init__(self, write: Callable[[str], object], *, terminal: bool) -> None:
        self._write, self._terminal, self._kept = write, terminal, ""

    def write(self, text: str) -> None:
        if not self._terminal:
            self._write(text)
            return
        text = self._kept + text
        body = text.rstrip("\r")
        self._kept = text[len(body) :]  # a line end may follow in the next piece
        self._write(escaped(body))

    def end(self) -> None:
        if self._kept:
            self._write(escaped(self._kept))


def escaped(text: str) -> str:
    """Text of a container for a terminal: lines and tabs stay, other control characters show as what they are."""
    lines = _LINE_END.sub("\n", text).split("\n")
    return "\n".join("\t".join(plain(part) for part in line.split("\t")) for line in lines)
