# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares desired, applied and observed state field by field: for `ucidockd diff`, and to describe conflicts.

Only options that the section sets are compared with the engine; the image or the engine decides about the rest.
Planning itself uses `agent.plan.container.changes` (applied against desired) and the drift below (the settings that
can change on a container of ours). `differences` is for people, and for containers that are not ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from agent.model.container_table import BY_FIELD, ChangeLevel
from agent.model.identity import canonical, fingerprint, masked
from agent.model.observed import Record
from agent.model.resources import DEFAULT_NETWORKS, Container, ContainerSpec, Network, Volume
from agent.plan.container.bodies import read_spec, update_body
from agent.plan.container.changes import (
    LIMITS,
    FieldChange,
    is_same_limit,
    level_of,
    option_changes,
    option_of,
    words,
)
from agent.plan.container.endpoints import endpoint_drift
from agent.plan.container.meaning import PLAIN, Defaults, changed_fields
from agent.plan.records import as_applied
from agent.uci.decode_network import BRIDGE_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDifference:
    """One field in words, named by its option.

    `edited`: the section changed since it was applied. `drifted`: the engine reports another value than the applied
    one or, if nothing was applied, than the declared one.
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
    """The fields in which desired, applied and observed state are not all the same, in the order of the spec.

    `names`: see `read_spec`. `image_id`: id of the desired image, "" if the image is not present. Images are compared
    by id, because the container may have been created from an id, or from a reference that now names another image.
    `defaults`: for comparing with the record.
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
    # `endpoint_drift` knows which networks count: a section without networks means the default network only
    networks = endpoint_drift(container, inspect, {}, api=(1, 41)) if inspect is not None else None
    changed = changed_fields("container", applied, wanted, defaults) if record is not None else ()
    found = []
    unread = {each.field for each in container.unread}
    for field in (f.name for f in fields(ContainerSpec) if f.name not in unread):
        edited = field in changed
        differs = seen is not None and not is_met(field, container.spec, seen)
        if field == "endpoints":
            differs = networks is not None
        if edited or differs:
            drifted = differs
            if edited and record is not None and seen is not None and inspect is not None:
                drifted = _has_drifted(field, container, record, seen, inspect)
            was = words(field, applied.get(field), wanted.get(field))[0] if record is not None else ""
            now, new = words(field, shown.get(field), wanted.get(field))
            if field == "endpoints" and networks is not None:
                now, new = networks.old, new if field in wanted else networks.new
            if field == "image" and inspect is not None:
                now = _image_words(inspect)
            observed = now if seen is not None and (field in wanted or differs) else ""
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


def _has_drifted(
    field: str, container: Container, record: Record, seen: ContainerSpec, inspect: Mapping[str, Any]
) -> bool:
    """Whether the engine reports another value for this field than the one applied."""
    before = as_applied(container, record)
    if before is None:
        return False  # not known
    match field:
        case "image":
            return bool(record.image_id) and inspect.get("Image") != record.image_id
        case "endpoints":
            return endpoint_drift(before, inspect, {}, api=(1, 41)) is not None
        case "env":  # the record stores hashes of the values
            shown = masked({"env": [list(pair) for pair in seen.env]})["env"]
            return not {tuple(pair) for pair in record.spec.get("env", ())} <= {tuple(pair) for pair in shown}
        case "seccomp":
            return seen.seccomp is None or fingerprint(seen.seccomp) != before.spec.seccomp
    return not is_met(field, before.spec, seen)


def _image_words(inspect: Mapping[str, Any]) -> str:
    """The reference that the container was created from, and its image id."""
    reference = str((inspect.get("Config") or {}).get("Image") or "")
    short = str(inspect.get("Image") or "").removeprefix("sha256:")[:12]
    return f"{reference} ({short})" if short and not reference.startswith("sha256:") else short or reference


def is_met(field: str, wanted: ContainerSpec, seen: ContainerSpec) -> bool:
    """Whether the engine reports what the section sets for one field. A field that the section does not set is met."""
    want, have = getattr(wanted, field), getattr(seen, field)
    if want in (None, ()):
        return True
    match field:
        case "network_mode":
            return want == have or (want in DEFAULT_NETWORKS and have is None)
        case "env" | "labels" | "log_opts":
            return set(want) <= set(have)
        case "mounts":
            # a mount without a source is an anonymous volume, whose name the engine chose
            shown = [(other.target, other.read_only, other.source) for other in have]
            return all(
                any(
                    (target, read_only) == (mount.target, mount.read_only) and mount.source in ("", source)
                    for target, read_only, source in shown
                )
                for mount in want
            )
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
            return True  # the engine reports the platform of the image only, and not for every container
        case "security_opt" | "cap_add" | "cap_drop" | "cdi_devices" | "expose":
            return set(want) <= set(have)
    if field in LIMITS:
        return is_same_limit(field, want, have, seen.memory)
    return bool(want == have) or (want is False and have is None)


