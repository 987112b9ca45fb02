# SPDX-License-Identifier: GPL-2.0-or-later
"""Planning one container: what it waits for, what changed since it was last applied, what drifted, whether it runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.errors import Reason
from agent.model.container_table import Level, too_new
from agent.model.identity import Key, canonical, spec_hash
from agent.model.observed import ObservedContainer, Record
from agent.model.resources import Container, DependsOn, OnDrift, OnUnhealthy, Pull, RunState, Strategy, Update
from agent.plan import operations as ops
from agent.plan.applied import as_applied, is_job, waits_of
from agent.plan.container.changes import FieldChange, change_of, classify, option_of, options_of
from agent.plan.container.difference import container_drift, differences, is_met
from agent.plan.container.endpoints import network_ids, with_mac_level
from agent.plan.container.image import (
    Choice,
    Newer,
    choose,
    digest_of,
    is_tried,
    keeps_image,
    named,
    newer,
    put_off,
)
from agent.plan.container.inspected import read_spec, volumes_of
from agent.plan.container.meaning import is_same_image, meaning_hash, newly_stated
from agent.plan.container.renames import name_outside
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
from agent.status.conditions import REASON_OF_STATE


def plan_container(draft: Draft, container: Container) -> None:
    """Adds the work on one container. Those that it depends on, networks and volumes are planned before."""
    _Planner(draft, container).plan()


class _Planner:
    def __init__(self, draft: Draft, container: Container) -> None:
        self.draft, self.container = draft, container
        self.key = Key("container", container.section)
        self.record = draft.record("container", container.section)
        self.needs = needs_of(draft, container)
        self.reported: list[str] = []  # drift that is not to be repaired
        self.image = Choice()

    def plan(self) -> None:
        draft = self.draft
        self._choose_image()
        if draft.hands_off(self.key, self.record):
            return
        seen = _seen(draft, self.container.section)
        self._show_image()
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
        if self.key in draft.context.backoff:
            if self.record is not None and seen is not None:
                self._look_after(self.record, seen)
            return
        missing = self._missing()
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

    def _unknown_to_engine(self, unknown: tuple[str, ...], seen: ObservedContainer | None) -> None:
        """The engine would leave those options out without a word. What runs stays as it is."""
        major, minor = self.draft.context.api
        message = (
            f"{'; '.join(unknown)}; this engine has API {major}.{minor}: remove the option or update Docker"
        )
        self._find("Synced", status=False, reason="EngineTooOld", message=message)
        self.draft.withheld[self.key] = (
            f"{self.container.section} has an option that this engine does not know"
        )
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

    # what it waits for

    def _missing(self) -> Missing | None:
        turn = self.draft.turns.get(self.key)
        if turn is not None and turn.stop:
            return turn
        waiting = self.draft.context.waiting.get(self.key)
        if waiting is not None:
            lost = self.draft.context.lost.get(self.key)
            stop, keep = lost is not None and lost.stop, lost is None and (turn is None or turn.keep)
            return Missing(reason=waiting.reason, stop=stop, keep=keep)
        return turn or self._dependency_missing()

    def _wait(self, missing: Missing, seen: ObservedContainer | None) -> None:
        self.draft.find(
            self.key, "Waiting", status=True, reason="Waiting", message=missing.reason, once=missing.once
        )
        self.draft.withheld[self.key] = f"{self.container.section} waits: {missing.reason}"
        record = self.record
        if seen is None or record is None:
            return
        pending = self._is_pending(record, seen)
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
            return  # whatever it did could take what is another's
        else:
            todo = self._as_applied(record, seen, start=missing.keep)
            self.draft.add(self.key, todo, self.needs, partial=pending)

    def _is_pending(self, record: Record, seen: ObservedContainer) -> bool:
        """Whether the section says something that has not been applied yet."""
        if self._edited(record, seen):
            return True
        waits = record.waits_known and record.waits != waits_of(self.container)
        return waits or bool(self._outside_change(record, ()))

    def _as_applied(
        self, record: Record, seen: ObservedContainer, *, start: bool = True
    ) -> list[ops.Operation]:
        """Looks after what runs by what it was applied with: a change of its section waits, or was refused."""
        self._note_look(seen)
        container = as_applied(self.container, record)
        changes: tuple[FieldChange, ...] = ()
        if container is not None and seen.inspect is not None:
            changes = self._to_repair(self._drift(container, record, seen.inspect))
            fixed = [change for change in changes if change.level is Level.RECREATE]
            if fixed:  # what it was made of is not known in full: values of variables are hashes
                self.reported.append(describe(fixed))
        todo = self._in_place(record, seen, changes, container, again=True)
        running = self._running(record, seen)
        starts = [o for o in running if isinstance(o, ops.StartContainer)]
        return [*todo, *(o for o in running if start or o not in starts), *self._renaming(record, seen)]

    def _dependency_missing(self) -> Missing | None:
        for key in self.needs:
            if key in self.draft.withheld and not self._is_satisfied(key):
                reason, once = self.draft.withheld[key], f"{key.partition(':')[2]} is ready"
                keep = key in self.draft.unchanged or self._is_new_need(key)
                return Missing(reason=reason, once=once, keep=keep)
        for wanted in self.container.policy.depends_on:
            if self.draft.context.assume_met:
                break
            if not _condition_met(self.draft, wanted.section, wanted.condition):
                state = f"{wanted.section} is {wanted.condition}"
                keep = self._is_new_need(Key("container", wanted.section))
                return Missing(
                    reason=f"{wanted.section} is not {wanted.condition} yet", once=state, keep=keep
                )
        return None

    def _is_new_need(self, key: str) -> bool:
        """Whether what runs was applied without it, and so can do without."""
        record = self.record
        if record is None or not record.waits_known:
            return False
        kind, _, section = key.partition(":")
        if kind == "container":
            before = {text.split(":")[0].removeprefix("depends_on ") for text in record.waits}
            sharing = {Key("container", c.section) for c in self.draft.desired.containers} & set(
                joined_keys(self.draft, self.container)
            )
            return section not in before and key not in sharing
        applied = as_applied(self.container, record)
        return applied is not None and key not in needs_of(self.draft, applied)

    def _is_satisfied(self, key: str) -> bool:
        """A prerequisite that runs, or did its job, is good enough, whatever cannot be done to it now."""
        return any(
            key == Key("container", wanted.section)
            and _condition_met(self.draft, wanted.section, wanted.condition, planned=False)
            for wanted in self.container.policy.depends_on
        )

    # not there

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
        # labels prove nothing: what has the name and no record of ours belongs to someone else
        if foreign is not None and not container.policy.adopt:
            image_id = self.draft.context.image_ids.get(container.spec.image, "")
            found = differences(container, None, foreign.inspect, names={}, image_id=image_id)
            differing = [difference.field for difference in found]
            how = f"; it differs in {', '.join(differing)}" if differing else ""
            self.draft.conflict(self.key, f"a container named {container.name} exists and is not ours{how}")
            return
        # taking a container over stops it: what failed once is not tried again until the section or the image changes
        failed = self._failed_adoption(foreign) if foreign is not None else None
        if failed is not None:
            self.draft.find_rolled_back(self.key, failed, _NOT_AGAIN)
            return
        if foreign is not None:
            cause = f"takes over the container {foreign.name} ({foreign.id[:12]})"
            adopt = ops.AdoptContainer(key=self.key, cause=cause, container=container, foreign=foreign)
            self.draft.add(self.key, [adopt], self.needs)
            return
        cause, image = "declared, does not exist yet", self.image
        if self.record is not None:
            cause = "removed outside of ucidockd"
            if self.record.asked and keeps_image(container, self.record):
                image = Choice(
                    keep=self.record.image_id
                )  # as it was; what was asked for follows as a replacement
        todo: list[ops.Operation] = [
            *room,
            ops.CreateContainer(
                key=self.key, cause=cause, container=container, keep=image.keep, fresh=image.fresh
            ),
        ]
        if container.policy.state is RunState.RUNNING:
            todo.append(ops.StartContainer(key=self.key, cause="wanted: running", container=container))
        self.draft.add(self.key, todo, self.needs)

    def _go_on(self, record: Record, seen: ObservedContainer | None) -> None:
        """A replacement that removes the old image first and was cut short, whatever is there of it by now."""
        swap = ops.ReplaceContainer(
            key=self.key,
            cause="continues: the old image went before the pull of the new one (`strategy free-first`)",
            container=self.container,
            record=record,
            runs=seen is not None and is_alive(seen),
            frees=True,
        )
        self.draft.add(self.key, [swap], self.needs)

    def _failed_adoption(self, foreign: ObservedContainer) -> Record | None:
        """What is remembered of an attempt to take it over that failed."""
        tried = (
            record
            for record in self.draft.context.records
            if record.swap == "foreign" and record.object_id == foreign.id and self._failed_before(record)
        )
        return next(tried, None)

    # there

    def _present(self, record: Record, seen: ObservedContainer) -> None:
        if seen.state in _ENDING:
            message = (
                f"the engine has it in state {seen.state}; if that stays, `docker rm -f {seen.name}` helps"
            )
            self._find("Degraded", status=True, reason=REASON_OF_STATE[seen.state], message=message)
            self.draft.withheld[self.key] = f"{self.container.section} is {seen.state}"
            return
        if seen.name != self.container.name and self.container.name in self.draft.context.foreign:
            self._nameless(record, seen)
            return
        changes = self._changes(record, seen)
        why = self._outside_change(record, changes)
        if (why or changes) and self._failed_before(record):
            self._rolled_back(record, seen)
            return
        if why or any(change.level is Level.RECREATE for change in changes):
            held_back = self.draft.context.held_back.get(self.key)
            if held_back is not None:
                self._hold_back(record, seen, held_back)
                return
            room = self._make_room()
            if room is None:
                return
            frees = self._frees(changes)
            swap = ops.ReplaceContainer(
                key=self.key,
                cause=_joined(describe(changes), why, "the old image is removed first" if frees else ""),
                changes=options_of(changes),
                besides=why,
                container=self.container,
                record=record,
                runs=is_alive(seen),
                keep=self.image.keep,
                digest=self.image.digest,
                fresh=self.image.fresh,
                pin=self.image.pin,
                only_image=why == self.image.why and not changes,
                restores=self.image.restores,
                frees=frees,
            )
            self.draft.add(self.key, [*room, swap], self.needs)
            return
        # that it runs does not hang on its name, which somebody may have taken
        todo = [
            *self._in_place(record, seen, changes, self.container),
            *self._running(record, seen),
            *self._renaming(record, seen),
        ]
        if self.reported:
            self._find("Degraded", status=True, reason="Drift", message="; ".join(self.reported))
        elif seen.inspect is not None and not todo and not self._update_failed(record):
            self._find("Degraded", status=False, reason="Recovered")
        if todo:
            self.draft.add(self.key, todo, self.needs)
        elif self._update_failed(record):
            message = f"the update was rolled back; `ucidockd update {self.container.section}` tries again"
            self.draft.find_rolled_back(self.key, record, message)
        else:
            self._find("Synced", status=True, reason="InSync", message=_remarks(record))

    def _frees(self, changes: tuple[FieldChange, ...]) -> bool:
        """Whether another image comes, and the old one is to go first."""
        other = bool(self.image.why) or any(change.field in ("image", "platform") for change in changes)
        return self.container.policy.strategy is Strategy.FREE_FIRST and other and not self.image.restores

    def _hold_back(self, record: Record, seen: ObservedContainer, why: str) -> None:
        """Its own command asks for time; what runs is looked after as it was applied."""
        self._find("Waiting", status=True, reason="Waiting", message=why)
        self._find("Synced", status=False, reason="Waiting", message=f"the replacement waits: {why}")
        self.draft.unchanged.add(self.key)
        self._look_after(record, seen)

    def _nameless(self, record: Record, seen: ObservedContainer) -> None:
        """Another container has its name: a swap or a renaming would fail half-way. What runs is left as it is."""
        todo = [o for o in self._as_applied(record, seen) if not isinstance(o, ops.RenameContainer)]
        self.draft.add(self.key, todo, self.needs, partial=True)
        message = f"a container named {self.container.name} exists and is not ours; ours is {seen.name}"
        self._find("Synced", status=False, reason="Conflict", message=message)

    def _rolled_back(self, record: Record, seen: ObservedContainer) -> None:
        """Only a new spec or image is worth a new try; until then the old one is looked after as it was applied."""
        self._look_after(record, seen)
        self.draft.find_rolled_back(self.key, record, "; ".join((_NOT_AGAIN, *self.reported)))

    def _look_after(self, record: Record, seen: ObservedContainer) -> None:
        """Keeps what runs as it was applied, for as long as that with which it was is there."""
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
        """What asks for a new container although the section does not: image, shared namespace, USB device."""
        other_image = any(change.field == "image" for change in changes)
        image = "" if other_image else self.image.why
        return _joined(image, self._joined_change(record), self._plugged_change(record))

    def _failed_before(self, record: Record) -> bool:
        """Whether what would be tried now was rolled back. What is asked for is tried whatever happened before."""
        return not record.asked and self._has_failed_with(record, self.image.keep or self._local_image())

    def _update_failed(self, record: Record) -> bool:
        """Whether the image that its reference names now was tried, and rolled back."""
        found = self._newer(record)
        if found is None and self.container.policy.strategy is Strategy.FREE_FIRST:
            # what failed was removed again, so nothing here shows that there is something newer
            return record.failed_meaning.partition("@")[0] == meaning_hash(
                "container", desired_spec(self.container)
            )
        return found is not None and self._is_tried(record, found)

    def _is_tried(self, record: Record, found: Newer) -> bool:
        return is_tried(record, found) or self._has_failed_with(record, found.image_id)

    def _has_failed_with(self, record: Record, image_id: str) -> bool:
        tried = failure_of(self.container, image_id)
        return bool(record.failed_hash) and (
            record.failed_hash == tried["failed_hash"] or record.failed_meaning == tried["failed_meaning"]
        )

    def _choose_image(self) -> None:
        """Decides which image it is to be made of, and tells of a newer one."""
        record, context = self.record, self.draft.context
        if record is None:
            return
        found = self._newer(record)
        tried = found is not None and self._is_tried(record, found)
        self.image = choose(self.container, record, context, found, tried=tried)
        policy = self.container.policy.update or Update.NOTIFY
        if record.pinned:
            text = f"taken back to image {named(record.image_id, self._digest())}"
            message = f"{text}, and stays on it until its section changes or `ucidockd update` is asked for"
            self._find("Pinned", status=True, reason="Pinned", message=message)
        if found is None or policy is Update.OFF:
            return
        runs = named(record.image_id, self._digest())
        message = f"{self.container.spec.image} is now {found.text}, the container runs {runs}"
        if policy is Update.AUTO and not (record.pinned or tried):
            later = put_off(self.container, record, found, context)
            message += f"; updated {later}" if later else ""
        else:
            message += f"; `ucidockd update {self.container.section}` replaces it"
        self._find("UpdateAvailable", status=True, reason="NewerImage", message=message, since=found.since)

    def _newer(self, record: Record) -> Newer | None:
        context = self.draft.context
        offered = context.offered.get(self.key)
        return newer(self.container, record, context.image_ids, context.image_digests, offered)

    def _digest(self) -> str:
        record = self.record
        if record is None:
            return ""
        digests = self.draft.context.image_digests
        return record.digest or digest_of(record.image_id, self.container.spec.image, digests)

    def _local_image(self) -> str:
        """The id of the image that its reference names now, "" = it has to be pulled first."""
        local = self.draft.context.image_ids.get(self.container.spec.image, "")
        return local or self._recorded_image()

    def _recorded_image(self) -> str:
        """The image that its reference stood for when it was applied, where that is still local."""
        record = self.record
        if record is None or not is_same_image(record.spec.get("image"), self.container.spec.image):
            return ""
        return self.draft.context.image_ids.get(record.image_id, "")

    def _joined_change(self, record: Record) -> str:
        """In the namespace of one that is replaced a container is lost, and with its volumes it may miss new ones."""
        if not lending_names(self.container):
            return ""
        replaced = [
            key
            for key in joined_keys(self.draft, self.container)
            if key in self.draft.works
            and any(isinstance(o, _NEW_OBJECT) for o in self.draft.works[key].operations)
        ]
        ids = joined_ids(self.draft.context.records, self.container)
        if replaced or (record.joined and ids and record.joined != ids):
            what = "namespace it shares" if shared_names(self.container) else "volumes it mounts"
            return f"the container whose {what} was replaced"
        return ""

    def _plugged_change(self, record: Record) -> str:
        moved = sorted(set(plugged_words(self.container)) - set(record.plugged))
        return "; ".join(f"{name} is {path} now" for name, _, path in (m.partition("=") for m in moved))

    def _changes(self, record: Record, seen: ObservedContainer) -> tuple[FieldChange, ...]:
        api = self.draft.context.api
        edited = with_mac_level(self._edited(record, seen), record.spec, self.container, api)
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
        """Of the changes made outside of ucidockd, those that are to be undone."""
        if drift and self.container.policy.on_drift is OnDrift.REPORT:
            self.reported.append(describe(drift))
            return ()
        return drift

    def _edited(self, record: Record, seen: ObservedContainer) -> tuple[FieldChange, ...]:
        """What the section asks for differently than it did when the container was made."""
        if record.spec_hash == self.draft.spec_hash_of(self.key, self.container):
            return ()
        wanted = desired_spec(self.container)
        unread = {each.field for each in self.container.unread}
        changes = tuple(
            change
            for change in classify(record.spec, wanted, self.draft.defaults(record.image_id))
            if change.field not in unread
        )
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
        """`container` says what it is to be; with `again` that is what it was applied with, None where nobody knows."""
        key = self.key
        todo: list[ops.Operation] = []
        policy = self.container.policy
        kept = (record.grace_s, record.remove_volumes) != (policy.grace_s, policy.remove_volumes)
        waits = not again and (not record.waits_known or record.waits != waits_of(self.container))
        # a record of version 0.1.0 does not say what it waited for: it is written down once there is something to wait for
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
        # anonymous volumes that the record does not name would be lost with the next replacement
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
        updates = tuple(change for change in changes if change.level is Level.UPDATE)
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
        moved = tuple(change for change in changes if change.level is Level.RECONNECT)
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

    def _renaming(self, record: Record, seen: ObservedContainer) -> list[ops.Operation]:
        if seen.name == self.container.name:
            return []
        cause = f"named {seen.name}, declared {self.container.name}"
        by_hand = record.name == self.container.name and not name_outside(seen.name, "old")
        if self.container.policy.on_drift is OnDrift.REPORT and by_hand:
            self.reported.append(cause)
            return []
        room = self._make_room()
        if room is None:
            return []
        return [
            *room,
            ops.RenameContainer(key=self.key, cause=cause, container=self.container, record=record),
        ]

    def _make_room(self) -> list[ops.Operation] | None:
        """What gets its Docker name free, where another of ours has it; None while an earlier plan is at that one."""
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
            self.needs = (*self.needs, key)  # that one gets another name before
            return []
        draft.after.setdefault(key, set()).add(self.key)
        return [ops.SetAsideContainer(key=self.key, cause=f"{name} is no longer {key}'s", record=holder)]

    def _network_is_new(self, container: Container) -> str:
        """A network that was removed and is made again has another id: a container keeps the old one."""
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
        wanted = container.policy.enabled and container.policy.state is RunState.RUNNING
        if not wanted and is_alive(seen):
            cause = "disabled" if not container.policy.enabled else "wanted: stopped"
            timeout = container.spec.stop_timeout_s
            return [ops.StopContainer(key=self.key, cause=cause, record=record, stop_timeout_s=timeout)]
        # a job that is switched off and on again runs once more
        if not wanted and seen.id in self.draft.context.completed and record.completed:
            cause = "its job must be done again"
            return [
                ops.NoteContainer(key=self.key, cause=cause, container=container, record=record, again=True)
            ]
        if not wanted or (self._is_completed(seen) and not self._has_changed(record, seen)):
            return []
        # the engine refuses to start a paused container
        if seen.state == "paused":
            cause = "it is paused, wanted: running"
            return [ops.UnpauseContainer(key=self.key, cause=cause, record=record)]
        if not is_alive(seen):
            cause = f"it is {seen.state}, wanted: running"
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
        names = shared_names(self.container)
        sharing = (
            key for key in joined_keys(self.draft, self.container) if self.draft.declared[key].name in names
        )
        works = (self.draft.works.get(key) for key in sharing)
        return any(isinstance(o, _STARTS) for work in works if work is not None for o in work.operations)

    def _is_completed(self, seen: ObservedContainer) -> bool:
        return seen.id in self.draft.context.completed

    def _has_changed(self, record: Record, seen: ObservedContainer) -> bool:
        """A job whose section says something new does it again."""
        return bool(self._edited(record, seen)) and not self._failed_before(record)

    def _show_image(self) -> None:
        image = self.container.spec.image
        local = self.draft.context.image_ids.get(image)
        if local:
            self._find("ImageReady", status=True, reason="Present")
        elif local is not None and (recorded := self._recorded_image()):
            short = recorded.removeprefix("sha256:")[:12]
            message = f"{image} is no longer local under this name; its image {short} is used"
            self._find("ImageReady", status=True, reason="Untagged", message=message)
        elif local is not None and self.key not in self.draft.context.backoff:  # else the pull said more
            never = self.container.policy.pull is Pull.NEVER
            message = "`option pull never` forbids to pull it" if never else "it is pulled when it is needed"
            self._find(
                "ImageReady", status=False, reason="Missing", message=f"{image} is not there; {message}"
            )


_NOT_AGAIN = (
    "the last change was rolled back; tried again when its section or image changes, or on `reconcile`"
)
_ENDING = frozenset({"dead", "removing"})  # the engine starts such a container no more
_STARTS = (ops.StartContainer, ops.RestartContainer)
_NAMES = (ops.RenameContainer, ops.ReplaceContainer, ops.RemoveContainer)
_NEW_OBJECT = (ops.CreateContainer, ops.ReplaceContainer, ops.AdoptContainer)


def _seen(draft: Draft, section: str) -> ObservedContainer | None:
    record = draft.record("container", section)
    return draft.containers_seen.get(record.object_id) if record else None


def _condition_met(draft: Draft, section: str, condition: DependsOn, *, planned: bool = True) -> bool:
    """Whether a prerequisite is as far as it has to be; `planned`: to be started by this very plan is enough."""
    work = draft.works.get(Key("container", section))
    if condition is DependsOn.STARTED and planned and work is not None:
        return not any(isinstance(operation, ops.StopContainer) for operation in work.operations)
    seen = _seen(draft, section)
    if seen is None:
        return False
    if condition is DependsOn.HEALTHY:
        return seen.health == "healthy"
    completed = seen.id in draft.context.completed
    return completed or (condition is DependsOn.STARTED and seen.state == "running")


def needs_of(draft: Draft, container: Container) -> tuple[str, ...]:
    """Keys of the resources that have to be in place first, of broken sections too."""
    needs: list[str] = [Key("container", wanted.section) for wanted in container.policy.depends_on]
    needs += joined_keys(draft, container)
    networks, volumes = draft.networks_declared, draft.volumes_declared
    needs += [Key("network", networks.get(e.network, e.network)) for e in container.spec.endpoints]
    sources = [m.source for m in container.spec.mounts if m.source and not m.is_bind]
    needs += [Key("volume", volumes.get(source, source)) for source in sources]
    return tuple(dict.fromkeys(needs))


def joined_keys(draft: Draft, container: Container) -> tuple[str, ...]:
    """Keys of the managed containers whose namespaces or volumes a container shares."""
    names = lending_names(container)
    if not names:
        return ()
    return tuple(Key("container", c.section) for c in draft.desired.containers if c.name in names)


def attempt_of(container: Container, image_id: str) -> str:
    """What a swap tried: spec, image and devices. A rolled-back attempt is not made again."""
    return "@".join((spec_hash(desired_spec(container)), image_id, *plugged_words(container)))


def failure_of(container: Container, image_id: str) -> dict[str, Any]:
    """What a record keeps of an attempt that was rolled back."""
    meant = meaning_hash("container", desired_spec(container))
    return {
        "failed_hash": attempt_of(container, image_id),
        "failed_meaning": "@".join((meant, image_id, *plugged_words(container))),
    }


def is_alive(seen: ObservedContainer) -> bool:
    """Whether it has a process, or will have one again without anybody's doing."""
    return seen.state in {"running", "restarting", "paused"}


def is_completed(container: Container, seen: ObservedContainer, *, replaces: bool = False) -> bool:
    """Whether one that was just started, and ended, did its job. `replaces`: one that ran has made room for it.

    With `on-failure` a service may mean itself too: then it is none that ends at once where another ran on.
    """
    if seen.exit_code != 0 or not is_job(container):
        return False
    restart = container.spec.restart
    return not replaces or restart is None or restart.name == "no"


def describe(changes: Iterable[FieldChange]) -> str:
    """Changes in words: `memory 1 -> 2; restart no -> always`."""
    return "; ".join(f"{option_of(change.field)} {change.old} -> {change.new}" for change in changes)


def _remarks(record: Record) -> str:
    """What is worth knowing of a container that is as declared."""
    ignored = f"the engine ignores {', '.join(record.ignored)}" if record.ignored else ""
    places = (f"{name[:12]} ({target})" for name, _, target in (word.partition("=") for word in record.left))
    kept = f"volumes that are no longer mounted are kept: {', '.join(places)}" if record.left else ""
    return _joined(ignored, kept, record.remark)


def _joined(*causes: str) -> str:
    return "; ".join(cause for cause in causes if cause)
