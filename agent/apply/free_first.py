# SPDX-License-Identifier: GPL-2.0-or-later
"""`strategy free-first`: a new image where the disk cannot hold two. The old container and its image go before the pull.

The way back is the old digest, pulled again. What is under way is in the record (`Record.freed`), so that any pass goes
on after a kill, a reboot, or hours without the registry: forward until the new container has passed its gate, or, once
that has failed, back to the old image. The container's settings are the section's of today in both directions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from agent.apply.failures import last_output, without_secrets
from agent.apply.hooks import Hooks
from agent.apply.images import History, Images, look_at_image
from agent.apply.ports import Clock, Engine, Records
from agent.apply.swap import GateError, SupersededError, gate
from agent.apply.worker_pool import SkippedError
from agent.errors import EngineError, EngineUnreachableError
from agent.model.observed import Record
from agent.model.resources import Container, RunState
from agent.plan import operations as ops
from agent.plan.container.image import Freed, failure_of, split_word

logger = logging.getLogger(__name__)

_WHY_LIMIT = 512  # characters of an error that a record keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeFirst:
    """One such replacement. `create(container, image_id, **fields of the record)`, `start`, `leave` and `waiting` are the
    executor's, as of a swap; `current` is the record as it is by now.
    """

    engine: Engine
    records: Records
    images: Images
    history: History
    hooks: Hooks
    current: Callable[[], Record]
    create: Callable[..., None]
    start: Callable[[], None]
    leave: Callable[[Container], None]
    waiting: Callable[[], AbstractContextManager[None]]
    clock: Clock

    def run(self, operation: ops.ReplaceContainer) -> None:
        """Begins, or goes on. Raises what went wrong: the old image is back then, or tried again by the next pass."""
        container, record = operation.container, self.current()
        freed = Freed.of(record) or self._begin(operation, record)
        if freed is None:
            self.records.change(record.nonce, asked="", pinned=False)
            return
        failure: EngineError | None = None
        if not freed.goes_back:
            try:
                self._forward(container, freed)
                return
            except (EngineUnreachableError, SkippedError, SupersededError):
                raise
            except EngineError as exc:
                failure = exc
                logger.warning("%s: %s; going back to %s", container.name, exc, freed.digest)
        self._back(container, freed, failure)
        if failure is not None:
            failure.rolled_back = True
            raise failure

    def _begin(self, operation: ops.ReplaceContainer, record: Record) -> Freed | None:
        """Nothing is touched before it is sure that there is a way forward, and one back.

        None: the registry has nothing else.
        """
        container = operation.container
        digest = record.digest or self.history.digest(record.image_id, str(record.spec.get("image") or ""))
        if not digest:
            raise EngineError(
                f"{container.name}: no registry is known to have its image, so that there is no way back;"
                " `strategy free-first` needs one: push the image, or use `strategy swap`"
            )
        old = look_at_image(self.engine, record.image_id) or {}
        wanted = operation.digest if operation.keep else container.spec.image
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

    def _forward(self, container: Container, freed: Freed) -> None:
        record = self.current()
        if record.image_id == freed.image_id:
            self._remove(container, record)
            image_id = self.images.ensure(
                container,
                keep=freed.keep,
                digest=freed.keep_digest,
                fresh=not freed.keep,
                running=freed.image_id,
            )
            fields = replace(self.history, pin=freed.pin).after(record, container, image_id)
            if image_id == freed.image_id:  # the registry has nothing else
                fields |= {"pinned": record.pinned}
            self.create(container, image_id, **fields, freed=freed.words)
        elif self.engine.inspect_container(record.object_id) is None:
            self.create(container, self.images.ensure(container, keep=record.image_id), **self._kept(record))
        if container.policy.state is RunState.RUNNING and container.policy.enabled:
            self._prove(container)
        self.records.change(self.current().nonce, freed=(), asked="")

    def _kept(self, record: Record) -> dict[str, Any]:
        names = (
            "digest",
            "previous",
            "pinned",
            "saved",
            "freed",
            "failed_hash",
            "failed_meaning",
            "failed_why",
        )
        return {name: getattr(record, name) for name in names}

    def _remove(self, container: Container, record: Record) -> None:
        """The container and its image; its volumes stay for the next one."""
        seen = self.engine.inspect_container(record.object_id)
        if seen is not None:
            if seen.state == "running":
                self.hooks.pre_stop(container, record.object_id)
                self.engine.stop(record.object_id, container.spec.stop_timeout_s)
            self.engine.remove_container(record.object_id, volumes=False, force=True)
        self._remove_image(record.image_id)

    def _remove_image(self, image_id: str) -> None:
        """With all its names. What another container uses stays, and takes its place on the disk."""
        if any(
            r.image_id == image_id and r.section != self.current().section for r in self.records.records()
        ):
            logger.warning("image %s stays: another section runs it", image_id[:19])
            return
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

    def _prove(self, container: Container) -> None:
        self.start()
        object_id = self.current().object_id
        try:
            self.hooks.post_start(container, object_id)
            with self.waiting():
                gate(self.engine, container, object_id, leave=self.leave, clock=self.clock)
        except GateError as exc:
            exc.output = exc.output or last_output(self.engine, object_id, container)
            raise

    def _back(self, container: Container, freed: Freed, failure: EngineError | None) -> None:
        """A container of the old image. Raises where that cannot be had now: then it is tried again."""
        record = self.current()
        failed: dict[str, Any] = {
            name: getattr(record, name)
            for name in ("failed_hash", "failed_meaning", "failed_why", "failed_output", "failed_digest")
        }
        if failure is not None:
            made = record.image_id if record.image_id != freed.image_id else ""
            failed = {
                **failure_of(container, made),
                "failed_why": str(without_secrets(failure, container))[:_WHY_LIMIT],
                "failed_output": failure.output,
                "failed_digest": record.digest if made else "",
            }
            if made:  # it was tried: whatever happens now, it is not tried again
                freed = replace(freed, goes_back=True)
                self.records.change(record.nonce, freed=freed.words, **failed)
        if record.image_id != freed.image_id:
            if self.engine.inspect_container(record.object_id) is not None:
                self.engine.remove_container(record.object_id, volumes=False, force=True)
            self._remove_image(record.image_id)
        elif self.engine.inspect_container(record.object_id) is not None:
            # the old one is made again already, or was never removed
            self._end(container, record, failed)
            return
        image_id = self.images.ensure(container, keep=freed.image_id, digest=freed.digest, only=True)
        before = replace(
            container, spec=replace(container.spec, image=freed.reference or container.spec.image)
        )
        previous = tuple(word for word in record.previous if split_word(word)[0] != freed.image_id)
        self.create(before, image_id, digest=freed.digest, previous=previous, freed=freed.words, **failed)
        self._end(container, self.current(), failed)

    def _end(self, container: Container, record: Record, failed: dict[str, Any]) -> None:
        if container.policy.state is RunState.RUNNING and container.policy.enabled:
            self.start()
        self.records.change(record.nonce, freed=(), asked="", **failed)
