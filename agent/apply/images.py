# SPDX-License-Identifier: GPL-2.0-or-later
"""Images: pulled by policy, with the registry login that fits, before anything is stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from agent.apply.ports import Engine
from agent.apply.worker_pool import SkippedError
from agent.errors import EngineError, EngineUnreachableError, NoSpaceError, Reason
from agent.model.resources import Container, Pull, RegistryAuth
from agent.status.progress import Progress

logger = logging.getLogger(__name__)

# How far a pull is, for status: `status/progress` adds up, this says when there is something to tell.


REPORT_S = 0.5
# An engine waits for a registry for ever. With the containerd store it says nothing of a layer's first MiB, and three
# layers come at once: 300 s are 10 KiB/s.
STALL_S = 300.0


class PullProgress:
    """Takes steps, calls `report(percent)` when it has grown, at most twice a second. `clock`: monotonic seconds."""

    def __init__(self, report: Callable[[int], None], clock: Callable[[], float]) -> None:
        self._report, self._clock = report, clock
        self._progress = Progress(unpacks=True)
        self._moved_at, self._work = clock(), self._progress.work
        self._reported = -1
        self._reported_at = float("-inf")

    def step(self, step: dict[str, Any]) -> None:
        """One JSON object of the stream of POST /images/create."""
        self._progress.feed(step)
        percent, now = self._progress.percent, self._clock()
        if self._work != (work := self._progress.work):
            self._moved_at, self._work = now, work
        if percent is not None and percent > self._reported and now - self._reported_at >= REPORT_S:
            self._reported, self._reported_at = percent, now
            self._report(percent)

    def begin(self) -> None:
        """The pull begins now."""
        self._moved_at = self._clock()

    def is_stalled(self) -> bool:
        """Whether nothing came forward for STALL_S, whatever the engine said meanwhile."""
        return self._clock() - self._moved_at > STALL_S


_NO_SPACE = "no space left on device"  # strerror(ENOSPC), which the engine passes on
_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"})


# around a pull, by image, platform and what is called while it waits; raises NoSpaceError
MakeRoom = Callable[[str, str, Callable[[], None]], AbstractContextManager[None]]


@dataclass(slots=True, kw_only=True)
class Images:
    """Makes sure that a container's image is there."""

    engine: Engine
    auths: Sequence[RegistryAuth] = ()
    stopping: Callable[[], bool] = lambda: False
    wanted: Callable[[Container], bool] = lambda container: True  # whether its section still names that image
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    pulling: Callable[[Container, int], None] = lambda container, percent: None
    # with the image id, "" where there is none, and the reason for status
    pulled: Callable[[Container, str, Reason], None] = lambda container, image_id, reason: None
    clock: Callable[[], float] = time.monotonic
    room: MakeRoom = lambda image, platform, check: nullcontext()
    _found: dict[str, str] = field(default_factory=dict)  # name -> id, of those that were there in this pass

    def ensure(self, container: Container, *, known: str = "") -> str:
        """The local image id (`sha256:...`), pulled first where `option pull` says so; see `create_from`.

        `known`: the id that this reference had when the section was last applied. Where the reference is no longer
        local but that image is, it is used without a pull: a prune of names is not a wish for another image, and the
        router may be offline.
        Raises EngineError naming the image; a failed pull with `always` uses the local image when there is one.
        SkippedError: its section names another image by now, a pull under way is cancelled.
        """
        image, platform = container.spec.image, container.spec.platform or ""
        if container.policy.pull is not Pull.ALWAYS and image in self._found:
            return self._found[image]
        local = _if_of(platform, look_at_image(self.engine, image))
        if local is None and known:
            local = _if_of(platform, look_at_image(self.engine, known))
            if local is not None and container.policy.pull is not Pull.ALWAYS:
                logger.warning("%s has no local name any more: its image %s is used", image, short_id(known))
        if container.policy.pull is Pull.NEVER and local is None:
            which = f"image {image}" + (f" for {platform}" if platform else "")
            raise EngineError(f"{which} is not there and `option pull never` forbids to pull it")
        if container.policy.pull is Pull.ALWAYS or local is None:
            local = self._pull(container, local)
        self._found[image] = str(local["Id"])
        return self._found[image]

    def _pull(self, container: Container, local: dict[str, object] | None) -> dict[str, object]:
        image = container.spec.image
        progress = PullProgress(lambda percent: self.pulling(container, percent), self.clock)

        def check() -> None:
            if self.stopping():
                raise SkippedError("the pull was cancelled: ucidockd stops", retryable=True)
            self._check_wanted(container)
            if progress.is_stalled():
                text = f"cannot pull {image}: no progress for {STALL_S:.0f} s, cancelled"
                raise EngineError(text, retryable=True)

        try:
            with self.waiting():
                auth, platform = auth_for(image, self.auths), container.spec.platform or ""
                with self.room(image, platform, check):
                    progress.begin()  # others may have been waited for
                    self.engine.pull(image, auth, progress.step, check, platform=platform)
        except SkippedError:
            raise
        except EngineError as exc:
            full = isinstance(exc, NoSpaceError) or _NO_SPACE in str(exc)
            reason: Reason = "NoSpace" if full else "PullFailed"
            self.pulled(container, str(local["Id"]) if local is not None else "", reason)
            if local is not None:
                logger.warning("%s: the image that is here is used", exc)
                return local
            raise
        pulled = look_at_image(self.engine, image)
        if pulled is None:
            raise EngineError(f"image {image} was pulled but is not there", retryable=True)
        self.pulled(container, str(pulled["Id"]), "Present")
        self._check_wanted(container)
        return pulled

    def _check_wanted(self, container: Container) -> None:
        if not self.wanted(container):
            raise SkippedError(f"{container.spec.image} is not wanted any more", retryable=True)


