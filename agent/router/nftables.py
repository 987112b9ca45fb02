# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts the rules of `agent.plan.router.firewall` into force with iptables or nft, and chooses between the two."""

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
from agent.plan.router.firewall import TABLE, FilterTable, RejectRule, parse_listing, script, steps

logger = logging.getLogger(__name__)

# iptables, in the variant that dockerd uses (the first on PATH).
#
# That may be iptables-nft or iptables-legacy: input and output are the same. Arguments are passed as they are, never
# through a shell. `--wait` waits for other holders of the lock (iptables(8)).


PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_WAIT_S = 5  # seconds for other holders of the xtables lock
_IPTABLES_LIMIT_S = 10.0  # for one run, with that wait


class Iptables:
    """iptables for one address family. `names`: program names; the first one that is installed is used."""

    def __init__(self, *names: str) -> None:
        self._names = names

    @property
    def name(self) -> str:
        """The name for messages."""
        return self._names[0]

    @property
    def is_there(self) -> bool:
        """Whether one of the programs is installed."""
        return self._program() is not None

    def _program(self) -> str | None:
        return next(filter(None, (shutil.which(name, path=PATH) for name in self._names)), None)

    def listing(self) -> FilterTable:
        """The filter table. Raises FirewallError."""
        return parse_listing(self._run("-S"))

    def put_in_force(self, rules: Sequence[RejectRule], *, keep: bool) -> bool:
        """Adds missing rules, then removes stale ones unless `keep`; True if anything changed.

        Raises FirewallError; then the earlier rules are still in force.
        """
        try:
            return self._put(rules, keep=keep)
        except FirewallError:
            # dockerd and the router's firewall change the same chains, and may have done so between our listing and
            # our change
            return self._put(rules, keep=keep)

    def _put(self, rules: Sequence[RejectRule], *, keep: bool) -> bool:
        todo = steps(self.listing(), rules, keep=keep)
        for words in todo:
            self._run(*words)
            logger.info("%s %s", self.name, " ".join(words))
        return bool(todo)

    def _run(self, *words: str) -> str:
        program = self._program()
        if program is None:
            raise FirewallError(f"there is no program {self.name}")
        # `--wait`: fw3, dockerd and others write rules too, and xtables has a single lock
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
            # shortened, because iptables prints its usage for some errors
            said = " ".join(done.stderr.split())[:256]
            raise FirewallError(f"{self.name} {' '.join(words)} failed: {said}")
        return done.stdout


def of_ipv4() -> Iptables:
    """The iptables that dockerd would find."""
    return Iptables("iptables", "iptables-nft", "iptables-legacy")


def of_ipv6() -> Iptables:
    """The ip6tables that dockerd would find."""
    return Iptables("ip6tables", "ip6tables-nft", "ip6tables-legacy")


_LIMIT_S = 10.0  # for one run of nft
_LOOKS = 3  # passes in which the other backend is looked at
_FAMILIES = {"4": "ip", "6": "ip6"}


class Nftables:
    """Our nftables table for one family, "4" or "6". `program` is searched on the usual paths."""

    def __init__(self, family: str, program: str = "nft") -> None:
        self._family, self._program = family, program

    @property
    def is_there(self) -> bool:
        """Whether the program is installed."""
        return shutil.which(self._program, path=PATH) is not None

    def put_in_force(self, rules: Sequence[RejectRule], *, keep: bool) -> bool:
        """Like `Iptables.put_in_force`, but in a single transaction, so that the rules are always in force."""
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
        """The table as nft prints it, "" if it does not exist."""
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
        # in a single run from stdin, so that either everything takes effect or nothing
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
    """The rules of one family: with iptables like dockerd's own, or with nft if dockerd uses nftables or iptables is not
    installed."""

    def __init__(self, iptables: Iptables, nftables: Nftables) -> None:
        self._iptables, self._nftables = iptables, nftables
        self._looks = _LOOKS  # remaining checks that the other backend has none of our rules
        self._by_nft: bool | None = None

    def put_in_force(
        self, rules: Sequence[RejectRule], *, keep: bool, dockerd_uses_nftables: bool = False
    ) -> bool:
        """As `Iptables.put_in_force`."""
        has_nft, has_iptables = self._nftables.is_there, self._iptables.is_there
        if not has_nft and not has_iptables:
            raise FirewallError("neither iptables nor nft is installed")
        by_nft = has_nft and (dockerd_uses_nftables or not has_iptables)
        # the backend has changed: look for rules in the previous one again
        if by_nft is not self._by_nft:
            self._by_nft, self._looks = by_nft, _LOOKS
        used: Iptables | Nftables = self._nftables if by_nft else self._iptables
        changed = used.put_in_force(rules, keep=keep)
        # only in a few passes, because the other backend's rules do not come back by themselves
        if self._looks:
            self._clear(self._iptables if by_nft else self._nftables)
        return changed

    def _clear(self, other: Iptables | Nftables) -> None:
        """Removes our rules from the other backend, once they are in force in the right one."""
        self._looks -= 1
        try:
            if other.is_there:
                other.put_in_force((), keep=False)
        except FirewallError as exc:
            # the kernel only supports one backend, or another program is changing the rules right now
            logger.debug("%s", exc)
        else:
            self._looks = 0


def of_family_4() -> Filter:
    """The filter for IPv4."""
    return Filter(of_ipv4(), Nftables("4"))


def of_family_6() -> Filter:
    """The filter for IPv6."""
    return Filter(of_ipv6(), Nftables("6"))


# Notices changes of network devices and nftables rules (rtnetlink(7), linux/netfilter/nfnetlink.h).
#
# Not every change of rules causes an event on ubus, for example a manual `nft flush ruleset` or a restart of fw3. The
# content of the messages is ignored: the receiver checks for itself. iptables-legacy sends no events.


_ROUTE, _NETFILTER = 0, 12  # linux/netlink.h
_LINKS = 1  # RTMGRP_LINK
_NFTABLES = 1 << (7 - 1)  # NFNLGRP_NFTABLES
_QUIET_S = 0.2
_AT_MOST_S = 1.0  # a reload of the firewall must not keep removed rules away for longer
_BUFFER = 64 * 1024  # bytes; the content does not matter, only that there is some


class KernelEvents:
    """Calls `changed` in a thread when messages pause, or after one second of messages."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._sockets = [found for found in (_open(_ROUTE, _LINKS), _open(_NETFILTER, _NFTABLES)) if found]
        self._stopping, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="kernel-events", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.close()
        self._thread.join()
        for each in (*self._sockets, self._stopping):
            each.close()

    def _run(self) -> None:
        while self._wait(None):
            # a firewall reload sends many messages, but our rules must be restored soon
            deadline = time.monotonic() + _AT_MOST_S
            quiet = False
            while not quiet and time.monotonic() < deadline:
                self._drain()
                quiet = not self._wait(_QUIET_S)
            if select.select([self._stopping], [], [], 0)[0]:
                return
            self._changed()

    def _wait(self, timeout_s: float | None) -> bool:
        """Whether a message arrived; also False when the thread has to end."""
        ready, _, _ = select.select([*self._sockets, self._stopping], [], [], timeout_s)
        return bool(ready) and self._stopping not in ready

    def _drain(self) -> None:
        for each in self._sockets:
            # ENOBUFS: messages were lost because the buffer was full, which also means that something changed
            with contextlib.suppress(OSError):
                while each.recv(_BUFFER, socket.MSG_DONTWAIT):
                    pass


def _open(protocol: int, groups: int) -> socket.socket | None:
    """A netlink socket, None if the kernel does not support it or denies access."""
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
