# SPDX-License-Identifier: GPL-2.0-or-later
"""`FakeEngine`: the Engine port in memory, on virtual time.

It behaves like dockerd 20.10 in everything that the agent relies on; `tests/virtual/test_engine_contract.py` checks
it against a real dockerd. Its bodies go through the same readers as those of the real engine.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from agent.engine.client import _inspected, _listed, _network, _published, _volume
from agent.errors import EngineError, EngineUnreachableError
from agent.model.identity import LABEL_INSTANCE
from agent.model.observed import (
    EngineIdentity,
    ObservedContainer,
    ObservedImage,
    ObservedNetwork,
    ObservedVolume,
    Published,
)
from agent.model.resources import RegistryAuth
from tests.support.virtual.bodies import (
    check_host,
    config_of,
    endpoint_of,
    endpoints_of,
    host_of,
    host_ports,
    stop_timeout,
)
from tests.support.virtual.clock import VirtualTime
from tests.support.virtual.networking import Networks, check_address
from tests.support.virtual.objects import KILLED_CODE, FakeContainer, FakeImage, FakeNetwork, FakeVolume
from tests.support.virtual.processes import Processes, wants_restart

_NUMBERS = (
    "Memory", "MemorySwap", "MemoryReservation", "NanoCpus", "CpuShares", "CpusetCpus", "BlkioWeight",
)  # fmt: skip
_PULL_S = 2.0


class _Stream:
    """Events that one subscriber has not read yet."""

    def __init__(self) -> None:
        self.events: deque[dict[str, Any]] = deque()
        self.ended = False


class FakeEngine:
    """`images`: reference -> image; `registry`: the images that a pull returns. Public names beyond the port are for
    tests."""

    def __init__(self, time: VirtualTime, *, api: tuple[int, int] = (1, 41)) -> None:
        self.time = time
        self.images: dict[str, FakeImage] = {}
        self.pushed: dict[str, FakeImage] = {}  # by digest, for tests about digests
        self.dangling: dict[str, FakeImage] = {}  # by id, images that lost their last name
        self.executed: list[tuple[str, tuple[str, ...]]] = []  # container name, command
        # exit code by the last word of a command; None: the command never ends
        self.exit_codes: dict[str, int | None] = {"false": 1}
        self.failing: set[str] = set()  # ids of images in which each command of `execute` exits with 3
        self.registry: dict[str, FakeImage] = {}
        self.no_registry = ""  # the reason why pulls fail, "" if they work
        self.containers: dict[str, FakeContainer] = {}
        self.volumes: dict[str, FakeVolume] = {}
        self.root = "data"
        self._roots: dict[
            str, tuple[dict[str, FakeContainer], Networks, dict[str, FakeVolume]]
        ] = {}  # the data roots that are not in use
        self.up = True
        self.reserved: set[str] = set()  # names of containers that are still being created
        self.runs = 0  # how often it was started
        self.mute = False  # True: the engine delivers no events
        self.removed_volumes: list[str] = []
        self._api = api
        self._numbers = itertools.count(1)
        self._streams: list[_Stream] = []
        self._past: deque[dict[str, Any]] = deque(maxlen=256)
        self.networks = Networks(self.new_id)
        self.networks.get("bridge").created = time.text()
        self.processes = Processes(time, self._attach, self._detach, self._tell)

    def new_id(self) -> str:
        return hashlib.sha256(f"object {next(self._numbers)}".encode()).hexdigest()

    # the port: looking

    def api_version(self) -> tuple[int, int]:
        self._check_up()
        return self._api

    def ping(self) -> tuple[int, int]:
        return self.api_version()

    def identity(self, *, fresh: bool = False) -> EngineIdentity:
        """The id belongs to the machine in 20.10, so it stays the same with another data root."""
        del fresh
        self._check_up()
        return EngineIdentity(id="FAKE", root=self.root, driver="overlay2")

    def info(self) -> dict[str, Any]:
        self._check_up()
        return {"ID": "FAKE", "Containers": len(self.containers), "SystemTime": self.time.text()}

    def list_containers(self, instance: str) -> tuple[ObservedContainer, ...]:
        self._check_up()
        items = [c.listed(self.time.now) for c in self.containers.values()]
        ours = (item for item in items if item["Labels"].get(LABEL_INSTANCE) == instance)
        return tuple(_listed(deepcopy(item)) for item in ours)

    def list_names(self) -> frozenset[str]:
        self._check_up()
        return frozenset(c.name for c in self.containers.values())

    def list_published(self) -> dict[str, Published]:
        self._check_up()
        return {c.id: _published(c.published()) for c in self.containers.values() if c.state == "running"}

    def list_networks(self) -> tuple[ObservedNetwork, ...]:
        self._check_up()
        return tuple(_network(deepcopy(n.body(members=False))) for n in self.networks.by_id.values())

    def list_volumes(self) -> tuple[ObservedVolume, ...]:
        self._check_up()
        return tuple(_volume(deepcopy(v.body())) for v in self.volumes.values())

    def inspect_container(self, ref: str) -> ObservedContainer | None:
        self._check_up()
        found = self.find(ref)
        return None if found is None else _inspected(deepcopy(found.body()))

    def inspect_network(self, ref: str) -> ObservedNetwork | None:
        self._check_up()
        found = self.networks.find(ref)
        return None if found is None else _network(deepcopy(found.body(members=True)))

    def inspect_chosen_mac(self, ref: str) -> str | None:
        self._get(ref)
        return ""

    def inspect_volume(self, ref: str) -> ObservedVolume | None:
        self._check_up()
        found = self.volumes.get(ref)
        return None if found is None else _volume(deepcopy(found.body()))

    def inspect_image(self, ref: str) -> dict[str, Any] | None:
        self._check_up()
        found = self._find_image(ref)
        if found is None:
            return None
        body = found.body([tag for tag, image in self.images.items() if image.id == found.id])
        if self.pushed:
            body["RepoDigests"] = [digest for digest, image in self.pushed.items() if image.id == found.id]
        return deepcopy(body)

    def list_images(self) -> tuple[ObservedImage, ...]:
        self._check_up()
        found = {image.id: image for image in (*self.images.values(), *self.dangling.values())}
        tags = {i: tuple(tag for tag, image in self.images.items() if image.id == i) for i in found}
        return tuple(ObservedImage(id=i, tags=tags[i], size=1 << 20) for i in found)

    def list_image_users(self) -> dict[str, str]:
        self._check_up()
        return {container.image_id: container.name for container in self.containers.values()}

    def list_build_cache(self) -> tuple[dict[str, Any], ...]:
        self._check_up()
        return ()

    def prune_build_cache(self, unused_s: float) -> int:
        del unused_s
        self._check_up()
        return 0

    def inspect_output(self, ref: str, *, lines: int) -> bytes:
        del lines
        self._get(ref)
        return b""

    # the port: containers

    def create_container(self, name: str, body: dict[str, Any], *, platform: str = "") -> str:
        self._check_up()
        image = self._find_image(body["Image"])
        if image is None:
            raise EngineError(f"No such image: {body['Image']}", status=404)
        config, host = config_of(body, image), host_of(body)
        self._check_body(name, config, host, body)
        container = FakeContainer(
            id=self.new_id(),
            name=name,
            image=body["Image"],
            image_id=image.id,
            config=config,
            host=host,
            networks=endpoints_of(body, mac=self._api >= (1, 44)),
            mounts=[],
            image_number=image.number,
        )
        container.mounts = self._mounts(config, host)
        self.containers[container.id] = container
        self._tell(container, "create")
        return container.id

    def _check_body(
        self, name: str, config: dict[str, Any], host: dict[str, Any], body: dict[str, Any]
    ) -> None:
        self._check_name(name)
        if not config.get("Cmd") and not config.get("Entrypoint"):
            raise EngineError("No command specified", status=400)
        check_host(host)
        endpoints = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
        if len(endpoints) > 1 and self._api < (1, 44):
            names = ", ".join(endpoints)
            raise EngineError(f"Container cannot be connected to network endpoints: {names}", status=400)
        targets = [mount["Target"] for mount in host.get("Mounts") or ()]
        for target in targets:
            if targets.count(target) > 1:
                raise EngineError(f"Duplicate mount point: {target}", status=400)
        for mount in host.get("Mounts") or ():
            if mount["Type"] == "bind" and not Path(mount["Source"]).exists():
                text = f'invalid mount config for type "bind": bind source path does not exist: {mount["Source"]}'
                raise EngineError(text, status=400)

    def _check_name(self, name: str) -> None:
        other = next((c for c in self.containers.values() if c.name == name), None)
        if other is not None:
            text = f'Conflict. The container name "/{name}" is already in use by container "{other.id}".'
            raise EngineError(text, status=409)
        if name in self.reserved:
            raise EngineError(f'Conflict. The container name "/{name}" is already in use.', status=409)

    def _mounts(self, config: dict[str, Any], host: dict[str, Any]) -> list[dict[str, Any]]:
        mounts = [self._mount(mount) for mount in host.get("Mounts") or ()]
        there = {mount["Destination"] for mount in mounts}
        for entry in host.get("VolumesFrom") or ():
            name, _, mode = entry.partition(":")
            lent = [{**m, "RW": m["RW"] and mode != "ro"} for m in self._get(name).mounts]
            mounts += [mount for mount in lent if mount["Destination"] not in there]
        there = {mount["Destination"] for mount in mounts}
        fresh = sorted((config.get("Volumes") or {}).keys() - there)
        return mounts + [self._mount({"Type": "volume", "Target": target}) for target in fresh]

    def _mount(self, sent: dict[str, Any]) -> dict[str, Any]:
        writes = not sent.get("ReadOnly")
        if sent["Type"] == "bind":
            return {"Type": "bind", "Source": sent["Source"], "Destination": sent["Target"], "RW": writes}
        # an anonymous volume of this container: `remove_container` deletes it if asked to
        own = not sent.get("Source")
        name = sent.get("Source") or self.new_id()
        if name not in self.volumes:
            self.volumes[name] = FakeVolume(name=name, driver="local", labels={}, options={})
            self._say("volume", "create", name, {})
        return {
            "Type": "volume",
            "Name": name,
            "Destination": sent["Target"],
            "RW": writes,
            "Driver": "local",
            "_own": own,
        }

    def execute(self, ref: str, argv: Sequence[str], timeout_s: float) -> tuple[int | None, bytes]:
        container = self._get(ref)
        if container.state != "running":
            raise EngineError(f"Container {container.id} is not running", status=409)
        self.executed.append((container.name, tuple(argv)))
        code = 3 if container.image_id in self.failing else self.exit_codes.get(argv[-1], 0)
        self.time.sleep(0.2 if code is not None else timeout_s)
        return code, b"no such thing\n" if code else b""

    def start(self, ref: str) -> None:
        container = self._get(ref)
        if container.state in {"running", "restarting"}:
            return
        if container.state == "paused":
            raise EngineError("cannot start a paused container, try unpause instead", status=409)
        if container.state in {"dead", "removing"}:
            text = "container is marked for removal and cannot be started"
            raise EngineError(text, status=409)
        container.stopped_by_hand, container.restart_count, container.quick_exits = False, 0, 0
        self.processes.start(container)

    def stop(self, ref: str, timeout_s: int | None) -> None:
        self._check_up()
        container = self.find(ref)
        if container is None or not container.alive:
            return
        if container.state == "restarting":
            container.run += 1
            container.state, container.stopped_by_hand = "exited", True
            self._tell(container, "stop")
            return
        run = container.run
        container.stopped_by_hand = True
        self.time.sleep(timeout_s if timeout_s is not None else stop_timeout(container))
        self._check_up()
        if container.run == run and container.alive and container.id in self.containers:
            self._signal(container, "15")
            self.processes.exit(container, container.stopped_code, by_hand=True)
            self._tell(container, "stop")

    def kill(self, ref: str) -> None:
        """POST /containers/{id}/kill, for tests that kill a container outside the agent."""
        container = self._get(ref)
        if not container.alive or container.state == "restarting":
            raise EngineError(
                f"Cannot kill container: {ref}: Container {container.id} is not running", status=409
            )
        self._signal(container, "9")
        self.processes.exit(container, KILLED_CODE, by_hand=True)

    def pause(self, ref: str) -> None:
        container = self._get(ref)
        if container.state != "running":
            raise EngineError(f"Container {ref} is not running", status=409)
        container.state = "paused"
        self._tell(container, "pause")

    def unpause(self, ref: str) -> None:
        container = self._get(ref)
        if container.state != "paused":
            raise EngineError(f"Container {container.id} is not paused", status=500, retryable=True)
        container.state = "running"
        self._tell(container, "unpause")

    def crash(self, ref: str, code: int = 1, *, oom: bool = False) -> None:
        """The container's process ends without a request."""
        container = self._get(ref)
        if container.state == "running":
            self.processes.exit(container, code, oom=oom)

    def update(self, ref: str, body: dict[str, Any]) -> None:
        container = self._get(ref)
        changes = {name: body[name] for name in _NUMBERS if body.get(name)}
        host = {**container.host, **changes}
        if body.get("PidsLimit") is not None:
            host["PidsLimit"] = max(0, body["PidsLimit"]) or None
        policy = body.get("RestartPolicy") or {}
        if policy.get("Name"):
            host["RestartPolicy"] = {"MaximumRetryCount": 0, **policy}
        check_host(host)
        container.host = host
        self._tell(container, "update")

    def rename(self, ref: str, name: str) -> None:
        container = self._get(ref)
        if container.name == name:
            return  # dockerd refuses this rename, and the client treats the refusal as success
        self._check_name(name)
        container.name = name
        for endpoint in container.networks.values():
            endpoint["_name"] = name
        self._tell(container, "rename")

    def remove_container(self, ref: str, *, volumes: bool, force: bool = False) -> None:
        self._check_up()
        container = self.find(ref)
        if container is None:
            return
        if container.alive and not force:
            text = (
                f"You cannot remove a {container.state} container {container.id}. Stop the container before"
            )
            raise EngineError(text, status=409)
        if container.alive:
            self.processes.exit(container, KILLED_CODE, by_hand=True)
        del self.containers[container.id]
        self._tell(container, "destroy")
        if volumes:
            for mount in container.mounts:
                if mount.get("_own") and not self._users(mount["Name"]):
                    self._remove_volume(mount["Name"])

    # the port: networks

    def connect(self, network: str, container: str, endpoint: dict[str, Any]) -> None:
        self._check_up()
        member = self._get(container)
        # older versions accept a MAC address here and drop it
        endpoint = endpoint_of(endpoint, mac=self._api >= (1, 54))
        if self.networks.find(network) is None and not member.alive:
            member.networks[network] = endpoint  # the engine resolves the name when the container starts
            return
        found = self.networks.get(network)
        mode = member.host["NetworkMode"]
        if mode in {"none", "host"}:
            text = (
                f"container cannot be connected to multiple networks with one of the networks in {mode} mode"
            )
            raise EngineError(text, status=400)
        if endpoint["Aliases"] and found.name in {"bridge", "host", "none"}:
            text = "network-scoped alias is supported only for containers in user defined networks"
            raise EngineError(text, status=400)
        check_address(found, endpoint)
        if member.alive and member.id in found.members:
            text = f"endpoint with name {member.name} already exists in network {found.name}"
            raise EngineError(text, status=403)
        before = member.networks.get(found.name)
        member.networks[found.name] = endpoint
        if member.state in {"running", "paused"}:
            try:
                self.networks.attach(member, found.name)
            except EngineError:
                del member.networks[found.name]
                if before is not None:
                    member.networks[found.name] = before
                raise
        self._say("network", "connect", found.id, {"name": found.name, "container": member.id})

    def disconnect(self, network: str, container: str) -> None:
        self._check_up()
        found, member = self.networks.find(network), self.find(container)
        if member is None:
            return
        name = found.name if found is not None else network
        if name not in member.networks:
            text = f"container {member.id} is not connected to the network {name}"
            raise EngineError(text, status=500, retryable=True)
        if member.state == "restarting":
            text = f"container {member.id} is not connected to network {name}"
            raise EngineError(text, status=500, retryable=True)
        self.networks.detach(member, [name])
        del member.networks[name]
        if found is not None:
            self._say("network", "disconnect", found.id, {"name": name, "container": member.id})

    def create_network(self, body: dict[str, Any]) -> str:
        self._check_up()
        network = self.networks.create(body)
        self._tell_network(network, "create")
        return network.id

    def remove_network(self, ref: str) -> None:
        self._check_up()
        if self.networks.find(ref) is not None:
            self._tell_network(self.networks.remove(ref), "destroy")

    # the port: volumes and images

    def create_volume(self, body: dict[str, Any]) -> ObservedVolume:
        self._check_up()
        name = body["Name"]
        if name not in self.volumes:
            labels, options = dict(body.get("Labels") or {}), dict(body.get("DriverOpts") or {})
            driver = body.get("Driver") or "local"
            self.volumes[name] = FakeVolume(name=name, driver=driver, labels=labels, options=options)
            self._say("volume", "create", name, {})
        return _volume(deepcopy(self.volumes[name].body()))

    def remove_volume(self, name: str) -> None:
        self._check_up()
        if name not in self.volumes:
            return
        users = self._users(name)
        if users:
            text = f"remove {name}: volume is in use - [{', '.join(users)}]"
            raise EngineError(text, status=409)
        self._remove_volume(name)

    def _remove_volume(self, name: str) -> None:
        del self.volumes[name]
        self.removed_volumes.append(name)
        self._say("volume", "destroy", name, {})

    def _users(self, volume: str) -> list[str]:
        return [c.id for c in self.containers.values() if any(m.get("Name") == volume for m in c.mounts)]

    def pull(
        self,
        image: str,
        auth: RegistryAuth | None,
        on_progress: Callable[[dict[str, Any]], None],
        meanwhile: Callable[[], None],
        *,
        platform: str = "",
    ) -> None:
        del auth
        self._check_up()
        for status in ("Pulling fs layer", "Download complete", "Pull complete"):
            self.time.sleep(_PULL_S / 3)
            self._check_up()
            if self.no_registry:
                raise EngineError(f"cannot pull {image}: {self.no_registry}", status=500, retryable=True)
            if image not in self.registry and image not in self.pushed:
                raise EngineError(f"cannot pull {image}: manifest unknown", status=404, retryable=True)
            meanwhile()
            on_progress({"id": "layer", "status": status})
        if "@" in image:  # a pull by digest leaves the image without a name, as in dockerd
            self.dangling[self.pushed[image].id] = self.pushed[image]
        else:
            self.untag(image)
            self.images[image] = self.registry[image]
        self._say("image", "pull", image, {"name": image})

    def tag(self, image: FakeImage, ref: str) -> None:
        """POST /images/{id}/tag."""
        self.untag(ref)
        self.images[ref] = image
        self._say("image", "tag", image.id, {"name": ref})

    def remove_image(self, ref: str) -> None:
        """DELETE /images/{ref}. Raises EngineError if a container uses the image and the image has no other name."""
        self._check_up()
        image = self._find_image(ref)
        if image is None:
            return
        names = [name for name, each in self.images.items() if each.id == image.id]
        if len(names) < 2 and any(c.image_id == image.id for c in self.containers.values()):
            raise EngineError(f"conflict: unable to delete {ref}: a container uses it", status=409)
        if ref in self.images:
            del self.images[ref]
        else:
            for name in names:
                del self.images[name]
        self.dangling.pop(image.id, None)
        if ref in names and len(names) > 1:
            return
        self._say("image", "delete", image.id, {"name": ref})

    def untag(self, ref: str) -> None:
        """Takes the name `ref` from an image and keeps the image, as dockerd does when a container uses the image."""
        image = self.images.pop(ref, None)
        if image is not None:
            self.dangling[image.id] = image

    def events(self, since: int | None) -> Iterator[dict[str, Any]]:
        del since
        self._check_up()
        stream = _Stream()
        self._streams.append(stream)
        return self._follow(stream)

    def past_events(self, container: str, until: str) -> tuple[dict[str, Any], ...]:
        del until
        self._check_up()
        return tuple(deepcopy(e) for e in self._past if e["Actor"]["ID"] == container)

    def _follow(self, stream: _Stream) -> Iterator[dict[str, Any]]:
        try:
            while True:
                if not stream.events and not stream.ended:
                    self.time.block(lambda: bool(stream.events) or stream.ended)
                if not stream.events:
                    return
                yield stream.events.popleft()
        finally:
            self._streams = [s for s in self._streams if s is not stream]

    def cut_streams(self) -> None:
        """Closes the event streams of all subscribers."""
        for stream in self._streams:
            stream.ended = True

    def read_events(self) -> list[dict[str, Any]]:
        """The events since `subscribe` or since the last call; for tests without guests."""
        found = [event for stream in self._streams for event in stream.events]
        for stream in self._streams:
            stream.events.clear()
        return found

    def subscribe(self) -> None:
        self._streams.append(_Stream())

    # the engine itself

    def become(self, api: tuple[int, int]) -> None:
        """Changes the API version and keeps the data, as an upgrade does; call it while the engine is down."""
        self._api = api

    def stop_engine(self, *, live_restore: bool = False) -> None:
        """Stops the engine; without live-restore, its containers stop too."""
        self.up = self.processes.up = False
        self.cut_streams()
        if live_restore:
            return
        for container in self.containers.values():
            if container.state in {"running", "paused"}:
                by_hand = container.stopped_by_hand
                self.processes.exit(container, container.stopped_code)
                container.stopped_by_hand = by_hand
            elif container.state == "restarting":
                container.run += 1
                container.state = "exited"

    def exchange(self, root: str) -> None:
        """Switches to another data root; call it while the engine is down. The other root is empty the first time. Both
        roots have the same images."""
        self._roots[self.root] = (self.containers, self.networks, self.volumes)
        self.root = root
        self.containers, self.networks, self.volumes = self._roots.get(root) or (
            {},
            Networks(self.new_id),
            {},
        )

    def start_engine(self) -> None:
        """Starts the engine, which then starts containers according to their restart policies."""
        self.up = self.processes.up = True
        self.runs += 1
        self.reserved.clear()
        # dockerd keeps past events in memory only, so a restart loses them, those of the shutdown included
        self._past.clear()
        self.networks.get("bridge").created = self.time.text()
        for container in list(self.containers.values()):
            if container.state == "exited" and container.started_before and wants_restart(container):
                try:
                    self.processes.start(container)
                except EngineError as exc:
                    container.error = str(exc)

    # inside

    def _check_up(self) -> None:
        if not self.up:
            raise EngineUnreachableError("the engine in memory does not answer")

    def find(self, ref: str) -> FakeContainer | None:
        """Looks a container up by full id, by name, or by the start of an id, in that order."""
        if ref in self.containers:
            return self.containers[ref]
        named = [c for c in self.containers.values() if c.name == ref.removeprefix("/")]
        started = [c for c in self.containers.values() if ref and c.id.startswith(ref)]
        return next(iter(named or started), None)

    def _get(self, ref: str) -> FakeContainer:
        self._check_up()
        found = self.find(ref)
        if found is None:
            raise EngineError(f"No such container: {ref}", status=404)
        return found

    def _find_image(self, ref: str) -> FakeImage | None:
        if ref in self.pushed:
            ref = self.pushed[ref].id
        named = self.images.get(ref if ":" in ref else f"{ref}:latest")
        named = named or next((i for i in self.images.values() if i.id == ref), None)
        return named or self.dangling.get(ref)

    def _attach(self, container: FakeContainer) -> None:
        """Attaches all endpoints and host ports, or none of them. Raises EngineError."""
        self._check_ports(container)
        mode = container.host.get("NetworkMode") or "default"
        if mode.startswith("container:"):
            container.joined = self._joined(mode.partition(":")[2])
        made: list[str] = []
        try:
            for name in container.networks:
                self.networks.attach(container, name)
                made.append(name)
        except EngineError:
            self.networks.detach(container, made)
            raise

    def _joined(self, ref: str) -> tuple[str, int]:
        other = self.find(ref)
        if other is None:
            raise EngineError(f"No such container: {ref}", status=404)
        if not other.alive:
            raise EngineError(f"cannot join network of a non running container: {other.id}", status=409)
        if other.state == "restarting":
            raise EngineError(
                f"Container {other.id} is restarting, wait until the container is running", status=409
            )
        return other.id, other.run

    def _check_ports(self, container: FakeContainer) -> None:
        mine = host_ports(container)
        for other in self.containers.values():
            if other is not container and other.state in {"running", "paused"} and mine & host_ports(other):
                port = min(mine & host_ports(other))
                text = f"driver failed programming external connectivity on endpoint {container.name}: "
                text += f"Bind for 0.0.0.0:{port} failed: port is already allocated"
                raise EngineError(text, status=500, retryable=True)

    def _detach(self, container: FakeContainer) -> None:
        self.networks.detach(container, list(container.networks))

    def users_of(self, volume: str) -> int:
        """The number of containers that mount the volume."""
        return len(self._users(volume))

    def _tell(self, container: FakeContainer, action: str) -> None:
        if action == "start":
            for mount in container.mounts:
                if mount["Type"] == "volume" and mount["RW"] and mount["Name"] in self.volumes:
                    found = self.volumes[mount["Name"]]
                    found.data = max(found.data, container.image_number)
        self._say("container", action, container.id, {"name": container.name, "image": container.image})

    def _signal(self, container: FakeContainer, number: str) -> None:
        self._say("container", "kill", container.id, {"name": container.name, "signal": number})

    def _tell_network(self, network: FakeNetwork, action: str) -> None:
        self._say(
            "network", action, network.id, {"name": network.name, "type": network.sent.get("Driver", "")}
        )

    def _say(self, kind: str, action: str, object_id: str, attributes: dict[str, str]) -> None:
        actor = {"ID": object_id, "Attributes": attributes}
        moment = int(self.time.wall())
        event = {"Type": kind, "Action": action, "Actor": actor, "time": moment, "timeNano": moment * 10**9}
        self._past.append(event)
        for stream in self._streams if not self.mute else ():
            stream.events.append(event)
