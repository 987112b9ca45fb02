# SPDX-License-Identifier: GPL-2.0-or-later
"""The Docker Engine through docker-py, as an `agent.apply.ports.Engine`.

Request bodies are our own JSON, because docker-py's builders lack fields (for example nano_cpus and pids_limit in
update). The API version is negotiated again after every lost connection, because another engine may answer then.
"""

from __future__ import annotations

import http.client
import json
import logging
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import docker.api.client
import docker.auth
import docker.errors
import docker.utils
import requests.exceptions
import urllib3.exceptions
from docker.transport import UnixHTTPAdapter
from requests.adapters import HTTPAdapter

from agent.engine.process import end_leftover, is_leftover_error
from agent.engine.transport import (
    CallDeadline,
    EngineTls,
    OversizeError,
    is_trust_failure,
    json_lines,
    keep_time,
    read_body,
)
from agent.errors import (
    EngineError,
    EngineInvalidError,
    EngineSlowError,
    EngineTlsError,
    EngineUnreachableError,
    LeftoverError,
    plain_words,
)
from agent.model.identity import LABEL_INSTANCE
from agent.model.observed import (
    EngineIdentity,
    ObservedContainer,
    ObservedImage,
    ObservedNetwork,
    ObservedVolume,
    Published,
)
from agent.model.resources import Port, RegistryAuth
from agent.wire.bodies import error_message

logger = logging.getLogger(__name__)

_MESSAGE_LIMIT = 256  # an error message of the engine may quote what it was sent
_LEAST_API = "1.41"  # used until the engine has reported its own
_PING_S = 10.0
_MAC_HIDDEN_SINCE = (1, 52)  # from then on a chosen MAC address looks like a generated one
_SHARED_SIZE_SINCE = (1, 42)  # from then on the list of images has the shared sizes
_PRUNE_S = 600.0  # removing a large build cache takes minutes
_READ_S = 20.0  # for calls that only read
_EXEC_LOOK_S = 0.05  # between looks whether a command has ended
_PAST_S = 3.0  # for a question that the engine answers from memory
_BROKEN = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)
_ID = re.compile(r"[0-9a-f]{64}")
_JSON = json.JSONDecoder()
_MARK = re.compile(r"[ \t\n\r]*([^ \t\n\r])[ \t\n\r]*")
_ENDED = ("exited", "dead")  # states with an exit code
# how the status text in the list shows the health check
_HEALTH = (("(healthy)", "healthy"), ("(unhealthy)", "unhealthy"), ("(health: starting)", "starting"))
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ListReply:
    """The last answer to a list call for `instance`."""

    instance: str
    body: bytes
    containers: tuple[ObservedContainer, ...]


class _OneConnection(UnixHTTPAdapter):
    """docker-py opens a connection per URL and keeps the last 25. All requests can share one connection, so this
    keeps only one.
    """

    def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:
        del url
        return super().get_connection("http+docker://localhost", proxies)


