# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine and a container say of a failure: without secrets, the last output, and whether it is a refusal."""

from __future__ import annotations

import math

from agent.apply.ports import Engine, Records
from agent.errors import EngineError, UcidockdError
from agent.model.issues import plain
from agent.model.resources import Container, Desired
from agent.model.secrets import blotter, is_secret_name, secrets_in
from agent.wire.bodies import FrameDecoder, FrameError


def without_secrets(error: UcidockdError, container: Container | None) -> UcidockdError:
    """The same error without secrets, the environment values and tokens of the container that it is about among them."""
    error.args = tuple(blotted(str(word), container) for word in error.args)
    return error


def blotted(text: str, container: Container | None) -> str:
    """`text` without secrets, those of the container that it is about among them."""
    if container is None:
        return blotter(())(text)
    # by value: a program prints its own passwords without the names that tell what they are
    spec, policy = container.spec, container.policy
    values = [value for _, value in spec.env]
    values += [value for name, value in (*spec.log_opts, *spec.labels) if is_secret_name(name)]
    for words in (spec.entrypoint, spec.command, policy.hold_cmd, policy.pre_stop, policy.post_start):
        values += secrets_in(words or ())
    return blotter(values)(text)


# The last lines that a container printed before it failed: they go with it, and say why.


LINES = 10
_LIMIT = 4096  # characters of all lines together
_EVERY_S = 5.0
_CONTAINERS = 64  # whose output is remembered


def last_output(engine: Engine, object_id: str, container: Container | None) -> str:
    """At most 10 lines and 4 KiB, without secrets and control characters; "" where the log cannot be read.

    Never raises EngineError: it is a help, and what it is about has failed already.
    """
    try:
        raw = engine.inspect_output(object_id, lines=LINES)
    except EngineError:
        return ""
    return tidied(raw, container)


class LastOutputs:
    """Of the containers that keep ending: asked for every 5 s at most, as such a loop turns several times a second."""

    def __init__(self, engine: Engine, records: Records) -> None:
        self._engine, self._records = engine, records
        self._known: dict[str, tuple[float, str]] = {}  # id -> when it was asked for, lines

    def of(self, key: str, desired: Desired, *, now: float) -> str:
        """As `last_output`, of the container of a section. `now`: monotonic, seconds."""
        record = next((r for r in self._records.records() if r.key == key and not r.swap), None)
        if record is None:
            return ""
        at, text = self._known.get(record.object_id, (-math.inf, ""))
        if now >= at + _EVERY_S:
            container = next((c for c in desired.containers if c.section == record.section), None)
            text = last_output(self._engine, record.object_id, container)
            # ids change with each replacement: the oldest are of containers that are gone
            self._known = {**dict(list(self._known.items())[-_CONTAINERS:]), record.object_id: (now, text)}
        return text


def tidied(raw: bytes, container: Container | None) -> str:
    """The engine's log stream, framed or (of a container with a terminal) not, as plain text."""
    try:
        data = b"".join(piece for _, piece in FrameDecoder().feed(raw))
    except FrameError:
        data = raw
    text = blotted(data.decode("utf-8", "replace"), container)
    lines = [plain(line.replace("\t", "    ")) for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    kept = "\n".join(lines[-LINES:])
    return kept if len(kept) <= _LIMIT else f"...{kept[-_LIMIT:]}"


# What the engine says when it refuses a container for what it is, so that trying the same again is pointless.
#
# Most of that comes as 400; some of it as 500, as any fault does, and only the words tell them apart.


# lower case, of moby (daemon, runconfig, opts), runc and libnetwork; each was seen, or read in their source
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
    """Whether the engine can never take what it was sent."""
    text = str(exc).lower()
    return exc.status == 400 or (exc.status >= 500 and any(words in text for words in _WORDS))
