# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd plan` and `reconcile`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from agent.cli.ask import agent_socket, ask_or_do
from agent.cli.output import Style, plan_text, print_issues
from agent.errors import ConfigError
from agent.model.given import Given
from agent.model.plain_text import plain


def plan(args: argparse.Namespace) -> int:
    """What would be done."""
    if args.staged or args.files:
        body = {"staged": args.staged, **_read_packages(args.files)}
        result = ask_or_do(
            args, ("POST", "/v1/plan"), lambda single: single.plan(_given(body)), body, changes=False
        )
    else:
        result = ask_or_do(args, ("GET", "/v1/plan"), lambda single: single.plan(), changes=False)
    _print_plan(args, result)
    if not result["ok"]:
        return 1
    undone = result["operations"] or any(entry["level"] == "waiting" for entry in result["pending"])
    return 4 if args.exit_code and undone else 0


def _read_packages(files: Sequence[str]) -> dict[str, dict[str, str]]:
    """The texts of UCI files by package, and where each is from: a file named `dockerd` is that package's."""
    from pathlib import Path

    from agent.files.uci_store import read_text

    texts: dict[str, str] = {}
    paths: dict[str, str] = {}
    for name in files:
        package = "dockerd" if Path(name).name == "dockerd" else "containers"
        if package in texts:
            raise ConfigError(f"{paths[package]} and {name} are both for `{package}`: give one file for each")
        texts[package], paths[package] = read_text(Path(name)), name
    return {"packages": texts, "paths": paths}


def _given(body: dict[str, Any]) -> Given:
    return Given(texts=body["packages"], paths=body["paths"], staged=body["staged"])


def reconcile(args: argparse.Namespace) -> int:
    """Does it now, and waits for it."""
    from agent.cli.progress import bars_of

    with bars_of(agent_socket(args)) as feed:
        result = ask_or_do(args, ("POST", "/v1/reconcile"), lambda single: single.reconcile(feed))
    _print_plan(args, result)
    for failure in result["failed"]:
        what = "skipped" if failure["skipped"] else "failed"
        print(plain(f"{what}: {failure['op']} {failure['key']}: {failure['error']}"), file=sys.stderr)
    return 0 if result["ok"] else 1


def _print_plan(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(result, indent=1))
        return
    print_issues(result["issues"])
    print(plan_text(result, Style.of(sys.stdout)))
