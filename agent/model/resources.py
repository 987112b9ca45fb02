# SPDX-License-Identifier: GPL-2.0-or-later
"""Desired resources as UCI declares them: containers, networks, volumes, registry logins, and the agent's settings.

`agent.uci.decode` creates them from sections; `agent.plan` compares them with `agent.model.observed`. In every *Spec
class None (or an empty tuple) means "not set by the user": such a field is never compared. Sizes are bytes, durations
in specs nanoseconds (the Engine API's unit); times in policies are seconds.
"""

from __future__ import annotations

import ipaddress
from binascii import b2a_base64
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum

from agent.errors import ConfigError
from agent.model.addresses import ListenAddress
from agent.model.dockerd.settings import DaemonSettings
from agent.model.notices import NotifySection
from agent.model.updates import UpdateCheck, UpdateWindow

DEFAULT_NETWORKS = frozenset({"", "bridge", "default"})
"""The values of `network_mode` for the engine's default bridge ("" if it is not set). Ports are published there."""
NO_NETWORKS = frozenset({"host", "none"})
"""Network names that are modes: they cannot be combined with another network."""


class Pull(StrEnum):
    """When an image is pulled."""

    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


class OnDrift(StrEnum):
    """What to do about a change that was made outside of ucidockd."""

    REPAIR = "repair"
    REPORT = "report"


class OnUnhealthy(StrEnum):
    """What to do if a health check fails."""

    REPORT = "report"
    RESTART = "restart"


class Update(StrEnum):
    """What to do about a newer image of a running container."""

    OFF = "off"
    NOTIFY = "notify"
    AUTO = "auto"


class Strategy(StrEnum):
    """How a container is replaced."""

    SWAP = "swap"
    HANDOVER = "handover"
    FREE_FIRST = "free-first"


class RunState(StrEnum):
    """`option state`."""

    RUNNING = "running"
    STOPPED = "stopped"


class DependsOn(StrEnum):
    """The condition of a `depends_on` entry."""

    STARTED = "started"
    HEALTHY = "healthy"
    COMPLETED = "completed"


