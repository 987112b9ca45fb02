# SPDX-License-Identifier: GPL-2.0-or-later
"""A container's port where the agent itself listens is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.files.config import load
from agent.files.options import RuntimeOptions

PORTS = {
    "2381:80": True,
    "192.168.1.1:2381:80": True,
    "2380-2390:80": True,
    "192.168.2.1:2381:80": False,
    "2381:80/udp": False,
    "2382:80": False,
    "2381": False,
}


@pytest.mark.parametrize("port", PORTS)
def test_a_port_of_the_agent_is_warned_of(tmp_path: Path, port: str) -> None:
    (tmp_path / "containers").write_text(
        "config agent 'agent'\n\tlist listen '192.168.1.1:2381'\n"
        f"config container 'web'\n\toption image 'a'\n\tlist port '{port}'\n"
    )
    options = RuntimeOptions(config_dir=tmp_path, override_dir=tmp_path / "o", state_dir=tmp_path / "s")
    found = [issue for issue in load(options).issues if "the agent itself listens" in issue.text()]
    assert bool(found) is PORTS[port]
    assert all(issue.severity == "warning" for issue in found)
