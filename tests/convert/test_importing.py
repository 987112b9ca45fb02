# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports are committed into /etc/config/containers, with their files; exports read it. By each door."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.api.port import import_request_of
from agent.api.problems import RequestError
from agent.convert.requests import ImportRequest
from agent.errors import ConfigError, PathError
from agent.files.uci_store import TextUciStore
from agent.runtime.requests.adopt import Importer
from tests.support.controller import Controller, serving
from tests.support.hanging import HangingMount

COMPOSE = """
services:
  web: {image: nginx, secrets: [token], restart: always}
secrets: {token: {environment: TOKEN}}
"""


@pytest.fixture
def importer(tmp_path: Path) -> Importer:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "containers").write_text("config container 'old'\n\toption image 'x'\n")
    return Importer(store=TextUciStore(config_dir=folder, override_dir=tmp_path / "none"), files=tmp_path)


def config(importer: Importer) -> str:
    return importer.store.source_path("containers").read_text()


@pytest.mark.parametrize(
    "request_",
    [
        ImportRequest(run="docker network create shop; docker run --network shop --ip 10.77.0.9 nginx"),
        ImportRequest(
            compose="services: {nginx: {image: nginx, networks: {n: {ipv4_address: 10.77.0.9}}}}\n"
            "networks: {n: {external: true, name: shop}}"
        ),
    ],
    ids=["run", "compose"],
)
def test_a_network_that_has_a_section_is_used(importer: Importer, request_: ImportRequest) -> None:
    path = importer.store.source_path("containers")
    path.write_text("config network 'front'\n\toption name 'shop'\n\tlist subnet '10.77.0.0/24'\n")
    answer = importer.run(request_)
    (section,) = answer["sections"]
    (network,) = section["options"]["network"]
    assert network.startswith("front,") and "ip=10.77.0.9" in network


def test_an_address_without_a_subnet_is_left_out_and_the_network_stays(importer: Importer) -> None:
    answer = importer.run(ImportRequest(run="docker run --network pub --ip 10.1.1.1 --network-alias x nginx"))
    assert answer["sections"][1]["options"]["network"] == ["pub,alias=x"]
    assert "give network pub its `list subnet`" in json.dumps(answer["report"])


def test_a_preview_writes_nothing(importer: Importer) -> None:
    before = config(importer)
    answer = importer.run(ImportRequest(run="docker run nginx"))
    assert answer["committed"] is False
    assert "config container 'nginx'" in answer["text"]
    assert config(importer) == before


def test_a_commit_adds_the_sections_to_those_that_are_there(importer: Importer) -> None:
    importer.run(ImportRequest(run="docker run nginx", commit=True))
    importer.run(ImportRequest(run="docker run nginx", commit=True))
    names = [section.name for section in importer.store.load("containers").sections]
    assert names == ["old", "nginx", "nginx2"]


def test_files_are_written_for_root_alone_and_never_over_others(importer: Importer, tmp_path: Path) -> None:
    request = ImportRequest(compose=COMPOSE, project="shop", env="TOKEN=S3CRET-1", commit=True)
    importer.run(request)
    path = tmp_path / "etc/ucidockd/files/shop/token"
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("S3CRET-1", 0o600)
    other = ImportRequest(compose=COMPOSE, project="shop", env="TOKEN=S3CRET-2", commit=True)
    before = config(importer)
    with pytest.raises(ConfigError, match="exists already with other content"):
        importer.run(other)
    assert (path.read_text(), config(importer)) == ("S3CRET-1", before)


