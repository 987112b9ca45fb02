# SPDX-License-Identifier: GPL-2.0-or-later
"""Consoles: a command run in a container (`docker exec`) whose client may lose its connection and come back.

Knows nothing of HTTP: `routes.consoles` has the routes, and stream objects on ubus use it too. Output flows from the
engine through an `OutputBuffer` to a single reader; if that does not read, the console stops reading from the engine. A
console without a reader for `away_s` is ended and its process killed, since the engine would let it run for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from agent.api.problems import RequestError, number, refuse_unknown, text
from agent.api.streams.engine_streams import decoded
from agent.engine.process import end_process
from agent.engine.stream import DockerStream, EnginePipe
from agent.errors import BusError, ConflictError, EngineError, EngineUnreachableError
from agent.model.identity import ID
from agent.status.ring import Item, OutputBuffer
from agent.wire.bodies import FrameDecoder

logger = logging.getLogger(__name__)

Allowed = Callable[[], Awaitable[bool]]
"""Whether the owner of a console may still use it. Raises BusError without an answer."""

AWAY_S = 60.0  # a console lives that long without a reader: a page that is loaded again finds it
INPUT_S = 60.0  # until a process that reads no input makes a request fail
LIMIT = 32  # consoles and raw streams together
_WATCH_S = 1.0
_CLOSE_S = 5.0  # procd kills the agent 5 s after its order to stop, and other parts need time too
_SETTLE_S = 3.0  # time for the engine to notice that a process has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """What to run. `env` holds `NAME=value`; with `rows` and `columns` 0 the engine chooses the terminal's size."""

    command: tuple[str, ...] = ("/bin/sh",)
    tty: bool = True
    user: str = ""
    env: tuple[str, ...] = field(default=(), repr=False)
    workdir: str = ""
    privileged: bool = False
    rows: int = 0
    columns: int = 0


