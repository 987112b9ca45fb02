# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans one container: what it waits for, what changed since it was last applied, what drifted, whether it should run."""

from __future__ import annotations

from typing import Any

from agent.errors import Reason
from agent.model.container_table import ChangeLevel, too_new
from agent.model.identity import Key, canonical
from agent.model.observed import ObservedContainer, Record
from agent.model.resources import Container, OnDrift, OnUnhealthy, RunState, Strategy
from agent.plan import operations as ops
from agent.plan.container.bodies import read_spec, volumes_of
from agent.plan.container.changes import FieldChange, change_of, classify, describe, options_of
from agent.plan.container.difference import container_drift, differences, is_met, network_ids, with_mac_level
from agent.plan.container.image import ContainerImage, ImageChoice, keeps_image
from agent.plan.container.meaning import newly_stated
from agent.plan.container.needs import joined_keys, missing_of, needs_of
from agent.plan.draft import (
    COPY,
    Draft,
    Missing,
    desired_spec,
    joined_ids,
    lending_names,
    plugged_words,
    shared_names,
)
from agent.plan.records import as_applied, is_alive, name_outside, waits_of
from agent.status.conditions import REASON_OF_STATE


def plan_container(draft: Draft, container: Container) -> None:
    """Adds the work on one container. The containers that it depends on, networks and volumes must be planned before."""
    _Planner(draft, container).plan()


