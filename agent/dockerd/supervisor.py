# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs dockerd: started by us (`child`), by procd through its init script, or by another program (`external`).

A dockerd is recognized by its `--config-file`, so that an agent finds the dockerd of an earlier agent. A dockerd that
follows a file of the user's is recognized by the socket that it serves.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from agent.engine import process as daemon_process
from agent.errors import DaemonError, InternalError
from agent.model.dockerd.settings import Process

LOG_LIMIT = 1024 * 1024  # bytes of dockerd's log; it is in memory
_WORDS_LIMIT = 256  # characters of a reason that go into the status
_KILL_WAIT_S = 10.0  # a process in the kernel (a dead disk) does not end at once even by SIGKILL
_STOP_OTHER_S = 30.0  # more than dockerd's own default of 15 s
_TAIL_BYTES = 8192
_LOG_TRIES, _LOG_PAUSE_S = 3, 0.2
_LOOK_S = 2.0  # interval between checks whether procd still runs dockerd
_CREDENTIALS = re.compile(r"//[^/\s@]+@")
_LOG_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')  # the message of a line of dockerd's log (logfmt)


class ChildSupervisor:
    """A dockerd that we start ourselves. It has its own session and log, and keeps running when the agent ends."""

    def __init__(self, *, program: str, config_file: Path) -> None:
        self._program = program
        self._config_file = config_file
        self._log = config_file.with_name("dockerd.log")
        self._child: subprocess.Popen[bytes] | None = None  # the dockerd that we started last

    def find(self) -> Process | None:
        if self._child is not None:
            self._child.poll()  # avoids a zombie
        return daemon_process.find_with_config(self._config_file)

    def wait_end(self, process: Process, timeout_s: float) -> bool:
        return daemon_process.wait_end(process, timeout_s)

    def start(self, arguments: tuple[str, ...]) -> Process:
        return self.launch((f"--config-file={self._config_file}", *arguments))

    def launch(self, arguments: tuple[str, ...]) -> Process:
        """Starts dockerd with exactly these arguments."""
        try:
            # otherwise the last words of the previous dockerd would be taken for this one's
            self._log.write_bytes(b"")
            # append mode, so that `tidy` may truncate the log; a new session, so that our signals and our end do not
            # reach dockerd
            with self._log.open("ab") as log:
                self._child = subprocess.Popen(
                    [self._program, *arguments],
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as exc:
            text = f"{self._program} cannot be started: {exc.strerror}"
            raise DaemonError(text, reason="NotStarted") from exc
        process = daemon_process.identity_of(self._child.pid)
        if process is None:
            raise InternalError("a child that was not waited for is not there")
        return process

    def stop(self, process: Process, timeout_s: float) -> None:
        stop_process(process, timeout_s)
        self._reap(process)

    def reload(self, process: Process) -> None:
        daemon_process.send_signal(process, signal.SIGHUP)

    def exit_reason(self, process: Process) -> str:
        """How it ended, and the last line of its log."""
        code = self._reap(process)
        ended = ""
        if code is not None:
            ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        # read only the end of the log: it may have megabytes, and the cause is in its last lines
        lines: list[str] = []
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return ", ".join(part for part in (ended, _telling(lines)) if part)

    def runs(self) -> bool:
        """Whether the dockerd that we started last is still running."""
        return self._child is not None and self._child.poll() is None

    def tidy(self) -> None:
        """Keeps the log small, because /var/run is in memory. dockerd appends, so truncating is safe."""
        with contextlib.suppress(FileNotFoundError):
            if self._log.stat().st_size > LOG_LIMIT:
                os.truncate(self._log, 0)

    def _reap(self, process: Process) -> int | None:
        if self._child is None or self._child.pid != process.pid:
            return None
        return self._child.poll()


class ProcdSupervisor:
    """dockerd as a procd service. procd sends SIGKILL 5 s after SIGTERM (term_timeout), too early for dockerd. So we
    send SIGTERM ourselves, wait, and stop the service afterwards. The stock script sets no respawn."""

    def __init__(self, *, script: Path, config_file: Path, appear_s: float = 10.0) -> None:
        self._script = script
        self._config_file = config_file
        self._appear_s = appear_s

    def find(self) -> Process | None:
        return daemon_process.find_with_config(self._config_file)

    def wait_end(self, process: Process, timeout_s: float) -> bool:
        return daemon_process.wait_end(process, timeout_s)

    def start(self, arguments: tuple[str, ...]) -> Process:
        del arguments  # the init script has its own arguments
        process = self._appeared()
        if not daemon_process.began_after(process, self._config_file):
            # procd does not restart a running service: this dockerd was started with the script's own file
            self.stop(process, _STOP_OTHER_S)
            process = self._appeared()
        return process

    def _appeared(self) -> Process:
        # `start` of a running service changes nothing in procd, so it is safe to repeat
        self._run("start")
        deadline = time.monotonic() + self._appear_s
        while (process := self.find()) is None:
            if time.monotonic() > deadline:
                text = f"{self._script} start did not start dockerd{_hint(self._script)}"
                raise DaemonError(text, reason="NotStarted")
            time.sleep(0.05)  # procd starts it after the script has ended, and without ubus it sends no event
        return process

    def stop(self, process: Process, timeout_s: float) -> None:
        # procd's stop comes last, when nothing is left to kill: it removes the service, so that the next start really
        # starts it.
        stop_process(process, timeout_s)
        self._run("stop")

    def reload(self, process: Process) -> None:
        daemon_process.send_signal(process, signal.SIGHUP)

    def exit_reason(self, process: Process) -> str:
        return _telling(_logged(process)) or "see logread -e dockerd"

    def tidy(self) -> None:
        """Nothing to do: logd keeps its log."""

    def _run(self, action: str) -> None:
        _run_script(self._script, action)


class UserScriptSupervisor:
    """dockerd as its init script starts it, with any configuration file: the process that serves the engine's socket."""

    def __init__(
        self, *, script: Path, socket: str, answers: Callable[[], bool], start_s: float = 90.0
    ) -> None:
        self.socket = socket
        self._answers = answers
        self._script = script
        self._start_s = start_s

    def find(self) -> Process | None:
        # by its socket, not by its arguments: the script decides which file it follows
        return daemon_process.serving(self.socket, name="dockerd")

    def runs(self) -> bool:
        """Whether procd runs dockerd, listening or not."""
        return _call(self._script, "running").returncode == 0

    def wait_end(self, process: Process, timeout_s: float) -> bool:
        return daemon_process.wait_end(process, timeout_s)

    def start(self, arguments: tuple[str, ...]) -> Process:
        """Starts dockerd and waits until it answers, which is later than it listens. Raises DaemonError if it does not
        start, or does not serve the socket."""
        del arguments  # the init script has its own arguments
        _run_script(self._script, "start")
        deadline = time.monotonic() + self._start_s
        look = time.monotonic() + _LOOK_S  # procd starts it after the script has ended
        # the script succeeds as soon as procd knows the service; whether dockerd accepts the user's file shows later
        while (process := self.find()) is None or not self._answers():
            now = time.monotonic()
            if now > look and not self.runs():
                text = f"dockerd ended soon after {self._script} start: see logread -e dockerd"
                raise DaemonError(f"{text}{_hint(self._script)}", reason="NotStarted")
            look = now + _LOOK_S if now > look else look
            if now > deadline:
                text = f"dockerd does not answer on {self.socket} {self._start_s:.0f} s after its start"
                raise DaemonError(text, reason="NoAnswer")
            time.sleep(0.1)
        return process

    def stop(self, process: Process, timeout_s: float) -> None:
        stop_process(process, timeout_s)
        _run_script(self._script, "stop")

    def reload(self, process: Process) -> None:
        daemon_process.send_signal(process, signal.SIGHUP)

    def exit_reason(self, process: Process) -> str:
        return _telling(_logged(process)) or "see logread -e dockerd"

    def tidy(self) -> None:
        """Nothing to do: logd keeps its log."""


class UserChildSupervisor:
    """dockerd that we start ourselves with a file of the user's: the process that serves the engine's socket."""

    def __init__(
        self, child: ChildSupervisor, *, socket: str, answers: Callable[[], bool], start_s: float = 90.0
    ) -> None:
        self.socket = socket
        self._answers = answers
        self._child = child
        self._start_s = start_s

    def find(self) -> Process | None:
        self._child.runs()  # avoids a zombie
        return daemon_process.serving(self.socket, name="dockerd")

    def runs(self) -> bool:
        """Whether dockerd runs, listening or not."""
        return self._child.runs()

    def wait_end(self, process: Process, timeout_s: float) -> bool:
        return daemon_process.wait_end(process, timeout_s)

    def start(self, arguments: tuple[str, ...]) -> Process:
        """Starts dockerd and waits until it answers, which is later than it listens. Raises DaemonError if it does not
        start, or does not serve the socket."""
        begun = self._child.launch(arguments)
        deadline = time.monotonic() + self._start_s
        while (process := self.find()) is None or not self._answers():
            if not self.runs():
                text = f"dockerd ended soon after its start: {self._child.exit_reason(begun)}"
                raise DaemonError(text, reason="NotStarted")
            if time.monotonic() > deadline:
                text = f"dockerd does not answer on {self.socket} {self._start_s:.0f} s after its start"
                raise DaemonError(text, reason="NoAnswer")
            time.sleep(0.1)
        return process

    def stop(self, process: Process, timeout_s: float) -> None:
        self._child.stop(process, timeout_s)

    def reload(self, process: Process) -> None:
        self._child.reload(process)

    def exit_reason(self, process: Process) -> str:
        return self._child.exit_reason(process)

    def tidy(self) -> None:
        self._child.tidy()


def _run_script(script: Path, action: str) -> None:
    done = _call(script, action)
    if done.returncode:
        words = _telling(done.stderr.strip().splitlines())
        raise DaemonError(f"{script} {action} failed: {words}{_hint(script)}", reason="NotStarted")


def _hint(script: Path) -> str:
    """A hint for scripts of some forks, which have an `auto_start` switch."""
    with contextlib.suppress(OSError):
        if "auto_start" in script.read_text(errors="replace"):
            return "; this script starts nothing while dockerd.globals.auto_start is 0"
    return ""


def _call(script: Path, action: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([str(script), action], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise DaemonError(f"{script} {action} does not work: {exc}", reason="NotStarted") from exc


def stop_process(process: Process, timeout_s: float) -> None:
    """Sends SIGTERM and waits; sends SIGKILL after `timeout_s`."""
    daemon_process.send_signal(process, signal.SIGTERM)
    # dockerd stops its containers first: if killed too early, it leaves them running unsupervised
    if not daemon_process.wait_end(process, timeout_s):
        daemon_process.send_signal(process, signal.SIGKILL)
        daemon_process.wait_end(process, _KILL_WAIT_S)


def _logged(process: Process) -> list[str]:
    """Lines of this dockerd in the system log; they arrive through procd with a short delay."""
    # filter by pid: lines of the previous dockerd are about another failure
    words = ["logread", "-l", "200", "-e", rf"dockerd\[{process.pid}\]: "]
    for _ in range(_LOG_TRIES):
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, check=False, timeout=5, errors="replace"
            )
        except (OSError, subprocess.TimeoutExpired):
            return []
        lines = [line.partition(f"[{process.pid}]: ")[2] for line in done.stdout.splitlines()]
        # only empty lines so far: logd has received the beginning of the output and not the rest
        if any(line.strip() for line in lines):
            return lines
        time.sleep(_LOG_PAUSE_S)
    return []


def _telling(lines: list[str]) -> str:
    """The line that states the cause: dockerd's last one, reduced to its message."""
    # dockerd logs in logfmt, and the cause of its end comes last
    line = next((line for line in reversed(lines) if line.strip()), "")
    message = _LOG_MESSAGE.search(line)
    text = message[1] if message else line.strip()
    # the URL of a proxy or registry may contain a login, and this text goes to status
    return _CREDENTIALS.sub("//***@", text)[:_WORDS_LIMIT]


def engine_version(
    program: str, *, run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
) -> tuple[int, int]:
    """Major and minor version of a dockerd program. Raises DaemonError."""
    try:
        done = run([program, "--version"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as exc:
        raise DaemonError(
            f"{shlex.quote(program)} --version does not work: {exc}", reason="NoProgram"
        ) from exc
    # ask the program, not the engine: settings are checked for the dockerd that is about to start
    found = re.search(r"\b(\d+)\.(\d+)", done.stdout)
    if found is None:
        raise DaemonError(f"{shlex.quote(program)} does not report its version", reason="NoProgram")
    return int(found[1]), int(found[2])


def validate(program: str, config_file: Path, arguments: tuple[str, ...]) -> str:
    """The complaint of `dockerd --validate` (23.0 or newer) about a file, "" if there is none."""
    words = [program, "--validate", f"--config-file={config_file}", *arguments]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{program} --validate does not work: {exc}"
    return "" if done.returncode == 0 else _telling(done.stderr.strip().splitlines())
