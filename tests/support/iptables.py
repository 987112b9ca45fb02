# SPDX-License-Identifier: GPL-2.0-or-later
"""iptables in a network namespace of one's own."""

from __future__ import annotations

from pathlib import Path

from agent.clients.firewall import Iptables
from tests.support.netns import OwnNetwork


def iptables_in(network: OwnNetwork, program: str, folder: Path) -> Iptables:
    """The agent's client on a script that runs `program` in there."""
    script = folder / program
    script.write_text(f'#!/bin/sh\nexec nsenter --net={network.path} {program} "$@"\n')
    script.chmod(0o755)
    return Iptables(str(script))


def in_force(network: OwnNetwork, program: str = "iptables") -> list[str]:
    """Our rules in DOCKER-USER, as the kernel has them: `IN>BRIDGE`, in order."""
    done = network.run(program, "-S", "DOCKER-USER", check=False)
    found = [line.split() for line in done.stdout.splitlines() if "ucidockd:" in line]
    return [f"{words[words.index('-i') + 1]}>{words[words.index('-o') + 1]}" for words in found]
