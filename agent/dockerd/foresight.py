# SPDX-License-Identifier: GPL-2.0-or-later
"""What a plan says of dockerd: which change a configuration would make to it, and which containers that stops."""

from __future__ import annotations

from agent.dockerd.stage import DaemonStage
from agent.errors import UcidockdError
from agent.model.dockerd.settings import DAEMON_KEY, Effect
from agent.model.resources import Desired
from agent.plan import operations as ops
from agent.plan.daemon import Change, as_wished, classify
from agent.plan.outlook import Entry
from agent.status.conditions import Level


def foreseen(stage: DaemonStage, desired: Desired) -> tuple[tuple[ops.ChangeDaemon, ...], list[Entry]]:
    """The change that `desired` makes, and why there will be none where dockerd did not take it before.

    Nothing where dockerd's settings are not ours, or it is stopped by hand. Changes nothing and makes no certificates.
    """
    settings, record = desired.daemon, stage.files.load()
    if settings is None or settings.unreadable or record.stopped or not stage.manages(desired):
        return (), []
    try:
        target, _ = stage.preview(settings, desired.agent, networks=desired.networks, make=False)
    except UcidockdError as exc:
        return (), [Entry(key=DAEMON_KEY, state="blocked", level=Level.ERROR, message=str(exc))]
    if record.failed and target.digest == record.failed:
        message = f"not tried again until the configuration changes: {record.why}"
        return (), [Entry(key=DAEMON_KEY, state="rolled back", level=Level.ERROR, message=message)]
    running = stage.finds_dockerd()
    change = as_wished(classify(record.running, target), settings)
    if not running:
        change = Change(effect=Effect.RESTART, causes=("dockerd does not run",))
    if change.effect is Effect.NOTHING:
        return (), []
    cause = change.cause
    if running and change.effect is Effect.RESTART:
        stopped = stage.stopped_by(change, record.running, desired.agent)
        cause += f"; containers stop: {', '.join(stopped)}" if stopped else "; no container stops"
    step = str(change.effect) if running else "start"
    return (ops.ChangeDaemon(key=DAEMON_KEY, cause=cause, step=step),), []
