# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of engine routes, held against the list of everything that an engine serves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.routing import compile_path

from agent.api.engine_calls import ENGINE_CALLS
from agent.api.engine_requests import checked_query
from agent.api.problems import RequestError, checked_image
from agent.api.routes.engine import EngineRoutes
from agent.api.rules import WEBSOCKET, Need, Rule
from agent.api.streams.consoles import Consoles
from agent.engine.stream import DockerStream
from tests.support.controller import QuietAgent

LIST = Path(__file__).parents[1] / "data" / "engine-routes.txt"

DENIED: dict[tuple[str, str], str] = {
    ("GET", "/containers/{id}/attach/ws"): "only as a WebSocket",
    ("POST", "/session"): "hands the connection over to a build, past every check of a request",
    ("POST", "/grpc"): "as /session",
    ("POST", "/build/cancel"): "ends builds of such sessions only",
    ("GET", "/containers/{id}/checkpoints"): "experimental",
    ("POST", "/containers/{id}/checkpoints"): "experimental",
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}"): "experimental",
    ("GET", "/networks/"): "a second spelling of /networks",
    ("GET", "/debug/pprof/"): "the engine's own memory",
    ("GET", "/debug/pprof/cmdline"): "the engine's own memory",
    ("GET", "/debug/pprof/profile"): "the engine's own memory",
    ("GET", "/debug/pprof/symbol"): "the engine's own memory",
    ("GET", "/debug/pprof/trace"): "the engine's own memory",
    ("GET", "/debug/pprof/{name}"): "the engine's own memory",
    ("GET", "/debug/vars"): "the engine's own memory",
}

"""What the engine serves and we do not, and why."""


def engine_routes() -> set[tuple[str, str]]:
    """(method, path) of every route; what a placeholder is called does not count."""
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    return {_plain(*line.split()) for line in lines}


def _plain(method: str, path: str) -> tuple[str, str]:
    return method, re.sub(r"\{\w+\}", "{}", path)


OURS = {_plain(call.verb, call.path): call for call in ENGINE_CALLS}
REFUSED = {_plain(*route) for route in DENIED}


def test_every_route_of_the_engine_is_in_the_table_or_denied_on_purpose() -> None:
    served = {route for route in OURS if route[0] != WEBSOCKET}
    assert engine_routes() - served - REFUSED == set(), "decide on these"
    assert served - engine_routes() == set(), "no engine has these"
    assert REFUSED - engine_routes() == set(), "no engine has these"
    assert served & REFUSED == set()


@pytest.mark.parametrize(
    "path",
    [
        "/containers/{}/archive",
        "/containers/{}/export",
        "/containers/{}/attach",
        "/containers/{}/attach/ws",
        "/containers/{}/exec",
        "/exec/{}/start",
        "/images/get",
        "/images/{}/get",
        "/images/load",
        "/images/search",
        "/build",
        "/plugins",
        "/plugins/privileges",
        "/plugins/{}/json",
        "/swarm",
        "/swarm/unlockkey",
        "/secrets",
        "/secrets/{}",
        "/configs",
        "/configs/{}",
        "/distribution/{}/json",
        "/auth",
        "/commit",
    ],
)
def test_what_gives_root_or_secrets_is_a_writers(path: str) -> None:
    found = [call for (_, where), call in OURS.items() if where == path]
    assert found
    assert {call.need for call in found} == {Need.WRITE}


def test_only_a_wait_is_a_reading_post() -> None:
    reading = {key for key, call in OURS.items() if call.need is Need.READ}
    assert {key for key in reading if key[0] not in ("GET", "HEAD")} == {("POST", "/containers/{}/wait")}


def _rules() -> list[Rule]:
    engine = DockerStream("unix:///nowhere")
    return EngineRoutes(QuietAgent(), engine, Consoles(engine)).rules()


def test_each_route_is_one_rule_with_and_without_a_version() -> None:
    rules = _rules()
    assert len(rules) == len(ENGINE_CALLS) == len({(rule.method, rule.path) for rule in rules})
    for rule in rules:
        assert rule.path.startswith("/docker{version:engine_version}/")
        pattern, _, _ = compile_path(rule.path)
        path = re.sub(r"\{[^}]*\}", "x", rule.path.replace("{version:engine_version}", "", 1))
        for version in ("", "/v1.41", "/v1"):
            found = pattern.match(path.replace("/docker", f"/docker{version}", 1))
            assert found is not None and found["version"] == version


def test_a_path_that_begins_with_v_is_no_version() -> None:
    rules = _rules()
    taken = {rule.path for rule in rules if compile_path(rule.path)[0].match("/docker/volumes/json")}
    assert taken == {"/docker{version:engine_version}/volumes/{id}"}


@pytest.mark.parametrize(
    ("path", "name", "value", "passes"),
    [
        ("/containers/json", "filters", '{"label": ["a=b"]}', True),
        ("/containers/json", "filters", "a\x00", False),
        ("/commit", "comment", "one\r\n\ttwo", True),
        ("/containers/json", "all\r\n", "1", False),
        ("/containers/json", "", "1", False),
        ("/containers/json", "limit", "9" * 9000, False),
        ("/build", "remote", "https://example.org/x.git#main", True),
        ("/build", "remote", "git@example.org:x.git", True),
        ("/build", "remote", "--upload-pack=touch /tmp/x", False),
        ("/build", "remote", "file:///etc/shadow", False),
        ("/build", "remote", "git://-oProxyCommand=x/y", False),
        ("/images/create", "fromSrc", "-", True),
        ("/images/create", "fromSrc", "http://example.org/root.tar", True),
        ("/images/create", "fromSrc", "ftp://example.org/root.tar", False),
        ("/containers/{id}/top", "ps_args", "-ef", True),
        ("/containers/{id}/top", "ps_args", "auxe", False),
        ("/containers/{id}/top", "ps_args", "-eo pid,environ", False),
    ],
)
def test_queries_of_readers_are_looked_at(path: str, name: str, value: str, passes: bool) -> None:
    if passes:
        assert checked_query(path, [(name, value)], writer=False) == [(name, value)]
    else:
        with pytest.raises(RequestError):
            checked_query(path, [(name, value)], writer=False)


def test_a_writer_may_ask_ps_for_anything() -> None:
    pairs = [("ps_args", "-eo pid,args")]
    assert checked_query("/containers/{id}/top", pairs, writer=True) == pairs


def test_an_image_that_no_engine_takes_is_none() -> None:
    """An engine answers 500 to some of them, as if that could pass."""
    digest = "sha256:" + "a" * 64
    for good in (
        "alpine",
        "a/b:V_1.2",
        "registry.lan:5000/app@" + digest,
        digest,
        "0123456789ab",
        "Host.lan/x",
    ):
        assert checked_image(good) == good
    for bad in (
        "V",
        "a/B",
        "a..b",
        "a:b..c",
        "a@sha256:ab",
        "-a",
        "a-/b",
        "a b",
        "",
        "a" * 600,
        "a:b:c",
        "a/",
        "/a",
    ):
        with pytest.raises(RequestError, match="an image reference"):
            checked_image(bad)
