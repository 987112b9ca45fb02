# SPDX-License-Identifier: GPL-2.0-or-later
"""Reduces the engine's progress lines of a pull, push, load or build to a summary (Engine API, "Create an image").

The lines come from the engine's stream, and the summary goes to the status of a job or pull. Registries and images
write these lines, so they are not trusted: numbers only grow, layers and texts are limited, and only success sets 100
percent.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

LAYERS_LIMIT = 256  # the engine accepts at most 127
TEXT_LIMIT = 512
_NUMBER_LIMIT = 2**53 - 1  # the largest integer that a browser can represent
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_STEP = re.compile(r"Step ([0-9]{1,4})/([0-9]{1,4}) :")
# colours and titles that builds send to terminals
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)", re.DOTALL)

# Unicode categories: control, format and surrogate characters, line and paragraph separators
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")

# status texts of the engine for one layer, from here on
_MOVING = frozenset({"Downloading", "Pushing", "Loading layer"})
_MOVED = frozenset({"Download complete", "Verifying Checksum", "Pushed"})
_UNPACKING = frozenset({"Extracting"})
_WAITING = frozenset({"Pulling fs layer", "Preparing", "Waiting"})
_READY = frozenset({"Pull complete", "Already exists", "Layer already exists", "Pushed"})
_MOUNTED = "Mounted from "
_OF_LAYERS = _MOVING | _MOVED | _UNPACKING | _WAITING | _READY


@dataclass(slots=True)
class _Layer:
    total: int = 0
    moved: int = 0  # bytes received or sent
    unpacked: int = 0
    ready: bool = False


@dataclass(slots=True)
class _Sums:
    """Totals over all layers. Layers that were already present have no size and do not count as work."""

    moved: int = 0
    total: int = 0
    unpacked: int = 0
    ready: int = 0
    known: int = 0  # number of layers with known size
    unknown: int = 0  # number of layers with a size that is not known yet

    def add(self, layer: _Layer, times: int = 1) -> None:
        """Adds a layer; `times` -1 removes it, before it changes."""
        self.moved += times * layer.moved
        self.total += times * max(layer.total, layer.moved)
        self.unpacked += times * layer.unpacked
        self.ready += times * layer.ready
        self.known += times * (layer.total > 0)
        self.unknown += times * (not layer.total and not layer.ready)


class Progress:
    """Progress of one job. `unpacks`: layers are unpacked after the download. `uploads`: a request body is sent, of
    `upload_bytes` if known."""

    def __init__(self, *, unpacks: bool = False, uploads: bool = False, upload_bytes: int = 0) -> None:
        self._unpacks = unpacks
        self._uploads = uploads
        self._body_total = upload_bytes
        self._body = 0  # bytes of the upload so far
        self._plain = False  # the job is done when the bytes are sent
        self._layers: dict[str, _Layer] = {}
        self._sums = _Sums()  # kept with each change: a line comes for each layer many times a second
        self._share = 0.0  # fraction of the build's steps
        self._percent: int | None = None
        self._succeeded = False
        self.step = ""

    def expect(self, total: int) -> None:
        """Sets the number of bytes, for work that consists only of bytes."""
        self._body_total, self._plain = total, True
        self._grow()

    def sent(self, count: int) -> None:
        """Adds `count` bytes of the upload."""
        self._body += count
        self._grow()

    def succeed(self) -> None:
        """The work ended successfully."""
        self._succeeded = True
        self._percent = 100

    def feed(self, line: Mapping[str, Any]) -> bool:
        """Processes one line. False if nothing changed."""
        # compared at the end: an engine sends many lines that change nothing, and each change wakes readers
        before = (self.step, self._share, replace(self._sums))
        status, stream = clean(line.get("status")), clean(line.get("stream"))
        name = line.get("id")
        # some engines also use `id` for the tag, which is not a layer
        if status and isinstance(name, str) and _ID.fullmatch(name):
            self._layer_line(name, status, line.get("progressDetail"))
        elif status or stream:
            self.step = status or stream
        found = _STEP.match(stream)
        if found is not None and 0 < int(found[1]) <= int(found[2]):
            # a build reports steps and no bytes: only the earlier steps count as done
            self._share = max(self._share, (int(found[1]) - 1) / int(found[2]))
        self._grow()
        return before != (self.step, self._share, self._sums)

    def _layer_line(self, name: str, status: str, detail: object) -> None:
        moving = status in _OF_LAYERS or status.startswith(_MOUNTED)
        layer = self._layers.get(name)
        if layer is None:
            # lines about the tag look like those of a layer, and the number of layers must be limited
            if not moving or len(self._layers) >= LAYERS_LIMIT:
                self.step = f"{name[:12]}: {status}" if moving else status
                return
            layer = self._layers[name] = _Layer()
            self._sums.add(layer)
        self.step = f"{name[:12]}: {status}"
        self._sums.add(layer, -1)
        _update(layer, status, *_numbers(detail))
        self._sums.add(layer)

    @property
    def bytes_done(self) -> int:
        """Bytes received or sent: of the upload if there is one, otherwise of layers."""
        return self._body if self._uploads else self._sums.moved

    @property
    def bytes_total(self) -> int:
        """Total of all known bytes."""
        return max(self._body_total, self._body) if self._uploads else self._sums.total

    @property
    def work(self) -> tuple[object, ...]:
        """A value that changes whenever there is progress: an engine repeats the lines of a stalled download."""
        return self._body, self._share, replace(self._sums)

    @property
    def layers_done(self) -> int:
        """Number of finished layers."""
        return self._sums.ready

    @property
    def percent(self) -> int | None:
        """Percentage of the work, not of the bytes: unpacking counts as much as the download. None: nothing is known
        yet."""
        return self._percent

    def _grow(self) -> None:
        sums = self._sums
        share = 0.0 if sums.unknown else None
        if sums.known:
            # a layer of unknown size counts as average
            work = sums.total * (1 + sums.unknown / sums.known)
            share = ((sums.moved + sums.unpacked) / 2 if self._unpacks else sums.moved) / work
        if self._body_total:
            sent = min(1.0, self._body / self._body_total)
            share = sent if self._plain else (sent + (share or 0.0)) / 2
        if self._share:  # a build, whose layers do not predict the remaining steps
            share = self._share
        if share is not None and not self._succeeded:
            self._percent = max(self._percent or 0, min(99, int(share * 100)))

    def as_json(self) -> dict[str, Any]:
        """The JSON for a status; `percent` is null while nothing is known."""
        return {
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "percent": self.percent,
            "layers_done": self.layers_done,
            "layers_total": len(self._layers),
            "step": self.step,
        }


def _update(layer: _Layer, status: str, current: int, total: int) -> None:
    """Updates a layer: numbers only grow, and no part exceeds its total if that is known."""
    layer.total = max(layer.total, total)
    # limited even without a total, because the number comes from a registry
    limit = layer.total or _NUMBER_LIMIT
    if status in _MOVING:
        layer.moved = max(layer.moved, min(current, limit))
    # these lines have no numbers: a layer that was downloaded or is being unpacked is complete
    elif status in _MOVED | _UNPACKING:
        layer.moved = max(layer.moved, layer.total)
    if status in _UNPACKING:
        layer.unpacked = max(layer.unpacked, min(current, limit))
    if status in _READY or status.startswith(_MOUNTED):
        layer.ready = True
        layer.moved = max(layer.moved, layer.total)
        layer.unpacked = max(layer.unpacked, layer.total)


def _numbers(detail: object) -> tuple[int, int]:
    """`current` and `total` of a line; 0 if it is not a size."""
    if not isinstance(detail, Mapping):
        return 0, 0
    return _size(detail.get("current")), _size(detail.get("total"))


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return 0
    return min(value, _NUMBER_LIMIT)


def clean(value: object, limit: int = TEXT_LIMIT) -> str:
    """The engine's text for people: one line, without terminal sequences, control or direction characters, and
    shortened."""
    if not isinstance(value, str):
        return ""
    # cut first, so that a line of megabytes costs no more than a short one
    text = _ESCAPE.sub("", value[: limit * 8])
    shown = (" " if c in "\r\n\t" else c for c in text)
    kept = "".join(c for c in shown if unicodedata.category(c) not in _INVISIBLE).strip()
    return kept if len(kept) <= limit else kept[: limit - 3] + "..."
