# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks for what containers wait for: mounts, devices, interfaces, the clock, and their own bind sources.

A missing bind source is never created: on a router it would end up on the flash (facts: user pain 2 and 11).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.model.clock import clock_is_set
from agent.model.resources import Container, Desired, WaitFor, WaitKind
from agent.plan.draft import Missing, key_of


def waiting(desired: Desired, *, now: float) -> dict[str, Missing]:
    """Key -> the first thing that is missing, for the containers that have to wait. `now`: wall clock, seconds."""
    missing = ((key_of("container", c.section), _missing(c, now)) for c in desired.containers)
    return {key: item for key, item in missing if item is not None}


def _missing(container: Container, now: float) -> Missing | None:
    """Without a mount, interface or device a container must not run; a clock that is set back does not stop it."""
    waits = container.policy.wait_for
    must = [_wait_for(wanted, now) for wanted in waits if wanted.kind is not WaitKind.CLOCK]
    must += [_device(device.host) for device in container.spec.devices]
    may = [_wait_for(wanted, now) for wanted in waits if wanted.kind is WaitKind.CLOCK]
    may += [_bind(mount.source) for mount in container.spec.mounts if mount.is_bind]
    reason = next(filter(None, must + may), "")
    return Missing(reason=reason, stop=reason in must) if reason else None


def _wait_for(wanted: WaitFor, now: float) -> str:
    if wanted.kind is WaitKind.MOUNT:
        return "" if os.path.ismount(wanted.target) else f"nothing is mounted on {wanted.target}"
    if wanted.kind is WaitKind.DEVICE:
        return _device(wanted.target)
    if wanted.kind is WaitKind.INTERFACE:
        return "" if _is_up(Path(wanted.target).name) else f"{wanted.target} is not up"
    return "" if clock_is_set(now) else "the clock is not set"


def _is_up(interface: str) -> bool:
    try:
        return Path("/sys/class/net", interface, "operstate").read_text().strip() != "down"
    except OSError:
        return False


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
