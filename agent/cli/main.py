# SPDX-License-Identifier: GPL-2.0-or-later
"""The entry point of the command line. Each command imports what it needs, so that `ucidockd status` starts quickly."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from agent.errors import AlreadyRunningError, UcidockdError, UsageError

if TYPE_CHECKING:
    import argparse

INTERRUPTED = 130  # the exit code that shells use: 128 and the number of SIGINT
_TRACEBACK = "UCIDOCKD_TRACEBACK"  # environment variable: show the traceback of an internal error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None and isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # a locale without a character of a log or a name: it is shown by its number, as on standard error
        sys.stdout.reconfigure(errors="backslashreplace")
    from agent.cli import parser

    if not words:
        sys.stdout.write(parser.overview())
        return 2
    try:
        if (text := parser.asked_for_help(words)) is not None:
            sys.stdout.write(text)
            return 0
        command, args = parser.parse(words)
    except UsageError as exc:
        return _wrong_usage(exc, exc.command)
    # only as a program: `check` may hang on a dead mount, which only a child process can be left behind in
    if argv is None and command.name == "check":
        return _by_child(lambda: call(command.handler, args))
    return call(command.handler, args)


def _by_child(work: Callable[[], int]) -> int:
    """Runs work that looks at users' paths in a child process; returns its exit code.

    If a mount does not answer, a thread that looks up a name on it cannot be killed, and its process never ends. Then
    the child stays behind, and this process ends normally.
    """
    ours, its = os.pipe()
    if not os.fork():
        code = work()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # the reader of the output is gone
                stream.flush()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):  # close the outputs: readers wait until all writers have closed them
            os.dup2(nothing, descriptor)
        os.write(its, bytes([code]))
        os._exit(code)
    os.close(its)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child gets the signal too, and reports it
    told = os.read(ours, 1)
    return told[0] if told else 1


def run(args: argparse.Namespace) -> int:
    """Runs the agent. It is here because it needs nothing of the other commands' modules."""
    from agent.cli.parser import runtime_options
    from agent.runtime.main import run as run_agent

    return run_agent(runtime_options(args))


def call(handler: str, args: argparse.Namespace) -> int:
    """Calls `module:function`; prints an error as a sentence."""
    module, _, name = handler.partition(":")
    try:
        function: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(module), name)
        code = function(args)
        # flush here: at exit nothing could handle the error of a closed pipe
        sys.stdout.flush()
        return code
    except UsageError as exc:
        return _wrong_usage(exc, args.command)
    # errors that a user can cause are sentences; only our own defect asks for a report
    except AlreadyRunningError as exc:
        _say(str(exc))
        return 3
    except (UcidockdError, PermissionError) as exc:
        denied = exc if isinstance(exc, PermissionError) else exc.__cause__
        if isinstance(exc, UcidockdError) and not isinstance(denied, PermissionError):
            _say(sentence(exc, args.command))
            return 1
        place = f" on {denied.filename}" if isinstance(denied, PermissionError) and denied.filename else ""
        _say(f"permission denied{place}: run it as root (sudo ucidockd {args.command})")
        return 1
    except KeyboardInterrupt:
        _say("interrupted; a running agent continues its operations")
        return INTERRUPTED
    except BrokenPipeError:
        # the reader is gone; without this, Python would complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:
        place = f"{exc.filename}: " if exc.filename else ""
        _say(f"{place}{exc.strerror or exc}")
        return 1
    except Exception as exc:
        if os.environ.get(_TRACEBACK):
            raise
        _say(
            f"internal error ({type(exc).__name__}), a defect of ucidockd: please report it with the output of"
            f" `{_TRACEBACK}=1 ucidockd {args.command} ...`"
        )
        return 1


def _wrong_usage(exc: UsageError, command: str) -> int:
    of = f" {command}" if command else ""
    _say(f"{exc}\nsee `ucidockd{of} --help`" if "--help" not in str(exc) else str(exc), of)
    return 2


def sentence(exc: UcidockdError, command: str) -> str:
    """The text of an error, with what to do if dockerd is not running or a permission is missing. An error of ours
    has the system's error as its cause.
    """
    text = str(exc)
    if text.endswith("is dockerd running?"):
        return f"{text} `/etc/init.d/dockerd start` or `systemctl start docker` starts it"
    cause: BaseException | None = exc
    while cause is not None and not isinstance(cause, PermissionError):
        cause = cause.__cause__ or cause.__context__
    is_said = "as root" in text or os.geteuid() == 0
    return text if cause is None or is_said else f"{text}; run it as root (sudo ucidockd {command})"


def _say(text: str, command: str = "") -> None:
    from agent.model.issues import plain

    for number, line in enumerate(text.split("\n")):
        print(plain(f"ucidockd{command}: {line}" if number == 0 else line), file=sys.stderr)
