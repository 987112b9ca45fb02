# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine shows, narrowed to what reconciling needs, and what state.json remembers of our own objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.model.identity import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedContainer:
    """One item of `GET /containers/json?all=1`, with `inspect` when it was looked at deeply."""

    id: str
    name: str
    image: str  # as created: a name or an id
    image_id: str
    state: str  # created running paused restarting removing exited dead
    labels: dict[str, str] = field(default_factory=dict)
    health: str = ""  # healthy, unhealthy, starting or "" (no health check)
    exit_code: int | None = None  # of a container that ended, None while there is none
    started_at: str = ""  # RFC 3339, the engine's clock; where it was looked at deeply only
    finished_at: str = ""  # likewise
    last_exit_code: int | None = None  # of one that ended or is restarted in a loop
    since: float | None = None  # wall clock, seconds: when its state began, see agent.observe.endings
    # the engine's words: "Up 2 seconds (healthy)". With the age in them they change all the time
    status_text: str = field(default="", compare=False)
    inspect: dict[str, Any] | None = None  # raw body of GET /containers/{id}/json


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedNetwork:
    """One item of `GET /networks` (full body in `inspect`)."""

    id: str
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    inspect: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedVolume:
    """One item of `GET /volumes`. A volume has no id but its name."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    inspect: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedImage:
    """One of GET /images/json. `shared`: what other images have too, None where the engine did not say."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()  # NAME@sha256:...
    parent: str = ""  # id of the image that it was built on here
    size: int = 0
    shared: int | None = None

    @property
    def title(self) -> str:
        """What people know it by."""
        return ", ".join(self.tags or self.digests) or self.id.removeprefix("sha256:")[:12]

    @property
    def own(self) -> int:
        """What its removal gives back at least."""
        return self.size - (self.shared or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A snapshot. Names held by objects that are not ours appear too: they are conflicts waiting to happen."""

    containers: tuple[ObservedContainer, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineIdentity:
    """What `GET /info` says of the engine itself. `id`: before 23.0 one of the machine, not of the data root."""

    id: str = ""
    root: str = ""  # DockerRootDir
    driver: str = ""  # of its storage


# the id of a container that is known to be gone, while its record still names its data
NO_OBJECT = "0" * 64

# new: of a swap not yet committed; retired: replaced, to be removed; foreign: what an adoption takes over
SWAPS = ("", "new", "retired", "foreign")


# what was asked for and is not done yet
ASKED_UPDATE = "update"
ASKED_ROLLBACK = "rollback"
ASKED_WITH_DATA = "rollback-data"  # and the data that was saved before the update
ASKED = ("", ASKED_UPDATE, ASKED_ROLLBACK, ASKED_WITH_DATA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One object of ours as state.json remembers it; its nonce is the key."""

    kind: str  # container network volume
    section: str
    nonce: str
    name: str
    object_id: str = ""  # "" between the write before create and the engine's answer; a volume's name
    spec: dict[str, Any] = field(default_factory=dict)  # last applied, canonical and masked
    spec_hash: str = ""
    image_id: str = ""
    failed_hash: str = ""  # spec hash whose swap was rolled back: not tried again
    # beside it: what that spec meant, for a section that says the same in other words
    failed_meaning: str = ""
    # beside it, without secrets: the error, and the last lines that the new container printed
    failed_why: str = ""
    failed_output: str = ""
    failed_digest: str = ""  # of the image that it was tried with
    removed_at: float | None = None  # wall clock, seconds: when its section vanished (grace period)
    swap: str = ""  # one of SWAPS
    grace_s: float = 120.0  # options of a section that is needed once the section is gone
    remove_volumes: bool = False
    joined: tuple[
        str, ...
    ] = ()  # ids of the containers whose network, ipc or pid namespace it was created in
    starts: tuple[str, ...] = ()  # when it was started, and each of those was, as last seen together
    plugged: tuple[str, ...] = ()  # where its USB devices were when it was created: "usb:VID:PID=/dev/..."
    ignored: tuple[str, ...] = ()  # fields that the engine took without a word and did not set
    running: bool = True  # whether it ran when its swap began: what an undo brings back
    partner: str = ""  # with "new": nonce of the container that it is to replace
    volumes: tuple[str, ...] = ()  # its anonymous volumes: "NAME=TARGET"
    left: tuple[str, ...] = ()  # those of its predecessors that nothing mounts any more
    lost: tuple[str, ...] = ()  # volumes whose data was removed by others, and that were created again, empty
    adopted: bool = False  # a network or volume that was there before us: it has none of our labels
    ended_at: str = ""  # FinishedAt of the last end that was looked into
    completed: bool | None = None  # whether that one did its job; None: by a version that did not ask
    waits: tuple[str, ...] = ()  # what it waited for when it was applied: "mount:/mnt", "db:healthy"
    waits_known: bool = False  # False: by a version that did not write it down
    digest: str = ""  # "REPO@sha256:..." of its image, as the engine had it when the container was made
    asked: str = ""  # one of ASKED
    previous: tuple[
        str, ...
    ] = ()  # the images before this one that were good, newest first: "ID=REPO@DIGEST"
    pinned: bool = False  # it was taken back to its image: stays there until its section changes, or an update is asked for
    held_at: float | None = None  # wall clock, seconds: since when `hold_cmd` puts its replacement off
    remark: str = ""  # what went wrong when it replaced the one before, and stopped nothing
    hook_due: bool = False  # `post_start` has not succeeded since it was started
    newer: str = ""  # the digest, or the id, of a newer image that waits for its age, and since when (wall clock, seconds)
    newer_at: float | None = None
    saved: tuple[
        str, ...
    ] = ()  # under which key its data was saved before an update, and by which image: "ID=REPO@DIGEST"
    restores: str = ""  # with "new": the key of the data that its volumes get
    freed: tuple[
        str, ...
    ] = ()  # of a replacement that removes the old image first: see `plan.container.image.Freed`
    engine: str = ""  # the tag of the engine that it is on (agent.plan.records); "": version 0.1.0 wrote it

    @property
    def key(self) -> Key:
        """Of the resource that it is about."""
        return Key(self.kind, self.section)
