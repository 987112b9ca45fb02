# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd check`: every mistake of the configuration."""

from __future__ import annotations

import argparse
import json

from agent.cli.ask import runtime_options
from agent.files.config import load, load_given
from agent.model.given import Given
from agent.model.issues import issue_as_json
from agent.model.plain_text import plain


def check(args: argparse.Namespace) -> int:
    """Prints them; 1 where one is an error."""
    options = runtime_options(args)
    issues = (load_given(options, Given(staged=True)) if args.staged else load(options)).issues
    errors = [issue for issue in issues if issue.severity == "error"]
    if args.json:
        print(json.dumps([issue_as_json(issue) for issue in issues], indent=1))
    else:
        for issue in issues:
            print(plain(f"{issue.severity}: {issue.text()}"))
        if not issues:
            print("no mistakes")
    return 1 if errors or (args.strict and issues) else 0
