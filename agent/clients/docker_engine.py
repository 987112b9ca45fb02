# SPDX-License-Identifier: GPL-2.0-or-later
"""The Docker Engine through docker-py, narrowed to `agent.apply.ports.Engine`.

Bodies are our own JSON: docker-py's builders lack fields (nano_cpus and pids_limit in update, for one). The API
version is negotiated again after every lost connection: another engine may answer the next one.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import docker
import docker.auth
import docker.errors
import docker.utils
import requests.exceptions
import urllib3.exceptions

from agent.clients.leftovers import end_leftover, tells_of_leftover
from agent.errors import EngineError, EngineSlowError, EngineUnreachableError, LeftoverError
from agent.model.identity import LABEL_INSTANCE
from agent.model.observed import ObservedContainer, ObservedNetwork, ObservedVolume
from agent.model.resources import RegistryAuth

logger = logging.getLogger(__name__)

_MESSAGE_LIMIT = 256  # engine bodies may echo what they were sent
_PING_S = 10.0
_READ_S = 20.0
_BROKEN = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)
_T = TypeVar("_T")
_NO_LIMIT: Any = None  # the stubs do not know that None means none


class DockerEngine:
    """`host` is a Docker host URL.

    `timeout_s`: how long the engine may be silent in a call that changes something, or in a pull, before it counts as
    lost; calls that only look get 20 s at most. EngineSlowError: the time is over, the engine may still be at it.
    """

    def __init__(self, host: str, *, timeout_s: float = 60) -> None:
        self._host = host
        self._timeout_s = timeout_s
        self._local = threading.local()  # requests' sessions are not made for several threads
        self._version = ""

    def _client(self) -> Any:
        version = self._version or _version_text(self.ping())
        if getattr(self._local, "version", None) != version:
            self._local.client = docker.APIClient(
                base_url=self._host,
                version=version,
                timeout=self._timeout_s,  # type: ignore[arg-type]  # a fraction of a second does too
            )
            self._local.version = version
        return self._local.client

    def api_version(self) -> tuple[int, int]:
        """The API version that is spoken; asks the engine only when a connection was lost since it last said."""
        return _version_pair(self._version) if self._version else self.ping()

    def _get(self, path: str, read: Callable[[Any], _T], **args: Any) -> _T:
        """GET of what has to be there."""
        body = self._call("GET", path, timeout_s=min(_READ_S, self._timeout_s), **args)
        return self._read(body, read)

    def _find(self, path: str, read: Callable[[Any], _T]) -> _T | None:
        """GET of what may be missing."""
        body = self._call("GET", path, timeout_s=min(_READ_S, self._timeout_s), ok=(404,))
        return None if body is None else self._read(body, read)

    def _read(self, body: Any, read: Callable[[Any], _T]) -> _T:
        try:
            return read(body)
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise self._invalid() from exc

    def _invalid(self) -> EngineUnreachableError:
        # as good as no answer: what the engine did is not known
        return EngineUnreachableError(f"the engine at {self._host} gave an answer that is no valid one")

    def _away(self, exc: Exception) -> EngineUnreachableError:
        self._version = ""  # what answers next may be another engine
        if isinstance(exc, requests.exceptions.Timeout) or "timed out" in str(exc):
            return EngineSlowError(f"the engine at {self._host} gives no answer in time")
        return EngineUnreachableError(f"the engine at {self._host} does not answer: {_short(exc)}")

    def _call(
        self, method: str, path: str, *, timeout_s: float | None = None, ok: tuple[int, ...] = (), **args: Any
    ) -> Any:
        """One request; `ok` are error statuses that count as success (None is returned)."""
        client = self._client()
        url = client._url(path)  # noqa: SLF001 - docker-py has no public way to send a body of one's own
        try:
            response = client.request(method, url, timeout=timeout_s or self._timeout_s, **args)
        except _BROKEN as exc:
            raise self._away(exc) from exc
        if response.status_code in ok:
            return None
        if response.status_code >= 400:
            raise EngineError(
                _message(response), status=response.status_code, retryable=response.status_code >= 500
            )
        try:
            return json.loads(response.content, object_pairs_hook=_shared) if response.content else None
        except (ValueError, RecursionError) as exc:
            raise self._invalid() from exc

    def _unless_gone(self, method: str, path: str, look: Callable[[], object | None], **args: Any) -> None:
        """A call that has nothing to do when its object is gone. "Not found" is asked for twice: records go with it."""
        try:
            self._call(method, path, **args)
        except EngineError as exc:
            if exc.status != 404 or look() is not None:
                raise

    def ping(self) -> tuple[int, int]:
        """GET /version; the API version to speak from now on."""
        try:
            client = docker.APIClient(
                base_url=self._host,
                version="auto",
                timeout=min(_PING_S, self._timeout_s),  # type: ignore[arg-type]  # as above
            )
        except (*_BROKEN, KeyError, TypeError, ValueError) as exc:
            raise self._away(exc) from exc
        self._version = str(client.api_version)
        client.close()
        return _version_pair(self._version)

    def info(self) -> dict[str, Any]:
        return self._get("/info", dict)

    def list_containers(self, instance: str) -> tuple[ObservedContainer, ...]:
        params = {"all": "1", "filters": _label_filter(instance)}
        return self._get(
            "/containers/json", lambda items: tuple(_listed(item) for item in items), params=params
        )

    def list_networks(self) -> tuple[ObservedNetwork, ...]:
        return self._get("/networks", lambda items: tuple(_network(item) for item in items))

    def list_volumes(self) -> tuple[ObservedVolume, ...]:
        return self._get("/volumes", lambda body: tuple(_volume(item) for item in body.get("Volumes") or ()))

    def inspect_container(self, ref: str) -> ObservedContainer | None:
        return self._find(f"/containers/{ref}/json", _inspected)

    def inspect_network(self, ref: str) -> ObservedNetwork | None:
        return self._find(f"/networks/{ref}", _network)

    def inspect_volume(self, ref: str) -> ObservedVolume | None:
        return self._find(f"/volumes/{ref}", _volume)

    def inspect_image(self, ref: str) -> dict[str, Any] | None:
        """A reference that this engine cannot read (400) is no image that it has, and costs only who asked for it."""
        body = self._call("GET", f"/images/{ref}/json", timeout_s=min(_READ_S, self._timeout_s), ok=(400, 404))
        return None if body is None else self._read(body, dict)

    def create_container(self, name: str, body: dict[str, Any]) -> str:
        return self._read(
            self._call("POST", "/containers/create", params={"name": name}, json=body), _id_of_new
        )

    def start(self, ref: str) -> None:
        try:
            self._call("POST", f"/containers/{ref}/start")
        except EngineError as exc:
            if not tells_of_leftover(str(exc)):
                raise
            if not end_leftover(ref):
                raise LeftoverError(str(exc), status=exc.status, retryable=True) from exc
            logger.warning("container %s: ended what a killed engine had left of it", ref[:12])
            self._call("POST", f"/containers/{ref}/start")

    def stop(self, ref: str, timeout_s: int | None) -> None:
        params = {} if timeout_s is None else {"t": str(timeout_s)}
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
            seen = self.inspect_container(ref)
            if seen is None or seen.name != name:
                raise

    def remove_container(self, ref: str, *, volumes: bool, force: bool = False) -> None:
        params = {"v": "1" if volumes else "0", "force": "1" if force else "0"}
        path = f"/containers/{ref}"
        self._unless_gone("DELETE", path, lambda: self.inspect_container(ref), params=params)

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
        self, image: str, auth: RegistryAuth | None, on_progress: Callable[[dict[str, Any]], None] | None
    ) -> None:
        """POST /images/create; an error inside the progress stream is raised.

        docker-py's own pull has no time-out: when the registry stalls it would wait for ever. The end of our request
        ends the engine's.
        """
        repository, tag = docker.utils.parse_repository_tag(image)
        login = {"username": auth.username, "password": auth.token or auth.password} if auth else {}
        try:
            client = self._client()
            with client.request(
                "POST",
                client._url("/images/create"),  # noqa: SLF001 - as in _call
                params={"fromImage": repository, "tag": tag or "latest"},
                headers={"X-Registry-Auth": docker.auth.encode_header(login)},
                timeout=self._timeout_s,
                stream=True,
            ) as response:
                self._follow_pull(image, response, on_progress)
        except (*_BROKEN, ValueError) as exc:
            if "timed out" in str(exc):
                text = f"cannot pull {image}: nothing came for {self._timeout_s:.0f} s, cancelled"
                raise EngineSlowError(text) from exc
            raise EngineUnreachableError(f"cannot pull {image}: the engine went away: {_short(exc)}") from exc

    def _follow_pull(
        self, image: str, response: Any, on_progress: Callable[[dict[str, Any]], None] | None
    ) -> None:
        if response.status_code >= 400:
            raise EngineError(
                f"cannot pull {image}: {_message(response)}", status=response.status_code, retryable=True
            )
        for line in response.iter_lines():
            step = json.loads(line) if line.strip() else {}
            if not isinstance(step, dict):
                raise self._invalid()
            if "error" in step:
                raise EngineError(f"cannot pull {image}: {_cut(str(step['error']))}", retryable=True)
            if on_progress is not None and step:
                on_progress(step)

    def events(self, since: int | None) -> Iterator[dict[str, Any]]:
        """GET /events. docker-py ends it quietly when the connection breaks: every end means "list again"."""
        version = _version_text(self.api_version())
        try:
            client = docker.APIClient(base_url=self._host, version=version, timeout=_NO_LIMIT)
            stream = client.events(since=since, decode=True)
        except _BROKEN as exc:
            raise self._away(exc) from exc
        return self._translated(stream)

    def _translated(self, stream: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        try:
            yield from stream
        except (*_BROKEN, ValueError) as exc:
            raise EngineUnreachableError(f"the event stream broke: {_short(exc)}") from exc
        finally:
            self._version = ""


def _version_pair(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _version_text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _id_of_new(body: Any) -> str:
    return str(body["Id"])


def _label_filter(instance: str) -> str:
    return json.dumps({"label": [f"{LABEL_INSTANCE}={instance}"]})


def _listed(item: dict[str, Any]) -> ObservedContainer:
    # further names are links ("/other/alias"): ours has one slash
    names = [name[1:] for name in item.get("Names") or () if name.count("/") == 1]
    return ObservedContainer(
        id=item["Id"],
        name=names[0] if names else "",
        image=item.get("Image", ""),
        image_id=item.get("ImageID", ""),
        state=item.get("State", ""),
        labels=item.get("Labels") or {},
        status_text=item.get("Status", ""),
    )


def _shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are kept once for all bodies: a hundred inspects have the same two hundred."""
    return {sys.intern(name): value for name, value in pairs}


def _inspected(body: dict[str, Any]) -> ObservedContainer:
    config = body.get("Config") or {}
    return ObservedContainer(
        id=body["Id"],
        name=str(body.get("Name", "")).removeprefix("/"),
        image=config.get("Image", ""),
        image_id=body.get("Image", ""),
        state=(body.get("State") or {}).get("Status", ""),
        labels=config.get("Labels") or {},
        inspect=body,
    )


def _network(item: dict[str, Any]) -> ObservedNetwork:
    return ObservedNetwork(id=item["Id"], name=item["Name"], labels=item.get("Labels") or {}, inspect=item)


def _volume(item: dict[str, Any]) -> ObservedVolume:
    return ObservedVolume(name=item["Name"], labels=item.get("Labels") or {}, inspect=item)


def _message(response: Any) -> str:
    try:
        return _cut(str(response.json()["message"]))
    except (ValueError, KeyError, TypeError):
        return f"the engine answered {response.status_code}"


def _short(exc: Exception) -> str:
    return _cut(str(exc))


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + "..."