class WaitKind(StrEnum):
    """What a `wait_for` entry waits for."""

    MOUNT = "mount"
    FILE = "file"
    DEVICE = "device"
    INTERFACE = "interface"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One published port; ranges are already expanded.

    With `host_port` 0 the engine chooses a port; with `host_port_end` it takes the first free port of that range.
    """

    container_port: int
    host_port: int = 0
    host_port_end: int | None = None
    host_ip: str = ""
    protocol: str = "tcp"

    @property
    def host_ports(self) -> range:
        """The host ports that it may get; only 0 if any port will do."""
        return range(self.host_port, (self.host_port_end or self.host_port) + 1)

    @property
    def is_local(self) -> bool:
        """Whether it is only reachable from the router itself."""
        return bool(self.host_ip) and ipaddress.ip_address(self.host_ip).is_loopback

    @property
    def host_text(self) -> str:
        """The text for people."""
        if not self.host_port:
            return "a port"
        return f"{self.host_port}-{self.host_port_end}" if self.host_port_end else str(self.host_port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One `volume` entry. A path in `source` is a bind mount, a name is a volume, "" is an anonymous volume."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = ""
    no_copy: bool = False

    @property
    def is_bind(self) -> bool:
        return self.source.startswith("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs:
    """One `tmpfs` entry; options in the engine's form, "" for none."""

    target: str
    options: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One `device` entry; `host` may be `usb:VID:PID[:serial]` until it is resolved."""

    host: str
    container: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLimit:
    """One entry of `blkio_weight_device` or `device_*_bps|iops`: a weight, or bytes or operations per second."""

    path: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """One `gpus` entry; `count` -1 means all. Without `devices` the driver chooses `count` of them."""

    count: int | None = None
    driver: str | None = None
    devices: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()  # sorted, without `gpu`, which all of them have
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """One `ulimit` entry."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One `network` entry: the network's Docker name, and the settings of the container on it."""

    network: str
    aliases: tuple[str, ...] = ()
    ip: str = ""
    ip6: str = ""
    mac_address: str = ""
    link_local: tuple[str, ...] = ()  # sorted
    driver_opts: tuple[tuple[str, str], ...] = ()  # sorted
    gw_priority: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """`option restart`; `max_retries` only applies to on-failure."""

    name: str
    max_retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """The health_* options; times in nanoseconds, None means the default of the image or engine.

    At most one of `cmd`, which runs in the image's shell, and `argv`, a program with its arguments.
    """

    cmd: str | None = None
    argv: tuple[str, ...] = ()
    interval_ns: int | None = None
    timeout_ns: int | None = None
    retries: int | None = None
    start_period_ns: int | None = None
    start_interval_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """The part of a container that the spec hash covers."""

    image: str
    hostname: str | None = None
    domainname: str | None = None
    user: str | None = None
    workdir: str | None = None
    privileged: bool | None = None
    restart: RestartPolicy | None = None
    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    nano_cpus: int | None = None
    cpu_shares: int | None = None
    cpuset: str | None = None
    pids_limit: int | None = None
    shm_size: int | None = None
    blkio_weight: int | None = None
    oom_kill_disable: bool | None = None
    init: bool | None = None
    read_only: bool | None = None
    tty: bool | None = None
    stdin: bool | None = None
    stop_signal: str | None = None
    stop_timeout_s: int | None = None
    runtime: str | None = None
    network_mode: str | None = None
    ipc: str | None = None
    pid: str | None = None
    userns: str | None = None
    log_driver: str | None = None
    publish_all: bool | None = None
    health: Healthcheck | None = None
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    # sorted by key; secrets stay here, only hashes are stored or shown (identity.py)
    env: tuple[tuple[str, str], ...] = ()
    ports: tuple[Port, ...] = ()  # sorted
    mounts: tuple[Mount, ...] = ()  # sorted by target
    tmpfs: tuple[Tmpfs, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()  # in the user's order: the container is created on the first
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()  # upper case with CAP_, sorted
    cap_drop: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "name:address"
    labels: tuple[tuple[str, str], ...] = ()
    log_opts: tuple[tuple[str, str], ...] = ()
    group_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    # content of the profile that `security_opt` names as a file, JSON; only its hash is stored or shown
    seccomp: str | None = None
    cdi_devices: tuple[str, ...] = ()  # sorted
    cpu_period: int | None = None  # microseconds, as are the next three
    cpu_quota: int | None = None
    cpu_rt_period: int | None = None
    cpu_rt_runtime: int | None = None
    cpuset_mems: str | None = None
    memory_swappiness: int | None = None  # per cent
    oom_score_adj: int | None = None
    stdin_once: bool | None = None
    uts: str | None = None
    cgroupns: str | None = None
    cgroup_parent: str | None = None
    platform: str | None = None  # os/architecture[/variant]
    volume_driver: str | None = None
    blkio_weight_devices: tuple[DeviceLimit, ...] = ()  # each sorted by path
    device_read_bps: tuple[DeviceLimit, ...] = ()
    device_read_iops: tuple[DeviceLimit, ...] = ()
    device_write_bps: tuple[DeviceLimit, ...] = ()
    device_write_iops: tuple[DeviceLimit, ...] = ()
    gpus: tuple[Gpus, ...] = ()
    expose: tuple[str, ...] = ()  # "80/tcp", sorted
    volumes_from: tuple[str, ...] = ()  # "name" or "name:ro"
    storage_opts: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """One `depends_on` entry: a section name and the condition it must meet."""

    section: str
    condition: DependsOn = DependsOn.STARTED


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitFor:
    """One `wait_for` entry; `target` is a path or an interface, "" for the clock."""

    kind: WaitKind
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPolicy:
    """Options that never require a new container: they are not part of the spec hash."""

    enabled: bool = True
    state: RunState = RunState.RUNNING
    pull: Pull = Pull.MISSING
    adopt: bool = False
    on_drift: OnDrift = OnDrift.REPAIR
    on_unhealthy: OnUnhealthy = OnUnhealthy.REPORT
    rollback: bool = True
    gate_s: float = 5.0
    grace_s: float = 120.0
    remove_volumes: bool = False
    wait_for: tuple[WaitFor, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    # None if not set: holds are stored with a hash of all this, which must survive an upgrade
    update: Update | None = None  # None: notify
    update_window: UpdateWindow | None = None
    update_age_s: float | None = None
    strategy: Strategy | None = None  # None: swap
    hold_cmd: tuple[str, ...] = ()  # an argument list, as are the hooks below
    hold_limit_s: float | None = None
    pre_stop: tuple[str, ...] = ()
    pre_stop_timeout_s: float | None = None
    post_start: tuple[str, ...] = ()
    post_start_timeout_s: float | None = None
    backup_before_update: bool | None = None
    webui: str | None = None  # may contain `[host]` and `[port:80]`

    @property
    def should_run(self) -> bool:
        """Whether the section wants a running container."""
        return self.enabled and self.state is RunState.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadFile:
    """A file that is missing, so a field of the spec is unknown. `reason`: the option, the file, and what is wrong."""

    field: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A `config container` section. `name` is the Docker name: changing it renames the container and does not recreate
    it."""

    section: str
    name: str
    spec: ContainerSpec
    policy: ContainerPolicy = field(default_factory=ContainerPolicy)
    stack: str = ""  # the stack that it belongs to
    # the present places of its `usb:` devices: (name, path); found at run time, not part of the section
    plugged: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    # whether another section waits until this one has completed
    awaited: bool = field(default=False, compare=False)
    unread: tuple[UnreadFile, ...] = ()  # while there are any, the container is neither created nor changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A `config backup` section. `volumes`: Docker names, including the volumes that its containers mount. Archives go
    to the directory `target` or to the shell command `command`. `keep`: number of archives per volume."""

    name: str
    sections: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    schedule: str = "off"
    window: UpdateWindow | None = None
    target: str = ""
    command: str = ""
    keep: int = 7
    stop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A `config stack` section: settings that the containers of a stack share; zone and subnets apply to the stack's own
    network."""

    name: str
    env: tuple[tuple[str, str], ...] = ()
    unread: tuple[UnreadFile, ...] = ()  # missing files of `env`
    zone: str = "docker"
    subnets: tuple[str, ...] = ()


def prerequisites_first(needs: Mapping[str, Set[str]]) -> list[str]:
    """The names, each after the names that it needs, otherwise in the given order.

    Circles are refused when sections are decoded; the names in a circle keep their order.
    """
    left = dict(needs)
    ordered: list[str] = []
    while left:
        ready = [name for name, wanted in left.items() if not wanted & left.keys()]
        # if none is ready, the rest is a circle: return it in the given order instead of dropping it
        for name in ready or list(left):
            ordered.append(name)
            del left[name]
    return ordered


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One address pool of a network: the n-th subnet with the gateway and range of its family."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """The part of a network that the spec hash covers."""

    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    pools: tuple[Pool, ...] = ()
    options: tuple[tuple[str, str], ...] = ()  # includes parent, mode and the fixed bridge name
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A `config network` section. `external`: others manage the network, containers only join it."""

    section: str
    name: str
    spec: NetworkSpec
    zone: str = "docker"
    adopt: bool = False
    external: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """The part of a volume that the spec hash covers."""

    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A `config volume` section."""

    section: str
    name: str
    spec: VolumeSpec
    adopt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RegistryAuth:
    """A `config auth` section. Its repr never shows the secret."""

    server: str
    username: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"RegistryAuth(server={self.server!r}, ***)"

    def secrets(self) -> tuple[str, ...]:
        """Secrets that a registry may echo: they must appear nowhere."""
        login = b2a_base64(f"{self.username}:{self.token or self.password}".encode(), newline=False).decode()
        return tuple(secret for secret in (self.token, self.password, login) if secret)


class PruneImages(StrEnum):
    """`option prune_images` of the agent."""

    OFF = "off"
    DANGLING = "dangling"  # images without a name
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold of free space: bytes, or a percentage of the file system."""

    size: int = 0
    percent: int = 0

    def bytes_of(self, total: int) -> int:
        """Its size in bytes on a file system of `total` bytes."""
        return self.size or total * self.percent // 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSettings:
    """The agent's `prune_*` options."""

    images: PruneImages = PruneImages.OFF
    older_s: float = 7 * 86400.0
    build_cache: bool = False
    schedule: str = "daily"  # or weekly, or off
    window: UpdateWindow | None = None
    below: Threshold | None = None

    @property
    def is_on(self) -> bool:
        """Whether anything is cleaned up automatically."""
        return self.images is not PruneImages.OFF or self.build_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The `config agent` section."""

    enabled: bool = True
    socket: str = "/var/run/ucidockd/agent.sock"
    listen: tuple[ListenAddress, ...] = ()
    cert: str = ""
    key: str = ""
    cors_origin: tuple[str, ...] = ()
    allowed_host: tuple[str, ...] = ()
    allow_exposed: bool = False
    allow_container_clients: bool = False
    resync_s: float = 60.0
    resync_deep_s: float = 600.0
    workers: int = 4
    log_level: str = "info"
    daemon: str = ""  # "" = procd on OpenWrt, external elsewhere
    docker_host: str = "unix:///var/run/docker.sock"
    docker_cert_path: str = ""  # the directory with ca.pem, cert.pem and key.pem for an engine over TCP
    dockerd: str = "dockerd"
    dockerd_args: tuple[str, ...] = ()
    remove: bool = False
    load_history: bool = True
    update_check: UpdateCheck = UpdateCheck.OFF
    update_check_window: UpdateWindow | None = None
    prune: PruneSettings = field(default_factory=PruneSettings)
    keep_images: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """Everything that the committed configuration declares. `broken` sections are invalid: their objects are left alone."""

    containers: tuple[Container, ...] = ()
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    auths: tuple[RegistryAuth, ...] = ()
    backups: tuple[Backup, ...] = ()
    notices: tuple[NotifySection, ...] = ()
    agent: AgentSettings = field(default_factory=AgentSettings)
    broken: frozenset[str] = frozenset()  # keys "container:web", "network:lan", ...
    # kinds and Docker names of the objects of broken sections: "container:web"
    claimed: frozenset[str] = frozenset()
    # image -> a container section that names it, including invalid sections
    images: Mapping[str, str] = field(default_factory=dict)
    daemon: DaemonSettings | None = None  # None: no section configures dockerd
    daemon_mistakes: tuple[str, ...] = ()  # mistakes in those sections; invalid options are left out
    generation: str = ""  # hash of the committed files
    # key -> hash, computed once when reading because every pass needs all of them; a missing one is computed on
    # demand
    spec_hashes: Mapping[str, str] = field(default_factory=dict)

    def container(self, name: str) -> Container:
        """The container with this section name, or else with this Docker name. Raises ConfigError."""
        # sections first: a section may have the Docker name of another one
        found = next((c for c in self.containers if c.section == name), None)
        found = found or next((c for c in self.containers if c.name == name), None)
        if found is not None:
            return found
        if f"container:{name}" in self.broken:
            raise ConfigError(f"section {name} has a mistake: `ucidockd check` shows it")
        known = ", ".join(c.section for c in self.containers) or "none is declared"
        raise ConfigError(
            f"{name[:64]}: no container section has it; expected a section or a Docker name ({known})"
        )
