# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes sure that images are present: pulls them by policy, with the matching registry login, before anything is
stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from agent.apply.ports import Engine, answering
from agent.apply.worker_pool import SkippedError
from agent.errors import NO_SPACE, EngineError, EngineUnreachableError, NoSpaceError, Reason
from agent.model.identity import spec_hash
from agent.model.observed import Record
from agent.model.resources import Container, Pull, RegistryAuth
from agent.model.secrets import redactor
from agent.plan.container.image import digest_of, named, split_word
from agent.plan.draft import desired_spec
from agent.status.progress import Progress

logger = logging.getLogger(__name__)

# Progress of a pull, for status: `status/progress` adds the layers up, this class decides when to report.


REPORT_S = 0.5  # seconds between two reports: each is a change on the status board
# An engine waits for a registry indefinitely. With the containerd store it reports nothing for the first MiB of a
# layer, and pulls three layers at once: 300 s mean 10 KiB/s.
STALL_S = 300.0


class PullProgress:
    """Receives the steps of a pull and calls `report(percent)` when the percentage has grown, at most twice a second.
    `clock`: monotonic seconds."""

    def __init__(self, report: Callable[[int], None], clock: Callable[[], float]) -> None:
        self._report, self._clock = report, clock
        self._progress = Progress(unpacks=True)
        self._moved_at, self._work = clock(), self._progress.work
        self._reported = -1  # the last percentage
        self._reported_at = float("-inf")

    def step(self, step: dict[str, Any]) -> None:
        """Takes one JSON object of the stream of POST /images/create."""
        self._progress.feed(step)
        percent, now = self._progress.percent, self._clock()
        if self._work != (work := self._progress.work):
            self._moved_at, self._work = now, work
        if percent is not None and percent > self._reported and now - self._reported_at >= REPORT_S:
            self._reported, self._reported_at = percent, now
            self._report(percent)

    def begin(self) -> None:
        """Starts the timer when the pull begins."""
        self._moved_at = self._clock()

    def is_stalled(self) -> bool:
        """Whether there was no progress for STALL_S, whatever messages the engine sent meanwhile."""
        return self._clock() - self._moved_at > STALL_S


_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/"})


# context manager around a pull; takes the image, the platform and a function to call while it waits; raises
# NoSpaceError
MakeRoom = Callable[[str, str, Callable[[], None]], AbstractContextManager[None]]


