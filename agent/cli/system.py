# SPDX-License-Identifier: GPL-2.0-or-later
"""`check`, `render`, `uci`, `prune`, `notify`, `tls client`, `help` and `version`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.cli.output import Style, agreed, columns
from agent.cli.parser import runtime_options
from agent.errors import ConfigError, UsageError
from agent.files.config import load, load_given
from agent.files.uci_store import SIZE_LIMIT, UciMissing, read_text
from agent.model.addresses import UNKNOWN_MACHINE, is_address
from agent.model.issues import GivenConfig, issue_as_json, plain

if TYPE_CHECKING:
    from agent.tls.certificates import ClientBundle


def render(args: argparse.Namespace) -> int:
    """Prints dockerd's configuration file, or what would change in it."""
    from agent.runtime.requests import foresight as daemon_render

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
    """Prints a package as the agent reads it."""
    from agent.files.uci_store import PyuciStore, TextUciStore
    from agent.uci.syntax import format_export, format_show

    kind = PyuciStore if args.store == "pyuci" else TextUciStore
    options = runtime_options(args)
    package = kind(config_dir=options.config_dir, override_dir=options.override_dir).load(args.package)
    text = format_show(package) if args.form == "show" else format_export(package)
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    return 0


def show_help(args: argparse.Namespace) -> int:
    """Prints the commands, or the help of one."""
    from agent.cli.parser import help_for

    try:
        sys.stdout.write(help_for(args.topic))
    except UsageError as exc:
        print(plain(f"ucidockd help: {exc}"), file=sys.stderr)
        return 2
    return 0


def version(args: argparse.Namespace) -> int:
    """Prints our version."""
    del args
    print(f"ucidockd {__version__}")
    return 0


# `ucidockd prune`: a preview, a question, then the removal


def prune(args: argparse.Namespace) -> int:
    """Removes images that nothing needs."""
    asked = {"images": args.images or "", "older": args.older, "build_cache": args.build_cache}
    if args.yes and not args.dry_run:
        return _pruned(args, asked)
    found = _ask_to_prune(args, {**asked, "dry_run": True})
    if args.json:
        print(json.dumps({"schema": 1, **found}, indent=1))
        return 0
    _show_prune(found, done=False)
    if args.dry_run or not (found["going"] or found["build_cache"]["entries"]):
        return 0
    # a script that cannot answer must neither hang nor remove anything
    if not sys.stdin.isatty():
        print("Nothing is removed yet; --yes removes it.", file=sys.stderr)
        return 0
    return _pruned(args, asked) if agreed("Remove this?") else 0


def _pruned(args: argparse.Namespace, asked: dict[str, Any]) -> int:
    found = _ask_to_prune(args, asked)
    if args.json:
        print(json.dumps({"schema": 1, **found}, indent=1))
    else:
        _show_prune(found, done=True)
    return 1 if found["failed"] else 0


def _ask_to_prune(args: argparse.Namespace, asked: dict[str, Any]) -> dict[str, Any]:
    from agent.cli.ask import agent_socket, call

    found: dict[str, Any] = call(agent_socket(args), "POST", "/v1/prune", body=asked)
    return found


def _show_prune(found: dict[str, Any], *, done: bool) -> None:
    from agent.model.quantities import size_words

    style = Style.of(sys.stdout)

    def rows(images: list[dict[str, Any]], *more: str) -> list[list[str]]:
        return [
            [
                ", ".join(i["names"]) or i["id"].removeprefix("sha256:")[:12],
                size_words(i["bytes"]),
                *(i[m] for m in more),
            ]
            for i in images
        ]

    # what is removed comes before what is kept, and the sum last: on a terminal the end is what people see
    for line in columns(("REMOVED" if done else "TO REMOVE", "SIZE"), rows(found["going"]), style):
        print(line)
    if found["build_cache"]["entries"]:
        print(f"build cache: {size_words(found['build_cache']['bytes'])}")
    if not done:
        # after the removal the reasons for what was kept no longer matter
        for line in columns(("STAYS", "SIZE", "BECAUSE"), rows(found["kept"], "why"), style):
            print(line)
    for failure in found["failed"]:
        print(
            f"{style('bad', 'error')}: {plain(failure['name'])}: {plain(failure['error'])}", file=sys.stderr
        )
    count = len(found["going"])
    if not count and not found["bytes"] and not found["failed"]:
        print("Nothing to remove.")
        return
    # "at least": the engine counts layers that images share only once
    gone = f"{count} image{'' if count == 1 else 's'}, {size_words(found['bytes'])} at least"
    space = found["space"]
    free = f"; {size_words(space['free'])} of {size_words(space['total'])} are free" if space else ""
    print(f"{'Removed' if done else 'To remove'}: {gone}{free}.")


