# SPDX-License-Identifier: GPL-2.0-or-later
"""The answers of `plan` and `reconcile`, the same for all interfaces and for the command line without an agent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from agent.apply.steps import UndecidedError
from agent.apply.worker_pool import Outcome, SkippedError
from agent.errors import EngineError
from agent.files.config import LoadResult
from agent.model.container_table import ChangeLevel
from agent.model.dockerd.settings import DAEMON_KEY
from agent.model.identity import Key, canonical, masked
from agent.model.observed import ObservedContainer, Record
from agent.model.resources import Container, ContainerSpec, Desired, Update
from agent.model.secrets import hidden_text, hidden_words
from agent.plan import operations as ops
from agent.plan.container.bodies import read_spec
from agent.plan.container.changes import OptionChange, option_changes
from agent.plan.container.difference import FieldDifference, differences
from agent.plan.container.image import keeps_image, named, split_word
from agent.plan.container.meaning import defaults_of
from agent.plan.description import (
    SCHEMA,
    PendingResource,
    PlanDescription,
    operations_as_json,
    summary_of,
    text_of,
)
from agent.plan.draft import desired_spec
from agent.plan.records import as_applied, is_job
from agent.status.board import Condition
from agent.status.conditions import ConditionType, Level
from agent.uci.encode import encode_container

if TYPE_CHECKING:
    from agent.runtime.reconciler import Reconciler

Issues = Sequence[dict[str, Any]]


def entries_of(loaded: LoadResult, desired: Desired | None, holding: str) -> list[PendingResource]:
    """What planning does not see: an unusable configuration, a disabled agent, a dockerd that holds containers up."""
    found = []
    if loaded.desired is None and loaded.issues:
        message = "it cannot be read; what runs is left alone"
        found.append(
            PendingResource(key="configuration", state="invalid", level=Level.ERROR, message=message)
        )
    # without a configuration nothing would be done, so there is nothing more to say
    if desired is None:
        return found
    if loaded.desired is not None and loaded.desired.daemon is not None and loaded.desired.daemon.unreadable:
        message = "/etc/config/dockerd cannot be read; dockerd keeps its settings"
        found.append(PendingResource(key=DAEMON_KEY, state="invalid", level=Level.ERROR, message=message))
    for key in sorted(desired.broken):
        message = "the section has mistakes; what runs for it is left alone"
        found.append(PendingResource(key=key, state="invalid", level=Level.ERROR, message=message))
    if not desired.agent.enabled:
        message = "`option enabled '0'` in `config agent`: nothing is changed"
        found.append(PendingResource(key="agent", state="disabled", level=Level.OFF, message=message))
    if holding:
        found.append(PendingResource(key=DAEMON_KEY, state="waiting", level=Level.WAITING, message=holding))
    return found


def plan_answer(found: PlanDescription, issues: Issues) -> dict[str, Any]:
    """`operations`: what a pass would begin now; `pending`: everything else that is not as declared, or not yet;
    `notes`: remarks about resources that are as declared; `text`: for people.

    `ok` is False if anything is an error: a mistake, a conflict, a failure.
    """
    return {
        # readers of other versions rely on this number instead of guessing from the fields
        "schema": SCHEMA,
        "operations": operations_as_json(found.operations),
        "summary": summary_of(found),
        "pending": [_entry_as_json(entry) for entry in found.entries],
        "notes": [_entry_as_json(note) for note in found.notes],
        "text": text_of(found.operations, found.entries, found.notes),
        "ok": found.ok and _are_fine(issues),
        "issues": list(issues),
    }


def reconcile_answer(found: PlanDescription, outcomes: Iterable[Outcome], issues: Issues) -> dict[str, Any]:
    """`operations` that succeeded, `failed` ones, and what `found` still reports afterwards.

    An operation that failed and then succeeded does not count as failed.
    """
    outcomes = list(outcomes)
    # only the last outcome of each resource: if a retry succeeded, it has succeeded
    last = {outcome.operation.key: outcome for outcome in outcomes}
    done = [outcome.operation for outcome in outcomes if outcome.error is None]
    failed = [outcome for outcome in last.values() if outcome.error is not None]
    told = {outcome.operation.key for outcome in failed}
    # operations that just failed are listed in `failed` with their cause; do not repeat them as "tried again later"
    entries = [entry for entry in found.entries if entry.key not in told or entry.state not in _AFTER_FAILURE]
    plan = ops.Plan(works=tuple(ops.Work(key=each.key, operations=(each,)) for each in done))
    return {
        "schema": SCHEMA,
        "operations": operations_as_json(done),
        "summary": summary_of(PlanDescription(plan=plan, entries=tuple(entries))),
        "failed": [
            {
                **({"output": o.error.output} if isinstance(o.error, EngineError) and o.error.output else {}),
                "op": o.operation.verb,
                "key": o.operation.key,
                "error": str(o.error),
                "skipped": isinstance(o.error, SkippedError | UndecidedError),
            }
            for o in failed
        ],
        "pending": [_entry_as_json(entry) for entry in entries],
        "notes": [_entry_as_json(note) for note in found.notes],
        "text": text_of(done, entries, found.notes) if done or entries or not failed else "",
        "ok": not failed and found.ok and _are_fine(issues),
        "issues": list(issues),
    }


class SettleWatch:
    """Whether to keep watching containers that a reconcile started, until they have run for `settle_s` seconds; each new
    start restarts the time.

    Without it, a container that ends immediately would be reported as started. `clock`: monotonic, seconds.
    """

    LOOK_S = 0.5  # seconds between two checks

    def __init__(self, settle_s: float, clock: Callable[[], float]) -> None:
        self._settle_s, self._clock = settle_s, clock
        self._starts, self._until = 0, -math.inf

    def lasts(self, outcomes: Iterable[Outcome]) -> bool:
        """Whether to check again. `outcomes`: all outcomes so far."""
        starts = sum(o.error is None and isinstance(o.operation, _STARTS) for o in outcomes)
        if starts > self._starts:
            self._starts, self._until = starts, self._clock() + self._settle_s
        return self._clock() < self._until


_STARTS = (ops.CreateContainer, ops.StartContainer, ops.RestartContainer)  # a replacement has its own gate
_AFTER_FAILURE = frozenset({"retry", "rolled back"})


def _are_fine(issues: Issues) -> bool:
    return all(issue["severity"] != "error" for issue in issues)


def _entry_as_json(entry: PendingResource) -> dict[str, Any]:
    body: dict[str, Any] = {
        "key": entry.key,
        "state": entry.state,
        "level": entry.level.value,
        "message": entry.message,
    }
    # left out instead of null: people's scripts print these answers as they are
    if entry.op:
        body["op"] = entry.op
    if entry.output:
        body["output"] = entry.output
    if entry.retry_in_s is not None:
        body["retry_in"] = round(entry.retry_in_s, 1)
    return body


# `ucidockd diff NAME` and `describe NAME`: one container as its section says, as last applied, and as the engine
# reports it.
#
# Blocking.


def diff(reconciler: Reconciler, name: str) -> dict[str, Any]:
    """`name` is a section or a Docker name. Raises ConfigError for an unknown name, EngineError."""
    container = reconciler.declared().container(name)
    key = Key("container", container.section)
    records = [r for r in reconciler.records.records() if r.kind == "container" and not r.swap]
    record = next((r for r in records if r.section == container.section), None)
    seen = reconciler.engine.inspect_container(record.object_id if record else container.name)
    names = {r.object_id: r.name for r in records}
    # Plan a whole pass: what happens to one container may follow from another one (shared networks, swapped names).
    plan = reconciler.make_plan(deep=None)
    image_id = reconciler.images.ids.get(container.spec.image, "")
    # a container that keeps its image is compared with that image, not with the one that the tag names now
    if record is not None and (record.pinned or keeps_image(container, record)):
        image_id = record.image_id
    daemon = reconciler.desired.daemon if reconciler.desired is not None else None
    defaults = defaults_of(daemon, reconciler.images.defaults.get(record.image_id if record else ""))
    inspect = seen.inspect if seen else None
    found = differences(container, record, inspect, names=names, image_id=image_id, defaults=defaults)
    rows = (*_outside(container, record, seen), *found)
    return {
        "key": key,
        "name": container.name,
        "object_id": seen.id if seen else "",
        "ours": record is not None,
        "in_progress": reconciler.under_way.doing(key),
        "fields": [asdict(row) for row in rows],
        "operations": [
            {"op": op.verb, "key": op.key, "cause": op.cause} for op in plan.operations if op.key == key
        ],
        "output": _failed_output(reconciler, key),
        "findings": [
            {"type": f.type, "status": f.status, "reason": f.reason, "message": f.message}
            for f in plan.findings
            if f.key == key
        ],
    }


def _failed_output(reconciler: Reconciler, key: str) -> str:
    """The last output of a container that failed to start or keeps ending."""
    # read from the board: the rollback removed the container that printed it
    standing = (
        reconciler.board.standing(key, kind) for kind in (ConditionType.DEGRADED, ConditionType.RUNNING)
    )
    return next((c.details["output"] for c in standing if c is not None and "output" in c.details), "")


def _outside(
    container: Container, record: Record | None, seen: ObservedContainer | None
) -> tuple[FieldDifference, ...]:
    """Differences outside the spec: whether the container exists, its name, whether it runs."""
    # a single row instead of one per option: only its absence matters
    if seen is None:
        return (_row("container", "declared", "created" if record else "", "absent"),)
    rows = []
    if seen.name != container.name:
        rows.append(_row("name", container.name, record.name if record else "", seen.name))
    runs = container.policy.should_run
    if runs is not (seen.state in ("running", "restarting")):
        rows.append(_row("state", "running" if runs else "stopped", "", seen.state))
    return tuple(rows)


def _row(field: str, desired: str, applied: str, observed: str) -> FieldDifference:
    edited = applied not in ("", "created", desired)
    return FieldDifference(
        field=field, desired=desired, applied=applied, observed=observed, edited=edited, drifted=True
    )


# everything about one section

DESCRIBE_SCHEMA = 1
"""Version of the answer of `describe`: incremented when a field changes its meaning or is removed."""


def describe(reconciler: Reconciler, name: str) -> dict[str, Any]:
    """Everything about a container section; `name` may be its Docker name. Raises ConfigError, EngineError.

    For an invalid section, the options are those that its container was created with.
    """
    container, record = _described(reconciler, name)
    is_broken = f"container:{container.section}" in reconciler.declared().broken
    key = Key("container", container.section)
    # planned here instead of read from the board: without a running agent the board is empty
    plan = reconciler.make_plan(deep=None)
    seen = reconciler.engine.inspect_container(record.object_id) if record and record.object_id else None
    inspect = seen.inspect if seen is not None and seen.inspect is not None else {}
    # by the id in use: the tag may name another image by now
    image = reconciler.engine.inspect_image(str(inspect.get("Image") or container.spec.image))
    resource = reconciler.board.resource(key) or {}
    return {
        "schema": DESCRIBE_SCHEMA,
        "key": key,
        "section": container.section,
        "name": container.name,
        "stack": container.stack,
        "object_id": seen.id if seen is not None else "",
        "state": _state(inspect),
        "options": _options(reconciler, container, image, "last applied" if is_broken else "section"),
        "conditions": _conditions(plan, key, resource),
        "in_progress": reconciler.under_way.doing(key),
        "pending": [{"op": op.verb, "cause": op.cause} for op in plan.operations if op.key == key],
        "operations": resource.get("operations", []),
        "retry_at": resource.get("retry_at"),
        "mounts": _mounts(inspect),
        "networks": _networks(inspect),
        "ports": _ports(inspect, resource.get("reach") or {}),
        "webui": resource.get("webui", ""),
        "image": _image(reconciler, container, record, inspect, image or {}, is_broken=is_broken)
        | {"check": resource.get("update")},
        "output": _failed_output(reconciler, key),
    }


def _described(reconciler: Reconciler, name: str) -> tuple[Container, Record | None]:
    """The section and its record. For an invalid section the container from its record, which keeps running."""
    declared = reconciler.declared()
    records = [r for r in reconciler.records.records() if r.kind == "container" and not r.swap]
    known = {container.section for container in declared.containers}
    broken = next((r for r in records if r.section not in known and name in (r.section, r.name)), None)
    if broken is None or broken.key not in declared.broken:
        container = declared.container(name)
        return container, next((r for r in records if r.section == container.section), None)
    image = str(broken.spec.get("image") or "")
    # a minimal section to hold the record's settings: the present UCI text is invalid
    bare = Container(section=broken.section, name=broken.name, spec=ContainerSpec(image=image))
    return as_applied(bare, broken) or bare, broken


def _state(inspect: Mapping[str, Any]) -> dict[str, Any]:
    state = inspect.get("State") or {}
    health = state.get("Health") or {}
    return {
        "status": state.get("Status") or "absent",
        "started_at": state.get("StartedAt") or "",
        "exit_code": state.get("ExitCode"),
        "restarts": inspect.get("RestartCount") or 0,
        "health": health.get("Status") or "",
        "created": inspect.get("Created") or "",
    }


def _options(
    reconciler: Reconciler, container: Container, image: Mapping[str, Any] | None, source: str
) -> list[dict[str, Any]]:
    """Each option with its value as a section would write it, and its origin: `source`, image or default."""
    spec = desired_spec(container)
    found = [_option(change, source) for name in spec for change in _written(name, spec[name])]
    bare = Container(section=container.section, name=container.name, spec=ContainerSpec(image="-"))
    policy = encode_container(replace(bare, policy=container.policy))
    found += [
        # hooks are commands and may contain a password
        {
            "option": each.name,
            "value": hidden_words(each.value) if isinstance(each.value, tuple) else hidden_text(each.value),
            "from": source,
        }
        for each in policy.options
        if each.name not in ("name", "image")
    ]
    given = {row["option"] for row in found}
    theirs = read_spec({"Config": (image or {}).get("Config") or {}}, {})
    of_image = masked(canonical(theirs))
    for name in ("user", "workdir", "entrypoint", "command", "stop_signal", "health"):
        rows = _written(name, of_image[name]) if of_image.get(name) and name not in spec else ()
        found += [_option(change, "image") for change in rows if change.option not in given]
    daemon = reconciler.desired.daemon if reconciler.desired is not None else None
    for name, value in defaults_of(daemon).engine.items():
        if value and name not in spec:
            found += [_option(change, "default") for change in _written(name, value)]
    if "restart" not in spec and not is_job(container):
        found.append({"option": "restart", "value": "started again by ucidockd", "from": "default"})
    return found


def _written(name: str, value: Any) -> tuple[OptionChange, ...]:
    return option_changes(name, None, value, ChangeLevel.RECREATE)


def _option(change: OptionChange, source: str) -> dict[str, Any]:
    return {"option": change.option, "value": change.as_json()["after"], "from": source}


def _conditions(plan: ops.Plan, key: str, resource: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The board's conditions, plus planning's findings, with levels and sentences. Without an agent most come from
    planning."""
    # the details hold the output of failed containers, which has its own field
    told = [{n: v for n, v in each.items() if n != "details"} for each in resource.get("conditions", ())]
    # the board takes precedence: it knows the time of each change, and the results of the last pass
    known = {each["type"] for each in told}
    found = {f.type: f for f in plan.findings if f.key == key and f.type not in known}
    return [
        *told,
        *(
            Condition(
                type=ConditionType(f.type),
                status=f.status,
                reason=f.reason,
                # the board masks its messages; these have not passed through it
                message=hidden_text(f.message),
                since=f.since or 0,
            ).as_json()
            for f in found.values()
        ),
    ]


