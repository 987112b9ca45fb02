# SPDX-License-Identifier: GPL-2.0-or-later
"""Which requests of the Engine API a browser may make under `/docker/`, and the right that each takes.

A table, default deny: what is not here does not exist. Made by going through the engine's own description of its API
and the routes of its source; a test holds it against their list. Reading means that neither
the engine nor a container changes, nothing leaves that may hold secrets, and nobody outside is called: files of a
container, its console and swarm's tokens are a writer's.

Placeholders: `{id}` an id or name, `{image}` an image's or plugin's reference, which has slashes, `{network}` a network's
id or name, which may be any text.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.controller.manual_actions import CONTAINER, is_manual
from agent.controller.rules import WEBSOCKET, Grant, read, write


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRoute:
    """One request."""

    method: str
    path: str
    grant: Grant
    masks: bool = False  # a reader gets it without secrets
    takes_tar: bool = False

    @property
    def is_manual(self) -> bool:
        """Whether it may be a manual action that a managed container is held for."""
        return is_manual(self.grant.object, self.grant.method)


_ENGINE, _CONTAINER, _EXEC = "docker", CONTAINER, "docker.exec"
_IMAGE, _NETWORK, _VOLUME = "docker.image", "docker.network", "docker.volume"
_SWARM, _PLUGIN = "docker.swarm", "docker.plugin"

_READS = (
    ("GET", "/_ping", _ENGINE, "ping"),
    ("HEAD", "/_ping", _ENGINE, "ping"),
    ("GET", "/version", _ENGINE, "version"),
    ("GET", "/info", _ENGINE, "info"),
    ("GET", "/events", _ENGINE, "events"),
    ("GET", "/system/df", _ENGINE, "df"),
    ("GET", "/containers/json", _CONTAINER, "list"),
    ("GET", "/containers/{id}/json", _CONTAINER, "inspect"),
    ("GET", "/containers/{id}/top", _CONTAINER, "top"),
    ("GET", "/containers/{id}/logs", _CONTAINER, "logs"),
    ("GET", "/containers/{id}/changes", _CONTAINER, "changes"),
    ("GET", "/containers/{id}/stats", _CONTAINER, "stats"),
    ("POST", "/containers/{id}/wait", _CONTAINER, "inspect"),
    ("GET", "/exec/{id}/json", _EXEC, "inspect"),
    ("GET", "/images/json", _IMAGE, "list"),
    ("GET", "/images/{image}/json", _IMAGE, "inspect"),
    ("GET", "/images/{image}/history", _IMAGE, "history"),
    ("GET", "/images/{image}/attestations", _IMAGE, "inspect"),
    ("GET", "/networks", _NETWORK, "list"),
    ("GET", "/networks/{network}", _NETWORK, "inspect"),
    ("GET", "/volumes", _VOLUME, "list"),
    ("GET", "/volumes/{id}", _VOLUME, "inspect"),
    ("GET", "/nodes", _SWARM, "list"),
    ("GET", "/nodes/{id}", _SWARM, "inspect"),
    ("GET", "/services", _SWARM, "list"),
    ("GET", "/services/{id}", _SWARM, "inspect"),
    ("GET", "/services/{id}/logs", _SWARM, "logs"),
    ("GET", "/tasks", _SWARM, "list"),
    ("GET", "/tasks/{id}", _SWARM, "inspect"),
    ("GET", "/tasks/{id}/logs", _SWARM, "logs"),
)

_WRITES = (
    ("POST", "/auth", _IMAGE, "create"),
    ("POST", "/commit", _IMAGE, "create"),
    ("POST", "/containers/create", _CONTAINER, "create"),
    ("POST", "/containers/prune", _CONTAINER, "prune"),
    ("POST", "/containers/{id}/start", _CONTAINER, "start"),
    ("POST", "/containers/{id}/stop", _CONTAINER, "stop"),
    ("POST", "/containers/{id}/restart", _CONTAINER, "restart"),
    ("POST", "/containers/{id}/kill", _CONTAINER, "kill"),
    ("POST", "/containers/{id}/pause", _CONTAINER, "pause"),
    ("POST", "/containers/{id}/unpause", _CONTAINER, "unpause"),
    ("POST", "/containers/{id}/rename", _CONTAINER, "rename"),
    ("POST", "/containers/{id}/update", _CONTAINER, "update"),
    ("POST", "/containers/{id}/resize", _CONTAINER, "resize"),
    ("DELETE", "/containers/{id}", _CONTAINER, "remove"),
    ("GET", "/containers/{id}/export", _CONTAINER, "export"),
    ("GET", "/containers/{id}/archive", _CONTAINER, "get_archive"),
    ("HEAD", "/containers/{id}/archive", _CONTAINER, "get_archive"),
    ("PUT", "/containers/{id}/archive", _CONTAINER, "put_archive"),
    ("POST", "/containers/{id}/attach", _CONTAINER, "exec"),
    (WEBSOCKET, "/containers/{id}/attach/ws", _CONTAINER, "exec"),
    ("POST", "/containers/{id}/exec", _CONTAINER, "exec"),
    ("POST", "/exec/{id}/start", _EXEC, "start"),
    ("POST", "/exec/{id}/resize", _EXEC, "resize"),
    ("POST", "/build", _IMAGE, "build"),
    ("POST", "/build/prune", _IMAGE, "build_prune"),
    ("POST", "/images/create", _IMAGE, "create"),
    ("POST", "/images/load", _IMAGE, "load"),
    ("GET", "/images/get", _IMAGE, "get"),
    ("GET", "/images/{image}/get", _IMAGE, "get"),
    ("GET", "/images/search", _IMAGE, "search"),  # the term may name a host to ask
    ("POST", "/images/prune", _IMAGE, "prune"),
    ("POST", "/images/{image}/push", _IMAGE, "push"),
    ("POST", "/images/{image}/tag", _IMAGE, "tag"),
    ("DELETE", "/images/{image}", _IMAGE, "remove"),
    ("GET", "/distribution/{image}/json", _IMAGE, "create"),
    ("POST", "/networks/create", _NETWORK, "create"),
    ("POST", "/networks/prune", _NETWORK, "prune"),
    ("POST", "/networks/{network}/connect", _NETWORK, "connect"),
    ("POST", "/networks/{network}/disconnect", _NETWORK, "disconnect"),
    ("DELETE", "/networks/{network}", _NETWORK, "remove"),
    ("POST", "/volumes/create", _VOLUME, "create"),
    ("POST", "/volumes/prune", _VOLUME, "prune"),
    ("PUT", "/volumes/{id}", _VOLUME, "update"),
    ("DELETE", "/volumes/{id}", _VOLUME, "remove"),
    ("GET", "/plugins", _PLUGIN, "manage"),
    ("GET", "/plugins/privileges", _PLUGIN, "manage"),
    ("GET", "/plugins/{image}/json", _PLUGIN, "manage"),
    ("POST", "/plugins/pull", _PLUGIN, "manage"),
    ("POST", "/plugins/create", _PLUGIN, "manage"),
    ("POST", "/plugins/{image}/disable", _PLUGIN, "manage"),
    ("POST", "/plugins/{image}/enable", _PLUGIN, "manage"),
    ("POST", "/plugins/{image}/push", _PLUGIN, "manage"),
    ("POST", "/plugins/{image}/set", _PLUGIN, "manage"),
    ("POST", "/plugins/{image}/upgrade", _PLUGIN, "manage"),
    ("DELETE", "/plugins/{image}", _PLUGIN, "manage"),
    ("GET", "/swarm", _SWARM, "manage"),  # shows the tokens to join with
    ("GET", "/swarm/unlockkey", _SWARM, "manage"),
    ("POST", "/swarm/init", _SWARM, "manage"),
    ("POST", "/swarm/join", _SWARM, "manage"),
    ("POST", "/swarm/leave", _SWARM, "manage"),
    ("POST", "/swarm/unlock", _SWARM, "manage"),
    ("POST", "/swarm/update", _SWARM, "manage"),
    ("POST", "/nodes/{id}/update", _SWARM, "manage"),
    ("DELETE", "/nodes/{id}", _SWARM, "manage"),
    ("POST", "/services/create", _SWARM, "manage"),
    ("POST", "/services/{id}/update", _SWARM, "manage"),
    ("DELETE", "/services/{id}", _SWARM, "manage"),
    ("GET", "/secrets", _SWARM, "manage"),
    ("GET", "/secrets/{id}", _SWARM, "manage"),
    ("POST", "/secrets/create", _SWARM, "manage"),
    ("POST", "/secrets/{id}/update", _SWARM, "manage"),
    ("DELETE", "/secrets/{id}", _SWARM, "manage"),
    ("GET", "/configs", _SWARM, "manage"),
    ("GET", "/configs/{id}", _SWARM, "manage"),
    ("POST", "/configs/create", _SWARM, "manage"),
    ("POST", "/configs/{id}/update", _SWARM, "manage"),
    ("DELETE", "/configs/{id}", _SWARM, "manage"),
)

# what is no JSON of the engine, or holds numbers only
_PLAIN = frozenset(
    {
        "/_ping",
        "/containers/{id}/logs",
        "/containers/{id}/stats",
        "/containers/{id}/wait",
        "/services/{id}/logs",
        "/tasks/{id}/logs",
    }
)

HIJACKED = tuple(
    EngineRoute(method="POST", path=path, grant=write(_IMAGE, "build")) for path in ("/session", "/grpc")
)
"""BuildKit's: the connection becomes another protocol, past every check of a request. They are refused with the way out."""

ROUTES: tuple[EngineRoute, ...] = (
    *(
        EngineRoute(method=method, path=path, grant=read(thing, right), masks=path not in _PLAIN)
        for method, path, thing, right in _READS
    ),
    *(
        EngineRoute(
            method=method,
            path=path,
            grant=write(thing, right),
            takes_tar=right == "put_archive",
        )
        for method, path, thing, right in _WRITES
    ),
)
