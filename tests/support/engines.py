# SPDX-License-Identifier: GPL-2.0-or-later
"""Newer dockerds from Debian's newer suites, beside the installed one: their programs are put first on PATH.

`python -m tests.support.engines` fetches them. runc and docker-init stay the installed ones: the newer runc needs a newer
libc than Debian 12 has. The environment variable ENGINES=off leaves them out.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.debian import CACHE, CannotFetchError, unpack

SUITES = {"26": "trixie", "28": "sid"}
_PACKAGES = ("docker.io", "containerd")


def programs(version: str) -> str:
    """Directories for PATH with that engine's programs. Raises CannotFetchError."""
    if os.environ.get("ENGINES") == "off":
        raise CannotFetchError("ENGINES=off")
    root = CACHE / "engines" / version
    if not root.exists():
        unpack(_PACKAGES, suite=SUITES[version], into=root)
    _check(root / "usr/sbin/dockerd", version)
    return f"{root}/usr/sbin:{root}/usr/bin"


def _check(dockerd: Path, version: str) -> None:
    """The suites move on: an engine of another version, or one that does not run here, is not what was asked for."""
    try:
        said = subprocess.run(
            [str(dockerd), "--version"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        raise CannotFetchError(f"{dockerd} does not run here: {exc}") from exc
    if f"version {version}." not in said:
        raise CannotFetchError(f"Debian's {SUITES[version]} has {said.strip()} now, not {version}")


if __name__ == "__main__":
    for name in SUITES:
        try:
            print(f"dockerd {name}: {programs(name)}")
        except CannotFetchError as exc:
            print(f"dockerd {name} is not to be had, its tests will be skipped: {exc}")
