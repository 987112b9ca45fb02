# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the rules of `agent.plan.router.nft` into the kernel by `nft`, and decides between it and iptables."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Sequence

from agent.errors import ConfigError, FirewallError
from agent.plan.router.firewall import Rule
from agent.plan.router.nft import TABLE, script
from agent.router.firewall import PATH, Iptables, of_ipv4, of_ipv6

logger = logging.getLogger(__name__)

_LIMIT_S = 10.0
_LOOKS = 3
_FAMILIES = {"4": "ip", "6": "ip6"}


class Nftables:
    """Our table of one family, "4" or "6". `program` is looked for on the usual paths."""

    def __init__(self, family: str, program: str = "nft") -> None:
        self._family, self._program = family, program

    @property
    def is_there(self) -> bool:
        """Whether the program is installed."""
        return shutil.which(self._program, path=PATH) is not None

    def put_in_force(self, rules: Sequence[Rule], *, keep: bool) -> bool:
        """As `Iptables.put_in_force`: one transaction, so there is never a moment without the rules."""
        listed = self._list()
        try:
            text = script(listed, rules, self._family, keep=keep)
        except ConfigError as exc:
            raise FirewallError(str(exc)) from exc
        if text:
            self._run("-f", "-", given=text)
            logger.info("nft: %s", "; ".join(text.splitlines()))
        return bool(text)

    def _list(self) -> str:
        """The table as it is printed, "" without one."""
        try:
            return self._run("-n", "list", "table", _FAMILIES[self._family], TABLE)
        except FirewallError as exc:
            if "No such file or directory" in str(exc):
                return ""
            raise

    def _run(self, *words: str, given: str = "") -> str:
        program = shutil.which(self._program, path=PATH)
        if program is None:
            raise FirewallError(f"{self._program} is not installed")
        try:
            done = subprocess.run(
                [program, *words],
                input=given,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise FirewallError(f"nft failed: {type(exc).__name__}") from exc
        if done.returncode:
            raise FirewallError(f"nft failed: {' '.join(done.stderr.split())[:256]}")
        return done.stdout


class Filter:
    """One family's rules: by iptables, as dockerd's own, unless dockerd uses nftables or iptables is not installed."""

    def __init__(self, iptables: Iptables, nftables: Nftables) -> None:
        self._iptables, self._nftables = iptables, nftables
        self._looks = _LOOKS  # left, to see that the other one holds none of our rules
        self._by_nft: bool | None = None
        self.dockerd_uses_nftables = False

    def put_in_force(self, rules: Sequence[Rule], *, keep: bool) -> bool:
        """As `Iptables.put_in_force`."""
        has_nft, has_iptables = self._nftables.is_there, self._iptables.is_there
        if not has_nft and not has_iptables:
            raise FirewallError("neither iptables nor nft is installed")
        by_nft = has_nft and (self.dockerd_uses_nftables or not has_iptables)
        if by_nft is not self._by_nft:
            self._by_nft, self._looks = by_nft, _LOOKS
        used: Iptables | Nftables = self._nftables if by_nft else self._iptables
        changed = used.put_in_force(rules, keep=keep)
        if self._looks:
            self._clear(self._iptables if by_nft else self._nftables)
        return changed

    def _clear(self, other: Iptables | Nftables) -> None:
        """Once ours are in force in the right place, none of them is left in the other."""
        self._looks -= 1
        try:
            if other.is_there:
                other.put_in_force((), keep=False)
        except FirewallError as exc:
            # a kernel that has only one of them, or another program is changing the rules right now
            logger.debug("%s", exc)
        else:
            self._looks = 0


def of_family_4() -> Filter:
    """For IPv4."""
    return Filter(of_ipv4(), Nftables("4"))


def of_family_6() -> Filter:
    """For IPv6."""
    return Filter(of_ipv6(), Nftables("6"))
