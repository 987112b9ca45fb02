# SPDX-License-Identifier: GPL-2.0-or-later
"""What all strategies of replacing a container share: the order of the steps, the hook commands, and proving the new
container. `agent.apply.swap` and `agent.apply.free_first` implement each step and its undo.

The hooks are like Kubernetes' lifecycle hooks: a failing `pre_stop` is reported but stops nothing, and a failing
`post_start` counts as a failed start. `hold_cmd` is asked before anything is done, like balena's update locks.

They also share the container's data in volumes: which anonymous volumes the next container takes over, and what was
lost. A record names the anonymous volumes (`NAME=TARGET`). So their data is found again after someone else removed the
container, and deleted with the container if `remove_volumes` says so. To the engine a carried-over volume is a named
one, which it never deletes with a container.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from agent.apply.failures import last_output, tidied, was_stopped_from_outside, without_secrets
from agent.apply.ports import Clock, Engine, Records
from agent.apply.worker_pool import SkippedError
from agent.errors import EngineError, EngineUnreachableError, StorageError
from agent.model.observed import ObservedContainer, Record
from agent.model.resources import Container, Strategy, Volume
from agent.plan.container.bodies import volume_words
from agent.plan.container.image import failure_of
from agent.plan.records import is_completed

logger = logging.getLogger(__name__)

HOOK_S = 30.0  # default time limit of pre_stop and post_start
HOLD_S = 30.0  # time limit of hold_cmd
HOLD_LIMIT_S = 86400.0
_POLL_S = 0.2  # between looks at a container in its trial
_SIGNALLED = 128  # exit codes above it: a signal ended the process
_HEALTH_LIMIT_S = 300.0
_WHY_LIMIT = 512  # characters of an error that a record stores


class Step(Enum):
    """One step of a replacement.

    A step and its undo may be repeated: after a crash the records say which replacement was in progress, but not how
    far it got. Undoing a step that was not done has no effect.
    """

    CREATE = auto()  # create the new container without starting it
    STOP = auto()  # run `pre_stop`, then stop the old container
    MOVE_DATA = auto()  # copy the old container's volumes, or restore saved data in their place
    SET_ASIDE = auto()  # the old container gives up its name, or its space on the disk
    PROVE = auto()  # start the new container and wait until it passes its gate


# The only definition of the order. Steps are undone in reverse order.
ORDER: Mapping[Strategy, tuple[Step, ...]] = {
    Strategy.SWAP: (Step.CREATE, Step.STOP, Step.MOVE_DATA, Step.SET_ASIDE, Step.PROVE),
    Strategy.HANDOVER: (Step.CREATE, Step.PROVE, Step.STOP, Step.SET_ASIDE),
    Strategy.FREE_FIRST: (Step.STOP, Step.SET_ASIDE, Step.CREATE, Step.PROVE),
}


def go_back(
    strategy: Strategy, undo: Callable[[Step], None], *, later: Collection[Step] = ()
) -> EngineError | None:
    """Undoes every step of a strategy in reverse order. Undoing a step that was not done has no effect.

    Raises an error at once if later undo steps depend on the failed one. An error in a step of `later` does not stop
    the others from being undone; the last such error is returned.
    """
    failed: EngineError | None = None
    # in reverse: a step may only be undone after the steps that build on it
    for step in reversed(ORDER[strategy]):
        try:
            undo(step)
        except EngineError as exc:
            if step not in later:
                raise
            failed = exc
    return failed


class GateError(EngineError):
    """The new container did not start, did not stay up, or did not become healthy."""

    code = "gate"


class UndecidedError(EngineError):
    """The replacement was given up before the new container passed its gate: the configuration changed, the agent stops,
    someone stopped the container, or its data cannot be moved now. The container has not failed."""

    code = "undecided"


class HeldBackError(SkippedError):
    """`hold_cmd` postpones the replacement. `left_s`: until `hold_limit` is over."""

    code = "held-back"

    def __init__(self, message: str, *, left_s: float) -> None:
        super().__init__(message, retryable=True)
        self.left_s = left_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Runs the hook commands; each call blocks until the command ends or its time limit is over."""

    engine: Engine
    records: Records
    clock: Clock

    def hold(self, container: Container, old: Record) -> None:
        """Raises HeldBackError while `hold_cmd` postpones the replacement, at most for `hold_limit`. `old`: record of
        the container that would be replaced."""
        command = container.policy.hold_cmd
        seen = self.engine.inspect_container(old.object_id) if command else None
        # a paused or restarting container cannot object: its replacement may be the cure
        runs = seen is not None and seen.state == "running"
        why = self._run(container, old.object_id, command, HOLD_S)[0] if command and runs else ""
        if not why:
            return
        # Use the wall clock, because the limit also counts across restarts of the agent. If the clock was set back,
        # the limit starts again.
        now, limit = self.clock.wall(), container.policy.hold_limit_s
        limit = HOLD_LIMIT_S if limit is None else limit
        if old.held_at is None or old.held_at > now:
            self.records.change(old.nonce, held_at=now)
            since = now
        else:
            since = old.held_at
        if now - since >= limit:
            logger.warning("%s: hold_cmd %s; replaced, since `hold_limit` is over", container.name, why)
            return
        left_s = since + limit - now
        left = max(1, round(left_s / 60))
        raise HeldBackError(f"hold_cmd {why}; it is replaced in {left} min at the latest", left_s=left_s)

    def pre_stop(self, container: Container, object_id: str) -> str:
        """Runs `pre_stop` and returns what went wrong, for people; "" if nothing did."""
        command, limit = container.policy.pre_stop, container.policy.pre_stop_timeout_s
        if not command:
            return ""
        why = self._run(container, object_id, command, HOOK_S if limit is None else limit)[0]
        if why:
            logger.warning("%s: pre_stop %s; the container is stopped anyway", container.name, why)
        return f"pre_stop {why}" if why else ""

    def post_start(self, container: Container, object_id: str) -> None:
        """Runs `post_start`. Raises EngineError with the last output."""
        command, limit = container.policy.post_start, container.policy.post_start_timeout_s
        if not command:
            return
        why, output = self._run(container, object_id, command, HOOK_S if limit is None else limit)
        # retryable: the container runs, and what the command needs may come
        if why:
            error = EngineError(f"post_start {why}", retryable=True)
            error.output = output
            raise error

    def _run(
        self, container: Container, object_id: str, command: tuple[str, ...], limit_s: float
    ) -> tuple[str, str]:
        """(what went wrong with the last line of output, the last lines). Never includes the command, which may contain
        a password."""
        try:
            code, raw = self.engine.execute(object_id, command, limit_s)
        except EngineUnreachableError:
            raise
        except EngineError as exc:
            return f"could not be run: {tidied(str(exc).encode(), container)}", ""
        if code == 0:
            return "", ""
        # The output goes to status and notices, which readers can see: mask the values that the section treats as
        # secret.
        output = tidied(raw, container)
        last = output.rpartition("\n")[2].strip()
        why = f"did not end within {limit_s:g} s" if code is None else f"exited with {code}"
        return (f"{why}: {last}" if last else why), output


