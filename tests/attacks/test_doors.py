# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the controller listens, with which certificate, and who is turned away at the door."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from agent.api.access import listeners
from agent.api.access.access import Subnets, container_nets
from agent.api.access.listeners import exposure
from agent.engine.stream import DockerStream
from tests.support.dockerd import PrivateDockerd
from tests.support.scripted_engine import ScriptedEngine
from tests.support.tcp import (
    NETWORKS,
    READ,
    WRITE,
    TcpController,
    engine_script,
    make_certificate,
    served_name,
)

LAN = "10.215.99.1"


@pytest.fixture
def lan() -> Iterator[str]:
    """An address that is not loopback's, on the loopback device."""
    subprocess.run(["ip", "addr", "add", f"{LAN}/32", "dev", "lo"], check=True)
    yield LAN
    subprocess.run(["ip", "addr", "del", f"{LAN}/32", "dev", "lo"], check=True)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[TcpController]:
    engine = ScriptedEngine(tmp_path / "engine.sock", engine_script)
    controller = TcpController(engine, tmp_path)
    yield controller
    controller.close()
    engine.close()


@pytest.fixture
def no_uhttpd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """uhttpd's certificate is looked for in the test's directory."""
    pair = (tmp_path / "uhttpd.crt", tmp_path / "uhttpd.key")
    monkeypatch.setattr(listeners, "UHTTPD", pair)
    return pair


def _until(condition: Callable[[], bool], limit_s: float = 5) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def answers(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0


def test_there_is_no_listener_unless_one_is_asked_for(made: TcpController) -> None:
    assert made.want() == []
    assert made.listeners._servers == {}


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:0", "[::]:0", "8.8.8.8:0", "100.64.0.1:0", "224.0.0.1:0", "[2001:db8:ffff::1]:0"]
)
def test_an_address_for_others_than_the_lan_is_not_listened_on(made: TcpController, listen: str) -> None:
    expected = "NoCertificate" if listen.startswith("[2001:db8") else "ExposedListener"
    assert made.want(listen, cert="/nosuch", key="/nosuch") == [expected]
    assert made.listeners._servers == {}
    message = made.agent.board.snapshot()["agent"]["listen"][0]["message"]
    assert "allow_exposed" in message or "/nosuch" in message


def test_exposure_is_told_by_networks_zones_and_ranges() -> None:
    nets = [ipaddress.ip_network("172.17.0.0/16"), ipaddress.ip_network("fd00:1::/64")]
    wan = {ipaddress.ip_address("192.168.8.2")}
    for text, word in (
        ("172.17.0.1", "containers"),
        ("fd00:1::1", "containers"),
        ("192.168.8.2", "wan"),
        ("0.0.0.0", "every"),
        ("::", "every"),
        ("2a00::1", "private"),
        ("192.168.1.1", ""),
        ("fd00:2::1", ""),
        ("fe80::1", ""),
        ("10.0.0.1", ""),
    ):
        seen = exposure(ipaddress.ip_address(text), containers=nets, wan=wan)
        assert word in seen and bool(word) is bool(seen), text


def test_an_address_of_a_zone_that_refuses_input_is_not_listened_on(
    made: TcpController, lan: str, no_uhttpd: tuple[Path, Path]
) -> None:
    make_certificate(no_uhttpd[0].parent, "uhttpd")
    assert made.want(f"{lan}:0") == ["Listening"]
    made.listeners._wan = lambda: frozenset({ipaddress.ip_address(lan)})
    port = made.port
    assert made.want(f"{lan}:0") == ["ExposedListener"]
    assert not answers(lan, port), "one that was there before is closed"
    assert made.want(f"{lan}:0", allow_exposed=True) == ["ExposedListener"]
    assert answers(lan, made.port), "allowed, and still shown"


def test_without_a_certificate_only_loopback_is_served_in_the_clear(
    made: TcpController, lan: str, no_uhttpd: tuple[Path, Path]
) -> None:
    assert made.want(f"{lan}:0", "127.0.0.1:0", "[::1]:0") == ["NoCertificate", "Listening", "Listening"]
    assert [str(address.ip) for address in made.listeners._servers] == ["127.0.0.1", "::1"]
    state = made.agent.board.snapshot()["agent"]["listen"][0]
    assert str(no_uhttpd[0]) in state["message"]
    make_certificate(no_uhttpd[0].parent, "uhttpd")
    assert made.want(f"{lan}:0") == ["Listening"]
    assert served_name(lan, made.port) == "uhttpd"
    with made.connect() as plain:
        plain.sendall(f"GET /healthz HTTP/1.1\r\nHost: {lan}\r\n\r\n".encode())
        assert not plain.recv(65536).startswith(b"HTTP/")


