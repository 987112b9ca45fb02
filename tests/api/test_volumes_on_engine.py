# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of volumes over a real engine: down, up, browsed, replaced; and that nothing is left of how that is done."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import docker
import httpx
import pytest

from agent.data.backups import Restores
from agent.data.volumes import Volumes
from agent.engine.stream import DockerStream
from agent.errors import EngineUnreachableError
from tests.api.conftest import Containers
from tests.support.agent_process import wait_for
from tests.support.controller import Controller, LoopThread, QuietAgent
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.fault_proxy import Fault, FaultProxy

pytestmark = pytest.mark.long

MIB = 1024 * 1024


@pytest.fixture
def volume(docker_client: docker.DockerClient) -> Iterator[str]:
    made = docker_client.volumes.create("db")
    yield "db"
    made.remove(force=True)


@pytest.fixture
def shell(docker_client: docker.DockerClient) -> Callable[[str], str]:
    """Runs a command on the volume `db` at /v."""

    def run(command: str) -> str:
        words = ["sh", "-c", command]
        mounts = {"db": {"bind": "/v", "mode": "rw"}}
        out = docker_client.containers.run(BUSYBOX, words, volumes=mounts, network_mode="none", remove=True)
        return str(out.decode())

    return run


@pytest.fixture(autouse=True)
def nothing_left(docker_client: docker.DockerClient) -> Iterator[None]:
    def seen() -> tuple[set[str], set[str], set[str]]:
        api = docker_client.api
        containers = {c["Id"] for c in api.containers(all=True)}
        return (
            containers,
            {i["Id"] for i in api.images(all=True)},
            {v["Name"] for v in api.volumes()["Volumes"] or ()},
        )

    before = seen()
    yield
    after = seen()
    assert after[:2] == before[:2]
    assert after[2] <= before[2] | {"db", "copy"}


def tar(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        root = tarfile.TarInfo("./")
        root.type, root.mode, root.uid, root.gid = tarfile.DIRTYPE, 0o700, 999, 998
        made.addfile(root)
        for name, data in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def volumes_of(host: str, folder: Path, *, instance: str = "i") -> Volumes:
    return Volumes(
        DockerStream(host),
        QuietAgent(),
        instance=lambda: instance,
        journal=folder / "j",
        filling=folder / "f",
    )


def names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        return sorted(os.path.normpath(member.name) for member in found)


def test_a_volume_goes_out_and_comes_back_as_it_was(
    controller: Controller, volume: str, shell: Callable[[str], str]
) -> None:
    shell(
        "cd /v && mkdir -m 750 d && echo hello >d/f && ln -s d/f l && ln d/f h && mkfifo p && chmod 640 d/f"
        " && chown -R 7:8 d && touch -d '2020-02-03 04:05:06' d/f && chown 33:44 /v && chmod 2711 /v"
    )
    listing = "cd /v && stat -c '%n %F %a %u:%g %s %h' . d d/f h p && readlink l && cat d/f"
    before = shell(listing)
    archive = controller.client.get("/v1/volumes/db/archive").content
    assert names(archive) == [".", "d", "d/f", "h", "l", "p"]
    shell("rm -rf /v/* && chmod 777 /v && chown 0:0 /v && echo x >/v/other")
    answer = controller.client.put("/v1/volumes/db/archive?replace=1", content=archive)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"members": 6}
    assert shell(listing) == before
    assert shell("ls /v") == "d\nh\nl\np\n"


def test_a_folder_of_a_volume_is_browsed(
    controller: Controller, volume: str, shell: Callable[[str], str]
) -> None:
    shell(
        "cd /v && mkdir -p a/b && echo 12345 >a/f && ln -s /etc/passwd a/l && echo x >a/b/deep && ln -s / root"
    )
    answer = controller.client.get("/v1/volumes/db/list", params={"path": "/a/"}).json()
    assert [(e["name"], e["kind"], e["size"], e["link"]) for e in answer["entries"]] == [
        ("b", "folder", 0, ""),
        ("f", "file", 6, ""),
        ("l", "link", 0, "/etc/passwd"),
    ]
    assert answer["path"] == "a"
    assert not answer["more"]
    top = controller.client.get("/v1/volumes/db/list").json()
    assert [e["name"] for e in top["entries"]] == ["a", "root"]
    for wrong in ("a/f", "root", "root/etc", "../x", "nothing"):
        found = controller.client.get("/v1/volumes/db/list", params={"path": wrong})
        assert found.status_code == 422, (wrong, found.text)
    assert controller.client.get("/v1/volumes/none/list").status_code == 404


