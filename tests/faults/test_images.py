# SPDX-License-Identifier: GPL-2.0-or-later
"""Images that cannot be had, move or vanish on the way, or are made to do harm: what runs stays, the others go on."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.apply.steps import GateError, _judge
from agent.errors import EngineError
from agent.model.observed import ObservedContainer
from agent.model.resources import AgentSettings, Container, ContainerSpec
from agent.runtime.main import make_reconciler
from agent.runtime.requests.planning import diff
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.fault_proxy import Fault, FaultProxy

APP = "app:1"
WEB = """
config container 'web'
	option image 'app:1'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'

config container 'other'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
"""


@pytest.fixture
def ready(box: Box) -> Iterator[Box]:
    """`web` and `other` run."""
    box.client.images.get(BUSYBOX).tag(*APP.split(":"))
    assert box.errors(WEB) == []
    yield box
    box.clean()
    for tag in [tag for image in box.client.images.list() for tag in image.tags if tag != BUSYBOX]:
        box.client.images.remove(tag, force=True)


def conditions(box: Box, key: str = "container:web") -> dict[str, str]:
    """Type -> reason."""
    resources = {r["key"]: r for r in box.reconciler.board.snapshot()["resources"]}
    return {c["type"]: c["reason"] for c in resources[key]["conditions"]}


@contextmanager
def a_registry(status: int, body: str) -> Iterator[str]:
    """Answers everything alike; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            """Not on the test's output."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


REGISTRIES = {
    "is away": (0, ""),
    "has had too many requests": (429, '{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'),
    "is broken": (500, "<html>"),
    "does not have it": (404, '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}'),
}


@pytest.mark.variants(2)
@pytest.mark.parametrize("name", REGISTRIES)
def test_a_container_stays_as_it_is_when_the_registry(ready: Box, name: str) -> None:
    status, body = REGISTRIES[name]
    before, now = ready.get("web").id, ready.reconciler.monotonic()
    ready.reconciler.monotonic = lambda: now  # type: ignore[misc]  # nothing is due again
    with a_registry(status or 500, body) as address:
        image = f"{'127.0.0.1:1' if not status else address}/new:1"
        errors = ready.errors(WEB.replace(APP, image).replace("'other'", "'third'"))
    assert [image in error for error in errors] == [True]
    assert (ready.get("web").id, ready.get("web").status) == (before, "running")
    assert ready.get("third").status == "running"
    assert conditions(ready)["ImageReady"] == "PullFailed"
    assert str(ready.apply()[0]) == "nothing to do"  # it backs off
    assert conditions(ready)["ImageReady"] == "PullFailed"
    assert ready.errors(WEB) == []
    assert ready.get("web").id == before


def test_an_image_that_the_disk_has_no_room_for_is_told_so_and_the_old_container_stays(
    ready: Box, engine: PrivateDockerd, tmp_path: Path
) -> None:
    with FaultProxy(tmp_path / "proxy.sock", engine.socket) as proxy:
        said = "failed to register layer: write /bin/busybox: no space left on device"
        proxy.forged = json.dumps({"errorDetail": {"message": said}, "error": said}).encode() + b"\n"
        proxy.rule = lambda call: Fault.FORGED if "/images/create" in call.path else None
        proxy.release.set()
        ready.options = replace(ready.options, docker_host=proxy.host)
        ready.reconciler = make_reconciler(ready.options, AgentSettings())
        before = ready.get("web").id
        (error,) = ready.errors(WEB.replace(APP, "127.0.0.1:1/large:1"))
    assert said in error
    assert conditions(ready)["ImageReady"] == "NoSpace"
    assert (ready.get("web").id, ready.get("web").status) == (before, "running")


def between(box: Box, monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], Any]) -> None:
    """Somebody meddles once, after the image was made sure of and before the container is created."""
    engine, done = box.reconciler.engine, []
    create = engine.create_container

    def create_later(*args: Any, **named: Any) -> str:
        if not done:
            done.append(meddle())
        return create(*args, **named)

    monkeypatch.setattr(engine, "create_container", create_later)


def test_an_image_that_is_retagged_on_the_way_is_still_the_one_that_was_looked_up(
    ready: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant = ready.client.images.get(APP).id
    between(ready, monkeypatch, lambda: ready.client.api.commit(ready.get("other").id, *APP.split(":")))
    assert ready.errors(WEB.replace("1000", "2000")) == []
    assert ready.get("web").attrs["Image"] == meant
    assert ready.get("web").attrs["Config"]["Image"] == meant
    # and it stays so: a tag that moves replaces nothing
    assert str(ready.apply()[0]) == "nothing to do"
    assert ready.get("web").attrs["Image"] == meant != ready.client.images.get(APP).id


def test_docker_ps_shows_the_reference_and_a_pruned_name_costs_nothing(
    ready: Box,
) -> None:
    assert ready.errors(WEB.replace("1000", "1500", 1)) == []  # the swap too
    listed = {item["Names"][0]: item["Image"] for item in ready.client.api.containers()}
    assert listed["/web"] == APP
    image, made = ready.get("web").attrs["Image"], ready.get("web").id
    ready.client.images.get(APP).tag("kept", "1")
    ready.client.images.remove(APP, force=True)
    assert str(ready.apply()[0]) == "nothing to do"
    assert conditions(ready)["ImageReady"] == "Untagged"
    # a change needs no registry, and what is rolled back is not tried again
    assert ready.errors(WEB.replace("1000", "2000")) == []
    assert (ready.get("web").attrs["Image"], ready.get("web").status) == (image, "running")
    assert ready.get("web").id != made
    assert len(ready.errors(WEB.replace("sleep 1000", "false", 1))) == 1
    ready.reconciler.backoff.clear()
    assert str(ready.apply()[0]) == "nothing to do"
    assert conditions(ready)["Synced"] == "RolledBack"


def test_what_was_created_by_the_id_stays_as_it_is(ready: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an earlier version of ours did."""
    engine = ready.reconciler.engine
    create, image = engine.create_container, ready.client.images.get(APP).id
    monkeypatch.setattr(
        engine, "create_container", lambda name, body, **more: create(name, {**body, "Image": image}, **more)
    )
    assert ready.errors(WEB.replace("1000", "2000")) == []
    monkeypatch.undo()
    assert ready.get("web").attrs["Config"]["Image"] == image
    assert str(ready.apply()[0]) == "nothing to do"
    assert diff(ready.reconciler, "web")["fields"] == []


