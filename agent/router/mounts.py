# SPDX-License-Identifier: GPL-2.0-or-later
"""The file system that dockerd's data is on: dockerd must not start while its disk is missing, or it fills the flash."""

from __future__ import annotations

from pathlib import PurePosixPath

from agent.errors import PathError, UcidockdError
from agent.files import user_paths
from agent.files.config import open_store
from agent.files.options import RuntimeOptions
from agent.files.user_paths import PATHS, is_mounted, real_path
from agent.uci.router import is_on, text


def missing_mount(root: str, options: RuntimeOptions) -> str:
    """The mount point that /etc/config/fstab has for that directory and where nothing is mounted; "" for none."""
    try:
        declared = _declared(root, options)
        return "" if not declared or PATHS.ask(is_mounted, declared) else declared
    except PathError:
        return root  # it does not answer: dockerd would hang on it


def is_read_only(path: str) -> bool:
    """Whether the file system of a path (or of the first of its parents that is there) takes no writing."""
    try:
        return PATHS.ask(user_paths.is_read_only, path)
    except PathError:
        return False


def declared_mount(root: str, options: RuntimeOptions) -> str:
    """The deepest mount point of /etc/config/fstab above that directory, links followed; "" for none, and where
    that directory does not answer."""
    try:
        return _declared(root, options)
    except PathError:
        return ""


def _declared(root: str, options: RuntimeOptions) -> str:
    try:
        package = open_store(options).load("fstab")
    except UcidockdError:
        return ""  # no such file off OpenWrt, and a broken one is no reason to keep dockerd down
    real = PurePosixPath(PATHS.ask(real_path, root))
    targets = (
        text(section, "target") for section in package.sections if section.type == "mount" and is_on(section)
    )
    above = [target for target in targets if target.strip("/") and _is_under(real, target)]
    return max(above, key=len, default="")


def _is_under(folder: PurePosixPath, target: str) -> bool:
    return folder.is_relative_to(PATHS.ask(real_path, target))
