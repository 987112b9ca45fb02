# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd describe`, `diff`, `history` and `adopt`: commands about one container."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from agent.cli.ask import ask_or_do
from agent.cli.output import Style, age_words, columns, output_lines, print_sections, wait_words, wrapped
from agent.errors import UsageError
from agent.model.identity import ID, ID_FORM
from agent.model.issues import plain
from agent.model.updates import short_digest
from agent.status.conditions import NOTES


def route_name(name: str) -> str:
    """Checks a name that becomes part of a path. Raises UsageError for text that cannot be a name."""
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
    """Prints the fields that differ, and what a plan would do."""
    if as_json:
        print(json.dumps(answer, indent=1))
        return 0
    print(diff_text(answer, Style.of(sys.stdout)))
    return 0


def diff_text(answer: dict[str, Any], style: Style) -> str:
    """A table FIELD DECLARED RUNS WHY, and the operations or the reasons why there are none."""
    # a container that was never applied cannot have drifted
    other = ""
    if not answer["ours"]:
        other = "not ours" if answer["object_id"] else "not created yet"
    about = f" ({other})" if other else ""
    lines = wrapped(f"{answer['key']}, Docker name {answer['name']}{about}", style, bold=True)
    rows = []
    for field in answer["fields"]:
        why = [name for name, holds in (("edited", field["edited"]), ("drift", field["drifted"])) if holds]
        if len(why) == 2:  # the running value is neither the applied nor the declared one
            why.append(f"applied was {_entries(field['applied'])}")
        declared, runs = _entries(field["desired"]), _entries(field["observed"])
        rows.append((field["field"], declared, runs or "not there", other or ", ".join(why)))
    lines += columns(("FIELD", "DECLARED", "RUNS", "WHY"), rows, style)
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
    # without a preview: `--revert` asks for the change explicitly
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
    """A table VERSION APPLIED CHANGED; only `--json` shows values."""
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
    """Prints the sections, and the notes about what they leave out."""
    if as_json:
        print(json.dumps(answer, indent=1))
        return 0
    style = Style.of(sys.stderr)
    print_sections(answer["text"])
    for note in answer["notes"]:
        print(f"{style('busy', 'note')}: {plain(note)}", file=sys.stderr)
    names = ", ".join(f"{section['type']} {section['name']}" for section in answer["sections"])
    if answer["committed"]:
        # on stderr, so that stdout has only sections and can be appended to a file
        print(f"committed: {plain(names)}", file=sys.stderr)
    else:
        print("a preview: --commit writes it, environment values included", file=sys.stderr)
    return 0


# describe


_UPDATES = {
    "current": "it is what the reference names here",
    "newer": "the reference names a newer image here",
    "untagged": "the reference names no image here any more",
    "local": "not used yet",
    "not pulled": "not pulled yet",
}
_FINE = {
    "Accepted": "The section has no mistakes.",
    "Waiting": "Nothing that it needs is missing.",
    "ImageReady": "Its image is here.",
    "Synced": "The container is as declared.",
    "Running": "The container is running.",
    "Healthy": "Its health check passes.",
}
_COLOURS = {"error": "bad", "warning": "busy", "waiting": "busy", "off": "dim", "ok": ""}


def describe(args: argparse.Namespace) -> int:
    """`ucidockd describe`."""
    request = ("GET", f"/v1/containers/{route_name(args.name)}/describe")
    answer = ask_or_do(args, request, lambda single: single.describe(args.name), changes=False)
    print(json.dumps(answer, indent=1) if args.json else describe_text(answer, Style.of(sys.stdout)))
    return 0


def describe_text(answer: Mapping[str, Any], style: Style, *, now: float | None = None) -> str:
    """All parts as text. `now` (unix seconds) is the base for ages."""
    lines = wrapped(f"{answer['key']}, Docker name {answer['name']}", style, bold=True)
    for title, body in _parts(answer, style, time.time() if now is None else now):
        if body:
            lines += ["", style("head", title), *body]
    return "\n".join(lines)