def _mounts(inspect: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "type": item.get("Type") or "",
            # a volume is identified by its name; the engine's path to it is irrelevant
            "source": item.get("Name") or item.get("Source") or "",
            "target": item.get("Destination") or "",
            "read_only": not item.get("RW", True),
        }
        for item in inspect.get("Mounts") or ()
    ]


def _networks(inspect: Mapping[str, Any]) -> list[dict[str, Any]]:
    networks = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    return [
        {
            "name": name,
            "ip": item.get("IPAddress") or "",
            "ip6": item.get("GlobalIPv6Address") or "",
            "mac_address": item.get("MacAddress") or "",
            "gateway": item.get("Gateway") or "",
        }
        for name, item in networks.items()
    ]


def _ports(inspect: Mapping[str, Any], reach: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """Published ports. `reach`: `8080/tcp` -> firewall zones; `zones` is null if unknown."""
    found = []
    for inner, outers in ((inspect.get("NetworkSettings") or {}).get("Ports") or {}).items():
        # null means that the port is exposed but not published
        for outer in outers or ():
            protocol = inner.partition("/")[2] or "tcp"
            address, port = outer.get("HostIp") or "0.0.0.0", str(outer.get("HostPort") or "")
            found.append(
                {
                    "address": address,
                    "port": port,
                    "container_port": inner,
                    "zones": reach.get(f"{port}/{protocol}"),
                }
            )
    return found


def _image(
    reconciler: Reconciler,
    container: Container,
    record: Record | None,
    inspect: Mapping[str, Any],
    image: Mapping[str, Any],
    *,
    is_broken: bool,
) -> dict[str, Any]:
    """The image in use. `pull` and `policy` are empty for an invalid section, whose settings are unknown."""
    reference, used = container.spec.image, str(inspect.get("Image") or "")
    if is_broken:  # passes do not look up the image of an invalid section
        local = str((reconciler.engine.inspect_image(reference) or {}).get("Id") or "")
    else:
        local = reconciler.images.ids.get(reference, "")
    if not used:
        update = "local" if local else "not pulled"
    elif not local:
        update = "untagged"
    else:
        update = "current" if local == used else "newer"
    return {
        "reference": reference,
        "id": used or local,
        "digest": (record.digest if record is not None else "").partition("@")[2]
        or next((str(each).partition("@")[2] for each in image.get("RepoDigests") or ()), ""),
        "created": image.get("Created") or "",
        "pull": "" if is_broken else str(container.policy.pull),
        "update": update,
        "policy": "" if is_broken else str(container.policy.update or Update.NOTIFY),
        "pinned": record is not None and record.pinned,
        "previous": [named(*split_word(word)) for word in record.previous] if record is not None else [],
        "saved": named(*split_word(record.saved[1])) if record is not None and len(record.saved) == 2 else "",
    }
