# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent itself, what it reads, and help: `run`, `render`, `uci`, `help`, `version`."""

from __future__ import annotations

import argparse
import json
import sys

from agent import __version__
from agent.cli.ask import runtime_options
from agent.model.plain_text import plain


def run(args: argparse.Namespace) -> int:
    """The agent."""
    from agent.runtime.main import run as run_agent

    return run_agent(runtime_options(args))


def render(args: argparse.Namespace) -> int:
    """dockerd's configuration file, or what would change in it."""
    from agent.dockerd import preview as daemon_render

    found = daemon_render.preview(runtime_options(args))
    for message in found.messages:
        print(plain(f"warning: {message}"), file=sys.stderr)
    if args.json:
        print(json.dumps(daemon_render.as_json(found), indent=1))
    else:
        print(
            daemon_render.as_text(found) if args.diff else found.text.decode(), end="\n" if args.diff else ""
        )
    return 0


def uci(args: argparse.Namespace) -> int:
    """A package, as the agent reads it."""
    from agent.files.uci_store import PyuciStore, TextUciStore
    from agent.uci.syntax import format_export, format_show

    kind = PyuciStore if args.store == "pyuci" else TextUciStore
    options = runtime_options(args)
    package = kind(config_dir=options.config_dir, override_dir=options.override_dir).load(args.package)
    text = format_show(package) if args.form == "show" else format_export(package)
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    return 0


def show_help(args: argparse.Namespace) -> int:
    """The commands, or one of them."""
    from agent.cli.parser import UsageError, help_for

    try:
        sys.stdout.write(help_for(args.topic))
    except UsageError as exc:
        print(plain(f"ucidockd help: {exc}"), file=sys.stderr)
        return 2
    return 0


def version(args: argparse.Namespace) -> int:
    """Ours."""
    del args
    print(f"ucidockd {__version__}")
    return 0
