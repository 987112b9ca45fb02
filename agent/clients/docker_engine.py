# SPDX-License-Identifier: GPL-2.0-or-later
"""The Docker Engine through docker-py, narrowed to `agent.apply.ports.Engine`.

Bodies are our own JSON: docker-py's builders lack fields (nano_cpus and pids_limit in update, for one). The API
version is negotiated again after every lost connection: another engine may answer the next one.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import docker
import docker.errors
import requests.exceptions

from agent.errors import EngineError, EngineUnreachableError
from agent.model.identity import LABEL_INSTANCE
from agent.model.observed import ObservedContainer, ObservedNetwork, ObservedVolume
from agent.model.resources import RegistryAuth

_MESSAGE_LIMIT = 256  # engine bodies may echo what they were sent
_STOP_MARGIN_S = 30.0
_NO_LIMIT: Any = None  # the stubs do not know that None means none


class DockerEngine:
    """`host` is a Docker host URL; `timeout_s` the deadline of one call."""

    def __init__(self, host: str, *, timeout_s: int = 60) -> None:
        self._host = host
        self._timeout_s = timeout_s
        self._local = threading.local()  # requests' sessions are not made for several threads
        self._version = ""

    def _client(self) -> Any:
        version = self._version or _version_text(self.ping())
        if getattr(self._local, "version", None) != version:
            self._local.client = docker.APIClient(
                base_url=self._host, version=version, timeout=self._timeout_s
            )
            self._local.version = version
        return self._local.client

    def api_version(self) -> tuple[int, int]:
        """The API version that is spoken; asks the engine only when a connection was lost since it last said."""
        return _version_pair(self._version) if self._version else self.ping()

    def _call(
        self, method: str, path: str, *, timeout_s: float | None = None, ok: tuple[int, ...] = (), **args: Any
    ) -> Any:
        """One request; `ok` are error statuses that count as success (None is returned)."""
        client = self._client()
        url = client._url(path)  # noqa: SLF001 - docker-py has no public way to send a body of one's own
        try:
            response = client.request(method, url, timeout=timeout_s or self._timeout_s, **args)
        except requests.exceptions.RequestException as exc:
            self._version = ""
            raise EngineUnreachableError(
                f"the engine at {self._host} does not answer: {_short(exc)}"
            ) from exc
        if response.status_code in ok:
            return None
        if response.status_code >= 400:
            raise EngineError(
                _message(response), status=response.status_code, retryable=response.status_code >= 500
            )
        return json.loads(response.content, object_pairs_hook=_shared) if response.content else None

    def ping(self) -> tuple[int, int]:
        """GET /version; the API version to speak from now on."""
        try:
            client = docker.APIClient(base_url=self._host, version="auto", timeout=10)
        except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
            raise EngineUnreachableError(
                f"the engine at {self._host} does not answer: {_short(exc)}"
            ) from exc
        self._version = str(client.api_version)
        client.close()
        return _version_pair(self._version)

    def info(self) -> dict[str, Any]:
        return dict(self._call("GET", "/info"))

    def list_containers(self, instance: str) -> tuple[ObservedContainer, ...]:
        items = self._call("GET", "/containers/json", params={"all": "1", "filters": _label_filter(instance)})
        return tuple(_listed(item) for item in items)

    def list_networks(self) -> tuple[ObservedNetwork, ...]:
        items = self._call("GET", "/networks")
        return tuple(_network(item) for item in items)

    def list_volumes(self) -> tuple[ObservedVolume, ...]:
        body = self._call("GET", "/volumes")
        return tuple(_volume(item) for item in body.get("Volumes") or ())

    def inspect_container(self, ref: str) -> ObservedContainer | None:
        body = self._call("GET", f"/containers/{ref}/json", ok=(404,))
        return None if body is None else _inspected(body)

    def inspect_network(self, ref: str) -> ObservedNetwork | None:
        body = self._call("GET", f"/networks/{ref}", ok=(404,))
        return None if body is None else _network(body)

    def inspect_volume(self, ref: str) -> ObservedVolume | None:
        body = self._call("GET", f"/volumes/{ref}", ok=(404,))
        return None if body is None else _volume(body)

    def inspect_image(self, ref: str) -> dict[str, Any] | None:
        body = self._call("GET", f"/images/{ref}/json", ok=(404,))
        return None if body is None else dict(body)

    def create_container(self, name: str, body: dict[str, Any]) -> str:
        return str(self._call("POST", "/containers/create", params={"name": name}, json=body)["Id"])

    def start(self, ref: str) -> None:
        self._call("POST", f"/containers/{ref}/start")

    def stop(self, ref: str, timeout_s: int | None) -> None:
        params = {} if timeout_s is None else {"t": str(timeout_s)}
        limit = self._timeout_s + (timeout_s or 0) + _STOP_MARGIN_S
        self._call("POST", f"/containers/{ref}/stop", params=params, timeout_s=limit, ok=(404,))

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
        self._call("DELETE", f"/containers/{ref}", params=params, ok=(404,))

    def connect(self, network: str, container: str, endpoint: dict[str, Any]) -> None:
        body = {"Container": container, "EndpointConfig": endpoint}
        self._call("POST", f"/networks/{network}/connect", json=body)

    def disconnect(self, network: str, container: str) -> None:
        body = {"Container": container, "Force": True}
        self._call("POST", f"/networks/{network}/disconnect", json=body, ok=(404,))

    def create_network(self, body: dict[str, Any]) -> str:
        return str(self._call("POST", "/networks/create", json=body)["Id"])

    def remove_network(self, ref: str) -> None:
        self._call("DELETE", f"/networks/{ref}", ok=(404,))

    def create_volume(self, body: dict[str, Any]) -> ObservedVolume:
        return _volume(self._call("POST", "/volumes/create", json=body))

    def remove_volume(self, name: str) -> None:
        self._call("DELETE", f"/volumes/{name}", ok=(404,))

    def pull(
        self, image: str, auth: RegistryAuth | None, on_progress: Callable[[dict[str, Any]], None] | None
    ) -> None:
        """POST /images/create; an error inside the progress stream is raised."""
        login = {"username": auth.username, "password": auth.token or auth.password} if auth else {}
        try:
            for step in self._client().pull(image, stream=True, decode=True, auth_config=login):
                if "error" in step:
                    raise EngineError(f"cannot pull {image}: {_cut(str(step['error']))}", retryable=True)
                if on_progress is not None:
                    on_progress(step)
        except docker.errors.APIError as exc:
            status = exc.response.status_code if exc.response is not None else 0
            raise EngineError(
                f"cannot pull {image}: {_cut(str(exc.explanation))}", status=status, retryable=True
            ) from exc
        except requests.exceptions.RequestException as exc:
            raise EngineUnreachableError(
                f"the engine went away while pulling {image}: {_short(exc)}"
            ) from exc

    def events(self, since: int | None) -> Iterator[dict[str, Any]]:
        """GET /events. docker-py ends it quietly when the connection breaks: every end means "list again"."""
        version = _version_text(self.api_version())
        try:
            client = docker.APIClient(base_url=self._host, version=version, timeout=_NO_LIMIT)
            stream = client.events(since=since, decode=True)
        except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
            raise EngineUnreachableError(
                f"the engine at {self._host} does not answer: {_short(exc)}"
            ) from exc
        return self._translated(stream)

    def _translated(self, stream: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        try:
            yield from stream
        except (
            docker.errors.DockerException,
            requests.exceptions.RequestException,
            OSError,
            ValueError,
        ) as exc:
            raise EngineUnreachableError(f"the event stream broke: {_short(exc)}") from exc
        finally:
            self._version = ""


def _version_pair(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)


def _version_text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


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
