# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes a dockerd the one that is meant: the certificates it serves with, and the data it keeps."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.dockerd.files import DaemonFiles, EngineData
from agent.dockerd.ports import Certificates
from agent.dockerd.status import DaemonStatus
from agent.errors import ClockNotSetError, DaemonError, PathError, Reason, UcidockdError
from agent.files.atomic import atomic_write
from agent.files.user_paths import PATHS, file_bytes, mode_of
from agent.model.dockerd.settings import Document, TlsSettings
from agent.plan.daemon import Identity

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class ServerIdentities:
    """`names`: `list san` -> all names of this machine. `wall`: unix seconds."""

    certificates: Certificates | None
    names: Callable[[tuple[str, ...]], tuple[str, ...]]
    wall: Callable[[], float]
    foresees: bool = False  # certificates that would be made are named as if they were there

    def get(self, tls: TlsSettings | None, last_good: Document) -> tuple[Identity | None, DaemonError | None]:
        """The identity, and what is wrong when it is not the one that was asked for.

        While none can be made (the clock is not set), the last good configuration's continues.
        """
        if tls is None:
            return None, None
        if tls.broken:
            kept = _kept(last_good)
            text = "section tls has mistakes: " + (
                "the previous certificates stay in use" if kept else "TCP hosts stay closed"
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
            reason: Reason = "ClockNotSet" if isinstance(exc, ClockNotSetError) else "Certificate"
            return kept, DaemonError(text, reason=exc.reason if isinstance(exc, DaemonError) else reason)

    def _make(self, tls: TlsSettings) -> tuple[Identity, DaemonError | None]:
        if self.certificates is None:
            raise DaemonError("no certificates yet", reason="Certificate")
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


# Whether the engine that runs keeps the data that the containers were meant for: the same data_root, on the same disk,
# kept by the same storage driver.
#
# On a disk (a mount that fstab declares) we leave a mark in data_root. One that lacks it is another disk or was emptied:
# to create everything there again is what the user may want, and has to say (`ucidockd reconcile`). An engine that has our
# containers is the right one, wherever its data was moved to.


MARK = ".ucidockd-engine"
_MARK_BYTES = 64


class EngineHome:
    """`on_disk`: whether a directory is declared to be on a mount."""

    def __init__(self, files: DaemonFiles, status: DaemonStatus, *, on_disk: Callable[[str], bool]) -> None:
        self._files, self._status, self._on_disk = files, status, on_disk
        self.mark = ""  # on the disk of the engine that runs

    def other(
        self,
        root: str,
        *,
        accepted: bool,
        store: str = "",
        asked: bool = True,
        has_ours: Callable[[], bool] = lambda: False,
    ) -> str:
        """Why nothing is to be created on the engine with this data_root, "" where it is the right one.

        `accepted`: a reconcile was asked for, so that this one is. `store`: what keeps its images and containers, "" when
        that is not known. `asked`: whether it is the engine that UCI asks for, and not one that stands in for it.
        `has_ours`: whether it has our containers; asked only where the rest says that it is another one. Raises OSError.
        """
        meant = self._files.engine()
        disk = self._on_disk(root)
        found = _mark_of(root) if disk else ""
        now = EngineData(data_root=root, mark=found, store=store)
        self.mark = found
        what, reason = _difference(meant, now, disk=disk)
        # a person said so; or it is the first engine, and the one that UCI names; or its data was only moved elsewhere
        if accepted or (not meant.data_root and asked) or (meant.data_root and what and has_ours()):
            self.mark = (found or _new_mark(root)) if disk else ""
            self._files.write_engine(replace(now, mark=self.mark, store=store or meant.store))
            return self._show("")
        if not meant.data_root:
            return self._show("this is not the engine that was asked for", reason="Fallback")
        if what:
            return self._show(what, reason=reason)
        self.mark = meant.mark or ((found or _new_mark(root)) if disk else "")
        self._files.write_engine(EngineData(data_root=root, mark=self.mark, store=meant.store or store))
        return self._show("")

    def _show(self, what: str, *, reason: Reason = "DataRoot") -> str:
        text = f"{what}: nothing is created there until `ucidockd reconcile`" if what else ""
        self._status.engine_changed(text, reason=reason)
        return text


def _difference(meant: EngineData, now: EngineData, *, disk: bool) -> tuple[str, Reason]:
    """How the engine differs from the one that the containers were meant for ("": not at all), and the word for it."""
    root = now.data_root
    if meant.data_root != root:
        return f"data_root was {meant.data_root} and is {root}", "DataRoot"
    if disk and meant.mark and now.mark != meant.mark:
        return f"{root} is on another disk than before, or that was emptied", "Disk"
    if now.store and meant.store and now.store != meant.store:
        return f"images and containers were kept by {meant.store}, now by {now.store}", "Store"
    return "", "DataRoot"


def _mark_of(root: str) -> str:
    try:
        return PATHS.ask(file_bytes, f"{root}/{MARK}")[:_MARK_BYTES].decode("ascii", "replace").strip()
    except PathError:
        return ""


def _new_mark(root: str) -> str:
    """Without a mark (the disk is full, say) it is tried again in the next pass."""
    mark = secrets.token_hex(16)
    with contextlib.suppress(OSError):
        atomic_write(Path(root, MARK), f"{mark}\n".encode(), mode=0o600)
        return mark
    logger.debug("no mark could be left in %s", root)
    return ""
