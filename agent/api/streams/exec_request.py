# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client asks a console for, in JSON, as an `ExecSpec`: the same by HTTP and on ubus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.api.names import number, text
from agent.api.problems import RequestError
from agent.api.streams.consoles import ExecSpec

_SIZE_LIMIT = 10_000
_WORDS_LIMIT = 1000
_OPTIONS = frozenset({"command", "tty", "user", "env", "workdir", "privileged", "rows", "columns"})


def exec_spec(body: Mapping[str, Any]) -> ExecSpec:
    """The JSON of a request. Raises RequestError that says what is expected."""
    if unknown := sorted(set(body) - _OPTIONS):
        raise RequestError(f"{unknown[0][:64]!r} is not known; known: {', '.join(sorted(_OPTIONS))}")
    env = _words(body, "env", ())
    if any("=" not in item[1:] for item in env):
        raise RequestError("env: expected a list of NAME=value")
    command = _words(body, "command", ExecSpec().command)
    if not command or not command[0]:
        raise RequestError("command: expected a list of at least one word")
    rows, columns = size_of(body)
    return ExecSpec(
        command=command,
        tty=_flag(body, "tty", default=True),
        user=text(body, "user"),
        env=env,
        workdir=text(body, "workdir"),
        privileged=_flag(body, "privileged", default=False),
        rows=rows,
        columns=columns,
    )


def _words(body: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """Text with line breaks is right here: a script as an argument has them."""
    value = body.get(name, list(default))
    if not isinstance(value, list) or len(value) > _WORDS_LIMIT:
        raise RequestError(f"{name}: expected a list of texts")
    if not all(isinstance(word, str) and "\0" not in word for word in value):
        raise RequestError(f"{name}: expected texts without NUL")
    return tuple(value)


def _flag(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{name}: expected true or false")
    return value


def size_of(body: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns, 0 where they are not said. Raises RequestError."""
    rows = number(body, "rows", low=0, high=_SIZE_LIMIT, default=0)
    return rows, number(body, "columns", low=0, high=_SIZE_LIMIT, default=0)
