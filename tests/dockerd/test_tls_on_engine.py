# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS on dockerd's TCP hosts with certificates of openssl: who comes in and who does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.errors import ClockNotSetError
from tests.support.daemon_lab import DaemonLab

PORT = 2376
HOSTS = f"list hosts 'tcp://127.0.0.1:{PORT}'\nlist hosts 'tcp://[::1]:{PORT + 1}'\n"


@dataclass(frozen=True)
class Authority:
    """A CA of openssl's and what it signed. Implements the ServerIdentity of `mode auto` too."""

    folder: Path
    expires: float = 0.0
    problem: str = ""

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def cert(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        return self.folder / "server-key.pem"

    @classmethod
    def make(cls, folder: Path) -> Authority:
        folder.mkdir()
        made = cls(folder)
        ca = ("-subj", "/CN=ca", "-addext", CA_USAGE, "-keyout", "ca-key.pem", "-out", "ca.pem")
        openssl(folder, "req", "-x509", *KEY, *ca)
        made.sign("server", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nextendedKeyUsage=serverAuth")
        made.sign("client", "extendedKeyUsage=clientAuth")
        return made

    def sign(self, name: str, extensions: str, days: str = "1") -> None:
        (self.folder / "ext").write_text(f"{extensions}\n{KEY_IDENTIFIERS}")
        openssl(
            self.folder,
            "req",
            *KEY,
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}-key.pem",
            "-out",
            f"{name}.csr",
        )
        openssl(
            self.folder,
            *(
                "x509",
                "-req",
                "-in",
                f"{name}.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca-key.pem",
                "-CAcreateserial",
            ),
            *("-days", days, "-extfile", "ext", "-out", f"{name}.pem"),
        )

    def section(self, *, verify: str = "1") -> str:
        lines = [f"option verify '{verify}'", "option mode 'files'"]
        lines += [f"option cacert '{self.ca}'", f"option cert '{self.cert}'", f"option key '{self.key}'"]
        return "config tls 'tls'\n" + "\n".join(lines)


KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
# RFC 5280 4.2.1.1 and 4.2.1.3: without them Python's default context refuses a chain from 3.13 on (VERIFY_X509_STRICT)
CA_USAGE = "keyUsage=critical,keyCertSign,cRLSign"
KEY_IDENTIFIERS = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ours")


CLIENT = """
import http.client, ssl, sys
host, port, ca, cert, key, version = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if cert:
    context.load_cert_chain(cert, key)
connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=5)
connection.request("GET", "/_ping")
print(connection.getresponse().read().decode())
"""


def comes_in(lab: DaemonLab, trusted: Authority, own: Authority | None, *, host: str = "127.0.0.1") -> bool:
    """Whether a client gets an answer; `own` has its certificate."""
    pair = [str(own.folder / "client.pem"), str(own.folder / "client-key.pem")] if own else ["", ""]
    port = str(PORT + 1 if ":" in host else PORT)
    done = lab.network.run(sys.executable, "-c", CLIENT, host, port, str(trusted.ca), *pair, "", check=False)
    return done.stdout.strip() == "OK"


def test_only_a_client_with_a_certificate_of_the_ca_comes_in(
    any_lab: DaemonLab, authority: Authority, tmp_path: Path
) -> None:
    lab = any_lab
    stranger = Authority.make(tmp_path / "stranger")
    assert lab.apply(HOSTS, authority.section())
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert lab.conditions()["InsecureAPI"] == (False, "Secure")
    assert comes_in(lab, authority, authority)
    assert comes_in(lab, authority, authority, host="::1")
    assert not comes_in(lab, authority, None)
    assert not comes_in(lab, authority, stranger)
    assert not comes_in(lab, stranger, authority), "a server that is not the one that was trusted"
    assert lab.probe.answers(), "on the unix socket as before"


@pytest.mark.long
def test_other_certificates_in_the_same_files_are_taken_up_by_a_restart(
    lab: DaemonLab, authority: Authority
) -> None:
    assert lab.apply(HOSTS, authority.section())
    pid = lab.run_container()
    before = lab.process
    assert lab.apply()
    assert lab.process == before
    authority.sign("server", "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth")
    assert lab.apply()
    assert lab.process != before
    assert not comes_in(lab, authority, authority), "the new certificate is not valid for 127.0.0.1"
    assert comes_in(lab, authority, authority, host="localhost")
    assert lab.pid_of() == pid


@pytest.mark.long
def test_tls_that_is_switched_off_leaves_only_loopback_open(lab: DaemonLab, authority: Authority) -> None:
    assert lab.apply(HOSTS, authority.section())
    assert lab.apply(HOSTS, authority.section().replace("option verify", "option enabled '0'\noption verify"))
    assert lab.document()["tls"] is False
    assert "tlsverify" not in lab.document()
    assert not comes_in(lab, authority, authority)
    assert lab.probe.answers()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("server-key.pem", None, "cannot be read: No such file"),
        ("server-key.pem", "client-key.pem", "the key does not belong to the certificate"),
        ("server.pem", "ext", "no PEM pair"),
        ("ca.pem", "ext", "holds no certificate of a CA"),
    ],
)
def test_certificates_that_do_not_work_are_refused_before_dockerd_is_disturbed(
    authority: Authority, file: str, content: str | None, words: str
) -> None:
    from agent.dockerd.target import check_certificates
    from agent.errors import DaemonError

    path = authority.folder / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes((authority.folder / content).read_bytes())
    with pytest.raises(DaemonError, match=words) as caught:
        check_certificates(str(authority.ca), str(authority.cert), str(authority.key))
    assert caught.value.reason == "Refused"