# Changes made to a container outside of ucidockd.
#
# The engine can change only three things of an existing container: the fields of `POST /containers/{id}/update`, its
# networks and its name (compared elsewhere). Everything else is fixed for the container id in state.json. Only fields
# that the user set are compared.


FIELDS = tuple(  # ContainerSpec field, HostConfig key
    (field, BY_FIELD[field].key.partition(".")[2]) for field in sorted(LIMITS)
)


def container_drift(
    container: Container,
    inspect: dict[str, Any],
    networks: Mapping[str, str],
    *,
    api: tuple[int, int],
    ignored: Collection[str] = (),
) -> tuple[FieldChange, ...]:
    """The differences between a container's spec and the body of GET /containers/{id}/json.

    `networks`: see `endpoints.network_ids`; a container may still refer to a network that was removed. `api`: the API
    version that the engine speaks. `ignored`: see `Record.ignored`.
    """
    # compare only what can be changed in place: the engine has no call that changes anything else, so it cannot drift
    changes = _resources(container, inspect.get("HostConfig") or {})
    endpoints = endpoint_drift(container, inspect, networks, api=api, ignored=ignored)
    found = (*changes, endpoints) if endpoints else changes
    return tuple(change for change in found if change.field not in ignored)


def _resources(container: Container, host: dict[str, Any]) -> tuple[FieldChange, ...]:
    changes = []
    for field, key in FIELDS:
        wanted, seen = getattr(container.spec, field), host.get(key)
        if wanted is not None and not is_same_limit(field, wanted, seen, host.get("Memory")):
            level = level_of(field, seen, wanted)
            old, new = words(field, seen, wanted)
            options = option_changes(field, seen, wanted, level)
            changes.append(FieldChange(field=field, old=old, new=new, level=level, options=options))
    # restart is compared apart from the limits: it is an object in which the engine omits zero values
    if container.spec.restart is not None:
        wanted = update_body(container.spec, ["restart"])["RestartPolicy"]
        seen = host.get("RestartPolicy") or {}
        if (wanted["Name"], wanted["MaximumRetryCount"]) != (
            seen.get("Name"),
            seen.get("MaximumRetryCount", 0),
        ):
            was = {"name": seen.get("Name") or "no", "max_retries": seen.get("MaximumRetryCount", 0)}
            now = canonical(container.spec.restart)
            old, new = words("restart", was, now)
            options = option_changes("restart", was, now, ChangeLevel.UPDATE)
            changes.append(
                FieldChange(field="restart", old=old, new=new, level=ChangeLevel.UPDATE, options=options)
            )
    return tuple(changes)


def network_difference(network: Network, inspect: dict[str, Any]) -> tuple[str, ...]:
    """The option groups in which a foreign network (body of GET /networks/{id}) differs from its section."""
    spec = network.spec
    pairs = {
        "driver": (spec.driver, inspect.get("Driver")),
        "internal": (spec.internal, inspect.get("Internal")),
        "attachable": (spec.attachable, inspect.get("Attachable")),
        "ipv6": (spec.ipv6, inspect.get("EnableIPv6")),
    }
    differing = [name for name, (wanted, seen) in pairs.items() if wanted != seen]
    # for lists compare only the section's entries: the creator of the network may have set more
    if not set(spec.options) <= set(network_options(inspect).items()):
        differing.append("options")
    if not set(spec.labels) <= set((inspect.get("Labels") or {}).items()):
        differing.append("labels")
    pools = {p.get("Subnet"): p for p in ((inspect.get("IPAM") or {}).get("Config") or ())}
    for pool in spec.pools:
        seen = pools.get(pool.subnet)
        wanted = {"Gateway": pool.gateway, "IPRange": pool.ip_range}
        if seen is None or any(value and seen.get(name) != value for name, value in wanted.items()):
            differing.append("pools")
            break
    return tuple(differing)


def network_options(inspect: Mapping[str, Any]) -> dict[str, str]:
    """The options of a network. If no bridge name was set, it includes the name that the engine chose.

    `libnetwork/drivers/bridge`: `br-` and the first 12 digits of the network's id.
    """
    options = dict(inspect.get("Options") or {})
    if inspect.get("Driver") == "bridge":
        options.setdefault(BRIDGE_NAME, f"br-{str(inspect.get('Id') or '')[:12]}")
    return options


def volume_difference(volume: Volume, inspect: dict[str, Any]) -> tuple[str, ...]:
    """The option groups in which a foreign volume (body of GET /volumes/{name}) differs from its section. Labels are not
    compared: a difference in labels is harmless."""
    differing = ["driver"] if volume.spec.driver != inspect.get("Driver") else []
    if set(volume.spec.options) != set((inspect.get("Options") or {}).items()):
        differing.append("options")
    return tuple(differing)
