# SPDX-License-Identifier: GPL-2.0-or-later
"""The last lines that a container printed before it failed: they go with it, and say why."""

from __future__ import annotations

from agent.apply.ports import Engine
from agent.apply.redact import blotted
from agent.errors import EngineError
from agent.model.plain_text import plain
from agent.model.resources import Container
from agent.wire.docker_frames import FrameDecoder, FrameError

LINES = 10
_LIMIT = 4096  # characters of all lines together


def last_output(engine: Engine, object_id: str, container: Container | None) -> str:
    """At most 10 lines and 4 KiB, without secrets and control characters; "" where the log cannot be read.

    Never raises EngineError: it is a help, and what it is about has failed already.
    """
    try:
        raw = engine.inspect_output(object_id, lines=LINES)
    except EngineError:
        return ""
    return tidied(raw, container)


def tidied(raw: bytes, container: Container | None) -> str:
    """The engine's log stream, framed or (of a container with a terminal) not, as plain text."""
    try:
        data = b"".join(piece for _, piece in FrameDecoder().feed(raw))
    except FrameError:
        data = raw
    text = blotted(data.decode("utf-8", "replace"), container)
    lines = [plain(line.replace("\t", "    ")) for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    kept = "\n".join(lines[-LINES:])
    return kept if len(kept) <= _LIMIT else f"...{kept[-_LIMIT:]}"