class _Encrypted(HTTPAdapter):
    """Connections that use one TLS context."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **named)


class DockerEngine:
    """`host` is a Docker host URL; a tcp one is encrypted with `tls`.

    `timeout_s` is how long a call that changes something may take before it counts as lost; calls that only read get
    at most 20 s. EngineSlowError means that the time is over and the engine may still be working. `engine.transport`
    limits what the engine may send.
    """

    def __init__(self, host: str, *, tls: EngineTls | None = None, timeout_s: float = 60) -> None:
        self._host = host
        self._tls = tls
        self._timeout_s = timeout_s
        self._local = threading.local()  # a requests session is not thread-safe
        self._version = ""
        self._identity: EngineIdentity | None = None
        self._last_list = _ListReply(instance="", body=b"", containers=())

    def _client(self) -> Any:
        version = self._version or _version_text(self.ping())
        # after a lost connection another engine may answer: it gets requests in its own version
        if getattr(self._local, "version", None) != version:
            self._local.client, self._local.deadline = self._new_client(version, self._timeout_s)
            self._local.version = version
        return self._local.client

    def _new_client(self, version: str, timeout_s: float | None) -> tuple[Any, CallDeadline]:
        client: Any = docker.api.client.APIClient(
            base_url=self._host if self._tls is None else self._host.replace("tcp:", "https:", 1),
            version=version,
            timeout=timeout_s,  # type: ignore[arg-type]  # fractions of a second work too, and None for no limit
        )
        # otherwise requests would look for proxies, certificates and a ~/.netrc before each request
        client.trust_env = False
        if self._host.startswith("unix://"):
            client.mount(client.base_url, _OneConnection(self._host.removeprefix("unix://")))
        elif self._tls is not None:
            client.mount("https://", _Encrypted(self._tls.own_context()))
            client.verify = str(self._tls.ca)  # otherwise requests would trust the public authorities too
        client.headers["Accept-Encoding"] = "identity"  # a small compressed body could unpack to a huge one
        deadline = CallDeadline()
        keep_time(client, deadline)
        return client, deadline

    def api_version(self) -> tuple[int, int]:
        """The API version in use; the engine is asked only after a lost connection."""
        return _version_pair(self._version) if self._version else self.ping()

    def _get(self, path: str, read: Callable[[Any], _T], **args: Any) -> _T:
        """GET of an object that must exist."""
        body = self._call("GET", path, timeout_s=min(_READ_S, self._timeout_s), **args)
        return self._read(body, read)

    def _find(self, path: str, read: Callable[[Any], _T]) -> _T | None:
        """GET of an object that may be missing."""
        body = self._call("GET", path, timeout_s=min(_READ_S, self._timeout_s), ok=(404,))
        return None if body is None else self._read(body, read)

    def _read(self, body: Any, read: Callable[[Any], _T]) -> _T:
        # An answer of the wrong shape is the engine's fault, and may be temporary (a proxy, an upgrade): it must not
        # look like a defect of ours.
        try:
            return read(body)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as exc:
            raise self._invalid() from exc

    def _invalid(self, why: str = "") -> EngineInvalidError:
        tail = f": {why}" if why else ""
        return EngineInvalidError(f"the engine at {self._host} sent an invalid response{tail}")

    def _refuse_redirect(self, response: Any) -> None:
        """Raises for a redirect: what we send, including logins, is for this engine only."""
        if response.is_redirect:
            response.close()
            raise self._invalid("it is a redirect")

    def _away(self, exc: Exception) -> EngineUnreachableError:
        self._version, self._identity = "", None  # the next connection may reach another engine
        # the socket's own deadline arrives as a plain TimeoutError inside one of the wrappers
        if isinstance(exc, requests.exceptions.Timeout) or "timed out" in str(exc):
            return EngineSlowError(f"the engine at {self._host} does not answer in time")
        # requests and urllib3 wrap an error three times, and their texts contain addresses of objects. Only the
        # innermost error tells what to do: nothing listens, no permission, an untrusted certificate.
        for cause in _causes(exc):
            if is_trust_failure(cause):
                return EngineTlsError(f"no TLS with the engine at {self._host}: {_short(cause)}")
            # the answer broke the protocol; it did not just end early
            broke_off = http.client.IncompleteRead | http.client.RemoteDisconnected
            if isinstance(cause, http.client.HTTPException) and not isinstance(cause, broke_off):
                return self._invalid("it is not HTTP")
            if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
                return EngineUnreachableError(f"no Docker engine at {self._host}; is dockerd running?")
            if isinstance(cause, PermissionError):
                return EngineUnreachableError(f"permission denied on {self._host}: only root may use it")
        return EngineUnreachableError(
            f"the engine at {self._host} does not answer: {_short(_innermost(exc))}"
        )

    def _call(self, method: str, path: str, **args: Any) -> Any:
        """Sends a request; returns the decoded answer, None if it is empty. See `_send`."""
        content = self._send(method, path, **args)
        try:
            return json.loads(content, object_pairs_hook=_shared) if content else None
        except (ValueError, RecursionError) as exc:
            raise self._invalid() from exc

    def _send(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float | None = None,
        ok: tuple[int, ...] = (),
        versioned: bool = True,
        **args: Any,
    ) -> bytes:
        """Sends a request; returns the body. `ok` lists error statuses that count as success with an empty answer.

        `versioned` adds the negotiated API version to the path; otherwise `path` contains one.
        """
        client = self._client()
        # docker-py has no public way to send a body of our own
        url = client._url(path, versioned_api=versioned)  # noqa: SLF001
        limit = timeout_s or self._timeout_s
        status, body = self._exchange(client, self._local.deadline, method, url, timeout=limit, **args)
        if status in ok:
            return b""
        if status >= 400:
            raise EngineError(
                error_message(body, status, limit=_MESSAGE_LIMIT), status=status, retryable=status >= 500
            )
        return body

    def _exchange(
        self, client: Any, deadline: CallDeadline, method: str, url: str, *, timeout: float, **args: Any
    ) -> tuple[int, bytes]:
        """Status and body. Raises EngineUnreachableError."""
        # requests restarts its timeout with each byte, but a pass waits for this call, so it needs a real end
        deadline.begin(timeout)
        # `client.request` merges the session's headers, cookies, hooks and proxies into each request, which is a
        # quarter of the cost of a call; there is nothing to merge
        request = requests.PreparedRequest()
        request.prepare(method, url, headers=client.headers, **args)
        try:
            response = client.send(request, timeout=timeout, stream=True, allow_redirects=False, proxies={})
            self._refuse_redirect(response)
            return response.status_code, read_body(response)
        except _BROKEN as exc:
            raise self._away(exc) from exc
        except OversizeError as exc:
            raise self._invalid(str(exc)) from exc
        finally:
            deadline.end()

    def _unless_gone(self, method: str, path: str, look: Callable[[], object | None], **args: Any) -> None:
        """A call that also succeeds if its object is gone. A 404 counts only if `look` finds nothing, because records
        depend on it.
        """
        try:
            self._call(method, path, **args)
        except EngineError as exc:
            # A proxy, or an engine that is still loading, answers 404 too. Dropping the record then would leave the
            # object behind as a foreign one.
            if exc.status != 404 or look() is not None:
                raise

    def ping(self) -> tuple[int, int]:
        """GET /version; returns the API version to use from now on."""
        limit = min(_PING_S, self._timeout_s)
        try:
            client, deadline = self._new_client(_LEAST_API, limit)
        except _BROKEN as exc:
            raise self._away(exc) from exc
        # a separate client: docker-py's clients contain the negotiated version, which this call has yet to learn
        with client:
            url = client._url("/version", versioned_api=False)  # noqa: SLF001 - as in _call
            status, body = self._exchange(client, deadline, "GET", url, timeout=limit)
        if status >= 400:
            raise self._away(EngineError(error_message(body, status, limit=_MESSAGE_LIMIT)))
        try:
            found = str(json.loads(body)["ApiVersion"])
            pair = _version_pair(found)
        except (KeyError, TypeError, ValueError, RecursionError) as exc:
            raise self._invalid("it does not report its API version") from exc
        self._version = found
        return pair

    def identity(self, *, fresh: bool = False) -> EngineIdentity:
        """Which engine this is. With `fresh` it is asked again, which notices that another engine took its place."""
        found = self._identity
        if found is None or fresh:
            found = self._identity = _identity(self.info())
        return found

    def info(self) -> dict[str, Any]:
        return self._get("/info", dict)

    def list_containers(self, instance: str) -> tuple[ObservedContainer, ...]:
        """GET /containers/json. A reply that equals the last one byte for byte, as an idle engine sends it, is not
        parsed again.
        """
        params = {"all": "1", "filters": json.dumps({"label": [f"{LABEL_INSTANCE}={instance}"]})}
        body = self._send("GET", "/containers/json", params=params, timeout_s=min(_READ_S, self._timeout_s))
        last = self._last_list
        # parsing the list is most of the cost of an idle pass
        if (last.instance, last.body) == (instance, body):
            return last.containers
        containers = self._read(body, lambda found: tuple(map(_listed, _elements(found.decode()))))
        ids = [container.id for container in containers]
        # no real engine sends such a list: draw no conclusions from it, least of all that containers are gone
        if len(set(ids)) < len(ids) or not all(map(_ID.fullmatch, ids)):
            raise self._invalid()
        self._last_list = _ListReply(instance=instance, body=body, containers=containers)
        return containers

    def list_names(self) -> frozenset[str]:
        """The names of all containers, including foreign ones."""
        return self._get(
            "/containers/json",
            lambda items: frozenset(name for item in items for name in _names(item)),
            params={"all": "1"},
        )

    def list_published(self) -> dict[str, Published]:
        """The networks and published ports of all containers that run, including foreign ones, by id."""
        return self._get(
            "/containers/json", lambda items: {str(item["Id"]): _published(item) for item in items}
        )

    def list_networks(self) -> tuple[ObservedNetwork, ...]:
        return self._get("/networks", lambda items: tuple(_network(item) for item in items))

    def list_volumes(self) -> tuple[ObservedVolume, ...]:
        return self._get("/volumes", lambda body: tuple(_volume(item) for item in body.get("Volumes") or ()))

    def inspect_container(self, ref: str) -> ObservedContainer | None:
        return self._find(f"/containers/{ref}/json", _inspected)

    def inspect_chosen_mac(self, ref: str) -> str | None:
        """The MAC address that was requested for a container's first network, "" if the engine chose it.

        Up to API 1.51 this is `Config.MacAddress`. None if the engine no longer supports 1.51. Raises EngineError.
        """
        path = f"/containers/{ref}/json"
        # later versions moved the address into the network's settings, where a chosen address looks like a generated one
        if self.api_version() < _MAC_HIDDEN_SINCE:
            body = self._call("GET", path, ok=(404,))
        else:
            body = self._call("GET", f"/v1.51{path}", ok=(400, 404), versioned=False)
        if body is None:
            return None
        return self._read(body, lambda found: str(found["Config"].get("MacAddress") or ""))

    def inspect_network(self, ref: str) -> ObservedNetwork | None:
        return self._find(f"/networks/{ref}", _network)

    def inspect_volume(self, ref: str) -> ObservedVolume | None:
        return self._find(f"/volumes/{ref}", _volume)

    def inspect_image(self, ref: str) -> dict[str, Any] | None:
        """The image, None if the engine does not have it. A reference that this engine cannot parse (400) counts as
        missing, so that only its section is affected.
        """
        body = self._call(
            "GET", f"/images/{ref}/json", timeout_s=min(_READ_S, self._timeout_s), ok=(400, 404)
        )
        return None if body is None else self._read(body, dict)

    def list_images(self) -> tuple[ObservedImage, ...]:
        """GET /images/json, including a build's intermediate images. Before API 1.42 the shared sizes come from GET
        /system/df.
        """
        measures = self.api_version() >= _SHARED_SIZE_SINCE
        params = {"all": "1"} | ({"shared-size": "1"} if measures else {})
        found = self._get("/images/json", _images, params=params)
        if measures:
            return found
        try:
            measured = self._read(self._disk_usage(), lambda b: _images(b["Images"]))
        except EngineUnreachableError:
            raise
        except EngineError as exc:
            # a single damaged image or volume makes the call fail; only the shared sizes are lost
            logger.warning("the sizes of images are not known: %s", exc)
            return found
        shared = {image.id: image.shared for image in measured}
        return tuple(replace(image, shared=shared.get(image.id)) for image in found)

    def list_image_users(self) -> dict[str, str]:
        """Image id -> name of a container that was created from it, including foreign containers."""
        return self._get(
            "/containers/json",
            lambda items: {item["ImageID"]: next(iter(_names(item)), item["Id"][:12]) for item in items},
            params={"all": "1"},
        )

    def list_build_cache(self) -> tuple[dict[str, Any], ...]:
        """The build cache entries of GET /system/df."""
        return self._read(self._disk_usage(), lambda body: tuple(body.get("BuildCache") or ()))

    def _disk_usage(self) -> Any:
        """Slow, because the engine looks at every image."""
        types = {"type": ["image", "build-cache"]} if self.api_version() >= _SHARED_SIZE_SINCE else {}
        return self._call("GET", "/system/df", params=types)

    def remove_image(self, ref: str) -> None:
        """Removes one name of an image, or by its id an image without a name. Its parents stay."""
        self._call("DELETE", f"/images/{ref}", params={"noprune": "1"}, ok=(404,))

    def prune_build_cache(self, unused_s: float) -> int:
        """POST /build/prune of entries that were unused for `unused_s` seconds; returns the freed bytes."""
        filters = json.dumps({"until": [f"{round(unused_s)}s"]} if unused_s else {})
        body = self._call("POST", "/build/prune", params={"all": "1", "filters": filters}, timeout_s=_PRUNE_S)
        return self._read(body, lambda found: int(found.get("SpaceReclaimed") or 0))

    def inspect_output(self, ref: str, *, lines: int) -> bytes:
        """GET /containers/{id}/logs of the last lines, framed as the engine sends them.

        Raises EngineError, also if the log driver cannot be read.
        """
        params = {"stdout": "1", "stderr": "1", "tail": str(lines)}
        return self._send(
            "GET", f"/containers/{ref}/logs", params=params, timeout_s=min(_READ_S, self._timeout_s)
        )

    def create_container(self, name: str, body: dict[str, Any], *, platform: str = "") -> str:
        params = {"name": name} | ({"platform": platform} if platform else {})
        return self._read(self._call("POST", "/containers/create", params=params, json=body), _id_of_new)

    def execute(self, ref: str, argv: Sequence[str], timeout_s: float) -> tuple[int | None, bytes]:
        """POST /containers/{id}/exec and /exec/{id}/start: the exit code, and the end of the output, framed.

        The exit code is None if the command has not ended in time, because the engine cannot end it. Blocks. Raises
        EngineError.
        """
        body = {"Cmd": list(argv), "AttachStdout": True, "AttachStderr": True}
        made = self._read(self._call("POST", f"/containers/{ref}/exec", json=body), lambda found: found["Id"])
        path = f"/exec/{made}"
        end = time.monotonic() + timeout_s
        try:
            output = self._send(
                "POST", f"{path}/start", json={"Detach": False, "Tty": False}, timeout_s=max(0.1, timeout_s)
            )
        except EngineSlowError:
            return None, b""
        # the stream may end before the engine has noticed the end of the process
        while (found := self._get(f"{path}/json", dict)).get("Running") and time.monotonic() < end:
            time.sleep(_EXEC_LOOK_S)
        return (None if found.get("Running") else int(found.get("ExitCode") or 0)), output

    def start(self, ref: str) -> None:
        try:
            self._call("POST", f"/containers/{ref}/start")
        except EngineError as exc:
            # only for this refusal: killing processes for any other would be worse than not starting
            if not is_leftover_error(str(exc)):
                raise
            if not end_leftover(ref):
                raise LeftoverError(str(exc), status=exc.status, retryable=True) from exc
            logger.warning("container %s: ended what a killed engine had left of it", ref[:12])
            self._call("POST", f"/containers/{ref}/start")

    def stop(self, ref: str, timeout_s: int | None) -> None:
        params = {} if timeout_s is None else {"t": str(timeout_s)}
        # the engine answers when the container has ended, so its stop timeout comes on top
        limit = self._timeout_s + (timeout_s or 0)
        path = f"/containers/{ref}/stop"
        self._unless_gone("POST", path, lambda: self.inspect_container(ref), params=params, timeout_s=limit)

    def unpause(self, ref: str) -> None:
        self._call("POST", f"/containers/{ref}/unpause")

    def update(self, ref: str, body: dict[str, Any]) -> None:
        self._call("POST", f"/containers/{ref}/update", json=body)

    def rename(self, ref: str, name: str) -> None:
        try:
            self._call("POST", f"/containers/{ref}/rename", params={"name": name})
        except EngineError:
            # the answer to an earlier rename may have been lost: a repeated rename is refused because the name is
            # taken by itself
            seen = self.inspect_container(ref)
            if seen is None or seen.name != name:
                raise

    def remove_container(self, ref: str, *, volumes: bool, force: bool = False) -> None:
        params = {"v": "1" if volumes else "0", "force": "1" if force else "0"}
        path = f"/containers/{ref}"
        try:
            self._unless_gone("DELETE", path, lambda: self.inspect_container(ref), params=params)
        except EngineError as exc:
            if exc.status != 409 or "already in progress" not in str(exc):
                raise
            # a removal is in progress, from us (its answer was lost) or from another client: wait until it is done
            self._call("POST", f"{path}/wait", params={"condition": "removed"}, ok=(404,))

    def connect(self, network: str, container: str, endpoint: dict[str, Any]) -> None:
        body = {"Container": container, "EndpointConfig": endpoint}
        self._call("POST", f"/networks/{network}/connect", json=body)

    def disconnect(self, network: str, container: str) -> None:
        body = {"Container": container, "Force": True}
        self._call("POST", f"/networks/{network}/disconnect", json=body, ok=(404,))

    def create_network(self, body: dict[str, Any]) -> str:
        return self._read(self._call("POST", "/networks/create", json=body), _id_of_new)

    def remove_network(self, ref: str) -> None:
        self._unless_gone("DELETE", f"/networks/{ref}", lambda: self.inspect_network(ref))

    def create_volume(self, body: dict[str, Any]) -> ObservedVolume:
        return self._read(self._call("POST", "/volumes/create", json=body), _volume)

    def remove_volume(self, name: str) -> None:
        self._unless_gone("DELETE", f"/volumes/{name}", lambda: self.inspect_volume(name))

    def pull(
        self,
        image: str,
        auth: RegistryAuth | None,
        on_progress: Callable[[dict[str, Any]], None],
        meanwhile: Callable[[], None],
        *,
        platform: str = "",
    ) -> None:
        """POST /images/create; raises an error that the progress stream contains.

        `meanwhile` is called at least once a second even if the engine sends nothing (with the containerd store it is
        silent until the first MiB has arrived). If it raises, the pull ends: closing our request also ends the
        engine's work.
        """
        repository, tag = docker.utils.parse_repository_tag(image)
        login = {"username": auth.username, "password": auth.token or auth.password} if auth else {}
        try:
            client = self._client()  # negotiates the version first, with a time limit of its own
            with (
                self._local.deadline.attend(meanwhile),
                client.request(
                    "POST",
                    client._url("/images/create"),  # noqa: SLF001 - as in _call
                    params={"fromImage": repository, "tag": tag or "latest"}
                    | ({"platform": platform} if platform else {}),
                    headers={"X-Registry-Auth": docker.auth.encode_header(login)},
                    timeout=self._timeout_s,
                    stream=True,
                    allow_redirects=False,
                ) as response,
            ):
                self._refuse_redirect(response)
                status = response.status_code
                if status >= 400:
                    said = error_message(read_body(response), status, limit=_MESSAGE_LIMIT)
                    raise EngineError(f"cannot pull {image}: {said}", status=status, retryable=True)
                for step in json_lines(response):
                    if "error" in step:
                        raise EngineError(f"cannot pull {image}: {_cut(str(step['error']))}", retryable=True)
                    on_progress(step)
        except (*_BROKEN, ValueError) as exc:
            raise EngineUnreachableError(
                f"cannot pull {image}: the connection to the engine broke: {_short(_innermost(exc))}"
            ) from exc

    def events(self, since: int | None) -> Iterator[dict[str, Any]]:
        """GET /events. After every end the objects must be listed again: a normal end looks like a
        connection that broke.
        """
        version = _version_text(self.api_version())
        try:
            # a connection of its own without a deadline: an idle engine sends nothing for days
            client, _ = self._new_client(version, None)
            response = client.request(
                "GET",
                client._url("/events"),  # noqa: SLF001 - as in _call
                params={} if since is None else {"since": str(since)},
                stream=True,
                timeout=None,
                allow_redirects=False,
            )
        except _BROKEN as exc:
            raise self._away(exc) from exc
        self._refuse_redirect(response)
        if response.status_code >= 400:
            raise EngineError(
                error_message(read_body(response), response.status_code, limit=_MESSAGE_LIMIT),
                status=response.status_code,
                retryable=True,
            )
        return self._translated(response)

    def past_events(self, container: str, until: str) -> tuple[dict[str, Any], ...]:
        """GET /events up to `until` (unix seconds). The engine keeps the last 256 events since its start."""
        filters = json.dumps({"type": ["container"], "container": [container]})
        params = {"since": "1", "until": until, "filters": filters}
        body = self._send("GET", "/events", params=params, timeout_s=min(_PAST_S, self._timeout_s))
        return self._read(body, lambda text: tuple(json.loads(line) for line in text.splitlines() if line))

    def _translated(self, response: Any) -> Iterator[dict[str, Any]]:
        try:
            with response:
                yield from json_lines(response)
        except (*_BROKEN, ValueError) as exc:
            raise EngineUnreachableError(f"the event stream broke: {_short(_innermost(exc))}") from exc
        finally:
            # a newer engine may have taken its place while we listened
            self._version = ""


def _version_pair(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _version_text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _images(items: Any) -> tuple[ObservedImage, ...]:
    return tuple(
        ObservedImage(
            id=item["Id"],
            # the engine's way to write "no name", which must not be taken for a name
            tags=tuple(tag for tag in item.get("RepoTags") or () if tag != "<none>:<none>"),
            digests=tuple(name for name in item.get("RepoDigests") or () if not name.startswith("<none>@")),
            parent=item.get("ParentId") or "",
            size=int(item.get("Size") or 0),
            # -1 means "not computed", because computing it costs the engine a walk through all layers
            shared=item["SharedSize"] if item.get("SharedSize", -1) >= 0 else None,
        )
        for item in items or ()
    )


def _id_of_new(body: Any) -> str:
    return str(body["Id"])


def _names(item: dict[str, Any]) -> list[str]:
    """The container's own names. Names of links contain a second slash ("/other/alias") and are left out."""
    return [name[1:] for name in item.get("Names") or () if name.count("/") == 1]


