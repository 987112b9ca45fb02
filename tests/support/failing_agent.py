# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tests.support.failing_agent run ...`: the agent, killed by SIGKILL before or after one call of a port.

UCIDOCKD_FAILPOINT=engine.rename#2:before names the port, the method, the number of the call (here the second call of
the method), and the side of the call. UCIDOCKD_TRACE names a file to which each call that changes something adds one
line. The methods are read from the Protocols, so no new method can be forgotten. The shipped agent contains none of
this.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.apply.ports import Engine, Records, SavedData
from agent.cli.main import main
from agent.data import parts
from agent.data.backups import Restores
from agent.engine.client import DockerEngine
from agent.files.state import StateFile
from agent.runtime import main as wiring

PORTS = {"engine": Engine, "records": Records, "data": SavedData}
LOOKING = {
    *("ping", "api_version", "identity", "info", "events", "past_events"),
    *("records", "missed", "everywhere", "get", "select_engine", "check"),
}


def methods(port: type) -> list[str]:
    """The methods of a Protocol, including inherited ones."""
    return sorted(name for name in dir(port) if callable(getattr(port, name)) and not name.startswith("_"))


def changing(port: type) -> list[str]:
    """The methods that change something."""
    return [
        name for name in methods(port) if name not in LOOKING and not name.startswith(("list_", "inspect_"))
    ]


class Failpoints:
    """Counts calls, and kills the process at the requested one."""

    def __init__(self, point: str, trace: str) -> None:
        self._point, self._trace = point, trace
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def arm(self, target: Any, prefix: str) -> Any:
        """Wraps every method of the port that `target` implements."""
        for name in changing(PORTS[prefix]):
            setattr(target, name, self._around(f"{prefix}.{name}", getattr(target, name)))
        return target

    def _around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def armed(*args: Any, **named: Any) -> Any:
            with self._lock:
                self._counts[name] += 1
                here = f"{name}#{self._counts[name]}"
                if self._trace:
                    with Path(self._trace).open("a") as file:
                        file.write(here + "\n")
            self._die_at(f"{here}:before")
            result = call(*args, **named)
            self._die_at(f"{here}:after")
            return result

        return armed

    def _die_at(self, here: str) -> None:
        if here == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


def run() -> int:
    """Wraps the ports, then runs the agent."""
    points = Failpoints(os.environ.get("UCIDOCKD_FAILPOINT", ""), os.environ.get("UCIDOCKD_TRACE", ""))
    wiring.DockerEngine = lambda *a, **k: points.arm(DockerEngine(*a, **k), "engine")  # type: ignore[assignment,misc]
    wiring.StateFile = lambda *a, **k: points.arm(StateFile(*a, **k), "records")  # type: ignore[assignment,misc]
    parts.Restores = lambda *a: points.arm(Restores(*a), "data")  # type: ignore[assignment,misc]
    return main()


if __name__ == "__main__":
    sys.exit(run())
