# SPDX-License-Identifier: GPL-2.0-or-later
"""The certificates that dockerd serves with: the user's files, or ours, made and renewed in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.dockerd.ports import Certificates
from agent.errors import ClockNotSetError, DaemonError, PathError, Reason, UcidockdError
from agent.files.user_paths import PATHS, mode_of
from agent.model.dockerd.settings import Document, TlsSettings
from agent.plan.daemon import Identity


@dataclass(slots=True, kw_only=True)
class ServerIdentities:
    """`names`: `list san` -> all names of this machine. `wall`: unix seconds."""

    certificates: Certificates | None
    names: Callable[[tuple[str, ...]], tuple[str, ...]]
    wall: Callable[[], float]
    foresees: bool = False  # certificates that would be made are named as if they were there

    def get(self, tls: TlsSettings | None, last_good: Document) -> tuple[Identity | None, DaemonError | None]:
        """The identity, and what is wrong when it is not the one that was asked for.

        While none can be made (the clock is not set), the last good configuration's goes on.
        """
        if tls is None:
            return None, None
        if tls.broken:
            kept = _kept(last_good)
            text = "section tls has mistakes: " + (
                "the certificates from before go on" if kept else "TCP hosts stay closed"
            )
            return kept, DaemonError(text, reason="Certificate")
        if not tls.auto:
            return Identity(cacert=tls.cacert, cert=tls.cert, key=tls.key), None
        if self.foresees:
            return _kept(last_good) or _TO_BE_MADE, None
        try:
            return self._make(tls)
        except UcidockdError as exc:
            kept = _kept(last_good)
            text = str(exc) if kept else f"{exc}; TCP hosts stay closed"
            return kept, DaemonError(text, reason=_reason(exc))

    def _make(self, tls: TlsSettings) -> tuple[Identity, DaemonError | None]:
        if self.certificates is None:
            raise DaemonError("there are no certificates yet", reason="Certificate")
        made, _ = self.certificates.ensure_server(
            sans=self.names(tls.san),
            days=tls.days,
            renew_days=tls.renew_days,
            now=self.wall(),
        )
        identity = Identity(cacert=str(made.ca), cert=str(made.cert), key=str(made.key))
        return identity, DaemonError(made.problem, reason="Certificate") if made.problem else None


_TO_BE_MADE = Identity(cacert="(new)", cert="(new)", key="(new)")


def _kept(document: Mapping[str, object]) -> Identity | None:
    paths = [str(document.get(key) or "") for key in ("tlscacert", "tlscert", "tlskey")]
    try:
        if not all(path and PATHS.ask(mode_of, path) for path in paths):
            return None
    except PathError:
        return None
    return Identity(cacert=paths[0], cert=paths[1], key=paths[2])


def _reason(exc: UcidockdError) -> Reason:
    """The word for the condition."""
    if isinstance(exc, DaemonError):
        return exc.reason
    return "ClockNotSet" if isinstance(exc, ClockNotSetError) else "Certificate"
