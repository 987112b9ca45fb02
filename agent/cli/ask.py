# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a command gets its answer: from the running agent, from the engine, or without an agent from this process.

The connection to the agent uses only the standard library, so that `status` starts quickly.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from agent.cli.parser import ENGINE, FOLDERS, from_environment, runtime_options
from agent.errors import ConfigError, EngineError, EngineUnreachableError, UcidockdError, plain_words
from agent.unix_http import UnixConnection
from agent.wire.bodies import error_message

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from agent.model.addresses import EngineAddress
    from agent.runtime.one_shot import OneShot


_PIECE = 65536


class NoAgentError(UcidockdError):
    """No agent listens on the control socket."""

    code = "no-agent"


class AgentError(UcidockdError):
    """The agent, or the engine behind it, refused. `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def call(
    path: str,
    method: str,
    route: str,
    *,
    body: dict[str, Any] | None = None,
    timeout_s: float | None = None,
) -> Any:
    """Sends one request; returns the decoded JSON answer. Raises NoAgentError, UcidockdError with the agent's message."""
    data = None if body is None else json.dumps(body).encode()
    response = _open(path, method, route, data, timeout_s)
    return json.loads(response.read())


def whole_status(path: str, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """The status with all its pages. Returns `known`, an earlier status, if nothing has changed. Raises like `call`."""
    # one entry is enough to learn the version
    if known and call(path, "GET", "/v1/status?limit=1", timeout_s=10)["version"] == known["version"]:
        return known
    status: dict[str, Any] = call(path, "GET", "/v1/status", timeout_s=10)
    page = status
    while "next" in page:
        page = call(path, "GET", f"/v1/status?{urlencode({'after': page['next']})}", timeout_s=10)
        status["resources"] += page["resources"]
    status.pop("next", None)
    return status


def follow(path: str, route: str) -> Iterator[dict[str, Any]]:
    """The data of server-sent events, until the stream or the agent ends."""
    # no deadline: the next event may come in days
    response = _open(path, "GET", route, None, None)
    try:
        for line in response:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    except (OSError, http.client.HTTPException, ValueError):
        return  # a stream that breaks off is treated like one that ends


def stream(path: str, route: str) -> Iterator[bytes]:
    """An answer's body, streamed. Raises UcidockdError, also if the stream breaks off."""
    response = _open(path, "GET", route, None, None)
    try:
        while piece := response.read1(_PIECE):
            yield piece
    except (OSError, http.client.HTTPException) as exc:
        raise UcidockdError(f"the stream broke off: {plain_words(exc)}") from exc


def upload(path: str, route: str, pieces: Iterable[bytes]) -> Any:
    """PUTs a body, streamed; returns the decoded JSON answer. Raises like `call`."""
    connection = UnixConnection(path)
    headers = {"Transfer-Encoding": "chunked"}
    response = answer_of(connection, "PUT", route, (piece for piece in pieces if piece), headers, path)
    return json.loads(response.read())


def _open(
    path: str, method: str, route: str, data: bytes | None, timeout_s: float | None
) -> http.client.HTTPResponse:
    headers = {} if data is None else {"Content-Type": "application/json"}
    try:
        return answer_of(UnixConnection(path, timeout_s), method, route, data, headers, path)
    except TimeoutError as exc:
        raise UcidockdError(f"the agent on {path} does not answer within {timeout_s:g} s") from exc


def answer_of(
    connection: http.client.HTTPConnection,
    method: str,
    route: str,
    data: bytes | Iterable[bytes] | None,
    headers: Mapping[str, str],
    path: str,
) -> http.client.HTTPResponse:
    """The agent's answer, with its body still unread. Raises NoAgentError, TimeoutError, PermissionError, AgentError."""
    try:
        try:
            connection.request(
                method, route, body=data, headers=dict(headers), encode_chunked="Transfer-Encoding" in headers
            )
        except BrokenPipeError:
            if data is None or isinstance(data, bytes):
                raise
            # the agent stops reading a body that it refuses: its answer has the reason
        response = connection.getresponse()
        if response.status < 400:
            return response
        text = response.read()
    # before OSError, which is its base class: the caller knows the timeout and reports it
    except TimeoutError:
        raise
    except PermissionError as exc:
        raise PermissionError(exc.errno, exc.strerror, path) from exc
    except (OSError, http.client.HTTPException) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else ""
        raise NoAgentError(
            f"no agent answers on {path} ({reason or exc}); start it with `/etc/init.d/ucidockd start`,"
            " `systemctl start ucidockd` or `ucidockd run`"
        ) from exc
    raise AgentError(error_message(text, response.status, who="the agent"), response.status)


DEFAULT_SOCKET = "/var/run/ucidockd/agent.sock"


def agent_socket(args: argparse.Namespace) -> str:
    """The control socket: from the option, at the usual place, or from the agent section."""
    if args.socket:
        return str(args.socket)
    # the usual place first: reading the configuration takes longer than all the rest of `status`
    if not os.path.exists(DEFAULT_SOCKET):
        from agent.files.uci_store import TextUciStore

        options = runtime_options(args)
        store = TextUciStore(config_dir=options.config_dir, override_dir=options.override_dir)
        try:
            sections = store.load("containers").sections
        except UcidockdError:
            return DEFAULT_SOCKET  # `check` reports what is wrong with the configuration
        said = (section.get("socket") for section in sections if section.type == "agent")
        return next((str(option.value) for option in said if option is not None), DEFAULT_SOCKET)
    return DEFAULT_SOCKET


def ask_or_do(
    args: argparse.Namespace,
    request: tuple[str, str],
    alone: Callable[[OneShot], dict[str, Any]],
    body: dict[str, Any] | None = None,
    *,
    changes: bool = True,
) -> dict[str, Any]:
    """The running agent's answer; without an agent the result of `alone`. `changes` tells whether the request may
    change something.
    """
    if not args.no_agent:
        path = agent_socket(args)
        try:
            check_options(args)
            # the request itself may take as long as a pull: whether the agent answers at all is known at once
            call(path, "GET", "/v1/status?limit=1", timeout_s=10)
        except NoAgentError:
            pass
        else:
            try:
                answer: dict[str, Any] = call(path, *request, body=body)
            # the agent has the request, and keeps what it has noted: this process must not do the same beside it
            except NoAgentError as exc:
                raise UcidockdError(
                    f"the agent on {path} ended before it answered; it continues when it is started again, and"
                    " `ucidockd status` shows the result"
                ) from exc
            return answer
    import logging

    from agent.runtime.one_shot import OneShot

    logging.getLogger("agent").addHandler(logging.NullHandler())  # the answer contains its warnings
    answer = alone(OneShot(runtime_options(args)))
    if changes and any(entry["level"] == "waiting" for entry in answer.get("pending", ())):
        print("no agent is running: what is waiting needs another `ucidockd reconcile`", file=sys.stderr)
    return answer


def check_options(args: argparse.Namespace) -> None:
    """Raises ConfigError if the options name other folders or another engine than the running agent has."""
    asked = {
        name: (f"--{name.replace('_', '-')}", str(value))
        for name in (*FOLDERS, *ENGINE)
        if (value := getattr(args, name, None)) is not None
    }
    for name, variable in ENGINE.items():
        # `status` shows what the agent knows, which does not depend on the engine that docker's commands use
        counts = hasattr(args, name) and args.command != "status"
        if name not in asked and counts and (value := from_environment(variable)):
            asked[name] = (variable, value)
    if not asked:
        return
    agent = call(agent_socket(args), "GET", "/v1/status?limit=1", timeout_s=10)["agent"]
    for name, (option, wanted) in asked.items():
        has = agent.get("options", {}).get(name.replace("_", "-"), "")
        if _real(name, wanted) == _real(name, has) or (option == "DOCKER_CERT_PATH" and not has):
            continue  # with a unix socket docker ignores its folder of certificates
        alone = f"; `ucidockd {args.command} --no-agent` asks no agent" if hasattr(args, "no_agent") else ""
        leave = "leave the option out" if option.startswith("--") else f"`unset {option}`"
        raise ConfigError(
            f"the agent on {agent_socket(args)} runs with --{name.replace('_', '-')} {has}, not {wanted}"
            f"{'' if option.startswith('--') else f' ({option})'}: {leave}, or name another agent's --socket{alone}"
        )


def _real(name: str, value: str) -> str:
    if name in FOLDERS or name == "docker_cert_path":
        return os.path.realpath(value)
    if value.startswith("unix://"):
        return os.path.realpath(value.removeprefix("unix://"))
    return value


# the engine, through the agent or without one


class EngineApi:
    """The Engine API: through the agent, which then learns of manual actions, or directly at the engine's address.

    Paths have no version, so the engine uses its newest API. Raises UcidockdError for every status from 400 on.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self.status: dict[str, Any] | None = None  # the running agent's status, None without an agent
        self._socket = agent_socket(args)
        self.refresh_status()

    def refresh_status(self) -> None:
        """Reads the status again; an agent may have started, ended or been replaced since the last time."""
        if getattr(self._args, "no_agent", False):
            return
        try:
            check_options(self._args)
            self.status = whole_status(self._socket, self.status)
        except NoAgentError:
            self.status = None

    def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        direct: bool = False,
    ) -> http.client.HTTPResponse:
        """Sends a request; the answer's body is still unread. `direct` bypasses the agent."""
        route = path + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        given = {**({"Content-Type": "application/json"} if data is not None else {}), **(headers or {})}
        # through the agent, which has to learn of a manual action: otherwise the next pass would undo it
        if self.status is not None and not direct:
            return answer_of(
                UnixConnection(self._socket), method, f"/docker{route}", data, given, self._socket
            )
        connection = self.connection()
        try:
            connection.request(method, route, body=data, headers=given)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as exc:
            raise self.away(exc) from exc
        if response.status >= 400:
            raise EngineError(
                error_message(response.read(), response.status, who="the engine"), status=response.status
            )
        return response

    def of_agent(self, path: str, query: Mapping[str, str]) -> http.client.HTTPResponse:
        """The answer of one of the running agent's own routes, with its body still unread."""
        route = f"{path}?{urlencode(query)}"
        return answer_of(UnixConnection(self._socket), "GET", route, None, {}, self._socket)

    def call(self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None) -> Any:
        """The decoded answer, None if it has no body."""
        text = self.open(method, path, query, body).read()
        return json.loads(text) if text else None

    def connection(self) -> http.client.HTTPConnection:
        """A new connection to the engine itself, not connected yet."""
        address, certificates = self._address()
        if address.path:
            return UnixConnection(address.path)
        if certificates:
            from agent.engine.transport import EngineTls

            return http.client.HTTPSConnection(
                address.host, address.port, context=EngineTls(certificates).context()
            )
        return http.client.HTTPConnection(address.host, address.port)

    def away(self, exc: Exception) -> EngineUnreachableError:
        """The error for a failed connection, with what to do about it."""
        where = str(self._address()[0])
        if isinstance(exc, PermissionError):
            return EngineUnreachableError(
                f"permission denied on {where}: run it as root (sudo ucidockd {self._args.command})"
            )
        if isinstance(exc, (FileNotFoundError, ConnectionRefusedError)):
            return EngineUnreachableError(
                f"no Docker engine at {where}; start it with `/etc/init.d/dockerd start` or `systemctl start docker`"
            )
        return EngineUnreachableError(f"the engine at {where} does not answer: {plain_words(exc)}")

    def _address(self) -> tuple[EngineAddress, str]:
        from agent.model.addresses import parse_engine_address

        # a running agent's options count: they may differ from those in the files
        if self.status is not None:
            said = self.status["agent"]["options"]
            return parse_engine_address(said["docker-host"]), said["docker-cert-path"]
        options = runtime_options(self._args)
        from agent.files.config import load

        loaded = load(options)
        settings = (loaded.desired or loaded.readable).agent
        return options.engine_address(settings), options.certificates_of_engine(settings)


class ContainerTarget(NamedTuple):
    """The container that a name on the command line stands for. `section` is "" for a container that is not declared."""

    asked: str
    section: str
    name: str  # the Docker name
    ref: str  # its id if known, else its name; "" while it is not created
    resource: dict[str, Any]  # its entry in the status, {} without an agent


def targets(engine: EngineApi, args: argparse.Namespace, names: Sequence[str]) -> list[ContainerTarget]:
    """The containers with these names. Sections come before Docker names; any other name is looked up on the engine."""
    shown = engine.status["resources"] if engine.status is not None else []
    declared = [
        ContainerTarget("", r["section"], r["name"], r["object_id"], r)
        for r in shown
        if r["kind"] == "container"
    ]
    if engine.status is None or not engine.status["agent"].get("engine"):
        # during its first pass the agent may not know all sections yet
        there = {target.section for target in declared}
        declared += [
            ContainerTarget("", section, name, name, {})
            for section, name in container_sections(args).items()
            if section not in there
        ]
    found = []
    for asked in names:
        # sections first: a Docker name may equal the name of another section
        by_section = next((t for t in declared if t.section == asked), None)
        by_name = next((t for t in declared if t.name == asked), None)
        known = by_section or by_name or _of_engine(engine, declared, asked)
        found.append(known._replace(asked=asked))
    return found


def container_sections(args: argparse.Namespace) -> dict[str, str]:
    """Section -> Docker name, from the committed file; empty if it cannot be read, which `check` explains."""
    from agent.files.uci_store import TextUciStore

    options = runtime_options(args)
    try:
        # from the file, because only a running agent has a status
        package = TextUciStore(config_dir=options.config_dir, override_dir=options.override_dir).load(
            "containers"
        )
    except UcidockdError:
        return {}
    found = {}
    for section in package.sections:
        if section.type == "container":
            name = section.get("name")
            found[section.name] = str(name.value) if name is not None else section.name
    return found


def _of_engine(engine: EngineApi, declared: Sequence[ContainerTarget], asked: str) -> ContainerTarget:
    """A container by its name or id on the engine. Raises ConfigError that suggests the nearest name."""
    from urllib.parse import quote

    try:
        inspected = engine.call("GET", f"/containers/{quote(asked, safe='')}/json")
    except EngineUnreachableError:
        raise
    except UcidockdError as exc:
        if getattr(exc, "status", 404) != 404:
            raise
        raise ConfigError(_unknown(engine, declared, asked)) from exc
    name = str(inspected["Name"]).removeprefix("/")
    # a short id may belong to a declared container
    owner = next((t for t in declared if t.ref and str(inspected["Id"]) == t.ref), None)
    return owner or ContainerTarget(asked, "", name, str(inspected["Id"]), {})


def _unknown(engine: EngineApi, declared: Sequence[ContainerTarget], asked: str) -> str:
    import difflib

    others = [
        str(c["Names"][0]).removeprefix("/") for c in engine.call("GET", "/containers/json", {"all": "1"})
    ]
    names = [*(t.section for t in declared), *(t.name for t in declared), *others]
    near = difflib.get_close_matches(asked[:64], names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "`ucidockd status` lists them"
    return f"No such container: {asked[:64]}, and no section of this name; {hint}"


def created(engine: EngineApi, target: ContainerTarget) -> str:
    """The engine's id or name. Raises ConfigError with the reason if the container does not exist yet."""
    if target.ref:
        return target.ref
    # the status has the reason for a missing container; an unreachable engine is such a reason
    seen = (engine.status or {"agent": {}})["agent"].get("engine") or {}
    if not seen:  # the agent has not asked the engine yet
        return target.name
    if not seen.get("reachable", True):
        raise EngineUnreachableError(str(seen.get("error", "the engine is not reachable")))
    told = next((c for c in target.resource["conditions"] if c["type"] == target.resource["verdict"]), None)
    why = f": {told['message'] or told['reason']}" if told else ""
    raise ConfigError(f"{target.asked} has no container yet{why}; see `ucidockd status`")