def test_a_certificate_that_was_asked_for_and_is_missing_is_no_reason_to_go_without(
    made: TcpController,
) -> None:
    assert made.want("127.0.0.1:0") == ["Listening"]
    port = made.port
    assert made.want("127.0.0.1:0", cert="/nosuch.crt", key="/nosuch.key") == ["NoCertificate"]
    assert not answers("127.0.0.1", port)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("der", ["", "traditional", "pkcs8"])
def test_certificates_come_as_pem_or_as_uhttpds_der(
    made: TcpController, tmp_path: Path, kind: str, der: str
) -> None:
    cert, key = make_certificate(tmp_path, "router", der=der, key=kind)
    assert made.want("127.0.0.1:0", cert=str(cert), key=str(key)) == ["Listening"]
    assert served_name("127.0.0.1", made.port) == "router"


def test_a_new_certificate_is_taken_up_and_no_connection_is_dropped(
    made: TcpController, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = make_certificate(tmp_path, "before")
    next_cert, next_key = make_certificate(tmp_path, "after")
    assert made.want("127.0.0.1:0", cert=str(cert), key=str(key)) == ["Listening"]
    with made.client(READ, scheme="https") as client:
        with client.stream("GET", "/v1/status/stream") as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("id: ")
            shutil.copy(next_cert, cert)  # half of the pair: the other one is still the old
            with caplog.at_level(logging.WARNING):
                assert served_name("127.0.0.1", made.port) == "before"
                assert served_name("127.0.0.1", made.port) == "before"
            assert caplog.text.count("the previous certificate stays in use") == 1
            shutil.copy(next_key, key)
            assert served_name("127.0.0.1", made.port) == "after"
            made.agent.board.set_agent(test="still there")
            assert any("still there" in line for line in lines)
        cert.unlink()
        assert served_name("127.0.0.1", made.port) == "after"
        assert client.get("/v1/status").status_code == 200


@pytest.mark.parametrize(
    "junk", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\x30\x03\x02\x01\x00", b"junk" * 99]
)
def test_files_that_are_no_certificate_are_named(made: TcpController, tmp_path: Path, junk: bytes) -> None:
    cert, key = make_certificate(tmp_path, "router")
    for broken, whole in ((cert, key), (key, cert)):
        kept = broken.read_bytes()
        broken.write_bytes(junk)
        assert made.want("127.0.0.1:0", cert=str(cert), key=str(key)) == ["NoCertificate"]
        message = made.agent.board.snapshot()["agent"]["listen"][0]["message"]
        assert str(broken) in message and str(whole) in message
        broken.write_bytes(kept)
    assert made.want("127.0.0.1:0", cert=str(cert), key=str(key)) == ["Listening"]


def test_a_key_with_a_passphrase_is_refused_without_asking(made: TcpController, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "router")
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", key, "-aes128", "-passout", "pass:hunter2", "-out", locked]
    subprocess.run(command, check=True)
    assert made.want("127.0.0.1:0", cert=str(cert), key=str(locked)) == ["NoCertificate"]


def test_old_protocols_are_not_spoken(made: TcpController, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "router")
    made.want("127.0.0.1:0", cert=str(cert), key=str(key))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with made.connect() as raw, pytest.raises(OSError):
        old.wrap_socket(raw)


def test_listeners_follow_the_section_while_the_agent_runs(made: TcpController) -> None:
    made.want("127.0.0.1:0", "127.0.0.2:0")
    first, second = (made.listeners._servers[address] for address in made.settings.listen)
    with made.client(READ) as client:
        client.get("/v1/status")
        made.want("127.0.0.1:0", cors_origin=("https://router.lan",), allowed_host=("docker.home.arpa",))
        assert made.listeners._servers[made.settings.listen[0]] is first, "it goes on as it was"
        assert not answers("127.0.0.2", second.port)
        assert client.get("/v1/status", headers={"origin": "https://router.lan"}).status_code == 200
        assert client.get("/v1/status", headers={"host": "docker.home.arpa:2380"}).status_code == 200
    made.want()
    assert made.listeners._servers == {}


def test_closing_a_listener_ends_its_streams(made: TcpController) -> None:
    made.want("127.0.0.1:0")
    with made.client(READ) as client, client.stream("GET", "/v1/status/stream") as stream:
        lines = stream.iter_lines()
        next(lines)
        made.want()
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in lines:
                pass


def test_closing_a_listener_gives_every_place_back(made: TcpController, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "router")
    for settings in ({}, {"cert": str(cert), "key": str(key)}):
        made.want("127.0.0.1:0", **settings)
        idle = [made.connect() for _ in range(5)]
        broken = made.connect()
        broken.sendall(b"GET /..\r\n\r\n")
        limits = made.limits
        _until(lambda limits=limits: limits.taken >= 5)  # type: ignore[misc]
        made.want()
        assert limits.taken == 0
        for one in [*idle, broken]:
            one.close()


def test_an_address_that_is_taken_or_not_there_is_shown_and_tried_again(
    made: TcpController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "RETRY_S", 0.1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert made.want(listen, "10.215.98.1:0", cert="", key="")[0] == "ListenFailed"
        made.thread.loop.call_soon_threadsafe(made.listeners._wake.set)
    _until(lambda: made.agent.board.snapshot()["agent"]["listen"][0]["state"] == "Listening")


def test_an_ipv6_listener_is_called_by_its_address_in_any_spelling(made: TcpController) -> None:
    made.want("[::1]:0")
    with httpx.Client(base_url=f"http://[::1]:{made.port}") as client:
        for host, expected in (
            (f"[::1]:{made.port}", 200),
            ("[0:0:0:0:0:0:0:1]", 200),
            ("router.lan", 200),
            ("::1", 421),
            ("[::2]", 421),
            ("[::1%25lo]", 421),
            ("127.0.0.1", 421),
        ):
            headers = {"host": host, "authorization": f"Bearer {READ}"}
            assert client.get("/v1/status", headers=headers).status_code == expected, host


def test_small_answers_are_not_held_back(made: TcpController) -> None:
    made.want("127.0.0.1:0")
    with made.client(READ) as client:
        client.get("/v1/status")
        (connection,) = next(iter(made.listeners._servers.values()))._state.connections
        raw = connection.transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_container_is_turned_away_even_with_a_session(made: TcpController) -> None:
    made.want("127.0.0.1:0")
    for address, expected in (("127.172.0.2", 403), ("127.172.255.255", 403), ("127.173.0.1", 200)):
        with made.client(WRITE, address) as client:
            assert client.get("/v1/status").status_code == expected
            assert client.get("/healthz").status_code == expected
    made.want("127.0.0.1:0", allow_container_clients=True)
    with made.client(WRITE, "127.172.0.2") as client:
        assert client.get("/v1/status").status_code == 200
    with made.client("", "127.172.0.2") as client:
        assert client.get("/v1/status").status_code == 401


def test_a_network_that_is_made_later_counts_within_seconds(
    made: TcpController, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.want("127.0.0.1:0")
    now = [0.0]
    made.access.subnets._clock = lambda: now[0]
    made.access.subnets._known = made.access.subnets._known.__class__(at=0.0)
    late = {"Driver": "bridge", "IPAM": {"Config": [{"Subnet": "127.174.0.0/24"}]}}
    monkeypatch.setattr("tests.support.tcp.NETWORKS", [*NETWORKS, late])
    with made.client(WRITE, "127.174.0.9") as client:
        assert client.get("/v1/status").status_code == 200
        now[0] = 5.1
        assert client.get("/v1/status").status_code == 403


def test_an_engine_that_does_not_answer_neither_opens_the_door_nor_holds_it(tmp_path: Path) -> None:
    asked = []

    def script(connection: socket.socket, head: bytes) -> None:
        asked.append(head)
        if len(asked) == 1:
            engine_script(connection, head)
        else:
            connection.recv(1)

    engine = ScriptedEngine(tmp_path / "engine.sock", script)

    async def main() -> None:
        now = [0.0]
        subnets = Subnets(DockerStream(engine.url), lambda: now[0])
        assert await subnets.holds("127.172.0.2")
        now[0] = 60.0
        async with asyncio.timeout(1.8):
            assert await subnets.holds("127.172.0.2")
            assert not await subnets.holds("127.0.0.9")
        task = subnets._refreshing
        assert task is not None
        task.cancel()

    asyncio.run(main())
    engine.close()


def test_a_macvlan_network_does_not_lock_the_lan_out() -> None:
    networks = [
        {"Id": "m", "Driver": "macvlan", "IPAM": {"Config": [{"Subnet": "192.168.1.0/24"}]}},
        {
            "Id": "r",
            "Driver": "ipvlan",
            "IPAM": {"Config": [{"Subnet": "10.0.0.0/8", "IPRange": "10.9.0.0/24"}]},
        },
        {
            "Id": "b",
            "Driver": "bridge",
            "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}, {"Subnet": "fd01::/64"}]},
        },
        {"Id": "h", "Driver": "host", "IPAM": {"Config": None}},
        {"Id": "x", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "nonsense"}, "junk", {}]}},
        "junk",
    ]
    containers = [
        {
            "NetworkSettings": {
                "Networks": {"m": {"NetworkID": "m", "IPAddress": "192.168.1.77", "GlobalIPv6Address": ""}}
            }
        },
        {"NetworkSettings": None},
    ]
    seen = {str(net) for net in container_nets(networks, containers)}
    assert seen == {"192.168.1.77/32", "10.9.0.0/24", "172.17.0.0/16", "fd01::/64"}
    assert list(container_nets(None, {"message": "x"})) == []


