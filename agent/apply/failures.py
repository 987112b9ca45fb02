# SPDX-License-Identifier: GPL-2.0-or-later
"""Texts of failures from the engine and from containers: without secrets, with the last output, and whether the engine
refused."""

from __future__ import annotations

import math

from agent.apply.ports import Engine, Records
from agent.errors import EngineError, UcidockdError
from agent.model.issues import plain
from agent.model.observed import ObservedContainer
from agent.model.resources import Container, Desired
from agent.model.secrets import is_secret_name, redactor, secrets_in
from agent.plan.records import moment, was_stopped
from agent.wire.bodies import FrameDecoder, FrameError


def without_secrets(error: UcidockdError, container: Container | None) -> UcidockdError:
    """Masks secrets in an error's text, including environment values and tokens of the container concerned."""
    error.args = tuple(redacted(str(word), container) for word in error.args)
    return error


def redacted(text: str, container: Container | None) -> str:
    """`text` without secrets, including those of the container concerned."""
    if container is None:
        return redactor(())(text)
    # by value: a program prints its passwords without the names that would identify them
    spec, policy = container.spec, container.policy
    values = [value for _, value in spec.env]
    values += [value for name, value in (*spec.log_opts, *spec.labels) if is_secret_name(name)]
    for words in (spec.entrypoint, spec.command, policy.hold_cmd, policy.pre_stop, policy.post_start):
        values += secrets_in(words or ())
    return redactor(values)(text)


# The last lines that a container printed before it failed. They are shown with the failure and often explain it.


LINES = 10  # of a container's log
_LIMIT = 4096  # characters of all lines together
_EVERY_S = 5.0
_CONTAINERS = 64  # number of containers whose output is remembered


def last_output(engine: Engine, object_id: str, container: Container | None) -> str:
    """At most 10 lines and 4 KiB, without secrets and control characters; "" if the log cannot be read.

    Never raises EngineError: the output only helps to explain a failure that is already being reported.
    """
    try:
        raw = engine.inspect_output(object_id, lines=LINES)
    except EngineError:
        return ""
    return tidied(raw, container)


def was_stopped_from_outside(engine: Engine, seen: ObservedContainer) -> bool | None:
    """See `agent.plan.records.was_stopped`; `seen` comes from an inspect. Raises EngineError."""
    # up to the engine's own time, because its clock may differ from ours
    now = moment(str(engine.info().get("SystemTime") or "")) or 0.0
    config = (seen.inspect or {}).get("Config") or {}
    return was_stopped(engine.past_events(seen.id, f"{now:.9f}"), str(config.get("StopSignal") or ""))


class LastOutputs:
    """The last output of containers that keep ending. The engine is asked at most every 5 s, because such a loop may run
    several times a second."""

    def __init__(self, engine: Engine, records: Records) -> None:
        self._engine, self._records = engine, records
        self._known: dict[str, tuple[float, str]] = {}  # id -> when it was asked for, lines

    def of(self, key: str, desired: Desired, *, now: float) -> str:
        """As `last_output`, for the container of a section. `now`: monotonic, seconds."""
        record = next((r for r in self._records.records() if r.key == key and not r.swap), None)
        if record is None:
            return ""
        at, text = self._known.get(record.object_id, (-math.inf, ""))
        if now >= at + _EVERY_S:
            container = next((c for c in desired.containers if c.section == record.section), None)
            text = last_output(self._engine, record.object_id, container)
            # ids change with each replacement, so the oldest entries are of containers that no longer exist
            self._known = {**dict(list(self._known.items())[-_CONTAINERS:]), record.object_id: (now, text)}
        return text


def tidied(raw: bytes, container: Container | None) -> str:
    """The engine's log stream as plain text; it is framed, except for a container with a terminal."""
    try:
        data = b"".join(piece for _, piece in FrameDecoder().feed(raw))
    except FrameError:
        data = raw
    text = redacted(data.decode("utf-8", "replace"), container)
    # tabs first: `plain` drops control characters, and words would run together
    lines = [plain(line.replace("\t", "    ")) for line in text.replace("\r\n", "\n").split("\n")]
    # empty lines at the end would take the place of lines that explain something
    while lines and not lines[-1].strip():
        lines.pop()
    kept = "\n".join(lines[-LINES:])
    return kept if len(kept) <= _LIMIT else f"...{kept[-_LIMIT:]}"


# Tells whether the engine refuses a container because of its settings, so that a retry with the same settings is
# pointless.
#
# Most refusals come with status 400, but some with status 500 like any internal error. Only the text distinguishes
# these.


# lower case, from moby (daemon, runconfig, opts), runc and libnetwork; each was observed, or read in the source
_WORDS = (
    "invalid --security-opt",  # daemon/daemon_unix.go, parseSecurityOpt
    "decoding seccomp profile failed",
    "no log driver named",  # daemon/logger/factory.go
    "unknown log opt",
    "unknown or invalid runtime name",
    "unknown runtime specified",
    "invalid capadd",
    "invalid capdrop",
    "unknown capability",
    "invalid signal",
    "invalid ulimit type",
    "invalid mount config",
    "invalid volume specification",
    "invalid mode",
    "invalid reference format",
    "invalid ip address",
    "invalid mac address",
    "invalid isolation",
    "bad format for add-host",
    "conflicting options",
    "cannot share the host's network namespace",
    "is not in a separate kernel namespace",  # runc, sysctls
    "invalid containerport",
    "invalid port",
    "invalid range format",
    "could not select device driver",
    "unresolvable cdi devices",
    "cdi device injection failed",
    "unknown log driver",
)


def is_refusal(exc: EngineError) -> bool:
    """Whether the engine can never accept what it was sent."""
    text = str(exc).lower()
    return exc.status == 400 or (exc.status >= 500 and any(words in text for words in _WORDS))
