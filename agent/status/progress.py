# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's progress lines of a pull, push, load or build, reduced to one account (Engine API, "Create an image").

Before it comes the engine's stream, after it the job's status. Registries and images write these lines, so nothing in
them is believed: numbers only grow, layers and texts are bounded, and 100 percent is said by success alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

LAYERS_LIMIT = 256  # the engine takes 127 at most
TEXT_LIMIT = 512
_NUMBER_LIMIT = 2**53 - 1  # what a browser can count
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_STEP = re.compile(r"Step ([0-9]{1,4})/([0-9]{1,4}) :")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)", re.DOTALL)

# categories of Unicode: control, direction and half characters, and ends of lines
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")

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
    moved: int = 0  # bytes that came or went
    unpacked: int = 0
    ready: bool = False


@dataclass(slots=True)
class _Sums:
    """Over all layers. Those that were there before have no size, and are not work."""

    moved: int = 0
    total: int = 0
    unpacked: int = 0
    ready: int = 0
    known: int = 0  # layers whose size is known
    unknown: int = 0  # and those that it is not known of yet

    def add(self, layer: _Layer, times: int = 1) -> None:
        """`times` -1 takes it out again, before it changes."""
        self.moved += times * layer.moved
        self.total += times * max(layer.total, layer.moved)
        self.unpacked += times * layer.unpacked
        self.ready += times * layer.ready
        self.known += times * (layer.total > 0)
        self.unknown += times * (not layer.total and not layer.ready)


class Progress:
    """`unpacks`: layers are unpacked after they came. `uploads`: a body goes in, of `upload_bytes` where that is known."""

    def __init__(self, *, unpacks: bool = False, uploads: bool = False, upload_bytes: int = 0) -> None:
        self._unpacks = unpacks
        self._uploads = uploads
        self._body_total = upload_bytes
        self._body = 0
        self._plain = False  # nothing follows once the bytes are there
        self._layers: dict[str, _Layer] = {}
        self._sums = _Sums()
        self._share = 0.0  # of the build's steps
        self._percent: int | None = None
        self._succeeded = False
        self.step = ""

    def expect(self, total: int) -> None:
        """How many bytes there are, of work that is nothing but bytes."""
        self._body_total, self._plain = total, True
        self._grow()

    def sent(self, count: int) -> None:
        """`count` more bytes of the upload went to the engine."""
        self._body += count
        self._grow()

    def succeed(self) -> None:
        """The work ended well."""
        self._succeeded = True
        self._percent = 100

    def feed(self, line: Mapping[str, Any]) -> bool:
        """Takes one line. False when it told nothing new."""
        # Compared at the end: an engine sends many lines that change nothing, and each change wakes readers.
        before = (self.step, self._share, replace(self._sums))
        status, stream = clean(line.get("status")), clean(line.get("stream"))
        name = line.get("id")
        # Some engines use `id` for the tag as well, which is no layer.
        if status and isinstance(name, str) and _ID.fullmatch(name):
            self._layer_line(name, status, line.get("progressDetail"))
        elif status or stream:
            self.step = status or stream
        found = _STEP.match(stream)
        if found is not None and 0 < int(found[1]) <= int(found[2]):
            # A build tells steps and no bytes: the share is that of the steps before this one.
            self._share = max(self._share, (int(found[1]) - 1) / int(found[2]))
        self._grow()
        return before != (self.step, self._share, self._sums)

    def _layer_line(self, name: str, status: str, detail: object) -> None:
        moving = status in _OF_LAYERS or status.startswith(_MOUNTED)
        layer = self._layers.get(name)
        if layer is None:
            # lines about the tag look like those of a layer, and an engine could invent layers without end
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
        """Bytes that came or went: of the upload where there is one, else of layers."""
        return self._body if self._uploads else self._sums.moved

    @property
    def bytes_total(self) -> int:
        """All bytes that are known of."""
        return max(self._body_total, self._body) if self._uploads else self._sums.total

    @property
    def work(self) -> tuple[object, ...]:
        """Differs from the one before where something came forward: an engine repeats the lines of a stalled download."""
        return self._body, self._share, replace(self._sums)

    @property
    def layers_done(self) -> int:
        """Layers that need nothing more."""
        return self._sums.ready

    @property
    def percent(self) -> int | None:
        """Of the work, not of the bytes: unpacking counts as much as the way here. None: nothing is known yet."""
        return self._percent

    def _grow(self) -> None:
        sums = self._sums
        share = 0.0 if sums.unknown else None
        if sums.known:
            # a layer whose size is not known yet counts as one of average size
            work = sums.total * (1 + sums.unknown / sums.known)
            share = ((sums.moved + sums.unpacked) / 2 if self._unpacks else sums.moved) / work
        if self._body_total:
            sent = min(1.0, self._body / self._body_total)
            share = sent if self._plain else (sent + (share or 0.0)) / 2
        if self._share:  # of a build, whose layers say nothing about the steps to come
            share = self._share
        if share is not None and not self._succeeded:
            self._percent = max(self._percent or 0, min(99, int(share * 100)))

    def as_json(self) -> dict[str, Any]:
        """What a status shows; `percent` is null while nothing is known."""
        return {
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "percent": self.percent,
            "layers_done": self.layers_done,
            "layers_total": len(self._layers),
            "step": self.step,
        }


def _update(layer: _Layer, status: str, current: int, total: int) -> None:
    """Numbers only grow, and no part is larger than its whole where that is known."""
    layer.total = max(layer.total, total)
    # Without a total the number is still bounded: it comes from a registry.
    limit = layer.total or _NUMBER_LIMIT
    if status in _MOVING:
        layer.moved = max(layer.moved, min(current, limit))
    # Said without numbers: what was downloaded or is being unpacked is here whole.
    elif status in _MOVED | _UNPACKING:
        layer.moved = max(layer.moved, layer.total)
    if status in _UNPACKING:
        layer.unpacked = max(layer.unpacked, min(current, limit))
    if status in _READY or status.startswith(_MOUNTED):
        layer.ready = True
        layer.moved = max(layer.moved, layer.total)
        layer.unpacked = max(layer.unpacked, layer.total)


def _numbers(detail: object) -> tuple[int, int]:
    """`current` and `total` of a line; 0 for what is not a size."""
    if not isinstance(detail, Mapping):
        return 0, 0
    return _size(detail.get("current")), _size(detail.get("total"))


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return 0
    return min(value, _NUMBER_LIMIT)


def clean(value: object, limit: int = TEXT_LIMIT) -> str:
    """Text of the engine for eyes: one line, no terminal sequences, no control or direction marks, not too long."""
    if not isinstance(value, str):
        return ""
    # cut before it is looked through: a line of megabytes costs no more than one that fits
    text = _ESCAPE.sub("", value[: limit * 8])
    shown = (" " if c in "\r\n\t" else c for c in text)
    kept = "".join(c for c in shown if unicodedata.category(c) not in _INVISIBLE).strip()
    return kept if len(kept) <= limit else kept[: limit - 3] + "..."
