# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates and keys as PEM, whichever way they came: OpenWrt's uhttpd keeps DER (its init script, px5g).

Which kind of key a DER file holds tells the second element of its outer SEQUENCE (RFC 5208, 8017, 5915).
"""

from __future__ import annotations

import base64
import textwrap

_BEGIN = b"-----BEGIN "
_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04
_KEY_KINDS = {_SEQUENCE: "PRIVATE KEY", _INTEGER: "RSA PRIVATE KEY", _OCTETS: "EC PRIVATE KEY"}


class PemError(Exception):
    """The file is neither PEM nor the DER that was expected."""


def certificate_pem(data: bytes) -> bytes:
    """A certificate, or a chain when it was PEM. Raises PemError."""
    if _BEGIN in data:
        return data
    if data[:1] != bytes([_SEQUENCE]):
        raise PemError("no certificate, neither PEM nor DER")
    return _wrap(data, "CERTIFICATE")


def key_pem(data: bytes) -> bytes:
    """A private key. Raises PemError."""
    if _BEGIN in data:
        return data
    try:
        tag, content, _ = _element(data)
        version, _, rest = _element(content)
        kind = _KEY_KINDS[rest[0]] if (tag, version) == (_SEQUENCE, _INTEGER) else ""
    except (IndexError, KeyError):
        kind = ""
    if not kind:
        raise PemError("no private key, neither PEM nor DER")
    return _wrap(data, kind)


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows of the first element (X.690, 8.1). Raises IndexError."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise IndexError
    return data[0], data[start : start + length], data[start + length :]


def _wrap(data: bytes, kind: str) -> bytes:
    body = "\n".join(textwrap.wrap(base64.b64encode(data).decode("ascii"), 64))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n".encode()