def test_where_its_folder_cannot_be_read_the_archive_tells(
    engine: PrivateDockerd, controller: Controller, volume: str, shell: Callable[[str], str]
) -> None:
    shell("cd /v && mkdir -p a/b && echo 12345 >a/f && echo x >a/b/deep && ln -s f a/l")
    told = controller.client.get("/v1/volumes/db/list", params={"path": "a"}).json()
    thread = LoopThread()
    volumes = volumes_of(engine.host, controller.path.parent, instance="")
    volumes._here = False
    assert thread.run(volumes.list("db", "a")).as_json() == told
    assert [e["name"] for e in thread.run(volumes.list("db")).as_json()["entries"]] == ["a"]
    thread.close()


def test_cleaning_up_starts_nothing_that_a_copy_of_now_has_stopped(
    engine: PrivateDockerd, controller: Controller, volume: str, containers: Containers
) -> None:
    made = containers.client.containers.get(
        containers.run("sleep 600", volumes={"db": {"bind": "/v", "mode": "rw"}}, stop_signal="SIGKILL")
    )
    volumes = volumes_of(engine.host, controller.path.parent)

    async def copy() -> None:
        async with volumes.stopped(["db"]):
            cleaning = asyncio.create_task(volumes.recover())
            await asyncio.wait({cleaning}, timeout=1)
            await asyncio.to_thread(made.reload)
            assert made.status == "exited"
        await cleaning
        await asyncio.to_thread(made.reload)
        assert made.status == "running"

    thread = LoopThread()
    thread.run(copy())
    thread.close()


def test_what_an_engine_that_went_away_does_not_start_starts_when_it_is_back(
    engine: PrivateDockerd,
    controller: Controller,
    volume: str,
    containers: Containers,
    shell: Callable[[str], str],
) -> None:
    """It is no failure of the new files, which are in place by then."""
    shell("echo old >/v/f")
    mounts = {"db": {"bind": "/v", "mode": "rw"}}
    made = containers.client.containers.get(
        containers.run("sleep 600", volumes=mounts, stop_signal="SIGKILL")
    )

    async def replace(volumes: Volumes) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield tar(f=b"new\n")

        assert await Restores(volumes).replace("db", body()) == 2
        assert volumes.left.is_set()

    thread, folder = LoopThread(), controller.path.parent
    with FaultProxy(folder / "proxy", engine.socket) as proxy:
        volumes = volumes_of(proxy.host, folder)
        proxy.reset(lambda call: Fault.LOST_REQUEST if call.path.endswith("/start") else None)
        thread.run(replace(volumes))
        made.reload()
        assert made.status == "exited"
        proxy.reset()
        thread.run(volumes.recover())
    made.reload()
    assert made.status == "running"
    assert shell("cat /v/f") == "new\n"
    assert not (folder / "j").exists()
    thread.close()
    containers.clean()


def test_what_was_made_though_its_answer_was_lost_goes_when_the_engine_is_back(
    engine: PrivateDockerd, controller: Controller, volume: str, docker_client: docker.DockerClient
) -> None:
    async def save(volumes: Volumes) -> None:
        with pytest.raises(EngineUnreachableError):
            await volumes.open("db")
        with pytest.raises(EngineUnreachableError):
            async with volumes.temporary("db"):
                pass
        assert volumes.left.is_set()

    def seen() -> int:
        return len(docker_client.api.containers(all=True)) + len(docker_client.volumes.list())

    thread, folder, before = LoopThread(), controller.path.parent, seen()
    with FaultProxy(folder / "lossy", engine.socket) as proxy:
        volumes = volumes_of(proxy.host, folder)
        lost = ("/containers/create", "/volumes/create")
        proxy.reset(lambda call: Fault.LOST_REPLY if any(each in call.path for each in lost) else None)
        thread.run(save(volumes))
        assert seen() == before + 2
        proxy.reset()
        thread.run(volumes.recover())
    thread.close()
    assert seen() == before


