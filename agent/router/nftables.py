# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the rules of `agent.plan.router.firewall` into the kernel, by iptables or by nft, and decides between the two."""

from __future__ import annotations

import contextlib
import logging
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from agent.errors import ConfigError, FirewallError
from agent.plan.router.firewall import TABLE, Listing, Rule, parse_listing, script, steps

logger = logging.getLogger(__name__)

# By iptables, as dockerd uses it (the first on PATH).
#
# That may be iptables-nft or iptables-legacy: both print and take the same. Words go to it as they are, never through a
# shell. `--wait` sits out who else holds the lock (iptables(8)).


PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_WAIT_S = 5
_IPTABLES_LIMIT_S = 10.0


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
        # `--wait`: fw3, dockerd and others write rules too, and xtables has one lock for all.
        command = [program, "--wait", str(_WAIT_S), *words]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_IPTABLES_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise FirewallError(f"{self.name} {words[0]} failed: {type(exc).__name__}") from exc
        if done.returncode:
            # Cut: iptables prints its usage for some errors.
            said = " ".join(done.stderr.split())[:256]
            raise FirewallError(f"{self.name} {' '.join(words)} failed: {said}")
        return done.stdout


def of_ipv4() -> Iptables:
    """The iptables that dockerd finds."""
    return Iptables("iptables", "iptables-nft", "iptables-legacy")


def of_ipv6() -> Iptables:
    """Its ip6tables."""
    return Iptables("ip6tables", "ip6tables-nft", "ip6tables-legacy")


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
        # In one run from stdin, so that all of it comes into force or nothing.
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

    def put_in_force(self, rules: Sequence[Rule], *, keep: bool, dockerd_uses_nftables: bool = False) -> bool:
        """As `Iptables.put_in_force`."""
        has_nft, has_iptables = self._nftables.is_there, self._iptables.is_there
        if not has_nft and not has_iptables:
            raise FirewallError("neither iptables nor nft is installed")
        by_nft = has_nft and (dockerd_uses_nftables or not has_iptables)
        # Another backend than last time: what the one before has left is looked for again.
        if by_nft is not self._by_nft:
            self._by_nft, self._looks = by_nft, _LOOKS
        used: Iptables | Nftables = self._nftables if by_nft else self._iptables
        changed = used.put_in_force(rules, keep=keep)
        # Only for a few passes: the other backend's rules do not come back by themselves.
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


# Tells when network devices or nftables rules change (rtnetlink(7), linux/netfilter/nfnetlink.h).
#
# Not every change of rules comes with an event on ubus: `nft flush ruleset` by hand, or fw3's restart. What the messages
# say is not looked at: who is told looks for himself. iptables-legacy sends no event.


_ROUTE, _NETFILTER = 0, 12  # linux/netlink.h
_LINKS = 1  # RTMGRP_LINK
_NFTABLES = 1 << (7 - 1)  # NFNLGRP_NFTABLES
_QUIET_S = 0.2
_AT_MOST_S = 1.0
_BUFFER = 64 * 1024


class KernelEvents:
    """`changed` is called in a thread, once the messages pause, or after a second of them."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._sockets = [found for found in (_open(_ROUTE, _LINKS), _open(_NETFILTER, _NFTABLES)) if found]
        self._stopping, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="kernel-events", daemon=True)

    def start(self) -> None:
        """From here on."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.close()
        self._thread.join()
        for each in (*self._sockets, self._stopping):
            each.close()

    def _run(self) -> None:
        while self._wait(None):
            # a reload of the firewall sends message after message, and the rules must be back soon all the same
            deadline = time.monotonic() + _AT_MOST_S
            quiet = False
            while not quiet and time.monotonic() < deadline:
                self._drain()
                quiet = not self._wait(_QUIET_S)
            if select.select([self._stopping], [], [], 0)[0]:
                return
            self._changed()

    def _wait(self, timeout_s: float | None) -> bool:
        """Whether a message came; False as well when it is to end."""
        ready, _, _ = select.select([*self._sockets, self._stopping], [], [], timeout_s)
        return bool(ready) and self._stopping not in ready

    def _drain(self) -> None:
        for each in self._sockets:
            # ENOBUFS: more came than the buffer holds, which is as good as a message
            with contextlib.suppress(OSError):
                while each.recv(_BUFFER, socket.MSG_DONTWAIT):
                    pass


def _open(protocol: int, groups: int) -> socket.socket | None:
    """None where the kernel has no such thing, or does not let us."""
    try:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except OSError as exc:
        logger.debug("no netlink %d: %s", protocol, exc)
        return None
    try:
        made.bind((0, groups))
    except OSError as exc:
        logger.debug("no messages of netlink %d: %s", protocol, exc)
        made.close()
        return None
    return made
