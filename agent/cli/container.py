# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd diff`, `history` and `adopt`: commands about one container."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from typing import Any

from agent.cli.ask import ask_or_do
from agent.cli.output import Style, columns, output_lines, print_sections, wrapped
from agent.errors import UsageError
from agent.model.identity import ID, ID_FORM
from agent.model.issues import plain

_LINE_END = re.compile(r"\r+\n")


def route_name(name: str) -> str:
    """A name as a part of a path. Raises UsageError for what no section, container or volume is called."""
    if not re.fullmatch(ID, name):
        raise UsageError(f"`{name[:64]}` is not a name: one has {ID_FORM}")
    return name


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
    """A table FIELD DECLARED RUNS WHY, and the operations or the reasons for none."""
    about = "" if answer["ours"] else (" (not ours)" if answer["object_id"] else " (not created)")
    lines = wrapped(f"{answer['key']}, Docker name {answer['name']}{about}", style, bold=True)
    # where nothing was applied, nothing has drifted from it
    other = "" if answer["ours"] else "not ours" if answer["object_id"] else "not created yet"
    lines += columns(_HEAD, [_diff_row(field, other) for field in answer["fields"]], style)
    if not answer["fields"]:
        lines.append("no differences")
    for operation in answer["operations"]:
        lines += wrapped(f"plan: {operation['op']}: {operation['cause']}", style)
    if answer.get("in_progress"):
        lines += wrapped(f"in progress: {answer['in_progress']}", style)
    elif not answer["operations"]:
        said = [
            f for f in answer["findings"] if f["type"] in {"Synced", "Waiting", "Degraded"} and f["message"]
        ]
        reasons = [f"plan: nothing, {f['reason']}: {f['message']}" for f in said] or ["plan: nothing to do"]
        lines += [line for reason in reasons for line in wrapped(reason, style)]
    if answer.get("output"):
        lines += ["the failed container printed last:", *output_lines(answer["output"])]
    return "\n".join(lines)


_HEAD = ("FIELD", "DECLARED", "RUNS", "WHY")


def _diff_row(field: dict[str, Any], other: str) -> tuple[str, ...]:
    why = [name for name, holds in (("edited", field["edited"]), ("drift", field["drifted"])) if holds]
    if len(why) == 2:  # what runs is neither what was applied nor what is declared
        why.append(f"applied was {_entries(field['applied'])}")
    declared, runs = _entries(field["desired"]), _entries(field["observed"])
    return (field["field"], declared, runs or "not there", other or ", ".join(why))


def _entries(text: str) -> str:
    """A list without its brackets."""
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


# history


def history(args: argparse.Namespace) -> int:
    """`ucidockd history`."""
    route = f"/v1/containers/{route_name(args.name)}"
    if args.revert is None:
        answer = ask_or_do(
            args, ("GET", f"{route}/history"), lambda single: single.history(args.name), changes=False
        )
        print(json.dumps(answer, indent=1) if args.json else history_text(answer, Style.of(sys.stdout)))
        return 0
    body = {"version": args.revert, "commit": True}
    answer = ask_or_do(
        args,
        ("POST", f"{route}/revert"),
        lambda single: single.revert(args.name, args.revert, commit=True),
        body,
        changes=False,
    )
    if args.json:
        print(json.dumps(answer, indent=1))
        return 0
    for note in answer["notes"]:
        print(f"{Style.of(sys.stderr)('busy', 'note')}: {plain(note)}", file=sys.stderr)
    print(f"committed: {plain(answer['section'])} has the settings of version {args.revert}")
    return 0


def history_text(answer: dict[str, Any], style: Style) -> str:
    """A table VERSION APPLIED CHANGED; values are in `--json` only."""
    if not answer["versions"]:
        return "\n".join(wrapped("nothing was applied yet: no earlier settings are kept", style))
    rows = []
    for version in answer["versions"]:
        number = f"{version['number']}{' (now)' if version['is_now'] else ''}"
        applied = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(version["at"]))
        rows.append((number, applied, ", ".join(version["changed"]) or "-"))
    return "\n".join(columns(("VERSION", "APPLIED", "CHANGED"), rows, style))


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
    print_sections(answer["text"])
    for note in answer["notes"]:
        print(f"{style('busy', 'note')}: {plain(note)}", file=sys.stderr)
    names = ", ".join(f"{section['type']} {section['name']}" for section in answer["sections"])
    if answer["committed"]:
        print(f"committed: {plain(names)}", file=sys.stderr)
    else:
        print("a preview: --commit writes it, environment values included", file=sys.stderr)
    return 0