@pytest.mark.parametrize("lost", ["volume", "call"])
def test_a_new_volume_whose_archive_broke_off_goes_with_the_next_agent(
    engine: PrivateDockerd, controller: Controller, docker_client: docker.DockerClient, lost: str
) -> None:
    folder = controller.path.parent

    async def begin() -> None:
        async with volumes_of(engine.host, folder).new("copy"):
            os._exit(9)  # as after a kill: nothing of ours is cleaned up

    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    else:
        asyncio.run(begin())
    assert docker_client.volumes.get("copy")
    if lost == "volume":  # somebody removes it, and makes one of that name
        docker_client.volumes.get("copy").remove()
        docker_client.volumes.create("copy")
    thread = LoopThread()
    thread.run(volumes_of(engine.host, folder).recover())
    thread.close()
    left = [each.name for each in docker_client.volumes.list() if each.name == "copy"]
    assert left == (["copy"] if lost == "volume" else [])
    assert not (folder / "f").exists()
    for each in left:
        docker_client.volumes.get(each).remove()


def test_a_damaged_archive_costs_nothing(
    controller: Controller, docker_client: docker.DockerClient, volume: str, shell: Callable[[str], str]
) -> None:
    shell("echo precious >/v/data")
    whole = tar(new=os.urandom(3 * MIB), other=b"x")
    cut_at_a_member = whole[: 512 + 512 + 3 * MIB]
    flipped = whole[: 1024 + 3 * MIB] + b"\xff" * 512 + whole[1024 + 3 * MIB + 512 :]
    for damaged in (cut_at_a_member, whole[: 2 * MIB], flipped, b"nonsense" * 100, b""):
        answer = controller.client.put("/v1/volumes/db/archive?replace=1", content=damaged)
        assert answer.status_code == 422, answer.text
        assert shell("cat /v/*") == "precious\n"
        answer = controller.client.put("/v1/volumes/copy/archive?create=1", content=damaged)
        assert answer.status_code == 422, answer.text
    assert "copy" not in {v.name for v in docker_client.volumes.list()}
    answer = controller.client.put("/v1/volumes/copy/archive?create=1", content=whole)
    assert answer.json() == {"members": 3}
    assert controller.client.put("/v1/volumes/copy/archive?create=1", content=whole).status_code == 409
    docker_client.volumes.get("copy").remove()


def test_an_archive_in_chunks_goes_into_a_folder_over_what_is_there(
    controller: Controller, volume: str, shell: Callable[[str], str]
) -> None:
    shell("mkdir -m 711 /v/a && echo old >/v/a/f && echo kept >/v/a/g")
    archive = tar(f=b"new\n")
    pieces = (archive[at : at + 333] for at in range(0, len(archive), 333))
    answer = controller.client.put("/v1/volumes/db/archive?path=a", content=pieces)
    assert answer.status_code == 200, answer.text
    assert shell("cat /v/a/f /v/a/g; stat -c %a /v/a") == "new\nkept\n711\n"


def test_a_container_of_another_keeps_its_files(
    controller: Controller, volume: str, containers: Containers, shell: Callable[[str], str]
) -> None:
    controller.agent.managed = lambda ids: frozenset()  # type: ignore[method-assign]
    try:
        shell("echo old >/v/f")
        made = containers.run("sleep 600", volumes={"db": {"bind": "/v", "mode": "rw"}}, name="stranger")
        answer = controller.client.put("/v1/volumes/db/archive?replace=1", content=tar(f=b"new"))
        assert answer.status_code == 409
        assert "stranger" in answer.json()["message"]
        assert shell("cat /v/f") == "old\n"
        assert containers.client.containers.get(made).status == "running"
        containers.clean()
    finally:
        del controller.agent.managed


