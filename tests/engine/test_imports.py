# SPDX-License-Identifier: GPL-2.0-or-later
"""What the client of the engine keeps out of memory."""

from __future__ import annotations

import subprocess
import sys


def test_docker_py_is_loaded_without_a_character_set_detector() -> None:
    """requests loads 4 MiB of it for texts that name no encoding; the engine speaks JSON, which is UTF-8."""
    program = (
        "import sys, agent.engine.client\n"
        "print([name for name in sys.modules if name.startswith(('charset_normalizer.', 'chardet.'))])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "[]"
