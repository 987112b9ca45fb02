# SPDX-License-Identifier: GPL-2.0-or-later
"""A container as its section was when it was applied last: what runs is looked after by that while a change waits, or
was rolled back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from agent.model.identity import SPEC_VERSION, version_of
from agent.model.observed import Record
from agent.model.resources import (
    Container,
    ContainerSpec,
    Device,
    Endpoint,
    Healthcheck,
    Mount,
    Port,
    RestartPolicy,
    Tmpfs,
    Ulimit,
    WaitFor,
    WaitKind,
)

_PARTS: Mapping[str, type] = {
    "restart": RestartPolicy,
    "health": Healthcheck,
    "ports": Port,
    "mounts": Mount,
    "tmpfs": Tmpfs,
    "endpoints": Endpoint,
    "devices": Device,
    "ulimits": Ulimit,
}


def as_applied(container: Container, record: Record) -> Container | None:
    """`container` with the spec of its record; values of environment variables are hashes in it. None where the
    record's spec is another version's, or that of something that was not ours."""
    if not record.spec_hash or version_of(record.spec_hash) != SPEC_VERSION or "image" not in record.spec:
        return None
    known = {f.name for f in fields(ContainerSpec)}
    try:
        values = {name: _value(name, value) for name, value in record.spec.items() if name in known}
        return replace(container, spec=ContainerSpec(**values))
    except TypeError:
        return None


def _value(name: str, value: Any) -> Any:
    part = _PARTS.get(name)
    if part is not None and isinstance(value, dict):
        return part(**_tuples(value))
    if isinstance(value, list):
        return tuple(part(**_tuples(item)) if part is not None else _plain(item) for item in value)
    return value


def _tuples(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in item.items()}


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, list) else value


def waits_of(container: Container) -> tuple[str, ...]:
    """What a container waits for, as records keep it: `wait_for` and `depends_on` entries, sorted."""
    policy = container.policy
    found = [f"{wanted.kind.value}:{wanted.target}" for wanted in policy.wait_for]
    found += [f"depends_on {wanted.section}:{wanted.condition.value}" for wanted in policy.depends_on]
    return tuple(sorted(found))


def applied_waits(record: Record) -> tuple[WaitFor, ...]:
    """The `wait_for` entries among them."""
    pairs = (text.partition(":") for text in record.waits if not text.startswith("depends_on "))
    known = {kind.value: kind for kind in WaitKind}
    return tuple(WaitFor(kind=known[kind], target=target) for kind, _, target in pairs if kind in known)
