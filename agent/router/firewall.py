# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the rules of `agent.plan.router.firewall` into the kernel, by iptables as dockerd uses it (the first on PATH).

That may be iptables-nft or iptables-legacy: both print and take the same. Words go to it as they are, never through a
shell. `--wait` sits out who else holds the lock (iptables(8)).
"""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Sequence

from agent.errors import FirewallError
from agent.plan.router.firewall import Listing, Rule, parse_listing, steps

logger = logging.getLogger(__name__)

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_WAIT_S = 5
_LIMIT_S = 10.0


class Iptables:
    """One family. `names`: programs, the first that is there is used."""

    def __init__(self, *names: str) -> None:
        self._names = names

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self._names[0]

    @property
    def is_there(self) -> bool:
        """Whether one of the programs is installed."""
        return self._program() is not None

    def _program(self) -> str | None:
        return next(filter(None, (shutil.which(name, path=PATH) for name in self._names)), None)

    def listing(self) -> Listing:
        """The filter table. Raises FirewallError."""
        return parse_listing(self._run("-S"))

    def put_in_force(self, rules: Sequence[Rule], *, keep: bool) -> bool:
        """Adds what is missing, then takes away what is stale unless `keep`; True when anything was changed.

        Raises FirewallError; what was in force before then still is.
        """
        try:
            return self._put(rules, keep=keep)
        except FirewallError:
            # dockerd and the router's firewall change the same chains: they may have come between look and change
            return self._put(rules, keep=keep)

    def _put(self, rules: Sequence[Rule], *, keep: bool) -> bool:
        todo = steps(self.listing(), rules, keep=keep)
        for words in todo:
            self._run(*words)
            logger.info("%s %s", self.name, " ".join(words))
        return bool(todo)

    def _run(self, *words: str) -> str:
        program = self._program()
        if program is None:
            raise FirewallError(f"there is no program {self.name}")
        command = [program, "--wait", str(_WAIT_S), *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise FirewallError(f"{self.name} {words[0]} failed: {type(exc).__name__}") from exc
        if done.returncode:
            said = " ".join(done.stderr.split())[:256]
            raise FirewallError(f"{self.name} {' '.join(words)} failed: {said}")
        return done.stdout


def of_ipv4() -> Iptables:
    """The iptables that dockerd finds."""
    return Iptables("iptables", "iptables-nft", "iptables-legacy")


def of_ipv6() -> Iptables:
    """Its ip6tables."""
    return Iptables("ip6tables", "ip6tables-nft", "ip6tables-legacy")
