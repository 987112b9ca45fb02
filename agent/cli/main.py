# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line. Each command imports what it needs itself: `ucidockd status` has to start quickly on a router."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.errors import AlreadyRunningError, ConfigError, UcidockdError
from agent.files.options import RuntimeOptions
from agent.model.plain_text import plain

if TYPE_CHECKING:
    from agent.model.given import Given
    from agent.runtime.one_shot import Single

DEFAULT_SOCKET = "/var/run/ucidockd/agent.sock"
EXIT_CODES = """\
exit codes:
  0  fine
  1  an error: a mistake in the configuration, a conflict, a change that failed or is in back-off, no agent, no engine
  2  wrong usage
  3  another agent is running
  4  `plan --exit-code`: there is something to do, in progress or waiting
"""
_FOLDERS = ("config_dir", "override_dir", "state_dir", "save_dir")
_ENGINE = ("docker_host", "docker_cert_path")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(_COMMANDS[args.command](args))
    except AlreadyRunningError as exc:
        print(plain(f"ucidockd: {exc}"), file=sys.stderr)
        return 3
    except UcidockdError as exc:
        print(plain(f"ucidockd: {exc}"), file=sys.stderr)
        return 1
    except PermissionError as exc:
        print(f"ucidockd: {_not_permitted(exc, args.command)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ucidockd: interrupted; a running agent continues with what is under way", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # nobody reads on; Python would complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _not_permitted(exc: PermissionError, command: str) -> str:
    place = f" on {exc.filename}" if exc.filename else ""
    return f"permission denied{place}: run it as root (sudo ucidockd {command})"


def _parser() -> argparse.ArgumentParser:
    # None: not given, so that a running agent need not have the same
    common = argparse.ArgumentParser(add_help=False)
    usual = RuntimeOptions()
    common.add_argument("--config-dir", type=Path, help=f"UCI files ({usual.config_dir})")
    common.add_argument("--override-dir", type=Path, help=f"UCI overrides ({usual.override_dir})")
    common.add_argument("--save-dir", type=Path, help=f"staged UCI changes ({usual.save_dir})")
    common.add_argument("--state-dir", type=Path, help=f"kept state ({usual.state_dir})")
    common.add_argument(
        "--socket", help="control socket (the agent section's, or /var/run/ucidockd/agent.sock)"
    )
    common.add_argument(
        "--docker-host",
        type=_engine,
        help="engine (the agent section's, or unix:///var/run/docker.sock)",
    )
    common.add_argument(
        "--docker-cert-path", help="folder with ca.pem, cert.pem and key.pem, for tcp engines"
    )
    common.add_argument("--json", action="store_true", help="print JSON")
    either = argparse.ArgumentParser(add_help=False)
    either.add_argument("--no-agent", action="store_true", help="do it in this process, also beside an agent")
    parser = argparse.ArgumentParser(
        prog="ucidockd",
        description="Keeps Docker the way UCI says.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ucidockd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", parents=[common], help="run the agent")
    run.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    run.add_argument("--ubus-socket", default=RuntimeOptions().ubus_socket, help="ubusd (%(default)s)")
    check = commands.add_parser(
        "check", parents=[common], help="check the configuration; every mistake is listed"
    )
    check.add_argument("--strict", action="store_true", help="fail on warnings too")
    plan = commands.add_parser(
        "plan",
        parents=[common, either],
        help="show what would be done, and why",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan.add_argument("--exit-code", action="store_true", help="exit with 4 when there is something to do")
    plan.add_argument("--staged", action="store_true", help="as if `uci commit` had been run")
    plan.add_argument(
        "files", nargs="*", metavar="FILE", help="as if this were the committed file; `dockerd` by its name"
    )
    commands.add_parser(
        "reconcile",
        parents=[common, either],
        help="do it now, and wait for it",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    status = commands.add_parser("status", parents=[common], help="what became of each section")
    status.add_argument("--watch", action="store_true", help="follow changes")
    render = commands.add_parser("render", parents=[common], help="print the daemon.json that UCI asks for")
    render.add_argument("--diff", action="store_true", help="what would change, and what that would take")
    diff = commands.add_parser(
        "diff", parents=[common, either], help="a section against what the engine shows"
    )
    diff.add_argument("name", metavar="NAME", help="a container section, or its Docker name")
    adopt = commands.add_parser(
        "adopt",
        parents=[common, either],
        help="write the section of a container that was created with docker",
    )
    adopt.add_argument("name", metavar="NAME", help="Docker name or id")
    adopt.add_argument("--section", default="", help="name of the section (made of the Docker name)")
    adopt.add_argument("--commit", action="store_true", help="write it; without, it is only shown")
    adopt.add_argument("--show-secrets", action="store_true", help="show environment values")
    logs = commands.add_parser("logs", parents=[common], help="a container's output")
    logs.add_argument("name", metavar="NAME", help="a section, a Docker name or an id")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    logs.add_argument("-n", "--tail", default="all", metavar="N", help="the last N lines only")
    logs.add_argument("--since", default="", help="10m, seconds since 1970 or an RFC 3339 time")
    logs.add_argument("--failed", action="store_true", help="the last lines of its container that failed")
    logs.add_argument("--raw", action="store_true", help="as it is, control characters too")
    uci = commands.add_parser("uci", parents=[common], help="print what the agent reads")
    uci.add_argument("form", choices=["show", "export"])
    uci.add_argument("package")
    uci.add_argument("--store", choices=["text", "pyuci"], default="text")
    tls = commands.add_parser("tls", help="certificates for dockerd's TLS")
    kinds = tls.add_subparsers(required=True, metavar="client")
    client = kinds.add_parser("client", parents=[common], help="write what `docker --tlsverify` needs")
    client.add_argument("name", metavar="NAME", help="letters, digits and . _ @ -")
    client.add_argument("--out", type=Path, metavar="DIR", help="folder to be made (./NAME)")
    client.add_argument("--days", type=int, default=730, help="how long it is valid (%(default)s)")
    return parser


def _engine(text: str) -> str:
    from agent.model.engine_address import parse_engine_address
    from agent.model.quantities import QuantityError

    try:
        return str(parse_engine_address(text))
    except QuantityError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _options(args: argparse.Namespace) -> RuntimeOptions:
    names = (*_FOLDERS, *_ENGINE, "socket", "log_level", "ubus_socket")
    given = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    return RuntimeOptions(**given)


def _run(args: argparse.Namespace) -> int:
    from agent.runtime.main import run

    return run(_options(args))


def _check(args: argparse.Namespace) -> int:
    from agent.files.config import load
    from agent.model.issues import issue_as_json

    issues = load(_options(args)).issues
    errors = [issue for issue in issues if issue.severity == "error"]
    if args.json:
        print(json.dumps([issue_as_json(issue) for issue in issues], indent=1))
    else:
        for issue in issues:
            print(plain(f"{issue.severity}: {issue.text()}"))
        if not issues:
            print("no mistakes")
    return 1 if errors or (args.strict and issues) else 0


def _plan(args: argparse.Namespace) -> int:
    if args.staged or args.files:
        body = {"staged": args.staged, **_read_packages(args.files)}
        result = _ask_or_do(
            args, ("POST", "/v1/plan"), lambda single: single.plan(_given(body)), body, changes=False
        )
    else:
        result = _ask_or_do(args, ("GET", "/v1/plan"), lambda single: single.plan(), changes=False)
    _print_plan(args, result)
    if not result["ok"]:
        return 1
    undone = result["operations"] or any(entry["level"] == "waiting" for entry in result["pending"])
    return 4 if args.exit_code and undone else 0


def _read_packages(files: Sequence[str]) -> dict[str, dict[str, str]]:
    """The texts of UCI files by package, and where each is from: a file named `dockerd` is that package's."""
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
    from agent.model.given import Given

    return Given(texts=body["packages"], paths=body["paths"], staged=body["staged"])


def _reconcile(args: argparse.Namespace) -> int:
    from agent.cli.progress import bars_of

    with bars_of(_socket(args)) as feed:
        result = _ask_or_do(args, ("POST", "/v1/reconcile"), lambda single: single.reconcile(feed))
    _print_plan(args, result)
    for failure in result["failed"]:
        what = "skipped" if failure["skipped"] else "failed"
        print(plain(f"{what}: {failure['op']} {failure['key']}: {failure['error']}"), file=sys.stderr)
    return 0 if result["ok"] else 1


def _ask_or_do(
    args: argparse.Namespace,
    request: tuple[str, str],
    alone: Callable[[Single], dict[str, Any]],
    body: dict[str, Any] | None = None,
    *,
    changes: bool = True,
) -> dict[str, Any]:
    """The running agent's answer; without one we do it ourselves. `changes`: it may change something."""
    from agent.cli.agent_client import NoAgentError, call

    if not args.no_agent:
        try:
            _check_options(args)
            answer: dict[str, Any] = call(_socket(args), *request, body=body)
            return answer
        except NoAgentError:
            pass
    import logging

    from agent.runtime.one_shot import Single

    logging.getLogger("agent").addHandler(logging.NullHandler())  # what it warns of, the answer tells
    answer = alone(Single(_options(args)))
    if changes and any(entry["level"] == "waiting" for entry in answer.get("pending", ())):
        print("no agent is running: what waits needs another `ucidockd reconcile`", file=sys.stderr)
    return answer


def _check_options(args: argparse.Namespace) -> None:
    """A running agent has its own folders and engine. Raises ConfigError where others are named."""
    from agent.cli.agent_client import call

    asked = {name: value for name in (*_FOLDERS, *_ENGINE) if (value := getattr(args, name)) is not None}
    if not asked:
        return
    agent = call(_socket(args), "GET", "/v1/status?limit=1", timeout_s=10)["agent"]
    for name, value in asked.items():
        option, has = name.replace("_", "-"), agent.get("options", {}).get(name.replace("_", "-"), "")
        wanted = str(value)
        if (os.path.realpath(wanted) if name in _FOLDERS else wanted) == (
            os.path.realpath(has) if name in _FOLDERS else has
        ):
            continue
        alone = f"; `ucidockd {args.command} --no-agent` asks no agent" if hasattr(args, "no_agent") else ""
        raise ConfigError(
            f"the agent on {_socket(args)} runs with --{option} {has}, not {wanted}: leave the option out, or name"
            f" another agent's --socket{alone}"
        )


def _print_plan(args: argparse.Namespace, result: dict[str, Any]) -> None:
    from agent.cli.output import Style, plan_text, print_issues

    if args.json:
        print(json.dumps(result, indent=1))
        return
    print_issues(result["issues"])
    print(plan_text(result, Style.of(sys.stdout)))


def _status(args: argparse.Namespace) -> int:
    from agent.cli.status import show_status

    _check_options(args)
    return show_status(_socket(args), as_json=args.json, watch=args.watch)


def _diff(args: argparse.Namespace) -> int:
    from agent.cli.container import print_diff, route_name

    request = ("GET", f"/v1/containers/{route_name(args.name)}/diff")
    answer = _ask_or_do(args, request, lambda single: single.diff(args.name))
    return print_diff(answer, as_json=args.json)


def _adopt(args: argparse.Namespace) -> int:
    from agent.cli.container import print_adoption

    body = {
        "container": args.name,
        "section": args.section,
        "commit": args.commit,
        "show_secrets": args.show_secrets,
    }
    answer = _ask_or_do(args, ("POST", "/v1/adopt"), lambda single: single.adopt(body), body)
    return print_adoption(answer, as_json=args.json)


def _logs(args: argparse.Namespace) -> int:
    from agent.cli.container import show_failed, show_logs

    _check_options(args)
    if args.failed:
        return show_failed(_socket(args), args.name)
    form = "json" if args.json else "raw" if args.raw else "text"
    return show_logs(
        _socket(args), args.name, follow=args.follow, tail=args.tail, since=args.since, form=form
    )


def _socket(args: argparse.Namespace) -> str:
    """The control socket: as asked for, where it usually is, or where the agent section says."""
    if args.socket:
        return str(args.socket)
    if not os.path.exists(DEFAULT_SOCKET):
        from agent.files.uci_store import TextUciStore

        options = _options(args)
        store = TextUciStore(config_dir=options.config_dir, override_dir=options.override_dir)
        try:
            sections = store.load("containers").sections
        except UcidockdError:
            return DEFAULT_SOCKET  # what is wrong with the configuration, `check` says
        said = (section.get("socket") for section in sections if section.type == "agent")
        return next((str(option.value) for option in said if option is not None), DEFAULT_SOCKET)
    return DEFAULT_SOCKET


def _render(args: argparse.Namespace) -> int:
    from agent.dockerd import preview as daemon_render

    found = daemon_render.preview(_options(args))
    for message in found.messages:
        print(plain(f"warning: {message}"), file=sys.stderr)
    if args.json:
        print(json.dumps(daemon_render.as_json(found), indent=1))
    else:
        print(
            daemon_render.as_text(found) if args.diff else found.text.decode(), end="\n" if args.diff else ""
        )
    return 0


def _uci(args: argparse.Namespace) -> int:
    from agent.files.uci_store import PyuciStore, TextUciStore
    from agent.uci.syntax import format_export, format_show

    kind = PyuciStore if args.store == "pyuci" else TextUciStore
    options = _options(args)
    package = kind(config_dir=options.config_dir, override_dir=options.override_dir).load(args.package)
    text = format_show(package) if args.form == "show" else format_export(package)
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    return 0


def _tls(args: argparse.Namespace) -> int:
    from agent.cli.tls import tls_client
    from agent.files.config import load

    desired = load(_options(args)).desired
    return tls_client(args, desired.daemon if desired else None)


_COMMANDS = {
    "run": _run,
    "check": _check,
    "plan": _plan,
    "reconcile": _reconcile,
    "status": _status,
    "render": _render,
    "diff": _diff,
    "adopt": _adopt,
    "logs": _logs,
    "uci": _uci,
    "tls": _tls,
}
