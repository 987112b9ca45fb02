# SPDX-License-Identifier: GPL-2.0-or-later
"""Update checks: when registries are asked, what they answered, and since when each newer image is known.

A check runs in its own thread and asks for each tag once, however many sections name it. Results are kept in memory.
On flash there are only the newer images, written when they change, so that their age survives a reboot. The time of
the last check is stored in the run directory, a tmpfs.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.apply.ports import Engine, Records
from agent.errors import ClockNotSetError, ConfigError, EngineError, InternalError, UcidockdError
from agent.files.atomic import atomic_write
from agent.model.identity import Key
from agent.model.quantities import clock_is_set
from agent.model.resources import Desired, Pull, Update
from agent.model.updates import (
    Answer,
    Available,
    CheckResult,
    ImageName,
    RunningImage,
    UpdateState,
    compare,
    needs_members,
    next_check_s,
    parse_image,
    result_as_json,
)
from agent.wire.record_lines import json_object

if TYPE_CHECKING:
    from agent.engine.registry import RegistryClient

logger = logging.getLogger(__name__)

_AWAY_S = 3600.0  # delay before an unreachable registry is asked again
_INDEX_WORDS = ("index", "manifest.list")  # found in the media types of multi-platform images


class Clocks(Protocol):
    """The clocks: unix seconds, and seconds since local midnight."""

    def wall(self) -> float: ...
    def second_of_day(self) -> int: ...


class SystemClocks:
    """The machine's clock and time zone."""

    def wall(self) -> float:
        return time.time()

    def second_of_day(self) -> int:
        local = time.localtime()
        return local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTag:
    """What is known about a tag. `checked_at` is None if it comes only from the file on flash."""

    answer: Answer
    first_seen: float
    checked_at: float | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    state: UpdateState
    why: str
    at: float
    retry_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _ImageInUse:
    """The image of one container: its image id, and the reference in its section."""

    key: str
    reference: str
    image_id: str