@dataclass(slots=True, kw_only=True)
class Images:
    """Makes sure that a container's image is present."""

    engine: Engine
    auths: Sequence[RegistryAuth] = ()
    stopping: Callable[[], bool] = lambda: False
    wanted: Callable[[Container], bool] = lambda container: True  # whether the section still names this image
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    pulling: Callable[[Container, int], None] = lambda container, percent: None
    # called with the image id ("" if there is none) and the reason for status
    pulled: Callable[[Container, str, Reason], None] = lambda container, image_id, reason: None
    clock: Callable[[], float] = time.monotonic
    room: MakeRoom = lambda image, platform, check: nullcontext()
    # returns the digest; raises EngineError if the registry has no such image, or if it would not fit even with so
    # many bytes freed
    foreseen: Callable[[str, str, int], str] = lambda image, platform, frees: ""
    _found: dict[str, str] = field(default_factory=dict)  # name -> id, of images already found in this pass
    # image id -> RepoDigests, as last inspected in this pass
    _digests: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def ensure(
        self,
        container: Container,
        *,
        keep: str = "",
        digest: str = "",
        fresh: bool = False,
        running: str = "",
        only: bool = False,
    ) -> str:
        """The local image id (`sha256:...`) to create the container from; see `create_from`.

        `keep`: the image to use while it is available, locally or from a registry by `digest`. Otherwise it is the
        image that the reference names, which is pulled first if `option pull` says so, or with `fresh`. `only`: no
        other image than `keep` will do. `running`: image id of the running container. With `fresh`, if the registry
        is unreachable, a local image other than this one is new enough.
        Raises EngineError naming the image; if a pull with `always` fails, a local image is used if there is one.
        SkippedError: the section names another image by now, so the pull was cancelled.
        """
        image, policy = container.spec.image, container.policy.pull
        if keep:
            found = self._kept(container, keep, digest)
            if found:
                return found
            if only:
                raise EngineError(
                    f"image {named(keep, '')} is no longer here, and no registry is known to have it: load it again, or name"
                    " another one in `option image`"
                )
        always = fresh or policy is Pull.ALWAYS
        # within a pass all containers get the same image for a reference, even if the tag moves meanwhile
        if not always and image in self._found:
            return self._found[image]
        local = self._local(container, image)
        if policy is Pull.NEVER and local is None:
            which = f"image {image}" + (f" for {container.spec.platform}" if container.spec.platform else "")
            raise EngineError(f"{which} is not there and `option pull never` forbids pulling it")
        if policy is not Pull.NEVER and (always or local is None):
            # with `fresh`, the running image does not replace the newer one that was requested
            spare = local is not None and not (fresh and local.get("Id") == running)
            local = self._pull(container, image, local if spare else None)
        self._found[image] = str((local or {})["Id"])
        return self._found[image]

    def digest(self, image_id: str, reference: str) -> str:
        """The digest by which the image can be pulled again after it was removed; "" if the engine knows none."""
        if image_id not in self._digests:
            try:
                self._look(image_id)
            except EngineUnreachableError:
                raise
            # the digest is for a later way back: not knowing it must not stop the operation at hand
            except EngineError as exc:
                logger.info("%s", exc)
        return digest_of(image_id, reference, {image_id: self._digests.get(image_id, ())})

    def _look(self, reference: str) -> dict[str, Any] | None:
        image = look_at_image(self.engine, reference)
        if image is not None:
            self._digests[str(image["Id"])] = tuple(image.get("RepoDigests") or ())
        return image

    def foresee(self, container: Container, image: str, *, frees: int) -> str:
        """The digest that a pull would get, "" if unknown. `frees`: bytes that will be freed before the pull.

        Raises EngineError if the pull cannot succeed.
        """
        if container.policy.pull is Pull.NEVER:
            raise EngineError(f"`option pull never` forbids pulling {image}")
        return self.foreseen(image, container.spec.platform or "", frees)

    def _kept(self, container: Container, keep: str, digest: str) -> str:
        """The id of the image to keep; "" if it is gone, so that the reference decides. Raises EngineError if a pull by
        digest fails."""
        local = self._local(container, keep)
        if local is None and digest:
            if container.policy.pull is Pull.NEVER:
                raise EngineError(f"image {digest} is not there and `option pull never` forbids pulling it")
            local = self._pull(container, digest, None)
        return str(local["Id"]) if local is not None else ""

    def _local(self, container: Container, reference: str) -> dict[str, Any] | None:
        # The local image if it is for the container's platform; "" accepts any platform. An engine may store only one
        # of several platforms under a name.
        platform = container.spec.platform or ""
        image = self._look(reference)
        if image is None or not platform:
            return image
        system, architecture, *variant = platform.split("/")
        same = (image.get("Os"), image.get("Architecture")) == (system, architecture)
        return image if same and variant in ([], [image.get("Variant") or ""]) else None

    def _pull(self, container: Container, image: str, local: dict[str, object] | None) -> dict[str, object]:
        """`local`: the image to use if the pull fails."""
        progress = PullProgress(lambda percent: self.pulling(container, percent), self.clock)

        def check() -> None:
            if self.stopping():
                raise SkippedError("the pull was cancelled: ucidockd stops", retryable=True)
            self._check_wanted(container)
            if progress.is_stalled():
                text = f"cannot pull {image}: no progress for {STALL_S:.0f} s, cancelled"
                raise EngineError(text, retryable=True)

        auth, platform = auth_for(image, self.auths), container.spec.platform or ""
        try:
            with self.waiting(), self.room(image, platform, check):
                progress.begin()  # the wait for space or for other pulls does not count
                with answering(self.engine):
                    self.engine.pull(image, auth, progress.step, check, platform=platform)
        except SkippedError:
            raise
        except EngineError as exc:
            # a registry may repeat the login in its error, and the engine passes that on
            if auth is not None:
                exc.args = tuple(map(redactor(auth.secrets()), map(str, exc.args)))
            full = isinstance(exc, NoSpaceError) or NO_SPACE in str(exc)
            reason: Reason = "NoSpace" if full else "PullFailed"
            self._show_end(container, image, local, reason)
            if local is not None:
                logger.warning("%s: the image that is here is used", exc)
                return local
            raise
        pulled = self._look(image)
        if pulled is None:
            raise EngineError(f"image {image} was pulled but is not there", retryable=True)
        self._show_end(container, image, pulled, "Present")
        self._check_wanted(container)
        return pulled

    def _show_end(
        self, container: Container, image: str, found: dict[str, object] | None, reason: Reason
    ) -> None:
        if image == container.spec.image:  # a pull by digest says nothing about the tag
            self.pulled(container, str(found["Id"]) if found is not None else "", reason)

    def _check_wanted(self, container: Container) -> None:
        if not self.wanted(container):
            raise SkippedError(f"{container.spec.image} is no longer needed", retryable=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHistory:
    """The history of a container's images that its record stores. `keep`: how many good images to remember; `pin`: the
    container is being taken back to an earlier image."""

    images: Images
    keep: int = 1
    pin: bool = False

    def after(self, old: Record | None, container: Container, image_id: str) -> dict[str, Any]:
        """Fields for the record of a container created from `image_id` that follows `old`."""
        digest = self.images.digest(image_id, container.spec.image)
        if old is None:
            return {"digest": digest}
        same_section = old.spec_hash == spec_hash(desired_spec(container))
        if old.image_id == image_id:
            return {
                "digest": digest or old.digest,
                "previous": old.previous[: self.keep],
                "pinned": self.pin or (old.pinned and same_section),
                "saved": old.saved,
                "newer": old.newer,
                "newer_at": old.newer_at,
            }
        previous = [word for word in old.previous if split_word(word)[0] != image_id]
        # a rollback leaves an image that was not good: do not offer it for another rollback
        if old.image_id and not self.pin:
            known = old.digest or self.images.digest(old.image_id, str(old.spec.get("image") or ""))
            previous.insert(0, f"{old.image_id}={known}")
        back = next((word for word in old.previous if split_word(word)[0] == image_id), "")
        return {
            "digest": digest or split_word(back)[1],
            "previous": tuple(previous[: self.keep]),
            "pinned": self.pin,
            "saved": old.saved if self.pin else (),
        }


def create_from(
    engine: Engine, name: str, body: dict[str, Any], *, image_id: str, platform: str = ""
) -> tuple[str, dict[str, Any]]:
    """Creates a container from the image `image_id`, under the reference in `body`; returns its id and the body of GET
    /containers/{id}/json.

    `docker ps` and updaters read the reference (`Config.Image`). It may move or vanish between our inspect of the
    image and this call, so the image id is checked afterwards. If it differs, the container is created again, by id.
    Raises EngineError; an error with a status means that no container was left.
    """
    # do not use the id from the start: `docker ps` and updaters would show it instead of the image's name
    by_id = {**body, "Image": image_id}
    try:
        object_id = engine.create_container(name, body, platform=platform)
    except EngineError as exc:
        # the image exists, but has lost its name (`docker rmi`, or a moved tag): create the container by id
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
    """Removes the status from an error: the container exists, so its record must be kept."""
    return exc if not exc.status else EngineError(str(exc), retryable=exc.retryable)


def look_at_image(engine: Engine, reference: str) -> dict[str, Any] | None:
    """GET /images/{name}/json, None if there is no such image. Raises EngineError naming the image."""
    try:
        return engine.inspect_image(reference)
    except EngineUnreachableError:
        raise
    except EngineError as exc:
        text = f"cannot look at image {reference}: {exc}"
        raise EngineError(text, status=exc.status, retryable=exc.retryable) from exc


def registry_of(image: str) -> str:
    """The registry host of an image reference, `docker.io` for short names (distribution/reference grammar)."""
    first, slash, _ = image.partition("/")
    explicit = slash and ("." in first or ":" in first or first == "localhost")
    return first if explicit else "docker.io"


def auth_for(image: str, auths: Sequence[RegistryAuth]) -> RegistryAuth | None:
    """The first login whose server is exactly the image's registry. Suffixes never match, so that no login reaches
    another server."""
    wanted = registry_of(image)
    for auth in auths:
        server = auth.server.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if server == wanted or (wanted == "docker.io" and auth.server in _HUB | {server} and server in _HUB):
            return auth
    return None
