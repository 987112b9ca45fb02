# SPDX-License-Identifier: GPL-2.0-or-later
"""The peer Docker Compose 2: from Debian's package, unpacked into a cache and not installed.

`python -m benchmarks.compose` fetches it (the only step that needs the network) and prints its path. The environment
variable COMPOSE selects another docker-compose 2.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support.debian import CACHE, CannotFetchError, unpack

SUITE = "trixie"  # the first Debian suite with Compose 2; bookworm has the old one in Python
FOLDER = CACHE / "compose"
PROGRAM = FOLDER / "usr/libexec/docker/cli-plugins/docker-compose"


class PeerMissingError(Exception):
    """The peer is not available; the message says why."""


def program() -> Path:
    """The path of docker-compose 2, which is fetched if needed. Raises PeerMissingError."""
    chosen = os.environ.get("COMPOSE")
    if chosen:
        return Path(chosen)
    if not PROGRAM.exists():
        try:
            unpack(("docker-compose",), suite=SUITE, into=FOLDER)
        except CannotFetchError as exc:
            raise PeerMissingError(
                f"Debian's docker-compose cannot be fetched ({exc}); "
                "run `python -m benchmarks.compose` with the network, or set COMPOSE to a docker-compose 2"
            ) from exc
    return PROGRAM


class Project:
    """One compose project on one engine."""

    def __init__(self, folder: Path, host: str, name: str = "bench") -> None:
        self.program = program()
        self._file = folder / f"{name}.json"  # JSON is YAML
        self._name = name
        self._env = {**os.environ, "DOCKER_HOST": host, "HOME": str(folder)}

    def write(self, services: dict[str, dict[str, Any]]) -> None:
        """Writes the compose file."""
        self._file.write_text(json.dumps({"name": self._name, "services": services}))

    def up(self, host: str | None = None) -> float:
        """Runs `up -d`; returns the seconds that it took. Raises RuntimeError with its output if it fails."""
        env = {**self._env, "DOCKER_HOST": host} if host else self._env
        words = [str(self.program), "-f", str(self._file), "up", "-d"]
        begun = time.perf_counter()
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        taken = time.perf_counter() - begun
        if done.returncode != 0:
            raise RuntimeError(f"docker-compose up: {done.stderr[-500:]}")
        return taken

    def version(self) -> str:
        """The version that it reports."""
        words = [str(self.program), "version", "--short"]
        return subprocess.run(words, env=self._env, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    print(program())
