# SPDX-License-Identifier: GPL-2.0-or-later
"""Desired, applied and observed side by side, field by field: what `ucidockd diff` shows, and what a conflict is about.

Only what the section says is compared with the engine: everything else is the image's or the engine's business.
Planning decides by `agent.plan.container.changes` (applied against desired) and `agent.plan.container.drift` (what
can change at all on a container of ours); this is for people, and for containers that are not ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from agent.model.identity import canonical, masked
from agent.model.observed import Record
from agent.model.resources import Container, ContainerSpec, Mount
from agent.plan.container.changes import LIMITS, is_same_limit
from agent.plan.container.describe import option_of, words
from agent.plan.container.endpoints import endpoint_drift
from agent.plan.container.inspected import DEFAULT_NETWORKS, read_spec
from agent.plan.container.meaning import PLAIN, Defaults, changed_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDifference:
    """One field in words, by the name of its option.

    `edited`: the section changed since it was applied; `drifted`: the engine shows another value.
    """

    field: str
    desired: str
    applied: str  # "" without a record
    observed: str  # "" without a container
    edited: bool
    drifted: bool


def differences(
    container: Container,
    record: Record | None,
    inspect: Mapping[str, Any] | None,
    *,
    names: Mapping[str, str],
    image_id: str,
    defaults: Defaults = PLAIN,
) -> tuple[FieldDifference, ...]:
    """The fields in which the three are not the same, in the order of the spec.

    `names`: see `read_spec`. `image_id`: of the desired image, "" when it is not there. The id decides: what the
    container was created by may be an id, or a reference that stands for another image now. `defaults`: for the record.
    """
    seen = read_spec(inspect, names) if inspect is not None else None
    if seen is not None and inspect is not None and image_id:
        used = str(inspect.get("Image") or "")
        if used == image_id:
            seen = replace(seen, image=container.spec.image)
        elif used and seen.image == container.spec.image:
            seen = replace(seen, image=used)
    wanted = masked(canonical(container.spec))
    shown = masked(canonical(seen)) if seen is not None else {}
    applied = record.spec if record is not None else {}
    # which networks count is for `endpoints` to say: the default one where a section names none, and no other
    networks = endpoint_drift(container, inspect, {}, api=(1, 41)) if inspect is not None else None
    changed = changed_fields("container", applied, wanted, defaults) if record is not None else ()
    found = []
    for field in (f.name for f in fields(ContainerSpec)):
        edited = field in changed
        drifted = seen is not None and not is_met(field, container.spec, seen)
        if field == "endpoints":
            drifted = networks is not None
        if edited or drifted:
            was = words(field, applied.get(field), wanted.get(field))[0] if record is not None else ""
            now, new = words(field, shown.get(field), wanted.get(field))
            if field == "endpoints" and networks is not None:
                now, new = networks.old, new if field in wanted else networks.new
            observed = now if seen is not None and (field in wanted or drifted) else ""
            found.append(
                FieldDifference(
                    field=option_of(field),
                    desired=new,
                    applied=was,
                    observed=observed,
                    edited=edited,
                    drifted=drifted,
                )
            )
    return tuple(found)


def is_met(field: str, wanted: ContainerSpec, seen: ContainerSpec) -> bool:
    """Whether the engine shows what the section says of one field. What it does not say is met."""
    want, have = getattr(wanted, field), getattr(seen, field)
    if want in (None, ()):
        return True
    match field:
        case "network_mode":
            return want == have or (want in DEFAULT_NETWORKS and have is None)
        case "env" | "labels" | "log_opts":
            return set(want) <= set(have)
        case "mounts":
            return all(any(_is_mounted(mount, other) for other in have) for mount in want)
        case "health":
            return all(
                getattr(want, part.name) in (None, (), getattr(have, part.name, None))
                for part in fields(want)
            )
        case "devices":
            return all(d in have for d in want if not d.host.startswith("usb:"))
        case "entrypoint":
            return bool(want == (have or ("",)))
        case "platform":
            return True  # the engine shows that of the image only, and of some containers
        case "security_opt" | "cap_add" | "cap_drop" | "cdi_devices" | "expose":
            return set(want) <= set(have)
    if field in LIMITS:
        return is_same_limit(field, want, have, seen.memory)
    return bool(want == have) or (want is False and have is None)


def _is_mounted(wanted: Mount, seen: Mount) -> bool:
    same = (wanted.target, wanted.read_only) == (seen.target, seen.read_only)
    return same and wanted.source in ("", seen.source)