def test_a_link_local_address_is_judged_by_its_interface(tmp_path: Path) -> None:
    networks = [
        {"Id": "a" * 64, "Driver": "bridge", "Options": {"com.docker.network.bridge.name": "docker0"}},
        {"Id": "b" * 64, "Driver": "bridge", "Options": None},
        {"Id": "c" * 64, "Driver": "macvlan", "Options": {"parent": "eth1"}},
        {"Id": "d" * 64, "Driver": "host"},
        "junk",
    ]
    body = json.dumps(networks).encode()

    def script(connection: socket.socket, head: bytes) -> None:
        said = b"[]" if head.startswith(b"GET /containers") else body
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))

    engine = ScriptedEngine(tmp_path / "engine.sock", script)

    async def main() -> None:
        subnets = Subnets(DockerStream(engine.url))
        for interface in ("docker0", "br-" + "b" * 12, "eth1"):
            assert await subnets.holds(f"fe80::1%{interface}") is True
        for client in ("fe80::1%br-lan", "fe80::1", "2001:db8::1", "192.168.1.2"):
            assert await subnets.holds(client) is False

    asyncio.run(main())
    engine.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}"])
def test_until_the_engine_has_told_its_networks_only_loopback_is_let_in(
    tmp_path: Path, lan: str, no_uhttpd: tuple[Path, Path], answer: bytes
) -> None:
    make_certificate(tmp_path, "uhttpd")
    down = [True]

    def script(connection: socket.socket, head: bytes) -> None:
        if down[0]:
            connection.sendall(answer)
        else:
            engine_script(connection, head)

    engine = ScriptedEngine(tmp_path / "engine.sock", script)
    now = [0.0]
    controller = TcpController(engine, tmp_path)
    controller.access.subnets = Subnets(DockerStream(engine.url), lambda: now[0])
    try:
        assert controller.want(f"{lan}:0", "127.0.0.1:0") == ["Listening", "Listening"]
        loopback = controller.listeners._servers[controller.settings.listen[1]].port
        headers = {"authorization": f"Bearer {WRITE}"}

        def neighbour() -> int:
            with httpx.Client(transport=httpx.HTTPTransport(verify=False, local_address=lan)) as client:
                return client.get(f"https://{controller.host()}/v1/status", headers=headers).status_code

        with httpx.Client() as own:
            assert neighbour() == 503
            assert own.get(f"http://127.0.0.1:{loopback}/v1/status", headers=headers).status_code == 200
            down[0] = False
            now[0] = 60.0
            assert neighbour() == 200
    finally:
        controller.close()
        engine.close()


