# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages of other Debian suites, unpacked into a cache and not installed: peers of benchmarks, other engines.

Uses its own sources list and package lists, so that the machine's are not touched. Only fetching needs the network.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# outside of the checkout, so that all clones share what takes minutes to fetch or build
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ucidockd-tests"


class CannotFetchError(Exception):
    """The packages cannot be fetched; the message says why."""


def unpack(packages: tuple[str, ...], *, suite: str, into: Path) -> None:
    """Unpacks the newest versions of a suite. Raises CannotFetchError; afterwards `into` is complete or does not exist."""
    if not KEYRING.exists():
        raise CannotFetchError(f"{KEYRING} is missing (package debian-archive-keyring)")
    into.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="ucidockd-apt-") as folder,
        tempfile.TemporaryDirectory(prefix="unpacking-", dir=into.parent) as unpacked,
    ):
        try:
            _fetch(packages, suite, Path(folder), Path(unpacked))
            (Path(unpacked) / "whole").rename(into)
        except (OSError, subprocess.SubprocessError) as exc:
            words = (getattr(exc, "stderr", None) or b"").decode(errors="replace").strip().splitlines()[-1:]
            raise CannotFetchError(f"{suite}: {' '.join(words) or exc}") from exc


def _fetch(packages: tuple[str, ...], suite: str, root: Path, unpacked: Path) -> None:
    (root / "lists" / "partial").mkdir(parents=True)
    (root / "cache" / "archives" / "partial").mkdir(parents=True)
    (root / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n")
    settings = [
        # ignore preferences and installed packages, because they would affect which version is chosen
        "Dir::Etc::preferences=-",
        "Dir::Etc::preferencesparts=-",
        "Dir::State::status=/dev/null",
        f"Dir::Etc::sourcelist={root / 'sources.list'}",
        "Dir::Etc::sourceparts=-",
        f"Dir::State::lists={root / 'lists'}",
        f"Dir::Cache={root / 'cache'}",
        "APT::Sandbox::User=root",
    ]
    options = [word for setting in settings for word in ("-o", setting)]
    _run(["apt-get", *options, "update", "-qq"], root)
    _run(["apt-get", *options, "download", *packages], root)
    for package in sorted(root.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(unpacked / "whole")], root)


def _run(words: list[str], folder: Path) -> None:
    subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=300)
