# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients of the Engine API count on under `/docker/`, on the real engine and over every door: errors that they can
read, names that engines take, and the engine's own answer when it gives one early.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import docker
import docker.errors
import httpx
import pytest

from agent.wire.http_head import HIGHEST, natural
from tests.api.conftest import Containers
from tests.api.test_doors_on_engine import Door, door, doors
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.tcp import ENDED, READ, WRITE

__all__ = ["door", "doors"]  # fixtures

NETWORKS = (
    "my net",
    "ü",
    "a/b",
    "a?b",
    "a#b",
    "100%",
    "a;b",
    "a\\b",
    "-x",
    ".x",
    "a..b",
    " a",
    "a:b@c",
    "<img src=x>",
    "x" * 300,
)


def _message(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/json", answer.text
    body = answer.json()
    assert body["message"] == body["error"]["message"] != "", body
    return str(body["message"])


# errors


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/docker/nothing", 404),
        ("PUT", "/docker/info", 405),
        ("GET", "/docker/v1.999/info", 400),
        ("GET", "/docker/containers/a%20b/json", 404),
        ("GET", "/docker/containers/alpine:3.10/json", 404),
        ("POST", "/docker/session", 501),
        ("POST", "/docker/v1.41/grpc", 501),
        ("GET", "/docker/containers/%2e%2e/info", 400),
        ("GET", "/docker/containers/web%00/json", 400),
        ("GET", "/docker/containers/%252e%252e/json", 400),
        ("GET", "/docker/containers/%ff/json", 400),
        ("TRACE", "/docker/info", 400),
        ("GET", "/v1/nothing", 404),
    ],
)
def test_errors_of_ours_have_a_message(door: Door, method: str, path: str, status: int) -> None:
    answer = door.client.send(_raw_request(door, method, path))
    assert answer.status_code == status, answer.text
    assert _message(answer)


def _raw_request(door: Door, method: str, path: str) -> httpx.Request:
    """With the path as it is: httpx would tidy it."""
    request = door.client.build_request(method, "/")
    request.url = request.url.copy_with(raw_path=path.encode())
    return request


def test_a_head_that_is_too_large_is_said_so(door: Door) -> None:
    for headers in ({"x-a": "b" * 17_000}, {f"x-{n}": "b" for n in range(101)}):
        answer = door.client.get("/docker/info", headers=headers)
        assert answer.status_code == 431 and _message(answer)


def test_who_is_not_let_in_reads_why(doors: dict[str, Door]) -> None:
    controller = doors["loopback"].controller
    for headers, status in (
        ({}, 401),
        ({"authorization": f"Bearer {ENDED}"}, 401),
        ({"authorization": f"Bearer {READ}"}, 403),
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
    ):
        with controller.client() as client:
            answer = client.post("/docker/networks/create", headers=headers)
            assert answer.status_code == status and _message(answer)
    with controller.client() as client:
        let_in = {"authorization": f"Bearer {WRITE}"}
        assert client.head("/docker/_ping", headers=let_in).status_code == 200
        for _ in range(11):
            answer = client.get("/docker/info", headers={"authorization": f"Bearer {ENDED}"})
        assert answer.status_code == 429 and _message(answer)
        assert (
            client.head("/docker/_ping", headers=let_in).status_code == 200
        )  # a session that is known goes on


def test_a_wrong_method_names_all_that_there_are(door: Door) -> None:
    for path, allowed in (
        ("/docker/containers/web/archive", "DELETE, GET, HEAD, PUT"),  # a link may have any name
        ("/docker/v1.41/networks/my%20net", "DELETE, GET"),
        ("/docker/_ping", "GET, HEAD"),
        ("/v1/transfers/x", "DELETE, GET, POST"),
    ):
        answer = door.client.request("OPTIONS", path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed), path
        assert _message(answer)


def test_what_cannot_go_by_this_way_says_which_does(door: Door) -> None:
    for path in ("/docker/session", "/docker/v1.41/grpc"):
        refused = door.client.post(path, headers={"connection": "Upgrade", "upgrade": "h2c"})
        assert refused.status_code == 501 and "DOCKER_BUILDKIT=0" in _message(refused)
    assert door.client.head("/docker/_ping").headers.get("builder-version", "1") == "1"


# the engine's own answer


@pytest.mark.parametrize("size", [2, 70_000, 3_000_000])
def test_an_answer_that_comes_before_the_end_of_the_body_is_the_engines(
    door: Door, engine: PrivateDockerd, size: int
) -> None:
    direct = httpx.Client(transport=httpx.HTTPTransport(uds=str(engine.socket)), base_url="http://docker")
    with direct:
        for path in ("/containers/create", "/networks/create", "/volumes/create", "/containers/nope/update"):
            for kind in ("text/plain", "application/xml"):
                ask = {"content": b"x" * size, "headers": {"content-type": kind}}
                wanted = direct.post(path, content=b"xx", headers={"content-type": kind})
                got = door.client.post(f"/docker{path}", **ask)  # type: ignore[arg-type]
                assert (got.status_code, got.json()) == (wanted.status_code, wanted.json()), (path, kind)


def test_head_is_answered_where_the_engine_does(door: Door) -> None:
    for path in ("/docker/_ping", "/docker/v1.41/_ping"):
        answer = door.client.head(path)
        assert answer.status_code == 200 and answer.headers["api-version"] and not answer.content
    assert door.client.head("/docker/info").status_code == 405


# names


@pytest.mark.variants(1)
def test_a_network_may_be_called_anything(door: Door, docker_client: docker.DockerClient) -> None:
    for name in NETWORKS:
        made = docker_client.api.create_network(name)["Id"]
        try:
            answer = door.client.send(_raw_request(door, "GET", f"/docker/networks/{quote(name, safe='')}"))
            assert (answer.status_code, answer.json().get("Id")) == (200, made), name
            gone = door.client.send(_raw_request(door, "DELETE", f"/docker/networks/{quote(name, safe='')}"))
            assert gone.status_code == 204, name
        finally:
            if any(network.id == made for network in docker_client.networks.list()):
                docker_client.api.remove_network(made)


@pytest.mark.parametrize(
    "name", ["..", ".", "a/../b", "a//b", "%2e%2e", "a%41", "a\nb", "a\x7f", "../containers/json"]
)
def test_a_name_that_means_something_else_does_not_pass(door: Door, name: str) -> None:
    path = f"/docker/networks/{quote(name, safe='').replace('.', '%2e')}"
    answer = door.client.send(_raw_request(door, "GET", path))
    assert answer.status_code in (400, 404) and _message(answer)


# numbers


@pytest.mark.parametrize(
    "cursor", ["9" * 5000, "-1", "+1", "1e3", "٣", "9" * 5000 + "-" + "9" * 5000, "-", "1-", "-1-1"]
)
def test_a_cursor_that_is_none_starts_anew(door: Door, cursor: str) -> None:
    headers = {"last-event-id": cursor.encode()}
    for path in ("/v1/events", "/v1/status/stream"):
        with door.client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200
    for path in (
        f"/v1/transfers/{'0' * 32}/{cursor[:6000].encode().hex()}",
        f"/v1/transfers/{'0' * 32}/{'9' * 5000}",
    ):
        assert door.client.get(path).status_code == 404


def test_a_number_has_bounds() -> None:
    assert [natural(text) for text in ("0", "007", str(HIGHEST))] == [0, 7, HIGHEST]
    for text in ("", "-1", "+1", " 1", "1_0", "٣", "1.0", str(HIGHEST + 1), "9" * 5000):
        assert natural(text) is None
    assert natural("0" * 5000 + "5", high=5) == 5 and natural("6", high=5) is None


