# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorded conversations of real ubus peers with the real ubusd (tests/data/ubus)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).parents[1] / "data" / "ubus" / "conversations.jsonl"


@dataclass(frozen=True, slots=True)
class Conversation:
    """`frames`: (writer, bytes), in order; a frame is one read, not one message."""

    name: str
    stdout: str
    frames: tuple[tuple[str, bytes], ...]


def conversations() -> list[Conversation]:
    rows = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
    return [
        Conversation(
            row["name"], row["stdout"], tuple((who, bytes.fromhex(data)) for who, data in row["frames"])
        )
        for row in rows
    ]


def one_way(conversation: Conversation, who: str) -> bytes:
    """Everything that `who` wrote."""
    return b"".join(data for writer, data in conversation.frames if writer == who)