def test_a_real_container_does_not_get_in_by_its_link_local_address(
    engine: PrivateDockerd, tmp_path: Path, no_uhttpd: tuple[Path, Path]
) -> None:
    import docker

    from tests.support.dockerd import BUSYBOX

    listen = "fd00:215::1"
    subprocess.run(["ip", "addr", "add", f"{listen}/128", "dev", "lo"], check=True)
    client = docker.DockerClient(base_url=engine.host, version="auto")
    pool = docker.types.IPAMConfig(
        pool_configs=[
            docker.types.IPAMPool(subnet="10.215.98.0/24"),
            docker.types.IPAMPool(subnet="fd00:216::/64"),
        ]
    )
    network = client.networks.create("linklocal", driver="bridge", enable_ipv6=True, ipam=pool)
    fake = ScriptedEngine(tmp_path / "fake.sock", engine_script)
    controller = TcpController(fake, tmp_path)
    controller.access.subnets = Subnets(DockerStream(engine.host))
    controller.listeners._tls = lambda *_: None  # type: ignore[method-assign]
    made = client.containers.run(BUSYBOX, ["sleep", "300"], network="linklocal", detach=True)
    try:
        assert controller.want(f"[{listen}]:0") == ["Listening"]
        made.reload()
        pid = str(made.attrs["State"]["Pid"])
        script = (
            "import socket,sys\n"
            "found=[l.split() for l in open('/proc/net/if_inet6') if l.startswith('fe80')]\n"
            "own=':'.join(found[0][0][i:i+4] for i in range(0,32,4))\n"
            "s=socket.socket(socket.AF_INET6)\n"
            "s.settimeout(10)\n"
            "s.bind((own,0,0,int(found[0][1],16)))\n"
            "s.connect((sys.argv[1],int(sys.argv[2])))\n"
            "s.sendall(sys.argv[3].replace('|','\\r\\n').encode())\n"
            "print(s.recv(100).decode())\n"
        )
        request = f"GET /v1/status HTTP/1.1|Host: {controller.host()}|Authorization: Bearer {WRITE}|Connection: close||"
        command = ["nsenter", "-t", pid, "-n", sys.executable, "-c", script]

        def said() -> str:
            asked = [*command, listen, str(controller.port), request]
            return subprocess.run(asked, capture_output=True, text=True, check=False).stdout

        _until(lambda: bool(said()), limit_s=20)  # the address is tentative for a moment
        assert said().startswith("HTTP/1.1 403 ")
    finally:
        made.remove(force=True)
        network.remove()
        client.close()
        controller.close()
        fake.close()
        subprocess.run(["ip", "addr", "del", f"{listen}/128", "dev", "lo"], check=True)


