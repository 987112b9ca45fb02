# SPDX-License-Identifier: GPL-2.0-or-later
"""What a reader has not acknowledged yet, and no more of it than fits in its window.

uhttpd buffers without bound for a browser that does not read, and tells us nothing of it. So a reader acknowledges what
it has read, and whoever fills the outbox waits while the window is full: a slow reader stops the reading, not the memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WINDOW = 64 * 1024
PACKET = 16 * 1024
PACKETS = 64
_JOINED = 4096  # characters of a text that more is joined to


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """Items that go as one message. `seq` counts from 1 without gaps."""

    seq: int
    items: tuple[Mapping[str, Any], ...]
    size: int

    def as_json(self) -> dict[str, Any]:
        """The message."""
        return {"seq": self.seq, "items": list(self.items)}


class Outbox:
    """Items go in by `put` where `has_room`; packets come out by `pack`, and stay until they are acknowledged."""

    def __init__(self, *, window: int = WINDOW) -> None:
        self._window = window
        self._waiting: deque[tuple[Mapping[str, Any], int]] = deque()
        self._unacknowledged: deque[Packet] = deque()
        self._size = 0
        self.last = 0
        self.acknowledged = 0

    def has_room(self, size: int) -> bool:
        """Whether an item of that many bytes may come. An empty outbox takes one of any size."""
        if not self._size:
            return True
        return self._size + size <= self._window and len(self._unacknowledged) < PACKETS

    def put(self, item: Mapping[str, Any], size: int) -> None:
        """Adds an item. Text that follows on text of the same stream is joined to it: logs come line by line."""
        self._size += size
        if self._waiting and (joined := _joined(self._waiting[-1][0], item)) is not None:
            self._waiting[-1] = (joined, self._waiting[-1][1] + size)
        else:
            self._waiting.append((item, size))

    def pack(self) -> Packet | None:
        """Makes the next packet of what waits; None when nothing does, or too many packets are out."""
        if not self._waiting or len(self._unacknowledged) >= PACKETS:
            return None
        items: list[Mapping[str, Any]] = []
        size = 0
        while self._waiting and (not items or size + self._waiting[0][1] <= PACKET):
            item, item_size = self._waiting.popleft()
            items.append(item)
            size += item_size
        self.last += 1
        packet = Packet(seq=self.last, items=tuple(items), size=size)
        self._unacknowledged.append(packet)
        return packet

    def acknowledge(self, seq: int) -> bool:
        """All up to `seq` were read. True when that is news; ValueError when they were never made."""
        if not 0 <= seq <= self.last:
            raise ValueError(f"seq {seq}: expected 0 to {self.last}")
        if seq <= self.acknowledged:
            return False
        while self._unacknowledged and self._unacknowledged[0].seq <= seq:
            self._size -= self._unacknowledged.popleft().size
        self.acknowledged = seq
        return True

    def after(self, seq: int) -> list[Packet]:
        """The packets after `seq` that are not acknowledged."""
        return [packet for packet in self._unacknowledged if packet.seq > seq]


def _joined(last: Mapping[str, Any], item: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Both as one; None where they are not of a kind, or long enough."""
    if last.keys() != item.keys() or "text" not in item or len(last["text"]) + len(item["text"]) > _JOINED:
        return None
    if any(last[name] != item[name] for name in item if name != "text"):
        return None
    return {**last, "text": last["text"] + item["text"]}
