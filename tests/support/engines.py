# SPDX-License-Identifier: GPL-2.0-or-later
"""Newer dockerds next to the installed one: their programs are put first on PATH.

`python -m tests.support.engines [VERSION ...]` prepares them. 26 and 28 are unpacked from Debian's newer suites. 29
is in no suite: dockerd and runc are built from the Go module proxy, and its containerd 2 is from Debian testing. 26
and 28 use the installed runc and docker-init, because the newer runc needs a newer libc than Debian 12 has. With
`--at-hand VERSION ...` nothing is fetched, and it fails if one of them is not ready. The environment variable
ENGINES=off disables them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.debian import CACHE, CannotFetchError, unpack

SUITES = {"26": "trixie", "28": "sid"}
VERSIONS = (*SUITES, "29")
_PACKAGES = ("docker.io", "containerd")
# moby/v2 has its own version numbers: this is the one with the API (1.55) of that release
_MOBY, _RELEASE = "github.com/moby/moby/v2@v2.0.0-beta.18", "29.6.1"
_RUNC = "github.com/opencontainers/runc@v1.3.4"
_BUILD_S = 3000


def programs(version: str) -> str:
    """Directories for PATH with that engine's programs. Raises CannotFetchError. Does not build 29 implicitly, because
    that takes minutes."""
    if os.environ.get("ENGINES") == "off":
        raise CannotFetchError("ENGINES=off")
    root = _root(version)
    if not root.exists():
        if version not in SUITES:
            raise CannotFetchError(f"run `python -m tests.support.engines {version}` to build it")
        unpack(_PACKAGES, suite=SUITES[version], into=root)
    _check(root / "usr/sbin/dockerd", version)
    return f"{root}/usr/sbin:{root}/usr/bin"


def make_ready(version: str) -> str:
    """As `programs`, but also builds versions that no suite has."""
    root = _root(version)
    if version not in SUITES and not root.exists() and os.environ.get("ENGINES") != "off":
        _build(root)
    return programs(version)


def _root(version: str) -> Path:
    return CACHE / "engines" / version


def _build(root: Path) -> None:
    """Afterwards `root` is complete or does not exist."""
    if shutil.which("go") is None:
        raise CannotFetchError("building it takes Go")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=root.parent) as folder:
        made = Path(folder, "whole")
        unpack(("containerd",), suite="forky", into=made)
        sbin = made / "usr/sbin"
        sbin.mkdir(parents=True, exist_ok=True)
        version = f"-s -w -X github.com/moby/moby/v2/dockerversion.Version={_RELEASE}"
        for name in ("dockerd", "docker-proxy"):
            _go(
                Path(folder),
                _MOBY,
                f"cmd/{name}",
                sbin / name,
                "exclude_graphdriver_btrfs no_systemd",
                version,
            )
        _go(Path(folder), _RUNC, "", sbin / "runc", "seccomp", "-s -w")
        made.rename(root)


def _go(folder: Path, module: str, package: str, program: Path, tags: str, linking: str) -> None:
    name = module.partition("@")[0]
    source = folder / program.name
    source.mkdir()
    environment = {**os.environ, "CGO_ENABLED": "1", "GOFLAGS": ""}

    def run(*words: str) -> None:
        try:
            subprocess.run(
                ["go", *words], cwd=source, env=environment, check=True, capture_output=True, timeout=_BUILD_S
            )
        except (OSError, subprocess.SubprocessError) as exc:
            said = (getattr(exc, "stderr", None) or b"").decode(errors="replace").strip()[-500:]
            raise CannotFetchError(f"{name}: {said or exc}") from exc

    run("mod", "init", "engine")
    run("get", f"{name}/{package}@{module.partition('@')[2]}".replace("/@", "@"))
    run(
        "build",
        "-trimpath",
        f"-tags={tags}",
        f"-ldflags={linking}",
        "-o",
        str(program),
        f"{name}/{package}".rstrip("/"),
    )


def _check(dockerd: Path, version: str) -> None:
    """Checks the version, because suites change: an engine of another version, or one that does not run here, is an
    error."""
    try:
        said = subprocess.run(
            [str(dockerd), "--version"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        raise CannotFetchError(f"{dockerd} does not run here: {exc}") from exc
    if f"version {version}." not in said:
        raise CannotFetchError(f"{said.strip()} is there now, not {version}")


def is_at_hand(version: str) -> bool:
    """Whether it can be used without fetching or building anything; prints what is missing."""
    try:
        if not _root(version).exists():
            raise CannotFetchError(f"run `python -m tests.support.engines {version}` to get it")
        programs(version)
    except CannotFetchError as exc:
        print(f"dockerd {version} is not available, its tests are skipped: {exc}")
        return False
    return True


def _get_ready(version: str) -> None:
    try:
        print(f"dockerd {version}: {make_ready(version)}")
    except CannotFetchError as exc:
        print(f"dockerd {version} is not available, its tests will be skipped: {exc}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--at-hand"]:
        sys.exit(not all(is_at_hand(name) for name in sys.argv[2:]))
    for name in sys.argv[1:] or VERSIONS:
        _get_ready(name)
