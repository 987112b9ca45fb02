# SPDX-License-Identifier: GPL-2.0-or-later
"""Random configurations for the machine: a few section names, and a few values for each option, valid and invalid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Value = str | tuple[str, ...] | None

SECRET = "S3CRET-4711"
BIND, DEVICE = "@BIND@", "@DEVICE@"  # placeholders for paths that tests create and remove
MISSING = "/dev/nonexistent"
CONTAINERS = ("web", "db", "app", "job")
NETWORKS = {"lan": "10.219.50.0/24", "dmz": "10.219.51.0/24"}
VOLUMES = ("data", "cache")
GOOD_COMMAND = "sleep 100000"
# exits with 0 when stopped, like nginx and mosquitto
ENDS_WELL = """sh -c 'trap "exit 0" TERM; while :; do sleep 1; done'"""
STACK = "shop"  # this network exists as long as a section needs it
STACK_OPTIONS: dict[str, tuple[Value, ...]] = {
    "env": ((), ("SHARED=1",), ("SHARED=2", "A=9")),
    "subnet": (None, "10.219.52.0/24", "10.219.53.0/24"),
    "zone": (None, "dmz"),
}
OUTER = "outer"  # a network that is not the agent's, declared `external`
JOB = "sh -c 'sleep 20; exit 0'"
FAILING = frozenset({"sh -c 'sleep 2; exit 1'", "false", "no-such-program", "true"})
# the first value of each option is valid and runs
OPTIONS: dict[str, tuple[Value, ...]] = {
    "command": (GOOD_COMMAND, "sleep 200000", ENDS_WELL, JOB, *sorted(FAILING)),
    "image": ("app:1", "app:2", "pulled:1", "missing:1"),
    "network": (
        (),
        ("lan",),
        ("lan,ip=10.219.50.9",),
        ("lan,ip=10.219.50.2",),
        ("dmz",),
        ("lan", "dmz,alias=www"),
        ("dmz,ip=10.219.51.9", "lan"),
        ("dmz,alias=www", "lan,ip=10.219.50.9"),
    ),
    "volume": ((), ("data:/data",), ("/anonymous",), (f"{BIND}:/srv",), ("cache:/data", "/anonymous")),
    "restart": (None, "always", "unless-stopped", "on-failure:3", "no"),
    "memory": (None, "64m", "128m", "0"),
    "env": ((), (f"TOKEN={SECRET}",), ("A=1", "B=2")),
    "name": (None, "alias"),
    "enabled": (None, "0"),
    "state": (None, "stopped"),
    "gate": ("1", "0", "8"),
    "grace": ("5", "0", "600"),
    "rollback": (None, "0"),
    "on_drift": (None, "report"),
    "on_unhealthy": (None, "restart"),
    "webui": (None, "https://[host]:[port:80]/"),
    "depends_on": ((), ("before",), ("before:completed",)),
    "network_mode": (None, "before"),
    "stack": (None, STACK),
    "mac_address": (None, "02:42:ac:11:00:09"),
    "wait_for": ((), (f"device:{DEVICE}",)),
    "device": ((), (f"{MISSING}:/dev/x",)),
    "remove_volumes": (None, "1"),
    "health_cmd": (None, "true", "false"),
    "adopt": (None, "1"),
    "port": ((), ("18080:80",), ("18081:80",)),
    "stop_timeout": ("0", "2"),
    "pull": (None, "always", "never"),
    "pids_limit": (None, "50"),
    "update": (None, "off", "auto"),
    "strategy": (None, "handover"),
    "hold_cmd": (None, "true", "false"),
    "pre_stop": (None, "true", "false"),
    "post_start": (None, "true", "false"),
    "backup_before_update": (None, "1"),
}
# options whose values two containers cannot use at the same time
_ALONE = ("port", "device", "volume", "mac_address")

# changes that cannot be made, or not yet: the running container keeps running
UNMAKEABLE: tuple[dict[str, Value], ...] = (
    {"wait_for": (f"device:{MISSING}",)},
    {"device": (f"{MISSING}:/dev/x",)},
    {"volume": ("/nonexistent:/srv",)},
    {"image": "missing:1", "pull": "never"},
    {"command": "no-such-program"},
    {"command": "false"},
    {"command": "true"},
)
# explicit defaults, as a form writes them; equivalent to leaving the options out
_DEFAULTS = {
    "privileged": "0",
    "read_only": "0",
    "tty": "0",
    "init": "0",
    "shm_size": "64m",
    "log_driver": "json-file",
}

# options in which a value with a host port or an address can belong to one section only
SCARCE = ("port", "network")


@dataclass
class Config:
    """The content of UCI: section -> options, and the names of networks and volumes."""

    containers: dict[str, dict[str, Value]] = field(default_factory=dict)
    networks: list[str] = field(default_factory=lambda: list(NETWORKS))
    volumes: list[str] = field(default_factory=lambda: list(VOLUMES))
    labelled: set[str] = field(default_factory=set)  # networks with a label, which changes their spec
    wrong: set[str] = field(default_factory=set)  # sections with a mistake
    # sections with an equivalent spelling of the same options
    reworded: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)  # networks with another subnet
    handed_over: set[str] = field(default_factory=set)  # sections that had `strategy handover` at some time
    stack: dict[str, Value] | None = None  # the options of `config stack`, None without that section
    outer: set[str] = field(default_factory=set)  # sections that are on the external network too
    lent: dict[str, str] = field(
        default_factory=dict
    )  # section -> mode, `:ro` or "": it mounts the volumes of the previous section
    adopts_volumes: bool = False
    workers: int = 4
    pulls: bool = True  # whether a registry has `pulled:1`

    def docker_name(self, section: str) -> str:
        name = self.containers[section].get("name")
        return f"{section}-alias" if name == "alias" else str(name or section)

    def is_free(self, name: str, section: str) -> bool:
        """Whether no other section has this Docker name."""
        return all(self.docker_name(other) != name for other in self.containers if other != section)

    def text(self, *, bind: str, device: str) -> str:
        """The configuration as UCI text."""
        return "".join(self._lines()).replace(BIND, bind).replace(DEVICE, device)

    def _lines(self) -> Iterator[str]:
        yield f"\nconfig agent 'agent'\n\toption workers '{self.workers}'\n"
        for name in self.networks:
            yield f"\nconfig network '{name}'\n\tlist subnet '{self._in_its_subnet(name, NETWORKS[name])}'\n"
            if name in self.labelled:
                yield "\tlist label 'a=b'\n"
        for name in self.volumes:
            yield f"\nconfig volume '{name}'\n"
            if self.adopts_volumes:
                yield "\toption adopt '1'\n"
        if self.outer:
            yield f"\nconfig network '{OUTER}'\n\toption external '1'\n"
        if self.stack is not None:
            yield from _section("stack", STACK, self.stack)
        for section in self.containers:
            yield from self._container(section)

    def _container(self, section: str) -> Iterator[str]:
        options = self.written(section)
        if section in self.wrong:
            options["memory"] = "much"
        if section in self.reworded:
            options = self._in_other_words(options)
        yield from _section("container", section, options)

    def _in_its_subnet(self, network: str, text: str) -> str:
        return text.replace("10.219.5", "10.219.7") if network in self.moved else text

    @staticmethod
    def _in_other_words(options: dict[str, object]) -> dict[str, object]:
        env = options["env"]
        same: dict[str, object] = {"env": env[::-1] if isinstance(env, tuple) else env}
        if not options["memory"]:
            same["memory"] = "0"
        if not options["network"] and not options["network_mode"] and not options["stack"]:
            same["network_mode"] = "bridge"
        return {**options, **_DEFAULTS, **same}

    def written(self, section: str) -> dict[str, object]:
        """The options of the section as written to the file; they depend on the previous sections."""
        options: dict[str, object] = dict(self.containers[section])
        if options.get("name"):
            options["name"] = self.docker_name(section)
        options["depends_on"] = tuple(
            f"{name}:completed" if self.is_awaited(name) else name for name in self.dependencies(section)
        )
        other = self.shares_with(section)
        options["network_mode"] = f"service:{other}" if other else None
        if other:
            options |= {"network": (), "port": ()}
        if not options["network"]:
            options["mac_address"] = None
        if options.get("health_cmd"):
            options |= {"health_interval": "2s", "health_retries": "2"}
        if options["update"] == "auto":
            options |= {"update_age": "0", "update_window": "00:00-23:59"}
        listed = options["network"] if isinstance(options["network"], tuple) else ()
        if section in self.outer and not other:
            listed = (*listed, OUTER)
        options["network"] = tuple(self._in_its_subnet(item.partition(",")[0], item) for item in listed)
        lender = self.lender(section)
        options["volumes_from"] = (f"{lender}{self.lent[section]}",) if lender else ()
        if any(options[name] for name in (*_ALONE, "volumes_from")) or "ip=" in str(listed):
            options["strategy"] = None
        if options["strategy"]:
            self.handed_over.add(section)
        return options

    def dependencies(self, section: str) -> tuple[str, ...]:
        """The sections that this section depends on: the previous section at most, so that no cycle can arise."""
        wants = self.containers[section].get("depends_on") and not self.shares_with(section)
        return self._before(section) if wants else ()

    def shares_with(self, section: str) -> str:
        """The previous section if this section joins its network, "" otherwise."""
        before = self._before(section) if self.containers[section].get("network_mode") else ()
        return before[0] if before else ""

    def lender(self, section: str) -> str:
        """The previous section if this section mounts its volumes, "" otherwise."""
        before = self._before(section) if section in self.lent else ()
        return before[0] if before else ""

    def shared_env(self, section: str) -> dict[str, str]:
        """The environment that comes from the stack and that the section does not set itself."""
        shared = self.stack if self.stack is not None and self.containers[section]["stack"] else {}
        own = {item.partition("=")[0] for item in self.containers[section]["env"] or ()}
        pairs = (item.partition("=")[::2] for item in shared.get("env") or ())
        return {name: value for name, value in pairs if name not in own}

    def networks_of(self, section: str) -> set[str]:
        """The networks that the section's container is on."""
        written = self.written(section)
        listed = written["network"] if isinstance(written["network"], tuple) else ()
        return {str(n).partition(",")[0] for n in listed or (written["stack"] or "bridge",)}

    def _before(self, section: str) -> tuple[str, ...]:
        names = list(self.containers)
        return tuple(names[: names.index(section)][-1:])

    def stacks(self) -> tuple[str, ...]:
        """The stack networks that sections use; they have no `config network` section."""
        written = [self.written(section) for section in self.containers]
        needed = {w["stack"] for w in written if w["stack"] and not w["network"] and not w["network_mode"]}
        return tuple(sorted(map(str, needed)))

    def is_awaited(self, section: str) -> bool:
        """Whether another section waits until this section has completed."""
        return any(
            options["depends_on"] == ("before:completed",) and section in self.dependencies(name)
            for name, options in self.containers.items()
        )

    def is_job(self, section: str) -> bool:
        """Whether the section runs a command that completes."""
        options = self.containers[section]
        policy = options["restart"]
        ends = policy in {"no", "on-failure:3"} or (policy is None and self.is_awaited(section))
        return options["command"] == JOB and ends

    def rename(self, section: str, other: str) -> None:
        """Renames the section to `other`; its Docker name stays."""
        name = self.docker_name(section)
        self.containers = {other if s == section else s: options for s, options in self.containers.items()}
        self.containers[other]["name"] = name
        self.outer = {other if s == section else s for s in self.outer}
        self.lent = {other if s == section else s: mode for s, mode in self.lent.items()}
        for names in (self.wrong, self.reworded):
            if section in names:
                names.symmetric_difference_update({section, other})

    def add(self, section: str) -> None:
        if section in self.containers:
            return
        self.containers[section] = {name: values[0] for name, values in OPTIONS.items()}
        names = (section, f"{section}-alias", *(f"{section}-{n}" for n in range(2, 9)))
        free = next(name for name in names if self.is_free(name, section))
        if free != section:
            self.containers[section]["name"] = free

    def is_good(self, section: str) -> bool:
        """Whether the section's container runs, as far as its own options decide that."""
        options = self.containers[section]
        return (
            options["command"] not in FAILING
            and (options["command"] != JOB or self.is_job(section))
            and not options["device"]
            and MISSING not in str(options["wait_for"])
            and "/nonexistent" not in str(options["volume"])
            and options["image"] != "missing:1"
            and options["health_cmd"] != "false"
            and options["post_start"] != "false"
            and options["hold_cmd"] != "false"
            and not (options["image"] == "pulled:1" and (options["pull"] == "never" or not self.pulls))
        )

    def is_plain(self, section: str) -> bool:
        """Whether the section's container must run, whatever the other sections contain."""
        options = self.containers[section]
        networks = {str(item).partition(",")[0] for item in options["network"] or ()}
        volumes = {str(item).partition(":")[0] for item in options["volume"] or ()} & set(VOLUMES)
        return (
            self.is_good(section)
            and self.is_to_run(section)
            and section not in self.wrong
            and options["on_drift"] is None
            and options["pull"] != "never"  # a step may remove the tag
            and not options["depends_on"]
            and not self.shares_with(section)
            and not self.lender(section)
            and not self.is_job(section)
            and not any(self._is_shared(section, name) for name in SCARCE)
            and networks <= set(self.networks)
            and volumes <= set(self.volumes)
        )

    def _is_shared(self, section: str, option: str) -> bool:
        """Whether another section wants the same port or address."""
        value = self.containers[section][option]
        others = (o[option] for name, o in self.containers.items() if name != section)
        return any(_scarce_of(value) & _scarce_of(other) for other in others)

    def is_to_run(self, section: str) -> bool:
        options = self.containers[section]
        return options["enabled"] is None and options["state"] is None

    def mend(self) -> None:
        """Replaces each invalid value by a valid one, like a user who wants everything to run."""
        self.wrong.clear()
        self.adopts_volumes = True  # a volume loses its owner when its section was gone for the grace period
        scarce: set[str] = set()  # host ports and fixed addresses that a section already has
        for section, options in self.containers.items():
            if not self.is_good(section):
                options |= {"command": GOOD_COMMAND, "image": "app:1", "health_cmd": None, "pull": None}
                options |= {"device": (), "wait_for": (), "volume": ()}
            options |= {"on_drift": None, "pull": None, "hold_cmd": None, "post_start": None}
            for name in SCARCE:
                if _scarce_of(options[name]) & scarce:
                    options[name] = ()
                scarce |= _scarce_of(options[name])
        for section in self.containers:
            for before in self.dependencies(section):
                self.containers[before] |= {"enabled": None, "state": None}
            if self.is_awaited(section):
                self.containers[section] |= {"command": JOB, "restart": "no", "health_cmd": None}
            for other in filter(None, (self.shares_with(section), self.lender(section))):
                self.containers[other] |= {"enabled": None, "state": None}
                if self.containers[other]["command"] == JOB and other == self.shares_with(section):
                    self.containers[other]["command"] = GOOD_COMMAND
        self.networks = list(NETWORKS)
        self.volumes = list(VOLUMES)


def _scarce_of(value: Value) -> set[str]:
    """The values that only one section can have: host ports and fixed addresses."""
    return {item for item in value if ":" in item or "ip=" in item} if isinstance(value, tuple) else set()


def _section(kind: str, name: str, options: Mapping[str, object]) -> Iterator[str]:
    yield f"\nconfig {kind} '{name}'\n"
    for option, value in options.items():
        if isinstance(value, tuple):
            yield from (f"\tlist {option} '{item}'\n" for item in value)
        elif value is not None:
            yield f"\toption {option} {_quoted(str(value))}\n"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
