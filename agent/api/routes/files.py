# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes: export, archives of files, image save, transfers, the files of volumes, and backups. Bodies are streamed; none
is held in memory or spooled. Archives of volumes need the same rights as those of containers: a reader sees none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import itemgetter

from starlette.requests import Request
from starlette.responses import Response

from agent.api.archives import Body, UploadTarget, archive_name, open_download, put_archive, single_file
from agent.api.http.replies import STALL_S, EngineReply, Inbox, JsonReply, StreamReply, attachment, read_json
from agent.api.jobs.job_specs import build_upload, load_spec
from agent.api.jobs.transfer import WINDOW, Download, Transfer
from agent.api.jobs.transfers import Transfers, Upload
from agent.api.port import backup_names, restore_of
from agent.api.problems import (
    RequestError,
    checked_id,
    checked_image,
    container_id,
    flag,
    number,
    picked,
    switch,
    text,
)
from agent.api.rules import Rule, delete, get, post, put, read, write
from agent.api.streams.engine_streams import mapped, primed
from agent.api.streams.logs import checked_containers, log_options, logs, merged, merged_text
from agent.data.parts import Data
from agent.engine.stream import DockerStream, EngineResponse
from agent.model.resources import RegistryAuth
from agent.status.board import StatusBoard
from agent.wire.http_head import natural