@pytest.mark.parametrize(
    "kind",
    [
        *("fifo", "/dev/zero", "folder", "loop", "outside", "large", "fifo above", "file above"),
        pytest.param("hanging", marks=pytest.mark.long),
    ],
)
def test_what_is_no_file_in_a_files_place_is_said(importer: Importer, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "etc/ucidockd/files/shop/token"
    place = path.parent if kind.endswith(" above") else path
    place.parent.mkdir(parents=True)
    before = config(importer)
    with ExitStack() as stack:
        match kind.split()[0]:
            case "fifo":
                os.mkfifo(place)
            case "file":
                place.touch()
            case "folder":
                path.mkdir()
            case "large":
                with path.open("wb") as file:
                    file.truncate(1 << 30)
            case "hanging":
                stack.enter_context(HangingMount(path.parent))
            case "outside":
                path.symlink_to(tmp_path / "elsewhere")
            case _:
                path.symlink_to(path.name if kind == "loop" else kind)
        with pytest.raises((ConfigError, PathError), match="shop"):
            importer.run(ImportRequest(compose=COMPOSE, project="shop", env="TOKEN=S3CRET-1", commit=True))
    assert config(importer) == before and not (tmp_path / "elsewhere").exists()


def test_comments_that_a_commit_costs_are_said(importer: Importer) -> None:
    path = importer.store.source_path("containers")
    path.write_text("# mine\n" + path.read_text())
    answer = importer.run(ImportRequest(run="docker run nginx", commit=True))
    assert any("comments" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"run": "x", "comit": True}, "'comit'; use `"),
        ({"run": "x", "commit": 1}, "`commit`: expected true or false"),
        ({"run": 5}, "`run`: expected a text"),
        ({"compose": "x", "profiles": "a"}, "`profiles`: expected a list of names"),
        ({"compose": "x" * (1024 * 1024 + 1)}, "`compose`: expected a text of at most"),
    ],
)
def test_a_request_that_is_wrong_is_refused_in_words(body: dict[str, Any], part: str) -> None:
    with pytest.raises(RequestError, match=part):
        import_request_of(body)


@pytest.mark.parametrize(
    "request_", [ImportRequest(), ImportRequest(run="docker run x", compose="services: {}")]
)
def test_one_of_both_is_asked_for(importer: Importer, request_: ImportRequest) -> None:
    with pytest.raises(ConfigError, match="either a docker run line or a compose file"):
        importer.run(request_)


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    folder: Path = tmp_path_factory.mktemp("import")
    with serving(folder, f"unix://{folder}/no-engine") as made:
        yield made


def test_routes_ask_the_agent(controller: Controller) -> None:
    body = {"compose": "services: {}", "profiles": ["a"], "folder": "/srv"}
    answer = controller.client.post("/v1/import", json=body).json()
    assert (answer["compose"], answer["profiles"], answer["commit"]) == ("services: {}", ["a"], False)
    exported = controller.client.get("/v1/export?format=compose&names=a,b").json()
    assert exported == {"text": "compose a b"}


# the command line, which needs no agent


def ucidockd(folder: Path, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent", *words[:2], "--config-dir", str(folder), *words[2:]]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_line_imports_and_exports(tmp_path: Path) -> None:
    (tmp_path / "containers").touch()
    line = (
        "docker",
        "run",
        "-d",
        "--name",
        "web",
        "-v",
        "/srv:/srv:ro",
        "-e",
        "A=$x",
        "nginx",
        "-g",
        "daemon off;",
    )
    shown = ucidockd(tmp_path, "import", "run", "--", *line)
    assert shown.returncode == 0
    assert "list env 'A=$x'" in shown.stdout
    assert "left out: --detach: " in shown.stderr
    assert "--commit writes it" in shown.stderr
    assert (tmp_path / "containers").read_text() == ""
    assert (
        ucidockd(tmp_path, "import", "run", "--commit", text="docker run --name db mariadb\n").returncode == 0
    )
    # behind a line in quotes too
    behind = ucidockd(tmp_path, "import", "run", "docker run --name last redis", "--commit")
    assert "Written: container last." in behind.stderr
    (tmp_path / "compose.json").write_text(json.dumps({"services": {"app": {"image": "app:${TAG}"}}}))
    (tmp_path / ".env").write_text("TAG=7\n")
    compose = ucidockd(
        tmp_path, "import", "compose", str(tmp_path / "compose.json"), "--project", "shop", "--commit"
    )
    assert "Written: container app." in compose.stderr
    assert ucidockd(tmp_path, "export", "run", "db").stdout == (
        "docker run -d --name db \\\n  --restart no \\\n  mariadb\n"
    )
    assert 'image: "app:7"' in ucidockd(tmp_path, "export", "compose", "app").stdout


def test_the_command_line_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "containers").touch()
    for words, part in (
        (("import", "compose", str(tmp_path / "none.yml")), "none.yml"),
        (("export", "run", "nobody"), "nobody: no container section has it"),
        (("export", "compose"), "no container is declared"),
    ):
        done = ucidockd(tmp_path, *words)
        assert done.returncode == 1
        assert part in done.stderr
        assert "Traceback" not in done.stderr
