# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions to a real registry, alone and behind one that answers as large public registries do."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engine import registry as under_test
from agent.engine.registry import (
    RateLimitedError,
    RegistryClient,
    RegistryConfig,
    RegistryError,
    registry_config,
)
from agent.model.resources import RegistryAuth
from agent.model.updates import ImageName
from tests.support.registry import PASSWORD, USER, Registry, is_installed
from tests.support.registry_front import (
    Answer,
    Front,
    basic_header,
    bearer,
    publish,
    publish_index,
)
from tests.support.remote import Authority

pytestmark = pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")
LOCAL = RegistryConfig(insecure_networks=("127.0.0.0/8",), certificates=None)
LOGIN = RegistryAuth(server="", username=USER, password=PASSWORD)
NOW = 1_800_000_000.0


def no_login(host: str) -> RegistryAuth | None:
    del host
    return None


def login_of(wanted: str) -> under_test.Login:
    return lambda host: LOGIN if host == wanted else None


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    made = Registry(tmp_path_factory.mktemp("registry"))
    yield made
    made.close()


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    made = Front(registry.port)
    yield made
    made.close()


def client(config: RegistryConfig = LOCAL, login: under_test.Login = no_login) -> RegistryClient:
    return RegistryClient(config, login, wall=lambda: NOW)


def name_at(address: str, repository: str = "app", tag: str = "1") -> ImageName:
    return ImageName(address, repository, tag)


def test_a_tag_is_asked_for_by_one_head(registry: Registry, front: Front) -> None:
    one = publish(registry.address, "app", "1")
    arm = publish(registry.address, "app", "arm", architecture="arm64")
    both = publish_index(registry.address, "app", "multi", {"amd64": one, "arm64": arm})
    with client() as asking:
        assert asking.ask(name_at(front.address)) == under_test.Answer(digest=one, is_index=False)
        assert asking.ask(name_at(front.address, tag="multi")) == under_test.Answer(
            digest=both, is_index=True
        )
        assert asking.members(name_at(front.address), both) == (one, arm)
    assert [(r.method, r.path) for r in front.requests] == [
        ("HEAD", "/v2/app/manifests/1"),
        ("HEAD", "/v2/app/manifests/multi"),
        ("GET", f"/v2/app/manifests/{both}"),
    ]


def test_the_layers_are_those_of_the_platform(registry: Registry) -> None:
    small = publish(registry.address, "sizes", "small", size=10)
    large = publish(registry.address, "sizes", "large", size=2_000_000, architecture="arm64")
    publish_index(registry.address, "sizes", "multi", {"amd64": small, "arm64": large})
    with client() as asking:
        name = name_at(registry.address, "sizes", "multi")
        named, ((digest, size, diff_id),) = asking.layers(name, "linux/arm64")
        assert named == asking.ask(name).digest
        assert asking.layers(name, "linux/amd64") != asking.layers(name, "linux/arm64")
        assert asking.layers(name, "linux/arm64/v8") == asking.layers(name, "linux/arm64")
        assert 1000 < size < 100_000
        assert digest.startswith("sha256:")
        assert diff_id.startswith("sha256:")
        with pytest.raises(RegistryError, match="has no sizes for linux/riscv64"):
            asking.layers(name, "linux/riscv64")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, {}, b"S3CRET"), "answers with status 500"),
        ((503, {}, b""), "answers with status 503"),
        ((404, {}, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"S3CRET"}]}'), "has no app:1"),
        ((403, {}, b""), "requires a login"),
        ((401, {"WWW-Authenticate": 'Negotiate "x'}, b""), "requires a login"),
        ((307, {"Location": "/v2/app/manifests/1"}, b""), "redirects in circles"),
        ((307, {"Location": "ftp://127.0.0.1/"}, b""), "without TLS"),
        ((307, {"Location": "http://["}, b""), "an invalid address"),
        ((307, {"Location": "http://127.0.0.1:99999/"}, b""), "an invalid address"),
        ((307, {"Location": "http://a b\t/"}, b""), "cannot be reached|not one"),
        ((401, {"WWW-Authenticate": 'Bearer realm="http://["'}, b""), "an invalid address"),
        ((401, {"WWW-Authenticate": "Bearer " + "a" * 60_000}, b""), "requires a login"),
        ((200, {"Docker-Content-Digest": "none"}, b""), None),
    ],
)
def test_a_refusal_names_the_registry_and_repeats_nothing(
    front: Front, answer: Answer, words: str | None
) -> None:
    front.answer = lambda _: answer
    with client() as asking:
        if words is None:  # no digest in the head: that of the body
            assert asking.ask(name_at(front.address)).digest.startswith("sha256:e3b0c442")
            return
        with pytest.raises(RegistryError, match=words) as caught:
            asking.ask(name_at(front.address))
    assert front.address in str(caught.value)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("120", 120), ("Fri, 15 Jan 2027 08:05:00 GMT", 300), ("", 3600), ("soon", 3600), ("9" * 30, 86400)],
)
def test_a_registry_that_has_enough_is_left_alone_for_as_long_as_it_says(
    front: Front, header: str, wait_s: float
) -> None:
    front.answer = lambda _: (429, {"Retry-After": header} if header else {}, b"")
    with client() as asking, pytest.raises(RateLimitedError) as caught:
        asking.ask(name_at(front.address))
    assert caught.value.until == NOW + wait_s


