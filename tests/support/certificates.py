# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that always hold for a directory of certificates, made with cryptography and OpenSSL."""

from __future__ import annotations

import json
import ssl
import stat
import subprocess
from pathlib import Path

from cryptography import x509

from agent.tls.certificates import ServerIdentity

NAMES = ("localhost", "router.lan", "127.0.0.1", "::1")
DAY = 86_400


def cert_of(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def check_pair(ca: Path, cert: Path, key: Path) -> None:
    """Checks that the key belongs to the certificate, that the CA signed it, and that only the owner can read the key."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    cert_of(cert).verify_directly_issued_by(cert_of(ca))
    for path in (ca, cert, key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def check_folder(directory: Path, identity: ServerIdentity) -> None:
    """Checks that everything in the index exists and matches, and that there is nothing else."""
    check_pair(identity.ca, identity.cert, identity.key)
    index = json.loads((directory / "index.json").read_bytes())
    ca = directory / index["ca"]["folder"]
    check_pair(ca / "ca.pem", ca / "ca.pem", ca / "ca-key.pem")
    assert (ca / "ca.pem").read_bytes() == identity.ca.read_bytes()
    assert identity.cert.parent.name == index["server"]["folder"]
    assert index["server"]["expires"] == cert_of(identity.cert).not_valid_after_utc.timestamp()
    named = {"index.json", ca.name, identity.cert.parent.name, *index["older"]}
    assert {path.name for path in directory.iterdir()} - bad(directory) == named
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def bad(directory: Path) -> set[str]:
    """The files that were set aside."""
    return {path.name for path in directory.glob("*.bad")}


def openssl_verifies(ca: Path, cert: Path, purpose: str, *words: str) -> str:
    """The end of the output of `openssl verify`: "OK" or its complaint."""
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-CAfile",
        str(ca),
        "-purpose",
        purpose,
        *words,
        str(cert),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().removeprefix(f"{cert}: ")
