# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs `tls.maker` as a child process: JSON in on its stdin, JSON out on its stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import agent
from agent.errors import CertificateError, ConfigError

_MODULE = "agent.tls.maker"
_ROOT = Path(agent.__file__).parents[1]  # `-m` looks here first, wherever the agent was started
_LIMIT_S = 60.0  # a slow router imports `cryptography` for some seconds


def ask_maker(operation: str, request: Mapping[str, object]) -> dict[str, Any]:
    """One operation of `tls.maker`. Blocks; runs in a thread where a loop must go on.

    Raises ConfigError where `cryptography` is not installed, CertificateError for all else that keeps it from
    answering.
    """
    body = json.dumps({"op": operation, **request})
    try:
        child = subprocess.run(
            [sys.executable, "-m", _MODULE],
            input=body,
            capture_output=True,
            text=True,
            cwd=_ROOT,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise CertificateError(f"making certificates took more than {_LIMIT_S:.0f} s") from exc
    except OSError as exc:
        raise CertificateError(f"the process that makes certificates cannot be started: {exc}") from exc
    if child.returncode == 0:
        answer: dict[str, Any] = json.loads(child.stdout)
        return answer
    # the last line of a traceback is the exception; it names no key
    reason = (child.stderr.strip().splitlines() or [""])[-1][:256]
    if "No module named 'cryptography'" in reason:
        raise ConfigError("certificates need the Python package cryptography (python3-cryptography)")
    raise CertificateError(
        f"the process that makes certificates ended with {child.returncode}"
        + (f": {reason}" if reason else "")
    )