def prove(
    container: Container,
    start: Callable[[], str],
    *,
    hooks: Hooks,
    waiting: Callable[[], AbstractContextManager[None]],
    leave: Callable[[Container], None],
    replaces: bool = False,
) -> None:
    """Starts the new container and waits until it has passed its gate. `start` returns its id.

    Raises GateError with the last output of the container, and whatever `leave` raises.
    """
    try:
        object_id = start()
    except EngineError as exc:
        # without a response from the engine, the new container cannot be blamed
        if exc.status:
            raise GateError(str(exc), status=exc.status) from exc
        raise
    try:
        # before the gate: the hook may make the container healthy, for example by joining a cluster
        hooks.post_start(container, object_id)
    except EngineUnreachableError:
        raise
    except EngineError as exc:
        failed = GateError(str(exc))
        failed.output = exc.output
        raise failed from exc
    try:
        with waiting():
            _gate(hooks.engine, container, object_id, replaces=replaces, leave=leave, clock=hooks.clock)
    except GateError as exc:
        exc.output = last_output(hooks.engine, object_id, container)
        raise


def _gate(
    engine: Engine,
    container: Container,
    object_id: str,
    *,
    replaces: bool,
    leave: Callable[[Container], None],
    clock: Clock,
) -> None:
    """Waits until the new container has stayed up for `gate` seconds and, if it has a health check, healthy all that
    time.

    Raises GateError, EngineError to be retried, and whatever `leave` raises to end the wait early. Blocks its thread
    for as long as the gate or the health check takes.
    """
    begun = well_since = clock.monotonic()
    while True:
        seen = _undisturbed(engine, object_id, clock)
        now = clock.monotonic()
        # The gate's seconds begin when the first health check has passed: a slow start neither counts as time in the
        # gate nor as a failure.
        if _health(seen) == "starting":
            well_since = now
        if _judge(container, seen, replaces=replaces, elapsed_s=now - begun, well_s=now - well_since):
            return
        # a gate may take minutes: an edit, or the end of the agent, must not have to wait for it
        leave(container)
        clock.sleep(_POLL_S)


