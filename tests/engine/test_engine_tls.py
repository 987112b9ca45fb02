# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS to the engine: whom both of its clients trust, and what they say when they do not."""

from __future__ import annotations

import asyncio
import functools
import shutil
import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.engine.client import DockerEngine
from agent.engine.stream import DockerStream
from agent.engine.transport import EngineTls
from agent.errors import EngineClockError, EngineSlowError, EngineTlsError, EngineUnreachableError
from tests.support.certificates import DAY
from tests.support.remote import NAMES, NOW, Authority
from tests.support.scripted_engine import Script, ScriptedEngine, answer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n"
BODY = b'{"ApiVersion": "1.41"}'
VERSION = answer(HEAD + BODY)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(scope="module")
def laptop(authority: Authority) -> Path:
    return authority.client("laptop")


def server_context(authority: Authority) -> ssl.SSLContext:
    """As dockerd's with `--tlsverify`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server.cert, authority.server.key)
    context.load_verify_locations(authority.server.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def served(tls: ssl.SSLContext | None, script: Script = VERSION) -> Iterator[ScriptedEngine]:
    made = ScriptedEngine(None, script, tls=tls)
    try:
        yield made
    finally:
        made.close()


def by_call(url: str, tls: EngineTls) -> object:
    return DockerEngine(url, tls=tls, timeout_s=10).ping()


def by_stream(url: str, tls: EngineTls) -> object:
    async def ask() -> object:
        return await DockerStream(url, tls=tls).call(
            "GET", "/version", read=lambda body: (1, 41) if body else 0
        )

    return asyncio.run(ask())


ways = pytest.mark.parametrize("ask", [by_call, by_stream])
Ask = Callable[[str, EngineTls], object]


@ways
def test_an_engine_of_our_authority_is_used(authority: Authority, laptop: Path, ask: Ask) -> None:
    with served(server_context(authority)) as engine:
        assert ask(engine.url, EngineTls(str(laptop))) == (1, 41)
        assert ask(engine.url.replace("127.0.0.1", "localhost"), EngineTls(str(laptop))) == (1, 41)


@functools.cache
def another(folder: Path, names: tuple[str, ...], now: float) -> Authority:
    return Authority.make(folder, names=names, now=now)


def wrong_name(authority: Authority, stranger: Authority, laptop: Path) -> tuple[ssl.SSLContext, Path]:
    other = another(authority.folder / "elsewhere", ("192.0.2.1",), NOW)
    shutil.copy(other.server.ca, laptop / "ca.pem")
    return server_context(other), laptop


def another_authority(authority: Authority, stranger: Authority, laptop: Path) -> tuple[ssl.SSLContext, Path]:
    return server_context(stranger), laptop


def refused_client(authority: Authority, stranger: Authority, laptop: Path) -> tuple[ssl.SSLContext, Path]:
    shutil.copy(stranger.server.ca, laptop / "ca.pem")
    return server_context(stranger), laptop


def expired_client(authority: Authority, stranger: Authority, laptop: Path) -> tuple[ssl.SSLContext, Path]:
    return server_context(authority), authority.certificates.make_client(
        "old", laptop / "old", days=30, now=NOW - 31 * DAY
    ).directory


def expired_engine(authority: Authority, stranger: Authority, laptop: Path) -> tuple[ssl.SSLContext, Path]:
    other = another(authority.folder / "expired", NAMES, NOW - 121 * DAY)
    shutil.copy(other.server.ca, laptop / "ca.pem")
    return server_context(other), laptop


def old_protocol(authority: Authority, stranger: Authority, laptop: Path) -> tuple[ssl.SSLContext, Path]:
    context = server_context(authority)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return context, laptop


# what OpenSSL says of it, if anything: with TLS 1.3 an engine refuses us after the handshake, and its word may be lost
# with the connection
REFUSED = {
    wrong_name: "certificate is not valid for '127.0.0.1'",
    another_authority: "certificate verify failed",
    refused_client: None,
    expired_client: None,
    expired_engine: "certificate has expired",
    old_protocol: "protocol|alert",
}


@ways
@pytest.mark.parametrize("case", REFUSED)
def test_who_is_not_trusted_is_not_talked_to(
    authority: Authority,
    stranger: Authority,
    laptop: Path,
    tmp_path: Path,
    case: Callable[[Authority, Authority, Path], tuple[ssl.SSLContext, Path]],
    ask: Ask,
) -> None:
    context, folder = case(authority, stranger, shutil.copytree(laptop, tmp_path / "client"))
    with served(context) as engine:
        with pytest.raises(EngineUnreachableError, match=REFUSED[case]) as caught:
            ask(engine.url, EngineTls(str(folder)))
        assert not any(b"/version" in head for head in engine.heads)
        assert not REFUSED[case] or caught.type is EngineTlsError


@ways
def test_an_engine_without_tls_gets_nothing(laptop: Path, ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        got: list[bytes] = []

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                got.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(EngineTlsError, match=r"wrong version number|record layer failure"):
            ask(f"tcp://127.0.0.1:{server.getsockname()[1]}", EngineTls(str(laptop)))
        thread.join()
        assert got[0][:1] == b"\x16", "a TLS handshake"


@ways
def test_public_authorities_and_those_of_the_environment_are_not_trusted(
    stranger: Authority, laptop: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(stranger.server.ca))
    said = pytest.raises(EngineTlsError, match="certificate verify failed")
    with served(server_context(stranger)) as engine, said:
        ask(engine.url, EngineTls(str(laptop)))


def missing(folder: Path) -> None:
    (folder / "cert.pem").unlink()


def open_key(folder: Path) -> None:
    (folder / "key.pem").chmod(0o640)


def no_pem(folder: Path) -> None:
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")


def empty(folder: Path) -> None:
    (folder / "ca.pem").write_text("")


def strange_key(folder: Path) -> None:
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(folder / "key.pem")]
    subprocess.run(command, check=True)


def locked_key(folder: Path) -> None:
    key = folder / "key.pem"
    words = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:x"]
    key.write_bytes(subprocess.run(words, check=True, capture_output=True).stdout)


DAMAGE = {
    missing: "cert.pem cannot be read: No such file",
    open_key: "key.pem is open to others, expected mode 0600",
    no_pem: "ca.pem holds no certificate in PEM",
    empty: "ca.pem holds no certificate in PEM",
    strange_key: "are not a pair of certificate and key in PEM",
    locked_key: "the key needs a password",
}


@ways
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_cannot_be_used_is_said_and_nobody_is_called(
    laptop: Path, tmp_path: Path, damage: Callable[[Path], None], ask: Ask
) -> None:
    folder = shutil.copytree(laptop, tmp_path / "client")
    damage(folder)
    with pytest.raises(EngineTlsError, match=DAMAGE[damage]) as caught:
        ask("tcp://127.0.0.1:9", EngineTls(str(folder)))
    assert str(folder) in str(caught.value)


@ways
def test_before_the_clock_is_set_no_certificate_is_called_bad(laptop: Path, ask: Ask) -> None:
    with pytest.raises(EngineClockError, match="the clock is not set"):
        ask("tcp://127.0.0.1:9", EngineTls(str(laptop), wall=lambda: 12.0))


@ways
def test_files_that_are_replaced_count_for_the_next_connection(
    authority: Authority, stranger: Authority, laptop: Path, tmp_path: Path, ask: Ask
) -> None:
    folder = shutil.copytree(laptop, tmp_path / "client")
    tls = EngineTls(str(folder))
    with served(server_context(authority)) as engine:
        ask(engine.url, tls)
        shutil.copy(stranger.server.ca, folder / "ca.pem")
        with pytest.raises(EngineTlsError):
            ask(engine.url, tls)


def test_by_tls_too_a_call_ends_in_time_however_slowly_the_answer_comes(
    authority: Authority, laptop: Path
) -> None:
    gone = threading.Event()

    def speak(connection: socket.socket, head: bytes) -> None:
        if b" /version " in head:
            connection.sendall(HEAD + BODY)
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            for _ in range(10_000):
                connection.sendall(b" ")
                gone.wait(0.02)
        except OSError:
            gone.set()

    with served(server_context(authority), speak) as server:
        engine = DockerEngine(server.url, tls=EngineTls(str(laptop)), timeout_s=20)
        engine.ping()
        engine._timeout_s = 0.5
        with pytest.raises(EngineSlowError):
            engine.info()
        assert gone.wait(10), "the connection is closed too"
