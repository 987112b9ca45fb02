# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: export, archives of files, image save. Bodies flow; nothing of them is held or spooled."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from agent.api.archives import open_download, put_archive
from agent.api.http.replies import STALL_S, EngineReply, Inbox, attachment
from agent.api.names import checked_image, container_id, picked
from agent.api.problems import RequestError
from agent.api.rules import Rule, get, put, write
from agent.engine.stream import DockerStream


class FileRoutes:
    """Files out of the engine and into containers. A client that takes nothing for `stall_s` is dropped."""

    def __init__(self, engine: DockerStream, *, stall_s: float = STALL_S) -> None:
        self._engine = engine
        self._stall_s = stall_s

    def rules(self) -> list[Rule]:
        container = "docker.container"
        return [
            get(
                "/v1/containers/{id}/export",
                write(container, "export"),
                self.export,
                "A container's file system as tar",
            ),
            get(
                "/v1/containers/{id}/archive",
                write(container, "get_archive"),
                self.get_archive,
                "A file or directory of a container as tar",
                query={"path": "A path in the container"},
            ),
            put(
                "/v1/containers/{id}/archive",
                write(container, "put_archive"),
                self.put_archive,
                "Unpacks a plain tar into a directory of a container",
                query={
                    "path": "A directory in the container",
                    "noOverwriteDirNonDir": "1: no file takes a directory's place, nor the other way",
                    "copyUIDGID": "1: keep owners",
                },
                status=204,
                answer="It is unpacked",
            ),
            get(
                "/v1/images/get",
                write("docker.image", "get"),
                self.get_images,
                "Images as `docker save` makes them",
                query={"names": "An image; may stand several times"},
            ),
        ]

    async def export(self, request: Request) -> Response:
        name = container_id(request)
        picked(request, ())
        return await self._download(f"/containers/{name}/export", [], f"{name[:12]}_export.tar")

    async def get_archive(self, request: Request) -> Response:
        name = container_id(request)
        query = picked(request, ("path",))
        if not request.query_params.get("path"):
            raise RequestError("query path: expected a path in the container")
        return await self._download(f"/containers/{name}/archive", query, f"{name[:12]}_archive.tar")

    async def get_images(self, request: Request) -> Response:
        query = picked(request, ("names",))
        names = [checked_image(value) for _, value in query]
        if not names:
            raise RequestError("query names: expected at least one image")
        label = names[0].replace("/", "_") if len(names) == 1 else "images"
        return await self._download("/images/get", query, f"{label}.tar")

    async def put_archive(self, request: Request) -> Response:
        name = container_id(request)
        query = picked(request, ("path", "noOverwriteDirNonDir", "copyUIDGID"))
        if not request.query_params.get("path"):
            raise RequestError("query path: expected a directory in the container")
        inbox = Inbox(request)
        await put_archive(self._engine, name, query, inbox, length=inbox.length or None)
        return Response(status_code=204)

    async def _download(self, path: str, query: list[tuple[str, str]], name: str) -> Response:
        response = await open_download(self._engine, path, query)
        headers = attachment(name)
        if response.length is not None:
            headers["content-length"] = str(response.length)
        if stat := response.headers.get("x-docker-container-path-stat", ""):
            headers["x-docker-container-path-stat"] = stat[:65536]
        return EngineReply(response, headers=headers, large=True, stall_s=self._stall_s)