class Console:
    """One exec. Created by `Consoles.open`."""

    def __init__(
        self, engine: DockerStream, exec_id: str, pipe: EnginePipe, *, tty: bool, allowed: Allowed | None
    ) -> None:
        self.id = secrets.token_hex(16)
        self.tty = tty
        self.allowed = allowed
        self._engine = engine
        self._exec = exec_id
        self._pipe = pipe
        self._buffer = OutputBuffer()
        self._news = asyncio.Event()  # there is output, or the end
        self._room = asyncio.Event()  # the reader has taken some: reading may go on
        self._writing = asyncio.Lock()
        self._reader: object | None = None  # who reads now; a new reader takes over
        # no reader yet: a client that never comes is treated like one that left
        self._left = _now()
        self._ended = False
        self._task = asyncio.create_task(self._run(), name=f"console-{exec_id[:12]}")

    @property
    def ended(self) -> bool:
        """Whether the process has ended or was given up."""
        return self._ended

    def is_over(self, after: int) -> bool:
        """Whether a reader that has seen all items up to number `after` has seen the end."""
        return self._ended and after >= self._buffer.last

    def away_s(self) -> float:
        """Seconds since the last read."""
        return 0.0 if self._reader is not None else _now() - self._left

    async def output(self, after: int = 0) -> AsyncGenerator[Item | None, None]:
        """Yields items after number `after` and new ones until `OutputEnd`. A None means that some in between are lost.

        A new reader takes the console over: the previous reader gets ConflictError.
        """
        # a browser that lost its connection returns before the server notices the loss, so the newest reader is the
        # right one
        reader = self._reader = object()
        self._news.set()
        try:
            # resend what the previous reader had not confirmed: its connection may have broken on the way
            whole = self._buffer.rewind(after)
            self._room.set()
            if not whole:
                yield None
            while True:
                self._news.clear()
                if self._reader is not reader:
                    raise ConflictError("another reader took this console over")
                item = self._buffer.next()
                if item is None:
                    if self._ended:
                        return
                    await self._news.wait()
                    continue
                yield item
                if self._reader is reader:
                    # only after it was sent: if the reader disconnects here, the item is sent again
                    self._buffer.take(item)
                    self._room.set()
        finally:
            if self._reader is reader:
                self._reader, self._left = None, _now()

    async def input(self, data: bytes) -> None:
        """Sends input; returns when there is room for more. Raises ConflictError after the end, EngineError."""
        try:
            # concurrent requests must not mix their bytes
            async with asyncio.timeout(INPUT_S), self._writing:
                self._check_running()
                await self._pipe.write(data)
        except TimeoutError as exc:
            raise ConflictError(f"the process has read no input for {INPUT_S:g} s") from exc

    async def input_end(self) -> None:
        """Closes the input. Raises ConflictError after the end."""
        async with self._writing:
            self._check_running()
            self._pipe.write_eof()

    async def resize(self, *, rows: int, columns: int) -> None:
        """Sets the terminal's size. Raises ConflictError without a terminal or after the end, and EngineError."""
        if not self.tty:
            raise ConflictError("this console has no terminal to resize")
        self._check_running()
        query = (("h", str(rows)), ("w", str(columns)))
        await self._engine.call("POST", f"/exec/{self._exec}/resize", query=query, read=bool)

    async def end(self, reason: str) -> None:
        """Kills the process if it can be reached, and ends the output with `reason`."""
        # stop the pump first: it must not report an end itself while the process is being killed
        self._task.cancel()
        await asyncio.wait({self._task})
        if self._ended:
            return
        try:
            code, note = await self._kill()
        except (EngineError, TimeoutError) as exc:
            code, note = None, f"its process may still run: {exc or 'it cannot be killed'}"
        self._pipe.close()
        self._finish(code, f"{reason}; {note}")
        logger.info("console %s ended: %s; %s", self._exec[:12], reason, note)

    def _check_running(self) -> None:
        if self._ended:
            raise ConflictError("the process of this console has ended")

    async def _run(self) -> None:
        try:
            code, reason = await self._outcome()
        except EngineError as exc:
            code, reason = None, str(exc)
        except TimeoutError:
            code, reason = None, "the connection to its process broke, and the process cannot be killed"
        except Exception:
            # whatever failed, the reader must not wait for ever
            logger.exception("console %s failed", self._exec[:12])
            code, reason = None, "internal error"
        self._pipe.close()
        self._finish(code, reason)

    async def _outcome(self) -> tuple[int | None, str]:
        """(exit code, reason) as in `OutputEnd`, after all output was read."""
        try:
            await self._pump()
        except EngineUnreachableError as exc:
            # a process that ends without reading all of its input looks like this too
            try:
                async with asyncio.timeout(_SETTLE_S):
                    return await self._exit_code(), ""
            except TimeoutError:
                code, note = await self._kill()
                return code, f"{exc}; {note}"
        return await self._exit_code(), ""

    async def _pump(self) -> None:
        decoder = FrameDecoder()
        while True:
            # A command that prints faster than its reader reads is blocked by its pipe, as on a terminal. Nothing is
            # dropped, and memory does not grow.
            while not self._buffer.has_room:
                self._room.clear()
                await self._room.wait()
            piece = await self._pipe.read()
            if not piece:
                return
            self._buffer.add([("stdout", piece)] if self.tty else decoded(decoder, piece))
            self._news.set()

    async def _exit_code(self) -> int:
        """Waits for the exit code: a process may close its terminal, which ends the output, and continue."""
        return await _exit_code(self._engine, self._exec)

    async def _kill(self) -> tuple[int | None, str]:
        """(exit code, what happened to the process). TimeoutError if it cannot be killed."""
        code, note = await _kill(self._engine, self._exec)
        if code is None:
            self._pipe.write_eof()
        return code, note

    def _finish(self, code: int | None, reason: str) -> None:
        if self._ended:  # two callers may have ended it at once
            return
        self._ended = True
        self._left = _now()  # its client may still come back to read the result
        self._buffer.end(code, reason)
        self._news.set()


async def _kill(engine: DockerStream, exec_id: str) -> tuple[int | None, str]:
    """(exit code, what happened to the exec's process). TimeoutError if it cannot be killed."""
    async with asyncio.timeout(_CLOSE_S):
        # the console may be given up before the engine has started its process
        state = await _inspect_until(engine, exec_id, lambda seen: not seen.get("Running") or seen.get("Pid"))
        if not state.get("Running"):
            return int(state["ExitCode"]), "its process had ended"
        if await end_process(int(state.get("Pid") or 0), str(state.get("ContainerID") or "")):
            return await _exit_code(engine, exec_id), "its process was killed"
    return None, "its process is out of reach of the agent and may still run; its input was closed"