def test_a_container_that_does_not_start_with_the_new_files_gets_the_old_ones(
    controller: Controller, volume: str, containers: Containers, shell: Callable[[str], str]
) -> None:
    """The place of a bind mount is in the volume: without it the engine cannot start the container."""
    shell("mkdir /v/sub && echo old >/v/f")
    place = containers.client.api.inspect_volume("db")["Mountpoint"]
    bound = docker.types.Mount("/bound", f"{place}/sub", type="bind")  # the engine does not make its source
    made = containers.run("sleep 600", volumes=["db:/v"], mounts=[bound])
    answer = controller.client.put("/v1/volumes/db/archive?replace=1", content=tar(f=b"new"))
    assert answer.status_code == 422, answer.text
    assert "the old files are back" in answer.json()["message"]
    assert shell("cat /v/f") == "old\n"
    assert containers.client.containers.get(made).status == "running"
    containers.clean()


def test_a_volume_with_options_is_not_exchanged(
    controller: Controller, docker_client: docker.DockerClient
) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    made = docker_client.volumes.create("db", driver="local", driver_opts=options)
    try:
        answer = controller.client.put("/v1/volumes/db/archive?replace=1", content=tar(f=b"new"))
        assert answer.status_code == 422
        assert "use a new volume instead" in answer.json()["message"]
        assert controller.client.put("/v1/volumes/db/archive", content=tar(f=b"new")).status_code == 200
        assert names(controller.client.get("/v1/volumes/db/archive").content) == [
            "."
        ]  # unmounted: it was memory
    finally:
        made.remove()


def test_what_a_request_may_say(controller: Controller, volume: str) -> None:
    archive = tar(f=b"x")
    for query in ("replace=1&create=1", "replace=1&path=a", "what=1", "stop=maybe"):
        assert controller.client.put(f"/v1/volumes/db/archive?{query}", content=archive).status_code == 400
    assert controller.client.get("/v1/volumes/db/archive?path=../../etc").status_code == 422
    assert controller.client.get("/v1/volumes/db/archive?path=none").status_code == 404
    assert controller.client.get("/v1/volumes/none/archive").status_code == 404
    assert controller.client.put("/v1/volumes/none/archive", content=archive).status_code == 404
    assert "none" not in controller.client.get("/docker/volumes").text


def test_a_download_that_is_given_up_leaves_nothing(
    controller: Controller, volume: str, shell: Callable[[str], str]
) -> None:
    shell("head -c 30000000 /dev/zero >/v/big")
    with controller.client.stream("GET", "/v1/volumes/db/archive?stop=1") as response:
        next(response.iter_bytes())
    wait_for(lambda: controller.agent.manual_actions[-2:] == ["copy db", "copied"])


def test_an_upload_in_parts_replaces_a_volume(
    controller: Controller, volume: str, shell: Callable[[str], str]
) -> None:
    shell("echo old >/v/f")
    archive = tar(f=os.urandom(MIB))
    client = controller.client
    body = {"direction": "up", "target": "volume", "volume": "db", "replace": True}
    made = client.post("/v1/transfers", json=body).json()["transfer"]["id"]
    assert client.put(f"/v1/transfers/{made}/0", content=archive).status_code == 200
    wrong = client.post(f"/v1/transfers/{made}", json={"sha256": "0" * 64})
    assert wrong.status_code == 422
    assert shell("cat /v/f") == "old\n"
    made = client.post("/v1/transfers", json=body).json()["transfer"]["id"]
    client.put(f"/v1/transfers/{made}/0", content=archive)
    ended = client.post(f"/v1/transfers/{made}", json={"sha256": hashlib.sha256(archive).hexdigest()})
    assert ended.json()["transfer"]["state"] == "done", ended.text
    assert shell("wc -c </v/f") == f"{MIB}\n"
    for target, length in (("volume", None), ("volume_file", MIB)):
        body = {"direction": "down", "target": target, "volume": "db", "path": "f"}
        made = client.post("/v1/transfers", json=body).json()["transfer"]
        part: httpx.Response = client.get(f"/v1/transfers/{made['id']}/0?length=all")
        assert part.status_code == 200
        assert length is None or len(part.content) == length
        client.delete(f"/v1/transfers/{made['id']}")
