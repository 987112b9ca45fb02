# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd exec`: runs a command in a container, in this terminal if requested.

It connects to the engine directly, even if an agent runs, because the connection is taken over for raw bytes (Engine
API, "Exec", hijacking).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from agent.cli.ask import EngineApi, created, targets
from agent.errors import EngineError, UcidockdError, UsageError
from agent.wire.bodies import FrameDecoder, error_message

_PIECE = 65536
_HEAD_LIMIT = 65536
_ENDED_S = 3.0  # time for the engine to notice that the process has ended


def execute(args: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    engine = EngineApi(args)
    (target,) = targets(engine, args, [args.name])
    command, interactive, tty = args.rest, args.interactive, args.tty
    if not command:
        if args.detach or not sys.stdin.isatty():
            raise UsageError(f"a command is missing: `ucidockd exec {args.name} COMMAND [ARG ...]`")
        command, interactive, tty = ["/bin/sh"], True, True
    if tty and interactive and not sys.stdin.isatty():
        raise UsageError("the input is not a terminal: leave out -t")
    container, body = created(engine, target), _request(args, command, interactive=interactive, tty=tty)
    try:
        created_exec = engine.call("POST", f"/containers/{container}/exec", body=body)
    except UcidockdError as exc:  # from the engine, or from the agent that asked it
        if "is not running" not in str(exc):
            raise
        raise EngineError(f"{args.name} does not run; `ucidockd status {args.name}` says why") from exc
    number = str(created_exec["Id"])
    if args.detach:
        engine.open("POST", f"/exec/{number}/start", body={"Detach": True, "Tty": tty}, direct=True).read()
        return 0
    connection, rest = _hijack(engine, number, tty=tty)
    with connection, _raw_terminal(wanted=tty and interactive):
        _Session(engine, connection, number, tty=tty, interactive=interactive).run(rest)
    return _exit_code(engine, number)


def _request(args: argparse.Namespace, command: list[str], *, interactive: bool, tty: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "Cmd": command,
        "Tty": tty,
        "AttachStdin": interactive and not args.detach,
        "AttachStdout": not args.detach,
        "AttachStderr": not args.detach,
        "Privileged": args.privileged,
        "Env": list(args.env),
    }
    if tty and "TERM" in os.environ and not any(e.startswith("TERM=") for e in args.env):
        body["Env"].append(f"TERM={os.environ['TERM']}")
    if tty and not args.detach and sys.stdout.isatty():
        # the size at the start of the command, from API 1.42 on; older engines get it a moment later
        size = os.get_terminal_size(sys.stdout.fileno())
        body["ConsoleSize"] = [size.lines, size.columns]
    return (
        body
        | ({"User": args.user} if args.user else {})
        | ({"WorkingDir": args.workdir} if args.workdir else {})
    )


def _hijack(engine: EngineApi, number: str, *, tty: bool) -> tuple[socket.socket, bytes]:
    """The connection, and the bytes that followed the head of the answer."""
    connection = engine.connection()
    body = json.dumps({"Detach": False, "Tty": tty}).encode()
    head = (
        f"POST /exec/{number}/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        connection.connect()
        sock: socket.socket = connection.sock
        sock.sendall(head.encode() + body)
        data = b""
        # not with http.client, which would take the stream for a body and keep its first bytes
        while b"\r\n\r\n" not in data and len(data) < _HEAD_LIMIT:
            piece = sock.recv(_PIECE)
            if not piece:
                break
            data += piece
    except OSError as exc:
        raise engine.away(exc) from exc
    answer, _, rest = data.partition(b"\r\n\r\n")
    words = answer.split(maxsplit=2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    if status not in (101, 200):
        raise EngineError(error_message(rest, status, who="the engine"), status=status)
    return sock, rest


class _Session:
    """Moves bytes between this process and the container's."""

    def __init__(
        self, engine: EngineApi, sock: socket.socket, number: str, *, tty: bool, interactive: bool
    ) -> None:
        self._engine, self._sock, self._number, self._tty = engine, sock, number, tty
        self._reads_input = interactive
        self._decoder = FrameDecoder()

    def run(self, rest: bytes) -> None:
        """Runs until the process or the connection ends."""
        with self._resizes() as woken:
            if rest:
                self._write(rest)
            while True:
                watched = [self._sock, woken, *([sys.stdin.fileno()] if self._reads_input else [])]
                # `select` does not see bytes that TLS has decrypted already
                pending = getattr(self._sock, "pending", lambda: 0)()
                ready = [self._sock] if pending else select.select(watched, [], [])[0]
                if woken in ready:
                    os.read(woken, _PIECE)
                    self._resize()
                if self._sock in ready:
                    piece = self._sock.recv(_PIECE)
                    if not piece:
                        return
                    self._write(piece)
                if self._reads_input and sys.stdin.fileno() in ready:
                    if data := os.read(sys.stdin.fileno(), _PIECE):
                        self._sock.sendall(data)
                        continue
                    self._reads_input = False
                    with contextlib.suppress(OSError):  # the process may have ended already
                        self._sock.shutdown(socket.SHUT_WR)

    def _write(self, data: bytes) -> None:
        pieces = [("stdout", data)] if self._tty else self._decoder.feed(data)
        for stream, piece in pieces:
            file = sys.stderr if stream == "stderr" else sys.stdout
            file.buffer.write(piece)
            file.buffer.flush()

    @contextlib.contextmanager
    def _resizes(self) -> Iterator[int]:
        """A descriptor that becomes readable when the terminal's size changes."""
        ours, theirs = os.pipe()
        # a signal alone does not end `select`, which Python restarts (PEP 475): the handler writes into a pipe
        before: Any = None
        try:
            if self._tty and sys.stdout.isatty():
                os.set_blocking(theirs, False)

                def wake(*_: object) -> None:
                    with contextlib.suppress(BlockingIOError):
                        os.write(theirs, b"\0")

                before = signal.signal(signal.SIGWINCH, wake)
                self._resize()
            yield ours
        finally:
            if before is not None:
                signal.signal(signal.SIGWINCH, before)
            os.close(ours)
            os.close(theirs)

    def _resize(self) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        query = {"h": str(size.lines), "w": str(size.columns)}
        # ignored: the process may not have started yet, or have ended
        with contextlib.suppress(EngineError):
            self._engine.open("POST", f"/exec/{self._number}/resize", query, direct=True).read()


@contextlib.contextmanager
def _raw_terminal(*, wanted: bool) -> Iterator[None]:
    """Sends every key to the process, including Ctrl-C."""
    if not wanted:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin.fileno())
    tty.setraw(sys.stdin.fileno())
    try:
        yield
    finally:
        # also after a failure: a terminal left in raw mode does not show what is typed
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


def _exit_code(engine: EngineApi, number: str) -> int:
    end = time.monotonic() + _ENDED_S
    while True:
        state = json.loads(engine.open("GET", f"/exec/{number}/json", direct=True).read())
        if not state["Running"] or time.monotonic() > end:
            return int(state["ExitCode"] or 0)
        time.sleep(0.02)
