# SPDX-License-Identifier: GPL-2.0-or-later
"""Each route of the agent's own over each door, for a writer and a reader: the control socket, loopback, TLS, ubus and
LuCI's way, on a running agent. What a door answers has the same form, the same words where it refuses, and the same rights.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.api.app import make_rules
from agent.api.rules import WEBSOCKET, Need
from agent.engine.stream import DockerStream
from agent.errors import BusError
from agent.wire.ubus_message import Status
from tests.support.agent_process import Agent, running, wait_for
from tests.support.box import Box
from tests.support.bus import Bus, a_bus
from tests.support.controller import QuietAgent
from tests.support.fake_rpcd import ADMIN
from tests.support.fake_rpcd import READER as RPCD_READER
from tests.support.luci_web import Web
from tests.support.tcp import make_certificate

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

TEXT = """
config agent
	list listen '127.0.0.1:PORT'

config volume 'data'

config container 'web'
	option image 'IMAGE'
	option command 'sh -c "echo needle; echo hay; exec sleep 1000"'
	list volume 'data:/data'
	option network_mode 'none'
	option stop_timeout '0'

config container 'broken'
	option image 'IMAGE'
	option command 'sleep 1000'
	option network_mode 'none'
	option stop_timeout '0'

config backup 'nightly'
	list section 'web'
	option target 'TARGET'

config notify 'hook'
	option type 'exec'
	list command '/bin/true'
"""


@dataclass(frozen=True)
class Ask:
    """A request by HTTP, and the same by ubus."""

    rule: str  # method and path of the route table
    method: str = ""  # on ubus, of the object `ucidockd`
    args: dict[str, Any] = field(default_factory=dict)
    path: str = ""  # with what it asks for
    body: dict[str, Any] | None = None  # where it is not `args`, without what the path says


NO_JOB = "a" * 32
RESTORE = "/v1/backups/nightly/restore"
LOGS = "/v1/logs?containers=web&grep=needle&tail=5"
RUN = "docker run -d --name two -e A=b alpine:3.20"
ASKED = (
    Ask("GET /v1/status", "status"),
    Ask("GET /v1/status", "status", {"limit": 1}, path="/v1/status?limit=1"),
    Ask("GET /v1/status", "status", {"limit": 0}, path="/v1/status?limit=0"),
    Ask("GET /v1/reach", "reach"),
    Ask("GET /v1/load", "load"),
    Ask("GET /v1/load/{id}", "load", {"name": "web"}, path="/v1/load/web"),
    Ask("GET /v1/load/{id}", "load", {"name": "web", "hours": 2}, path="/v1/load/web?hours=2"),
    Ask("GET /v1/load/{id}", "load", {"name": "web", "hours": 99}, path="/v1/load/web?hours=99"),
    Ask("GET /v1/load/{id}", "load", {"name": "nobody"}, path="/v1/load/nobody"),
    Ask("GET /v1/plan", "plan"),
    Ask("POST /v1/plan", "preview", {"packages": {"containers": ""}}),
    Ask("POST /v1/plan", "preview", {"x": 1}),
    Ask("POST /v1/reconcile", "reconcile"),
    Ask("POST /v1/prune", "prune", {"dry_run": True, "images": "unused"}),
    Ask("POST /v1/prune", "prune", {"images": "all"}),
    Ask("POST /v1/prune", "prune", {"older": "soon"}),
    Ask("POST /v1/notify/test", "notify_test", {"name": "hook"}),
    Ask("POST /v1/notify/test", "notify_test", {"name": "nobody"}),
    Ask("POST /v1/validate", "validate", {"packages": {"containers": "config x"}}, body={"containers": "config x"}),
    Ask("POST /v1/validate", "validate", {"packages": {"network": ""}}, body={"network": ""}),
    Ask("GET /v1/jobs", "job_list"),
    Ask("GET /v1/jobs/{id}", "job_status", {"id": NO_JOB}, path=f"/v1/jobs/{NO_JOB}"),
    Ask("DELETE /v1/jobs/{id}", "job_cancel", {"id": NO_JOB}, path=f"/v1/jobs/{NO_JOB}"),
    Ask("POST /v1/jobs", "job_start", {"kind": "no"}),
    Ask("POST /v1/jobs", "job_start", {"kind": "pull", "image": "a:b:c"}),
    Ask("POST /v1/jobs", "job_start", {"kind": "prune", "what": "networks"}),
    Ask("GET /v1/volumes/{id}/list", "volume_list", {"name": "data"}, path="/v1/volumes/data/list"),
    Ask("GET /v1/volumes/{id}/list", "volume_list", {"name": "data", "path": ".."}, path="/v1/volumes/data/list?path=.."),
    Ask("GET /v1/volumes/{id}/list", "volume_list", {"name": "nobody"}, path="/v1/volumes/nobody/list"),
    Ask("POST /v1/backups", "backup_run", {"names": ["nightly"]}),
    Ask("POST /v1/backups", "backup_run", {"names": ["nobody"]}),
    Ask("POST /v1/backups", "backup_run", {"name": "nightly"}),
    Ask("GET /v1/backups", "backup_list"),
    Ask("GET /v1/backups/{id}", "backup_list", {"name": "nightly"}, path="/v1/backups/nightly"),
    Ask("GET /v1/backups/{id}", "backup_list", {"name": "nobody"}, path="/v1/backups/nobody"),
    Ask("POST /v1/backups/{id}/restore", "backup_restore", {"name": "nightly", "volume": "data"}, path=RESTORE),
    Ask("POST /v1/backups/{id}/restore", "backup_restore", {"name": "nightly", "volume": "no"}, path=RESTORE),
    Ask("POST /v1/backups/{id}/restore", "backup_restore", {"name": "nightly", "file": "x"}, path=RESTORE),
    Ask("POST /v1/adopt", "adopt", {"container": "nobody"}),
    Ask("POST /v1/adopt", "adopt", {"container": "a b"}),
    Ask("POST /v1/import", "import", {"run": RUN}),
    Ask("POST /v1/import", "import", {"compose": "a: ["}),
    Ask("POST /v1/import", "import", {"run": RUN, "profiles": [1]}),
    Ask("GET /v1/export", "export"),
    Ask("GET /v1/export", "export", {"format": "compose", "names": ["web"]}, path="/v1/export?format=compose&names=web"),
    Ask("GET /v1/export", "export", {"format": "x"}, path="/v1/export?format=x"),
    Ask("GET /v1/export", "export", {"names": ["nobody"]}, path="/v1/export?names=nobody"),
    Ask("GET /v1/containers/{id}/diff", "diff", {"name": "web"}, path="/v1/containers/web/diff"),
    Ask("GET /v1/containers/{id}/diff", "diff", {"name": "nobody"}, path="/v1/containers/nobody/diff"),
    Ask("GET /v1/containers/{id}/describe", "describe", {"name": "web"}, path="/v1/containers/web/describe"),
    Ask("GET /v1/containers/{id}/describe", "describe", {"name": "nobody"}, path="/v1/containers/nobody/describe"),
    Ask("GET /v1/containers/{id}/diff", "diff", {"name": "broken"}, path="/v1/containers/broken/diff"),
    Ask("GET /v1/containers/{id}/describe", "describe", {"name": "broken"}, path="/v1/containers/broken/describe"),
    Ask("GET /v1/containers/{id}/history", "history", {"name": "broken"}, path="/v1/containers/broken/history"),
    Ask("GET /v1/containers/{id}/history", "history", {"name": "web"}, path="/v1/containers/web/history"),
    Ask("GET /v1/containers/{id}/history", "history", {"name": "nobody"}, path="/v1/containers/nobody/history"),
    Ask("POST /v1/containers/{id}/revert", "revert", {"name": "web", "version": 1}, path="/v1/containers/web/revert"),
    Ask("POST /v1/containers/{id}/revert", "revert", {"name": "web", "version": 99}, path="/v1/containers/web/revert"),
    Ask("POST /v1/containers/{id}/revert", "revert", {"name": "web"}, path="/v1/containers/web/revert"),
    Ask("GET /v1/updates", "updates"),
    Ask("POST /v1/updates/check", "updates_check", {"names": ["nobody"]}),
    Ask("POST /v1/updates/check", "updates_check", {"names": "web"}),
    Ask("POST /v1/update", "update", {"names": ["nobody"]}),
    Ask("POST /v1/update", "update", {"names": ["web"]}),
    Ask("POST /v1/rollback", "rollback", {"name": "web"}),
    Ask("POST /v1/rollback", "rollback", {"name": "web", "with_data": True}),
    Ask("POST /v1/rollback", "rollback", {"name": "nobody"}),
    Ask("POST /v1/rollback", "rollback"),
    Ask("POST /v1/dockerd/start", "dockerd_start"),
    Ask("POST /v1/dockerd/stop", "dockerd_stop"),
    Ask("POST /v1/dockerd/restart", "dockerd_restart"),
    Ask("POST /v1/move-data/check", "move_data_check", {"target": "/mnt"}),
    Ask("POST /v1/move-data/check", "move_data_check", {"target": "x"}),
    Ask("POST /v1/move-data", "move_data", {"target": "x"}),
    Ask("POST /v1/tls/clients", "tls_client", {"name": "a b"}),
    Ask("POST /v1/tls/clients", "tls_client", {"name": "ann", "days": 0}),
    Ask("GET /v1/logs", "logs", {"containers": ["web"], "grep": "needle", "tail": "5"}, path=LOGS),
)  # fmt: skip
# what is streamed, or comes or goes as a file: tests/api/test_doors_on_engine.py and tests/api/test_ubus_streams.py
STREAMED = {
    "GET /v1/status/stream", "GET /v1/containers/{id}/logs", "GET /v1/containers/{id}/stats", "GET /v1/events",
    "GET /v1/containers/{id}/export", "GET /v1/containers/{id}/archive", "PUT /v1/containers/{id}/archive",
    "GET /v1/images/get", "GET /v1/jobs/{id}/stream", "PUT /v1/images/load", "PUT /v1/builds",
    "GET /v1/volumes/{id}/archive", "PUT /v1/volumes/{id}/archive", "POST /v1/transfers", "GET /v1/transfers",
    "GET /v1/transfers/{id}", "DELETE /v1/transfers/{id}", "PUT /v1/transfers/{id}/{offset}",
    "GET /v1/transfers/{id}/{offset}", "POST /v1/transfers/{id}", "POST /v1/containers/{id}/exec",
    "GET /v1/exec/{id}/stream", "POST /v1/exec/{id}/input", "POST /v1/exec/{id}/resize", "DELETE /v1/exec/{id}",
    "POST /v1/tickets",
}  # fmt: skip


def _rules() -> dict[str, Any]:
    """By method and path, without the converters in it."""
    rules = make_rules(QuietAgent(), DockerStream("unix:///nowhere"))
    own = [rule for rule in rules if rule.path.startswith("/v1/") and rule.method != WEBSOCKET]
    return {f"{rule.method} {rule.path.replace(':token', '').replace(':int', '')}": rule for rule in own}


RULES = _rules()


def test_each_route_is_asked() -> None:
    assert {ask.rule for ask in ASKED} | STREAMED == RULES.keys()


ACL = json.loads(
    (Path(__file__).parents[2] / "luci/root/usr/share/rpcd/acl.d/luci-app-ucidockd.json").read_text()
)["luci-app-ucidockd"]
LUCI = {
    "writer": "c" * 32,
    "reader": "d" * 32,
}  # sessions of LuCI, with the rights that its access list gives


def _granted(*levels: str) -> set[tuple[str, str]]:
    return {(name, m) for level in levels for name, methods in ACL[level]["ubus"].items() for m in methods}


@dataclass
class Stand:
    agent: Agent
    box: Box
    bus: Bus
    web: Web
    clients: dict[str, httpx.AsyncClient]
    with_tls: str  # its configuration, with a certificate for the listener

    async def http(self, door: str, ask: Ask) -> dict[str, Any]:
        verb, _, path = ask.rule.partition(" ")
        body = ask.body
        if body is None:
            body = {name: value for name, value in ask.args.items() if name != "name" or "{id}" not in path}
        more: dict[str, Any] = {"json": body} if RULES[ask.rule].body == "json" else {}
        answer = await self.clients[door].request(verb, ask.path or path, **more)
        if answer.headers["content-type"].startswith("text/plain"):
            return {"lines": answer.text.splitlines()}
        return {"denied": True} if answer.status_code == 403 else dict(answer.json())

    async def ubus(self, session: str, ask: Ask) -> dict[str, Any]:
        args = {**ask.args, **({"ubus_rpc_session": session} if session else {})}
        try:
            return await self.bus.caller.call("ucidockd", ask.method, args, timeout_s=30)
        except BusError as exc:
            if exc.status == Status.PERMISSION_DENIED:
                return {"denied": True}
            return {"error": {"status": exc.status}}

    async def luci(self, who: str, method: str, args: dict[str, Any]) -> dict[str, Any]:
        """As the pages call it: JSON-RPC to uhttpd."""
        call = {"jsonrpc": "2.0", "id": 1, "method": "call", "params": [LUCI[who], "ucidockd", method, args]}
        async with httpx.AsyncClient(base_url=self.web.address, timeout=60) as client:
            answer = (await client.post("/ubus", json=call)).json()
        if "error" in answer or answer["result"] == [Status.PERMISSION_DENIED]:
            return {"denied": True}
        status, *given = answer["result"]
        return given[0] if given else {"error": {"status": status}}

    async def streamed(self, who: str, kind: str, args: dict[str, Any]) -> list[dict[str, Any]]:
        """The items of a stream to its end, as the pages read one; [] where it is denied."""
        made = await self.luci(who, "stream_open", {})
        opened = await self.luci(who, "stream_open", {"id": made["id"], "kind": kind, "args": args})
        if "denied" in opened:
            return []
        items: list[dict[str, Any]] = []
        after = 0
        async with asyncio.timeout(30):
            while not any(item["name"] in ("end", "error") and item["stream"] for item in items):
                ask = {"id": made["id"], "after": after, "wait": 5}
                for packet in (await self.luci(who, "stream_read", ask))["packets"]:
                    after = packet["seq"]
                    items += packet["items"]
        await self.luci(who, "stream_close", {"id": made["id"]})
        return [item for item in items if item["stream"]]

    async def idle(self) -> None:
        """Nothing is being backed up or changed: what is asked next depends on nothing before."""
        async with asyncio.timeout(30):
            while (await self.http("control", Ask("GET /v1/backups"))).get("running"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


def alike(one: Any, other: Any) -> bool:
    """Whether both have the same names and types; what is not known yet may be null, empty or missing."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(alike(one[name], other[name]) for name in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return all(alike(*pair) for pair in zip(one, other, strict=False))
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other))
    return one is None or other is None or numbers or type(one) is type(other)