def test_what_is_left_of_the_limit_is_read(registry: Registry, front: Front) -> None:
    publish(registry.address, "app", "1")
    front.headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}
    with client() as asking:
        asking.ask(name_at(front.address))
        assert asking.limits == {front.address: under_test.wire.Limit(76, 21600.0)}


def test_a_login_goes_to_its_registry_only(tmp_path: Path) -> None:
    behind = Registry(tmp_path, with_login=True)
    front, other = Front(behind.port), Front(behind.port)
    try:
        digest = publish(behind.address, "app", "1", login=basic_header(USER, PASSWORD))
        with client(login=login_of(front.address)) as asking:
            assert asking.ask(name_at(front.address)).digest == digest
            assert asking.ask(name_at(front.address)).digest == digest
            assert [("authorization" in r.headers) for r in front.requests] == [False, True, True]
            front.answer = lambda asked: (307, {"Location": f"http://{other.address}{asked.path}"}, b"")
            with pytest.raises(RegistryError, match="refuses the login"):
                asking.ask(name_at(front.address))
        assert other.requests
        assert not any("authorization" in r.headers for r in other.requests)
        front.answer = lambda _: None
        with client() as asking, pytest.raises(RegistryError, match="requires a login"):
            asking.ask(name_at(front.address))
        wrong = RegistryAuth(server="", username=USER, password="S3CRET-wrong")
        with client(login=lambda _: wrong) as asking, pytest.raises(RegistryError, match="refuses") as caught:
            asking.ask(name_at(front.address))
        assert "S3CRET" not in str(caught.value)
        assert front.count() < 10
    finally:
        front.close()
        other.close()
        behind.close()


@pytest.mark.parametrize("user", ["", USER])
def test_a_token_is_fetched_once_for_each_repository(registry: Registry, front: Front, user: str) -> None:
    publish(registry.address, "a/b", "1")
    publish(registry.address, "a/b", "2", words="two")
    front.answer = bearer(f"http://{front.address}/token?x=1", user=user, password=PASSWORD)
    login = login_of(front.address) if user else no_login
    with client(login=login) as asking:
        for tag in ("1", "2", "1"):
            asking.ask(name_at(front.address, "a/b", tag))
    assert front.count(path="/token") == 1
    assert front.count(method="HEAD") == 4  # the first was asked for a token
    (asked,) = (r for r in front.requests if r.path.startswith("/token"))
    assert "service=the+service" in asked.path
    assert ("authorization" in asked.headers) is bool(user)


