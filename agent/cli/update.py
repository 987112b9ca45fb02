# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd update` and `rollback`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.cli.agent_client import call
from agent.cli.ask import agent_socket, ask_or_do
from agent.cli.main import sentence
from agent.cli.output import Style, agreed, columns, output_lines, wrapped
from agent.errors import UcidockdError
from agent.model.identity import Key
from agent.model.issues import plain


def update(args: argparse.Namespace) -> int:
    """Replaces containers by ones of the newest images."""
    if args.check:
        return _check(args)
    return _renew(args, args.names, back=False) if args.names else _all(args)


def rollback(args: argparse.Namespace) -> int:
    """Takes a container back to the image before."""
    return _renew(args, [args.name], back=True, with_data=args.with_data)


def _check(args: argparse.Namespace) -> int:
    """What registries have. Nothing is pulled."""
    found = call(agent_socket(args), "POST", "/v1/updates/check", body={"names": args.names})
    rows = [
        row for row in found["containers"] if not args.names or {row["section"], row["name"]} & {*args.names}
    ]
    if args.json:
        print(json.dumps({"schema": 1, "containers": rows}, indent=1))
    else:
        table = [(r["section"], r["reference"], r["state"], r["digest"] or r["why"]) for r in rows]
        lines = columns(("SECTION", "IMAGE", "STATE", "IN THE REGISTRY"), table, Style.of(sys.stdout))
        print("\n".join(lines) if table else "No container was checked.")
    return 1 if any(row["state"] == "failed" for row in rows) else 0


def _all(args: argparse.Namespace) -> int:
    """Those of which something newer is known, once that is agreed to."""
    try:
        call(agent_socket(args), "POST", "/v1/updates/check", body={"names": []})
    except UcidockdError as exc:  # what is here already can be used all the same
        print(
            plain(f"ucidockd update: registries were not asked: {sentence(exc, 'update')}"), file=sys.stderr
        )
    notes = call(agent_socket(args), "GET", "/v1/plan")["notes"]
    newer = {Key.parse(note["key"]).section: note["message"] for note in notes if note["state"] == "update"}
    if not newer:
        print(
            json.dumps({"schema": 1, "containers": [], "ok": True})
            if args.json
            else "Nothing newer is known; `ucidockd update --check` shows what was asked."
        )
        return 0
    if args.yes:
        return _renew(args, list(newer), back=False)
    # no question in a machine's output: it says what there is, and --yes does it
    if args.json:
        print(json.dumps({"schema": 1, "available": newer}, indent=1))
        return 0
    for section, message in newer.items():
        print("\n".join(wrapped(f"{section}: {message}", Style.of(sys.stdout))))
    if not sys.stdin.isatty():
        print("Nothing is updated yet; --yes updates these.", file=sys.stderr)
        return 0
    return _renew(args, list(newer), back=False) if agreed("Update these?") else 0


def _renew(args: argparse.Namespace, names: Sequence[str], *, back: bool, with_data: bool = False) -> int:
    request = ("POST", "/v1/rollback" if back else "/v1/update")
    body: dict[str, Any] = {"names": list(names)}
    if back:
        body = {"name": names[0]} | ({"with_data": True} if with_data else {})
    answer = ask_or_do(
        args, request, lambda single: single.renew(names, back=back, with_data=with_data), body
    )
    if args.json:
        print(json.dumps(answer, indent=1))
    else:
        _tell(answer["containers"], Style.of(sys.stdout))
    return 0 if answer["ok"] else 1


def _tell(rows: Iterable[Mapping[str, Any]], style: Style) -> None:
    for row in rows:
        text = {
            "updated": f"updated from image {row['before']} to {row['image']}",
            "rolled back": f"taken back from image {row['before']} to {row['image']}; it stays on that until its section"
            " changes, or `ucidockd update` is asked for",
            "current": f"up to date, it runs image {row['image']}",
            "waiting": f"waits, and is done as soon as it can be: {row['message']}",
        }.get(row["outcome"], f"failed: {row['message']}; it runs image {row['image']} as before")
        colour = {"failed": "bad", "waiting": "busy", "current": ""}.get(row["outcome"], "good")
        print("\n".join(style(colour, line) for line in wrapped(f"{row['section']}: {text}", style)))
        if row["output"]:
            print(plain(f"{row['section']} printed last:"))
            print("\n".join(output_lines(row["output"])))
