# SPDX-License-Identifier: GPL-2.0-or-later
"""No session, no right: every route of the table, so that a new one cannot be forgotten."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from starlette.routing import compile_path

from agent.api.app import make_rules
from agent.api.rules import WEBSOCKET, Need, Rule
from agent.engine.stream import DockerStream
from tests.support.controller import QuietAgent
from tests.support.tcp import ECHOES, ENDED, READ, WRITE, ZERO, TcpController, new_client

RULES = [*make_rules(QuietAgent(), DockerStream("unix:///nowhere")), *ECHOES]
PUBLIC = {("GET", "/healthz")}
NO_SESSION = {
    "none": "",
    "empty": "Authorization:\r\n",
    "bearer of nothing": "Authorization: Bearer \r\n",
    "31 digits": f"Authorization: Bearer {WRITE[1:]}\r\n",
    "33 digits": f"Authorization: Bearer {WRITE}0\r\n",
    "upper case": f"Authorization: Bearer {WRITE.upper()}\r\n",
    "two words": f"Authorization: Bearer {WRITE} {WRITE}\r\n",
    "basic": "Authorization: Basic cm9vdDpyb290\r\n",
    "zero": f"Authorization: Bearer {ZERO}\r\n",
    "ended": f"Authorization: Bearer {ENDED}\r\n",
    "cookie": f"Cookie: sysauth_http={WRITE}; sysauth_https={WRITE}\r\n",
    "other header": f"X-Auth-Token: {WRITE}\r\nX-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n",
}


def filled(rule: Rule, version: str = "") -> str:
    """The rule's path with something in its parameters."""
    known = {"int": "1", "token": "a" * 32, "engine_version": version}
    return re.sub(r"\{(\w+)(?::(\w+))?\}", lambda found: known.get(found[2] or found[1], "web"), rule.path)


def spellings(rule: Rule) -> list[str]:
    """Those of a rule of the engine's are two."""
    return list(dict.fromkeys([filled(rule), filled(rule, "/v1.41")]))


def name(rule: Rule) -> str:
    return f"{rule.method} {rule.path}"


def request(served: TcpController, rule: Rule, headers: str, method: str = "", path: str = "") -> str:
    verb = method or rule.method
    more = "Content-Length: 2\r\n" if rule.body != "none" and not method else ""
    body = "{}" if more else ""
    return f"{verb} {path or filled(rule)} HTTP/1.1\r\nHost: {served.host()}\r\n{headers}{more}\r\n{body}"


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_without_a_session_no_route_answers_and_the_engine_is_not_asked(
    served: TcpController, rule: Rule
) -> None:
    before = len(served.asked())
    for case, headers in NO_SESSION.items():
        for path in spellings(rule):
            if rule.method == WEBSOCKET:
                seen = served.upgrade(path, headers)
            else:
                seen = served.status(request(served, rule, headers, path=path), new_client())
            assert seen == (200 if (rule.method, rule.path) in PUBLIC else 401), (case, path)
    assert len(served.asked()) == before


@pytest.mark.parametrize("rule", [r for r in RULES if r.grant.need is Need.WRITE], ids=name)
def test_a_reader_gets_no_further_than_the_door_of_a_changing_route(
    served: TcpController, rule: Rule
) -> None:
    before, address = len(served.asked()), new_client()
    for path in spellings(rule):
        if rule.method == WEBSOCKET:
            with served.client(READ, address) as client:
                refused = client.post("/v1/tickets", json={"path": path})
            assert refused.status_code == 403
        else:
            bearer = f"Authorization: Bearer {READ}\r\n"
            assert served.status(request(served, rule, bearer, path=path), address) == 403
    assert len(served.asked()) == before


@pytest.mark.parametrize("rule", RULES, ids=name)
def test_the_path_that_is_tried_is_the_rules(rule: Rule) -> None:
    assert all(compile_path(rule.path)[0].match(path) for path in spellings(rule))


def test_each_rule_says_what_it_takes_and_only_health_is_public() -> None:
    assert {(r.method, r.path) for r in RULES if r.grant.need is Need.PUBLIC} == PUBLIC
    for rule in RULES:
        assert rule.grant.need is Need.PUBLIC or (rule.grant.object and rule.grant.method), name(rule)


