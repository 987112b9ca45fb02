# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks for what containers wait for: mounts, devices, interfaces, the clock, and their own bind sources.

A missing bind source is never created: on a router it would end up on the flash (facts: user pain 2 and 11).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from agent.clients.netifd import is_up
from agent.model.clock import clock_is_set
from agent.model.interfaces import Interface
from agent.model.resources import Container, Desired, WaitFor, WaitKind
from agent.plan.draft import Missing, key_of


def waiting(
    desired: Desired, *, now: float, interfaces: Mapping[str, Interface] | None = None
) -> dict[str, Missing]:
    """Key -> the first thing that is missing, for the containers that have to wait. `now`: wall clock, seconds.

    `interfaces`: netifd's; without it, and for a name that it does not know, the kernel's device of that name counts.
    """
    missing = ((key_of("container", c.section), _missing(c, now, interfaces)) for c in desired.containers)
    return {key: item for key, item in missing if item is not None}


def _missing(container: Container, now: float, interfaces: Mapping[str, Interface] | None) -> Missing | None:
    """Without a mount, interface or device a container must not run; a clock that is set back does not stop it."""
    waits = container.policy.wait_for
    must = [_wait_for(wanted, now, interfaces) for wanted in waits if wanted.kind is not WaitKind.CLOCK]
    must += [_device(device.host) for device in container.spec.devices]
    may = [_wait_for(wanted, now, interfaces) for wanted in waits if wanted.kind is WaitKind.CLOCK]
    may += [_bind(mount.source) for mount in container.spec.mounts if mount.is_bind]
    reason = next(filter(None, must + may), "")
    return Missing(reason=reason, stop=reason in must) if reason else None


def _wait_for(wanted: WaitFor, now: float, interfaces: Mapping[str, Interface] | None) -> str:
    if wanted.kind is WaitKind.MOUNT:
        return "" if os.path.ismount(wanted.target) else f"nothing is mounted on {wanted.target}"
    if wanted.kind is WaitKind.DEVICE:
        return _device(wanted.target)
    if wanted.kind is WaitKind.INTERFACE:
        return "" if is_up(wanted.target, interfaces) else f"{wanted.target} is not up"
    return "" if clock_is_set(now) else "the clock is not set"


def _bind(source: str) -> str:
    return "" if Path(source).exists() else f"bind source {source} is not there"


def _device(path: str) -> str:
    if path.startswith("usb:"):
        return f"{path} is not plugged in"
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return f"device {path} is not there"
    return "" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISDIR(mode) else f"{path} is not a device"