async def _exit_code(engine: DockerStream, exec_id: str) -> int:
    return int((await _inspect_until(engine, exec_id, lambda state: not state.get("Running")))["ExitCode"])


async def _inspect_until(
    engine: DockerStream, exec_id: str, wanted: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """The exec, once it has started and `wanted` is true of it. `GET /exec/{id}/json`."""
    wait_s = 0.02
    while True:
        state = await engine.call("GET", f"/exec/{exec_id}/json", read=dict)
        if (state.get("Running") or state.get("ExitCode") is not None) and wanted(state):
            return state
        await asyncio.sleep(wait_s)
        # short at first, because most processes start or end at once
        wait_s = min(1.0, wait_s * 2)


def _id_of_new(body: Any) -> str:
    """The new exec's id, which becomes part of a path. Raises ValueError for anything but an id."""
    found = str(body["Id"])
    if not re.fullmatch(ID, found):
        raise ValueError("no id")
    return found


class Consoles:
    """All consoles. `async with` ends those that are left; see the module's docstring for `away_s`."""

    def __init__(self, engine: DockerStream, *, away_s: float = AWAY_S) -> None:
        self._engine = engine
        self._away_s = away_s
        # by id, in the order of their start; ended ones until their slot is needed
        self._open: dict[str, Console] = {}
        self._lent = 0  # slots of raw streams, and of consoles that are being opened
        self._closed = False
        self._watcher: asyncio.Task[None] | None = None
        # processes that are being killed, after their client has left
        self._ending: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Consoles:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # no console can be opened from here on
        self._closed = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
        left, self._open = list(self._open.values()), {}
        # A process that does not die must not keep the agent from stopping: procd would kill the agent, perhaps in
        # the middle of a swap.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S), asyncio.TaskGroup() as group:
                for console in left:
                    group.create_task(console.end("the agent stops"), name="console-end")
                if self._ending:
                    await asyncio.wait(self._ending)
        for task in self._ending:
            task.cancel()

    def get(self, console: str) -> Console | None:
        """The console with this id."""
        return self._open.get(console)

    async def open(self, container: str, spec: ExecSpec, *, allowed: Allowed | None = None) -> Console:
        """Starts the command. Raises EngineError with the engine's message, ConflictError if LIMIT are open.

        `allowed` is called repeatedly: when the session ends, its consoles end too. Sends `POST
        /containers/{id}/exec`, then `POST /exec/{id}/start` as a hijacked connection.
        """
        with self.place():
            console = await self._start(container, spec, allowed)
        self._open[console.id] = console
        # the watcher runs only while there are consoles, so that an idle router does not wake up for nothing
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="consoles-watch")
        if spec.tty and spec.rows and spec.columns:
            # a command that could not start, or has ended already, has nothing to resize
            with contextlib.suppress(EngineError, ConflictError):
                await console.resize(rows=spec.rows, columns=spec.columns)
        return console

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Reserves one of the LIMIT slots, for a console or a raw stream of the Engine API. Raises ConflictError."""
        if self._closed:
            raise ConflictError("the agent stops")
        # ended consoles are kept for clients that come back, until a new console needs the slot
        over = (console for console in list(self._open.values()) if console.ended and console.away_s())
        while len(self._open) + self._lent >= LIMIT:
            console = next(over, None)
            if console is None:
                raise ConflictError(f"{LIMIT} consoles are open: end one of them first")
            del self._open[console.id]
        self._lent += 1
        try:
            yield
        finally:
            self._lent -= 1

    async def hang_up(self, exec_id: str) -> None:
        """Ends the process of an exec whose client has left: the engine would let it run for ever."""
        try:
            # it may have ended by itself, and the engine only not have noticed yet
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_S):
                    await _exit_code(self._engine, exec_id)
                    return
            _, note = await _kill(self._engine, exec_id)
        except (EngineError, TimeoutError) as exc:
            note = f"its process may still run: {exc or 'it cannot be killed'}"
        logger.info("exec %s has lost its terminal; %s", exec_id[:12], note)

    async def _start(self, container: str, spec: ExecSpec, allowed: Allowed | None) -> Console:
        exec_id = await self._engine.call(
            "POST",
            f"/containers/{container}/exec",
            body={
                # attach all three even without input: what is left out here cannot be attached later
                "AttachStdin": True,
                "AttachStdout": True,
                "AttachStderr": True,
                "Tty": spec.tty,
                "Cmd": list(spec.command),
                "Env": list(spec.env),
                "User": spec.user,
                "WorkingDir": spec.workdir,
                "Privileged": spec.privileged,
                # without this, the size would be set only a moment after the start; used from API 1.42 on
                **(
                    {"ConsoleSize": [spec.rows, spec.columns]}
                    if spec.tty and spec.rows and spec.columns
                    else {}
                ),
            },
            read=_id_of_new,
        )
        pipe = await self._engine.hijack(f"/exec/{exec_id}/start", body={"Detach": False, "Tty": spec.tty})
        return Console(self._engine, exec_id, pipe, tty=spec.tty, allowed=allowed)

    async def end(self, console: Console) -> None:
        """Ends a console that its client closed. Continues if the caller is cancelled, so that no process
        is left behind.
        """
        self._open.pop(console.id, None)
        ending = asyncio.create_task(console.end("ended on request"), name="console-end")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await asyncio.shield(ending)

    async def _watch(self) -> None:
        while self._open:
            await asyncio.sleep(_WATCH_S)
            await self._look()

    async def _look(self) -> None:
        """Ends consoles without a reader and those whose session has ended; forgets consoles that ended long ago."""
        for console in list(self._open.values()):
            away = console.away_s() >= self._away_s
            if console.ended:
                if away:
                    self._open.pop(console.id, None)
                continue
            try:
                allowed = console.allowed is None or await console.allowed()
            except BusError:
                allowed = False  # without an answer the console ends
            if not allowed:
                self._open.pop(console.id, None)
                await console.end("its session has ended")
            elif away:
                await console.end(f"no client read it for {self._away_s:g} s")


def _now() -> float:
    return asyncio.get_running_loop().time()


# Parses a client's JSON request for a console, the same over HTTP and ubus.


_SIZE_LIMIT = 10_000  # rows or columns of a terminal
_WORDS_LIMIT = 1000  # of a command, and variables of its environment
_OPTIONS = ("command", "tty", "user", "env", "workdir", "privileged", "rows", "columns")


def exec_spec(body: Mapping[str, Any]) -> ExecSpec:
    """The JSON of a request as an `ExecSpec`. Raises RequestError that says what is expected."""
    refuse_unknown(body, _OPTIONS)
    env = _words(body, "env", ())
    if any("=" not in item[1:] for item in env):
        raise RequestError("env: expected a list of NAME=value")
    # the default command is a shell
    command = _words(body, "command", ExecSpec().command)
    if not command or not command[0]:
        raise RequestError("command: expected a list of at least one word")
    rows, columns = size_of(body)
    return ExecSpec(
        command=command,
        tty=_flag(body, "tty", default=True),
        user=text(body, "user"),
        env=env,
        workdir=text(body, "workdir"),
        privileged=_flag(body, "privileged", default=False),
        rows=rows,
        columns=columns,
    )


def _words(body: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """A list of texts. Line breaks are allowed, because a script may be an argument."""
    value = body.get(name, list(default))
    if not isinstance(value, list) or len(value) > _WORDS_LIMIT:
        raise RequestError(f"{name}: expected a list of texts")
    if not all(isinstance(word, str) and "\0" not in word for word in value):
        raise RequestError(f"{name}: expected texts without NUL")
    return tuple(value)


def _flag(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{name}: expected true or false")
    return value


def size_of(body: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns, 0 if missing. Raises RequestError."""
    rows = number(body, "rows", low=0, high=_SIZE_LIMIT, default=0)
    return rows, number(body, "columns", low=0, high=_SIZE_LIMIT, default=0)
