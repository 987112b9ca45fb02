# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line. Each command imports what it needs itself: `ucidockd status` has to start quickly on a router.

Exit codes: 0 fine, 1 error, 2 usage, 3 already running, 4 `plan --exit-code` found changes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.errors import AlreadyRunningError, UcidockdError
from agent.runtime.options import RuntimeOptions

DEFAULT_SOCKET = "/var/run/ucidockd/agent.sock"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(_COMMANDS[args.command](args))
    except AlreadyRunningError as exc:
        print(f"ucidockd: {exc}", file=sys.stderr)
        return 3
    except UcidockdError as exc:
        print(f"ucidockd: {exc}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 1


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config-dir", type=Path, default=Path("/etc/config"), help="UCI files (%(default)s)"
    )
    common.add_argument(
        "--override-dir", type=Path, default=Path("/var/run/uci"), help="UCI overrides (%(default)s)"
    )
    common.add_argument(
        "--state-dir", type=Path, default=Path("/etc/ucidockd"), help="kept state (%(default)s)"
    )
    common.add_argument(
        "--socket", help="control socket (the agent section's, or /var/run/ucidockd/agent.sock)"
    )
    common.add_argument("--docker-host", help="engine (the agent section's, or unix:///var/run/docker.sock)")
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = argparse.ArgumentParser(prog="ucidockd", description="Keeps Docker the way UCI says.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", parents=[common], help="run the agent")
    run.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    run.add_argument("--ubus-socket", default=RuntimeOptions().ubus_socket, help="ubusd (%(default)s)")
    commands.add_parser("check", parents=[common], help="check the configuration; every mistake is listed")
    plan = commands.add_parser("plan", parents=[common], help="show what would be done, and why")
    plan.add_argument("--exit-code", action="store_true", help="exit with 4 when there is something to do")
    commands.add_parser("reconcile", parents=[common], help="do it now")
    status = commands.add_parser("status", parents=[common], help="what became of each section")
    status.add_argument("--watch", action="store_true", help="follow changes")
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


def _options(args: argparse.Namespace) -> RuntimeOptions:
    return RuntimeOptions(
        config_dir=args.config_dir,
        override_dir=args.override_dir,
        state_dir=args.state_dir,
        socket=args.socket,
        docker_host=args.docker_host,
        log_level=getattr(args, "log_level", None),
        ubus_socket=getattr(args, "ubus_socket", RuntimeOptions().ubus_socket),
    )


def _run(args: argparse.Namespace) -> int:
    from agent.runtime.main import run

    return run(_options(args))


def _check(args: argparse.Namespace) -> int:
    from agent.runtime.config import load

    issues = load(_options(args)).issues
    errors = [issue for issue in issues if issue.severity == "error"]
    if args.json:
        print(json.dumps([{"severity": i.severity, "text": i.text()} for i in issues], indent=1))
    else:
        for issue in issues:
            print(f"{issue.severity}: {issue.text()}")
        if not issues:
            print("no mistakes")
    return 1 if errors else 0


def _plan(args: argparse.Namespace) -> int:
    result = _ask_or_do(args, "GET", "/v1/plan", dry_run=True)
    _print_plan(args, result)
    return 4 if args.exit_code and result["operations"] else 0


def _reconcile(args: argparse.Namespace) -> int:
    result = _ask_or_do(args, "POST", "/v1/reconcile", dry_run=False)
    _print_plan(args, result)
    for failure in result["failed"]:
        print(f"failed: {failure['op']} {failure['key']}: {failure['error']}", file=sys.stderr)
    return 1 if result["failed"] else 0


def _ask_or_do(args: argparse.Namespace, method: str, route: str, *, dry_run: bool) -> dict[str, Any]:
    from agent.clients.agent_client import NoAgentError, call

    try:
        answer: dict[str, Any] = call(args.socket or DEFAULT_SOCKET, method, route)
        return answer
    except NoAgentError:
        from agent.runtime.single import single_pass

        return single_pass(_options(args), dry_run=dry_run)


def _print_plan(args: argparse.Namespace, result: dict[str, Any]) -> None:
    from agent.cli_output import plain

    if args.json:
        print(json.dumps(result, indent=1))
        return
    for issue in result["issues"]:
        print(f"{issue['severity']}: {plain(issue['text'])}", file=sys.stderr)
    for line in str(result["text"]).splitlines():
        print(plain(line))


def _status(args: argparse.Namespace) -> int:
    from agent.cli_output import status_table
    from agent.clients.agent_client import call, follow

    socket = args.socket or DEFAULT_SOCKET

    def show() -> None:
        status = call(socket, "GET", "/v1/status", timeout_s=10)
        print(json.dumps(status, indent=1) if args.json else status_table(status), flush=True)

    show()
    if args.watch:
        for event in follow(socket, "/v1/status/stream"):
            if args.json:
                print(json.dumps(event), flush=True)
            else:
                print()
                show()
    return 0


def _uci(args: argparse.Namespace) -> int:
    from agent.clients.uci_store import PyuciStore, TextUciStore
    from agent.uci.syntax import format_export, format_show

    kind = PyuciStore if args.store == "pyuci" else TextUciStore
    package = kind(config_dir=args.config_dir, override_dir=args.override_dir).load(args.package)
    text = format_show(package) if args.form == "show" else format_export(package)
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    return 0


def _tls(args: argparse.Namespace) -> int:
    from agent.cli_tls import tls_client

    return tls_client(args)


_COMMANDS = {
    "run": _run,
    "check": _check,
    "plan": _plan,
    "reconcile": _reconcile,
    "status": _status,
    "uci": _uci,
    "tls": _tls,
}
