# SPDX-License-Identifier: GPL-2.0-or-later
"""The real `uci` command, which `make libuci` builds."""

from __future__ import annotations

import importlib.util
import subprocess
from dataclasses import dataclass
from pathlib import Path

BUILT = Path(__file__).parents[2] / ".libuci"
COMMAND = BUILT / "bin" / "uci"


def why_not() -> str:
    """Why tests cannot use the real libuci, "" if they can."""
    reason = BUILT / "why-not"
    if reason.exists():
        return f"no real libuci: {reason.read_text().strip()}"
    if not COMMAND.exists() or importlib.util.find_spec("uci") is None:
        return "no real libuci: `make libuci` was not run"
    return ""


@dataclass(frozen=True)
class RealUci:
    """`uci` on one configuration directory, with a directory for staged changes."""

    config: Path
    save: Path

    def run(self, *arguments: str | bytes, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [COMMAND, "-c", self.config, "-t", self.save, *arguments],
            input=text,
            capture_output=True,
            timeout=20,
            check=False,
        )

    def __call__(self, *arguments: str | bytes) -> bytes:
        """Runs a command, which must succeed; returns its output."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout
