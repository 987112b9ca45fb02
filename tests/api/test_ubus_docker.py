# SPDX-License-Identifier: GPL-2.0-or-later
"""The `docker*` objects: what each method asks the engine, what it refuses, and what its caller gets."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.api.engine_calls import BUS_CALLS
from agent.api.ubus import docker as ubus_docker
from agent.api.ubus.docker import DockerObjects, Ttyd
from agent.engine.stream import DockerStream
from agent.errors import BusError
from agent.ubus.client import TOO_LARGE
from agent.ubus.rpcd import DEFAULT_SESSION
from agent.wire.ubus_message import Attr, Decoder, Status
from tests.support.docker_bus import Agent, Docker, docker_on
from tests.support.fake_rpcd import ADMIN, READER
from tests.support.scripted_engine import Script, ScriptedEngine, answer
from tests.support.ubus_vectors import conversations, one_way

EXEC = "e" * 64
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nX-Extra: Yes\r\ncontent-length: 2\r\n\r\n{}"


Scripted = Callable[[Script], AbstractAsyncContextManager[tuple[Docker, ScriptedEngine]]]


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    """The objects over an engine that follows a script."""

    @asynccontextmanager
    async def make(script: Script) -> AsyncIterator[tuple[Docker, ScriptedEngine]]:
        fake = ScriptedEngine(tmp_path / "engine.sock", script)
        try:
            async with docker_on(tmp_path / "ubus.sock", fake.url) as made:
                yield made, fake
        finally:
            fake.close()

    return make


def test_methods_and_arguments_are_those_that_were_recorded_of_luci_app_dockerman() -> None:
    recorded = next(c for c in conversations() if c.name == "list")
    theirs = {
        m.text(Attr.OBJPATH): m.raw(Attr.SIGNATURE)
        for m in Decoder().feed(one_way(recorded, "ubusd"))
        if (m.text(Attr.OBJPATH) or "").startswith("docker")
    }
    agent = Agent()
    engine = DockerStream("unix:///none")
    made = DockerObjects(agent, engine, sessions=None, ttyd=Ttyd(())).objects()  # type: ignore[arg-type]
    assert {owned.name: owned.signature() for owned in made} == theirs


REQUESTS = [
    ("docker.version", {}, "GET /version"),
    ("docker.info", {}, "GET /info"),
    ("docker.ping", {}, "GET /_ping"),
    ("docker.df", {}, "GET /system/df"),
    ("docker.events", {"query": {"since": 0, "until": "5"}}, "GET /events?since=0&until=5"),
    ("docker.container.list", {}, "GET /containers/json"),
    (
        "docker.container.list",
        {"query": {"all": True, "limit": 5, "filters": {"status": ["running"]}}},
        "GET /containers/json?all=true&limit=5&filters=%7B%22status%22%3A%5B%22running%22%5D%7D",
    ),
    ("docker.container.list", {"query": {"filters": '{"a":1}'}}, "GET /containers/json?filters=%7B%22a%22%3A1%7D"),
    ("docker.container.create", {"query": {"name": "x"}, "body": {"Image": "i"}}, "POST /containers/create?name=x"),
    ("docker.container.inspect", {"id": "web"}, "GET /containers/web/json"),
    ("docker.container.top", {"id": "web", "query": {"ps_args": "-ww"}}, "GET /containers/web/top?ps_args=-ww"),
    ("docker.container.changes", {"id": "web"}, "GET /containers/web/changes"),
    ("docker.container.export", {"id": "web"}, "GET /containers/web/export"),
    (
        "docker.container.stats",
        {"id": "web", "query": {"stream": True, "one-shot": True}},
        "GET /containers/web/stats?one-shot=true&stream=false",
    ),
    ("docker.container.resize", {"id": "web", "query": {"h": 24, "w": 80}}, "POST /containers/web/resize?h=24&w=80"),
    ("docker.container.start", {"id": "web"}, "POST /containers/web/start"),
    ("docker.container.stop", {"id": "web", "query": {"t": 0}}, "POST /containers/web/stop?t=0"),
    ("docker.container.restart", {"id": "web"}, "POST /containers/web/restart"),
    ("docker.container.kill", {"id": "web", "query": {"signal": "TERM"}}, "POST /containers/web/kill?signal=TERM"),
    ("docker.container.update", {"id": "web", "body": {"Memory": 1}}, "POST /containers/web/update"),
    ("docker.container.rename", {"id": "web", "query": {"name": "b"}}, "POST /containers/web/rename?name=b"),
    ("docker.container.pause", {"id": "web"}, "POST /containers/web/pause"),
    ("docker.container.unpause", {"id": "web"}, "POST /containers/web/unpause"),
    ("docker.container.remove", {"id": "web", "query": {"force": True}}, "DELETE /containers/web?force=true"),
    ("docker.container.info_archive", {"id": "web", "query": {"path": "/a b"}}, "HEAD /containers/web/archive?path=%2Fa+b"),
    ("docker.container.get_archive", {"id": "web", "query": {"path": "/"}}, "GET /containers/web/archive?path=%2F"),
    ("docker.container.exec", {"id": "web", "opts": {"Cmd": ["id"]}}, "POST /containers/web/exec"),
    ("docker.container.prune", {}, "POST /containers/prune"),
    ("docker.exec.start", {"id": EXEC}, f"POST /exec/{EXEC}/start"),
    ("docker.exec.resize", {"id": EXEC, "query": {"h": 1}}, f"POST /exec/{EXEC}/resize?h=1"),
    ("docker.exec.inspect", {"id": EXEC}, f"GET /exec/{EXEC}/json"),
    ("docker.image.list", {}, "GET /images/json"),
    ("docker.image.build", {"query": {"remote": "git://a", "t": "x"}}, "POST /build?remote=git%3A%2F%2Fa&t=x"),
    ("docker.image.build_prune", {"query": {"all": True}}, "POST /build/prune?all=true"),
    ("docker.image.create", {"query": {"fromImage": "a", "tag": "1"}}, "POST /images/create?fromImage=a&tag=1"),
    ("docker.image.inspect", {"id": "lan:5000/a/b:1"}, "GET /images/lan:5000/a/b:1/json"),
    ("docker.image.history", {"id": "sha256:" + "0" * 64}, "GET /images/sha256:" + "0" * 64 + "/history"),
    ("docker.image.push", {"name": "lan:5000/a", "query": {"tag": "1"}}, "POST /images/lan:5000/a/push?tag=1"),
    ("docker.image.tag", {"id": "a", "query": {"repo": "b"}}, "POST /images/a/tag?repo=b"),
    ("docker.image.remove", {"id": "a:1", "query": {"noprune": True}}, "DELETE /images/a:1?noprune=true"),
    ("docker.image.search", {"query": {"term": "x"}}, "GET /images/search?term=x"),
    ("docker.image.prune", {}, "POST /images/prune"),
    ("docker.image.get", {"id": "a"}, "GET /images/a/get"),
    ("docker.image.load", {"query": {"quiet": True}}, "POST /images/load?quiet=true"),
    ("docker.network.list", {}, "GET /networks"),
    ("docker.network.inspect", {"id": "n", "query": {"verbose": True}}, "GET /networks/n?verbose=true"),
    ("docker.network.remove", {"id": "n"}, "DELETE /networks/n"),
    ("docker.network.create", {"body": {"Name": "n"}}, "POST /networks/create"),
    ("docker.network.connect", {"id": "n", "body": {"Container": "c"}}, "POST /networks/n/connect"),
    ("docker.network.disconnect", {"id": "n", "body": {"Container": "c"}}, "POST /networks/n/disconnect"),
    ("docker.network.prune", {}, "POST /networks/prune"),
    ("docker.volume.list", {}, "GET /volumes"),
    ("docker.volume.create", {"opts": {"Name": "v"}}, "POST /volumes/create"),
    ("docker.volume.inspect", {"id": "v"}, "GET /volumes/v"),
    ("docker.volume.update", {"id": "v", "query": {"version": 1}, "spec": {"A": {}}}, "PUT /volumes/v?version=1"),
    ("docker.volume.remove", {"id": "v", "query": {"force": True}}, "DELETE /volumes/v?force=true"),
    ("docker.volume.prune", {}, "POST /volumes/prune"),
]  # fmt: skip
ELSEWHERE = {
    "docker.container.logs",
    "docker.container.put_archive",
}  # they take more than one request, or a body


async def test_each_method_asks_the_engine_what_it_stands_for(scripted: Scripted) -> None:
    known = {f"{name}.{method}" for name, calls in BUS_CALLS.items() for method in calls}
    assert {name for name, _, _ in REQUESTS} | ELSEWHERE == known
    async with scripted(answer(OK)) as (docker, fake):
        for name, args, expected in REQUESTS:
            await docker.call(name, args)
            line = fake.heads[-1].split(b"\r\n")[0].decode()
            assert line == f"{expected} HTTP/1.1", name
        assert len(fake.heads) == len(REQUESTS)


async def test_events_without_an_end_are_those_up_to_now(scripted: Scripted) -> None:
    async with scripted(answer(OK)) as (docker, fake):
        before = time.time()
        await docker.call("docker.events", {"query": {"since": 0}})
        until = fake.heads[0].split(b"until=")[1].split()[0]
        assert before - 1 <= float(until) <= time.time() + 1


async def test_body_and_login_reach_the_engine_and_no_other_header(scripted: Scripted) -> None:
    async with scripted(answer(OK)) as (docker, fake):
        body = {
            "Image": "i",
            "Env": ["A=1"],
            "HostConfig": {"Memory": 1 << 40, "Privileged": False},
            "None": None,
        }
        await docker.call("docker.container.create", {"body": body})
        head, _, sent = fake.heads[0].partition(b"\r\n\r\n")
        assert json.loads(sent) == body
        assert b"content-type: application/json" in head.lower()
        await docker.call("docker.image.push", {"name": "a", "headers": {"X-Registry-Auth": "e30="}})
        assert b"x-registry-auth: e30=" in fake.heads[1].lower()
        for headers in ({"Host": "x"}, {"X-Registry-Auth": "S3CRET\r\nHost: evil"}, {"X-Registry-Auth": 5}):
            refused = await docker.call("docker.image.push", {"name": "a", "headers": headers})
            assert refused["code"] == 400
            assert "S3CRET" not in json.dumps(refused)
        assert len(fake.heads) == 2


BAD_IDS = [
    "../version?",
    "a/b",
    "a b",
    "..%2fversion",
    "a\r\nHost: x",
    "",
    "-a",
    "a" * 600,
    "a?x=1",
    "a#",
    "ü",
    "a\\b",
    "a;b",
]


@pytest.mark.parametrize("text", BAD_IDS)
async def test_an_id_of_another_form_never_reaches_the_engine(scripted: Scripted, text: str) -> None:
    names = [
        f"{name}.{method}"
        for name, calls in BUS_CALLS.items()
        for method, call in calls.items()
        if "{" in call.path and not (name == "docker.image" and text == "a/b")
    ]
    assert len(names) > 25
    async with scripted(answer(OK)) as (docker, fake):
        for name in names:
            key = "name" if name == "docker.image.push" else "id"
            assert (await docker.call(name, {key: text}))["code"] == 400, name
        assert (await docker.call("docker.container.inspect"))["code"] == 400
        assert fake.heads == []
        assert docker.agent.told == []


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("docker.container.list", {"query": {"a b": 1}}),
        ("docker.container.list", {"query": {"all\r\nHost: x": 1}}),
        ("docker.container.list", {"query": {"all": "x\x01y"}}),
        ("docker.container.list", {"query": {"all": "x" * 9000}}),
        ("docker.image.build", {}),
        ("docker.image.build", {"query": {"remote": "file:///etc"}}),
        ("docker.image.build", {"query": {"remote": "git://-oProxyCommand=x"}}),
        ("docker.image.create", {"query": {"fromSrc": "ftp://x"}}),
        ("docker.exec.start", {"id": EXEC, "body": "no json"}),
        ("docker.exec.start", {"id": EXEC, "body": "[]"}),
        ("docker.container.put_archive", {"id": "a", "query": {"path": "/"}, "body": "no base64"}),
    ],
)
async def test_a_bad_argument_is_an_answer_that_says_what_is_expected(
    scripted: Scripted, name: str, args: dict[str, Any]
) -> None:
    async with scripted(answer(OK)) as (docker, fake):
        refused = await docker.call(name, args)
        assert refused["code"] == 400
        assert re.search("expected|not allowed|not have this query parameter", refused["body"]["message"])
        assert fake.heads == []


@pytest.mark.parametrize(
    "args", [{"id": 5}, {"query": []}, {"query": "x"}, {"id": "a", "force": True}, {"id": {"a": 1}}]
)
async def test_wrong_types_and_unknown_arguments_are_invalid(
    scripted: Scripted, args: dict[str, Any]
) -> None:
    async with scripted(answer(OK)) as (docker, fake):
        with pytest.raises(BusError) as caught:
            await docker.call("docker.container.inspect", args)
        assert caught.value.status == Status.INVALID_ARGUMENT
        assert fake.heads == []


async def test_the_envelope_has_code_headers_and_body(scripted: Scripted) -> None:
    async with scripted(answer(OK)) as (docker, _):
        got = await docker.call("docker.version")
    headers = {"content-type": "application/json", "x-extra": "Yes", "content-length": "2"}
    assert got == {"code": 200, "headers": headers, "body": {}}


async def test_an_engine_that_is_away_has_the_same_envelope(tmp_path: Path) -> None:
    async with docker_on(tmp_path / "s", f"unix://{tmp_path}/none") as docker:
        got = await docker.call("docker.info")
    assert (got["code"], got["headers"]) == (500, {})
    assert "no Docker engine at" in got["body"]["message"]


@pytest.mark.parametrize("size", [1_100_000, 3_000_000])
async def test_a_reply_over_the_limit_is_an_error_that_says_so(scripted: Scripted, size: int) -> None:
    body = b'["' + b"x" * size + b'"]'
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    async with scripted(answer(head.encode() + body)) as (docker, _):
        got = await docker.call("docker.container.list")
        assert got["code"] == 500
        assert got["body"]["message"].startswith(TOO_LARGE)


async def test_a_reply_just_below_the_limit_arrives_whole(scripted: Scripted) -> None:
    body = b'["' + b"x" * 1_040_000 + b'"]'
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    async with scripted(answer(head.encode() + body)) as (docker, _):
        assert len((await docker.call("docker.container.list"))["body"][0]) == 1_040_000


@pytest.mark.parametrize(
    "name", ["docker.container.export", "docker.container.get_archive", "docker.image.get"]
)
async def test_archives_are_refused_with_the_way_to_go(scripted: Scripted, name: str) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-tar\r\n\r\n"
    async with scripted(answer(head + b"x" * 5_000_000)) as (docker, fake):
        got = await docker.call(name, {"id": "a"})
        assert got["code"] == 501
        assert "HTTP interface" in got["body"]["message"]
        await asyncio.to_thread(fake.wait_closed)


async def test_too_many_calls_are_refused_and_hold_nobody(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ubus_docker, "UNDER_WAY", 2)

    def hang(connection: Any, head: bytes) -> None:
        if b"/info" in head:
            connection.recv(1)  # until the other side goes
        else:
            connection.sendall(OK)

    async with scripted(hang) as (docker, fake):
        slow = [asyncio.create_task(docker.call("docker.info")) for _ in range(2)]
        async with asyncio.timeout(5):
            while len(fake.heads) < 2:  # noqa: ASYNC110 - the engine is a thread
                await asyncio.sleep(0.01)
        got = await docker.call("docker.version")
        assert (got["code"], "try again" in got["body"]["message"]) == (503, True)
        for task in slow:
            task.cancel()


async def test_readers_leave_room_for_writers(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, places in (("UNDER_WAY", 5), ("UNDER_WAY_OF_READERS", 3), ("UNDER_WAY_OF_A_READER", 2)):
        monkeypatch.setattr(ubus_docker, name, places)
    second = "d" * 32

    def hang(connection: Any, head: bytes) -> None:
        if b"/info" in head:
            connection.recv(1)  # until the other side goes
        else:
            connection.sendall(OK)

    async with scripted(hang) as (docker, fake):
        rights = {("docker", "info"), ("docker", "version")}
        docker.bus.rpcd.rights[READER] = docker.bus.rpcd.rights[second] = rights
        slow = []

        async def fill(session: str, count: int) -> None:
            before = len(fake.heads)
            slow.extend(
                asyncio.create_task(docker.call("docker.info", session=session)) for _ in range(count)
            )
            async with asyncio.timeout(5):
                while len(fake.heads) < before + count:  # noqa: ASYNC110 - the engine is a thread
                    await asyncio.sleep(0.01)

        await fill(READER, 2)
        assert (await docker.call("docker.version", session=READER))["code"] == 503  # its own share
        await fill(second, 1)
        assert (await docker.call("docker.version", session=second))["code"] == 503  # that of all readers
        assert (await docker.call("docker.version", session=ADMIN))["code"] == 200
        await fill(ADMIN, 2)
        assert (await docker.call("docker.version", session=ADMIN))["code"] == 503
        for task in slow:
            task.cancel()


@pytest.mark.parametrize(
    "until", [9999999999, "9999999999.5", 2**53, ["99999999999", "1"], "", None, "1", "-5"]
)
async def test_events_end_now_at_the_latest(scripted: Scripted, until: Any) -> None:
    async with scripted(answer(OK)) as (docker, fake):
        await docker.call("docker.events", {"query": {"since": 0, "until": until}})
        (sent,) = re.findall(rb"until=([^ &]+)", fake.heads[0])
        assert float(sent) <= time.time()


@pytest.mark.parametrize("until", ["10m", "-10m", "9" * 4400, "2030-01-01", "1e12", "nan", "inf"])
async def test_another_form_of_time_is_refused(scripted: Scripted, until: str) -> None:
    async with scripted(answer(OK)) as (docker, fake):
        assert (await docker.call("docker.events", {"query": {"until": until}}))["code"] == 400
        assert fake.heads == []


# rights


async def test_a_session_needs_the_right_to_the_method(scripted: Scripted) -> None:
    async with scripted(answer(OK)) as (docker, fake):
        docker.bus.rpcd.rights[READER] = {("docker.container", "list")}
        assert (await docker.call("docker.container.list", session=READER))["code"] == 200
        assert (await docker.call("docker.container.remove", {"id": "a"}, session=ADMIN))["code"] == 200
        seen = len(fake.heads)
        for session in (READER, DEFAULT_SESSION, "f" * 32, "x"):
            with pytest.raises(BusError) as caught:
                await docker.call("docker.container.remove", {"id": "a"}, session=session)
            assert caught.value.status == Status.PERMISSION_DENIED
        assert len(fake.heads) == seen


async def test_a_reader_gets_no_environment_by_way_of_ps(scripted: Scripted) -> None:
    async with scripted(answer(OK)) as (docker, fake):
        docker.bus.rpcd.rights[READER] = {("docker.container", "top")}
        args: dict[str, Any] = {"id": "web", "query": {"ps_args": "axe"}}
        assert (await docker.call("docker.container.top", args, session=READER))["code"] == 403
        assert fake.heads == []
        assert (await docker.call("docker.container.top", args, session=ADMIN))["code"] == 200
        args["query"]["ps_args"] = "-ww"
        assert (await docker.call("docker.container.top", args, session=READER))["code"] == 200


async def test_an_empty_session_is_a_session_without_rights(scripted: Scripted) -> None:
    async with scripted(answer(OK)) as (docker, fake):
        with pytest.raises(BusError, match="permission denied"):
            await docker.call("docker.container.list", {"ubus_rpc_session": ""})
        assert fake.heads == []


async def test_nobody_to_ask_is_a_no(scripted: Scripted) -> None:
    async with scripted(answer(OK)) as (docker, fake):
        await docker.bus.rpcd.stop()
        with pytest.raises(BusError):
            await docker.call("docker.container.list", session=ADMIN)
        assert fake.heads == []
        await docker.bus.rpcd.start()


@pytest.mark.parametrize(
    ("wanted", "prefix"),
    [("v1.41", "/v1.41"), ("1.40", "/v1.40"), ("", ""), ("v1.99", ""), ("v1.2", ""), ("v2.0", "")],
)
async def test_calls_are_made_in_the_api_version_of_uci_where_the_engine_speaks_it(
    scripted: Scripted, caplog: pytest.LogCaptureFixture, wanted: str, prefix: str
) -> None:
    body = b'{"ApiVersion": "1.43", "MinAPIVersion": "1.24"}'
    said = OK.replace(b"length: 2\r\n\r\n{}", b"length: %d\r\n\r\n%b" % (len(body), body))
    async with scripted(answer(said)) as (docker, fake):
        docker.agent.wanted_api = wanted
        for _ in range(2):
            assert (await docker.call("docker.container.inspect", {"id": "web"}))["code"] == 200
    asked = [head.split(b" ")[1].decode() for head in fake.heads]
    assert [path for path in asked if path != "/version"] == [f"{prefix}/containers/web/json"] * 2
    told = [record for record in caplog.records if "api_version" in record.getMessage()]
    assert len(told) == (1 if wanted and not prefix else 0)
