# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the results of a pass to the status board: the configuration, findings, outcomes and failures."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.apply.ports import Records
from agent.apply.worker_pool import Outcome, SkippedError
from agent.errors import EngineError, EngineUnreachableError, Reason, StorageError, UcidockdError
from agent.model import entry_text
from agent.model.addresses import webui_ports, with_ports
from agent.model.identity import Key
from agent.model.issues import Issue
from agent.model.observed import ObservedContainer, Record
from agent.model.resources import Container, Desired
from agent.model.updates import CheckResult, result_as_json
from agent.plan import operations as ops
from agent.status.board import StatusBoard
from agent.status.conditions import NOTES, OF_SECTIONS, ConditionType

_KINDS = frozenset({"container", "network", "volume"})  # entries of other kinds belong to other writers
_ENDING = frozenset({"Dead", "Removing"})  # reasons that are true only while the container is in that state


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusWriter:
    """Writes to `board`; `records` say which object each section has."""

    board: StatusBoard
    records: Records

    def invalid(self, issues: tuple[Issue, ...]) -> None:
        """The configuration could not be read; the last good one stays in force."""
        self.board.set_agent(config="Invalid", config_issues=[issue.text() for issue in issues])

    def config(self, desired: Desired, issues: tuple[Issue, ...]) -> None:
        """Shows the accepted sections, and the rejected ones with their mistakes."""
        # some entries, such as `config agent`, are on the board only because of a mistake that may be gone now
        for key in sorted(self.board.keys() - declared(desired).keys() - desired.broken):
            for condition in OF_SECTIONS:
                self.board.clear(key, condition)
            standing = self.board.standing(key, ConditionType.ACCEPTED)
            if Key.parse(key).kind not in _KINDS and standing is not None:
                self.board.clear(key, ConditionType.ACCEPTED)
                if not self.board.has_conditions(key):
                    self.board.drop(key)
        whole = not desired.broken and not any(issue.code in {"file", "syntax"} for issue in issues)
        config = "Accepted" if whole else "PartlyInvalid"
        texts = [issue.text() for issue in issues]
        self.board.set_agent(config=config, config_issues=texts, desired_generation=desired.generation)
        for key, name in declared(desired).items():
            self.board.ensure(key, name)
            self.board.set(key, ConditionType.ACCEPTED, status=True, reason="Valid")
        for container in desired.containers:
            key = Key("container", container.section)
            ports = list(entry_text.ports(container.spec.ports))
            self.board.set_facts(
                key,
                image=container.spec.image,
                stack=container.stack,
                ports=ports,
                webui=webui_of(container),
            )
        for key in sorted(desired.broken):
            self.board.ensure(key)
            section = Key.parse(key).section
            mine = [i.text() for i in issues if i.section == section and i.severity == "error"]
            self.board.set(
                key, ConditionType.ACCEPTED, status=False, reason="Invalid", message="; ".join(mine)
            )

    def restarts(self, observed: Iterable[ObservedContainer]) -> None:
        """Shows how often the engine itself restarted each container, for the containers that were inspected."""
        counts = {c.id: c.inspect.get("RestartCount") or 0 for c in observed if c.inspect is not None}
        for record in self.records.records():
            if record.kind == "container" and not record.swap and record.object_id in counts:
                self.board.set_facts(Key("container", record.section), restarts=counts[record.object_id])

    def updates(self, desired: Desired, results: Mapping[str, CheckResult]) -> None:
        """Shows the result of the last check of each container's image."""
        for container in desired.containers:
            key = Key("container", container.section)
            found = results.get(key)
            if found is not None or self.board.fact(key, "update") is not None:
                self.board.set_facts(key, update=result_as_json(found) if found is not None else None)

    def retries(self, retry_in_s: Mapping[str, float]) -> None:
        """Shows when failed resources are tried again. `retry_in_s`: key -> seconds from now. A difference of one second
        is ignored, because clocks vary."""
        now = self.board.clock()
        for key in sorted(self.board.keys()):
            at = round(now + retry_in_s[key]) if key in retry_in_s else None
            before = self.board.fact(key, "retry_at")
            if (at is None) is not (before is None) or (at and before and abs(at - before) > 1):
                self.board.set_facts(key, retry_at=at)

    def drop_undeclared(self, desired: Desired, busy: Collection[str]) -> None:
        """Drops entries without section and object, such as a section that was removed before it was ever applied: no
        work would remove them."""
        known = declared(desired).keys() | desired.broken | set(busy)
        known |= {record.key for record in self.records.records()}
        for key in sorted(self.board.keys() - known):
            if Key.parse(key).kind in _KINDS:  # entries of other kinds belong to other writers
                self.board.drop(key)

    def image(self, container: Container, *, status: bool, reason: Reason, message: str = "") -> None:
        """Shows the state of a container's image."""
        key = Key("container", container.section)
        self.board.ensure(key, container.name)
        condition = ConditionType.IMAGE_READY
        self.board.set(key, condition, status=status, reason=reason, message=message)

    def engine(self, api: tuple[int, int]) -> None:
        """The engine answers with this API version."""
        self.board.set_agent(engine={"reachable": True, "api": f"{api[0]}.{api[1]}"})

    def engine_failure(self, exc: UcidockdError) -> None:
        """The engine is unreachable; known facts about resources stay on the board."""
        retry = isinstance(exc, EngineError) and exc.retryable
        reason = exc.reason if isinstance(exc, EngineUnreachableError) else EngineUnreachableError.reason
        engine = {"reachable": False, "reason": reason, "error": str(exc), "retryable": retry}
        message = "the engine does not answer"
        # ids, images and applied settings stay: they will be right again when the engine is back
        self.board.set_agent(engine=engine)
        for key in sorted(self.board.keys()):  # what runs is unknown until the engine answers
            for kind in (ConditionType.RUNNING, ConditionType.HEALTHY):
                if Key.parse(key).kind == "container" and self.board.standing(key, kind) is not None:
                    self.board.set(key, kind, status=False, reason="Unknown", message=message)

    def held(self, desired: Desired, why: str) -> None:
        """Another engine than before answers: none of the declared objects is there, and nothing is created."""
        # all declared sections, even those that were never on the board: an empty status would look healthy
        for key, name in declared(desired).items():
            self.board.ensure(key, name)
            self.board.set(key, ConditionType.SYNCED, status=False, reason="EngineChanged", message=why)
        for key in sorted(self.board.keys()):
            if Key.parse(key).kind not in _KINDS:
                continue
            self.board.set_object(key, "")
            # these conditions are about objects that this engine does not have
            for condition in (ConditionType.HEALTHY, ConditionType.WAITING, ConditionType.DEGRADED):
                self.board.clear(key, condition)
            if Key.parse(key).kind == "container":
                self.board.set(key, ConditionType.RUNNING, status=False, reason="EngineChanged", message=why)
        self.board.set_agent(generation="")

    def nothing_to_do(self, generation: str | None) -> None:
        """A pass planned no work. `generation`: the configuration that has been reached, None if it has not."""
        self.ids()
        self.board.set_agent(generation=generation, last_pass=self.board.clock())

    def ids(self, keys: Collection[str] | None = None) -> None:
        """Shows the object id of each of these resources on the engine that answers; None: of every entry on the board."""
        asked = self.board.keys() if keys is None else self.board.keys() & set(keys)
        ids: dict[str, str] = {r.key: r.object_id for r in self.records.records() if not r.swap}
        for key in sorted(asked):
            if Key.parse(key).kind in _KINDS:
                self.board.set_object(key, ids.get(key, ""))

    def losses(self, keys: Collection[str] | None = None) -> None:
        """Shows volumes that others removed and that were recreated empty, until the loss is acknowledged. `keys`: see
        `ids`."""
        asked = self.board.keys() if keys is None else self.board.keys() & set(keys)
        for record in self.records.records():
            key = record.key
            # records of a swap, or of a removed section, have no entry on the board
            if key not in asked or record.swap:
                continue
            if not record.lost:
                self.board.clear(key, ConditionType.DATA_LOST)
                continue
            text = f"removed outside of ucidockd and created again, empty: {', '.join(record.lost)}"
            text += "; `ucidockd reconcile`, or a change of the section, clears this message"
            self.board.set(key, ConditionType.DATA_LOST, status=True, reason="VolumeEmpty", message=text)

    def plan(self, plan: ops.Plan) -> None:
        """Shows the planned operations with their causes, and the findings."""
        # works before findings, so that findings override
        for work in plan.works:
            if self.board.reason(work.key, ConditionType.DEGRADED) == "RolledBack":
                self.board.clear(work.key, ConditionType.DEGRADED)  # because this is another try
            causes = "; ".join(operation.cause for operation in work.operations)
            self._pending(work.key, causes, operations=[operation.verb for operation in work.operations])
        for key in dict.fromkeys(finding.key for finding in plan.findings):
            self.board.ensure(key)
        for finding in plan.findings:
            self._finding(finding)
        told = {(finding.key, finding.type) for finding in plan.findings}
        for running in (finding for finding in plan.findings if finding.type == ConditionType.RUNNING):
            # a container without a check, or that does not run, has no such condition
            for kind in (*NOTES, ConditionType.HEALTHY):
                if (running.key, kind) not in told:
                    self.board.clear(running.key, kind)
            # What was said of an object ends with it, also where nothing takes its place.
            said = self.board.reason(running.key, ConditionType.DEGRADED)
            if (said in _ENDING and said != running.reason) or (said, running.reason) == ("Drift", "Absent"):
                self.board.clear(running.key, ConditionType.DEGRADED)
        for finding in plan.findings:
            waits = finding.type == ConditionType.WAITING and finding.status
            # What failed before is not tried meanwhile, so it is not what keeps the section from being followed.
            if waits and self.board.reason(finding.key, ConditionType.SYNCED) in {"BackOff", "Failed"}:
                self.board.clear(finding.key, ConditionType.SYNCED)
                self.kept(finding.key)
            elif finding.reason == "Conflict":
                self.kept(finding.key)

    def outcome(self, outcome: Outcome) -> None:
        """Shows the result of one operation."""
        operation, error = outcome.operation, outcome.error
        text = "" if error is None else str(error)
        self.board.ensure(operation.key)
        self.board.note(
            operation.key,
            operation.verb,
            cause=operation.cause,
            ok=error is None,
            error=text,
            took_s=round(outcome.took_s, 1),
        )
        # a skipped operation has not failed: show what it waits for; there is no back-off
        if isinstance(error, SkippedError):
            self._pending(operation.key, text)
        elif error is not None:
            self.failure(operation.key, error, rolled_back=error.rolled_back)

    def failure(self, key: str, error: UcidockdError, *, rolled_back: bool = False) -> None:
        """A resource could not be brought to its desired state."""
        reason: Reason = "RolledBack" if rolled_back else "Failed"
        # a full disk has its own reason, because users can fix it immediately
        if isinstance(error, StorageError):
            reason = "StorageFull" if error.full else "StorageFailed"
        self.board.ensure(key)
        text = str(error)
        # the container that printed it may be gone by now
        output = error.output if isinstance(error, EngineError) else ""
        details = {"output": output} if output else {}
        self.board.set(key, ConditionType.DEGRADED, status=True, reason=reason, message=text, details=details)
        self.board.set(key, ConditionType.SYNCED, status=False, reason=reason, message=text)

    def applied(self, key: str) -> None:
        """All operations of a work succeeded."""
        self.board.clear(key, ConditionType.DEGRADED)
        self.board.set(key, ConditionType.SYNCED, status=True, reason="Applied")

    def kept(self, key: str) -> None:
        """The existing container was kept as it was, but its section asks for more: conditions about that stay."""
        if self.board.reason(key, ConditionType.DEGRADED) == "Failed":
            self.board.clear(key, ConditionType.DEGRADED)

    def gone(self, key: str) -> None:
        """The resource no longer exists."""
        self.board.drop(key)

    def _pending(self, key: str, message: str, operations: Sequence[str] = ()) -> None:
        self.board.ensure(key)
        self.board.set(
            key,
            ConditionType.SYNCED,
            status=False,
            reason="Pending",
            message=message,
            details={"operations": " ".join(operations)} if operations else {},
        )

    def _finding(self, finding: ops.Finding) -> None:
        key, condition = finding.key, ConditionType(finding.type)
        if condition is ConditionType.DEGRADED and not finding.status:
            self.board.clear(key, condition)
            return
        if finding.reason == "RolledBack" and self.board.reason(key, condition) == "RolledBack":
            return  # the present condition holds the reason, which planning does not know
        in_sync = condition is ConditionType.SYNCED and finding.status
        # only a deep pass sees drift, so only a deep pass can clear it
        if in_sync and self.board.reason(key, ConditionType.DEGRADED) not in {"", "Drift"}:
            self.board.clear(key, ConditionType.DEGRADED)
        self.board.set(
            key,
            condition,
            status=finding.status,
            reason=finding.reason,
            message=finding.message,
            since=finding.since,
            details={"output": finding.output} if finding.output else {},
        )


