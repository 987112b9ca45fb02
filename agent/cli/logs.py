# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd logs`: the output of containers; several are merged by time."""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException, HTTPResponse
from typing import NamedTuple

from agent.cli.ask import ContainerTarget, EngineApi, agent_socket, created, targets, whole_status
from agent.cli.output import Style, output_of
from agent.errors import ConfigError, UcidockdError, UsageError, plain_words
from agent.model.issues import plain
from agent.wire.bodies import FrameDecoder, FrameError

_PIECE = 65536
_LINE_END = re.compile(r"\r+\n")  # a terminal ends its lines with one or more carriage returns
_AHEAD = 500  # lines of a container that are read ahead of the others
_QUIET_S = 0.2  # a container that prints nothing for this long is not waited for
_LONGEST = 1 << 20  # bytes of a line; a longer line is split
_COLOURS = ("36", "33", "32", "35", "34", "31")


def logs(args: argparse.Namespace) -> int:
    """Prints logs; Ctrl-C ends it."""
    if args.failed:
        return _failed(args)
    try:
        pattern = re.compile(args.grep) if args.grep else None
    except re.error as exc:
        raise UsageError(f"--grep {args.grep}: not a regular expression: {exc}") from exc
    query = _query(args)
    engine = EngineApi(args)
    found = targets(engine, args, args.names)
    try:
        sources = [_Source(engine, target, query) for target in found]
        # nothing needs to be parsed: pass bytes on unchanged, even a prompt without a line end
        if len(sources) == 1 and pattern is None and not args.json:
            _pass_on(sources[0], query, raw=args.raw, stamps=args.timestamps)
        else:
            changed = threading.Condition()
            asked = {**query, "timestamps": "1"}
            readers = [_Reader(source, source.open(asked), changed) for source in sources]
            show = _shower(args, [source.name for source in sources])
            for reader, line in _by_time(readers, changed):
                if pattern is None or pattern.search(line.text):
                    show(reader, line)
            for reader in readers:
                if reader.error is not None:
                    raise reader.error
    except KeyboardInterrupt:
        return 0
    return 0


def _failed(args: argparse.Namespace) -> int:
    """The last lines of containers whose start failed, or that keep ending."""
    # from the agent instead of the engine: the rollback removed the failed container
    status = whole_status(agent_socket(args))
    for name in args.names:
        named = [
            r for r in status["resources"] if r["kind"] == "container" and name in (r["section"], r["name"])
        ]
        if not named:
            raise ConfigError(f"{name}: no container section has this name; `ucidockd status` lists them")
        output = output_of(named[0])
        if not output:
            raise ConfigError(f"{name}: no output of a failed container is kept; see `ucidockd logs {name}`")
        print("\n".join(plain(line) for line in output.split("\n")))
    return 0


def _query(args: argparse.Namespace) -> dict[str, str]:
    if not re.fullmatch(r"all|[0-9]{1,9}", args.tail):
        raise UsageError(f"--tail {args.tail}: expected a number of lines, or `all`")
    if args.follow and args.until:
        raise UsageError("--follow continues and --until ends: use only one of them")
    query = {"stdout": "1", "stderr": "1", "tail": args.tail}
    query |= {"follow": "1"} if args.follow else {}
    now = time.time()
    query |= {"since": since_when(args.since, now, "--since")} if args.since else {}
    query |= {"until": since_when(args.until, now, "--until")} if args.until else {}
    return query


def since_when(text: str, now: float, option: str = "--since") -> str:
    """A time in the form that the engine takes. Raises UsageError."""
    from agent.model.quantities import QuantityError, parse_moment

    try:
        return parse_moment(text, now)
    except QuantityError as exc:
        raise UsageError(f"{option} {text}: expected {exc.expected}") from exc


class _Source:
    """The output of one container."""

    def __init__(self, engine: EngineApi, target: ContainerTarget, query: Mapping[str, str]) -> None:
        self.name = target.asked
        self._engine, self._ref = engine, created(engine, target)
        inspected = engine.call("GET", f"/containers/{self._ref}/json")
        # without an agent, the engine sends a terminal's output without frames
        self._frames = engine.status is not None or not inspected["Config"]["Tty"]
        driver = inspected["HostConfig"].get("LogConfig", {}).get("Type", "")
        if driver == "none":
            raise ConfigError(f"{self.name} keeps no output: its `option log_driver` is `none`")
        self._query = query

    def open(self, query: Mapping[str, str]) -> HTTPResponse:
        """Starts reading. Through the agent it also continues with the container that replaces this one."""
        if self._engine.status is not None:
            return self._engine.of_agent(f"/v1/containers/{self._ref}/logs", {**query, "format": "frames"})
        return self._engine.open("GET", f"/containers/{self._ref}/logs", query)

    def pieces(self, response: HTTPResponse) -> Iterator[tuple[str, bytes]]:
        """(stream, bytes) as they come. Raises UcidockdError if the output breaks off."""
        decoder = FrameDecoder()
        try:
            # `read1` returns what has arrived: `read` would wait for a full piece, and a quiet log would show nothing
            while piece := response.read1(_PIECE):
                if self._frames:
                    yield from decoder.feed(piece)
                else:
                    yield "stdout", piece
        except (OSError, HTTPException, FrameError) as exc:
            raise UcidockdError(
                f"the output of {self.name} broke off: {plain_words(exc)}; continue with `-f --since 1m`"
            ) from exc


