# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd diff` and `adopt`: commands about one container."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any
from urllib.parse import quote

from agent.cli.ask import ask_or_do
from agent.cli.output import Style, output_lines, table
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
