# SPDX-License-Identifier: GPL-2.0-or-later
"""The listener's certificate and key. Looked at for each new connection, so that a renewed pair needs no restart.

Connections keep what they began with. While the new files do not fit together (one is replaced after the other), the
pair before them goes on.
"""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path

from agent.errors import ConfigError, PathError
from agent.files.user_paths import PATHS, Stamp, file_bytes, file_stamp
from agent.wire.pem import PemError, certificate_pem, key_pem

logger = logging.getLogger(__name__)

Stamps = tuple[Stamp, ...]


class TlsFiles:
    """One pair of files, PEM or DER."""

    def __init__(self, cert: Path, key: Path) -> None:
        self.paths = (cert, key)
        self._context: ssl.SSLContext | None = None
        self._seen: Stamps | None = None
        self._problem = ""

    def context(self) -> ssl.SSLContext:
        """For a new connection. Blocks: the files may be anywhere. Raises ConfigError when there never was a usable pair."""
        view = PATHS.view((file_stamp, str(path)) for path in self.paths)
        try:
            stamp = tuple(view(file_stamp, str(path)) for path in self.paths)
        except PathError as exc:
            self._failed(str(exc), None)
        else:
            if stamp != self._seen:
                self._load(stamp)
        if self._context is None:
            raise ConfigError(self._problem)
        return self._context

    def _load(self, stamp: Stamps) -> None:
        cert, key = self.paths
        try:
            self._context = _context(certificate_pem(_read(cert)), key_pem(_read(key)))
        except (OSError, PathError, PemError) as exc:  # an SSLError is an OSError
            self._failed(f"{cert} and {key} cannot be used: {exc}", stamp)
            return
        if self._seen is not None:
            logger.info("certificate %s was loaded again", cert)
        self._seen, self._problem = stamp, ""

    def _failed(self, problem: str, stamp: Stamps | None) -> None:
        if problem != self._problem and self._context is not None:
            logger.warning("%s; the certificate before goes on", problem)
        self._problem, self._seen = problem, stamp or self._seen


def _read(path: Path) -> bytes:
    return PATHS.ask(file_bytes, str(path))


def _context(cert: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # OpenSSL wants files; this one is in memory, and holds just what was read
    descriptor = os.memfd_create("tls-pair", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, key + b"\n" + cert)
        # a key with a passphrase must not ask for it on a terminal
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    finally:
        os.close(descriptor)
    return context
