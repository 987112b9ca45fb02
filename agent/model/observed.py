# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine reports, reduced to what reconciling needs, and what state.json remembers about our objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.model.identity import Key
from agent.model.resources import Port


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedContainer:
    """One item of `GET /containers/json?all=1`, with `inspect` if the container was inspected."""

    id: str
    name: str
    image: str  # as created: a name or an id
    image_id: str
    state: str  # created running paused restarting removing exited dead
    labels: dict[str, str] = field(default_factory=dict)
    health: str = ""  # healthy, unhealthy, starting or "" (no health check)
    exit_code: int | None = None  # of a container that ended, None while there is none
    started_at: str = ""  # RFC 3339, the engine's clock; only if it was inspected
    finished_at: str = ""  # likewise
    last_exit_code: int | None = None  # of a container that ended or is restarting in a loop
    since: float | None = None  # wall clock, seconds: when its state began, see `agent.observe.exits`
    # the engine's text, such as "Up 2 seconds (healthy)"; not compared, because the age in it always changes
    status_text: str = field(default="", compare=False)
    inspect: dict[str, Any] | None = None  # raw body of GET /containers/{id}/json


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The networks that a container is on, by name, and its ports on the host, of one item of `GET /containers/json`."""

    networks: tuple[str, ...]
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedNetwork:
    """One item of `GET /networks` (full body in `inspect`)."""

    id: str
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    inspect: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedVolume:
    """One item of `GET /volumes`. A volume is identified by its name only."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    inspect: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedImage:
    """One item of GET /images/json. `shared`: bytes shared with other images, None if the engine did not say."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()  # NAME@sha256:...
    parent: str = ""  # id of the image that it was built on here
    size: int = 0
    shared: int | None = None

    @property
    def title(self) -> str:
        """The name for people."""
        return ", ".join(self.tags or self.digests) or self.id.removeprefix("sha256:")[:12]

    @property
    def own(self) -> int:
        """Minimum number of bytes that its removal frees."""
        return self.size - (self.shared or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A snapshot. It includes the names of foreign objects, because they may conflict with sections."""

    containers: tuple[ObservedContainer, ...] = ()
    networks: tuple[ObservedNetwork, ...] = ()
    volumes: tuple[ObservedVolume, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineIdentity:
    """How `GET /info` identifies the engine. `id`: before 23.0 it belongs to the machine, not to the data_root."""

    id: str = ""
    root: str = ""  # DockerRootDir
    driver: str = ""  # the storage driver


# the id of a container that no longer exists, while its record still names its data
NO_OBJECT = "0" * 64

# new: part of an uncommitted swap; retired: replaced, to be removed; foreign: being taken over by an adoption
SWAPS = ("", "new", "retired", "foreign")


# what a user requested and is not done yet
ASKED_UPDATE = "update"
ASKED_ROLLBACK = "rollback"
ASKED_WITH_DATA = "rollback-data"  # a rollback that also restores the data saved before the update
ASKED = ("", ASKED_UPDATE, ASKED_ROLLBACK, ASKED_WITH_DATA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One object of ours in state.json; the nonce is its key."""

    kind: str  # container network volume
    section: str
    nonce: str
    name: str
    # "" between the write before the create and the engine's answer; for a volume its name
    object_id: str = ""
    # wall clock, seconds: the engine did not answer the creation, and there was no such object then; it may still come
    missed_at: float | None = None
    spec: dict[str, Any] = field(default_factory=dict)  # last applied, canonical and masked
    spec_hash: str = ""
    image_id: str = ""
    failed_hash: str = ""  # spec hash of a swap that was rolled back: not tried again
    # the meaning of that spec, to recognize a section that says the same in other words
    failed_meaning: str = ""
    # the same for other images with which that spec was rolled back, the latest first
    failed_others: tuple[str, ...] = ()
    # the error and the last output of the new container, without secrets
    failed_why: str = ""
    failed_output: str = ""
    failed_digest: str = ""  # digest of the image that was tried
    removed_at: float | None = None  # wall clock, seconds: when its section was removed (grace period)
    swap: str = ""  # one of SWAPS
    grace_s: float = 120.0  # copied from the section, because it is needed after the section is removed
    remove_volumes: bool = False
    # ids of the containers whose namespaces or volumes it used when it was created
    joined: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()  # start times of this container and of those in `joined`, last seen together
    # where its USB devices were plugged in at its creation: "usb:VID:PID=/dev/..."
    plugged: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()  # fields that the engine accepted silently but did not set
    running: bool = True  # whether it was running when its swap began: a rollback restores that
    partner: str = ""  # with "new": nonce of the container that it replaces
    volumes: tuple[str, ...] = ()  # its anonymous volumes: "NAME=TARGET"
    left: tuple[str, ...] = ()  # anonymous volumes of its predecessors that nothing mounts any more
    lost: tuple[str, ...] = ()  # volumes that others removed and that were recreated empty
    adopted: bool = False  # a network or volume that we took over: it does not have our labels
    ended_at: str = ""  # FinishedAt of the last end that was examined
    # whether the container completed its job then; None: written by a version that did not check
    completed: bool | None = None
    waits: tuple[str, ...] = ()  # its needs when it was applied: "mount:/mnt", "depends_on db:healthy"
    waits_known: bool = False  # False: written by a version that did not store them
    digest: str = ""  # "REPO@sha256:..." of its image, as the engine knew it at the container's creation
    asked: str = ""  # one of ASKED
    previous: tuple[str, ...] = ()  # the good images before this one, newest first: "ID=REPO@DIGEST"
    # a rollback pinned its image: it is kept until the section changes or an update is requested
    pinned: bool = False
    held_at: float | None = None  # wall clock, seconds: since when `hold_cmd` postpones its replacement
    remark: str = ""  # a problem during its replacement that did not stop it
    hook_due: bool = False  # `post_start` has not succeeded since the last start
    # digest or id of a newer image that waits for its minimum age, and since when (wall clock, seconds)
    newer: str = ""
    newer_at: float | None = None
    # the key of its data that was saved before an update, and the image at that time: "ID=REPO@DIGEST"
    saved: tuple[str, ...] = ()
    restores: str = ""  # with "new": the key of the data to restore into its volumes
    # progress of a replacement with `strategy free-first`: see `plan.container.image.Freed`
    freed: tuple[str, ...] = ()
    engine: str = ""  # the tag of its engine (`agent.plan.records`); "": version 0.1.0 wrote it

    @property
    def key(self) -> Key:
        """The key of its resource."""
        return Key(self.kind, self.section)