def test_missing_files_close_the_tcp_hosts_and_nothing_else(lab: DaemonLab, authority: Authority) -> None:
    away = authority.folder.with_name("away")
    authority.folder.rename(away)
    # a first boot: there is no dockerd and no last good configuration
    lab.apply(HOSTS + "option log_level 'warn'\n", authority.section())
    assert lab.probe.answers()
    assert lab.document()["log-level"] == "warn"
    assert lab.document()["hosts"] == [f"unix://{lab.socket}"]
    assert lab.conditions()["Synced"] == (False, "Certificate")
    # the files come
    away.rename(authority.folder)
    assert lab.apply()
    assert comes_in(lab, authority, authority)
    # dockerd has read them: it runs on as it is without them
    before = lab.process
    authority.folder.rename(away)
    assert lab.apply()
    assert lab.process == before
    away.rename(authority.folder)


class Maker:
    """Certificates whose making can fail, as the clock that is not set makes it."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.clock_is_set = False
        self.asked: list[tuple[str, ...]] = []

    def ensure_server(
        self, *, sans: tuple[str, ...], days: int, renew_days: int, now: float
    ) -> tuple[Authority, bool]:
        del days, renew_days, now
        if not self.clock_is_set:
            raise ClockNotSetError("the clock is not set")
        self.asked.append(sans)
        return self.authority, True


@pytest.fixture
def made(lab: DaemonLab, authority: Authority) -> Iterator[Maker]:
    maker = Maker(authority)
    lab.tools = {"certificates": maker, "names": lambda san: ("localhost", *san)}
    lab.restart_agent()
    yield maker


def test_until_the_clock_is_set_no_tcp_host_is_open_and_then_ours_are_used(
    lab: DaemonLab, authority: Authority, made: Maker
) -> None:
    tls = "config tls 'tls'\nlist san 'router.lan'\n"
    assert lab.apply(HOSTS, tls)
    assert lab.document()["hosts"] == [f"unix://{lab.socket}"]
    assert lab.conditions()["Degraded"] == (True, "ClockNotSet")
    assert "TCP hosts stay closed" in lab.message("Degraded")
    made.clock_is_set = True
    assert lab.apply()
    assert made.asked == [("localhost", "router.lan")]
    assert comes_in(lab, authority, authority)
    assert "Degraded" not in lab.conditions()
    lab.settle()
    made.clock_is_set = False
    before = lab.process
    lab.restart_agent()
    assert lab.apply()
    assert lab.process == before, "the last good certificates go on"
    assert comes_in(lab, authority, authority)
