# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of Engine API calls that clients may make: over HTTP below `/docker/`, and as methods of `docker*` on ubus.

Everything else is denied: a call without a row does not exist. A test compares the rows with the engine's own list of
routes. Each row holds for both entry points: the right it needs, whether it is a manual action, what a reader sees of the
answer. Tests also compare the table with LuCI's access list (`acl.d`), `docs/openapi.json` and `docs/engine-calls.md`.

READ means that the call changes neither the engine nor a container, that the answer holds no secrets (or is masked),
and that the engine contacts no other host. Files of a container, its console and swarm's tokens therefore need WRITE.

Placeholders: `{id}` is an id or name; `{image}` is the reference of an image or plugin, which contains slashes;
`{network}` is the id or name of a network, which may be any text.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from agent.api.problems import RequestError
from agent.api.rules import WEBSOCKET, Grant, Need
from agent.wire.http_head import natural

Pairs = list[tuple[str, str]]

READ, WRITE = Need.READ, Need.WRITE

# the form the engine accepts (Engine API, GET /events)
_SECONDS = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?")
# programs reload on HUP, USR1 and USR2; the others have no effect unless a program handles them (signal(7))
_HARMLESS = frozenset({"HUP", "USR1", "USR2", "WINCH", "CONT", "CHLD", "CLD", "URG"})


class ReplyKind(Enum):
    """The kind of body that the engine answers with."""

    JSON = auto()
    LOGS = auto()  # output of a container, framed or raw
    EXEC = auto()  # output of a process, framed or raw
    TAR = auto()


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One call of the Engine API.

    `object` and `method` name the right that a session needs. A call with `args` is also published on ubus under that name;
    `args` are its arguments there, separated by spaces.
    """

    verb: str
    path: str
    object: str
    method: str
    need: Need
    summary: str
    args: str | None = None
    # adapts the query, because a call on ubus gets a single answer
    bus_query: Callable[[Pairs], Pairs] | None = None
    output: ReplyKind = ReplyKind.JSON
    masked: bool = False  # readers get the answer without secrets
    manual: bool = False  # a managed container then stays as this call leaves it
    large: bool = False  # the answer may be gigabytes: it bypasses the event loop
    endless: bool = False  # the head of the answer comes with the first event, so it has no deadline
    hijacks: bool = False  # the connection becomes a raw stream if the client asks for it
    takes_tar: bool = False  # the request's body is an archive that the engine unpacks
    harmless: bool = (
        False  # allowed while dockerd's storage is not mounted: stopping is right then, a console may help
    )

    @property
    def pattern(self) -> str:
        """A regular expression that matches this call's paths, without the API version."""
        return re.sub(r"\\\{\w+\\\}", ".+" if self.object == _CONTAINER else "[^/]+", re.escape(self.path))

    @property
    def grant(self) -> Grant:
        """The right that this call needs."""
        return Grant(need=self.need, object=self.object, method=self.method)

    def action(self, query: Iterable[tuple[str, str]]) -> str:
        """The manual action that the reconciler must not undo, "" if there is none."""
        pairs = list(query)
        # `link=1` removes only an alias, not the container. The flag is parsed as the engine does (moby,
        # httputils.BoolValue)
        link = _first(pairs, "link").strip().lower() not in ("", "0", "no", "false", "none")
        if self.method == "remove" and link:
            return ""
        return self.method if self.manual and not self.quiet_signal(pairs) else ""

    def quiet_signal(self, query: Iterable[tuple[str, str]]) -> str:
        """The signal of a `kill` if it does not stop programs, so there is nothing to hold the container for; else ""."""
        if self.method != "kill":
            return ""
        name = signal_name(_first(query, "signal"))
        return name if name in _HARMLESS else ""


def _first(query: Iterable[tuple[str, str]], wanted: str) -> str:
    """The first value of a parameter, as the engine reads it (Go, net/url Values.Get)."""
    return next((value for name, value in query if name == wanted), "")


def signal_name(text: str) -> str:
    """A signal's name without SIG, as the engine reads it: by name in any case, or by number."""
    number = natural(text)
    if number is None:
        return text.upper().removeprefix("SIG")
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return ""


# A call on ubus gets one answer: it can neither follow a stream nor send a build context.


def up_to_now(pairs: Pairs) -> Pairs:
    """Limits `events` to those up to now: a call that waits for future events would block its caller and occupy one
    of the slots for concurrent calls. Raises RequestError.
    """
    now = time.time()
    until = next((value for name, value in pairs if name == "until" and value), f"{now:.9f}")
    if not _SECONDS.fullmatch(until):
        raise RequestError("query until: expected seconds since 1970")
    kept = [pair for pair in pairs if pair[0] != "until"]
    return [*kept, ("until", until if float(until) < now else f"{now:.9f}")]


def without_follow(pairs: Pairs) -> Pairs:
    """A call on ubus cannot follow. Without a choice of stdout or stderr it gets both."""
    kept = [(name, value) for name, value in pairs if name != "follow"]
    chosen = any(name in ("stdout", "stderr") for name, _ in kept)
    return kept if chosen else [*kept, ("stdout", "true"), ("stderr", "true")]


def once(pairs: Pairs) -> Pairs:
    """Asks for one sample instead of one each second."""
    return [*(pair for pair in pairs if pair[0] != "stream"), ("stream", "false")]


def from_remote(pairs: Pairs) -> Pairs:
    """A call on ubus carries no build context, so the engine has to fetch it from `remote`. Raises RequestError
    without one.
    """
    if not any(name == "remote" and value for name, value in pairs):
        raise RequestError("query remote: expected the URL of the build's context")
    return pairs


_ENGINE, _CONTAINER, _EXEC = "docker", "docker.container", "docker.exec"
_IMAGE, _NETWORK, _VOLUME = "docker.image", "docker.network", "docker.volume"
_SWARM, _PLUGIN = "docker.swarm", "docker.plugin"

# fmt: off
ENGINE_CALLS: tuple[EngineCall, ...] = (
    # verb, path, object, method, right, summary
    # the engine itself
    EngineCall("GET", "/version", _ENGINE, "version", READ, "Show the engine's version", args="", masked=True),
    EngineCall("GET", "/info", _ENGINE, "info", READ, "Show the engine's settings and state", args="", masked=True),
    EngineCall("GET", "/_ping", _ENGINE, "ping", READ, "Check that the engine answers", args=""),
    EngineCall("HEAD", "/_ping", _ENGINE, "ping", READ, "Check that the engine answers"),
    EngineCall("GET", "/system/df", _ENGINE, "df", READ, "Show disk usage", args="", masked=True),
    EngineCall("GET", "/events", _ENGINE, "events", READ, "Stream the engine's events", args="query",
               bus_query=up_to_now, masked=True, endless=True),

    # containers
    EngineCall("GET", "/containers/json", _CONTAINER, "list", READ, "List containers", args="query", masked=True),
    EngineCall("POST", "/containers/create", _CONTAINER, "create", WRITE, "Create a container", args="query body"),
    EngineCall("GET", "/containers/{id}/json", _CONTAINER, "inspect", READ, "Inspect a container", args="id query",
               masked=True),
    EngineCall("GET", "/containers/{id}/top", _CONTAINER, "top", READ, "List the processes of a container",
               args="id query", masked=True),
    EngineCall("GET", "/containers/{id}/logs", _CONTAINER, "logs", READ, "Get the output of a container",
               args="id query", bus_query=without_follow, output=ReplyKind.LOGS),
    EngineCall("GET", "/containers/{id}/changes", _CONTAINER, "changes", READ, "List changed files of a container",
               args="id", masked=True),
    EngineCall("GET", "/containers/{id}/export", _CONTAINER, "export", WRITE, "Export the file system of a container",
               args="id", output=ReplyKind.TAR, large=True),
    EngineCall("GET", "/containers/{id}/stats", _CONTAINER, "stats", READ, "Get the resource usage of a container",
               args="id query", bus_query=once),
    EngineCall("POST", "/containers/{id}/wait", _CONTAINER, "inspect", READ, "Wait until a container stops",
               endless=True, harmless=True),
    EngineCall("POST", "/containers/{id}/resize", _CONTAINER, "resize", WRITE, "Resize the terminal of a container",
               args="id query", harmless=True),
    EngineCall("POST", "/containers/{id}/start", _CONTAINER, "start", WRITE, "Start a container", args="id query",
               manual=True),
    EngineCall("POST", "/containers/{id}/stop", _CONTAINER, "stop", WRITE, "Stop a container", args="id query",
               manual=True, harmless=True),
    EngineCall("POST", "/containers/{id}/restart", _CONTAINER, "restart", WRITE, "Restart a container",
               args="id query", manual=True),
    EngineCall("POST", "/containers/{id}/kill", _CONTAINER, "kill", WRITE, "Send a signal to a container",
               args="id query", manual=True, harmless=True),
    EngineCall("POST", "/containers/{id}/update", _CONTAINER, "update", WRITE, "Change the limits of a container",
               args="id body", manual=True),
    EngineCall("POST", "/containers/{id}/rename", _CONTAINER, "rename", WRITE, "Rename a container",
               args="id query", manual=True),
    EngineCall("POST", "/containers/{id}/pause", _CONTAINER, "pause", WRITE, "Pause a container", args="id",
               manual=True),
    EngineCall("POST", "/containers/{id}/unpause", _CONTAINER, "unpause", WRITE, "Resume a paused container",
               args="id", manual=True),
    EngineCall("DELETE", "/containers/{id}", _CONTAINER, "remove", WRITE, "Remove a container", args="id query",
               manual=True),
    EngineCall("HEAD", "/containers/{id}/archive", _CONTAINER, "info_archive", WRITE,
               "Show the type and size of a path in a container", args="id query"),
    EngineCall("GET", "/containers/{id}/archive", _CONTAINER, "get_archive", WRITE,
               "Get a path of a container as a tar archive", args="id query", output=ReplyKind.TAR, large=True),
    EngineCall("PUT", "/containers/{id}/archive", _CONTAINER, "put_archive", WRITE,
               "Extract a tar archive into a container", args="id query body", takes_tar=True),
    EngineCall("POST", "/containers/{id}/attach", _CONTAINER, "exec", WRITE, "Attach to a container", hijacks=True,
               harmless=True),
    EngineCall(WEBSOCKET, "/containers/{id}/attach/ws", _CONTAINER, "exec", WRITE,
               "Attach to a container by WebSocket"),
    EngineCall("POST", "/containers/{id}/exec", _CONTAINER, "exec", WRITE, "Prepare a command in a container",
               args="id opts", harmless=True),
    EngineCall("POST", "/containers/prune", _CONTAINER, "prune", WRITE, "Remove stopped containers", args="query"),

    # commands in containers
    EngineCall("POST", "/exec/{id}/start", _EXEC, "start", WRITE, "Run a prepared command", args="id body",
               output=ReplyKind.EXEC, hijacks=True, harmless=True),
    EngineCall("POST", "/exec/{id}/resize", _EXEC, "resize", WRITE, "Resize the terminal of a command",
               args="id query", harmless=True),
    EngineCall("GET", "/exec/{id}/json", _EXEC, "inspect", READ, "Inspect a command", args="id", masked=True),

    # images
    EngineCall("GET", "/images/json", _IMAGE, "list", READ, "List images", args="query", masked=True),
    EngineCall("POST", "/build", _IMAGE, "build", WRITE, "Build an image", args="query headers",
               bus_query=from_remote),
    EngineCall("POST", "/build/prune", _IMAGE, "build_prune", WRITE, "Delete build cache", args="query headers"),
    EngineCall("POST", "/images/create", _IMAGE, "create", WRITE, "Pull or import an image", args="query headers"),
    EngineCall("GET", "/images/{image}/json", _IMAGE, "inspect", READ, "Inspect an image", args="id", masked=True),
    EngineCall("GET", "/images/{image}/history", _IMAGE, "history", READ, "List the layers of an image", args="id",
               masked=True),
    EngineCall("GET", "/images/{image}/attestations", _IMAGE, "inspect", READ, "List the attestations of an image",
               masked=True),
    EngineCall("POST", "/images/{image}/push", _IMAGE, "push", WRITE, "Push an image to a registry",
               args="name query headers"),
    EngineCall("POST", "/images/{image}/tag", _IMAGE, "tag", WRITE, "Tag an image", args="id query"),
    EngineCall("DELETE", "/images/{image}", _IMAGE, "remove", WRITE, "Remove an image", args="id query"),
    EngineCall("GET", "/distribution/{image}/json", _IMAGE, "create", WRITE, "Look up an image in its registry"),
    EngineCall("POST", "/auth", _IMAGE, "create", WRITE, "Check a registry login"),
    EngineCall("POST", "/commit", _IMAGE, "create", WRITE, "Create an image from a container"),
    # WRITE because the term may name a registry, which the engine then contacts
    EngineCall("GET", "/images/search", _IMAGE, "search", WRITE, "Search for images in a registry", args="query"),
    EngineCall("POST", "/images/prune", _IMAGE, "prune", WRITE, "Remove unused images", args="query"),
    EngineCall("GET", "/images/{image}/get", _IMAGE, "get", WRITE, "Export an image as a tar archive", args="id",
               output=ReplyKind.TAR, large=True),
    EngineCall("POST", "/images/load", _IMAGE, "load", WRITE, "Load images from a tar archive", args="query"),
    EngineCall("GET", "/images/get", _IMAGE, "get", WRITE, "Export images as a tar archive", output=ReplyKind.TAR,
               large=True),

    # networks
    EngineCall("GET", "/networks", _NETWORK, "list", READ, "List networks", args="query", masked=True),
    EngineCall("GET", "/networks/{network}", _NETWORK, "inspect", READ, "Inspect a network", args="id query",
               masked=True),
    EngineCall("DELETE", "/networks/{network}", _NETWORK, "remove", WRITE, "Remove a network", args="id"),
    EngineCall("POST", "/networks/create", _NETWORK, "create", WRITE, "Create a network", args="body"),
    EngineCall("POST", "/networks/{network}/connect", _NETWORK, "connect", WRITE,
               "Connect a container to a network", args="id body"),
    EngineCall("POST", "/networks/{network}/disconnect", _NETWORK, "disconnect", WRITE,
               "Disconnect a container from a network", args="id body"),
    EngineCall("POST", "/networks/prune", _NETWORK, "prune", WRITE, "Remove unused networks", args="query"),

    # volumes
    EngineCall("GET", "/volumes", _VOLUME, "list", READ, "List volumes", args="query", masked=True),
    EngineCall("POST", "/volumes/create", _VOLUME, "create", WRITE, "Create a volume", args="opts"),
    EngineCall("GET", "/volumes/{id}", _VOLUME, "inspect", READ, "Inspect a volume", args="id", masked=True),
    EngineCall("PUT", "/volumes/{id}", _VOLUME, "update", WRITE, "Update a cluster volume", args="id query spec"),
    EngineCall("DELETE", "/volumes/{id}", _VOLUME, "remove", WRITE, "Remove a volume", args="id query"),
    EngineCall("POST", "/volumes/prune", _VOLUME, "prune", WRITE, "Remove unused volumes", args="query"),

    # plugins: one right for all, because a plugin is root on the router
    EngineCall("GET", "/plugins", _PLUGIN, "manage", WRITE, "List plugins"),
    EngineCall("GET", "/plugins/privileges", _PLUGIN, "manage", WRITE, "List the privileges that a plugin asks for"),
    EngineCall("GET", "/plugins/{image}/json", _PLUGIN, "manage", WRITE, "Inspect a plugin"),
    EngineCall("POST", "/plugins/pull", _PLUGIN, "manage", WRITE, "Install a plugin"),
    EngineCall("POST", "/plugins/create", _PLUGIN, "manage", WRITE, "Create a plugin"),
    EngineCall("POST", "/plugins/{image}/disable", _PLUGIN, "manage", WRITE, "Disable a plugin"),
    EngineCall("POST", "/plugins/{image}/enable", _PLUGIN, "manage", WRITE, "Enable a plugin"),
    EngineCall("POST", "/plugins/{image}/push", _PLUGIN, "manage", WRITE, "Push a plugin to a registry"),
    EngineCall("POST", "/plugins/{image}/set", _PLUGIN, "manage", WRITE, "Configure a plugin"),
    EngineCall("POST", "/plugins/{image}/upgrade", _PLUGIN, "manage", WRITE, "Upgrade a plugin"),
    EngineCall("DELETE", "/plugins/{image}", _PLUGIN, "manage", WRITE, "Remove a plugin"),

    # swarm: readers see what runs; whatever holds tokens or secrets is for writers
    EngineCall("GET", "/nodes", _SWARM, "list", READ, "List swarm nodes", masked=True),
    EngineCall("GET", "/nodes/{id}", _SWARM, "inspect", READ, "Inspect a swarm node", masked=True),
    EngineCall("GET", "/services", _SWARM, "list", READ, "List services", masked=True),
    EngineCall("GET", "/services/{id}", _SWARM, "inspect", READ, "Inspect a service", masked=True),
    EngineCall("GET", "/services/{id}/logs", _SWARM, "logs", READ, "Get the output of a service",
               output=ReplyKind.LOGS),
    EngineCall("GET", "/tasks", _SWARM, "list", READ, "List tasks", masked=True),
    EngineCall("GET", "/tasks/{id}", _SWARM, "inspect", READ, "Inspect a task", masked=True),
    EngineCall("GET", "/tasks/{id}/logs", _SWARM, "logs", READ, "Get the output of a task", output=ReplyKind.LOGS),
    EngineCall("GET", "/swarm", _SWARM, "manage", WRITE, "Inspect the swarm, with its join tokens"),
    EngineCall("GET", "/swarm/unlockkey", _SWARM, "manage", WRITE, "Get the key that unlocks the swarm"),
    EngineCall("POST", "/swarm/init", _SWARM, "manage", WRITE, "Create a swarm"),
    EngineCall("POST", "/swarm/join", _SWARM, "manage", WRITE, "Join a swarm"),
    EngineCall("POST", "/swarm/leave", _SWARM, "manage", WRITE, "Leave the swarm"),
    EngineCall("POST", "/swarm/unlock", _SWARM, "manage", WRITE, "Unlock the swarm"),
    EngineCall("POST", "/swarm/update", _SWARM, "manage", WRITE, "Update the swarm"),
    EngineCall("POST", "/nodes/{id}/update", _SWARM, "manage", WRITE, "Update a swarm node"),
    EngineCall("DELETE", "/nodes/{id}", _SWARM, "manage", WRITE, "Remove a swarm node"),
    EngineCall("POST", "/services/create", _SWARM, "manage", WRITE, "Create a service"),
    EngineCall("POST", "/services/{id}/update", _SWARM, "manage", WRITE, "Update a service"),
    EngineCall("DELETE", "/services/{id}", _SWARM, "manage", WRITE, "Remove a service"),
    EngineCall("GET", "/secrets", _SWARM, "manage", WRITE, "List secrets"),
    EngineCall("GET", "/secrets/{id}", _SWARM, "manage", WRITE, "Inspect a secret"),
    EngineCall("POST", "/secrets/create", _SWARM, "manage", WRITE, "Create a secret"),
    EngineCall("POST", "/secrets/{id}/update", _SWARM, "manage", WRITE, "Update a secret"),
    EngineCall("DELETE", "/secrets/{id}", _SWARM, "manage", WRITE, "Remove a secret"),
    EngineCall("GET", "/configs", _SWARM, "manage", WRITE, "List configs"),
    EngineCall("GET", "/configs/{id}", _SWARM, "manage", WRITE, "Inspect a config"),
    EngineCall("POST", "/configs/create", _SWARM, "manage", WRITE, "Create a config"),
    EngineCall("POST", "/configs/{id}/update", _SWARM, "manage", WRITE, "Update a config"),
    EngineCall("DELETE", "/configs/{id}", _SWARM, "manage", WRITE, "Remove a config"),
)
# fmt: on

BUILDKIT_CALLS: tuple[EngineCall, ...] = tuple(
    EngineCall("POST", path, _IMAGE, "build", WRITE, "Not available: says how to build without BuildKit")
    for path in ("/session", "/grpc")
)
"""BuildKit's connections switch to another protocol, where no request could be checked. They are refused; the error
names the alternative.
"""

BUS_CALLS: dict[str, dict[str, EngineCall]] = {}
"""The calls that are published on ubus, by object and method."""
for _call in ENGINE_CALLS:
    if _call.args is not None:
        BUS_CALLS.setdefault(_call.object, {})[_call.method] = _call
