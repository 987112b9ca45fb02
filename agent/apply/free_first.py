# SPDX-License-Identifier: GPL-2.0-or-later
"""`strategy free-first`: updates a container when the disk cannot hold two images. The old container and its image are
removed before the pull.

The way back is to pull the old digest again. The record stores the progress (`Record.freed`), so that any pass can
continue after a kill, a reboot, or hours without the registry: forward until the new container has passed its gate,
or, once the new one has failed, back to the old image. In both directions the container's settings come from the
present section.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from agent.apply.images import ImageHistory, Images, look_at_image
from agent.apply.ports import Engine, Records, answering
from agent.apply.steps import (
    ORDER,
    Hooks,
    Step,
    UndecidedError,
    failed_fields,
    go_back,
    prove,
)
from agent.apply.worker_pool import SkippedError
from agent.errors import EngineError, EngineUnreachableError
from agent.model.observed import Record
from agent.model.resources import Container, Strategy
from agent.plan import operations as ops
from agent.plan.container.image import Freed, split_word

logger = logging.getLogger(__name__)

# fields of a record about a failed attempt, which the next record has to keep
_FAILED = ("failed_hash", "failed_meaning", "failed_others", "failed_why", "failed_output", "failed_digest")
# fields that a container keeps when it is created again from the same image
_KEPT = ("digest", "previous", "pinned", "saved", "freed", *_FAILED[:4])


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeFirst:
    """One such replacement. `create(container, image_id, **fields of the record)`, `start`, `leave` and `waiting` are
    functions of the executor, as for a swap; `current` returns the present record."""

    engine: Engine
    records: Records
    images: Images
    history: ImageHistory
    hooks: Hooks
    current: Callable[[], Record]
    create: Callable[..., None]
    start: Callable[[], str]
    leave: Callable[[Container], None]
    waiting: Callable[[], AbstractContextManager[None]]

    def run(self, operation: ops.ReplaceContainer) -> None:
        """Begins or continues. Raises the error; then the old image is back, or the next pass tries again."""
        # The record takes precedence over the operation: an earlier pass, or an earlier agent, may have begun.
        container, record = operation.container, self.current()
        freed = Freed.of(record) or self._begin(operation, record)
        if freed is None:
            self.records.change(record.nonce, asked="", pinned=False)
            return
        failure: EngineError | None = None
        if not freed.goes_back:
            try:
                with answering(self.engine):
                    for step in ORDER[Strategy.FREE_FIRST]:
                        self._do(step, container, freed)
                self.records.change(self.current().nonce, freed=(), asked="")
                return
            # none of these is a failure of the new image; `freed` stays in the record, and the next pass continues
            # from there
            except (EngineUnreachableError, SkippedError, UndecidedError):
                raise
            except EngineError as exc:
                failure = exc
                logger.warning("%s: %s; going back to %s", container.name, exc, freed.digest)
        record = self.current()
        failed: dict[str, Any] = {name: getattr(record, name) for name in _FAILED}
        if failure is not None:
            tried = record.image_id if record.image_id != freed.image_id else ""
            failed = failed_fields(container, tried, failure, record, digest=record.digest if tried else "")
            if tried:  # from now on the new image is not tried again, whatever happens
                freed = replace(freed, goes_back=True)
                self.records.change(record.nonce, freed=freed.words, **failed)
        go_back(Strategy.FREE_FIRST, lambda step: self._undo(step, container, freed, failed))
        self.records.change(self.current().nonce, freed=(), asked="", **failed)
        if failure is not None:
            failure.rolled_back = True
            raise failure

    def _begin(self, operation: ops.ReplaceContainer, record: Record) -> Freed | None:
        """Checks that both the way forward and the way back exist, before anything is touched.

        Returns None if the registry has no other image.
        """
        container = operation.container
        # a tag cannot be the way back: by then it names the new image
        digest = record.digest or self.history.images.digest(
            record.image_id, str(record.spec.get("image") or "")
        )
        if not digest:
            raise EngineError(
                f"{container.name}: no registry is known to have its image, so that there is no way back;"
                " `strategy free-first` needs one: push the image, or use `strategy swap`"
            )
        old = look_at_image(self.engine, record.image_id) or {}
        wanted = operation.digest if operation.keep else container.spec.image
        # the registry must have the new image, and it must fit once the old one is removed
        new = self.images.foresee(container, wanted, frees=int(old.get("Size") or 0))
        if new and operation.only_image and digest.endswith(f"@{new}"):
            return None
        freed = Freed(
            image_id=record.image_id,
            digest=digest,
            reference=str(record.spec.get("image") or ""),
            keep=operation.keep,
            keep_digest=operation.digest,
            pin=operation.pin,
        )
        self.records.change(record.nonce, freed=freed.words, digest=digest)
        return freed

    def _do(self, step: Step, container: Container, freed: Freed) -> None:
        # Each step first checks on the engine whether it is already done, so a step may be repeated after a kill.
        record = self.current()
        seen = self.engine.inspect_container(record.object_id)
        is_old = record.image_id == freed.image_id
        match step:
            case Step.STOP:
                if is_old and seen is not None and seen.state == "running":
                    self.hooks.pre_stop(container, record.object_id)
                    self.engine.stop(record.object_id, container.spec.stop_timeout_s)
            case Step.SET_ASIDE:
                if is_old:
                    if seen is not None:  # the next container takes over its volumes
                        self.engine.remove_container(record.object_id, volumes=False, force=True)
                    self._remove_image(record.image_id)
            case Step.CREATE:
                if is_old:
                    self._create(container, record, freed)
                elif seen is None:
                    image_id = self.images.ensure(container, keep=record.image_id)
                    self.create(container, image_id, **{name: getattr(record, name) for name in _KEPT})
            case Step.PROVE:
                if container.policy.should_run:
                    prove(container, self.start, hooks=self.hooks, waiting=self.waiting, leave=self.leave)
            case Step.MOVE_DATA:
                raise AssertionError("a section that frees its image first has no data moved")

    def _create(self, container: Container, record: Record, freed: Freed) -> None:
        image_id = self.images.ensure(
            container,
            keep=freed.keep,
            digest=freed.keep_digest,
            fresh=not freed.keep,
            running=freed.image_id,
        )
        fields = replace(self.history, pin=freed.pin).after(record, container, image_id)
        if image_id == freed.image_id:  # the registry has no other image
            fields |= {"pinned": record.pinned}
        self.create(container, image_id, **fields, freed=freed.words)

    def _undo(self, step: Step, container: Container, freed: Freed, failed: dict[str, Any]) -> None:
        """Undoes a step. Raises EngineError if the old image cannot be pulled now; a later pass retries. `failed`:
        record fields."""
        record = self.current()
        seen = self.engine.inspect_container(record.object_id)
        is_old = record.image_id == freed.image_id
        match step:
            case Step.CREATE:
                if not is_old:
                    if seen is not None:
                        self.engine.remove_container(record.object_id, volumes=False, force=True)
                    self._remove_image(record.image_id)
                elif seen is None:
                    # an image was pulled, but no container could be created from it: the old image needs its space
                    pulled = look_at_image(self.engine, freed.keep or container.spec.image)
                    if pulled is not None and pulled.get("Id") != freed.image_id:
                        self._remove_image(str(pulled["Id"]))
            case Step.SET_ASIDE:
                if not is_old or seen is None:  # otherwise it was never removed, or is already recreated
                    # only the old image will do: a newer one has just failed
                    image_id = self.images.ensure(
                        container, keep=freed.image_id, digest=freed.digest, only=True
                    )
                    spec = replace(container.spec, image=freed.reference or container.spec.image)
                    previous = tuple(w for w in record.previous if split_word(w)[0] != freed.image_id)
                    fields = {"digest": freed.digest, "previous": previous, "freed": freed.words, **failed}
                    self.create(replace(container, spec=spec), image_id, **fields)
            case Step.STOP:
                if container.policy.should_run:
                    self.start()
            case Step.PROVE | Step.MOVE_DATA:
                pass

    def _remove_image(self, image_id: str) -> None:
        """Removes an image with all its names. An image that another container uses stays and keeps its space."""
        if any(
            r.image_id == image_id and r.section != self.current().section for r in self.records.records()
        ):
            logger.warning("image %s stays: another section runs it", image_id[:19])
            return
        # by its names first: the engine refuses to remove an image by id while it has several names
        body = look_at_image(self.engine, image_id)
        for name in (*((body or {}).get("RepoTags") or ()), image_id):
            try:
                self.engine.remove_image(name)
            except EngineUnreachableError:
                raise
            except EngineError as exc:
                if exc.status != 409:
                    raise
                logger.warning("image %s stays: %s", image_id[:19], exc)
                return