def _published(item: dict[str, Any]) -> Published:
    """Of one on the network of the host the engine lists no port."""
    return Published(
        networks=tuple((item.get("NetworkSettings") or {}).get("Networks") or {}),
        ports=tuple(
            Port(
                container_port=port["PrivatePort"],
                host_port=port["PublicPort"],
                host_ip=port.get("IP") or "",
                protocol=port["Type"],
            )
            for port in item.get("Ports") or ()
            if port.get("PublicPort")
        ),
    )


def _identity(info: dict[str, Any]) -> EngineIdentity:
    return EngineIdentity(
        id=str(info.get("ID") or ""),
        root=str(info.get("DockerRootDir") or ""),
        driver=str(info.get("Driver") or ""),
    )


def _listed(item: dict[str, Any]) -> ObservedContainer:
    names = _names(item)
    state, status = item.get("State", ""), item.get("Status", "")
    # health and exit code are only in the human-readable text (`Up 5 minutes (healthy)`): inspecting would be a call
    # for each container
    return ObservedContainer(
        id=item["Id"],
        name=names[0] if names else "",
        image=item.get("Image", ""),
        image_id=item.get("ImageID", ""),
        state=state,
        labels=item.get("Labels") or {},
        health=next((health for word, health in _HEALTH if word in status), ""),
        exit_code=_exit_code(status) if state in _ENDED else None,
        last_exit_code=_exit_code(status),
        status_text=status,
    )


