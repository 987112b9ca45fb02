# SPDX-License-Identifier: GPL-2.0-or-later
"""iptables in a private network namespace."""

from __future__ import annotations

from pathlib import Path

from agent.router.nftables import Filter, Iptables, Nftables
from tests.support.netns import OwnNetwork


def iptables_in(network: OwnNetwork, program: str, folder: Path) -> Iptables:
    """The agent's client with a script that runs `program` in the namespace."""
    script = folder / program
    script.write_text(f'#!/bin/sh\nexec nsenter --net={network.path} {program} "$@"\n')
    script.chmod(0o755)
    return Iptables(str(script))


def nft_in(network: OwnNetwork, family: str, folder: Path) -> Nftables:
    """The same for nft."""
    script = folder / "nft"
    script.write_text(f'#!/bin/sh\nexec nsenter --net={network.path} nft "$@"\n')
    script.chmod(0o755)
    return Nftables(family, str(script))


def filter_in(network: OwnNetwork, family: str, folder: Path) -> Filter:
    """Both, in the combination that the agent uses."""
    program = "iptables" if family == "4" else "ip6tables"
    return Filter(iptables_in(network, program, folder), nft_in(network, family, folder))


def nft_in_force(network: OwnNetwork, family: str = "ip") -> list[str]:
    """Our nft rules in the kernel: `IN>BRIDGE`, in order."""
    done = network.run("nft", "list", "table", family, "ucidockd", check=False)
    found = [line.split() for line in done.stdout.splitlines() if "ucidockd:" in line]
    return [f"{words[1]}>{words[3]}".replace('"', "") for words in found]


def in_force(network: OwnNetwork, program: str = "iptables") -> list[str]:
    """Our rules in DOCKER-USER in the kernel: `IN>BRIDGE`, in order."""
    done = network.run(program, "-S", "DOCKER-USER", check=False)
    found = [line.split() for line in done.stdout.splitlines() if "ucidockd:" in line]
    return [f"{words[words.index('-i') + 1]}>{words[words.index('-o') + 1]}" for words in found]