def notify(args: argparse.Namespace) -> int:
    """Sends a test notice."""
    from agent.cli.ask import agent_socket, call

    found = call(agent_socket(args), "POST", "/v1/notify/test", body={"name": args.test})
    if args.json:
        print(json.dumps({"schema": 1, **found}))
    elif found["sent"]:
        print(plain(f"{args.test}: delivered in {found['took_s']:g} s"))
    else:
        print(plain(f"ucidockd notify: {args.test}: not delivered: {found['error']}"), file=sys.stderr)
    return 0 if found["sent"] else 1


# `ucidockd check`: lists every mistake in the configuration in the form of compilers: `file:line: error: ...`


_STDIN = "-"


def check(args: argparse.Namespace) -> int:
    """Prints the mistakes in the order of their lines. Returns 1 if there is an error, with --strict also for a warning."""
    options = runtime_options(args)
    texts, paths = packages_of(args.files)
    given = GivenConfig(texts=texts, paths=paths, staged=args.staged, save_dir=str(options.save_dir))
    machine = UNKNOWN_MACHINE
    if not args.offline:
        from agent.router.listening import machine_of

        committed = load(options)
        settings = (committed.desired or committed.readable).agent
        machine = machine_of(options, str(options.engine_address(settings)))
    # needs neither agent nor engine: the agent's own code reads the files here
    loaded = load_given(options, given, machine)
    found = loaded.issues
    if not args.offline:
        from agent.dockerd.stage import make_stage
        from agent.runtime.requests.foresight import not_here
        from agent.status.board import StatusBoard

        # what dockerd's settings need on this machine; skipped with --offline, because the files may be for another machine
        agent = (loaded.desired or loaded.readable).agent
        found = (*found, *not_here(make_stage(options, agent, StatusBoard(time.time)), loaded))
    issues = [issue for issue in found if not texts or issue.package in texts]
    errors = sum(issue.severity == "error" for issue in issues)
    if args.json:
        print(json.dumps([issue_as_json(issue) for issue in issues], indent=1))
        return 1 if errors or (args.strict and issues) else 0
    style = Style.of(sys.stdout)
    for issue in issues:
        word = style("bad" if issue.severity == "error" else "busy", issue.severity)
        where = f"{style('head', plain(issue.where))}: " if issue.where else ""
        print(f"{where}{word}: {plain(issue.words())}")
    if issues:
        counts = [_count(errors, "error"), _count(len(issues) - errors, "warning")]
        print(" and ".join(count for count in counts if count), file=sys.stderr)
    else:
        print("no mistakes")
    return 1 if errors or (args.strict and issues) else 0


def packages_of(files: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The texts of UCI files by package, and the path of each: a file named `dockerd` is that package's.

    `-` is the standard input. Raises ConfigError.
    """
    texts: dict[str, str] = {}
    paths: dict[str, str] = {}
    for name in files:
        # the content of a UCI file does not name its package
        package = "dockerd" if Path(name).name == "dockerd" else "containers"
        if package in texts:
            raise UsageError(f"{paths[package]} and {name} are both for `{package}`: give one file for each")
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


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}" if number else ""


# `ucidockd tls client NAME`: writes a client's certificates and explains their use


_PORT = 2376  # docker's default for TLS, used if no host is configured yet


def tls_client(args: argparse.Namespace) -> int:
    """Writes the certificates of a new client. Raises what `Certificates.make_client` raises."""
    from agent.model.dockerd.values import is_loopback
    from agent.tls.certificates import Certificates

    options = runtime_options(args)
    desired = load(options).desired
    # from UCI if it can be read; prefer a port that other hosts can reach to one on loopback
    hosts = desired.daemon.hosts if desired and desired.daemon else ()
    tcp = sorted((host for host in hosts if not host.is_unix), key=is_loopback)
    target = Path(args.out or args.name).absolute()
    maker = Certificates(options.state_dir / "tls")
    bundle = maker.make_client(args.name, target, days=args.days, now=time.time())
    if args.json:
        print(json.dumps(asdict(bundle), default=str, indent=1))
    else:
        print(_text(bundle, tcp[0].port if tcp else _PORT))
    return 0


def _text(bundle: ClientBundle, port: int) -> str:
    end = datetime.fromtimestamp(bundle.expires, UTC).strftime("%Y-%m-%d")
    return "\n".join(
        [
            f"{bundle.directory}: certificate of client {bundle.name}, valid until {end}",
            "Anyone who has this folder is root on this router. Move it to the client, and there:",
            f"  export DOCKER_HOST=tcp://{_host(bundle.server_names)}:{port}",
            "  export DOCKER_TLS_VERIFY=1",
            f"  export DOCKER_CERT_PATH=/path/to/{bundle.directory.name}",
            "  docker version",
            "dockerd's certificate is valid for: " + (", ".join(bundle.server_names) or "nothing yet"),
        ]
    )


def _host(names: tuple[str, ...]) -> str:
    """An address or name of the router that works from another host, if one is known."""
    local = {"localhost", "127.0.0.1", "::1"}
    known = [name for name in names if name not in local and not name.startswith("*")]
    known.sort(key=lambda name: (":" in name, not is_address(name)))
    if not known:
        return "ROUTER"
    return f"[{known[0]}]" if ":" in known[0] else known[0]
