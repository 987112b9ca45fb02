# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd check`: every mistake of the configuration, as compilers write them: `file:line: error: ...`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.cli.ask import runtime_options
from agent.cli.output import Style
from agent.errors import ConfigError
from agent.files.config import load_given
from agent.files.uci_store import SIZE_LIMIT, UciMissing, read_text
from agent.model.given import Given
from agent.model.issues import Issue, issue_as_json
from agent.model.plain_text import plain

_STDIN = "-"


def check(args: argparse.Namespace) -> int:
    """Prints them in the order of their lines; 1 where one is an error, with --strict also for a warning."""
    options = runtime_options(args)
    texts, paths = packages_of(args.files)
    given = Given(texts=texts, paths=paths, staged=args.staged, save_dir=str(options.save_dir))
    found = load_given(options, given).issues
    issues = [issue for issue in found if not texts or issue.package in texts]
    errors = sum(issue.severity == "error" for issue in issues)
    if args.json:
        print(json.dumps([issue_as_json(issue) for issue in issues], indent=1))
    else:
        _print(issues, errors)
    return 1 if errors or (args.strict and issues) else 0


def packages_of(files: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The texts of UCI files by package, and where each is from: a file named `dockerd` is that package's.

    `-` is the standard input. Raises ConfigError.
    """
    texts: dict[str, str] = {}
    paths: dict[str, str] = {}
    for name in files:
        package = "dockerd" if Path(name).name == "dockerd" else "containers"
        if package in texts:
            raise ConfigError(f"{paths[package]} and {name} are both for `{package}`: give one file for each")
        texts[package], paths[package] = _read(name), "<stdin>" if name == _STDIN else name
    return texts, paths


def _read(name: str) -> str:
    if name != _STDIN:
        try:
            return read_text(Path(name))
        except UciMissing as exc:
            raise ConfigError(
                f"there is no file {name}: name one, or none for what is committed in /etc/config"
            ) from exc
    data = sys.stdin.buffer.read(SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise ConfigError(f"the standard input is larger than {SIZE_LIMIT // 1024**2} MiB")
    return data.decode("utf-8", "surrogateescape")


def _print(issues: Sequence[Issue], errors: int) -> None:
    style = Style.of(sys.stdout)
    for issue in issues:
        word = style("bad" if issue.severity == "error" else "busy", issue.severity)
        where = f"{style('head', plain(issue.where))}: " if issue.where else ""
        print(f"{where}{word}: {plain(issue.words())}")
    if not issues:
        print("no mistakes")
        return
    counts = [_count(errors, "error"), _count(len(issues) - errors, "warning")]
    print(" and ".join(count for count in counts if count), file=sys.stderr)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""
