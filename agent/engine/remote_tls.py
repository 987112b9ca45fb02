# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS to an engine on another machine: a folder with `ca.pem`, `cert.pem` and `key.pem`, as DOCKER_CERT_PATH names one.

Both clients of the engine (`engine.client`, `engine.stream`) take their contexts from here. Nothing but that `ca.pem` is
trusted. Files that were replaced count for the next connection.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

from agent.engine.limits import TimedTlsSocket
from agent.errors import EngineClockError, EngineTlsError, PathError
from agent.files.user_paths import PATHS, Stamp, file_stamp
from agent.model.quantities import clock_is_set

_OTHERS = 0o077  # mode bits of everybody but the owner
_Stamps = tuple[Stamp, ...]


class EngineTls:
    """`wall`: the clock, in unix seconds."""

    def __init__(self, folder: str, *, wall: Callable[[], float] = time.time) -> None:
        self.ca, self._cert, self._key = (Path(folder, name) for name in ("ca.pem", "cert.pem", "key.pem"))
        self._wall = wall
        self._made: tuple[_Stamps, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """For any number of connections of one thread. Raises EngineTlsError, EngineClockError."""
        stamp = self._stamp()
        if self._made is None or self._made[0] != stamp:
            self._made = (stamp, self._make())
        return self._made[1]

    def own_context(self) -> ssl.SSLContext:
        """One that the caller may change: urllib3 does, at each connection. Raises as `context`."""
        self._stamp()
        return self._make()

    def words(self) -> list[str]:
        """What the command `docker` needs to be told."""
        return ["--tlsverify", f"--tlscacert={self.ca}", f"--tlscert={self._cert}", f"--tlskey={self._key}"]

    def _stamp(self) -> _Stamps:
        """The files as they are now. Raises where they cannot be used."""
        if not clock_is_set(self._wall()):
            raise EngineClockError("the clock is not set: the engine's certificate cannot be checked yet")
        files = (self.ca, self._cert, self._key)
        view = PATHS.view((file_stamp, str(path)) for path in files)
        try:
            found = tuple(view(file_stamp, str(path)) for path in files)
        except PathError as exc:
            raise EngineTlsError(f"docker_cert_path: {exc}") from exc
        if found[-1].mode & _OTHERS:
            raise EngineTlsError(f"docker_cert_path: {self._key} is open to others, expected mode 0600")
        return found

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = TimedTlsSocket
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as exc:
            raise EngineTlsError(f"docker_cert_path: {self.ca} holds no certificate in PEM: {exc}") from exc
        try:
            # A key with a passphrase would ask for it on a terminal that a service does not have.
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise EngineTlsError(
                f"docker_cert_path: {self._cert} and {self._key} are not a pair of certificate and key in PEM: {exc}"
            ) from exc
        return context


def is_mistrust(exc: BaseException) -> bool:
    """Whether TLS failed for what the two sides think of each other, and not for a connection that broke."""
    return isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _no_password() -> str:
    """Without it OpenSSL would ask on the terminal."""
    raise ValueError("the key wants a password")
