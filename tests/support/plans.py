# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans without an engine: the earlier UCI text is on the engine and in the records, the present one is desired."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.model.identity import spec_hash
from agent.model.observed import Observed, ObservedContainer, ObservedNetwork, ObservedVolume, Record
from agent.model.resources import Container, Desired, Network, Volume
from agent.plan.container.bodies import container_body
from agent.plan.container.difference import wanted_endpoints
from agent.plan.draft import Context, desired_spec
from agent.plan.operations import Plan
from agent.plan.reconcile import reconcile
from agent.plan.records import waits_of
from agent.uci.decode import decode
from agent.uci.syntax import parse

NOW = 1_700_000_000.0


@dataclass
class World:
    """The whole input of planning; scenarios change it. The ids of objects are their names in capitals."""

    desired: Desired
    containers: dict[str, ObservedContainer] = field(default_factory=dict)
    networks: dict[str, ObservedNetwork] = field(default_factory=dict)
    volumes: dict[str, ObservedVolume] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)

    def see(self, section: str, **changes: Any) -> None:
        """Changes what the engine reports about a container of ours."""
        self.containers[section] = replace(self.containers[section], **changes)

    def inspect(self, section: str, **host: Any) -> None:
        """Adds an inspect to a container; `host`: its values of HostConfig."""
        container = next(c for c in self.desired.containers if c.section == section)
        body = container_body(container, labels={}, image="x", api=(1, 41))
        body["HostConfig"] |= host
        names = [endpoint.network for endpoint in wanted_endpoints(container.spec)]
        networks = {name: {"EndpointID": "e", "NetworkID": name.upper()} for name in names}
        self.see(
            section,
            inspect={**body, "State": {"Running": True}, "NetworkSettings": {"Networks": networks}},
        )

    def record(self, section: str, **changes: Any) -> None:
        """Changes the record of a section."""
        self.records[section] = replace(self.records[section], **changes)

    def lose(self, section: str) -> None:
        """Removes the section's object from the engine."""
        for objects in (self.containers, self.networks, self.volumes):
            objects.pop(section, None)

    def foreign(self, name: str, command: str) -> None:
        """Adds a foreign container with that name."""
        body = {
            "Id": "F" * 64,
            "Name": f"/{name}",
            "Config": {"Image": "nginx", "Cmd": [command]},
            "HostConfig": {},
            "NetworkSettings": {"Networks": {"bridge": {}}},
        }
        seen = ObservedContainer(
            id="F" * 64, name=name, image="nginx", image_id="x", state="running", inspect=body
        )
        self.context["foreign"] = {name: seen}

    def plan(self) -> Plan:
        observed = Observed(
            containers=tuple(self.containers.values()),
            networks=tuple(self.networks.values()),
            volumes=tuple(self.volumes.values()),
        )
        images = {container.spec.image: image_id(container) for container in self.desired.containers}
        context = Context(
            **{"now": NOW, "image_ids": images, "records": tuple(self.records.values()), **self.context}
        )
        return reconcile(self.desired, observed, context)


def read(text: str) -> Desired:
    """The desired resources of a file's text, which must have no mistakes."""
    result = decode({"containers": parse(text, package="containers")}, paths={})
    assert [issue.text() for issue in result.issues if issue.severity == "error"] == []
    return result.desired


def a_world(before: str, after: str, change: Callable[[World], None] = lambda world: None) -> World:
    """A world in which `before` has been applied and `after` is declared; then `change` modifies it."""
    made, desired = read(before), read(after)
    world = World(desired)
    for container in made.containers:
        world.records[container.section] = _record("container", container, image_id=image_id(container))
        world.containers[container.section] = ObservedContainer(
            id=container.section.upper(),
            name=container.name,
            image=container.spec.image,
            image_id=image_id(container),
            state="running",
            status_text="Up 2 minutes",
        )
    for network in made.networks:
        world.records[network.section] = _record("network", network)
        world.networks[network.section] = ObservedNetwork(id=network.section.upper(), name=network.name)
    for volume in made.volumes:
        record = _record("volume", volume, object_id=volume.name)
        labels = {"ucidockd.nonce": record.nonce}
        world.records[volume.section] = record
        world.volumes[volume.section] = ObservedVolume(name=volume.name, labels=labels)
    change(world)
    return world


def image_id(container: Container) -> str:
    return f"sha256:{container.spec.image}"


def _record(kind: str, resource: Container | Network | Volume, **more: Any) -> Record:
    spec = desired_spec(resource)
    values: Mapping[str, Any] = {"object_id": resource.section.upper(), **more}
    if isinstance(resource, Container):
        policy = resource.policy
        values = {
            **values,
            "grace_s": policy.grace_s,
            "remove_volumes": policy.remove_volumes,
            "waits": waits_of(resource),
            "waits_known": True,
        }
    return Record(
        kind=kind,
        section=resource.section,
        nonce=f"nonce-{resource.section}",
        name=resource.name,
        spec=spec,
        spec_hash=spec_hash(spec),
        **values,
    )


_ORDINARY = {
    ("Synced", "InSync"),
    ("Waiting", "Ready"),
    ("ImageReady", "Present"),
    ("Running", "Running"),
    ("Running", "Absent"),
}


def text_of(plan: Plan) -> str:
    """The plan's text, plus a line `! key reason: message` for each finding that is not the normal state."""
    odd = [f for f in plan.findings if (f.type, f.reason) not in _ORDINARY]
    lines = [f"! {f.key} {f.reason}" + (f": {f.message}" if f.message else "") for f in odd]
    return "\n".join([str(plan), *lines])
