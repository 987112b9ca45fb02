# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: the files of volumes, and backups of them.

Archives are streamed like those of containers and need the same rights: a reader sees none.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from agent.api.archives import UploadTarget, archive_name
from agent.api.http.replies import STALL_S, EngineReply, Inbox, JsonReply, attachment, read_json
from agent.api.port import backup_names, restore_of
from agent.api.problems import container_id, flag, picked
from agent.api.rules import Rule, get, post, put, read, write
from agent.data.parts import Data


class VolumeRoutes:
    """Drops a client that reads nothing for `stall_s` seconds; containers that were stopped for it start again."""

    def __init__(self, data: Data, *, stall_s: float = STALL_S) -> None:
        self._data = data
        self._stall_s = stall_s

    def rules(self) -> list[Rule]:
        stop = "1: the managed containers that mount the volume are stopped meanwhile"
        return [
            get(
                "/v1/volumes/{id}/list",
                write("ucidockd", "volume_list"),
                self.list,
                "The entries of a folder of a volume",
                query={"path": "The folder; the volume's root if it is missing"},
            ),
            get(
                "/v1/volumes/{id}/archive",
                write("docker.container", "get_archive"),
                self.get,
                "A volume, or a file or folder of it, as tar",
                query={"path": "A file or folder; the whole volume if it is missing", "stop": stop},
            ),
            put(
                "/v1/volumes/{id}/archive",
                write("docker.container", "put_archive"),
                self.put,
                "Unpacks a plain tar into a volume: over its files, in place of them, or as a new volume",
                query={
                    "path": "A folder of the volume to unpack into; not with replace or create",
                    "stop": stop,
                    "replace": (
                        "1: the archive replaces all files once it has arrived completely; the managed"
                        " containers that mount the volume stop and start for that"
                    ),
                    "create": "1: the volume must not exist yet; it is removed again if the archive is damaged",
                },
                answer="Unpacked; `members`: the number of files, folders and links",
            ),
        ]

    async def list(self, request: Request) -> Response:
        picked(request, ("path",))
        path = request.query_params.get("path", "")
        return JsonReply((await self._data.volumes.list(container_id(request), path)).as_json())

    async def get(self, request: Request) -> Response:
        name = container_id(request)
        picked(request, ("path", "stop"))
        path = request.query_params.get("path", "")
        response = await self._data.volumes.open(name, path, stop=flag(request.query_params, "stop"))
        return EngineReply(
            response, headers=attachment(archive_name(name, path)), large=True, stall_s=self._stall_s
        )

    async def put(self, request: Request) -> Response:
        name = container_id(request)
        picked(request, ("path", "stop", "replace", "create"))
        query = request.query_params
        way = UploadTarget.of(
            query.get("path", ""), **{each: flag(query, each) for each in ("stop", "replace", "create")}
        )
        body = Inbox(request)
        return JsonReply({"members": await way.fill(self._data, name, body, body.length)})


class BackupRoutes:
    """Long work starts and is answered at once; `GET /v1/backups` shows its outcome."""

    def __init__(self, data: Data) -> None:
        self._backups = data.backups

    def rules(self) -> list[Rule]:
        return [
            get(
                "/v1/backups",
                read("ucidockd", "backup_list"),
                self.list_all,
                "The backup sections, how their last backups ended, and the work in progress",
            ),
            get(
                "/v1/backups/{id}",
                read("ucidockd", "backup_list"),
                self.archives,
                "The archives of a backup section in its folder, newest first",
            ),
            post(
                "/v1/backups",
                write("ucidockd", "backup_run"),
                self.run,
                "Starts backups now",
                body="json",
                status=202,
            ),
            post(
                "/v1/backups/{id}/restore",
                write("ucidockd", "backup_restore"),
                self.restore,
                "Starts to restore a volume from an archive: all of its files, or none",
                body="json",
                status=202,
            ),
        ]

    async def list_all(self, request: Request) -> Response:
        del request
        return JsonReply(self._backups.answer())

    async def archives(self, request: Request) -> Response:
        return JsonReply({"archives": await self._backups.archives(container_id(request))})

    async def run(self, request: Request) -> Response:
        self._backups.start(backup_names(await read_json(request)))
        return JsonReply(self._backups.answer(), status_code=202)

    async def restore(self, request: Request) -> Response:
        name = container_id(request)
        self._backups.start_restore(name, **restore_of(await read_json(request)))
        return JsonReply(self._backups.answer(), status_code=202)