WRONG = {
    "error": {"status": Status.INVALID_ARGUMENT}
}  # of the bus itself, where an argument has another type


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two doors gave the same answer: what is refused, in the same words."""
    if "denied" in other:  # the bus looks at arguments first
        return one in (other, WRONG)
    if "lines" in one and "lines" in other:  # as text, and as the bus has it
        said = [
            {line["text"] if isinstance(line, dict) else line.rpartition(" | ")[2] for line in each["lines"]}
            for each in (one, other)
        ]
        return bool(said[0] == said[1] == {"needle"})
    refused = [isinstance(each.get("error"), dict) and each["error"] for each in (one, other)]
    if any(refused):
        return all(refused) and (refused[0] == refused[1] or one == WRONG)
    return one.keys() == other.keys() and alike(one, other)


@pytest.fixture
async def stand(box: Box, tmp_path: Path) -> AsyncIterator[Stand]:
    async with a_bus(tmp_path / "ubus.sock") as bus:
        bus.rpcd.rights[RPCD_READER] = {
            (rule.grant.object, rule.grant.method) for rule in RULES.values() if rule.grant.need is Need.READ
        }
        bus.rpcd.rights[LUCI["writer"]] = _granted("read", "write")
        bus.rpcd.rights[LUCI["reader"]] = _granted("read")
        web = Web(bus.daemon.path, {})
        web.socket = str(box.options.socket)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        cert, key = make_certificate(tmp_path, "router")
        (tmp_path / "backup").mkdir()
        plain = TEXT.replace("TARGET", str(tmp_path / "backup")).replace("PORT", str(port))
        agent = Agent(box, ubus=bus.daemon.path)
        agent.commit(plain)
        await asyncio.to_thread(agent.start)
        clients: dict[str, httpx.AsyncClient] = {}
        try:
            await asyncio.to_thread(wait_for, lambda: running(box, "web") and running(box, "broken"))
            plain = plain.replace(
                "'sleep 1000'", "'sleep 1000'\n\toption memroy '64m'\n\toption restart 'often'"
            )
            agent.commit(plain)
            trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            transport = httpx.AsyncHTTPTransport(uds=str(box.options.socket))
            clients["control"] = httpx.AsyncClient(
                transport=transport, base_url="http://localhost", timeout=30
            )
            for who, session in (("writer", ADMIN), ("reader", RPCD_READER)):
                headers = {"authorization": f"Bearer {session}"}
                for door, scheme in (("loopback", "http"), ("tls", "https")):
                    address = f"{scheme}://127.0.0.1:{port}"
                    clients[f"{door} {who}"] = httpx.AsyncClient(
                        base_url=address, verify=trusting, headers=headers, timeout=30
                    )
            tls = f"\n\toption cert '{cert}'\n\toption key '{key}'\n\nconfig volume"
            made = Stand(agent, box, bus, web, clients, plain.replace("\n\nconfig volume", tls, 1))
            async with asyncio.timeout(20):
                while "ucidockd" not in await bus.caller.lookup("ucidockd"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            async with web.serving():
                yield made
        finally:
            for client in clients.values():
                await client.aclose()
            await asyncio.to_thread(agent.close)


async def test_each_door_answers_each_route_alike(stand: Stand) -> None:
    differ: list[Any] = []

    async def ask_all(doors: dict[str, Callable[[Ask], Any]]) -> None:
        for ask in ASKED:
            wanted = await stand.http("control", ask)
            assert "defect" not in json.dumps(wanted), ask
            may = RULES[ask.rule].grant.need is Need.READ
            for door, way in doors.items():
                await stand.idle()
                got = await way(ask)
                if not same(got, wanted if may or "reader" not in door else {"denied": True}):
                    differ.append((ask.rule, ask.body or ask.path, door, wanted, got))
            await stand.idle()

    async def reachable(door: str) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    if (await stand.clients[door].get("/v1/status")).json()["agent"].get("generation"):
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)

    await reachable("loopback writer")
    await ask_all(
        {
            "loopback": lambda ask: stand.http("loopback writer", ask),
            "ubus": lambda ask: stand.ubus(ADMIN, ask),
            "ubus root": lambda ask: stand.ubus("", ask),
            "loopback reader": lambda ask: stand.http("loopback reader", ask),
            "ubus reader": lambda ask: stand.ubus(RPCD_READER, ask),
            "luci": lambda ask: stand.luci("writer", ask.method, ask.args),
            "luci reader": lambda ask: stand.luci("reader", ask.method, ask.args),
        }
    )
    stand.agent.commit(stand.with_tls)
    await reachable("tls writer")
    await ask_all(
        {
            "tls": lambda ask: stand.http("tls writer", ask),
            "tls reader": lambda ask: stand.http("tls reader", ask),
        }
    )
    assert not differ, "\n".join(json.dumps(each, default=str) for each in differ)


async def test_what_is_streamed_comes_over_each_door(stand: Stand) -> None:
    """Logs, a job and status as the pages read them, against HTTP; and what a reader may not."""
    for args in (
        {"containers": ["web"], "grep": "needle"},
        {"containers": ["web", "broken"], "grep": "NEEDLE", "since": "1h"},
        {"containers": ["web"], "tail": "1"},
    ):
        query = {name: ",".join(value) if isinstance(value, list) else value for name, value in args.items()}
        answer = await stand.clients["control"].get("/v1/logs", params=query)
        texts = [line.rpartition(" | ")[2] for line in answer.text.splitlines()]
        for who in LUCI:
            items = await stand.streamed(who, "logs", {**args, "follow": False})
            lines = [item["json"]["text"] for item in items if item["name"] == "line"]
            assert lines == texts, (who, args, items)
    started = await stand.luci("writer", "job_start", {"kind": "prune", "what": "images"})
    for who in LUCI:
        items = await stand.streamed(who, "job", {"id": started["job"]["id"]})
        assert [item["json"]["state"] for item in items if item["name"] == "job"][-1] == "succeeded", items
        assert (await stand.luci(who, "job_status", {"id": started["job"]["id"]}))["job"][
            "state"
        ] == "succeeded"
    web = stand.box.client.containers.get("web").id
    assert await stand.streamed("reader", "console", {"container": web, "command": ["id"]}) == []
    said = await stand.streamed("writer", "console", {"container": web, "command": ["echo", "hello"]})
    assert [item["json"]["code"] for item in said if item["name"] == "exit"] == [0], said


async def test_a_section_with_mistakes_is_described_over_each_door(stand: Stand) -> None:
    ask = Ask(
        "GET /v1/containers/{id}/describe",
        "describe",
        {"name": "broken"},
        path="/v1/containers/broken/describe",
    )
    async with asyncio.timeout(20):
        while "'often'" not in json.dumps((wanted := await stand.http("control", ask))["conditions"]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert wanted["state"]["status"] == "running"
    assert {row["option"] for row in wanted["options"] if row["from"] == "last applied"} >= {"command"}
    for got in (await stand.luci("reader", ask.method, ask.args), await stand.ubus("", ask)):
        assert got == wanted


S = "S3CRETx9"
PLANTED = f"""
config auth 'login'
	option serveraddress '127.0.0.1:1'
	option username 'u'
	option password '{S}'

