# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells when network devices or nftables rules change (rtnetlink(7), linux/netfilter/nfnetlink.h).

Not every change of rules comes with an event on ubus: `nft flush ruleset` by hand, or fw3's restart. What the messages
say is not looked at: who is told looks for himself. iptables-legacy tells nobody of its changes.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

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
            deadline = time.monotonic() + _AT_MOST_S
            quiet = False
            while not quiet and time.monotonic() < deadline:
                self._drain()
                quiet = not self._wait(_QUIET_S)
            if self._stopped():
                return
            self._changed()

    def _wait(self, timeout_s: float | None) -> bool:
        """Whether a message came; False as well when it is to end."""
        ready, _, _ = select.select([*self._sockets, self._stopping], [], [], timeout_s)
        return bool(ready) and self._stopping not in ready

    def _stopped(self) -> bool:
        return bool(select.select([self._stopping], [], [], 0)[0])

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