def _parts(answer: Mapping[str, Any], style: Style, now: float) -> Iterator[tuple[str, list[str]]]:
    yield "State", _state(answer, style)
    yield "Conditions", [line for each in answer["conditions"] for line in _condition(each, style, now)]
    pending = [f"in progress: {answer['in_progress']}"] if answer["in_progress"] else []
    pending += [f"{each['op']}: {each['cause']}" for each in answer["pending"]]
    # the time may have passed, since the answer is a moment old
    if answer["retry_at"] and answer["retry_at"] > now:
        pending.append(f"the next try is in {wait_words(answer['retry_at'] - now)}")
    yield "To be done", _texts(pending, style)
    done = []
    # newest first: people look for the latest failure
    for note in reversed(answer["operations"]):
        took = f" ({note['took_s']:.1f} s)" if note.get("took_s") else ""
        failed = "" if note["ok"] else f" failed: {note['error']}"
        done.append(f"{age_words(now - note['at'])} ago: {note['op']}{took}{failed}, because {note['cause']}")
    yield "Last operations", _texts(done, style)
    yield "Image", _image(answer["image"], style, now)
    yield (
        "Networks",
        columns(
            ("NETWORK", "ADDRESS", "MAC"),
            [
                (n["name"], ", ".join(filter(None, (n["ip"], n["ip6"]))), n["mac_address"])
                for n in answer["networks"]
            ],
            style,
        ),
    )
    ports = []
    for port in answer["ports"]:
        address = port["address"]
        shown = f"[{address}]" if ":" in address else address
        ports.append((f"{shown}:{port['port']}", port["container_port"], _reached(address, port["zones"])))
    yield "Ports", columns(("PORT", "CONTAINER", "REACHED FROM"), ports, style)
    yield "Web page", _texts([answer["webui"]], style) if answer["webui"] else []
    yield (
        "Mounts",
        columns(
            ("TARGET", "SOURCE", "KIND"),
            [
                (m["target"], m["source"], m["type"] + (", read-only" if m["read_only"] else ""))
                for m in answer["mounts"]
            ],
            style,
        ),
    )
    yield (
        "Options",
        columns(
            ("OPTION", "VALUE", "FROM"),
            [
                (row["option"], value, row["from"])
                for row in answer["options"]
                for value in (row["value"] if isinstance(row["value"], list) else [row["value"] or ""])
            ],
            style,
        ),
    )
    yield "Its failed container printed last", output_lines(answer["output"]) if answer["output"] else []


def _texts(texts: list[str], style: Style) -> list[str]:
    return [line for text in texts for line in wrapped(text, style, indent=2)]


def _state(answer: Mapping[str, Any], style: Style) -> list[str]:
    state = answer["state"]
    if state["status"] == "absent":
        return _texts(["there is no container"], style)
    health = f", {state['health']}" if state["health"] else ""
    since = f" since {state['started_at'][:19].replace('T', ' ')} UTC" if state["status"] == "running" else ""
    code = f" with {state['exit_code']}" if state["status"] == "exited" else ""
    restarts = f"; the engine restarted it {state['restarts']} times" if state["restarts"] else ""
    return _texts(
        [f"{state['status']}{code}{since}{health}{restarts}", f"id {answer['object_id'][:12]}"], style
    )


def _condition(condition: Mapping[str, Any], style: Style, now: float) -> list[str]:
    sentence = condition["message"]
    if condition["level"] == "ok" and condition["type"] not in NOTES:
        sentence = _FINE.get(condition["type"], sentence)
        if not sentence:
            return []  # one of the many conditions without a problem
    age = f" (for {age_words(now - condition['since'])})" if condition["since"] else ""
    text = f"{sentence}{age}"
    if condition["level"] != "ok":  # with the names under which the documentation explains it
        names = dict.fromkeys((condition["type"], condition["reason"]))
        text = f"{', '.join(names)}{age}: {sentence}"
    colour = _COLOURS.get(condition["level"], "bad")
    advice = wrapped(condition["advice"], style, indent=4) if "advice" in condition else []
    return [*(style(colour, line) for line in wrapped(text, style, indent=2)), *advice]


def _checked(check: Mapping[str, Any], now: float) -> str:
    """The result of the last check of its registry."""
    words = {
        "up-to-date": "up to date",
        "update": f"it has {short_digest(check['digest'])}",
        "unknown": "not known whether it has something newer",
        "failed": "could not be asked",
        "rate-limited": "limits requests",
    }[check["state"]]
    ago = f", asked {age_words(now - check['checked_at'])} ago" if check["checked_at"] else ""
    again = f", again in {wait_words(check['retry_at'] - now)}" if check["retry_at"] else ""
    return f"in its registry: {words}{ago}{again}" + (f": {check['why']}" if check["why"] else "")


def _image(image: Mapping[str, Any], style: Style, now: float) -> list[str]:
    rows = [image["reference"]]
    rows += [f"digest {image['digest']}"] if image["digest"] else []
    rows += [f"id {image['id'].removeprefix('sha256:')[:12]}"] if image["id"] else []
    pull = f"; pulled: {image['pull']}" if image["pull"] else ""
    rows.append(f"{_UPDATES.get(image['update'], image['update'])}{pull}")
    rows += [f"updates: {image['policy']}"] if image["policy"] else []
    rows += [_checked(image["check"], now)] if image["check"] else []
    rows += ["pinned: it was taken back to this image"] * image["pinned"]
    rows += [f"before: {', '.join(image['previous'])}"] if image["previous"] else []
    rows += [f"data saved: of {image['saved']}, for `rollback --with-data`"] if image["saved"] else []
    return _texts(rows, style)


def _reached(address: str, zones: list[str] | None) -> str:
    if address.startswith("127.") or address == "::1":
        return "this router only"
    if zones:
        return f"zone {', '.join(zones)}"
    if zones is not None:
        return "no zone of the firewall"
    return (
        "wherever the firewall lets in" if address in ("0.0.0.0", "::") else f"anyone who can reach {address}"
    )