def _pass_on(source: _Source, query: Mapping[str, str], *, raw: bool, stamps: bool) -> None:
    """Prints bytes as they come, even before their line is complete."""
    import codecs

    response = source.open({**query, **({"timestamps": "1"} if stamps else {})})
    outputs = {"stdout": sys.stdout, "stderr": sys.stderr}
    if raw:
        for _, data in source.pieces(response):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return
    # a character may be split over two pieces
    texts = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in outputs}
    printers = {name: Printer(file.write, terminal=file.isatty()) for name, file in outputs.items()}
    for stream, data in source.pieces(response):
        printers[stream].write(texts[stream].decode(data))
        outputs[stream].flush()
    for name, printer in printers.items():
        printer.write(texts[name].decode(b"", final=True))
        printer.end()


class _Line(NamedTuple):
    stamp: str  # RFC 3339 with nanoseconds, as the engine writes it: it sorts as text
    stream: str
    text: str


class _Reader:
    """Reads one container's lines in a thread, a few hundred ahead."""

    def __init__(self, source: _Source, response: HTTPResponse, changed: threading.Condition) -> None:
        self.name = source.name
        self.lines: deque[_Line] = deque()  # that the merge has not taken yet
        self.ended = False
        self.quiet = False  # silent for so long that the merge does not wait for it
        self.error: UcidockdError | None = None
        self._changed = changed
        self._source, self._response = source, response
        threading.Thread(target=self._run, daemon=True, name=f"logs-{source.name}").start()

    def _run(self) -> None:
        rests = {"stdout": b"", "stderr": b""}
        try:
            for stream, data in self._source.pieces(self._response):
                *lines, rest = (rests[stream] + data).split(b"\n")
                # split the line of a program that never ends it
                if len(rest) > _LONGEST:
                    lines, rest = [*lines, rest], b""
                rests[stream] = rest
                for line in lines:
                    self._put(stream, line)
            for stream, rest in rests.items():
                if rest:
                    self._put(stream, rest)
        except UcidockdError as exc:
            self.error = exc
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _put(self, stream: str, line: bytes) -> None:
        stamp, _, text = line.decode("utf-8", "replace").rstrip("\r").partition(" ")
        with self._changed:
            # a long log must not fill the memory while other containers are waited for
            self._changed.wait_for(lambda: len(self.lines) < _AHEAD)
            self.lines.append(_Line(stamp, stream, text))
            self.quiet = False
            self._changed.notify_all()


def _by_time(readers: list[_Reader], changed: threading.Condition) -> Iterator[tuple[_Reader, _Line]]:
    """Lines of all containers, oldest first. A silent container is not waited for."""
    while True:
        with changed:
            _let_come(readers, changed)
            # the oldest line that has arrived: a silent container may stay silent for days
            ready = [r for r in readers if r.lines]
            if not ready:
                if all(r.ended for r in readers):
                    return
                changed.wait_for(lambda: any(r.lines for r in readers) or all(r.ended for r in readers))
                continue
            oldest = min(ready, key=lambda r: r.lines[0].stamp)
            line = oldest.lines.popleft()
            # a reader that has read far enough ahead waits until its line is taken
            changed.notify_all()
        yield oldest, line


def _let_come(readers: list[_Reader], changed: threading.Condition) -> None:
    """Waits for a line of each container, except those that have been silent."""
    # a container that has been silent would delay all others: it is merged in when it prints again
    awaited = [r for r in readers if not (r.lines or r.ended or r.quiet)]
    if not awaited or changed.wait_for(lambda: all(r.lines or r.ended for r in awaited), timeout=_QUIET_S):
        return
    for reader in awaited:
        reader.quiet = not (reader.lines or reader.ended)


def _shower(args: argparse.Namespace, names: list[str]) -> Callable[[_Reader, _Line], None]:
    width = max(len(name) for name in names)
    paint = Style.of(sys.stdout)
    numbers = {name: number for number, name in enumerate(names)}

    def show(reader: _Reader, line: _Line) -> None:
        if args.json:
            print(
                json.dumps(
                    {"name": reader.name, "time": line.stamp, "stream": line.stream, "text": line.text}
                ),
                flush=True,
            )
            return
        file = sys.stderr if line.stream == "stderr" else sys.stdout
        head = f"{reader.name.ljust(width)} | " if len(names) > 1 else ""
        # one colour per container, as compose does it
        if paint.colours and head:
            head = f"\x1b[{_COLOURS[numbers[reader.name] % len(_COLOURS)]}m{head}\x1b[0m"
        text = escaped(line.text) if file.isatty() and not args.raw else line.text
        print(head + (f"{line.stamp} " if args.timestamps else "") + text, file=file, flush=True)

    return show


class Printer:
    """Writes a container's text. On a terminal it escapes what could move the cursor or change colours or the title.

    A carriage return before a line end is kept back, because a terminal in the container writes line ends that way.
    """

    def __init__(self, write: Callable[[str], object], *, terminal: bool) -> None:
        self._write, self._terminal, self._kept = write, terminal, ""

    def write(self, text: str) -> None:
        if not self._terminal:
            self._write(text)
            return
        text = self._kept + text
        body = text.rstrip("\r")
        self._kept = text[len(body) :]  # a line end may follow in the next piece
        self._write(escaped(body))

    def end(self) -> None:
        if self._kept:
            self._write(escaped(self._kept))


def escaped(text: str) -> str:
    """A container's text for a terminal: lines and tabs stay, other control characters are shown escaped."""
    lines = _LINE_END.sub("\n", text).split("\n")
    return "\n".join("\t".join(plain(part) for part in line.split("\t")) for line in lines)