config volume 'nas'
	option driver 'local'
	list opt 'type=tmpfs'
	list opt 'device=tmpfs'
	list opt 'o=size=1m,password={S}'

config container 'away'
	option image '127.0.0.1:1/app:1'

config container 'bad'
	option image 'IMAGE'
	list command 'sh'
	list command '-c'
	list command 'echo denied for $2; exit 3'
	list command 'x'
	list command '--password'
	list command '{S}'
	list env 'PLAIN={S}'
	list label 'a.basicauth.users={S}'
	option health_cmd 'curl -u a:{S} http://h'
	option pre_stop 'mysqldump -u root -p{S} | curl -T - --user b:{S} h; FOO_TOKEN={S} BAR_SECRET="two {S}" x'
	option post_start 'sh -c "echo no $2; exit 1" x --token {S}'
	option hold_cmd 'ask --quiet --api-key {S}; curl -k -u :{S} h; vault login {S}'
	option stack 'pile'
	option network_mode 'none'
	option stop_timeout '0'

config stack 'pile'
	list env 'SHARED={S}'
	list env 'API_TOKEN=two words {S}'

config container 'entry'
	option image 'IMAGE'
	list entrypoint 'app'
	list entrypoint '--token=two {S}'
	list entrypoint '-u'
	list entrypoint 'name:{S}'
	list health_cmd 'redis-cli'
	list health_cmd '-a'
	list health_cmd '{S}'
	list log_opt 'tag=x'
	option network_mode 'none'

