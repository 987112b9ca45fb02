# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the engine on its unix socket whether it answers, and which settings it has. Standard library only, since it
runs many times a second while dockerd starts. Each question uses one connection.
"""

from __future__ import annotations

import http.client
import json
import posixpath
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

from agent.unix_http import UnixConnection

_TIMEOUT_S = 10.0
_FILTERS = quote(json.dumps({"type": ["daemon"], "event": ["reload"]}))


class ReloadEvents:
    """The reload events that one connection receives."""

    def __init__(self, response: http.client.HTTPResponse | None, connection: socket.socket | None) -> None:
        self._response, self._connection = response, connection

    def wait(self, timeout_s: float) -> Mapping[str, str] | None:
        """The attributes of the next reload event; None if none came in time or the connection ended."""
        if self._response is None or self._connection is None:
            return None
        # only we use this connection, so each read may set its own timeout
        self._connection.settimeout(timeout_s)
        try:
            # bounded, in case the engine sends a line that never ends
            line = self._response.readline(256 * 1024)
        except (OSError, http.client.HTTPException):
            return None
        try:
            actor = json.loads(line)["Actor"]
            return {str(key): str(value) for key, value in actor["Attributes"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


class DaemonProbe:
    """`path` is the unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def answers(self) -> bool:
        """GET /_ping."""
        try:
            with closing(UnixConnection(self._path, 2.0)) as connection:
                connection.request("GET", "/_ping")
                return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False

    def containers(self) -> list[dict[str, Any]]:
        """GET /containers/json: the running containers; empty without an answer."""
        body = self._json("/containers/json")
        return [item for item in body if isinstance(item, dict)] if isinstance(body, list) else []

    def running(self) -> tuple[str, ...]:
        """The names of the running containers."""
        names = (str((item.get("Names") or ["?"])[0]) for item in self.containers())
        return tuple(sorted(name.removeprefix("/") for name in names))

    def inventory(self) -> tuple[str, frozenset[str]] | None:
        """GET /info and GET /containers/json: the engine's id and the ids of all its containers; None without an answer."""
        info, items = self._json("/info"), self._json("/containers/json?all=1")
        if not isinstance(info, dict) or not info.get("ID") or not isinstance(items, list):
            return None
        return str(info["ID"]), frozenset(str(item["Id"]) for item in items)

    def root(self) -> str:
        """GET /info: the engine's data folder, which with userns_remap is a subfolder of data_root; ""
        without an answer.
        """
        info = self._json("/info")
        return str(info.get("DockerRootDir") or "") if isinstance(info, dict) else ""

    def swarm(self) -> bool:
        """GET /info: whether the engine is part of a swarm."""
        body = self._json("/info")
        state = (body.get("Swarm") or {}).get("LocalNodeState") if isinstance(body, dict) else None
        return state not in {None, "", "inactive"}

    def store(self) -> str:
        """GET /info: the store of images and containers, such as `overlay2` or `containerd's native`; "" if not known.

        With userns_remap each user has its own store, in a folder of its own (moby daemon, setupDaemonRoot).
        """
        body = self._json("/info")
        if not isinstance(body, dict) or not body.get("Driver"):
            return ""
        status = body.get("DriverStatus") or ()
        # with containerd, `Driver` is the snapshotter, which may have the same name as an older storage driver
        # (`overlayfs`)
        containerd = any("io.containerd.snapshotter" in str(pair) for pair in status)
        name = f"containerd's {body['Driver']}" if containerd else str(body["Driver"])
        remapped = any("userns" in str(option) for option in body.get("SecurityOptions") or ())
        return f"{name} in {posixpath.basename(str(body.get('DockerRootDir')))}" if remapped else name

    @contextmanager
    def reload_events(self, timeout_s: float) -> Iterator[ReloadEvents]:
        """GET /events of the daemon. `since` covers the time between the answer's head and the engine's subscription."""
        path = f"/events?since={time.time():.9f}&filters={_FILTERS}"
        events = ReloadEvents(None, None)
        with closing(UnixConnection(self._path, timeout_s)) as connection:
            try:
                connection.request("GET", path)
                link = connection.sock  # the response takes the socket over
                events = ReloadEvents(connection.getresponse(), link)
            except (OSError, http.client.HTTPException):
                pass  # an engine that does not answer confirms nothing
            yield events

    def _json(self, path: str) -> Any:
        try:
            with closing(UnixConnection(self._path, _TIMEOUT_S)) as connection:
                connection.request("GET", path)
                response = connection.getresponse()
                return json.loads(response.read()) if response.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