def webui_of(container: Container) -> str:
    """The link to its web page with the host ports of its section; a port that the engine chooses stays a placeholder."""
    spec, link = container.spec, container.policy.webui or ""
    published = {
        port.container_port: port.host_port
        for port in spec.ports
        if port.protocol == "tcp" and port.host_port
    }
    # on the host network, container ports are host ports
    if spec.network_mode == "host":
        published = {number: number for number in webui_ports(link)}
    return with_ports(link, published)


def declared(desired: Desired) -> dict[str, str]:
    """Key -> name of every accepted section."""
    groups = (
        ("container", desired.containers),
        ("network", desired.networks),
        ("volume", desired.volumes),
    )
    return {Key(kind, one.section): one.name for kind, resources in groups for one in resources}


# How long objects have been without a section, by a monotonic clock, so that setting the time does not shorten a
# grace period.


class GraceWatch:
    """Called by each pass. For objects that had lost their section before the first call, only the wall clock counts."""

    def __init__(self) -> None:
        self._since: dict[str, float] | None = None  # nonce -> monotonic time

    def update(self, desired: Desired, records: Iterable[Record], *, now: float) -> dict[str, float]:
        """Nonce -> seconds without a section. `now` is monotonic."""
        known = declared(desired).keys() | desired.broken
        orphans = [record for record in records if record.key not in known]
        # the grace period of these began before this agent: only the records know when, by the wall clock
        if self._since is None:
            self._since = {record.nonce: -math.inf for record in orphans if record.removed_at is not None}
        self._since = {record.nonce: self._since.get(record.nonce, now) for record in orphans}
        return {nonce: now - since for nonce, since in self._since.items()}