@pytest.mark.parametrize("rule", [r for r in RULES if r.method != WEBSOCKET], ids=name)
def test_another_spelling_of_the_method_is_no_way_around(served: TcpController, rule: Rule) -> None:
    if (rule.method, rule.path) in PUBLIC:
        return
    before = len(served.asked())
    # a container may be called `json`: another rule's pattern may take this path as well
    taken = {r.method for r in RULES if compile_path(r.path)[0].match(filled(rule))}
    override = f"X-HTTP-Method-Override: {rule.method}\r\nX-Method-Override: {rule.method}\r\n"
    for verb in {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"} - taken:
        assert served.status(request(served, rule, override, verb)) == 401, verb
        reader = f"Authorization: Bearer {READ}\r\n{override}"
        assert served.status(request(served, rule, reader, verb)) == 403, verb
        writer = f"Authorization: Bearer {WRITE}\r\n{override}"
        assert served.status(request(served, rule, writer, verb)) == 405, verb
    for verb in (rule.method.lower(), "CONNECT", "TRACE", "PATCH"):
        assert served.status(request(served, rule, f"Authorization: Bearer {WRITE}\r\n", verb)) == 400, verb
    assert len(served.asked()) == before


def test_what_is_no_route_is_a_writers_to_know(served: TcpController) -> None:
    for path in ("/", "/v1", "/v1/nosuch", "/V1/status", "/v1/status/", "/docker", "/ubus", "/index.html"):
        seen = []
        for session in ("", READ, WRITE):
            with served.client(session) as client:
                seen.append(client.get(path).status_code)
        assert seen[:2] == [401, 403] and seen[2] in (403, 404), path


def test_a_reader_reads_and_a_writer_writes(served: TcpController) -> None:
    with served.client(READ) as reader, served.client(WRITE) as writer:
        assert reader.get("/v1/status").status_code == 200
        assert reader.post("/v1/reconcile").status_code == 403
        assert writer.post("/v1/reconcile").status_code == 200


def test_a_session_that_nobody_can_tell_about_is_refused(served: TcpController) -> None:
    served.sessions.silent = True
    try:
        with served.client(WRITE) as client:
            for _ in range(15):
                answer = client.get("/v1/status")
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "access")
    finally:
        served.sessions.silent = False
    with served.client(WRITE) as client:
        assert client.get("/v1/status").status_code == 200


def test_guessing_is_slowed_down_by_address_and_logged_once(
    served: TcpController, caplog: pytest.LogCaptureFixture
) -> None:
    guesser, other = new_client(), new_client()
    served.clock.now += 120
    with caplog.at_level(logging.WARNING), served.client("", guesser) as client:
        seen = [
            client.get("/v1/status", headers={"authorization": f"Bearer {number:032x}"})
            for number in range(1, 31)
        ]
        assert [answer.status_code for answer in seen] == [401] * 10 + [429] * 20
        assert 0 < int(seen[-1].headers["retry-after"]) <= 61
        asked = len(served.sessions.asked)
        client.get("/v1/status", headers={"authorization": f"Bearer {99:032x}"})
        assert len(served.sessions.asked) == asked
        with served.client(READ, other) as neighbour:
            assert neighbour.get("/v1/status").status_code == 200
        # who was in before stays in, whatever his neighbour behind the same address tries
        assert client.get("/v1/status", headers={"authorization": f"Bearer {READ}"}).status_code == 200
        served.clock.now += 61
        late = client.get("/v1/status", headers={"authorization": f"Bearer {99:032x}"})
        assert late.status_code == 401
    lines = [record.getMessage() for record in caplog.records if "failed to log in" in record.getMessage()]
    assert len(lines) == 1 and guesser in lines[0]


def test_a_session_that_has_ended_has_to_wait_like_any_guess(served: TcpController) -> None:
    ended, address = "e" * 32, new_client()
    served.sessions.rights[ended] = Need.READ
    bearer = {"authorization": f"Bearer {ended}"}
    with served.client("", address) as client:
        assert client.get("/v1/status", headers=bearer).status_code == 200
        del served.sessions.rights[ended]
        seen = [client.get("/v1/status", headers=bearer).status_code for _ in range(11)]
        asked = len(served.sessions.asked)
        assert client.get("/v1/status", headers=bearer).status_code == 429
    assert seen == [401] * 10 + [429]
    assert len(served.sessions.asked) == asked, "and nobody is asked about it again and again"


def test_asking_without_a_session_is_no_failed_login(served: TcpController) -> None:
    with served.client() as client:
        assert {client.get("/v1/status").status_code for _ in range(20)} == {401}


def test_the_health_check_says_nothing(served: TcpController) -> None:
    with served.client() as client:
        assert client.get("/healthz").text == "ok\n"
        assert client.get("/healthz", headers={"authorization": f"Bearer {WRITE}"}).text == "ok\n"


def test_a_token_file_is_made_once_and_root_alone_can_read_it(tmp_path: Path) -> None:
    import asyncio

    from agent.api.local_access import TokenFile

    path = tmp_path / "state" / "token"
    sessions = TokenFile(path)
    assert not asyncio.run(sessions.allowed(WRITE, "docker", "list"))
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text().strip()
    assert re.fullmatch("[0-9a-f]{32}", token)
    assert asyncio.run(TokenFile(path).allowed(token, "docker", "list"))
    assert path.read_text().strip() == token
    path.chmod(0o644)
    assert not asyncio.run(sessions.allowed(token, "docker", "list")), "others could read it"
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_text().strip() != token
    path.write_text("")
    assert not asyncio.run(sessions.allowed("", "docker", "list"))
