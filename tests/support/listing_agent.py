# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tests.support.listing_agent run ...`: runs the agent; at SIGUSR1 it writes the loaded modules to the file
LOADED.

One line per module: its name, and the size of its bytecode.
"""

from __future__ import annotations

import marshal
import os
import signal
import sys
from pathlib import Path

from agent.cli.main import main


def _size(name: str) -> int:
    loader = getattr(getattr(sys.modules[name], "__spec__", None), "loader", None)
    code = loader.get_code(name) if loader is not None and hasattr(loader, "get_code") else None
    return len(marshal.dumps(code)) if code is not None else 0


def _write(number: int, frame: object) -> None:
    del number, frame
    names = [name for name in sorted(sys.modules) if name.startswith("agent.")]
    lines = [f"{name} {_size(name)}" for name in names]
    lines += [f"{name} 0" for name in sorted(sys.modules) if not name.startswith("agent.")]
    temporary = Path(os.environ["LOADED"] + ".new")
    temporary.write_text("\n".join(lines))
    temporary.rename(os.environ["LOADED"])


signal.signal(signal.SIGUSR1, _write)
if __name__ == "__main__":
    sys.exit(main())
