# SPDX-License-Identifier: GPL-2.0-or-later
"""The answers of `plan` and `reconcile`, the same for every door and for the command line without an agent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agent.apply.swap import SupersededError
from agent.apply.worker_pool import Outcome, SkippedError
from agent.errors import EngineError
from agent.files.config import LoadResult
from agent.model.dockerd.settings import DAEMON_KEY
from agent.model.resources import Desired
from agent.plan import operations as ops
from agent.plan.effects import SCHEMA, operations_as_json, summary_of
from agent.plan.outlook import Entry, Outlook, text_of
from agent.status.conditions import Level

Issues = Sequence[dict[str, Any]]


def entries_of(loaded: LoadResult, desired: Desired | None, holding: str) -> list[Entry]:
    """What planning does not see: a configuration that cannot be used, an agent that is off, a dockerd that holds."""
    found = []
    if loaded.desired is None and loaded.issues:
        message = "it cannot be read; what runs is left alone"
        found.append(Entry(key="configuration", state="invalid", level=Level.ERROR, message=message))
    if desired is None:
        return found
    for key in sorted(desired.broken):
        message = "the section has mistakes; what runs for it is left alone"
        found.append(Entry(key=key, state="invalid", level=Level.ERROR, message=message))
    if not desired.agent.enabled:
        message = "`option enabled '0'` in `config agent`: nothing is changed"
        found.append(Entry(key="agent", state="disabled", level=Level.OFF, message=message))
    if holding:
        found.append(Entry(key=DAEMON_KEY, state="waiting", level=Level.WAITING, message=holding))
    return found


def plan_answer(found: Outlook, issues: Issues) -> dict[str, Any]:
    """`operations` a pass would begin now; `pending`: all else that is not as declared, or not yet; `text` for people.

    `ok` is False where anything is an error: a mistake, a conflict, what failed.
    """
    return {
        "schema": SCHEMA,
        "operations": operations_as_json(found.operations),
        "summary": summary_of(found),
        "pending": [_entry_as_json(entry) for entry in found.entries],
        "text": text_of(found.operations, found.entries),
        "ok": found.ok and _are_fine(issues),
        "issues": list(issues),
    }


def reconcile_answer(found: Outlook, outcomes: Iterable[Outcome], issues: Issues) -> dict[str, Any]:
    """`operations` that were carried out, `failed` ones, and what `found` then still has to say.

    What failed and then worked did not fail.
    """
    outcomes = list(outcomes)
    last = {outcome.operation.key: outcome for outcome in outcomes}
    done = [outcome.operation for outcome in outcomes if outcome.error is None]
    failed = [outcome for outcome in last.values() if outcome.error is not None]
    told = {outcome.operation.key for outcome in failed}
    entries = [entry for entry in found.entries if entry.key not in told or entry.state not in _AFTER_FAILURE]
    return {
        "schema": SCHEMA,
        "operations": operations_as_json(done),
        "summary": summary_of(Outlook(plan=_plan_of(done), entries=tuple(entries))),
        "failed": [_failure_as_json(outcome) for outcome in failed],
        "pending": [_entry_as_json(entry) for entry in entries],
        "text": text_of(done, entries) if done or entries or not failed else "",
        "ok": not failed and found.ok and _are_fine(issues),
        "issues": list(issues),
    }


_AFTER_FAILURE = frozenset({"retry", "rolled back"})


def _are_fine(issues: Issues) -> bool:
    return all(issue["severity"] != "error" for issue in issues)


def _entry_as_json(entry: Entry) -> dict[str, Any]:
    body: dict[str, Any] = {
        "key": entry.key,
        "state": entry.state,
        "level": entry.level.value,
        "message": entry.message,
    }
    if entry.op:
        body["op"] = entry.op
    if entry.retry_in_s is not None:
        body["retry_in"] = round(entry.retry_in_s, 1)
    return body


def _plan_of(operations: Iterable[ops.Operation]) -> ops.Plan:
    return ops.Plan(works=tuple(ops.Work(key=each.key, operations=(each,)) for each in operations))


def _failure_as_json(outcome: Outcome) -> dict[str, Any]:
    output = outcome.error.output if isinstance(outcome.error, EngineError) else ""
    return {
        **({"output": output} if output else {}),
        "op": outcome.operation.verb,
        "key": outcome.operation.key,
        "error": str(outcome.error),
        "skipped": isinstance(outcome.error, SkippedError | SupersededError),
    }
