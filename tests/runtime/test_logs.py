# SPDX-License-Identifier: GPL-2.0-or-later
"""The log: where its lines go, that they are plain, and that what repeats itself is told seldom."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from agent.runtime.main import AGAIN_S, QUIET_S, PlainFormatter, RepeatFilter, set_up_logging

Streams = tuple[io.StringIO, io.StringIO]


@pytest.fixture
def streams() -> Iterator[Streams]:
    root, names = logging.getLogger(), ("urllib3", "watchdog", "asyncio")
    before = root.handlers[:], root.level, [logging.getLogger(name).level for name in names]
    out, err = io.StringIO(), io.StringIO()
    set_up_logging("debug", out=out, err=err)
    yield out, err
    root.handlers[:], level, levels = before
    root.setLevel(level)
    for name, old in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(old)


def test_information_goes_to_standard_output_and_what_is_wrong_to_standard_error(streams: Streams) -> None:
    out, err = streams
    logger = logging.getLogger("agent.test")
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    logger.error("e")
    assert out.getvalue() == "DEBUG agent.test: d\nINFO agent.test: i\n"
    assert err.getvalue() == "WARNING agent.test: w\nERROR agent.test: e\n"


def test_debug_of_libraries_that_would_tell_of_our_own_log_is_silent(streams: Streams) -> None:
    out, err = streams
    for name in ("watchdog.observers.inotify_buffer", "asyncio", "urllib3.connectionpool"):
        logging.getLogger(name).debug("in-event %s", "log")
    assert out.getvalue() == err.getvalue() == ""


def test_a_message_of_others_is_one_plain_line_without_secrets(streams: Streams) -> None:
    _, err = streams
    said = "denied\x1b[2J\r\nJan 1 00:00:00 router authpriv.info dropbear[1]: in\u2028https://u:hunter2@h"
    logging.getLogger("agent.test").warning("cannot pull: %s", said)
    (line,) = err.getvalue().splitlines()
    assert line.isprintable() and "\\x1b[2J\\r\\nJan" in line and "hunter2" not in line


def test_no_line_of_a_traceback_can_pass_for_a_record(streams: Streams) -> None:
    _, err = streams
    try:
        raise ValueError("a\nERROR agent.x: forged\x1b[1m --token hunter2")
    except ValueError:
        logging.getLogger("agent.test").exception("pass failed")
    first, *rest = err.getvalue().splitlines()
    assert first == "ERROR agent.test: pass failed"
    assert rest and all(line.startswith("| ") and line.isprintable() for line in rest)
    assert "hunter2" not in err.getvalue() and "| ERROR agent.x: forged" in err.getvalue()


def told(repeats: RepeatFilter, message: str, level: int = logging.WARNING) -> str | None:
    record = logging.LogRecord("agent.test", level, "", 0, message, None, None)
    return PlainFormatter().format(record).partition(": ")[2] if repeats.filter(record) else None


def test_what_repeats_itself_is_told_once_and_then_seldom() -> None:
    now = 0.0
    repeats = RepeatFilter(lambda: now)
    seen = []
    for second in range(int(AGAIN_S) * 4):
        now = float(second)
        if (text := told(repeats, f"engine: gone, try {second}")) is not None:
            seen.append((second, text))
    assert [second for second, _ in seen] == [0, AGAIN_S, 3 * AGAIN_S]
    assert seen[1][1].endswith(f"({int(AGAIN_S) - 1} more times since it was told)")


def test_another_reason_is_told_at_once_and_so_is_one_that_comes_back() -> None:
    now = 0.0
    repeats = RepeatFilter(lambda: now)
    assert (
        told(repeats, "engine: gone")
        and told(repeats, "engine: refused")
        and told(repeats, "engine: gone") is None
    )
    now = QUIET_S
    assert told(repeats, "engine: gone") == "engine: gone"


def test_information_is_never_held_back() -> None:
    repeats = RepeatFilter(lambda: 0.0)
    assert told(repeats, "x", logging.INFO) == told(repeats, "x", logging.INFO) == "x"


def test_what_ends_between_two_looks_at_files_is_no_error(streams: Streams) -> None:
    logging.getLogger("watchdog.observers.inotify").error(
        "InotifyEmitter.queue_events() called when the thread is inactive"
    )
    assert streams[1].getvalue() == ""