def _health(seen: ObservedContainer) -> str:
    state = (seen.inspect or {}).get("State", {})
    return str((state.get("Health") or {}).get("Status") or "")


def _undisturbed(engine: Engine, object_id: str, clock: Clock) -> ObservedContainer:
    """Inspects the new container. Raises UndecidedError if someone stopped, paused or removed it during its
    trial: that says nothing about the container."""
    seen, did = _look(engine, object_id)
    if seen is not None and not did and (seen.exit_code or 0) > _SIGNALLED:
        # After `docker rm -f` the engine shows for a moment that a signal ended the process, and only then removes
        # the container; the event of a kill may come as late.
        clock.sleep(_POLL_S)
        seen, did = _look(engine, object_id)
    if seen is None or did:
        text = f"the new container was {did} outside of ucidockd during its trial"
        raise UndecidedError(text, retryable=True)
    return seen


def _look(engine: Engine, object_id: str) -> tuple[ObservedContainer | None, str]:
    """The container, and what was done to it from outside."""
    seen = engine.inspect_container(object_id)
    if seen is None or seen.state == "removing":
        return None, "removed"
    if seen.state != "exited":
        return seen, "paused" if seen.state == "paused" else ""
    try:
        return seen, "stopped" if was_stopped_from_outside(engine, seen) else ""
    except EngineUnreachableError:
        raise
    # without an answer its own end is assumed, and the gate judges it by its exit code
    except EngineError as exc:
        logger.info("how %s ended is not known: %s", seen.name, exc)
        return seen, ""


def _judge(
    container: Container,
    seen: ObservedContainer,
    *,
    replaces: bool,
    elapsed_s: float,
    well_s: float,
) -> bool:
    state: dict[str, Any] = (seen.inspect or {}).get("State", {})
    if state.get("Status") != "running":
        if is_completed(container, seen, replaces=replaces):
            return True
        if state.get("ExitCode") == 0:
            text = f"the new container ended with 0 after {elapsed_s:.1f} s, but a service must keep running"
            raise GateError(f"{text}; a job says `restart no`")
        killed = " (OOMKilled: out of memory)" if state.get("OOMKilled") else ""
        raise GateError(
            f"the new container exited with {state.get('ExitCode')}{killed} after {elapsed_s:.1f} s"
        )
    # with a restart policy the engine restarts a crashed container within a second: only the counter shows the crash
    restarts = (seen.inspect or {}).get("RestartCount", 0)
    if state.get("Restarting") or restarts > 0:  # it runs again, so its last exit code is no longer shown
        raise GateError(f"the new container ended and was restarted ({restarts}x) within {elapsed_s:.1f} s")
    health = _health(seen)
    if health == "unhealthy":
        raise GateError("the new container is unhealthy")
    if health == "starting":
        if elapsed_s > _HEALTH_LIMIT_S:
            raise GateError(f"the new container is not healthy after {_HEALTH_LIMIT_S:.0f} s")
        return False
    return well_s >= container.policy.gate_s


