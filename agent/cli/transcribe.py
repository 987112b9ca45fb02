# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd import` and `export`: converts docker run lines and compose files to sections and back. Needs no agent."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from agent.cli.output import Style, print_sections
from agent.cli.parser import runtime_options
from agent.convert.requests import ImportRequest, export
from agent.errors import ConfigError, PathError, UsageError
from agent.files.config import load, open_store
from agent.files.user_paths import PATHS
from agent.model.issues import plain
from agent.runtime.requests.adopt import Importer

_STYLES = {"taken": "good", "changed": "busy", "left out": "busy", "unknown": "bad"}
_COMPOSE_S = 30


def import_run(args: argparse.Namespace) -> int:
    """`ucidockd import run`."""
    words = [*([args.word] if args.word else []), *args.rest]
    # behind a line in quotes our own flags are still ours
    if words and len(words[0].split()) > 1 and {"--commit", "--json"}.issuperset(words[1:]):
        args.commit = args.commit or "--commit" in words
        args.json = args.json or "--json" in words
        words = words[:1]
    if not words and sys.stdin.isatty():
        print("Paste the docker run line, then press Ctrl-D:", file=sys.stderr)
    run: str | tuple[str, ...] = tuple(words) or sys.stdin.read()
    if len(words) == 1:  # `import run 'docker run ...'`
        run = words[0]
    if not str(run if isinstance(run, str) else " ".join(run)).strip():
        raise UsageError(
            "the docker run line is missing, as in `ucidockd import run -- docker run -d -p 8080:80 nginx`"
        )
    folder = os.path.abspath(args.folder or ".")
    return _import(args, ImportRequest(run=run, folder=folder, commit=args.commit))


def import_compose(args: argparse.Namespace) -> int:
    """`ucidockd import compose`."""
    path = "" if args.file == "-" else os.path.abspath(args.file)
    folder = os.path.abspath(args.folder or (os.path.dirname(path) if path else "."))
    text = _read(path) if path else sys.stdin.read()
    # .env is optional, as in compose; a named file must exist
    env = args.env_file or os.path.join(folder, ".env")
    variables = _read(env) if args.env_file or os.path.exists(env) else ""
    request = ImportRequest(
        compose=_as_json(path, text, args, env),
        project=args.project,
        folder=folder,
        env=variables,
        profiles=tuple(args.profiles),
        commit=args.commit,
    )
    try:
        return _import(args, request)
    except ConfigError as exc:
        raise ConfigError(f"{args.file if path else '<stdin>'}: {exc}") from None


def export_text(args: argparse.Namespace) -> int:
    """`ucidockd export run` and `ucidockd export compose`."""
    loaded = load(runtime_options(args))
    if loaded.desired is None:
        raise ConfigError("the configuration cannot be read: `ucidockd check` says why")
    sys.stdout.write(export(args.command.split()[1], args.names, loaded.desired))
    return 0


def _read(path: str) -> str:
    try:
        return PATHS.read_text(path)
    except PathError as exc:
        raise ConfigError(str(exc)) from None


def _as_json(path: str, text: str, args: argparse.Namespace, env: str) -> str:
    """The file as JSON, by docker's own compose if that is installed and PyYAML is not."""
    import importlib.util
    import shutil

    if (
        not path
        or text.lstrip().startswith("{")
        or importlib.util.find_spec("yaml")
        or not shutil.which("docker")
    ):
        return text
    chosen = [word for profile in args.profiles for word in ("--profile", profile)]
    # the same places as for our own reader
    chosen += ["--project-directory", args.folder] if args.folder else []
    chosen += ["--project-name", args.project] if args.project else []
    chosen += ["--env-file", env] if args.env_file else []
    command = ["docker", "compose", "-f", path, *chosen, "config", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPOSE_S, check=False)
    # fall back to the text: our own reader explains what is wrong with it
    except (OSError, subprocess.TimeoutExpired):
        return text
    return done.stdout if done.returncode == 0 and done.stdout.lstrip().startswith("{") else text


def _import(args: argparse.Namespace, request: ImportRequest) -> int:
    try:
        importer = Importer(store=open_store(runtime_options(args)), read_compose=PATHS.read_text)
        answer = importer.run(request)
    except OSError as exc:
        raise ConfigError(f"{exc.filename}: {exc.strerror}") from exc
    if args.json:
        print(json.dumps(answer, indent=1))
    else:
        _show(answer)
    return 0 if answer["sections"] else 1


def _show(answer: dict[str, Any]) -> None:
    """Prints the sections to standard output, and what happened to each flag or key to standard error."""
    print_sections(answer["text"])
    sys.stdout.flush()  # so that both appear in this order on a terminal
    style = Style.of(sys.stderr)
    counts: dict[str, int] = {}
    for line in answer["report"]:
        verdict = str(line["verdict"])
        counts[verdict] = counts.get(verdict, 0) + 1
        if verdict != "taken":
            print(
                f"{style(_STYLES[verdict], verdict)}: {plain(line['where'])}: {plain(line['text'])}",
                file=sys.stderr,
            )
    for warning in answer["warnings"]:
        print(f"{style('busy', 'warning')}: {plain(warning)}", file=sys.stderr)
    for file in answer["files"]:
        print(f"file: {plain(file['path'])} (mode 0600)", file=sys.stderr)
    total = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _STYLES if verdict in counts)
    names = ", ".join(f"{section['type']} {section['name']}" for section in answer["sections"]) or "nothing"
    print(f"{total}.", file=sys.stderr)
    if answer["committed"]:
        print(
            f"Written: {plain(names)}. `ucidockd reconcile` applies it and shows the outcome.",
            file=sys.stderr,
        )
    elif answer["sections"]:
        print("Nothing is written yet; the same command with --commit writes it.", file=sys.stderr)