def test_redirects_are_followed(registry: Registry, front: Front) -> None:
    digest = publish(registry.address, "app", "1")
    front.answer = lambda asked: (302, {"Location": f"http://{registry.address}{asked.path}"}, b"")
    with client() as asking:
        assert asking.ask(name_at(front.address)).digest == digest


def test_tls_is_checked_by_the_certificates_that_dockerd_has(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = publish(registry.address, "app", "1")
    made = Authority.make(tmp_path)
    front = Front(registry.port, tls=(made.server.cert, made.server.key))
    secure = RegistryConfig(certificates=tmp_path / "certs.d")
    try:
        with client(secure) as asking, pytest.raises(RegistryError, match="not trusted"):
            asking.ask(name_at(front.address))
        (tmp_path / "certs.d" / front.address).mkdir(parents=True)
        (tmp_path / "certs.d" / front.address / "ca.crt").write_bytes(made.server.ca.read_bytes())
        with client(secure) as asking:
            assert asking.ask(name_at(front.address)).digest == digest
        with client(LOCAL) as asking:  # insecure: any certificate will do
            assert asking.ask(name_at(front.address)).digest == digest
            front.answer = lambda _: (200, {"Content-Length": "no number"}, b"")
            with monkeypatch.context() as patch, pytest.raises(RegistryError):
                patch.setattr(under_test, "CALL_S", 1.0)  # it waits for the end of what has none
                asking._get(name_at(front.address), "manifests/1")
            front.answer = lambda _: None
            assert asking.ask(name_at(front.address)).digest == digest  # by TLS still
        with (
            client(RegistryConfig(certificates=None)) as asking,
            pytest.raises(RegistryError, match="reached"),
        ):
            asking.ask(name_at(registry.address))  # never without TLS unless it is insecure
    finally:
        front.close()


def test_a_mirror_comes_before_docker_hub(
    registry: Registry, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = publish(registry.address, "library/app", "1")
    monkeypatch.setattr(under_test, "_HUB_HOST", registry.address)
    config = RegistryConfig(mirrors=(f"http://{front.address}/",), insecure_networks=("127.0.0.0/8",))
    name = ImageName("docker.io", "library/app", "1")
    with client(config, login_of("docker.io")) as asking:
        assert asking.ask(name).digest == digest
    assert front.count() == 1
    for answer in ((404, {}, b""), (500, {}, b""), (429, {}, b""), (401, {}, b"")):
        front.answer = lambda _, said=answer: said  # type: ignore[misc]
        with client(config, login_of("docker.io")) as asking:
            assert asking.ask(name).digest == digest
    assert not any("authorization" in r.headers for r in front.requests)


def test_dockerds_proxy_is_used_except_where_it_says_so(
    registry: Registry, front: Front, tmp_path: Path
) -> None:
    digest = publish(registry.address, "app", "1")
    box = f"box.test:{registry.port}"
    through = {"http": f"http://me:p%40ss@{front.address}", "https": f"http://me:p%40ss@{front.address}"}
    plain = RegistryConfig(insecure=frozenset({box}), proxies={"http": through["http"]}, certificates=None)
    front.answer = lambda asked: (
        (200, {"Docker-Content-Digest": digest}, b"") if asked.path.startswith("http://box.test") else None
    )
    with client(plain) as asking:
        assert asking.ask(name_at(box)).digest == digest
    assert front.requests[-1].headers["proxy-authorization"] == basic_header("me", "p@ss")
    made = Authority.make(tmp_path, names=("localhost",))
    encrypted = Front(registry.port, tls=(made.server.cert, made.server.key))
    try:
        # loopback is never reached by a proxy, and `no_proxy` is heeded
        before = front.count()
        config = RegistryConfig(insecure_networks=("127.0.0.0/8",), proxies=through)
        with client(config) as asking:
            assert asking.ask(name_at(encrypted.address)).digest == digest
        direct = RegistryConfig(
            insecure=frozenset({box}), proxies=through, no_proxy=(".test",), certificates=None
        )
        with client(direct) as asking, pytest.raises(RegistryError, match="reached"):
            asking.ask(name_at(box))
        assert front.count() == before
    finally:
        encrypted.close()
    masked = RegistryConfig(proxies={"https": "http://xxxxx:xxxxx@proxy.test:3128"})
    with client(masked) as asking, pytest.raises(RegistryError, match="config proxies"):
        asking.ask(name_at("ghcr.io"))
    nobody = RegistryConfig(proxies={"https": "http://me:S3CRET@127.0.0.1:1"})
    with client(nobody) as asking, pytest.raises(RegistryError, match="reached") as caught:
        asking.ask(name_at("ghcr.io"))
    assert "S3CRET" not in str(caught.value)


def test_an_encrypted_registry_is_reached_through_a_tunnel(front: Front) -> None:
    config = RegistryConfig(proxies={"https": f"http://{front.address}"}, certificates=None)
    with client(config) as asking, pytest.raises(RegistryError, match="reached"):
        asking.ask(name_at(f"localhost.test:{front.port}"))
    assert front.tunnels == [f"localhost.test:{front.port}"]


def test_a_registry_that_never_ends_its_answer_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "CALL_S", 1.0)
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_drip, args=(connection,), daemon=True).start()

    threading.Thread(target=drip, daemon=True).start()
    begin = time.monotonic()
    with client() as asking, pytest.raises(RegistryError, match="no answer in time"):
        asking.ask(name_at(f"127.0.0.1:{listener.getsockname()[1]}"))
    assert time.monotonic() - begin < 10
    listener.close()


