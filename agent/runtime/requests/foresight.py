# SPDX-License-Identifier: GPL-2.0-or-later
"""What a pass would do now, or if a change were committed. Changes and remembers nothing.

It observes and plans like a pass. Then it adds what planning does not see: an unusable configuration, dockerd's part,
works in progress, and why something was rolled back. `planning` turns it into answers.

`ucidockd render` prints daemon.json without its passwords; with `--diff`, also what the change would require and which
containers it would stop. It only asks the engine for the names of its running containers.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace

from agent.dockerd.stage import DaemonStage, Tools, make_stage
from agent.errors import ConfigError, UcidockdError
from agent.files.config import LoadResult, load
from agent.files.options import RuntimeOptions
from agent.model.dockerd.settings import DAEMON_KEY, DaemonTarget, Effect
from agent.model.dockerd.table import TABLE
from agent.model.identity import Key
from agent.model.issues import GivenConfig, Issue
from agent.model.resources import Desired
from agent.plan import operations as ops
from agent.plan.daemon import DaemonPlan, LeftOut, apply_live_restore, classify, difference, masked
from agent.plan.description import PendingResource, PlanDescription, describe_plan
from agent.plan.reconcile import reconcile
from agent.runtime.reconciler import PlanInput, Reconciler
from agent.runtime.requests.planning import entries_of
from agent.status.board import StatusBoard
from agent.status.conditions import ConditionType, Level

_LOOKS = 3  # on a busy router works end during each look, and the answer must not wait for that


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenChange:
    """A given configuration. If single sections are given: also the configuration `before` them, and their `keys`."""

    loaded: LoadResult
    before: LoadResult | None
    keys: frozenset[str]


def foresee(of: Reconciler) -> PlanDescription:
    """What a pass would do now, and everything else that is not as declared. Raises EngineError."""
    return _described(of, of.last, of.desired, committed=True)


def mistakes(of: Reconciler, given: GivenConfig) -> tuple[Issue, ...]:
    """The mistakes in a given configuration, including settings that this router does not support. Raises ConfigError."""
    loaded = of.load_given(given)
    return loaded.issues if of.daemon is None else (*loaded.issues, *not_here(of.daemon, loaded))


def load_change(of: Reconciler, given: GivenConfig) -> GivenChange:
    """Reads a given configuration for `foresee_change`. Raises ConfigError for values that UCI cannot express."""
    loaded = of.load_given(given)
    # the configuration without the given sections: the difference to it answers what the change would do
    before = of.load_given(replace(given, sections={})) if given.sections else None
    names = {name for sections in given.sections.values() for name in sections}
    keys = {Key(kind, name) for name in names for kind in ("container", "network", "volume")}
    return GivenChange(loaded=loaded, before=before, keys=frozenset(keys))


def foresee_change(of: Reconciler, change: GivenChange) -> PlanDescription:
    """What a pass would do if the change were committed. For single sections: only their effects. Raises EngineError."""
    found = _described(of, change.loaded, change.loaded.desired, committed=False)
    if change.before is None:
        return found
    before = _described(of, change.before, change.before.desired, committed=False)
    return found.beyond(before, own=change.keys)


def _look(of: Reconciler, desired: Desired, *, committed: bool) -> tuple[PlanInput, dict[str, str]]:
    """The input of planning, and what is in progress: key -> in words."""
    for _ in range(_LOOKS):
        before = of.under_way.words()
        look = of.plan_input(desired, None, {}, committed=committed)
        # Planning leaves a resource alone that was being worked on. If the work has ended since, nothing would be said
        # of it, as if it were as declared.
        if look.context.busy <= of.under_way.keys():
            break
    now = of.under_way.words()
    return look, {key: now.get(key) or before.get(key) or "being changed" for key in look.context.busy}


def _described(
    of: Reconciler, loaded: LoadResult, desired: Desired | None, *, committed: bool
) -> PlanDescription:
    holding = of.daemon.holding if of.daemon is not None else ""
    extra = entries_of(loaded, desired, holding)
    if desired is None or not desired.agent.enabled:
        return PlanDescription(plan=ops.Plan(), entries=tuple(extra))
    # dockerd first, as in a pass: its restart comes before operations on containers
    before: tuple[ops.ChangeDaemon, ...] = ()
    if of.daemon is not None and not holding:
        before, failed = foreseen(of.daemon, desired)
        extra += failed
    # a person waits for this answer, so it may make calls that a pass avoids
    of.engine_records.identify(thoroughly=True)
    look, busy = _look(of, desired, committed=committed)
    plan = reconcile(look.desired, look.observed, look.context)
    if committed:
        plan = of.with_outputs(plan, desired)
    # show what waits for another resource together with the operations that follow once that is ready
    later = plan
    if any(finding.once for finding in plan.findings):
        later = reconcile(look.desired, look.observed, replace(look.context, assume_met=True))
    found = describe_plan(
        plan,
        later,
        busy=busy,
        retry_in_s=of.backoff.retry_in(of.monotonic()),
        extra=extra,
    )
    entries = list(found.entries)
    for i, entry in enumerate(entries):
        # planning only knows that there was a rollback; the board knows why
        why = of.board.standing(entry.key, ConditionType.DEGRADED)
        told = why is not None and why.reason == "RolledBack" and why.message not in entry.message
        if entry.state == "rolled back" and why is not None and told:
            entries[i] = replace(entry, message=f"{why.message}; {entry.message}")
    return replace(found, entries=tuple(entries), before=before)


_PROXIES = frozenset(row.uci for row in TABLE if row.section == "proxies")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """`text` is daemon.json with passwords masked; `stopped` names the containers that the change stops."""

    text: bytes
    difference: str
    change: DaemonPlan
    stopped: tuple[str, ...]
    messages: tuple[str, ...]


def preview(options: RuntimeOptions) -> Preview:
    """Compares the present UCI with the running settings. Invalid options are left out and reported in the messages.

    Raises ConfigError if UCI cannot be read at all, DaemonError without a dockerd program.
    """
    desired = load(options).desired
    if desired is None or (desired.daemon is not None and desired.daemon.unreadable):
        raise ConfigError("the configuration cannot be read; `ucidockd check` says why")
    if desired.daemon is None:
        raise ConfigError(
            "no section configures dockerd, expected `config globals 'globals'` in /etc/config/dockerd"
        )
    # a stage with its own status board, so that the preview leaves no trace in the agent's
    stage = make_stage(options, desired.agent, StatusBoard(time.time), Tools())  # makes no certificates
    target, messages = stage.preview(desired.daemon, desired.agent, networks=desired.networks)
    running = stage.files.load().running
    change = apply_live_restore(_change(stage, running, target), desired.daemon)
    old = masked(running.document) if running is not None else b""
    return Preview(
        text=masked(target.document),
        difference=difference(old, masked(target.document)),
        change=change,
        stopped=stage.stopped_by(change, running, desired.agent),
        messages=(*desired.daemon_mistakes, *messages),
    )


def _change(stage: DaemonStage, running: DaemonTarget | None, target: DaemonTarget) -> DaemonPlan:
    if running is None and not stage.is_dockerd_running():
        return DaemonPlan(effect=Effect.RESTART, causes=("dockerd does not run",))
    return classify(running, target)


def as_text(found: Preview) -> str:
    """The text for people: the difference, then what the change requires."""
    lines = [found.difference] if found.difference else []
    match found.change.effect:
        case Effect.NOTHING:
            lines.append("nothing to do")
        case Effect.RELOAD:
            lines.append(f"reload (SIGHUP), no container stops: {found.change.cause}")
        case Effect.RESTART:
            which = f"containers stop: {', '.join(found.stopped)}" if found.stopped else "no container stops"
            lines.append(f"restart, {which}: {found.change.cause}")
    return "\n".join(lines)


def as_json(found: Preview) -> dict[str, object]:
    """The preview for programs."""
    return {
        "effect": found.change.effect.value,
        "causes": list(found.change.causes),
        "stopped": list(found.stopped),
        "difference": found.difference,
        "messages": list(found.messages),
    }


# What a plan says about dockerd: the change that a configuration would cause, and which containers it stops.


def foreseen(
    stage: DaemonStage, desired: Desired
) -> tuple[tuple[ops.ChangeDaemon, ...], list[PendingResource]]:
    """The change that `desired` causes, or why there will be none because dockerd refused it before.

    Empty if dockerd's settings are not ours, or if it was stopped manually. Changes nothing and creates no
    certificates.
    """
    # reads files and the process table: a command may ask for a preview while no agent runs
    settings, record = desired.daemon, stage.files.load()
    if settings is None or settings.unreadable or record.stopped or not stage.manages(desired):
        return (), []
    try:
        target, _ = stage.preview(settings, desired.agent, networks=desired.networks, make=False)
    except UcidockdError as exc:
        return (), [PendingResource(key=DAEMON_KEY, state="blocked", level=Level.ERROR, message=str(exc))]
    # reported here too; otherwise a user who previews the same mistake again would expect it to be tried
    if record.failed and target.digest == record.failed:
        message = f"not tried again until the configuration changes: {record.why}"
        return (), [PendingResource(key=DAEMON_KEY, state="rolled back", level=Level.ERROR, message=message)]
    running = stage.is_dockerd_running()
    change = apply_live_restore(classify(record.running, target), settings)
    if not running:
        change = DaemonPlan(effect=Effect.RESTART, causes=("dockerd does not run",))
    if change.effect is Effect.NOTHING:
        return (), []
    cause = change.cause
    if running and change.effect is Effect.RESTART:
        stopped = stage.stopped_by(change, record.running, desired.agent)
        cause += f"; containers stop: {', '.join(stopped)}" if stopped else "; no container stops"
    step = str(change.effect) if running else "start"
    return (ops.ChangeDaemon(key=DAEMON_KEY, cause=cause, step=step),), []


def not_here(stage: DaemonStage, loaded: LoadResult) -> tuple[Issue, ...]:
    """The dockerd settings that this router or its dockerd does not support, and a daemon.json of the user's that dockerd
    does not accept, as warnings. Creates no certificates."""
    desired = loaded.desired
    if desired is None or desired.daemon is None or desired.daemon.unreadable:
        return ()
    found: tuple[LeftOut, ...] = ()
    if not stage.manages(desired):
        if trouble := stage.trouble_with_own_file(desired):
            found = (LeftOut("alt_config_file", f"{trouble}: dockerd will not start with it"),)
    else:
        with contextlib.suppress(UcidockdError):  # not known without a dockerd program
            found = stage.left_out(desired.daemon, desired.agent, networks=desired.networks)
    places = [loaded.lines.get(option, ("", 0)) for option, _ in found]
    return tuple(
        Issue(
            severity="warning",
            code="questionable",
            package="dockerd",
            section="proxies" if option in _PROXIES else "globals",
            option=option,
            file=file,
            line=line,
            message=why,
        )
        for (option, why), (file, line) in zip(found, places, strict=True)
    )