@dataclass(slots=True, kw_only=True)
class UpdateChecks:
    """Runs and remembers checks. `memory` and `run_file`: the two files. `spread`, 0 to 1: this agent's position in the
    time window.

    `make_client` returns a client for one check; it asks the engine how dockerd reaches registries. `wake` is called
    after a check, in any thread. Methods may be called from several threads.
    """

    engine: Engine
    records: Records
    memory: Path
    run_file: Path
    spread: float
    make_client: Callable[[Engine, Desired], RegistryClient]
    begin_thread: Callable[[Callable[[], None]], None]
    wake: Callable[[], None] = lambda: None
    time: Clocks = field(default_factory=SystemClocks)
    last: float | None = None  # time of the last full check, unix seconds
    _limits: dict[str, int] = field(default_factory=dict)  # registry -> remaining pulls
    _limited: dict[str, float] = field(default_factory=dict)  # registry -> unix seconds
    _known: dict[str, KnownTag] = field(default_factory=dict)  # by reference
    _failures: dict[str, _Failure] = field(default_factory=dict)
    _images: dict[str, RunningImage | None] = field(default_factory=dict)  # by image id
    # what the file holds, so that the flash is written only for news
    _written: dict[str, Any] = field(default_factory=dict)
    _under_way: Future[None] | None = None  # the check in progress: who asks meanwhile gets its result
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.time.wall()
        self._read()

    def known(self, reference: str) -> KnownTag | None:
        """The registry's last answer about a tag, None if there is none."""
        with self._lock:
            return self._known.get(reference)

    def learn_size(self, reference: str, size: int) -> None:
        """Notes the download size of a reference, in bytes."""
        with self._lock:
            found = self._known.get(reference)
            if found is not None:
                self._known[reference] = replace(found, size=size)

    def pulled(self, reference: str, image_id: str) -> None:
        """Notes that the registry gave this image for a tag, which may be newer than its last answer to a check."""
        with self._lock:
            known = self._known.get(reference)
            self._images.pop(image_id, None)  # it may have gained a digest
        if known is None:
            return
        try:
            verdict = compare(reference, known.answer, self._image(image_id))
        except EngineError:
            return  # the next check tells
        if verdict.state is not UpdateState.AVAILABLE:
            return
        with self._lock:
            self._failures.pop(reference, None)
            self._known.pop(reference, None)
            # with several digests it is not known which one the tag has now: then it counts as not checked
            if len(verdict.running) == 1:
                answer = Answer(digest=verdict.running[0], is_index=known.answer.is_index)
                now = self.time.wall()
                self._known[reference] = KnownTag(answer=answer, first_seen=now, checked_at=now)
        if reference in self._written:
            tags = {name: item for name, item in self._written.items() if name != reference}
            self._write(self.memory, {"version": 1, "tags": tags})
            self._written = tags

    def results(self, desired: Desired) -> dict[str, CheckResult]:
        """The state of each container's image, by key. Asks the engine about images that are not known yet.

        Raises EngineError.
        """
        return {look.key: self._result(look) for look in self._looks(desired)}

    def offered(self, desired: Desired) -> dict[str, Available]:
        """Key -> the image that its tag names in the registry, if the container does not run it. Raises EngineError."""
        return {
            key: result.available
            for key, result in self.results(desired).items()
            if result.available is not None
        }

    def answer(self, desired: Desired) -> dict[str, Any]:
        """The answer of `GET /v1/updates`; times are unix seconds, sizes bytes. Raises EngineError."""
        results = self.results(desired)
        limited = self.limited_until()
        # copied, because a check in another thread may add entries
        with self._lock:
            limits = dict(self._limits)
        return {
            "checked_at": self.last,
            "checking": self._under_way is not None,
            "containers": [
                {"key": key, "section": c.section, "name": c.name, **result_as_json(results[key])}
                for c in desired.containers
                if (key := Key("container", c.section)) in results
            ],
            "registries": [
                {
                    "registry": name,
                    "pulls_left": limits.get(name),
                    "limited_until": limited.get(name),
                }
                # listed if its pulls are known, or if it limits requests
                for name in sorted(limits.keys() | limited.keys())
            ],
        }

    def limited_until(self) -> dict[str, float]:
        """Registries that limit requests -> until when (unix seconds)."""
        now = self.time.wall()
        with self._lock:
            return {name: until for name, until in self._limited.items() if until > now}

    def tick(self, desired: Desired) -> None:
        """Begins a check if one is due. Call it about every minute."""
        now, settings = self.time.wall(), desired.agent
        if self._under_way is not None or not clock_is_set(now):
            return
        wait_s = next_check_s(
            settings.update_check,
            settings.update_check_window,
            last=self.last,
            started=self._started,
            now=now,
            second_of_day=self.time.second_of_day(),
            spread=self.spread,
        )
        if wait_s == 0:
            self.check(desired)
            return
        window = settings.update_check_window
        if wait_s is not None and (window is None or not window.wait_s(self.time.second_of_day())):
            # only tags whose registry was unreachable or limited requests; the others have been answered
            with self._lock:
                due = {r for r, f in self._failures.items() if f.retry_at is not None and f.retry_at <= now}
            if due := due & {look.reference for look in self._looks(desired)}:
                self._begin(desired, due)

    def check(self, desired: Desired, keys: Collection[str] = ()) -> Future[None]:
        """Asks the registries for these containers (`container:NAME`), or for all without `keys`. If a check is in
        progress, returns that one.

        Raises ConfigError for an undeclared container, ClockNotSetError.
        """
        if not clock_is_set(self.time.wall()):
            raise ClockNotSetError("the clock is not set: no registry's certificate can be checked yet")
        declared = {Key("container", c.section): c for c in desired.containers}
        if unknown := sorted(set(keys) - declared.keys()):
            raise ConfigError(f"there is no section {unknown[0].partition(':')[2]!r}")
        looks = [look for look in self._looks(desired) if not keys or look.key in keys]

        def note_check() -> None:
            self.last = self.time.wall()
            self._write(self.run_file, {"checked_at": self.last})

        # only a full check postpones the next one
        done = note_check if not keys else _nothing
        return self._begin(desired, {look.reference for look in looks}, done=done)

    def _begin(
        self, desired: Desired, references: set[str], *, done: Callable[[], None] = _nothing
    ) -> Future[None]:
        with self._lock:
            if self._under_way is not None:
                return self._under_way
            future = self._under_way = Future()
        self.begin_thread(lambda: self._run(desired, references, done, future))
        return future

    def _run(
        self, desired: Desired, references: set[str], done: Callable[[], None], future: Future[None]
    ) -> None:
        try:
            try:
                self._check(desired, references)
            finally:
                done()  # a check that failed is not repeated immediately
            self._remember(desired)
        except UcidockdError as exc:
            logger.warning("update check: %s", exc)
            self._end(future, exc)
        except Exception as exc:
            logger.exception("update check failed")
            self._end(future, InternalError(f"internal error ({type(exc).__name__}); see the log"))
        else:
            self._end(future, None)

    def _end(self, future: Future[None], error: Exception | None) -> None:
        with self._lock:
            self._under_way = None
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        self.wake()

    def _check(self, desired: Desired, references: Iterable[str]) -> None:
        """One request per tag, and no further requests to a registry that is unreachable or limits requests. Raises
        EngineError."""
        looks = self._looks(desired)
        with self._lock:
            self._images.clear()  # images may have gained or lost digests
        away: dict[str, str] = {}
        with self.make_client(self.engine, desired) as client:
            for reference in sorted(references):
                name = parse_image(reference)
                if name.digest:
                    continue  # a digest always names the same image
                until = self.limited_until().get(name.registry)
                if until is not None:
                    self._fail(reference, UpdateState.LIMITED, f"{name.registry} limits requests", until)
                elif name.registry in away:
                    self._fail_away(reference, away[name.registry])
                else:
                    used = {look.image_id for look in looks if look.reference == reference}
                    self._ask(client, reference, name, used, away)
            with self._lock:
                self._limits |= {name: limit.remaining for name, limit in client.limits.items()}

    def _ask(
        self,
        client: RegistryClient,
        reference: str,
        name: ImageName,
        image_ids: Iterable[str],
        away: dict[str, str],
    ) -> None:
        from agent.engine.registry import RateLimitedError, RegistryAwayError, RegistryError

        known = self.known(reference)
        try:
            answer = client.ask(name)
            # the members of an index belong to its digest, so they are requested only once
            if known is not None and known.answer.digest == answer.digest:
                answer = known.answer
            running = [image for image in map(self._image, image_ids) if image is not None]
            if any(needs_members(answer, image) for image in running):
                answer = replace(answer, members=client.members(name, answer.digest))
        except RateLimitedError as exc:
            with self._lock:
                self._limited[name.registry] = exc.until
            self._fail(reference, UpdateState.LIMITED, str(exc), exc.until)
            return
        except RegistryError as exc:
            if isinstance(exc, RegistryAwayError):
                away[name.registry] = str(exc)
                self._fail_away(reference, str(exc))
            else:
                self._fail(reference, UpdateState.FAILED, str(exc))
            return
        now = self.time.wall()
        same = known if known is not None and known.answer.digest == answer.digest else None
        with self._lock:
            self._failures.pop(reference, None)
            self._known[reference] = KnownTag(
                answer=answer,
                first_seen=same.first_seen if same else now,
                checked_at=now,
                size=same.size if same else None,
            )
            # the next request would only be refused
            limit = client.limits.get(name.registry)
            if limit is not None and limit.remaining <= 0:
                self._limited[name.registry] = now + limit.window_s

    def _fail_away(self, reference: str, why: str) -> None:
        """Notes that a registry is unreachable; it is asked again later."""
        self._fail(reference, UpdateState.FAILED, why, self.time.wall() + _AWAY_S)

    def _fail(self, reference: str, state: UpdateState, why: str, retry_at: float | None = None) -> None:
        with self._lock:
            self._failures[reference] = _Failure(state=state, why=why, at=self.time.wall(), retry_at=retry_at)

    def _looks(self, desired: Desired) -> list[_ImageInUse]:
        """The images to compare: of existing containers whose images may be pulled."""
        records = {r.section: r for r in self.records.records() if r.kind == "container" and not r.swap}
        return [
            _ImageInUse(key=Key("container", c.section), reference=c.spec.image, image_id=record.image_id)
            for c in desired.containers
            if c.policy.pull is not Pull.NEVER and c.policy.update is not Update.OFF
            if (record := records.get(c.section)) is not None and record.image_id
        ]

    def _result(self, look: _ImageInUse) -> CheckResult:
        known = self.known(look.reference)
        with self._lock:
            failure = self._failures.get(look.reference)
        # a digest always names the same image: nothing to ask
        if parse_image(look.reference).digest:
            why = "its section names one digest"
            return CheckResult(reference=look.reference, state=UpdateState.CURRENT, why=why)
        result = CheckResult(
            reference=look.reference,
            state=UpdateState.UNKNOWN,
            why=failure.why if failure is not None else "not checked yet",
            retry_at=failure.retry_at if failure is not None else None,
        )
        if known is None:
            if failure is None:
                return result
            return replace(result, state=failure.state, checked_at=failure.at)
        verdict = compare(look.reference, known.answer, self._image(look.image_id))
        result = replace(result, state=verdict.state, checked_at=known.checked_at)
        # an update that was found remains one, whatever failed since
        if verdict.state is UpdateState.AVAILABLE:
            available = Available(
                reference=look.reference,
                digest=known.answer.digest,
                running=verdict.running,
                first_seen=known.first_seen,
                size=known.size,
            )
            return replace(result, available=available, why=failure.why if failure is not None else "")
        if failure is not None:
            return replace(result, state=failure.state)
        return replace(result, why=verdict.why)

    def _image(self, image_id: str) -> RunningImage | None:
        """The image, None if the engine does not have it. Raises EngineError."""
        with self._lock:
            if image_id in self._images:
                return self._images[image_id]
        # asked without holding the lock: the engine may take seconds, and status is read meanwhile
        body = self.engine.inspect_image(image_id)
        found = None if body is None else _running(image_id, body)
        with self._lock:
            self._images[image_id] = found
        return found

    # the two files

    def _read(self) -> None:
        """Reads both files. Unreadable content is dropped: a newer image then counts as first seen at the next check."""
        try:
            self._written = json_object(self.memory.read_bytes())["tags"]
            for name, item in self._written.items():
                self._known[str(name)] = KnownTag(
                    answer=Answer(
                        digest=str(item["digest"]),
                        is_index=bool(item["index"]),
                        members=tuple(map(str, item["members"])),
                    ),
                    first_seen=float(item["first_seen"]),
                    size=None if item["size"] is None else int(item["size"]),
                )
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            logger.warning("%s is not readable, the ages of newer images begin again: %s", self.memory, exc)
            # all or nothing: a partly valid file may have been truncated, and too short an age only delays an
            # automatic update
            self._written, self._known = {}, {}
        try:
            self.last = float(json_object(self.run_file.read_bytes())["checked_at"])
        except (OSError, ValueError, KeyError, TypeError):
            self.last = None

    def _remember(self, desired: Desired) -> None:
        """Stores the newer images, if they changed."""
        # only the age of newer images must outlive the agent; everything else is requested again
        references = {available.reference for available in self.offered(desired).values()}
        with self._lock:
            tags = {
                name: {
                    "digest": known.answer.digest,
                    "index": known.answer.is_index,
                    "members": list(known.answer.members),
                    "first_seen": round(known.first_seen),
                    "size": known.size,
                }
                for name, known in self._known.items()
                if name in references
            }
        if tags != self._written:
            self._write(self.memory, {"version": 1, "tags": tags})
            self._written = tags

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(path, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n", mode=0o600)
        except OSError as exc:
            logger.warning("%s cannot be written: %s", path, exc.strerror)


def _running(image_id: str, body: Mapping[str, Any]) -> RunningImage:
    """From GET /images/{name}/json. Only the containerd store reports what the digests refer to (`Descriptor`, API
    1.48)."""
    media_type = str((body.get("Descriptor") or {}).get("mediaType") or "")
    return RunningImage(
        image_id=image_id,
        digests=tuple(str(each) for each in body.get("RepoDigests") or ()),
        is_index=any(word in media_type for word in _INDEX_WORDS) if media_type else None,
    )
