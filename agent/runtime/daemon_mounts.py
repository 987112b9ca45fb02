# SPDX-License-Identifier: GPL-2.0-or-later
"""The file system that dockerd's data is on: dockerd must not start while its disk is missing, or it fills the flash."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from agent.errors import UcidockdError
from agent.runtime.config import open_store
from agent.runtime.options import RuntimeOptions


def missing_mount(root: str, options: RuntimeOptions) -> str:
    """The mount point that /etc/config/fstab has for that directory and where nothing is mounted; "" for none."""
    try:
        package = open_store(options).load("fstab")
    except UcidockdError:
        return ""  # no such file off OpenWrt, and a broken one is no reason to keep dockerd down
    targets = []
    for section in package.sections:
        values = {option.name: option.value for option in section.options}
        target = values.get("target")
        if section.type == "mount" and values.get("enabled", "1") == "1" and isinstance(target, str):
            targets.append(target)
    above = [target for target in targets if target != "/" and PurePosixPath(root).is_relative_to(target)]
    deepest = max(above, key=len, default="")
    return "" if not deepest or os.path.ismount(deepest) else deepest