class _Planner:
    def __init__(self, draft: Draft, container: Container) -> None:
        self.draft, self.container = draft, container
        self.key = Key("container", container.section)
        self.record = draft.record("container", container.section)
        self.needs = needs_of(draft, container)
        self.reported: list[str] = []  # drift that is reported but not corrected
        self.image = ContainerImage(draft, container, self.record)
        self.choice = self.image.choice

    def plan(self) -> None:
        draft = self.draft
        self.image.tell()
        # the checks are ordered from those that forbid any action to those that only postpone it; the first that
        # applies is shown
        seen = draft.container(self.container.section)
        settled = self.key in draft.context.changing and self._is_settled(seen)
        if draft.must_skip(self.key, self.record, settled=settled):
            return
        self.image.show()
        action = draft.context.held.get(self.key)
        if action is not None:
            self._find(
                "Synced",
                status=False,
                reason="Held",
                message=(
                    "left alone while its volumes are copied"
                    if action == COPY
                    else f"manual {action}; `ucidockd reconcile` undoes it"
                ),
            )
            return
        unknown = too_new(self.container.spec, draft.context.api)
        if unknown:
            self._unknown_to_engine(unknown, seen)
            return
        if self.key in draft.context.backoff and not settled:
            if self.record is not None and seen is not None:
                self._look_after(self.record, seen)
            return
        missing = missing_of(draft, self.container, self.record, self.needs)
        if missing is not None:
            self._wait(missing, seen)
            return
        self._find("Waiting", status=False, reason="Ready")
        if self.record is not None and self.record.freed:
            draft.looked.add(self.key)
            self._go_on(self.record, seen)
        elif self.record is None or seen is None:
            draft.looked.add(self.key)
            self._absent()
        else:
            self._note_look(seen)
            self._present(self.record, seen)

    def _is_settled(self, seen: ObservedContainer | None) -> bool:
        """Whether a rolled back change would be next, which is not repeated by itself."""
        # without a container of its own, only an adoption can have failed
        if self.record is None or seen is None:
            return self._failed_adoption() is not None
        return not self.record.freed and self.image.has_failed(self.record)

    def _failed_adoption(self) -> Record | None:
        """The record of an adoption that was rolled back, if the same one would be next."""
        foreign = self.draft.context.foreign.get(self.container.name)
        if foreign is None:
            return None
        taken = (r for r in self.draft.context.records if (r.swap, r.object_id) == ("foreign", foreign.id))
        return next((record for record in taken if self.image.has_failed(record)), None)

    def _unknown_to_engine(self, unknown: tuple[str, ...], seen: ObservedContainer | None) -> None:
        """Handles options that this engine would silently ignore: the running container stays as it is."""
        major, minor = self.draft.context.api
        message = (
            f"{'; '.join(unknown)}; this engine has API {major}.{minor}: remove the option or update Docker"
        )
        self._find("Synced", status=False, reason="EngineTooOld", message=message)
        # containers that depend on it wait too, instead of starting next to a container that lacks an option
        self.draft.withheld[self.key] = (
            f"{self.container.section} has an option that this engine does not know"
        )
        # do not stop it: it runs as it did before the option was added
        if self.record is not None and seen is not None:
            self.draft.unchanged.add(self.key)
            self._look_after(self.record, seen)

    def _note_look(self, seen: ObservedContainer) -> None:
        if seen.inspect is not None:
            self.draft.looked.add(self.key)

    def _find(
        self, kind: str, *, status: bool, reason: Reason, message: str = "", since: float | None = None
    ) -> None:
        self.draft.find(self.key, kind, status=status, reason=reason, message=message, since=since)

    def _wait(self, missing: Missing, seen: ObservedContainer | None) -> None:
        self.draft.find(
            self.key, "Waiting", status=True, reason="Waiting", message=missing.reason, once=missing.once
        )
        self.draft.withheld[self.key] = f"{self.container.section} waits: {missing.reason}"
        record = self.record
        if seen is None or record is None:
            return
        # whether the section contains changes that are not applied yet
        pending = bool(
            self._edited(record, seen)
            or (record.waits_known and record.waits != waits_of(self.container))
            or self._outside_change(record, ())
        )
        if pending:
            self._find(
                "Synced", status=False, reason="Waiting", message=f"the change waits: {missing.reason}"
            )
        if missing.stop and is_alive(seen):
            timeout = self.container.spec.stop_timeout_s
            stop = ops.StopContainer(
                key=self.key, cause=missing.reason, record=record, stop_timeout_s=timeout
            )
            self.draft.add(self.key, [stop], partial=pending)
        elif self.key in self.draft.turns and not missing.keep:
            return  # any operation could take a claim of another container
        else:
            todo = self._as_applied(record, seen, start=missing.keep)
            self.draft.add(self.key, todo, self.needs, partial=pending)

    def _as_applied(
        self, record: Record, seen: ObservedContainer, *, start: bool = True
    ) -> list[ops.Operation]:
        """Keeps the container as it was last applied, while a change of its section waits or after the change was
        refused."""
        self._note_look(seen)
        container = as_applied(self.container, record)
        changes: tuple[FieldChange, ...] = ()
        if container is not None and seen.inspect is not None:
            changes = self._to_repair(self._drift(container, record, seen.inspect))
            fixed = [change for change in changes if change.level is ChangeLevel.RECREATE]
            # cannot be recreated from the record, in which values of environment variables are only hashes
            if fixed:
                self.reported.append(describe(fixed))
        todo = self._in_place(record, seen, changes, container, again=True)
        running = self._running(record, seen)
        starts = [o for o in running if isinstance(o, ops.StartContainer)]
        return [*todo, *(o for o in running if start or o not in starts), *self._renaming(record, seen)]

    # the container does not exist

    def _absent(self) -> None:
        container = self.container
        if not container.policy.enabled:
            self._find("Synced", status=True, reason="InSync")
            self._find("Degraded", status=False, reason="Recovered")
            return
        room = self._make_room()
        if room is None:
            return
        foreign = self.draft.context.foreign.get(container.name)
        # labels prove nothing: a container with this name and without a record of ours is foreign
        if foreign is not None and not container.policy.adopt:
            image_id = self.draft.context.image_ids.get(container.spec.image, "")
            found = differences(container, None, foreign.inspect, names={}, image_id=image_id)
            differing = [difference.field for difference in found]
            how = f"; it differs in {', '.join(differing)}" if differing else ""
            self.draft.conflict(
                self.key, f"a container named {container.name} exists, and ucidockd did not create it{how}"
            )
            return
        # adopting stops the container: after a failure it is not tried again until the section or the image changes
        failed = self._failed_adoption()
        if failed is not None:
            self.draft.find_rolled_back(self.key, failed, _NOT_AGAIN)
            return
        if foreign is not None:
            cause = f"takes over the container {foreign.name} ({foreign.id[:12]})"
            adopt = ops.AdoptContainer(key=self.key, cause=cause, container=container, foreign=foreign)
            self.draft.add(self.key, [adopt], self.needs)
            return
        cause, image = "it does not exist yet", self.choice
        if self.record is not None:
            cause = "removed outside of ucidockd"
            if self.record.asked and keeps_image(container, self.record):
                # recreate it as it was; the requested update then follows as a replacement
                image = ImageChoice(keep=self.record.image_id)
        todo: list[ops.Operation] = [
            *room,
            ops.CreateContainer(
                key=self.key, cause=cause, container=container, keep=image.keep, fresh=image.fresh
            ),
        ]
        if container.policy.state is RunState.RUNNING:
            todo.append(ops.StartContainer(key=self.key, cause="it should be running", container=container))
        self.draft.add(self.key, todo, self.needs)

    def _go_on(self, record: Record, seen: ObservedContainer | None) -> None:
        """Resumes an interrupted replacement with `strategy free-first`, however far it got."""
        swap = ops.ReplaceContainer(
            key=self.key,
            cause="continues: the old image went before the pull of the new one (`strategy free-first`)",
            container=self.container,
            record=record,
            runs=seen is not None and is_alive(seen),
            frees=True,
        )
        self.draft.add(self.key, [swap], self.needs)

    # the container exists

    def _present(self, record: Record, seen: ObservedContainer) -> None:
        # neither a start nor a swap works in this state, and only the engine can end it
        if seen.state in _ENDING:
            message = (
                f"the engine has it in state {seen.state}; if that stays, `docker rm -f {seen.name}` helps"
            )
            self._find("Degraded", status=True, reason=REASON_OF_STATE[seen.state], message=message)
            self.draft.withheld[self.key] = f"{self.container.section} is being removed"
            return
        if self._is_name_taken(seen):
            # a swap would fail half-way, so keep the container as it is
            self.draft.add(self.key, self._as_applied(record, seen), self.needs, partial=True)
            return
        changes = self._changes(record, seen)
        why = self._outside_change(record, changes)
        if (why or changes) and self.image.has_failed(record):
            # only a new spec or image justifies another try; until then the container is kept as it was last applied
            self._look_after(record, seen)
            self.draft.find_rolled_back(self.key, record, "; ".join((_NOT_AGAIN, *self.reported)))
            return
        if why or any(change.level is ChangeLevel.RECREATE for change in changes):
            self._replace(record, seen, why, changes)
            return
        # rename last: if another container holds the name, this container must run nevertheless
        todo = [
            *self._in_place(record, seen, changes, self.container),
            *self._running(record, seen),
            *self._renaming(record, seen),
        ]
        # `Recovered` needs a full inspect of the container; the list alone shows too little
        if self.reported:
            self._find("Degraded", status=True, reason="Drift", message="; ".join(self.reported))
        elif seen.inspect is not None and not todo and not self.image.update_failed(record):
            self._find("Degraded", status=False, reason="Recovered")
        if todo:
            self.draft.add(self.key, todo, self.needs)
        elif self.image.update_failed(record):
            message = f"the update was rolled back; `ucidockd update {self.container.section}` tries again"
            self.draft.find_rolled_back(self.key, record, message)
        else:
            ignored = f"the engine ignores {', '.join(record.ignored)}" if record.ignored else ""
            left = (word.partition("=") for word in record.left)
            places = ", ".join(f"{name[:12]} ({target})" for name, _, target in left)
            kept = f"volumes that are no longer mounted are kept: {places}" if places else ""
            self._find("Synced", status=True, reason="InSync", message=_joined(ignored, kept, record.remark))

    def _replace(
        self, record: Record, seen: ObservedContainer, why: str, changes: tuple[FieldChange, ...]
    ) -> None:
        held_back = self.draft.context.held_back.get(self.key)
        if held_back is not None:
            # its own command (`hold_cmd`) asked to postpone; the container is kept as it was last applied
            self._find("Waiting", status=True, reason="Waiting", message=held_back)
            message = f"the replacement waits: {held_back}"
            self._find("Synced", status=False, reason="Waiting", message=message)
            self.draft.unchanged.add(self.key)
            self._look_after(record, seen)
            return
        room = self._make_room()
        if room is None:
            return
        choice = self.choice
        # free the old image first only if a different image replaces it, and not when saved data is restored
        other = bool(choice.why) or any(change.field in ("image", "platform") for change in changes)
        frees = self.container.policy.strategy is Strategy.FREE_FIRST and other and not choice.restores
        swap = ops.ReplaceContainer(
            key=self.key,
            cause=_joined(describe(changes), why, "the old image is removed first" if frees else ""),
            changes=options_of(changes),
            besides=why,
            container=self.container,
            record=record,
            runs=is_alive(seen),
            keep=choice.keep,
            digest=choice.digest,
            fresh=choice.fresh,
            pin=choice.pin,
            only_image=why == choice.why and not changes,
            restores=choice.restores,
            frees=frees,
        )
        self.draft.add(self.key, [*room, swap], self.needs)

    def _look_after(self, record: Record, seen: ObservedContainer) -> None:
        """Keeps the container as it was last applied, as long as the conditions of that time are still met."""
        # if it has to give up a claim to another container, that comes before lost conditions
        turn = self.draft.turns.get(self.key)
        if turn is not None and not turn.keep and not turn.stop:
            return
        lost = turn if turn is not None and turn.stop else self.draft.context.lost.get(self.key)
        if lost is not None and lost.stop and is_alive(seen):
            timeout = self.container.spec.stop_timeout_s
            todo: list[ops.Operation] = [
                ops.StopContainer(key=self.key, cause=lost.reason, record=record, stop_timeout_s=timeout)
            ]
        else:
            todo = self._as_applied(record, seen, start=lost is None)
        self.draft.add(self.key, todo, self.needs, partial=True)

    def _outside_change(self, record: Record, changes: tuple[FieldChange, ...]) -> str:
        """Reasons for a new container that are not edits of the section: image, shared namespace, USB device."""
        draft, container = self.draft, self.container
        why = [] if any(change.field == "image" for change in changes) else [self.choice.why]
        # when the container whose namespace it shares is replaced, it loses its network; with shared volumes it may
        # miss new ones
        if lending_names(container):
            works = (draft.works[key] for key in joined_keys(draft, container) if key in draft.works)
            replaced = any(isinstance(o, _NEW_OBJECT) for work in works for o in work.operations)
            ids = joined_ids(draft.context.records, container)
            if replaced or (record.joined and ids and record.joined != ids):
                # whole sentences, which LuCI translates
                why.append(
                    "the container whose namespace it shares was replaced"
                    if shared_names(container)
                    else "the container whose volumes it mounts was replaced"
                )
        moved = sorted(set(plugged_words(container)) - set(record.plugged))
        why += [f"{name} is {path} now" for name, _, path in (word.partition("=") for word in moved)]
        return _joined(*why)

    def _changes(self, record: Record, seen: ObservedContainer) -> tuple[FieldChange, ...]:
        api = self.draft.context.api
        edited = with_mac_level(self._edited(record, seen), record.spec, self.container, api)
        # edits come first: a replacement or update also corrects drift, and the next pass finds the rest
        if edited:
            return edited
        if seen.inspect is None:
            return ()
        return self._to_repair(self._drift(self.container, record, seen.inspect))

    def _drift(
        self, container: Container, record: Record, inspect: dict[str, Any]
    ) -> tuple[FieldChange, ...]:
        networks = network_ids(self.draft.observed.networks, self.draft.context.records)
        return container_drift(
            container, inspect, networks, api=self.draft.context.api, ignored=record.ignored
        )

    def _to_repair(self, drift: tuple[FieldChange, ...]) -> tuple[FieldChange, ...]:
        """The changes made outside of ucidockd that should be undone."""
        if drift and self.container.policy.on_drift is OnDrift.REPORT:
            self.reported.append(describe(drift))
            return ()
        return drift

    def _edited(self, record: Record, seen: ObservedContainer) -> tuple[FieldChange, ...]:
        """What the section asks for differently than when the container was last applied."""
        if record.spec_hash == self.draft.spec_hash_of(self.key, self.container):
            return ()
        wanted = desired_spec(self.container)
        unread = {each.field for each in self.container.unread}
        changes = tuple(
            change
            for change in classify(record.spec, wanted, self.draft.defaults(record.image_id))
            if change.field not in unread
        )
        # a default that is newly stated may equal what dockerd used all along: only the container itself shows that
        stated = set(newly_stated(record.spec, wanted)) - {change.field for change in changes}
        if not stated or seen.inspect is None:
            return changes
        shown = read_spec(seen.inspect, {})
        told = canonical(shown)
        return changes + tuple(
            change_of(name, told.get(name), wanted.get(name), told, wanted)
            for name in sorted(stated)
            if not is_met(name, self.container.spec, shown)
        )

    def _in_place(
        self,
        record: Record,
        seen: ObservedContainer,
        changes: tuple[FieldChange, ...],
        container: Container | None,
        *,
        again: bool = False,
    ) -> list[ops.Operation]:
        """Operations that need no new container. `container`: the target state; with `again` the last applied state,
        None if unknown."""
        key = self.key
        todo: list[ops.Operation] = []
        policy = self.container.policy
        kept = (record.grace_s, record.remove_volumes) != (policy.grace_s, policy.remove_volumes)
        waits = not again and (not record.waits_known or record.waits != waits_of(self.container))
        # a record of version 0.1.0 does not store what it waits for; store it as soon as there is something to wait
        # for
        if kept or (waits and (record.waits_known or waits_of(self.container))):
            names = ["grace or remove_volumes"] * kept + ["what it waits for"] * waits
            note = ops.NoteContainer(
                key=key,
                cause=f"{' and '.join(names)} changed",
                container=self.container,
                record=record,
                waits=not again,
            )
            todo.append(note)
        # anonymous volumes that are missing in the record would be lost in the next replacement
        volumes = volumes_of(seen.inspect) if seen.inspect is not None else record.volumes
        if volumes != record.volumes:
            cause = "the record does not name its anonymous volumes"
            note = ops.NoteContainer(
                key=key, cause=cause, container=self.container, record=record, volumes=volumes
            )
            todo.append(note)
        if record.removed_at is not None:
            cause = "its section is back"
            todo.append(ops.RestoreContainer(key=key, cause=cause, container=self.container, record=record))
        if container is None:
            return todo
        updates = tuple(change for change in changes if change.level is ChangeLevel.UPDATE)
        if updates:
            changed = tuple(change.field for change in updates)
            cause = describe(updates)
            todo.append(
                ops.UpdateContainer(
                    key=key,
                    cause=cause,
                    changes=options_of(updates),
                    container=container,
                    record=record,
                    fields=changed,
                    again=again,
                )
            )
        moved = tuple(change for change in changes if change.level is ChangeLevel.RECONNECT)
        cause = describe(moved) or self._network_is_new(container)
        if cause:
            reconnect = ops.ReconnectContainer(
                key=key,
                cause=cause,
                changes=options_of(moved),
                container=container,
                record=record,
                again=again,
            )
            todo.append(reconnect)
        return todo

    def _is_name_taken(self, seen: ObservedContainer) -> bool:
        """Whether our container has lost its name to one that is not ours."""
        return seen.name != self.container.name and self.container.name in self.draft.context.foreign

    def _renaming(self, record: Record, seen: ObservedContainer) -> list[ops.Operation]:
        if seen.name == self.container.name:
            return []
        if self._is_name_taken(seen):
            message = f"a container named {self.container.name} exists, and ucidockd did not create it; ours is {seen.name}"
            self._find("Synced", status=False, reason="NameTaken", message=message)
            return []
        cause = f"it is named {seen.name} and should be named {self.container.name}"
        # a swap left a temporary name (`-old`): rename it back without asking
        by_hand = record.name == self.container.name and not name_outside(seen.name, "old")
        if self.container.policy.on_drift is OnDrift.REPORT and by_hand:
            self.reported.append(cause)
            return []
        # another object may hold the name: it is renamed in the same work, or this rename waits
        room = self._make_room()
        if room is None:
            return []
        return [
            *room,
            ops.RenameContainer(key=self.key, cause=cause, container=self.container, record=record),
        ]

    def _make_room(self) -> list[ops.Operation] | None:
        """Frees its Docker name if another container of ours holds it; None while an earlier plan works on that
        container."""
        draft, name = self.draft, self.container.name
        holder = draft.holders.get(name)
        if holder is None or (holder.section == self.container.section):
            return []
        key = Key("container", holder.section)
        if key in draft.context.busy:
            self._find("Synced", status=False, reason="Pending", message=f"after {key}, which has its name")
            return None
        work = draft.works.get(key)
        if work is not None and any(isinstance(o, _NAMES) for o in work.operations):
            self.needs = (*self.needs, key)  # that container gets another name first
            return []
        draft.after.setdefault(key, set()).add(self.key)
        return [ops.SetAsideContainer(key=self.key, cause=f"{name} is no longer {key}'s", record=holder)]

    def _network_is_new(self, container: Container) -> str:
        """The cause of a reconnect if this plan recreates a network of the container: the new network has a new id, and
        the container would keep the old one."""
        fresh = [
            operation.network.name
            for key in needs_of(self.draft, container)
            if key in self.draft.works
            for operation in self.draft.works[key].operations
            if isinstance(operation, ops.CreateNetwork)
            and operation.network.name in {e.network for e in container.spec.endpoints}
        ]
        return f"network {', '.join(fresh)} is created again" if fresh else ""

    def _running(self, record: Record, seen: ObservedContainer) -> list[ops.Operation]:
        container = self.container
        wanted = container.policy.should_run
        if not wanted and is_alive(seen):
            cause = "disabled" if not container.policy.enabled else "it should be stopped"
            timeout = container.spec.stop_timeout_s
            return [ops.StopContainer(key=self.key, cause=cause, record=record, stop_timeout_s=timeout)]
        is_done = seen.id in self.draft.context.completed
        # a completed job that is switched off and on again runs once more
        if not wanted and is_done and record.completed:
            cause = "its job must be done again"
            return [
                ops.NoteContainer(key=self.key, cause=cause, container=container, record=record, again=True)
            ]
        # a completed job runs again if its section changed
        changed = is_done and self._edited(record, seen) and not self.image.has_failed(record)
        if not wanted or (is_done and not changed):
            return []
        # the engine refuses to start a paused container
        if seen.state == "paused":
            cause = "it is paused and should be running"
            return [ops.UnpauseContainer(key=self.key, cause=cause, record=record)]
        if not is_alive(seen):
            cause = f"it is {seen.state} and should be running"
            return [ops.StartContainer(key=self.key, cause=cause, container=container)]
        if seen.state == "running" and self._is_left_behind(seen):
            cause = "the container whose namespace it shares was restarted"
            return [ops.RestartContainer(key=self.key, cause=cause, container=container, record=record)]
        if seen.health == "unhealthy" and container.policy.on_unhealthy is OnUnhealthy.RESTART:
            cause = "its health check fails, and `on_unhealthy` is restart"
            return [
                ops.RestartContainer(
                    key=self.key, cause=cause, container=container, record=record, unhealthy=True
                )
            ]
        if record.hook_due and container.policy.post_start and seen.state == "running":
            cause = "`post_start` has not succeeded since it was started"
            return [ops.PrepareContainer(key=self.key, cause=cause, container=container)]
        return []

    def _is_left_behind(self, seen: ObservedContainer) -> bool:
        if seen.id in self.draft.context.left_behind:
            return True
        # it shares the namespace of a process that has ended: the container runs but cannot be reached
        names = shared_names(self.container)
        sharing = (
            key for key in joined_keys(self.draft, self.container) if self.draft.declared[key].name in names
        )
        works = (self.draft.works.get(key) for key in sharing)
        return any(isinstance(o, _STARTS) for work in works if work is not None for o in work.operations)


_NOT_AGAIN = (
    "the last change was rolled back; tried again when its section or image changes, or on `reconcile`"
)
_ENDING = frozenset({"dead", "removing"})  # the engine can no longer start a container in these states
_STARTS = (ops.StartContainer, ops.RestartContainer)
# these give up the name that a container has
_NAMES = (ops.RenameContainer, ops.ReplaceContainer, ops.RemoveContainer)
# these make a container with another id
_NEW_OBJECT = (ops.CreateContainer, ops.ReplaceContainer, ops.AdoptContainer)


def _joined(*causes: str) -> str:
    return "; ".join(cause for cause in causes if cause)