def test_an_image_that_is_removed_on_the_way_leaves_the_old_container_until_it_is_back(
    ready: Box, engine: PrivateDockerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.import_busybox("next:1", changes=["LABEL a=b"])
    before = ready.get("web").id
    between(ready, monkeypatch, lambda: ready.client.images.remove("next:1"))
    text = WEB.replace(APP, "next:1")
    assert len(ready.errors(text)) == 1
    assert (ready.get("web").id, ready.get("web").status) == (before, "running")
    assert ready.names() == ["other", "web"]
    engine.import_busybox("next:1", changes=["LABEL a=b"])
    ready.reconciler.forget_failures()
    assert ready.errors(text) == []
    assert ready.get("web").attrs["Image"] == ready.client.images.get("next:1").id


def test_a_container_that_the_kernel_kills_for_its_memory_is_rolled_back(ready: Box) -> None:
    """20.10 does not always learn of the reason before it tells of the end."""
    before = ready.get("web").id
    greedy = "sh -c 'sleep 0.2; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done'"
    text = WEB.replace("option image 'app:1'\n\toption command 'sleep 1000'", "option image 'app:1'")
    hungry = text.replace("'app:1'", f"'app:1'\n\toption memory '6m'\n\toption command \"{greedy}\"", 1)
    (error,) = ready.errors(hungry.replace("option gate '0.1'", "option gate '5'", 1))
    assert "exited with 137" in error
    assert (ready.get("web").id, ready.get("web").status) == (before, "running")
    assert conditions(ready)["Degraded"] == "RolledBack"
    assert ready.names() == ["other", "web"]


def test_memory_is_named_as_the_reason_where_the_engine_names_it() -> None:
    state = {"Status": "exited", "ExitCode": 137, "OOMKilled": True}
    seen = ObservedContainer(
        id="1", name="web", image="a", image_id="a", state="exited", inspect={"State": state}
    )
    container = Container(section="web", name="web", spec=ContainerSpec(image="a"))
    with pytest.raises(GateError, match=r"exited with 137 \(OOMKilled: out of memory\)"):
        _judge(container, seen, replaces=False, elapsed_s=1, well_s=1)


# images that are made to do harm

MARKUP = "<img src=x onerror=alert(1)>{{7*7}}%s%n\u202e"
HOSTILE: dict[str, dict[str, Any]] = {
    "ten thousand labels": {"Labels": {f"l{n}": MARKUP for n in range(10_000)}},
    "a label of 200 kB": {"Labels": {"long": "x" * 200_000}},
    "variables of 5 MB": {"Env": [f"V{n}={'x' * 50_000}" for n in range(100)]},
    "all ports exposed": {"ExposedPorts": {f"{n}/tcp": {} for n in range(1, 65536)}},
    "a stop signal that is none": {"StopSignal": "SIG$(reboot)"},
    "a health check each nanosecond": {
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1, "Timeout": 1, "Retries": 1}
    },
    "fifty volumes": {"Volumes": {f"/v{n}": {} for n in range(50)}},
    "an entry point and a user that are not there": {"Entrypoint": ["/nonexistent"], "User": "nobody-here"},
}
FAST = {"ten thousand labels", "a stop signal that is none", "an entry point and a user that are not there"}


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.long) for name in HOSTILE]
)
def test_the_others_go_on_beside_an_image_with(ready: Box, name: str) -> None:
    api, made = ready.client.api, ready.get("other").id
    answer = api._post_json(
        api._url("/commit"),
        data=HOSTILE[name],
        params={"container": made, "repo": "hostile", "tag": "1", "pause": "0"},
    )
    assert answer.status_code == 201, answer.text
    before = ready.get("web").id
    text = (
        WEB.replace("'other'", "'third'")
        + WEB.replace("'web'", "'evil'").replace(APP, "hostile:1").split("config container 'other'")[0]
    )
    ready.apply(text)
    assert (ready.get("web").id, ready.get("third").status) == (before, "running")
    snapshot = json.dumps(ready.reconciler.board.snapshot())
    assert len(snapshot) < 64 * 1024
    ready.reconciler.forget_failures()
    ready.apply(text)
    assert (ready.get("web").id, ready.get("third").status) == (before, "running")
    assert set(ready.names()) <= {"evil", "other", "third", "web"}


def test_a_missing_image_is_no_rollback(box: Box) -> None:
    """Nothing was touched for it."""
    text = "config container 'web'\n\toption image 'IMAGE'\n\toption command 'sleep 1000'\n\toption stop_timeout '0'\n"
    box.apply(text)
    assert len(box.errors(text.replace("IMAGE", "nosuch:1") + "\toption pull 'never'\n")) == 1
    for condition in ("Degraded", "Synced"):
        assert box.reconciler.board.reason("container:web", condition) == "Failed"


def test_an_image_that_cannot_be_looked_at_is_named(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(reference: str) -> None:
        raise EngineError("input/output error", status=500, retryable=True)

    monkeypatch.setattr(box.reconciler.engine, "inspect_image", broken)
    errors = box.errors("config container 'web'\n\toption image 'IMAGE'\n")
    assert list(map(str, errors)) == ["cannot look at image busybox:test: input/output error"]