def failed_fields(
    container: Container, image_id: str, error: EngineError | StorageError, record: Record, *, digest: str
) -> dict[str, Any]:
    """The fields in the old container's `record` that say what failed and why, so that the same attempt is not
    repeated."""
    failed = failure_of(container, image_id, record)
    return {
        **failed,
        "failed_why": str(without_secrets(error, container))[:_WHY_LIMIT],
        "failed_output": error.output if isinstance(error, EngineError) else "",
        # of the update that was tried before, with the same spec
        "failed_digest": digest or (record.failed_digest if failed["failed_others"] else ""),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance:
    """What a new container inherits.

    `carry`: target -> volume; `left`: volumes that are no longer mounted, in the form of records; `lost`: names of
    volumes, or targets of anonymous ones, that are recreated empty.
    """

    carry: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def names(*noted: Iterable[str]) -> tuple[str, ...]:
    """The names of the volumes in fields of records."""
    return tuple(dict.fromkeys(word.partition("=")[0] for words in noted for word in words))


def of_record(record: Record) -> dict[str, str]:
    """Target -> anonymous volume, from a record."""
    pairs = (word.partition("=") for word in record.volumes)
    return {target: name for name, _, target in pairs}


def inherit(
    engine: Engine,
    container: Container,
    image_id: str,
    mounted: Mapping[str, str],
    *,
    left: Iterable[str] = (),
) -> Inheritance:
    """Carries over the volumes for which the new spec or image still has a target. `mounted`: target -> anonymous
    volume."""
    places = _places(engine, container, image_id, mounted)
    carry = {target: name for target, name in mounted.items() if target in places}
    unmounted = {target: name for target, name in mounted.items() if target not in places}
    # A volume without a target is not removed: it may be the only copy of someone's data. The record keeps its name.
    return Inheritance(carry=carry, left=tuple(dict.fromkeys((*left, *volume_words(unmounted)))))


def inherit_from_gone(
    engine: Engine, container: Container, image_id: str, record: Record, declared: Iterable[str]
) -> Inheritance:
    """The same for a container that no longer exists. `declared`: names of the volumes that have a section."""
    # the container cannot be inspected any more: only the record knows which volume was mounted where
    mounted = of_record(record)
    gone = {target: name for target, name in mounted.items() if engine.inspect_volume(name) is None}
    there = {target: name for target, name in mounted.items() if target not in gone}
    found = inherit(engine, container, image_id, there, left=record.left)
    before = {str(mount.get("source") or "") for mount in record.spec.get("mounts", ())}
    sources = {m.source for m in container.spec.mounts if m.source and not m.is_bind}
    # A volume with a section reports its loss in its own record; this covers volumes that only the container's
    # section names.
    others = sorted((sources & before) - set(declared))
    lost = [name for name in others if engine.inspect_volume(name) is None]
    places = _places(engine, container, image_id, gone)
    return Inheritance(
        carry=found.carry,
        left=found.left,
        lost=(*lost, *sorted(target for target in gone if target in places)),
    )


def check_there(engine: Engine, records: Iterable[Record], container: Container) -> None:
    """Raises EngineError where a volume with a section was removed since it was looked at: a pull takes minutes, and who
    makes room for it prunes."""
    # For the container the engine would make another one, without its options; not ours, so in conflict for ever.
    declared = {record.name for record in records if record.kind == "volume"}
    for mount in container.spec.mounts:
        if mount.source in declared and not mount.is_bind and engine.inspect_volume(mount.source) is None:
            raise EngineError(f"volume {mount.source} was removed outside of ucidockd", retryable=True)


def holds_data(volume: Volume) -> bool:
    """Whether the data is stored in the volume itself; with a device it is elsewhere (a disk, NFS, memory)."""
    return volume.spec.driver == "local" and "device" not in dict(volume.spec.options)


def _places(engine: Engine, container: Container, image_id: str, mounted: Mapping[str, str]) -> set[str]:
    """The targets in `mounted` at which the container will have an anonymous volume."""
    spec = container.spec
    places = {_path(mount.target) for mount in spec.mounts if not mount.source}
    taken = {_path(mount.target) for mount in spec.mounts if mount.source}
    taken |= {_path(entry.target) for entry in spec.tmpfs}
    # the image is asked only if the section does not settle it: most sections name every target
    if any(_path(target) not in places | taken for target in mounted):
        image = engine.inspect_image(image_id) or {}
        places |= {_path(target) for target in (image.get("Config") or {}).get("Volumes") or ()}
    return {target for target in mounted if _path(target) in places - taken}


def _path(target: str) -> str:
    return posixpath.normpath("/" + target.lstrip("/"))