# clients


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a `docker` that shows a writer's session."""
    (tmp_path / "config.json").write_text(json.dumps({"HttpHeaders": {"Authorization": f"Bearer {WRITE}"}}))
    yield {"DOCKER_CONFIG": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"}


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command")
def test_the_docker_command_works_and_shows_what_is_wrong(
    doors: dict[str, Door], home: dict[str, str]
) -> None:
    address = str(doors["loopback"].client.base_url).replace("http", "tcp").rstrip("/")

    def run(*words: str, **more: str) -> tuple[int, str]:
        done = subprocess.run(
            ["docker", "-H", f"{address}/docker", *words],
            env={**home, **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    assert run("inspect", BUSYBOX, "--format", "{{.Architecture}}")[0] == 0  # a container is asked for first
    assert run("network", "create", "a b")[0] == 0
    assert run("inspect", "a b", "--format", "{{.Name}}") == (0, "a b\n")
    assert run("network", "rm", "a b")[0] == 0
    code, text = run("inspect", "no such")
    assert code == 1 and "No such object" in text
    code, text = run("ps", DOCKER_CONFIG=f"{home['DOCKER_CONFIG']}/none")
    assert code != 0 and "a session is needed" in text


def test_docker_py_finds_its_own_exceptions(doors: dict[str, Door]) -> None:
    base = str(doors["loopback"].client.base_url).rstrip("/")
    made = docker.APIClient(base_url=f"{base}/docker", version="1.41")
    made.headers["Authorization"] = f"Bearer {WRITE}"
    for call, error in (
        (lambda: made.inspect_container("a b"), docker.errors.NotFound),
        (lambda: made.inspect_image("Not An Image"), docker.errors.ImageNotFound),
        (lambda: made.inspect_network("no net"), docker.errors.NotFound),
        (lambda: made.inspect_volume("no vol"), docker.errors.NotFound),
    ):
        with pytest.raises(error) as caught:
            call()
        assert caught.value.explanation
    made.headers["Authorization"] = f"Bearer {READ}"
    with pytest.raises(docker.errors.APIError) as refused:
        made.create_network("x")
    assert "may not do that" in str(refused.value)
    made.close()


@pytest.mark.long
def test_a_link_is_a_name_of_its_own(doors: dict[str, Door], docker_client: docker.DockerClient) -> None:
    """Names with a slash: `DELETE` with `link` takes the name off, and the container stays."""
    client, made = doors["loopback"].client, []
    try:
        made.append(docker_client.api.create_container(BUSYBOX, ["sleep", "100"], name="linked-db")["Id"])
        links = docker_client.api.create_host_config(links={"linked-db": "db"})
        made.append(
            docker_client.api.create_container(
                BUSYBOX, ["sleep", "100"], name="linked-web", host_config=links
            )["Id"]
        )
        before = list(doors["loopback"].controller.agent.manual_actions)
        assert client.get("/docker/containers/linked-web/db/json").json()["Id"] == made[0]
        assert client.delete("/docker/containers/linked-web/db?link=1").status_code == 204
        assert doors["loopback"].controller.agent.manual_actions == before
        assert client.get("/docker/containers/linked-web/db/json").status_code == 404
        assert client.get("/docker/containers/linked-db/json").status_code == 200
        assert client.delete("/docker/containers/linked-web/nope?link=1").status_code in (404, 500)
    finally:
        for container in made:
            docker_client.api.remove_container(container, force=True)


def test_a_comment_has_lines(door: Door, docker_client: docker.DockerClient, containers: Containers) -> None:
    made = containers.run("sleep 60")
    comment = "one\r\nX: two\n\tthree"
    answer = door.client.post(
        "/docker/commit", params={"container": made, "repo": "lines", "comment": comment}
    )
    try:
        assert answer.status_code == 201, answer.text
        assert docker_client.api.inspect_image("lines")["Comment"] == comment
    finally:
        docker_client.images.remove("lines", force=True)
