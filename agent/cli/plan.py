# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd plan`, `reconcile`, `update` and `rollback`: shows what a pass would do, and requests passes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.cli.agent_client import call
from agent.cli.ask import agent_socket, ask_or_do
from agent.cli.main import sentence
from agent.cli.output import Style, agreed, columns, output_lines, print_issues, wrapped
from agent.cli.system import packages_of
from agent.cli.view.plan import NOTHING, notes_view, plan_view, steps
from agent.errors import UcidockdError
from agent.model.identity import Key
from agent.model.issues import GivenConfig, plain


def plan(args: argparse.Namespace) -> int:
    """Shows what would be done."""
    if args.staged or args.files:
        texts, paths = packages_of(args.files)
        body = {"staged": args.staged, "packages": texts, "paths": paths}
        given = GivenConfig(texts=texts, paths=paths, staged=args.staged)
        result = ask_or_do(
            args,
            ("POST", "/v1/plan"),
            lambda single: {**single.plan(given), "alone": True},
            body,
            changes=False,
        )
    else:
        result = ask_or_do(
            args, ("GET", "/v1/plan"), lambda single: {**single.plan(), "alone": True}, changes=False
        )
    alone = result.pop("alone", False)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print_issues(result["issues"])
        text = plan_view(result, Style.of(sys.stdout), next_step=_next_step(args, alone=alone))
        if text:
            print(text)
    if not result["ok"]:
        return 1
    # waiting work needs another pass: a script that waits for 0 must call again
    undone = result["operations"] or any(entry["level"] == "waiting" for entry in result["pending"])
    return 4 if args.exit_code and undone else 0


def _next_step(args: argparse.Namespace, *, alone: bool) -> str:
    if args.files:
        return "This is a preview: nothing changes before the file is committed."
    if args.staged:
        return (
            "`uci commit` applies this."
            if not alone
            else "`uci commit`, then `ucidockd reconcile` apply this."
        )
    if alone:
        return "`ucidockd reconcile` applies this."
    return "The agent does this by itself; `ucidockd reconcile` waits for it."


def reconcile(args: argparse.Namespace) -> int:
    """Applies the configuration now, shows each step, and waits until it is done."""
    settle_s = min(args.settle, 60)
    request = ("POST", f"/v1/reconcile?settle={settle_s}")
    if args.json:
        result = ask_or_do(args, request, lambda single: single.reconcile(settle_s=settle_s))
        print(json.dumps(result, indent=1))
        return 0 if result["ok"] else 1
    from agent.cli.main import INTERRUPTED
    from agent.cli.view.progress import ProgressView, shown_while

    progress = ProgressView(sys.stdout)

    def interrupted(finishing: list[str], left: list[str]) -> None:
        progress.close()
        _say_stopping(finishing, left)

    try:
        # the request is answered only at the end; the status stream shows what happens meanwhile
        with shown_while(agent_socket(args), progress):
            result = ask_or_do(
                args,
                request,
                lambda single: single.reconcile(progress.feed, interrupted, settle_s=settle_s),
            )
    except KeyboardInterrupt:
        _say_it_continues(progress.close())
        return INTERRUPTED
    progress.close()
    print_issues(result["issues"])
    # a pass without work is reported in one line
    if not any(result[part] for part in ("operations", "failed", "pending")) and result["ok"]:
        print("\n".join([NOTHING, *notes_view(result, Style.of(sys.stdout))]))
    else:
        print("\n".join(progress.outcome(result)))
        for step in steps(result, ""):
            print("\n".join(wrapped(step, Style.of(sys.stdout))))
    if result.get("interrupted"):
        return INTERRUPTED
    return 0 if result["ok"] else 1


_SHOWN = 5


def _some(names: list[str]) -> str:
    """`a, b and 55 more`, because sixty names would fill the screen."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _say(text: str) -> None:
    said = wrapped(f"ucidockd: interrupted; {text}", Style.of(sys.stderr))
    # flushed, because a second Ctrl-C may end the process
    print("\n".join(said), file=sys.stderr, flush=True)


def _say_it_continues(under_way: list[str]) -> None:
    what = f" with {_some(under_way)}" if under_way else ""
    _say(
        f"the agent continues{what}. Nothing was undone: `ucidockd status --watch` follows it, and a section that you"
        " disable or delete is given up."
    )


def _say_stopping(finishing: list[str], left: list[str]) -> None:
    text = "pulls are cancelled."
    if finishing:
        text += f" Being finished or undone, so that nothing is left half done: {_some(finishing)} (Ctrl-C again leaves"
        text += " that to the next `ucidockd reconcile`)."
    if left:
        text += f" Not begun: {_some(left)}."
    _say(text)


def update(args: argparse.Namespace) -> int:
    """Updates containers to the newest images."""
    if args.check:
        return _check(args)
    return _renew(args, args.names, back=False) if args.names else _all(args)


def rollback(args: argparse.Namespace) -> int:
    """Takes a container back to its previous image."""
    return _renew(args, [args.name], back=True, with_data=args.with_data)


def _check(args: argparse.Namespace) -> int:
    """Shows what registries have; pulls nothing."""
    found = call(agent_socket(args), "POST", "/v1/updates/check", body={"names": args.names})
    # the agent answers for all containers it knows: show only the requested ones
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
    """Updates all containers with a newer image, after a confirmation."""
    try:
        call(agent_socket(args), "POST", "/v1/updates/check", body={"names": []})
    except UcidockdError as exc:  # a newer image that was already pulled can still be used
        print(
            plain(f"ucidockd update: registries were not asked: {sentence(exc, 'update')}"), file=sys.stderr
        )
    notes = call(agent_socket(args), "GET", "/v1/plan")["notes"]
    newer = {Key.parse(note["key"]).section: note["message"] for note in notes if note["state"] == "update"}
    if not newer:
        print(
            json.dumps({"schema": 1, "containers": [], "ok": True})
            if args.json
            else "No newer image is known; `ucidockd update --check` shows what the registries have."
        )
        return 0
    if args.yes:
        return _renew(args, list(newer), back=False)
    # without a question in JSON: it lists what is available, and --yes updates it
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
        # an unknown word counts as a failure: a newer agent may send words that this command does not know
        text = {
            "updated": f"updated from image {row['before']} to {row['image']}",
            "rolled back": f"taken back from image {row['before']} to {row['image']}; it stays on that until its section"
            " changes, or `ucidockd update` is run",
            "current": f"up to date, it runs image {row['image']}",
            "waiting": f"waits, and is done as soon as it can be: {row['message']}",
        }.get(row["outcome"], f"failed: {row['message']}; it runs image {row['image']} as before")
        colour = {"failed": "bad", "waiting": "busy", "current": ""}.get(row["outcome"], "good")
        print("\n".join(style(colour, line) for line in wrapped(f"{row['section']}: {text}", style)))
        if row["output"]:
            print(plain(f"{row['section']} printed last:"))
            print("\n".join(output_lines(row["output"])))