def test_a_real_container_does_not_get_in(
    engine: PrivateDockerd, lan: str, tmp_path: Path, no_uhttpd: tuple[Path, Path]
) -> None:
    import docker

    from tests.support.dockerd import BUSYBOX

    fake = ScriptedEngine(tmp_path / "fake.sock", engine_script)
    controller = TcpController(fake, tmp_path)
    controller.access.subnets = Subnets(DockerStream(engine.host))
    controller.listeners._tls = lambda *_: None  # type: ignore[method-assign]  # busybox speaks no TLS
    client = docker.DockerClient(base_url=engine.host, version="auto")
    try:
        assert controller.want(f"{lan}:0") == ["Listening"]
        host = controller.host()
        head = [
            "GET /v1/status HTTP/1.1",
            f"Host: {host}",
            f"Authorization: Bearer {WRITE}",
            "Connection: close",
        ]
        request = "".join(f"{line}\\r\\n" for line in [*head, ""])
        shell = f"printf '{request}' | nc {lan} {controller.port}"
        answer = client.containers.run(BUSYBOX, ["sh", "-c", shell], remove=True)
        assert answer.startswith(b"HTTP/1.1 403 "), answer
        with httpx.Client(transport=httpx.HTTPTransport(verify=False)) as neighbour:
            headers = {"authorization": f"Bearer {WRITE}"}
            assert neighbour.get(f"http://{host}/v1/status", headers=headers).status_code == 200
        gateway = engine.address.partition("/")[0]
        assert controller.want(f"{gateway}:0") == ["ExposedListener"]
    finally:
        client.close()
        controller.close()
        fake.close()