def _drip(connection: socket.socket) -> None:
    try:
        first = connection.recv(1)
        if first == b"\x16":  # TLS
            connection.close()
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            connection.sendall(f"X-{number}: y\r\n".encode())
            time.sleep(0.3)
    except OSError:
        return


def test_a_body_without_end_is_not_held(front: Front) -> None:
    front.answer = lambda asked: (200, {}, b"" if asked.method == "HEAD" else bytes(5 * 1024 * 1024))
    with client() as asking, pytest.raises(RegistryError, match="more than"):
        asking.ask(name_at(front.address))


def test_the_configuration_is_the_one_that_the_engine_shows() -> None:
    info = {
        "RegistryConfig": {
            "InsecureRegistryCIDRs": ["127.0.0.0/8"],
            "IndexConfigs": {"docker.io": {"Secure": True}, "box:5000": {"Secure": False}},
            "Mirrors": ["https://mirror.lan/"],
        },
        "HttpProxy": "http://xxxxx:xxxxx@p:1",
        "HttpsProxy": "",
        "NoProxy": "a, .b",
    }
    found = registry_config(info, {"http-proxy": "http://u:S3CRET@p:1"})
    assert found.mirrors == ("https://mirror.lan/",)
    assert found.insecure == {"box:5000"}
    assert found.proxies == {"http": "http://u:S3CRET@p:1"}
    assert found.no_proxy == ("a", ".b")
    assert "S3CRET" not in repr(found)
    assert registry_config({"RegistryConfig": None}).insecure == frozenset()


def test_certificates_that_cannot_be_read_are_told_and_hold_nothing_up(front: Front, tmp_path: Path) -> None:
    """A FIFO would keep OpenSSL waiting for ever."""
    folder = tmp_path / front.address
    folder.mkdir()
    os.mkfifo(folder / "ca.crt")
    with client(replace(LOCAL, certificates=tmp_path)) as asking, pytest.raises(RegistryError) as caught:
        asking.ask(name_at(front.address))
    assert "ca.crt is a named pipe, not a regular file" in str(caught.value)
