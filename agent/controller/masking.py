# SPDX-License-Identifier: GPL-2.0-or-later
"""Hides the values of environment variables in what the engine tells a reader: passwords live there.

Inspects of containers (`Config.Env`), images (`Config.Env`, `ContainerConfig.Env`), services and tasks
(`ContainerSpec.Env`) and plugins (`Settings.Env`, `Config.Env[].Value`), and the process of an exec.
"""

from __future__ import annotations

from typing import Any

from agent.errors import EngineError

MASK = "***"
_NAMES = frozenset({"env", "environment"})


def mask_env(value: Any) -> Any:
    """A copy of decoded JSON with `K=***` for each variable, wherever an `Env` stands. The names stay.

    Raises EngineError for what is nested too deeply to be looked through.
    """
    try:
        return _copy(value)
    except RecursionError as exc:
        raise EngineError("the engine's answer is nested too deeply") from exc


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _masked(inner) if name.lower() in _NAMES else _copy(inner) for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_copy(inner) for inner in value]
    return value


def _masked(value: Any) -> Any:
    if isinstance(value, list):
        return [_masked_variable(item) for item in value]
    if isinstance(value, dict):
        return dict.fromkeys(value, MASK)
    return value if value is None else MASK


def _masked_variable(item: Any) -> Any:
    if isinstance(item, dict):
        return {name: inner if name == "Name" else MASK for name, inner in item.items()}
    name, equals, _ = str(item).partition("=")
    return f"{name}={MASK}" if equals else name
