# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at this machine before dockerd is disturbed: certificate files, addresses, and what `dockerd --validate` says."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from agent.dockerd.supervisor import validate
from agent.errors import DaemonError, PathError
from agent.files.user_paths import PATHS, file_bytes
from agent.model.dockerd.settings import Host, Target
from agent.model.dockerd.table import TABLE, Version, value_at, without_key

_VALIDATES = (23, 0)
_CLEAR = {
    errno.EADDRINUSE: "the port is in use",
    errno.EADDRNOTAVAIL: "this machine does not have the address",
}


def checker(program: str, *, version: Callable[[], Version], run_dir: Path) -> Callable[[Target], None]:
    """The check of a target; it raises DaemonError with reason Refused."""

    def check(target: Target) -> None:
        if target.document.get("tls"):
            check_certificates(
                *(str(target.document.get(key) or "") for key in ("tlscacert", "tlscert", "tlskey"))
            )
        if version() >= _VALIDATES:
            _check_with_engine(program, target, run_dir)

    return check


def culprits(program: str, target: Target, run_dir: Path, version: Version) -> dict[str, str]:
    """Keys without which dockerd would take these settings, and what it says of them: one wrong value, as a rule.

    Nothing where dockerd cannot validate (before 23.0), and where no single key is to blame. Raises DaemonError.
    """
    wrong = _refusal(program, target, run_dir) if version >= _VALIDATES else ""
    for row in TABLE if wrong else ():
        if value_at(target.document, row.key) in (None, row.default):
            continue
        without = replace(target, document=without_key(target.document, row.key))
        if not _refusal(program, without, run_dir):
            return {row.key: f"dockerd refuses it: {wrong}"}
    return {}


def _check_with_engine(program: str, target: Target, run_dir: Path) -> None:
    wrong = _refusal(program, target, run_dir)
    if wrong:
        raise DaemonError(f"dockerd refuses these settings: {wrong}", reason="Refused")


def _refusal(program: str, target: Target, run_dir: Path) -> str:
    """What dockerd says against the settings, "" for nothing."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".daemon-candidate-", dir=run_dir)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(target.text)
            return validate(program, Path(name), target.arguments)
        finally:
            Path(name).unlink()
    except OSError as exc:
        raise DaemonError(f"daemon.json cannot be written: {exc.strerror}", reason="StorageFull") from exc


def check_certificates(ca: str, cert: str, key: str) -> None:
    """Whether dockerd could serve with these files; `ca` "" when clients are not verified. Raises DaemonError."""
    import ssl  # only where TLS is used

    for path in filter(None, (ca, cert, key)):
        try:
            PATHS.ask(file_bytes, path)
        except PathError as exc:
            raise DaemonError(str(exc), reason="Refused") from exc
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as exc:
        words = "the key does not belong to the certificate" if "MISMATCH" in str(exc) else "no PEM pair"
        raise DaemonError(f"{cert} and {key}: {words}", reason="Refused") from exc
    if ca:
        try:
            context.load_verify_locations(cafile=ca)
        except ssl.SSLError as exc:
            raise DaemonError(f"{ca} holds no certificate of a CA in PEM form", reason="Refused") from exc


def _no_password() -> str:
    """dockerd takes no password either; without this OpenSSL would ask the terminal."""
    return ""


def unavailable_hosts(hosts: Iterable[Host]) -> dict[str, str]:
    """TCP hosts that could not be listened on now, with the reason. A socket is bound and closed at once."""
    found = {}
    for host in hosts:
        if not host.is_unix and (reason := _why_not(host)):
            found[host.text] = reason
    return found


def _why_not(host: Host) -> str:
    family = socket.AF_INET6 if ":" in host.address else socket.AF_INET
    try:
        with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go does
            link.bind((host.address, host.port))
            # two may bind with SO_REUSEADDR, only one may listen; dockerd's own clients see a refusal, not a hang
            link.listen(1)
    except OSError as exc:
        return _CLEAR.get(exc.errno or 0, exc.strerror or str(exc))
    return ""