class FileRoutes:
    """Files out of the engine and into containers. A client that reads nothing for `stall_s` seconds is dropped."""

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
                    "noOverwriteDirNonDir": "1: never replace a directory by a file, or a file by a directory",
                    "copyUIDGID": "1: keep owners",
                },
                status=204,
                answer="Unpacked",
            ),
            get(
                "/v1/images/get",
                write("docker.image", "get"),
                self.get_images,
                "Images in the format of `docker save`",
                query={"names": "An image; may be repeated"},
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


# Routes: transfers, one file in several requests (see `jobs/transfers`).
#
# Upload: create it, PUT each part at its offset, POST the sha256 to end it. Download: create it, GET parts of some
# length until a complete one is shorter than requested; the status then has the sha256 to compare. A part that breaks
# off is repeated: an upload from the offset in the status, a download from the first missing byte.


_SIZE_LIMIT = 2**53 - 1  # JavaScript's largest exact integer
_WAIT_S = 15.0  # for the engine: well below the shortest time that a server in front of us gives a request
_TARGETS = {
    "up": "archive, load, build or volume",
    "down": "export, archive, file, logs, save, volume or volume_file",
}


class TransferRoutes:
    """`auths` returns UCI's registry logins; `board` finds containers by their section's name."""

    def __init__(
        self,
        transfers: Transfers,
        engine: DockerStream,
        auths: Callable[[], Sequence[RegistryAuth]],
        board: StatusBoard,
        data: Data,
    ) -> None:
        self._transfers = transfers
        self._data = data
        self._engine = engine
        self._auths = auths
        self._board = board

    def rules(self) -> list[Rule]:
        create, status = write("ucidockd", "job_start"), read("ucidockd", "job_status")
        return [
            post(
                "/v1/transfers",
                create,
                self.create,
                "Starts the transfer of a file in parts, into the engine (up) or out of it (down)",
                body="json",
                status=201,
            ),
            get("/v1/transfers", status, self.list_all, "The transfers, newest first"),
            get(
                "/v1/transfers/{id}",
                status,
                self.show,
                "A transfer: state, offset, size and sha256 once known",
            ),
            delete(
                "/v1/transfers/{id}",
                create,
                self.remove,
                "Ends and forgets a transfer",
                status=204,
                answer="Ended and forgotten",
            ),
            put(
                "/v1/transfers/{id}/{offset}",
                create,
                self.put_part,
                "Uploads a part; bytes that were received before are skipped",
                answer=(
                    "The part was received. 409 with the header x-transfer-offset if it is not the next one"
                ),
            ),
            get(
                "/v1/transfers/{id}/{offset}",
                create,
                self.get_part,
                "Downloads a part; the last 4 MiB can be requested again",
                query={
                    "length": "Bytes, 4194304 by default: such a part can be requested again; `all`: once, from 0"
                },
                answer="The part; a complete part that is shorter than requested is the last",
            ),
            post(
                "/v1/transfers/{id}",
                create,
                self.end,
                "The upload is complete: its sha256 is checked before the engine gets its end",
                body="json",
            ),
        ]

    async def create(self, request: Request) -> Response:
        body = await read_json(request)
        direction, target = text(body, "direction"), text(body, "target")
        if direction not in _TARGETS:
            raise RequestError("direction: expected up or down")
        # reserve the slot before calling the engine: a request that gets no slot is rejected at no cost
        with self._transfers.room():
            made = self._upload(target, body) if direction == "up" else await self._download(target, body)
        if made is None:
            raise RequestError(f"target: expected {_TARGETS[direction]}")
        made.target = target
        return _answer(made, status=201)

    async def list_all(self, request: Request) -> Response:
        del request
        return JsonReply({"transfers": [transfer.as_json() for transfer in self._transfers.all()]})

    async def show(self, request: Request) -> Response:
        found = self._found(request)
        # a client that asks for the progress has not given up
        found.on_touch()
        return _answer(found)

    async def remove(self, request: Request) -> Response:
        await self._transfers.remove(self._found(request).id)
        return Response(status_code=204)

    async def put_part(self, request: Request) -> Response:
        found = self._found(request)
        if not isinstance(found, Upload):
            raise _not_allowed("this is a download: use GET", "GET")
        picked(request, ())
        await found.take(_offset(request), aiter(Inbox(request)))
        return _answer(found)

    async def get_part(self, request: Request) -> Response:
        found = self._found(request)
        if not isinstance(found, Download):
            raise _not_allowed("this is an upload: use PUT", "PUT")
        picked(request, ("length",))
        offset, length = _offset(request), _length(request.query_params)
        # before the answer begins with status 200
        found.check(offset)
        if length is None and not offset:
            found.use_link()
        headers = {**attachment(found.title), "x-transfer-offset": str(offset)}
        # lets browsers show the progress of a download
        if length is None and found.total is not None:
            headers["content-length"] = str(found.total - offset)
        return StreamReply(found.part(offset, length), headers=headers)

    async def end(self, request: Request) -> Response:
        found = self._found(request)
        if not isinstance(found, Upload):
            raise _not_allowed("only an upload is ended by POST: use DELETE for a download", "GET, DELETE")
        body = await read_json(request)
        size = number(body, "size", low=0, high=_SIZE_LIMIT, default=0) if "size" in body else None
        await found.end(sha256=text(body, "sha256"), size=size)
        # a load may take minutes after its last byte: its client follows the job instead
        if found.job is None:
            await found.over(_WAIT_S)
        if found.error is not None:
            raise found.error
        return _answer(found)

    def _upload(self, target: str, body: Mapping[str, object]) -> Transfer | None:
        """None for an unknown target. What the target needs is checked where it is used."""
        # `match` instead of a table, because each target needs other parts of the body
        match target:
            case "archive":
                query = [("path", _path(body))]
                return self._transfers.upload_archive(checked_id(text(body, "container")), query)
            case "load":
                return self._transfers.upload_job(load_spec(), size=_size(body))
            case "build":
                options = body.get("options", {})
                if not isinstance(options, dict):
                    raise RequestError("options: expected an object, as a build job takes it")
                return self._transfers.upload_job(build_upload(options, self._auths()), size=_size(body))
            case "volume":
                path = text(body, "path") if "path" in body else ""
                way = UploadTarget.of(
                    path, **{each: switch(body, each) for each in ("stop", "replace", "create")}
                )
                return self._transfers.upload_volume(self._data, checked_id(text(body, "volume")), way)
        return None

    async def _download(self, target: str, body: Mapping[str, object]) -> Transfer | None:
        """Like `_upload`."""
        opening: Awaitable[EngineResponse | Body]
        match target:
            case "export":
                container = checked_id(text(body, "container"))
                return await self._down(f"{_called(body)}.tar", f"/containers/{container}/export", [])
            case "archive" | "file":
                container, path = checked_id(text(body, "container")), _path(body)
                source, query = f"/containers/{container}/archive", [("path", path)]
                if target == "archive":
                    title = f"{_called(body)}{path.rstrip('/').replace('/', '_')}.tar"
                    return await self._down(title, source, query)
                # the engine sends files only in archives: extract this one while it streams
                opening = single_file(open_download(self._engine, source, query))
                title = path.rstrip("/").rpartition("/")[2] or _called(body)
            case "volume":
                volume, path = checked_id(text(body, "volume")), text(body, "path") if "path" in body else ""
                title = archive_name(volume, path)
                opening = self._data.volumes.open(volume, path, stop=switch(body, "stop"))
            case "volume_file":
                volume, path = checked_id(text(body, "volume")), _path(body)
                opening = single_file(self._data.volumes.open(volume, path))
                title = path.rstrip("/").rpartition("/")[2]
            case "logs":
                return await self._logs_down(body)
            case "save":
                return await self._save(body)
            case _:
                return None
        return await self._transfers.download(title, opening, wait_s=_WAIT_S)

    async def _logs_down(self, body: Mapping[str, object]) -> Transfer:
        """Of one `container`, or of several `containers` merged by time; always with time stamps."""
        several = body.get("containers")
        names = checked_containers(several if isinstance(several, list) else [body.get("container")])
        wanted = ("since", "until", "tail", "grep")
        # a file has no other place for the times
        options = log_options({"timestamps": True} | {name: body[name] for name in wanted if name in body})

        # opened like an answer of the engine: an error that occurs at once becomes the answer to this request
        async def opened() -> Body:
            if several is None:
                return Body(
                    mapped(await primed(logs(self._engine, self._board, names[0], options)), itemgetter(1))
                )
            return Body(
                merged_text(await primed(merged(self._engine, self._board, names, options)), names, options)
            )

        title = _called(body) if several is None else "containers"
        return await self._transfers.download(f"{title}.log", opened(), wait_s=_WAIT_S)

    async def _save(self, body: Mapping[str, object]) -> Transfer:
        names = body.get("names")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise RequestError("names: expected a list of images")
        query = [("names", checked_image(name)) for name in names]
        # the file's name on the client, where a slash would separate folders
        title = names[0].replace("/", "_") if len(names) == 1 else "images"
        return await self._down(f"{title}.tar", "/images/get", query)

    async def _down(self, title: str, path: str, query: list[tuple[str, str]]) -> Transfer:
        opening = open_download(self._engine, path, query)
        return await self._transfers.download(title, opening, wait_s=_WAIT_S)

    def _found(self, request: Request) -> Transfer:
        """The transfer with the id in the path. LuCI's bridge for sessions that may only read sends the header
        `X-Transfer-Target`; then the transfer must have that target.
        """
        return self._transfers.get(
            str(request.path_params["id"]), target=request.headers.get("x-transfer-target")
        )


def _not_allowed(message: str, allowed: str) -> RequestError:
    return RequestError(message, status=405, headers={"allow": allowed})


def _answer(transfer: Transfer, *, status: int = 200) -> Response:
    return JsonReply({"transfer": transfer.as_json()}, status_code=status)


def _called(body: Mapping[str, object]) -> str:
    """The container's name in the download's file name: `name` if given, else the short id."""
    return (text(body, "name") if "name" in body else "") or text(body, "container")[:12]


def _path(body: Mapping[str, object]) -> str:
    path = text(body, "path")
    if not path:
        raise RequestError("path: expected a path in the container")
    return path


def _size(body: Mapping[str, object]) -> int:
    return number(body, "size", low=0, high=_SIZE_LIMIT, default=0)


def _offset(request: Request) -> int:
    return _natural("offset", str(request.path_params["offset"]))


def _length(query: Mapping[str, str]) -> int | None:
    """WINDOW by default, since a part of that length can be requested again as a whole. `all` means to the end."""
    asked = query.get("length", str(WINDOW))
    return None if asked == "all" else _natural("length", asked)


def _natural(name: str, digits: str) -> int:
    found = natural(digits, high=_SIZE_LIMIT)
    if found is None:
        raise RequestError(f"{name}: expected a whole number of bytes")
    return found


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
