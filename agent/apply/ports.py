# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports for applying and observing: the Docker Engine, the records of which objects are ours, and the clocks. Also
checks on how far the engine's lists can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from agent.errors import EngineError, EngineUnreachableError
from agent.model.identity import LABEL_NONCE
from agent.model.observed import (
    EngineIdentity,
    ObservedContainer,
    ObservedImage,
    ObservedNetwork,
    ObservedVolume,
    Published,
    Record,
)
from agent.model.resources import RegistryAuth
from agent.plan.records import Claims, Tags, swap_name


class ImageEngine(Protocol):
    """The engine calls that a clean-up needs."""

    def identity(self, *, fresh: bool = False) -> EngineIdentity: ...
    def inspect_image(self, ref: str) -> dict[str, Any] | None: ...
    def list_images(self) -> tuple[ObservedImage, ...]: ...
    def list_image_users(self) -> dict[str, str]: ...
    def list_build_cache(self) -> tuple[dict[str, Any], ...]: ...
    def remove_image(self, ref: str) -> None: ...
    def prune_build_cache(self, unused_s: float) -> int: ...


class Engine(ImageEngine, Protocol):
    """One Docker Engine. Each method is one engine call; `api_version` and `identity` (unless `fresh`) only call again
    after a lost connection."""

    def api_version(self) -> tuple[int, int]: ...
    def ping(self) -> tuple[int, int]: ...
    def info(self) -> dict[str, Any]: ...
    def list_containers(self, instance: str) -> tuple[ObservedContainer, ...]: ...
    def list_names(self) -> frozenset[str]: ...
    def list_published(self) -> dict[str, Published]: ...
    def list_networks(self) -> tuple[ObservedNetwork, ...]: ...
    def list_volumes(self) -> tuple[ObservedVolume, ...]: ...
    def inspect_container(self, ref: str) -> ObservedContainer | None: ...
    def inspect_chosen_mac(self, ref: str) -> str | None: ...
    def inspect_network(self, ref: str) -> ObservedNetwork | None: ...
    def inspect_volume(self, ref: str) -> ObservedVolume | None: ...
    def inspect_output(self, ref: str, *, lines: int) -> bytes: ...
    def create_container(self, name: str, body: dict[str, Any], *, platform: str = "") -> str: ...
    def execute(self, ref: str, argv: Sequence[str], timeout_s: float) -> tuple[int | None, bytes]: ...
    def start(self, ref: str) -> None: ...
    def stop(self, ref: str, timeout_s: int | None) -> None: ...
    def unpause(self, ref: str) -> None: ...
    def update(self, ref: str, body: dict[str, Any]) -> None: ...
    def rename(self, ref: str, name: str) -> None: ...
    def remove_container(self, ref: str, *, volumes: bool, force: bool = False) -> None: ...
    def connect(self, network: str, container: str, endpoint: dict[str, Any]) -> None: ...
    def disconnect(self, network: str, container: str) -> None: ...
    def create_network(self, body: dict[str, Any]) -> str: ...
    def remove_network(self, ref: str) -> None: ...
    def create_volume(self, body: dict[str, Any]) -> ObservedVolume: ...
    def remove_volume(self, name: str) -> None: ...
    def pull(
        self,
        image: str,
        auth: RegistryAuth | None,
        on_progress: Callable[[dict[str, Any]], None],
        meanwhile: Callable[[], None],
        *,
        platform: str = "",
    ) -> None: ...
    def past_events(self, container: str, until: str) -> tuple[dict[str, Any], ...]: ...
    def events(self, since: int | None) -> Iterator[dict[str, Any]]: ...


@contextmanager
def answering(engine: Engine) -> Iterator[None]:
    """An error of the block becomes EngineUnreachableError if dockerd is ending: then it says nothing about a container or
    an image."""
    try:
        yield
    except EngineUnreachableError:
        raise
    except EngineError as exc:
        # While dockerd ends it stops the containers, and still answers on open connections, with errors of all kinds.
        # It accepts no new connection.
        try:
            engine.ping()
        except EngineUnreachableError as away:
            raise away from exc
        raise


# Port: the storage for records of our objects. `agent.files.state` implements it.


