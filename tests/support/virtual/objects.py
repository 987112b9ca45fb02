# SPDX-License-Identifier: GPL-2.0-or-later
"""The objects of the engine in memory, and their bodies in the Engine API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KILLED_CODE = 137


@dataclass(slots=True, kw_only=True)
class FakeImage:
    """`config`: the values that containers inherit (Cmd, Entrypoint, Env, Labels, Volumes ...). `number`: a newer image
    has a higher number."""

    id: str
    config: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    def body(self, tags: list[str]) -> dict[str, Any]:
        """GET /images/{ref}/json."""
        return {"Id": self.id, "RepoTags": tags, "Config": self.config}


@dataclass(slots=True, kw_only=True)
class FakeVolume:
    """`data`: the number of the newest image that ran on the volume; each newer image converts the data for good."""

    name: str
    driver: str
    labels: dict[str, str]
    options: dict[str, str]
    data: int = 0

    def body(self) -> dict[str, Any]:
        """GET /volumes/{name}."""
        return {
            "Name": self.name,
            "Driver": self.driver,
            "Labels": self.labels or None,
            "Options": self.options or None,
            "Scope": "local",
        }


@dataclass(slots=True, kw_only=True)
class FakeNetwork:
    """`sent` is the request body that created the network; `members`: container id -> endpoint, running containers only."""

    id: str
    name: str
    sent: dict[str, Any]
    pools: list[dict[str, Any]]
    created: str = ""
    members: dict[str, dict[str, Any]] = field(default_factory=dict)

    def body(self, *, members: bool) -> dict[str, Any]:
        """GET /networks (without members) and GET /networks/{id} (with them)."""
        sent = self.sent
        shown = {
            key: {
                "Name": endpoint["_name"],
                "EndpointID": endpoint["EndpointID"],
                "IPv4Address": f"{endpoint['IPAddress']}/24",
            }
            for key, endpoint in self.members.items()
        }
        return {
            "Name": self.name,
            "Id": self.id,
            "Created": self.created,
            "Driver": sent.get("Driver") or "bridge",
            "Internal": bool(sent.get("Internal")),
            "Attachable": bool(sent.get("Attachable")),
            "EnableIPv6": bool(sent.get("EnableIPv6")),
            "IPAM": {"Driver": "default", "Options": None, "Config": self.pools},
            "Options": dict(sent.get("Options") or {}),
            "Labels": dict(sent.get("Labels") or {}),
            "Containers": shown if members else {},
        }


@dataclass(slots=True, kw_only=True)
class FakeContainer:
    """A container's state as the engine keeps it. `run` counts starts, so that timers of an earlier run can be ignored."""

    id: str
    name: str
    image: str  # the reference in the request
    image_id: str
    config: dict[str, Any]
    host: dict[str, Any]
    networks: dict[str, dict[str, Any]]
    mounts: list[dict[str, Any]]
    image_number: int = 0
    state: str = "created"
    exit_code: int = 0
    oom_killed: bool = False
    health: str = ""
    failing_streak: int = 0
    restart_count: int = 0
    run: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0
    quick_exits: int = 0
    stopped_by_hand: bool = False
    started_before: bool = False
    started_text: str = "0001-01-01T00:00:00Z"  # wall clock, RFC 3339
    finished_text: str = "0001-01-01T00:00:00Z"
    error: str = ""
    joined: tuple[str, int] = ("", 0)  # id and run of the container whose network this one joined
    sick: bool = False  # the health check fails, whatever its command

    @property
    def alive(self) -> bool:
        return self.state in {"running", "paused", "restarting"}

    @property
    def policy(self) -> dict[str, Any]:
        return self.host.get("RestartPolicy") or {"Name": "no", "MaximumRetryCount": 0}

    @property
    def stopped_code(self) -> int:
        """The exit code after SIGTERM: 0 if the command traps SIGTERM or is `httpd`. Other commands ignore it and get
        killed."""
        words = self.command()
        return 0 if words[0] == "httpd" or "trap" in words[-1] else KILLED_CODE

    def command(self) -> list[str]:
        return [*(self.config.get("Entrypoint") or ()), *(self.config.get("Cmd") or ())]

    def listed(self, now: float) -> dict[str, Any]:
        """An item of GET /containers/json."""
        return {
            "Id": self.id,
            "Names": [f"/{self.name}"],
            "Image": self.image,
            "ImageID": self.image_id,
            "Command": " ".join(self.command()),
            "State": self.state,
            "Status": self._status_text(now),
            "Labels": dict(self.config.get("Labels") or {}),
        }

    def published(self) -> dict[str, Any]:
        """What such an item says of networks and ports; the engine leaves out ports that only the image exposes here."""
        bound = (self.host.get("PortBindings") or {}).items()
        return {
            "NetworkSettings": {"Networks": {name: {} for name in self.networks}},
            "Ports": [
                {
                    "PrivatePort": int(inner.split("/")[0]),
                    "Type": inner.split("/")[1],
                    "IP": one["HostIp"],
                    "PublicPort": int(one["HostPort"]),
                }
                for inner, found in bound
                for one in found
            ],
        }

    def _status_text(self, now: float) -> str:
        up = f"Up {max(0, int(now - self.started_at))} seconds"
        ago = f"{max(0, int(now - self.ended_at))} seconds ago"
        health = {"starting": " (health: starting)", "": ""}.get(self.health, f" ({self.health})")
        return {
            "created": "Created",
            "running": up + health,
            "paused": up + " (Paused)",
            "restarting": f"Restarting ({self.exit_code}) {ago}",
            "exited": f"Exited ({self.exit_code}) {ago}",
            "removing": "Removal In Progress",
            "dead": "Dead",
        }[self.state]

    def body(self) -> dict[str, Any]:
        """GET /containers/{id}/json."""
        state: dict[str, Any] = {
            "Status": self.state,
            "Running": self.alive,
            "Paused": self.state == "paused",
            "Restarting": self.state == "restarting",
            "OOMKilled": self.oom_killed,
            "Dead": self.state == "dead",
            "ExitCode": self.exit_code,
            "Error": self.error,
            "StartedAt": self.started_text,
            "FinishedAt": self.finished_text,
        }
        if self.health:
            state["Health"] = {"Status": self.health, "FailingStreak": self.failing_streak}
        endpoints = {name: _shown(endpoint) for name, endpoint in self.networks.items()}
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Image": self.image_id,
            "Config": dict(self.config),
            "HostConfig": dict(self.host),
            "State": state,
            "RestartCount": self.restart_count,
            "Mounts": [_shown(mount) for mount in self.mounts],
            "NetworkSettings": {"Networks": endpoints},
        }


def _shown(endpoint: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in endpoint.items() if not name.startswith("_")}
