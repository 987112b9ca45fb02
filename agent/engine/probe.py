# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the engine on its unix socket whether it answers and what it follows. Standard library only: it is asked many
times a second while dockerd starts, and each question is one connection."""

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
    """The reload events of one connection."""

    def __init__(self, response: http.client.HTTPResponse | None, connection: socket.socket | None) -> None:
        self._response, self._connection = response, connection

    def wait(self, timeout_s: float) -> Mapping[str, str] | None:
        """The next one's attributes; None when none came in time or the connection ended."""
        if self._response is None or self._connection is None:
            return None
        # The connection is ours alone, so the time-out may differ from read to read.
        self._connection.settimeout(timeout_s)
        try:
            # Bounded: an engine that sends a line without an end costs no more than this.
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
        """GET /containers/json: only those that run; empty where nothing answers."""
        body = self._json("/containers/json")
        return [item for item in body if isinstance(item, dict)] if isinstance(body, list) else []

    def running(self) -> tuple[str, ...]:
        """Their names."""
        names = (str((item.get("Names") or ["?"])[0]) for item in self.containers())
        return tuple(sorted(name.removeprefix("/") for name in names))

    def inventory(self) -> tuple[str, frozenset[str]] | None:
        """GET /info, GET /containers/json: the engine's id and those of all its containers; None without an answer."""
        info, items = self._json("/info"), self._json("/containers/json?all=1")
        if not isinstance(info, dict) or not info.get("ID") or not isinstance(items, list):
            return None
        return str(info["ID"]), frozenset(str(item["Id"]) for item in items)

    def root(self) -> str:
        """GET /info: the folder of its data, with userns_remap one inside of data_root; "" without an answer."""
        info = self._json("/info")
        return str(info.get("DockerRootDir") or "") if isinstance(info, dict) else ""

    def swarm(self) -> bool:
        """GET /info."""
        body = self._json("/info")
        state = (body.get("Swarm") or {}).get("LocalNodeState") if isinstance(body, dict) else None
        return state not in {None, "", "inactive"}

    def store(self) -> str:
        """GET /info: what keeps images and containers, such as `overlay2` or `containerd's native`; "" when not known.

        With userns_remap there is one for each user, in a folder of its own (moby daemon, setupDaemonRoot).
        """
        body = self._json("/info")
        if not isinstance(body, dict) or not body.get("Driver"):
            return ""
        status = body.get("DriverStatus") or ()
        # Its name in `Driver` is that of the snapshotter, and the same as of an older storage driver
        # (`overlayfs`).
        containerd = any("io.containerd.snapshotter" in str(pair) for pair in status)
        name = f"containerd's {body['Driver']}" if containerd else str(body["Driver"])
        remapped = any("userns" in str(option) for option in body.get("SecurityOptions") or ())
        return f"{name} in {posixpath.basename(str(body.get('DockerRootDir')))}" if remapped else name

    @contextmanager
    def reload_events(self, timeout_s: float) -> Iterator[ReloadEvents]:
        """GET /events, those of the daemon. `since` covers the moment between the answer's head and subscribing."""
        path = f"/events?since={time.time():.9f}&filters={_FILTERS}"
        events = ReloadEvents(None, None)
        with closing(UnixConnection(self._path, timeout_s)) as connection:
            try:
                connection.request("GET", path)
                link = connection.sock  # the response takes it over
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