class Records(Protocol):
    """A method that changes something has written it to disk when it returns. StorageError: nothing was changed.

    Changes that are not `lasting` survive a restart of the agent, but may be lost in a power cut. Use them for facts
    that `recover` can find out again, such as the id of an object whose label holds the record's nonce.
    """

    instance: str

    def records(self) -> tuple[Record, ...]: ...

    def missed(self) -> tuple[Record, ...]: ...

    def everywhere(self) -> tuple[Record, ...]: ...

    def select_engine(self, tags: Tags, claims: Claims, *, keep: bool) -> None: ...

    def get(self, nonce: str) -> Record | None: ...

    def put(self, *records: Record, instead_of: Collection[str] = ()) -> None: ...

    def change(self, nonce: str, *, lasting: bool = True, **changes: Any) -> Record: ...

    def drop(self, nonce: str, *, lasting: bool = True) -> None: ...

    def fold(self) -> None: ...


class SavedData(Protocol):
    """Copies of volumes from before updates. Methods raise UcidockdError. `agent.data.backups` implements it."""

    def check(self, names: Iterable[str]) -> None: ...

    def save(self, names: Iterable[str], key: str) -> None: ...

    def lend(self, key: str) -> None: ...

    def take_back(self, key: str) -> None: ...

    def keep_only(self, keys: Callable[[], Collection[str]]) -> None: ...


# The clocks of passes and of applying, passed down from the reconciler: tests replace them to let hours pass at once.


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """`wall` returns unix seconds and may jump; `monotonic` returns seconds and does not jump; `sleep` blocks its
    thread."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


SYSTEM_CLOCK = Clock()


# How far the engine's lists can be trusted: they may miss objects while the engine loads, or after a truncated
# response, and may list a damaged object that cannot be inspected.


def confirm_missing(missing: set[str], inspect: Callable[[str], object | None]) -> None:
    """Asks by id for objects that a list misses. Raises EngineError if one of them exists."""
    for object_id in sorted(missing):
        if inspect(object_id) is not None:
            raise EngineError(f"the engine's list lacks {object_id[:12]}, which is there", retryable=True)


@contextmanager
def noting_errors(what: str, unseen: dict[str, str]) -> Iterator[None]:
    """Notes an error about a single object that the engine cannot show or shows in an unreadable form. Losing the engine
    affects all objects and is raised."""
    try:
        yield
    except EngineUnreachableError:
        raise
    except EngineError as exc:
        unseen[what] = str(exc)


def name_at_creation(record: Record) -> str:
    """The name under which the container of a record is created."""
    return swap_name(record.name, "new", record.nonce) if record.swap == "new" else record.name


def made_for(engine: Engine, records: Records, record: Record) -> ObservedContainer | None:
    """The container that was created for a record, whatever its present name: the nonce in its label identifies it. Of
    copies of it (`docker commit` puts the labels into the image), it is the one with the name."""
    ours = engine.list_containers(records.instance)
    marked = [seen for seen in ours if seen.labels.get(LABEL_NONCE) == record.nonce]
    found = next((seen for seen in marked if seen.name == name_at_creation(record)), None)
    found = found or next(iter(marked), None)
    # "not found" makes the caller forget a record, so the list must be complete: it has to show every other container
    # of ours
    if found is None:
        known = {
            r.object_id for r in records.records() if r.kind == "container" and r.object_id and not r.swap
        }
        confirm_missing(known - {seen.id for seen in ours}, engine.inspect_container)
    return found


# A creation that the engine did not answer: the agent was killed meanwhile, or the engine took longer than the client
# waits. The object may come later than the next look for it, so its record is kept for a while.


MISSED_S = 600.0  # how long such a record is kept; the client gives up after a minute
_MISSED = 32  # at most; several workers create at once


def miss(records: Records, record: Record, now: float, *more: Record) -> None:
    """Notes that the object of this record is not there: no plan knows the record any more. Writes `more` along with it.

    `now`: wall clock, seconds. Raises StorageError.
    """
    old = records.missed()[: 1 - _MISSED]
    records.put(replace(record, missed_at=now), *more, instead_of=[each.nonce for each in old])
