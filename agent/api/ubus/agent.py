# SPDX-License-Identifier: GPL-2.0-or-later
"""The object `ucidockd` on ubus: status, plan, reconcile, hotplug, streams, jobs, adoption, dockerd, and a
notification when the status changes.

Errors are answered as over HTTP: {"error": {"code", "message"}}.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from agent.api.jobs.job_specs import parse_job
from agent.api.jobs.jobs import Jobs
from agent.api.port import (
    LOAD_HOURS,
    STARTED,
    AgentPort,
    Sessions,
    backup_names,
    client_bundle,
    given_of,
    import_request_of,
    load_of,
    move_target_of,
    prune_request_of,
    restore_of,
    revert_of,
    rollback_of,
    start_move,
    update_names_of,
    validated,
)
from agent.api.problems import RequestError, body_of, checked_id, text
from agent.api.rules import read
from agent.api.streams.engine_streams import mapped
from agent.api.streams.logs import last_lines
from agent.api.streams.stream_sources import Args, OutputOnly, Source, StreamKind, json_item
from agent.data.parts import Data
from agent.engine.stream import DockerStream
from agent.errors import BusError, UcidockdError
from agent.model.dockerd.settings import DaemonAction
from agent.threads import tell
from agent.ubus.client import (
    ARRAY,
    BOOLEAN,
    INTEGER,
    SESSION,
    STRING,
    TABLE,
    Arguments,
    BusObject,
    Handler,
    Method,
    Reply,
    UbusClient,
)
from agent.wire.ubus_message import Status

logger = logging.getLogger(__name__)

NAME = "ucidockd"
ANSWER_S = 15.0  # a reconcile is answered by then, even if work is still in progress
# plus the session's id: where rpcd keeps the changes that LuCI staged (rpcd: uci.c)
_RPCD_SAVE_DIR = "/var/run/rpcd/uci-"
FIRST_S = 0.1  # a burst of changes becomes one notification
NEXT_S = 1.0  # uhttpd buffers all that a browser does not read, so notifications must be few and small


def guarded(sessions: Sessions, name: str, method: str, handler: Handler) -> Handler:
    """Wraps a handler: a call with a session needs the right for this method; a call without one comes from root."""

    async def handle(args: Arguments) -> Reply | None:
        session = args.get(SESSION)
        # uhttpd and rpcd have checked already, but another process on ubus may pass any session
        if session is not None and not await sessions.allowed(session, name, method):
            raise BusError("the session may not do that", status=Status.PERMISSION_DENIED)
        return await handler(args)

    return handle


def explaining(handler: Handler) -> Handler:
    """Wraps a handler: our own errors become an answer that says what is wrong; errors of the bus stay a status."""

    async def handle(args: Arguments) -> Reply | None:
        try:
            return await handler(args)
        # callers that use libubus look at the status
        except BusError:
            raise
        except UcidockdError as exc:
            return body_of(exc)

    return handle


def _body(args: Arguments) -> dict[str, Any]:
    """The arguments as a request body would have them, without the session that rpcd adds."""
    return {name: value for name, value in args.items() if name != SESSION}


class _InTime:
    """Answers in time: longer work continues, and the status shows its outcome.

    A client over HTTP waits as long as the work takes; callers on ubus, LuCI included, give up after 20 to 30 s.
    """

    def __init__(self) -> None:
        # asyncio keeps only weak references to tasks: without this set a task might be garbage-collected while it runs
        self._unfinished: set[asyncio.Task[dict[str, Any]]] = set()

    async def soon(self, work: Coroutine[Any, Any, dict[str, Any]], name: str) -> dict[str, Any] | None:
        """The answer, or None if the work takes longer."""
        task = asyncio.create_task(work, name=name)
        done, _ = await asyncio.wait({task}, timeout=ANSWER_S)
        if done:
            return task.result()
        self._unfinished.add(task)
        task.add_done_callback(self._ended)
        return None

    def _ended(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            logger.warning("%s: %s", task.get_name(), exc)


class AgentMethods:
    """`hotplug(subsystem, variables)` gets what a hotplug script sends; it is only a hint to look again."""

    def __init__(self, agent: AgentPort, hotplug: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._agent = agent
        self._hotplug = hotplug
        self._soon = _InTime().soon

    def methods(self) -> dict[str, Method]:
        """The methods to publish."""
        return {
            "status": Method(handler=self._status, args={"after": STRING, "limit": INTEGER}),
            "plan": Method(handler=_without_arguments(lambda: self._agent.plan())),
            "preview": Method(
                handler=self._preview,
                args={"packages": TABLE, "paths": TABLE, "sections": TABLE, "staged": BOOLEAN},
            ),
            "reconcile": Method(handler=self._reconcile),
            "load": Method(handler=self._load, args={"name": STRING, "hours": INTEGER}),
            "reach": Method(handler=_without_arguments(lambda: self._agent.reach())),
            "notify_test": Method(handler=self._notify_test, args={"name": STRING}),
            "prune": Method(
                handler=self._prune,
                args={"images": STRING, "older": STRING, "build_cache": BOOLEAN, "dry_run": BOOLEAN},
            ),
            "hotplug": Method(handler=self._on_hotplug, args={"subsystem": STRING, "env": TABLE}),
        }

    async def _status(self, args: Arguments) -> Reply:
        limit = args.get("limit")
        if limit is not None and limit < 1:
            raise RequestError("limit: expected a number of resources, at least 1")
        return self._agent.board.page(args.get("after", ""), limit or 0)

    async def _load(self, args: Arguments) -> Reply:
        name = text(args, "name")
        return await (
            load_of(self._agent, checked_id(name), args.get("hours", LOAD_HOURS))
            if name
            else self._agent.load()
        )

    async def _preview(self, args: Arguments) -> Reply:
        given = given_of(_body(args))
        if session := args.get(SESSION):  # the session was checked, so it can safely become part of a path
            given = replace(given, save_dir=f"{_RPCD_SAVE_DIR}{session}")
        return await self._agent.plan(given)

    async def _reconcile(self, args: Arguments) -> Reply:
        del args
        answer = await self._soon(self._agent.reconcile(), "reconcile")
        return answer or {**await self._agent.plan(), "operations": [], "failed": [], "under_way": True}

    async def _prune(self, args: Arguments) -> Reply:
        asked = prune_request_of(_body(args))
        return await self._soon(self._agent.prune(asked), "prune") or {"under_way": True}

    async def _notify_test(self, args: Arguments) -> Reply:
        answer = await self._soon(self._agent.notify_test(text(args, "name")), "notify_test")
        return answer or {
            "sent": False,
            "error": "no answer yet; the status shows the outcome",
            "under_way": True,
        }

    async def _on_hotplug(self, args: Arguments) -> Reply:
        self._hotplug(args.get("subsystem", ""), args.get("env", {}))
        return {}


def _without_arguments(answer: Callable[[], Awaitable[Reply]]) -> Handler:
    async def handle(args: Arguments) -> Reply:
        del args
        return await answer()

    return handle


def _for_section(answer: Callable[[str], Awaitable[Reply]]) -> Handler:
    async def handle(args: Arguments) -> Reply:
        return await answer(checked_id(text(args, "name")))

    return handle


def make_agent_object(sessions: Sessions, *groups: Mapping[str, Method]) -> BusObject:
    """The bus object with the methods of all groups, each behind its right."""
    methods = {
        name: Method(
            handler=guarded(sessions, NAME, name, explaining(method.handler)),
            args=method.args,
            oversize=method.oversize,
        )
        for group in groups
        for name, method in group.items()
    }
    return BusObject(name=NAME, methods=methods)


class StatusNotifier:
    """Sends the notification `status` {version, keys} when the board changes. It names the changed keys, not their
    contents.

    Changes are coalesced to at most one notification a second; without a subscriber none is sent.
    """

    def __init__(self, agent: AgentPort, bus: UbusClient, source: BusObject) -> None:
        self._board = agent.board
        self._bus = bus
        self._source = source
        self._changed = asyncio.Event()
        source.on_subscribed = lambda _: self._changed.set()

    async def run(self) -> None:
        """Runs until it is cancelled."""
        loop = asyncio.get_running_loop()

        def changed() -> None:  # called in the thread that changed the board
            tell(loop, self._changed.set)

        unsubscribe = self._board.subscribe(changed)
        sent = self._board.version
        try:
            while True:
                await self._changed.wait()
                await asyncio.sleep(FIRST_S)
                self._changed.clear()
                # without a subscriber ubusd would get a useless message for every change
                if self._source.subscribed and self._board.version != sent:
                    sent = await self._notify(sent)
                    await asyncio.sleep(NEXT_S - FIRST_S)
        finally:
            unsubscribe()

    async def _notify(self, sent: int) -> int:
        events = self._board.events_after(sent)
        version = self._board.version if events is None else int(events[-1]["id"])
        # past the ring the changed keys are not known: without keys, subscribers read everything
        keys = sorted({str(event["key"]) for event in events or () if "key" in event})
        try:
            await self._bus.notify(self._source, "status", {"version": version, "keys": keys})
        except BusError as exc:
            logger.debug("ubus: status: %s", exc)
        return version


# Jobs on ubus: the methods `job_*` and `validate` of the object `ucidockd`, and the stream that follows a job.


_TEXTS = (
    "kind", "image", "platform", "source", "remote", "dockerfile", "target", "networkmode", "what", "until",
)  # fmt: skip
_START = {
    **dict.fromkeys(_TEXTS, STRING),
    **dict.fromkeys(("nocache", "pull", "all"), BOOLEAN),
    **dict.fromkeys(("auth", "buildargs"), TABLE),
    "tags": ARRAY,
}


class JobMethods:
    """The same jobs as over HTTP, with the same arguments and answers."""

    def __init__(self, agent: AgentPort, jobs: Jobs) -> None:
        self._agent = agent
        self._jobs = jobs

    def methods(self) -> dict[str, Method]:
        """The methods to publish."""
        return {
            "job_start": Method(handler=self._start, args=_START),
            "job_status": Method(handler=self._status, args={"id": STRING}),
            "job_list": Method(handler=self._list),
            "job_cancel": Method(handler=self._cancel, args={"id": STRING}),
            "move_data": Method(handler=self._move, args={"target": STRING}),
            "move_data_check": Method(handler=self._look_at_move, args={"target": STRING}),
            "validate": Method(handler=self._validate, args={"packages": TABLE}),
        }

    async def _start(self, args: Arguments) -> Reply:
        asked = _body(args)
        return {"job": self._jobs.start(parse_job(asked, self._agent.auths())).as_json()}

    async def _status(self, args: Arguments) -> Reply:
        return {"job": self._jobs.get(text(args, "id")).as_json()}

    async def _list(self, args: Arguments) -> Reply:
        del args
        return {"jobs": [job.as_json() for job in self._jobs.all()]}

    async def _cancel(self, args: Arguments) -> Reply:
        return {"job": (await self._jobs.cancel(text(args, "id"))).as_json()}

    async def _move(self, args: Arguments) -> Reply:
        asked = _body(args)
        return start_move(self._agent, self._jobs, asked)

    async def _look_at_move(self, args: Arguments) -> Reply:
        asked = _body(args)
        return await self._agent.look_at_move(move_target_of(asked))

    async def _validate(self, args: Arguments) -> Reply:
        return await validated(self._agent, args.get("packages", {}))


def job_kinds(jobs: Jobs) -> dict[str, StreamKind]:
    """The stream of the job with the argument `id`: `message`, `gap`, and `job` in its newest state only."""

    def follow(args: Args) -> Source:
        if args.keys() != {"id"}:
            raise RequestError("expected the argument id, of a job")
        job = jobs.get(text(args, "id"))
        return OutputOnly(lambda: mapped(job.changes(), lambda change: json_item(change[0], change[1])))

    return {"job": StreamKind(grant=read("ucidockd", "job_status"), open=follow)}


def log_methods(agent: AgentPort, engine: DockerStream) -> dict[str, Method]:
    """`logs`: the newest lines of containers, merged by time, in one answer. Streams can follow logs; this
    method cannot.
    """

    async def logs(args: Arguments) -> Reply:
        return await last_lines(engine, agent.board, args)

    texts = dict.fromkeys(("since", "until", "tail", "grep"), STRING)
    return {"logs": Method(handler=logs, args={"containers": ARRAY, **texts})}


# Adoption on ubus: the methods `adopt`, `diff` and others of the object `ucidockd`, with the answers of the HTTP routes.


_IMPORT = {
    **dict.fromkeys(("run", "compose", "project", "folder", "env"), STRING),
    "profiles": ARRAY,
    "commit": BOOLEAN,
}


class AdoptionMethods:
    """The same answers as over HTTP."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    def methods(self) -> dict[str, Method]:
        """The methods to publish."""
        return {
            "adopt": Method(
                handler=self._adopt,
                args={"container": STRING, "section": STRING, "commit": BOOLEAN, "show_secrets": BOOLEAN},
            ),
            "import": Method(handler=self._import, args=_IMPORT),
            "export": Method(handler=self._export, args={"format": STRING, "names": ARRAY}),
            "describe": Method(
                handler=_for_section(lambda name: self._agent.describe(name)), args={"name": STRING}
            ),
            "diff": Method(handler=_for_section(lambda name: self._agent.diff(name)), args={"name": STRING}),
            "history": Method(
                handler=_for_section(lambda name: self._agent.history(name)), args={"name": STRING}
            ),
            "revert": Method(
                handler=self._revert, args={"name": STRING, "version": INTEGER, "commit": BOOLEAN}
            ),
        }

    async def _adopt(self, args: Arguments) -> Reply:
        return await self._agent.adopt(
            checked_id(text(args, "container")),
            section=text(args, "section"),
            commit=args.get("commit", False),
            show_secrets=args.get("show_secrets", False),
        )

    async def _import(self, args: Arguments) -> Reply:
        asked = _body(args)
        return await self._agent.import_text(import_request_of(asked))

    async def _export(self, args: Arguments) -> Reply:
        names = args.get("names", [])
        if not all(isinstance(name, str) for name in names):
            raise RequestError("`names`: expected a list of names")
        return {"text": self._agent.export_text(text(args, "format") or "run", names)}

    async def _revert(self, args: Arguments) -> Reply:
        number, commit = revert_of({n: v for n, v in args.items() if n not in (SESSION, "name")})
        return await self._agent.revert(checked_id(text(args, "name")), number, commit=commit)