def _exit_code(status: str) -> int | None:
    """The exit code in the list's status text, `Exited (1) 2 minutes ago` or `Restarting (1) 2 seconds ago`."""
    word, found, rest = status.partition(" (")
    return int(rest.partition(")")[0]) if found and word in ("Exited", "Restarting") else None


def _elements(text: str) -> Iterator[Any]:
    """The elements of a JSON array, decoded one by one: a list of a thousand containers decoded at once takes
    megabytes that are not returned to the system. Raises ValueError for anything else.
    """
    mark, at = _mark(text, 0)
    # a list that is cut off must not look like a short list
    if mark != "[":
        raise ValueError("it is not an array")
    if _mark(text, at)[0] == "]":
        mark, at = _mark(text, at)
    while mark != "]":
        item, at = _JSON.raw_decode(text, at)
        yield item
        mark, at = _mark(text, at)
        if mark not in {",", "]"}:
            raise ValueError(f"neither , nor ] at {at}")
    if at != len(text):
        raise ValueError("something follows the array")


def _mark(text: str, at: int) -> tuple[str, int]:
    """The next non-blank character, and the position after it and the blanks that follow."""
    found = _MARK.match(text, at)
    return (found[1], found.end()) if found is not None else ("", at)


def _shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose strings are interned, because the inspected bodies of a thousand containers share
    most of them.
    """
    return {sys.intern(name): _kept_once(value) for name, value in pairs}


def _kept_once(value: Any) -> Any:
    if type(value) is str:
        return sys.intern(value)
    if type(value) is list and value and type(value[0]) is str:
        return [sys.intern(item) if type(item) is str else item for item in value]
    return value


def _inspected(body: dict[str, Any]) -> ObservedContainer:
    config, state = body.get("Config") or {}, body.get("State") or {}
    health = (state.get("Health") or {}).get("Status", "")
    return ObservedContainer(
        id=body["Id"],
        name=str(body.get("Name", "")).removeprefix("/"),
        image=config.get("Image", ""),
        image_id=body.get("Image", ""),
        state=state.get("Status", ""),
        labels=config.get("Labels") or {},
        health="" if health == "none" else health,
        # the engine reports 0 for a running container, which would look like a success
        exit_code=state.get("ExitCode") if state.get("Status") in _ENDED else None,
        last_exit_code=state.get("ExitCode") if state.get("Status") in (*_ENDED, "restarting") else None,
        started_at=str(state.get("StartedAt") or ""),
        finished_at=str(state.get("FinishedAt") or ""),
        inspect=body,
    )


def _network(item: dict[str, Any]) -> ObservedNetwork:
    return ObservedNetwork(id=item["Id"], name=item["Name"], labels=item.get("Labels") or {}, inspect=item)


def _volume(item: dict[str, Any]) -> ObservedVolume:
    return ObservedVolume(name=item["Name"], labels=item.get("Labels") or {}, inspect=item)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """The chain of causes of `exc`, itself first; requests wraps what urllib3 has wrapped."""
    found: BaseException | None = exc
    # `__context__` too, because some libraries raise without `from`
    while found is not None:
        yield found
        within: BaseException | None = None
        if isinstance(found, urllib3.exceptions.MaxRetryError):
            within = found.reason
        elif isinstance(found, urllib3.exceptions.SSLError):
            within = next((arg for arg in found.args if isinstance(arg, ssl.SSLError)), None)
        found = within or found.__cause__ or found.__context__


def _innermost(exc: BaseException) -> BaseException:
    return list(_causes(exc))[-1]


def _short(exc: BaseException) -> str:
    return _cut(plain_words(exc))


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + "..."