config container 'mounts'
	option image 'IMAGE'
	list volume 'nas:/nas'

config container 'wrong'
	option image 'u:{S}@h/App'
	list extra_host 'u:{S}@h'

config backup 'saving'
	list volume 'data'
	option exec 'cat >/dev/null; echo wrong {S}; : restic --password {S}; exit 5'

config notify 'chat'
	option type 'webhook'
	option url 'http://127.0.0.1:1/services/{S}?token={S}'
	list header 'Authorization: Bearer {S}'

config backup 'borg'
	list volume 'data'
	option exec 'BORG_PASSPHRASE={S} AWS_SECRET_ACCESS_KEY="{S}" x -u a:{S}; cat >/dev/null; echo no {S}; exit 5'

config notify 'broker'
	option type 'mqtt'
	option url 'mqtt://u:{S}@127.0.0.1:1'
	option username 'u'
	option password '{S}'

config notify 'program'
	option type 'exec'
	list command 'sh'
	list command '-c'
	list command 'echo no {S} >&2; exit 1'
	list command 'x'
	list command '--token'
	list command '{S}'
"""
# these give a writer the configuration itself (docs/security.md)
FOR_WRITERS = {
    "POST /v1/adopt",
    "POST /v1/import",
    "GET /v1/export",
    "GET /v1/containers/{id}/history",
    "POST /v1/containers/{id}/revert",
}


async def test_no_door_shows_a_secret_of_the_configuration(stand: Stand) -> None:
    text = (stand.box.config / "containers").read_text()
    stand.agent.commit(text + PLANTED.replace("IMAGE", "busybox:test"))
    async with asyncio.timeout(60):
        while True:
            status = await stand.http("control", Ask("GET /v1/status"))
            shown = {r["section"]: r for r in status["resources"]}
            told = {name: json.dumps(shown.get(name)) for name in ("away", "bad", "mounts")}
            if all(re.search(r"exited|Failed|denied", text) for text in told.values()):
                break
            await asyncio.sleep(0.2)
    names = ("web", "bad", "entry", "away", "mounts", "wrong")
    asked = [
        *(ask for ask in ASKED if ask.rule not in FOR_WRITERS),
        *(Ask("POST /v1/notify/test", "notify_test", {"name": name}) for name in ("chat", "program", "broker")),
        Ask("POST /v1/backups", "backup_run", {"names": ["saving"]}),
        Ask("POST /v1/backups", "backup_run", {"names": ["borg"]}),
        Ask("GET /v1/backups", "backup_list"),
        *(
            Ask(f"GET /v1/containers/{{id}}/{what}", what, {"name": name}, path=f"/v1/containers/{name}/{what}")
            for what in ("diff", "describe")
            for name in names
        ),
        Ask("GET /v1/updates", "updates"),
        Ask("POST /v1/updates/check", "updates_check"),
        Ask("POST /v1/plan", "preview", {"packages": {"containers": PLANTED.replace("3;", "4;")}}),
        Ask("POST /v1/validate", "validate", {"packages": {"containers": PLANTED}}, body={"containers": PLANTED}),
        Ask("GET /v1/status", "status"),
    ]  # fmt: skip
    for ask in asked:
        for door in ("control", "loopback writer", "loopback reader"):
            await stand.idle()
            assert S not in json.dumps(await stand.http(door, ask)), (door, ask)
        await stand.idle()
        assert S not in json.dumps(await stand.ubus(ADMIN, ask)), ask
        await stand.idle()
        assert S not in json.dumps(await stand.luci("reader", ask.method, ask.args)), ask
    for door in ("loopback writer", "loopback reader"):
        assert S not in (await stand.clients[door].get("/metrics")).text
    for command in (
        ["status", "--json"],
        ["plan", "--json"],
        ["describe", "bad"],
        ["diff", "bad"],
        ["check"],
    ):
        said = await asyncio.to_thread(stand.agent.command, *command)
        assert S not in said.stdout + said.stderr, command
    assert S not in stand.agent.log.read_text()
