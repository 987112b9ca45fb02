# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd plan` and `reconcile`."""

from __future__ import annotations

import argparse
import json
import sys

from agent.cli.ask import agent_socket, ask_or_do
from agent.cli.output import Style, print_issues, wrapped
from agent.cli.system import packages_of
from agent.cli.view.plan import NOTHING, notes_view, plan_view, steps
from agent.model.issues import Given


def plan(args: argparse.Namespace) -> int:
    """What would be done."""
    if args.staged or args.files:
        texts, paths = packages_of(args.files)
        body = {"staged": args.staged, "packages": texts, "paths": paths}
        given = Given(texts=texts, paths=paths, staged=args.staged)
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
    # what waits needs another pass: a script that looks for 0 must come again
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
    """Does it now, shows what is done as it is done, and waits for it."""
    settle_s = min(args.settle, 60)
    request = ("POST", f"/v1/reconcile?settle={settle_s}")
    if args.json:
        result = ask_or_do(args, request, lambda single: single.reconcile(settle_s=settle_s))
        print(json.dumps(result, indent=1))
        return 0 if result["ok"] else 1
    from agent.cli.main import INTERRUPTED
    from agent.cli.view.progress import Progress, shown_while

    progress = Progress(sys.stdout)

    def interrupted(finishing: list[str], left: list[str]) -> None:
        progress.close()
        _say_stopping(finishing, left)

    try:
        # the request answers only at the end: what happens meanwhile comes by the status stream
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
    # a pass that had nothing to do says so in a word
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
    """`a, b and 55 more`: sixty containers would be a screen of names."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _say_it_continues(under_way: list[str]) -> None:
    style = Style.of(sys.stderr)
    what = f" with {_some(under_way)}" if under_way else ""
    text = f"ucidockd: interrupted; the agent continues{what}. Nothing was undone: `ucidockd status --watch` follows it, and"
    text += " a section that you disable or delete is given up."
    print("\n".join(wrapped(text, style)), file=sys.stderr)


def _say_stopping(finishing: list[str], left: list[str]) -> None:
    style = Style.of(sys.stderr)
    text = "ucidockd: interrupted; pulls are cancelled."
    if finishing:
        text += f" Being finished or undone, so that nothing is left half done: {_some(finishing)} (Ctrl-C again leaves"
        text += " that to the next `ucidockd reconcile`)."
    if left:
        text += f" Not begun: {_some(left)}."
    print("\n".join(wrapped(text, style)), file=sys.stderr, flush=True)
