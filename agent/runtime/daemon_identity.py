# SPDX-License-Identifier: GPL-2.0-or-later
"""The certificates that dockerd serves with: the user's files, or ours, made and renewed in time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.apply.daemon_ports import Certificates
from agent.errors import DaemonError, UcidockdError
from agent.model.daemon import Document, TlsSettings
from agent.plan.daemon import Identity

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 3600.0


@dataclass(slots=True, kw_only=True)
class ServerIdentities:
    """`names`: `list san` -> all names of this machine. `wall` is unix seconds, `monotonic` for the hour between looks."""

    certificates: Certificates | None
    names: Callable[[tuple[str, ...]], tuple[str, ...]]
    wall: Callable[[], float]
    monotonic: Callable[[], float]
    _known: tuple[TlsSettings, Identity, float] | None = None

    def get(self, tls: TlsSettings | None, last_good: Document) -> tuple[Identity | None, DaemonError | None]:
        """The identity, and what is wrong when it is not the one that was asked for.

        While none can be made (the clock is not set), the last good configuration's goes on.
        """
        if tls is None:
            return None, None
        if not tls.auto:
            return Identity(cacert=tls.cacert, cert=tls.cert, key=tls.key), None
        now = self.monotonic()
        if self._known is not None and self._known[0] == tls and now < self._known[2]:
            return self._known[1], None
        try:
            identity = self._make(tls)
        except UcidockdError as exc:
            kept = _kept(last_good)
            text = str(exc) if kept else f"{exc}; TCP hosts stay closed"
            reason = exc.reason if isinstance(exc, DaemonError) else _word(exc.code)
            return kept, DaemonError(text, reason=reason)
        self._known = (tls, identity, now + _LOOK_EVERY_S)
        return identity, None

    def _make(self, tls: TlsSettings) -> Identity:
        if self.certificates is None:
            raise DaemonError("there are no certificates yet", reason="Certificate")
        made, changed = self.certificates.ensure_server(
            sans=self.names(tls.san), days=tls.days, renew_days=tls.renew_days, now=self.wall()
        )
        if changed:
            logger.info("made a certificate for dockerd")
        return Identity(cacert=str(made.ca), cert=str(made.cert), key=str(made.key))


def _kept(document: Mapping[str, object]) -> Identity | None:
    paths = [str(document.get(key) or "") for key in ("tlscacert", "tlscert", "tlskey")]
    if not all(path and Path(path).exists() for path in paths):
        return None
    return Identity(cacert=paths[0], cert=paths[1], key=paths[2])


def _word(code: str) -> str:
    """`clock-not-set` -> `ClockNotSet`."""
    return "".join(part.capitalize() for part in code.split("-"))
