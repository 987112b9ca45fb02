# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates of ours on a real dockerd: who gets in and who does not, with `docker --tlsverify` and docker-py."""

from __future__ import annotations

import re
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from requests.exceptions import ConnectionError as CannotConnect

from agent.tls import certificates
from agent.tls.certificates import Certificates
from tests.support.certificates import DAY, cert_of
from tests.support.tls_dockerd import (
    ADDRESSES,
    TlsDockerd,
    ask_with_command,
    ask_with_library,
    command_lines,
)

NOW = time.time()
NAMES = ("localhost", ADDRESSES[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A dockerd with certificates that are 100 days old, of a CA that has to be renewed soon."""

    dockerd: TlsDockerd
    certificates: Certificates
    other: Certificates
    bundle: Path

    def copy(self, target: Path) -> Path:
        return shutil.copytree(self.bundle, target)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder, old = tmp_path_factory.mktemp("tls"), NOW - 100 * DAY
    ours, other = Certificates(folder / "tls"), Certificates(folder / "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "_CA_DAYS", 400)
        identity, _ = ours.ensure_server(sans=NAMES, days=120, renew_days=10, now=old)
    other.ensure_server(sans=NAMES, days=120, renew_days=10, now=NOW)
    bundle = ours.make_client("laptop", folder / "laptop", days=200, now=old)
    dockerd = TlsDockerd(identity, subnet=37)
    try:
        dockerd.start()
        yield Engine(dockerd=dockerd, certificates=ours, other=other, bundle=bundle.directory)
    finally:
        dockerd.close()


def gets_in(engine: Engine, bundle: Path, address: str = ADDRESSES[0]) -> None:
    url = engine.dockerd.url(address)
    version = ask_with_library(url, bundle)
    assert command_lines()
    for command in command_lines():
        assert ask_with_command(command, url, bundle) == (0, version)


def without_certificate(engine: Engine, target: Path) -> Path:
    bundle = engine.copy(target)
    for name in ("cert.pem", "key.pem"):
        (bundle / name).unlink()
    return bundle


def of_another_ca(engine: Engine, target: Path) -> Path:
    """It trusts the right server, so that it is the server that has to refuse."""
    bundle = engine.other.make_client("stranger", target, days=30, now=NOW)
    shutil.copy(engine.bundle / "ca.pem", bundle.ca)
    return target


def expired(engine: Engine, target: Path) -> Path:
    return engine.certificates.make_client("old", target, days=30, now=NOW - 31 * DAY).directory


def not_yet_valid(engine: Engine, target: Path) -> Path:
    return engine.certificates.make_client("early", target, days=30, now=NOW + 2 * DAY).directory


def with_the_servers_own(engine: Engine, target: Path) -> Path:
    return shutil.copytree(engine.dockerd.identity.cert.parent, target)


def that_trusts_another_ca(engine: Engine, target: Path) -> Path:
    bundle = engine.copy(target)
    stranger = engine.other.make_client("stranger", target.with_name("stranger"), days=30, now=NOW)
    shutil.copy(stranger.ca, bundle / "ca.pem")
    return bundle


# what dockerd's log says of it: the client sees no more than a reset where TLS 1.3 is refused late
REFUSED: list[tuple[Callable[[Engine, Path], Path], str]] = [
    (without_certificate, "client didn't provide a certificate"),
    # Go sends no certificate at all when the server names no CA that signed one
    (of_another_ca, "certificate signed by unknown authority|client didn't provide a certificate"),
    (expired, "certificate has expired or is not yet valid: current time"),
    (not_yet_valid, "certificate has expired or is not yet valid: current time"),
    (with_the_servers_own, "certificate specifies an incompatible key usage"),
]


def test_a_client_with_its_bundle_gets_in(engine: Engine) -> None:
    gets_in(engine, engine.bundle)


@pytest.mark.parametrize(("client", "complaint"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_dockerd_refuses_a_client(
    engine: Engine, tmp_path: Path, client: Callable[[Engine, Path], Path], complaint: str
) -> None:
    bundle, url = client(engine, tmp_path / "bundle"), engine.dockerd.url()
    log = engine.dockerd.root / "dockerd.log"
    begin = log.stat().st_size
    with pytest.raises(CannotConnect):
        ask_with_library(url, bundle)
    for command in command_lines():
        assert ask_with_command(command, url, bundle)[0] == 1
    said = handshake_errors(log, begin, at_least=1 + len(command_lines()))
    assert [line for line in said if not re.search(complaint, line)] == []


def handshake_errors(log: Path, begin: int, *, at_least: int) -> list[str]:
    """What dockerd complains about after `begin`; it may write later than its client ends."""
    deadline = time.monotonic() + 10
    while True:
        lines = log.read_bytes()[begin:].decode().splitlines()
        if len(said := [line for line in lines if "TLS handshake error" in line]) >= at_least:
            return said
        assert time.monotonic() < deadline, lines
        time.sleep(0.02)


def with_its_bundle(engine: Engine, target: Path) -> Path:
    return engine.copy(target)


SERVER_REFUSED: list[tuple[Callable[[Engine, Path], Path], str, str, str]] = [
    (with_its_bundle, ADDRESSES[1], "certificate is valid for 127.0.0.1, not 127.0.0.2", "127.0.0.2"),
    (that_trusts_another_ca, ADDRESSES[0], "signed by unknown authority", "unable to get local issuer"),
]


@pytest.mark.parametrize(
    ("client", "address", "complaint", "library_complaint"), SERVER_REFUSED, ids=["wrong name", "another CA"]
)
def test_a_client_refuses_a_server_of_another_name_or_ca(
    engine: Engine,
    tmp_path: Path,
    client: Callable[[Engine, Path], Path],
    address: str,
    complaint: str,
    library_complaint: str,
) -> None:
    bundle, url = client(engine, tmp_path / "bundle"), engine.dockerd.url(address)
    with pytest.raises(CannotConnect, match=library_complaint):
        ask_with_library(url, bundle)
    for command in command_lines():
        code, output = ask_with_command(command, url, bundle)
        assert (code, complaint in output) == (1, True), output


def test_old_and_new_bundles_work_after_the_ca_and_the_server_were_renewed(
    engine: Engine, tmp_path: Path
) -> None:
    before = engine.dockerd.identity
    identity, changed = engine.certificates.ensure_server(sans=NAMES, days=365, renew_days=30, now=NOW)
    assert changed is True
    assert cert_of(identity.ca) != cert_of(before.ca)
    bundle = engine.certificates.make_client("phone", tmp_path / "phone", days=30, now=NOW).directory
    gets_in(engine, bundle)  # a client of the renewed CA at a dockerd that has the old one still
    engine.dockerd.stop()
    engine.dockerd.identity = identity
    engine.dockerd.start()
    served = ssl.get_server_certificate((ADDRESSES[0], engine.dockerd.port))
    assert served.strip() == identity.cert.read_text().strip()
    gets_in(engine, engine.bundle)
    gets_in(engine, bundle)
