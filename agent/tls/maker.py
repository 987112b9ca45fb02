# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes and inspects certificates in a short-lived process, because importing `cryptography` costs 8 MiB.

No module imports this one; `tls.certificates` runs it with one JSON request on stdin and reads one JSON answer from
stdout. Keys pass only through these pipes, never on the command line, in a file or in a message.

Extensions follow RFC 5280 4.2 for a CA and its leaves. Keys are EC P-256 (RFC 5480), because a router signs with them
in milliseconds and every TLS stack supports them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.model.addresses import is_address

_BACK = timedelta(hours=1)  # so that a peer whose clock is slightly behind accepts it too
_ORGANIZATION = "ucidockd"
# raised by the library for damaged PEM; TypeError means that the key is encrypted
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class Facts(TypedDict):
    """What the agent needs to know about a certificate. Times are unix seconds."""

    not_before: float
    expires: float
    sans: list[str]


class Pair(TypedDict):
    """A certificate with its key, both PEM."""

    cert: str
    key: str


class MadePair(Pair, Facts):
    """A pair as it is returned to the agent."""


def make(request: dict[str, Any]) -> dict[str, Any]:
    """A server pair signed by the CA `ca`. The CA is created if null; with `renew_ca` it is renewed with its own key."""
    now, old = _time(request["now"]), request["ca"]
    new_ca = None
    if old is None:
        new_ca = _make_ca(None, now, request["ca_days"])
    # with its own key, so that existing client certificates stay valid under the new CA
    elif request["renew_ca"]:
        new_ca = _make_ca(old, now, request["ca_days"])
    ca = new_ca or old
    server = _make_leaf(
        ca,
        subject="dockerd",
        usage=ExtendedKeyUsageOID.SERVER_AUTH,
        life=(now, request["days"]),
        sans=request["sans"],
    )
    return {"ca": new_ca, "server": server, "authority": ca["cert"]}


def client(request: dict[str, Any]) -> dict[str, Any]:
    """A client pair signed by the CA `ca`."""
    life = (_time(request["now"]), request["days"])
    return {
        "client": _make_leaf(
            request["ca"], subject=request["name"], usage=ExtendedKeyUsageOID.CLIENT_AUTH, life=life, sans=[]
        )
    }


def inspect(request: dict[str, Any]) -> dict[str, Any]:
    """What is wrong with a pair ("" if nothing is), and its facts. `ca` is the certificate that signed it."""
    try:
        cert = x509.load_pem_x509_certificate(request["cert"].encode())
        authority = x509.load_pem_x509_certificate(request["ca"].encode())
        key = _key(request["key"])
        problem = _problem(cert, key, authority)
        facts = _facts(cert)
    except _UNREADABLE as exc:
        return {"problem": f"not readable as a certificate and its key ({str(exc)[:160]})"}
    return {"problem": problem, **facts}


def _problem(cert: x509.Certificate, key: ec.EllipticCurvePrivateKey, authority: x509.Certificate) -> str:
    if cert.public_key() != key.public_key():
        return "the key does not match the certificate"
    try:
        cert.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return "the certificate is not signed by the CA"
    if cert == authority:  # otherwise the CA was checked before
        try:
            is_ca = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            is_ca = False
        return "" if is_ca else "the certificate is not one of a CA"
    return ""


def _make_ca(old: Pair | None, now: datetime, days: int) -> MadePair:
    """With the key and the name of `old`, so that certificates signed by it stay valid."""
    if old is None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(f"ucidockd CA {x509.random_serial_number() % 16**8:08x}")
    else:
        key = _key(old["key"])
        subject = x509.load_pem_x509_certificate(old["cert"].encode()).subject
    builder = _builder(subject, subject, key, key.public_key())
    builder = builder.not_valid_before(now - _BACK).not_valid_after(now + timedelta(days=days))
    # it signs certificates, but no further CA (RFC 5280 4.2.1.9)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
    return _pair(builder.sign(key, hashes.SHA256()), key)


def _make_leaf(
    ca: Pair, *, subject: str, usage: x509.ObjectIdentifier, life: tuple[datetime, int], sans: list[str]
) -> MadePair:
    """Makes a certificate that does not outlive the CA, because peers would refuse it after that."""
    ca_cert, ca_key = x509.load_pem_x509_certificate(ca["cert"].encode()), _key(ca["key"])
    key = ec.generate_private_key(ec.SECP256R1())
    now, days = life
    end = min(now + timedelta(days=days), ca_cert.not_valid_after_utc)
    builder = _builder(_name(subject), ca_cert.subject, key, ca_key.public_key())
    builder = builder.not_valid_before(now - _BACK).not_valid_after(end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if sans:
        # clients ignore an address in a DNS name (RFC 6125 6.2.1, RFC 5280 4.2.1.6)
        names = [
            x509.IPAddress(ipaddress.ip_address(san)) if is_address(san) else x509.DNSName(san)
            for san in sans
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pair(builder.sign(ca_key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        # random, as required of a CA (RFC 5280, 4.1.2.2): two certificates with one number would be mistaken for each other
        .serial_number(x509.random_serial_number())
        # OpenSSL finds the issuer by these, because a renewed CA has the same name
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    # a CA signs certificates and nothing else; a pair signs handshakes and nothing else
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _pair(cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> MadePair:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = cert.public_bytes(serialization.Encoding.PEM)
    return {"cert": public.decode(), "key": private.decode(), **_facts(cert)}


def _facts(cert: x509.Certificate) -> Facts:
    sans: list[str] = []
    with contextlib.suppress(x509.ExtensionNotFound):  # a CA has none
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        sans = [*names.get_values_for_type(x509.DNSName)]
        sans += map(str, names.get_values_for_type(x509.IPAddress))
    return {
        "not_before": cert.not_valid_before_utc.timestamp(),
        "expires": cert.not_valid_after_utc.timestamp(),
        "sans": sans,
    }


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("expected an EC key")
    return key


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


_OPERATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "make": make,
    "client": client,
    "inspect": inspect,
}


def main() -> None:
    """Handles one request."""
    request = json.load(sys.stdin)
    json.dump(_OPERATIONS[request["op"]](request), sys.stdout)


if __name__ == "__main__":
    main()