def create_from(
    engine: Engine, name: str, body: dict[str, Any], *, image_id: str, platform: str = ""
) -> tuple[str, dict[str, Any]]:
    """Creates a container from the image `image_id` under the reference that `body` gives; returns its id and what
    GET /containers/{id}/json then shows.

    The reference is what `docker ps` and updaters read (`Config.Image`). A reference can move or vanish between our
    look at the image and this call, so the id is verified afterwards; where it is another one, the container is
    created again, by the id. Raises EngineError; one with a status means that nothing was left.
    """
    by_id = {**body, "Image": image_id}
    try:
        object_id = engine.create_container(name, body, platform=platform)
    except EngineError as exc:
        if exc.status != 404 or body["Image"] == image_id:
            raise
        return _looked_at(engine, engine.create_container(name, by_id, platform=platform))
    try:
        seen = engine.inspect_container(object_id)
        if seen is None or seen.image_id == image_id:
            return object_id, (seen and seen.inspect) or {}
        logger.info("%s: %s moved while it was created, it is created again", name, body["Image"])
        engine.remove_container(object_id, volumes=True, force=True)
    except EngineError as exc:
        raise _left_behind(exc) from exc
    return _looked_at(engine, engine.create_container(name, by_id, platform=platform))


def _looked_at(engine: Engine, object_id: str) -> tuple[str, dict[str, Any]]:
    try:
        seen = engine.inspect_container(object_id)
    except EngineError as exc:
        raise _left_behind(exc) from exc
    return object_id, (seen and seen.inspect) or {}


def _left_behind(exc: EngineError) -> EngineError:
    """Without a status: the container is there, so its record must not go."""
    return exc if not exc.status else EngineError(str(exc), retryable=exc.retryable)


def short_id(image_id: str) -> str:
    """As `docker images` shows it."""
    return image_id.removeprefix("sha256:")[:12]


def look_at_image(engine: Engine, reference: str) -> dict[str, Any] | None:
    """GET /images/{name}/json, None where it is not there. Raises EngineError that names the image."""
    try:
        return engine.inspect_image(reference)
    except EngineUnreachableError:
        raise
    except EngineError as exc:
        text = f"cannot look at image {reference}: {exc}"
        raise EngineError(text, status=exc.status, retryable=exc.retryable) from exc


def _if_of(platform: str, image: dict[str, Any] | None) -> dict[str, Any] | None:
    """The image, if it is one for that platform; any is for "". An engine's store may hold one of several under a name."""
    if image is None or not platform:
        return image
    system, architecture, *variant = platform.split("/")
    same = (image.get("Os"), image.get("Architecture")) == (system, architecture)
    return image if same and variant in ([], [image.get("Variant") or ""]) else None


def registry_of(image: str) -> str:
    """The registry host of an image reference, `docker.io` for short names (distribution/reference grammar)."""
    first, slash, _ = image.partition("/")
    explicit = slash and ("." in first or ":" in first or first == "localhost")
    return first if explicit else "docker.io"


def auth_for(image: str, auths: Sequence[RegistryAuth]) -> RegistryAuth | None:
    """The first login whose server is exactly the image's registry: never by suffix, lest it goes elsewhere."""
    wanted = registry_of(image)
    for auth in auths:
        server = auth.server.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if server == wanted or (wanted == "docker.io" and auth.server in _HUB | {server} and server in _HUB):
            return auth
    return None