# Files of volumes on ubus: only small answers. Archives use HTTP and transfers.


class DataMethods:
    """The same answers as over HTTP."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def methods(self) -> dict[str, Method]:
        """The methods to publish."""
        return {
            "volume_list": Method(handler=self._list, args={"name": STRING, "path": STRING}),
            "backup_list": Method(handler=self._backups, args={"name": STRING}),
            "backup_run": Method(handler=self._run, args={"names": ARRAY}),
            "backup_restore": Method(
                handler=self._restore,
                args={"name": STRING, "volume": STRING, "file": STRING, "into": STRING},
            ),
        }

    async def _backups(self, args: Arguments) -> Reply:
        if name := text(args, "name"):
            return {"archives": await self._data.backups.archives(name)}
        return self._data.backups.answer()

    async def _run(self, args: Arguments) -> Reply:
        self._data.backups.start(backup_names(_body(args)))
        return self._data.backups.answer()

    async def _restore(self, args: Arguments) -> Reply:
        asked = {name: value for name, value in args.items() if name not in (SESSION, "name")}
        self._data.backups.start_restore(text(args, "name"), **restore_of(asked))
        return self._data.backups.answer()

    async def _list(self, args: Arguments) -> Reply:
        found = await self._data.volumes.list(checked_id(text(args, "name")), text(args, "path"))
        return found.as_json()


class UpdateMethods:
    """The same answers as over HTTP, but an update check that outlasts its caller's patience is answered
    with `under_way`.
    """

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent
        self._soon = _InTime().soon

    def methods(self) -> dict[str, Method]:
        """The methods to publish."""
        return {
            "updates": Method(handler=_without_arguments(lambda: self._agent.updates())),
            "updates_check": Method(handler=self._check, args={"names": ARRAY}),
            "update": Method(handler=self._update, args={"names": ARRAY}),
            "rollback": Method(handler=self._rollback, args={"name": STRING, "with_data": BOOLEAN}),
        }

    async def _check(self, args: Arguments) -> Reply:
        answer = await self._soon(self._agent.check_updates(update_names_of(_body(args))), "update check")
        return answer or {**await self._agent.updates(), "under_way": True}

    async def _update(self, args: Arguments) -> Reply:
        names = update_names_of(_body(args))
        return await self._soon(self._agent.update(names), "update") or {"under_way": True}

    async def _rollback(self, args: Arguments) -> Reply:
        name, with_data = rollback_of(_body(args))
        return await self._soon(self._agent.rollback(name, with_data=with_data), "rollback") or {
            "under_way": True
        }


# Manual control of dockerd on ubus: start, stop, restart, and certificates for its clients, with the answers of the routes.


class DaemonMethods:
    """`dockerd_*` answer at once; the status shows the outcome under `daemon:dockerd`."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    def methods(self) -> dict[str, Method]:
        """The methods to publish."""
        return {
            **{f"dockerd_{wish}": Method(handler=self._wished(wish)) for wish in DaemonAction},
            "tls_client": Method(handler=self._client, args={"name": STRING, "days": INTEGER}),
        }

    def _wished(self, wish: DaemonAction) -> Handler:
        async def handle(args: Arguments) -> Reply:
            del args
            await self._agent.dockerd(wish)
            return STARTED

        return handle

    async def _client(self, args: Arguments) -> Reply:
        return await client_bundle(self._agent, args)
