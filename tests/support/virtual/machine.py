# SPDX-License-Identifier: GPL-2.0-or-later
"""The random state machine: a user edits, objects change outside the agent, and the engine and the agent fail. At the
end, everything must be as declared.

A run is a list of steps `verb:number`. The number decides the details, so a run can be replayed from its text and
shrunk by leaving steps out. docs/reliability.md explains how to replay one.
"""

from __future__ import annotations

import contextlib
import random
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.apply.ports import Engine
from agent.errors import EngineError
from agent.model.identity import LABEL_INSTANCE, LABEL_SECTION, LABEL_SPEC_VERSION
from agent.model.observed import ObservedContainer
from agent.plan.records import name_outside
from agent.status.alarms import alarms_of
from tests.support.virtual.ground import Ground
from tests.support.virtual.objects import FakeImage
from tests.support.virtual.promises import Promises
from tests.support.virtual.sections import (
    CONTAINERS,
    DEVICE,
    MISSING,
    NETWORKS,
    OPTIONS,
    OUTER,
    SCARCE,
    SECRET,
    STACK,
    STACK_OPTIONS,
    UNMAKEABLE,
    VOLUMES,
    Config,
)
from tests.support.virtual.taps import Fault
from tests.support.virtual.world import TROUBLE, World

DECOY = "decoy"
_TRIES = 3  # swaps of one section within 15 minutes without a fault
_BODY: dict[str, Any] = {
    "Image": "app:1",
    "Cmd": ["sleep", "100000"],
    "HostConfig": {"NetworkMode": "none", "RestartPolicy": {"Name": "no"}},
}


@dataclass(frozen=True)
class Step:
    verb: str
    number: int

    def __str__(self) -> str:
        return f"{self.verb}:{self.number}"


def parse(text: str) -> list[Step]:
    """Reads the steps from text as `" ".join(map(str, steps))` writes it."""
    pairs = (word.partition(":") for word in text.split())
    return [Step(verb, int(number)) for verb, _, number in pairs]


def _filled(body: dict[str, Any]) -> dict[str, Any]:
    """Removes empty values: an engine that reads its files again shows `[]` for `null`."""
    plain = {name: _filled(value) if isinstance(value, dict) else value for name, value in body.items()}
    return {name: value for name, value in plain.items() if value}


class _Choice:
    """Draws random choices from a number instead of a random generator."""

    def __init__(self, number: int) -> None:
        self._rest = number

    def below(self, limit: int) -> int:
        self._rest, drawn = divmod(self._rest, limit)
        return drawn

    def of(self, items: Any) -> Any:
        items = list(items)
        return items[self.below(len(items))]


class Machine:
    """Runs steps on a `Ground` and checks the invariants."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.config = Config(pulls=ground.pulls)
        self.foreign: set[str] = set()  # ids of objects that are not the agent's
        self.taken_over: set[str] = set()  # Docker names that a configuration adopted at some time
        # Docker names of containers that were stopped through the agent at some time
        self.held: set[str] = set()
        self.garbled = False  # the file differs from `config`
        self.data: dict[
            str, str
        ] = {}  # section -> its anonymous volume, until a step removes the container outside the agent
        # anonymous volume -> section: the agent may remove the volume with the section
        self.disposable: dict[str, str] = {}
        self.given_up: set[str] = set()  # sections that had `remove_volumes` at some time
        self.named: dict[str, set[str]] = {}  # tag -> the images that it named
        self.taken_back = False  # a rollback was requested at some time
        self.swaps: set[str] = set()  # new containers for which a running one was stopped
        self.batch = False  # further edits follow before the commit
        self.promises = Promises(self)
        self._make_decoys()
        # the ids that the external network has had
        self.outer = {self.ground.raw.create_network({"Name": OUTER, "Driver": "bridge"})}
        for section in CONTAINERS[:2]:
            self.config.add(section)
        self.commit(told=True)
        ground.start_agent()
        ground.rest(10)
        self.instance = ground.instance()
        self._forge()
        ground.watch = self._check_call

    # decoys

    def _make_decoys(self) -> None:
        engine = self.ground.raw
        self.foreign.add(engine.create_container(DECOY, _BODY))
        self.foreign.add(engine.create_network({"Name": DECOY, "Driver": "bridge"}))
        engine.create_volume({"Name": DECOY})
        self.before = self._decoys()

    def _forge(self) -> None:
        """Creates a foreign container with labels like the agent's."""
        labels = {LABEL_INSTANCE: self.instance, LABEL_SECTION: "web", LABEL_SPEC_VERSION: "1"}
        self.foreign.add(self.ground.raw.create_container("forged", {**_BODY, "Labels": labels}))

    def _decoys(self) -> list[Any]:
        engine = self.ground.raw
        container, network = engine.inspect_container(DECOY), engine.inspect_network(DECOY)
        assert container is not None, "the foreign container is gone"
        assert network is not None, "the foreign network is gone"
        inspect = {
            k: v for k, v in (container.inspect or {}).items() if k not in {"State", "NetworkSettings"}
        }
        return [*sorted(_filled(inspect).items()), network.id, engine.inspect_volume(DECOY)]

    # steps

    def do(self, step: Step) -> None:
        """Makes one step and lets time pass until the next step."""
        choice = _Choice(step.number)
        pause = choice.of((0.0, 0.05, 0.5, 3.0, 10.0))
        # the engine may refuse a change by hand, as it refuses anyone's
        with contextlib.suppress(EngineError):
            VERBS[step.verb](self, choice)
        self.ground.rest(pause)
        self._check_twins()
        self._note_volumes()
        self.promises.look()

    def commit(self, *, told: bool) -> None:
        if self.batch:
            return
        self.garbled = False
        for section, options in self.config.containers.items():
            if options["remove_volumes"]:
                self.given_up.add(section)
            if options["adopt"]:
                self.taken_over.add(self.config.docker_name(section))
        self.ground.write(self.config.text(bind=str(self.ground.bind), device=str(self.ground.device)))
        self.promises.committed(told=told)
        if told:
            self.ground.tell()

    # invariants that hold at any time

    def _check_call(self, name: str, args: tuple[Any, ...]) -> None:
        """Checks each call of the agent that changes something: it must not affect a foreign object."""
        self._check_twins()
        self.promises.check_call(name, args)
        refs = [a for a in args if isinstance(a, str)]
        if name == "engine.stop" and (seen := self.ground.raw.inspect_container(refs[0])) is not None:
            names = self.ground.raw.list_names() if seen.state == "running" else ()
            self.swaps |= {new for new in names if name_outside(new, "new") == seen.name}
        if name in {"engine.create_container", "engine.rename"}:
            refs = refs[:1] if name == "engine.rename" else []
        if name == "engine.remove_image":
            used = {options["image"] for options in self.config.containers.values()}
            assert refs[0] not in used or self.garbled or self.promises.told_at is None, (
                f"{refs[0]} is removed"
            )
        if name == "engine.remove_volume":
            assert self.disposable.get(refs[0], "") in self.given_up, f"a volume was removed: {refs}"
        if name in {"engine.create_network", "engine.remove_network"}:
            named = args[0]["Name"] if name == "engine.create_network" else refs[0]
            assert named not in {OUTER, *self.outer}, f"{name} of a network of others"
        for ref in refs if name in _ON_OBJECTS else ():
            if ref in self.foreign and not self._may_adopt(ref):
                raise AssertionError(f"{name} of a foreign object")

    def _may_adopt(self, ref: str) -> bool:
        seen = self.ground.raw.inspect_container(ref)
        if (
            seen is None
        ):  # an adopted container that is gone gets a second removal if the agent could not record the first
            return True
        return any(seen.name.startswith(taken) for taken in self.taken_over)

    def _check_twins(self) -> None:
        """No section has two live containers."""
        if not self.ground.engine_is_up():
            return
        live: dict[str, str] = {}
        for container in self.ground.raw.list_containers(self.instance):
            section = self.section_of(container)
            if container.state in {"running", "paused", "restarting"} and container.id not in self.foreign:
                twice = section in live and section not in self.config.handed_over
                assert not twice, f"{section} runs twice: {live.get(section)} and {container.name}"
                live[section] = container.name

    def _note_volumes(self) -> None:
        """A section keeps its data through every swap."""
        self.data = {
            section: name for section, name in self.data.items() if section in self.config.containers
        }
        for section, options in self.config.containers.items():
            seen = self.whole(section) if "/anonymous" in (options["volume"] or ()) else None
            if seen is None or ".ucidockd-" in seen.name:
                self.data.pop(section, None)
                continue
            if seen.name != self.config.docker_name(section):
                continue  # while a section is renamed, the records still say whose container it was
            mounts = {m["Destination"]: m.get("Name", "") for m in (seen.inspect or {})["Mounts"]}
            if "/anonymous" in mounts:
                kept = self.data.setdefault(section, mounts["/anonymous"])
                assert mounts["/anonymous"] == kept, f"{section} lost its anonymous volume"
                self.disposable[kept] = section

    def is_in_a_swap(self, name: str) -> bool:
        seen = self.ground.raw.inspect_container(name)
        return seen is None or self.whole(self.section_of(seen)) is None

    def section_of(self, container: ObservedContainer) -> str:
        """The container's section from the agent's record; the label only shows the section at creation."""
        return self.ground.sections().get(container.id) or container.labels.get(LABEL_SECTION, "")

    def whole(self, section: str) -> ObservedContainer | None:
        """The section's container, if no swap is under way and nobody removed the container."""
        if not self.ground.engine_is_up():
            return None
        ours = [
            c
            for c in self.ground.raw.list_containers(self.instance)
            if c.id not in self.foreign and self.section_of(c) == section
        ]
        # the old container of an adoption carries no label of the agent
        aside = {name_outside(name, "old") for name in self.ground.raw.list_names()}
        if len(ours) != 1 or ours[0].name in aside:
            return None
        return self.ground.raw.inspect_container(ours[0].id)

    def is_quiet(self, section: str) -> bool:
        """Whether everything is as declared, the agent knows it, and no fault is planned: the next step alone decides
        what happens."""
        ground = self.ground
        if not ground.alive or not ground.engine_is_up() or self.garbled or section in self.config.wrong:
            return False
        ready = not ground.plan.count and self.promises.is_settled(section)
        return ready and not ground.is_held(f"container:{section}") and self.has_nothing_to_do()

    def has_nothing_to_do(self) -> bool:
        """Whether the plan is empty; notes on the plan, such as a newer image, do not count."""
        return self.ground.plan_text().partition("\n")[0] == "nothing to do"

    def condition(self, section: str, kind: str) -> dict[str, Any]:
        resources = self.ground.snapshot()["resources"]
        found = next(r["conditions"] for r in resources if r["key"] == f"container:{section}")
        return dict(next(c for c in found if c["type"] == kind))

    def check_kept(self, section: str, object_id: str, when: str) -> None:
        """The running container still runs, and matches the declaration except for the change that cannot be made."""
        name, options = self.config.docker_name(section), self.config.containers[section]
        seen = self.ground.raw.inspect_container(object_id)
        assert seen is not None, f"{section} is gone {when}"
        assert (seen.name, seen.state) == (name, "running"), f"{section} is {seen.name}, {seen.state} {when}"
        host = (seen.inspect or {})["HostConfig"]
        memory, policy = options["memory"], options["restart"]
        assert not memory or host["Memory"] == _MEMORY[str(memory)], f"{section} has {host['Memory']} {when}"
        named = host["RestartPolicy"]["Name"]
        assert not policy or named == str(policy).partition(":")[0], f"{section} has {named} {when}"
        networks = self.config.networks_of(section)
        endpoints = (seen.inspect or {})["NetworkSettings"]["Networks"]
        assert endpoints.keys() == networks, f"{section} is on {sorted(endpoints)} {when}"

    # the end

    def check_available(self) -> None:
        """Every section that can run does run, whatever else is wrong."""
        engine = self.ground.raw
        resources = self.ground.snapshot()["resources"]
        # a section whose change is held up keeps its old container, which may have completed its job
        back = {r["section"] for r in resources if any(_is_held_up(c) for c in r["conditions"])}
        for section in sorted(self.config.containers.keys() - back):
            name = self.config.docker_name(section)
            seen = engine.inspect_container(name)
            taken = seen is not None and seen.id in self.foreign
            # ask the agent as well: a renamed container may be held under another name
            held = name in self.held or self.ground.is_held(f"container:{section}")
            if self.garbled or taken or held or not self.config.is_plain(section):
                continue
            assert seen is not None, f"{section} is gone\n{self.ground.snapshot()}"
            assert seen.state == "running", f"{section} is {seen.state}\n{self.ground.snapshot()}"

    def finish(self) -> None:
        """Ends all faults, mends the configuration as a user would, and checks that everything is as declared."""
        self.promises.forget()
        self.ground.heal()
        self._heal_outside()
        self.swaps.clear()
        self.ground.rest(900)
        self._check_tries()
        self.check_available()
        self._remove_intruders()
        self.config.mend()
        self.commit(told=True)
        self.ground.rest(900)
        self.ground.reconcile()
        self.ground.rest(1200)
        self.check()

    def _heal_outside(self) -> None:
        """Repairs everything that the agent is not responsible for."""
        if self.ground.raw.inspect_network(OUTER) is None:
            self.outer.add(self.ground.raw.create_network({"Name": OUTER, "Driver": "bridge"}))
        if isinstance(self.ground, World):
            for container in self.ground.engine.containers.values():
                container.sick = False

    def _check_tries(self) -> None:
        """The agent does not retry a refused change again and again: each try would interrupt the running container.

        A section without a running container loses nothing by a try: the agent tries the new and the old container
        with growing delays.
        """
        tries = Counter(name_outside(name, "new") for name in self.swaps)
        often = {text: count for text, count in tries.items() if count > _TRIES}
        assert not often, f"swapped again and again: {often}"

    def _remove_intruders(self) -> None:
        engine = self.ground.raw
        for name in self._wanted_names():
            seen = engine.inspect_container(name)
            if seen is not None and seen.id in self.foreign:
                engine.remove_container(name, volumes=False, force=True)
        for network in engine.list_networks():
            if network.id in self.foreign and network.name in NETWORKS:
                _empty(engine, network.id)
                engine.remove_network(network.id)

    def _wanted_names(self) -> list[str]:
        return [self.config.docker_name(section) for section in self.config.containers]

    def check(self) -> None:
        """Checks the invariants I1 to I8 of the design."""
        ground = self.ground
        assert ground.alive, "the agent is gone"
        assert self.has_nothing_to_do(), f"still to do: {ground.plan_text()}\n{ground.snapshot()}"
        before = len(ground.writes)
        ground.rest(1300)  # enough for two passes that inspect everything
        assert ground.writes[before:] == [], "writes without need"
        self._check_objects()
        self._check_status()
        touched = [(a, b) for a, b in zip(self.before, self._decoys(), strict=True) if a != b]
        assert not touched, f"a foreign object was touched: {touched}"
        assert ground.open_records() == [], "records are left open"
        assert ground.state_files() == ["state.json"], ground.state_files()
        assert ground.exceptions() == [], ground.exceptions()[0]
        assert SECRET not in ground.everything_said()
        if isinstance(ground, World):
            self._check_notices(ground)
            known = {record["saved"][0] for record in ground.records() if record["saved"]}
            assert ground.saved.copies.keys() <= known, "a copy of data is left that nothing needs"
            assert not ground.saved.lent, "the data of before is still lent"

    def _check_notices(self, ground: World) -> None:
        """No healthy resource has a trouble notice without a recovery notice."""
        well = [r["key"] for r in ground.snapshot()["resources"] if not TROUBLE & alarms_of(r).keys()]
        left = {key: ground.bad_news[key] for key in ground.bad_news.keys() & set(well)}
        assert not left, f"nobody was told that it is over: {left}"

    def _check_objects(self) -> None:
        engine = self.ground.raw
        found = {c.name: c for c in engine.list_containers(self.instance) if c.id not in self.foreign}
        wanted = {self.config.docker_name(s): s for s in self.config.containers}
        declared = {n for n, s in wanted.items() if self.config.is_to_run(s)}
        missing = {n for n in declared if n not in found or not self._is_as_far(wanted[n], found[n])}
        assert not missing, f"not running: { {n: found[n].state if n in found else None for n in missing} }"
        assert not found.keys() - wanted.keys(), f"left over: {found.keys() - wanted.keys()}"
        idle = {
            n: c.state for n, c in found.items() if n not in declared and c.state in {"running", "paused"}
        }
        assert not idle, f"runs although it should not: {idle}"
        for name in declared:
            self._check_spec(wanted[name], found[name].id)
        networks = {n.name for n in engine.list_networks()}
        assert set(NETWORKS) <= networks, f"networks: {networks}"
        assert set(VOLUMES) <= {v.name for v in engine.list_volumes()}, "a volume is gone"

    def _is_as_far(self, section: str, seen: ObservedContainer) -> bool:
        """Whether the container runs, or has completed its job."""
        if not self.config.is_job(section):
            return seen.state == "running"
        return seen.state == "exited" and (self.ground.raw.inspect_container(seen.id) or seen).exit_code == 0

    def _check_spec(self, section: str, object_id: str) -> None:
        """The running container matches the declaration, as the engine shows it."""
        seen = self.ground.raw.inspect_container(object_id)
        assert seen is not None
        body, options = seen.inspect or {}, self.config.containers[section]
        host = body["HostConfig"]
        words = body["Config"]["Cmd"]
        assert words == shlex.split(str(options["command"])), f"{section} runs {words}"
        # an option that a section does not set may have any value
        if options["memory"]:
            assert host.get("Memory") == _MEMORY[str(options["memory"])], (
                f"{section} has memory {host.get('Memory')}"
            )
        if options["restart"]:
            policy = str(options["restart"]).partition(":")[0]
            assert host["RestartPolicy"]["Name"] == policy, f"{section} has {host['RestartPolicy']}"
        self._check_image(section, body)
        env = dict(item.partition("=")[::2] for item in body["Config"]["Env"] or ())
        of_stack = self.config.shared_env(section)
        assert of_stack.items() <= env.items(), f"{section} has not {of_stack}: {env}"
        assert "SHARED" in of_stack or "SHARED" not in env, f"{section} has {env}, and is in no stack"
        self._check_lent(section, body)
        other = self.config.shares_with(section)
        if other:
            shared = self.ground.is_in_network_of(object_id, self.config.docker_name(other))
            assert shared or self.promises.clock_is_set, f"{section} is not in the network of {other}"
        elif not self.config.is_job(section):  # a completed job has no endpoints
            self._check_networks(section, body)

    def _check_lent(self, section: str, body: dict[str, Any]) -> None:
        """The container mounts the current volumes of its lender."""
        lender = self.config.lender(section)
        if not lender:
            return
        owner = self.ground.raw.inspect_container(self.config.docker_name(lender))
        assert owner is not None, f"{section} has the volumes of {lender}, which is gone"
        mine, theirs = (
            {m["Destination"]: m.get("Name") or m["Source"] for m in inspect["Mounts"]}
            for inspect in (body, owner.inspect or {})
        )
        own = {str(item).rpartition(":")[2] for item in self.config.containers[section]["volume"] or ()}
        missing = {t: name for t, name in theirs.items() if t not in own and mine.get(t) != name}
        assert not missing, f"{section} has {mine}, and {lender} has {theirs}"
        extra = mine.keys() - theirs.keys() - own
        assert not extra, f"{section} has {mine}, and {lender} has {theirs}"

    def _check_image(self, section: str, body: dict[str, Any]) -> None:
        """The image is one that the tag named at some time: a tag that moves replaces no container. After a rollback, it
        may be an image of the tag that the section had before."""
        self.note_tags()
        image = str(self.config.containers[section]["image"])
        known = set().union(*self.named.values()) if self.taken_back else self.named.get(image, set())
        assert body["Image"] in known, f"{section} runs an image that is not of {image}"

    def note_tags(self) -> None:
        """Records the images of all tags; call it before each move of a tag."""
        for ref in OPTIONS["image"]:
            image = self.ground.raw.inspect_image(str(ref))
            if image is not None:
                self.named.setdefault(str(ref), set()).add(image["Id"])

    def _check_networks(self, section: str, body: dict[str, Any]) -> None:
        options = self.config.written(section)
        listed = options["network"]
        networks = (
            {str(n).partition(",")[0]: str(n) for n in listed or (options["stack"] or "bridge",)}
            if isinstance(listed, tuple)
            else {}
        )
        endpoints = body["NetworkSettings"]["Networks"]
        assert endpoints.keys() == networks.keys(), f"{section} is on {sorted(endpoints)}"
        assert all(e["EndpointID"] for e in endpoints.values()), f"{section} has no endpoint"
        for name, endpoint in endpoints.items():
            named = "www" in (endpoint["Aliases"] or ())
            assert named == ("alias=www" in networks[name]), f"{section} is {endpoint['Aliases']} on {name}"
            fixed = (endpoint["IPAMConfig"] or {}).get("IPv4Address")
            assert fixed is None or f"ip={fixed}" in networks[name], f"{section} has {fixed} on {name}"
        mac = options["mac_address"]
        assert not mac or endpoints[next(iter(networks))]["MacAddress"] == mac, (
            f"{section} has not its MAC address"
        )

    def _check_status(self) -> None:
        snapshot = self.ground.snapshot()
        agent = snapshot["agent"]
        assert agent["engine"]["reachable"] is True
        assert agent["generation"] == agent["desired_generation"], "the generation was not reached"
        resources = {r["key"]: {c["type"]: c for c in r["conditions"]} for r in snapshot["resources"]}
        for section in self.config.containers:
            conditions = resources[f"container:{section}"]
            running = conditions["Running"]["status"]
            job = self.config.is_job(section)
            to_run = self.config.is_to_run(section) and not job
            assert running is to_run, f"{section}: {conditions['Running']}"
            done = (
                not job
                or not self.config.is_to_run(section)
                or conditions["Running"]["reason"] == "Completed"
            )
            assert done, f"{section}: {conditions['Running']}"
            assert "Degraded" not in conditions or not conditions["Degraded"]["status"], conditions[
                "Degraded"
            ]
            synced = conditions.get("Synced")
            assert synced is None or synced["status"], f"{section}: {synced}"
        keys = {f"container:{s}" for s in self.config.containers} | {
            f"network:{n}" for n in (*self.config.networks, *self.config.stacks(), OUTER)
        }
        left = resources.keys() - keys - {f"volume:{v}" for v in self.config.volumes}
        assert not left, f"status shows what is not there: {left}"


def _is_held_up(condition: dict[str, Any]) -> bool:
    """Whether a change is held up: it was rolled back, another container holds a resource that it needs, or a foreign
    object has its name."""
    waits = condition["type"] == "Waiting" and condition["status"]
    by_others = any(
        words in condition["message"] for words in (" is container:", " is in conflict", "hold_cmd")
    )
    return condition["reason"] == "RolledBack" or (waits and by_others)


_MEMORY = {"64m": 64 << 20, "128m": 128 << 20, "0": 0}
_ON_OBJECTS = frozenset(
    f"engine.{name}"
    for name in "start stop unpause update rename remove_container connect disconnect remove_network".split()  # noqa: SIM905
)


# actions of a user


def _set(machine: Machine, choice: _Choice) -> None:
    section = choice.of(machine.config.containers or CONTAINERS)
    told = choice.below(5) > 0
    option = choice.of(OPTIONS)
    machine.config.add(section)
    value = choice.of(OPTIONS[option])
    if option == "name" and not machine.config.is_free((value and f"{section}-alias") or section, section):
        return
    machine.config.containers[section][option] = value
    machine.commit(told=told)


def _add(machine: Machine, choice: _Choice) -> None:
    section = choice.of(CONTAINERS)
    machine.config.add(section)
    for option in ("command", "network", "volume", "restart", "depends_on", "network_mode"):
        machine.config.containers[section][option] = choice.of(OPTIONS[option])
    machine.commit(told=True)


def _remove(machine: Machine, choice: _Choice) -> None:
    machine.config.containers.pop(choice.of(CONTAINERS), None)
    machine.commit(told=choice.below(5) > 0)


def _remove_object(machine: Machine, choice: _Choice) -> None:
    name = choice.of((*NETWORKS, *VOLUMES))
    for names in (machine.config.networks, machine.config.volumes):
        if name in names:
            names.remove(name)
    machine.commit(told=choice.below(5) > 0)


def _label(machine: Machine, choice: _Choice) -> None:
    machine.config.labelled ^= {choice.of(NETWORKS)}
    machine.commit(told=True)


def _put_back(machine: Machine, choice: _Choice) -> None:
    del choice
    machine.config.networks, machine.config.volumes = list(NETWORKS), list(VOLUMES)
    machine.commit(told=True)


def _move(machine: Machine, choice: _Choice) -> None:
    """A port or an address moves from one section to another, or two sections swap theirs."""
    containers = machine.config.containers
    one, other, option = (
        choice.of(containers or CONTAINERS),
        choice.of(containers or CONTAINERS),
        choice.of(SCARCE),
    )
    if one in containers and other in containers:
        mine, theirs = containers[one][option], containers[other][option]
        containers[one][option], containers[other][option] = theirs, mine
        machine.commit(told=True)


def _subnet(machine: Machine, choice: _Choice) -> None:
    """A network gets another subnet, and its sections get new addresses."""
    machine.config.moved ^= {choice.of(NETWORKS)}
    machine.commit(told=choice.below(5) > 0)


def _exchange_names(machine: Machine, choice: _Choice) -> None:
    containers = machine.config.containers
    one, other = choice.of(containers or CONTAINERS), choice.of(containers or CONTAINERS)
    if one in containers and other in containers:
        names = machine.config.docker_name(other), machine.config.docker_name(one)
        containers[one]["name"], containers[other]["name"] = names


def _several(machine: Machine, choice: _Choice) -> None:
    """Several edits in one commit."""
    machine.batch = True
    for _ in range(2 + choice.below(3)):
        choice.of((_set, _set, _move, _exchange_names, _add, _remove, _subnet, _label))(machine, choice)
    machine.batch = False
    machine.commit(told=choice.below(5) > 0)


def _prune(machine: Machine, choice: _Choice) -> None:
    del choice
    machine.note_tags()
    machine.ground.prune()


def _rename(machine: Machine, choice: _Choice) -> None:
    """A section gets another name and keeps its Docker name, or two sections swap their Docker names."""
    config = machine.config
    section, other = choice.of(config.containers or CONTAINERS), choice.of(CONTAINERS)
    if section not in config.containers:
        return
    name = config.docker_name(section)
    if other in config.containers:
        theirs = config.docker_name(other)
        config.containers[section]["name"], config.containers[other]["name"] = theirs, name
        machine.commit(told=True)
        return
    seen = machine.whole(section) if machine.is_quiet(section) else None
    config.rename(section, other)
    if section in machine.data:
        machine.data.pop(section)
    machine.commit(told=True)
    if seen is not None:
        machine.ground.rest(3)
        owner = machine.ground.sections().get(seen.id)
        assert owner == other or other in config.wrong, (
            f"{section} is called {other}, its container is {owner}'s"
        )
        assert (now := machine.ground.raw.inspect_container(seen.id)) is not None, f"{section} is gone"
        job = config.is_job(other) or seen.state != "running"
        assert job or not config.is_good(other) or now.state == "running", (
            f"{section} is {now.state} as {other}"
        )


def _reword(machine: Machine, choice: _Choice) -> None:
    """A section gets an equivalent spelling; the agent must do nothing."""
    section = choice.of(machine.config.containers or CONTAINERS)
    if section not in machine.config.containers:
        return
    seen = machine.whole(section) if machine.is_quiet(section) else None
    before = len(machine.ground.writes)
    machine.config.reworded ^= {section}
    machine.commit(told=True)
    machine.ground.rest(3)
    limit = seen is not None and (seen.inspect or {})["HostConfig"].get("Memory")
    if seen is not None and (
        machine.config.containers[section]["memory"] or not limit
    ):  # the agent removes a memory limit that was set by hand
        done = [text for text in machine.ground.writes[before:] if seen.id in text or seen.name in text]
        # a container that ended by itself is started again
        done = [text for text in done if "start " not in text]
        assert not done, f"an edit of {section} that changes nothing: {done}"


def _attempt(machine: Machine, choice: _Choice) -> None:
    """A change that cannot be made, or not yet. Meanwhile, the running container is changed outside the agent; it must
    be repaired to its old declaration."""
    config, ground = machine.config, machine.ground
    section = choice.of(config.containers or CONTAINERS)
    if not machine.is_quiet(section) or not config.is_plain(section):
        return
    seen, change, options = machine.whole(section), choice.of(UNMAKEABLE), config.containers[section]
    if seen is None or seen.state != "running" or seen.name != config.docker_name(section):
        return
    if "command" in change and (options["rollback"] or options["gate"] == "0" or options["restart"] == "no"):
        return  # the new container stays, or completes its job
    before = dict(options)
    ground.lose_events("hear")
    ground.plan.count = 0  # otherwise an image may move meanwhile, which is a reason for a new container
    options |= change
    machine.commit(told=True)
    ground.rest(choice.of((2.0, 40.0)))
    machine.check_kept(section, seen.id, f"while {change} cannot be made")
    if choice.below(3) == 0:
        ground.kill_agent()
    hands = ["kill", "pause", "stop", "policy", "rename", "disconnect"]
    if options["memory"] in {"64m", "128m"}:  # removing a memory limit needs a new container
        hands.append("memory")
    hand = choice.of(hands)
    _HANDS[hand](machine, seen.id, choice)
    ground.rest(90)
    machine.check_kept(section, seen.id, f"after {hand} while {change} cannot be made")
    synced = machine.condition(section, "Synced")
    assert not synced["status"], f"{section} says {synced} while {change} cannot be made"
    config.containers[section] = before
    machine.commit(told=True)
    ground.rest(60)
    machine.check_kept(section, seen.id, f"after {change} was taken back")


def _share(machine: Machine, choice: _Choice) -> None:
    """`config stack` is added, changed or removed, or a section joins or leaves it; perhaps with another edit in the
    same commit."""
    config, what = machine.config, choice.of(("member", "gone", *STACK_OPTIONS))
    machine.batch = True
    if what == "member":
        section = choice.of(config.containers or CONTAINERS)
        config.add(section)
        options = config.containers[section]
        options["stack"] = None if options["stack"] else STACK
    elif what == "gone":
        config.stack = None
    else:
        config.stack = {**(config.stack or {}), what: choice.of(STACK_OPTIONS[what])}
    if choice.below(3) == 0:
        choice.of((_set, _add, _remove, _lend))(machine, choice)
    machine.batch = False
    machine.commit(told=choice.below(5) > 0)


def _lend(machine: Machine, choice: _Choice) -> None:
    """A section starts or stops to mount the volumes of the previous section."""
    section = choice.of(machine.config.containers or CONTAINERS)
    if section in machine.config.lent:
        del machine.config.lent[section]
    else:
        machine.config.lent[section] = choice.of(("", ":ro"))
    machine.commit(told=True)


def _go_out(machine: Machine, choice: _Choice) -> None:
    """A section joins or leaves the external network, or that network is removed or created again."""
    engine, there = machine.ground.raw, machine.ground.raw.inspect_network(OUTER)
    if choice.below(2):
        machine.config.outer ^= {choice.of(CONTAINERS)}
        machine.commit(told=True)
    elif there is not None:
        _empty(engine, OUTER)
        engine.remove_network(OUTER)
    else:
        machine.outer.add(engine.create_network({"Name": OUTER, "Driver": "bridge"}))


def _renew_waiting(machine: Machine, choice: _Choice) -> None:
    """An update is requested while the section waits. The section must keep running with its last applied configuration,
    or start again with it."""
    config, ground = machine.config, machine.ground
    section = choice.of(config.containers or CONTAINERS)
    if not isinstance(ground, World) or not machine.is_quiet(section) or not config.is_plain(section):
        return
    seen, options = machine.whole(section), config.containers[section]
    if seen is None or seen.state != "running" or seen.name != config.docker_name(section):
        return
    if options["wait_for"] or options["grace"] == "0" or str(options["image"]) not in _TAGS:
        return
    if ground.plan.hidden or options["adopt"] or options["restart"] == "no":
        return
    comes_back, before = choice.below(2), options["wait_for"]
    ground.lose_events("hear")
    ground.engine.no_registry = ""
    ground.plan.count = 0
    ground.plug("device", there=True)
    options["wait_for"] = (f"device:{DEVICE if comes_back else MISSING}",)
    machine.commit(told=True)
    ground.rest(5)
    if comes_back:
        ground.plug("device", there=False)
        ground.rest(choice.of((5.0, 70.0)))
    if choice.below(2):
        _move_tag(machine, str(options["image"]))
    machine.promises.renewed(section)
    ground.renew(section, back=False)
    ground.rest(choice.of((5.0, 100.0)))
    if comes_back:
        ground.plug("device", there=True)
    else:
        machine.check_kept(section, seen.id, "while it waits, and an update is asked for")
        options["wait_for"] = before
        machine.commit(told=True)
    ground.rest(90)
    now = machine.whole(section)
    assert now is not None and now.state == "running", f"{section} does not run after it has waited: {now}"
    options["wait_for"] = before
    machine.commit(told=True)


# options that `_sicken` keeps when it turns two sections into a pair
_LASTING = ("name", "image", "restart", "memory", "env", "on_drift", "volume", "remove_volumes", "adopt")


def _sicken(machine: Machine, choice: _Choice) -> None:
    """A container whose network another container shares becomes unhealthy. Either both keep running, or the agent
    restarts it and the other container joins its network again."""
    config, ground = machine.config, machine.ground
    names = list(config.containers)
    if not isinstance(ground, World) or len(names) < 2 or {*names} & config.wrong or machine.garbled:
        return
    place = 1 + choice.below(len(names) - 1)
    parent, section = names[place - 1], names[place]
    before = {name: dict(config.containers[name]) for name in (parent, section)}
    for name in (parent, section):
        kept = {option: before[name][option] for option in _LASTING}
        config.containers[name] |= {option: values[0] for option, values in OPTIONS.items()} | kept
    config.containers[section] |= {"network_mode": "before"}
    config.containers[parent] |= {"health_cmd": "true", "on_unhealthy": choice.of((None, "restart"))}
    ground.lose_events("hear")
    ground.plan.count = 0
    machine.commit(told=True)
    ground.rest(90)
    one, other = machine.whole(section), machine.whole(parent)
    quiet = machine.is_quiet(section) and machine.is_quiet(parent)
    if one is None or other is None or {one.state, other.state} != {"running"} or not quiet:
        return
    sick = ground.engine.find(other.id)
    assert sick is not None
    sick.sick = True
    ground.rest(choice.of((8.0, 60.0, 400.0)))
    if not config.containers[parent]["on_unhealthy"]:
        machine.check_kept(parent, other.id, "while it is unhealthy")
        seen = ground.raw.inspect_container(one.id)
        assert seen is not None and seen.state == "running", f"{section} does not run beside a sick {parent}"
    sick.sick = False
    ground.rest(700)
    for name, was in ((section, one), (parent, other)):
        now = ground.raw.inspect_container(was.id)
        assert now is not None and now.state == "running", f"{name} is {now} after {parent} was sick"
    joined = ground.is_in_network_of(one.id, other.id)
    assert joined, f"{section} is not in the network of {parent} after that was sick"
    config.containers |= before
    machine.commit(told=True)


def _mistake(machine: Machine, choice: _Choice) -> None:
    machine.config.wrong ^= {choice.of(CONTAINERS)}
    machine.commit(told=True)


def _garble(machine: Machine, choice: _Choice) -> None:
    text = machine.config.text(bind=str(machine.ground.bind), device=str(machine.ground.device))
    machine.garbled = True
    machine.promises.garbled()
    machine.ground.write(
        text[: choice.below(len(text) + 1)] + choice.of(("'", "\nconfig", "\n\toption x", ""))
    )
    machine.ground.tell()


def _correct(machine: Machine, choice: _Choice) -> None:
    del choice
    machine.commit(told=True)


def _workers(machine: Machine, choice: _Choice) -> None:
    machine.config.workers = choice.of((1, 2, 4))
    machine.commit(told=True)


def _by_our_door(machine: Machine, choice: _Choice) -> None:
    """A stop or start through `docker.*` or `/docker/`: the agent holds the section until `reconcile`."""
    name, action = _victim(machine, choice), choice.of(("stop", "start"))
    machine.held.add(name)
    machine.promises.meddled(name)  # the last action counts
    machine.ground.manual(name, action)
    if action == "stop":
        machine.ground.raw.stop(name, 0)
        machine.promises.stopped(name)
    elif not machine.is_in_a_swap(name):
        machine.ground.raw.start(name)


def _reconcile(machine: Machine, choice: _Choice) -> None:
    del choice
    machine.promises.forget()
    machine.ground.reconcile()


def _renew(machine: Machine, choice: _Choice) -> None:
    """A user requests an update or a rollback."""
    section = choice.of(machine.config.containers or CONTAINERS)
    machine.promises.renewed(section)
    back = choice.below(3) == 0
    machine.taken_back = machine.taken_back or back
    machine.ground.renew(section, back=back)


def _upgrade(machine: Machine, choice: _Choice) -> None:
    """An update of a section with a backup of its data. A failed update must leave the old data. A successful update is
    then rolled back, with or without the data."""
    config, ground = machine.config, machine.ground
    section = choice.of(config.containers or CONTAINERS)
    if not isinstance(ground, World) or not machine.is_quiet(section) or not config.is_plain(section):
        return
    options, engine = config.containers[section], ground.engine
    image, volume = str(options["image"]), str(*(options["volume"] or ("",))[:1]).partition(":")[0]
    if image not in _TAGS or volume not in VOLUMES or engine.users_of(volume) != 1 or ground.plan.hidden:
        return
    before = dict(options)
    options |= {"backup_before_update": "1", "post_start": "true", "gate": "1", "enabled": None}
    options |= dict.fromkeys(("pre_stop", "hold_cmd", "strategy", "update", "rollback"))
    ground.lose_events("hear")
    engine.no_registry = ""
    machine.commit(told=True)
    ground.rest(5)
    seen = machine.whole(section)
    if seen is None or seen.state != "running" or not machine.is_quiet(section):
        return
    data, bad, with_data = engine.volumes[volume].data, choice.below(2), choice.below(2)
    new = _move_tag(machine, image)
    engine.failing |= {new.id} if bad else set()
    machine.promises.renewed(section)
    ground.renew(section, back=False)
    ground.rest(60)
    expected = (seen.image_id, data) if bad else (new.id, new.number)
    _check_data(machine, section, volume, expected, "after a bad update" if bad else "after an update")
    if bad:
        _move_tag(machine, image)
    else:
        ground.renew(section, back=True, with_data=bool(with_data))
        ground.rest(60)
        expected = (seen.image_id, data if with_data else new.number)
        _check_data(machine, section, volume, expected, "taken back" + " with its data" * with_data)
    config.containers[section] = before
    machine.commit(told=True)


_TAGS = ("app:1", "app:2")  # the tags that move


def _move_tag(machine: Machine, ref: str) -> FakeImage:
    machine.note_tags()
    machine.promises.retagged()
    machine.ground.retag(ref, gone=False)
    assert isinstance(machine.ground, World)
    return machine.ground.engine.images[ref]


def _check_data(machine: Machine, section: str, volume: str, expected: tuple[str, int], when: str) -> None:
    """Checks the image of the running container, and which image last wrote the data."""
    seen = machine.whole(section)
    assert isinstance(machine.ground, World)
    found = machine.ground.engine.volumes[volume].data
    assert seen is not None and seen.state == "running", f"{section} does not run {when}"
    assert (seen.image_id, found) == expected, f"{section} has data of {found} {when}, not {expected}"


# changes outside the agent


def _limit(machine: Machine, name: str, choice: _Choice) -> None:
    del choice
    machine.ground.raw.update(name, {"Memory": 16 << 20, "MemorySwap": 32 << 20})
    machine.promises.limited(name)


def _set_policy(machine: Machine, name: str, choice: _Choice) -> None:
    machine.ground.raw.update(name, {"RestartPolicy": {"Name": choice.of(("no", "always"))}})


_HANDS: dict[str, Callable[[Machine, str, _Choice], None]] = {
    "kill": lambda machine, name, choice: machine.ground.kill(name),
    "pause": lambda machine, name, choice: machine.ground.pause(name),
    "crash": lambda machine, name, choice: machine.ground.crash(name),
    "stop": lambda machine, name, choice: machine.ground.raw.stop(name, 0),
    "memory": _limit,
    "policy": _set_policy,
    "rename": lambda machine, name, choice: machine.ground.raw.rename(name, f"moved-{choice.below(3)}"),
    "disconnect": lambda machine, name, choice: machine.ground.raw.disconnect(
        choice.of(("lan", "dmz", "bridge")), name
    ),
}


def _victim(machine: Machine, choice: _Choice) -> str:
    """One of the agent's containers, by its current name."""
    engine = machine.ground.raw
    ours = [c.name for c in engine.list_containers(machine.instance) if c.id not in machine.foreign]
    return str(choice.of(sorted(ours) or ["nobody"]))


def _meddle(machine: Machine, choice: _Choice) -> None:
    engine = machine.ground.raw
    name = _victim(machine, choice)
    hand = choice.of(HANDS)
    machine.promises.meddled(name)
    if hand == "start":
        # starting the old container during a swap would give the section two live containers
        if not machine.is_in_a_swap(name):
            engine.start(name)
    elif hand == "remove":
        seen = engine.inspect_container(name)
        machine.promises.removed(name)
        machine.data.pop(machine.section_of(seen) if seen is not None else "", None)
        engine.remove_container(name, volumes=False, force=True)
    elif hand == "connect":
        # with an alias or an address that the section does not declare
        settings: dict[str, Any] = {"Aliases": ["www"]} if choice.below(2) else {}
        network = choice.of(("lan", "dmz"))
        if choice.below(2):
            engine.disconnect(network, name)
        engine.connect(network, name, settings)
    else:
        _HANDS[hand](machine, name, choice)


HANDS = "kill pause crash start rename memory policy remove stop disconnect connect".split()  # noqa: SIM905


def _remove_network(machine: Machine, choice: _Choice) -> None:
    engine, name = machine.ground.raw, choice.of(NETWORKS)
    _empty(engine, name)
    engine.remove_network(name)


def _empty(engine: Engine, network: str) -> None:
    seen = engine.inspect_network(network)
    for object_id in sorted((seen.inspect.get("Containers") or {}) if seen is not None else ()):
        engine.disconnect(network, object_id)


def _remove_volume(machine: Machine, choice: _Choice) -> None:
    machine.ground.raw.remove_volume(choice.of(VOLUMES))


def _intrude(machine: Machine, choice: _Choice) -> None:
    """A foreign container or network takes a name that a section wants."""
    engine = machine.ground.raw
    if choice.below(4) == 0:
        machine.foreign.add(engine.create_network({"Name": choice.of(NETWORKS), "Driver": "bridge"}))
        return
    name = choice.of([*machine._wanted_names(), *CONTAINERS])
    object_id = engine.create_container(name, _BODY)
    machine.foreign.add(object_id)
    if choice.below(2):
        engine.start(object_id)


def _drive_out(machine: Machine, choice: _Choice) -> None:
    del choice
    machine._remove_intruders()


def _retag(machine: Machine, choice: _Choice) -> None:
    machine.note_tags()
    machine.promises.retagged()
    machine.ground.retag(choice.of(_TAGS), gone=choice.below(4) == 0)


def _unplug(machine: Machine, choice: _Choice) -> None:
    machine.ground.plug(choice.of(("bind", "device")), there=bool(choice.below(2)))


# faults


def _fail(machine: Machine, choice: _Choice) -> None:
    plan = machine.ground.plan
    plan.fault = choice.of(_FAULTS)
    plan.skip, plan.count = choice.below(12), 1 + choice.below(4)
    plan.changing = bool(choice.below(2))


_FAULTS = (
    Fault.ERROR_500,
    Fault.ERROR_409,
    Fault.ERROR_404,
    Fault.ENDING,
    Fault.LOST_REQUEST,
    Fault.LOST_REPLY,
    Fault.EMPTY_LIST,
    Fault.DISK_FULL,
)


def _die(machine: Machine, choice: _Choice) -> None:
    """The agent is killed before or after the n-th call from now that changes something."""
    plan = machine.ground.plan
    plan.fault = choice.of((Fault.KILL_BEFORE, Fault.KILL_AFTER))
    plan.skip, plan.count, plan.changing = choice.below(14), 1, True


def _be_late(machine: Machine, choice: _Choice) -> None:
    """The engine creates the n-th object from now later than the agent waits, or the agent is killed meanwhile."""
    plan = machine.ground.plan
    plan.fault, plan.skip, plan.count = choice.of((Fault.LATE, Fault.KILL_LATE)), choice.below(3), 1
    plan.late_s = choice.of(_LATE_S)
    edit = choice.of((_add, _set, _several, _remove_network, _remove_volume))
    edit(machine, choice)


_LATE_S = (0.0, 0.5, 5.05, 6.0, 15.0, 90.0, 500.0)


def _interfere(machine: Machine, choice: _Choice) -> None:
    """An outside change happens at the n-th call from now."""
    plan = machine.ground.plan
    plan.fault, plan.skip, plan.count, plan.changing = Fault.INTERFERE, choice.below(14), 1, True

    def act() -> None:
        with contextlib.suppress(EngineError):
            choice.of((_meddle, _meddle, _intrude, _remove_network, _retag, _restart_engine))(machine, choice)

    plan.interfere = act


def _hide(machine: Machine, choice: _Choice) -> None:
    """The engine lists a container or has an image, but answers 500 when asked for it; or this fault ends."""
    if choice.below(2):
        machine.ground.plan.hidden = frozenset()
        return
    seen = machine.ground.raw.inspect_container(_victim(machine, choice))
    hidden = {seen.id, seen.name} if seen is not None else set()
    machine.ground.plan.hidden = frozenset(hidden if choice.below(3) else {choice.of(OPTIONS["image"])})


def _kill_agent(machine: Machine, choice: _Choice) -> None:
    del choice
    machine.ground.kill_agent()


def _end_agent(machine: Machine, choice: _Choice) -> None:
    del choice
    machine.ground.end_agent()


def _stop_engine(machine: Machine, choice: _Choice) -> None:
    machine.promises.engine_went()
    machine.ground.stop_engine(live_restore=bool(choice.below(2)))
    machine.ground.rest(choice.of((0.1, 3.0, 40.0)))
    machine.ground.start_engine()


def _restart_engine(machine: Machine, choice: _Choice) -> None:
    """The engine restarts at once and starts containers by their policies, whatever the agent is doing."""
    machine.promises.engine_went()
    machine.ground.stop_engine(live_restore=bool(choice.below(2)))
    machine.ground.start_engine()


def _become(machine: Machine, choice: _Choice) -> None:
    """The engine changes its version and keeps its data, as in an upgrade or downgrade of the router's packages."""
    if not isinstance(machine.ground, World):
        return
    machine.promises.engine_went()
    machine.ground.stop_engine(live_restore=bool(choice.below(2)))
    machine.ground.rest(choice.of((0.1, 3.0, 40.0)))
    machine.ground.engine.become(choice.of(_VERSIONS))
    machine.ground.start_engine()


_VERSIONS = ((1, 41), (1, 45), (1, 51), (1, 55))  # Docker 20.10, 26, 28 and 29


def _exchange_engine(machine: Machine, choice: _Choice) -> None:
    """The engine uses another data root for a while, then the old one again, with the agent's containers."""
    ground = machine.ground
    for root in ("elsewhere", "data"):
        machine.promises.engine_went()
        ground.stop_engine(live_restore=False)
        ground.rest(choice.of((3.0, 40.0)))
        ground.exchange_engine(root)
        ground.start_engine()
        ground.rest(choice.of((0.0, 1.0, 20.0, 200.0)))
        if choice.below(2):
            _reconcile(machine, choice)


def _lose_registry(machine: Machine, choice: _Choice) -> None:
    """The registry is unreachable, limits pulls, rejects the login, or works again."""
    if isinstance(machine.ground, World):
        machine.ground.engine.no_registry = choice.of(_NO_REGISTRY)


_NO_REGISTRY = (
    "",
    'Get "https://registry.example/v2/": dial tcp: i/o timeout',
    "toomanyrequests: You have reached your pull rate limit",
    "pull access denied, repository does not exist or may require authorization",
)


def _lose_events(machine: Machine, choice: _Choice) -> None:
    how = choice.of(("cut", "mute", "hear"))
    machine.promises.deaf = machine.promises.deaf or how == "mute"
    machine.ground.lose_events(how)


def _set_clock(machine: Machine, choice: _Choice) -> None:
    machine.promises.clock_was_set()
    machine.ground.set_clock(choice.of((0.0, 50 * 31_557_600.0, -3600.0, -1.7e9)))


def _wait(machine: Machine, choice: _Choice) -> None:
    machine.ground.rest(choice.of((30.0, 130.0, 700.0)))


VERBS: dict[str, Callable[[Machine, _Choice], None]] = {
    "set": _set,
    "add": _add,
    "remove": _remove,
    "drop": _remove_object,
    "label": _label,
    "back": _put_back,
    "move": _move,
    "rename": _rename,
    "subnet": _subnet,
    "several": _several,
    "prune": _prune,
    "stack": _share,
    "lend": _lend,
    "outer": _go_out,
    "await": _renew_waiting,
    "sick": _sicken,
    "reword": _reword,
    "attempt": _attempt,
    "mistake": _mistake,
    "garble": _garble,
    "correct": _correct,
    "workers": _workers,
    "manual": _by_our_door,
    "reconcile": _reconcile,
    "renew": _renew,
    "upgrade": _upgrade,
    "meddle": _meddle,
    "rmnet": _remove_network,
    "rmvol": _remove_volume,
    "intrude": _intrude,
    "evict": _drive_out,
    "retag": _retag,
    "plug": _unplug,
    "fail": _fail,
    "die": _die,
    "interfere": _interfere,
    "hide": _hide,
    "kill": _kill_agent,
    "term": _end_agent,
    "engine": _stop_engine,
    "root": _exchange_engine,
    "become": _become,
    "events": _lose_events,
    "registry": _lose_registry,
    "clock": _set_clock,
    "wait": _wait,
    "late": _be_late,
}
_WEIGHTS = {
    "set": 14,
    "move": 3,
    "rename": 2,
    "several": 5,
    "reword": 2,
    "attempt": 4,
    "renew": 3,
    "upgrade": 3,
    "stack": 4,
    "lend": 2,
    "outer": 2,
    "await": 2,
    "sick": 2,
    "become": 2,
    "add": 3,
    "remove": 3,
    "meddle": 12,
    "fail": 5,
    "die": 5,
    "interfere": 4,
    "late": 4,
}


def random_steps(seed: int, count: int) -> list[Step]:
    """Random steps; the same seed gives the same steps."""
    dice = random.Random(seed)
    verbs = dice.choices(list(VERBS), weights=[_WEIGHTS.get(verb, 1) for verb in VERBS], k=count)
    return [Step(verb, dice.randrange(10**9)) for verb in verbs]


def shrink(steps: list[Step], fails: Callable[[list[Step]], bool], *, tries: int = 300) -> list[Step]:
    """Removes steps that the failure does not need: halves first, then smaller parts."""
    size = max(1, len(steps) // 2)
    while tries > 0:
        for begin in range(0, len(steps), size):
            shorter = steps[:begin] + steps[begin + size :]
            tries -= 1
            if fails(shorter):
                steps = shorter
                break
            if tries <= 0:
                break
        else:
            if size == 1:
                return steps
            size = max(1, size // 2)
    return steps


def run(steps: list[Step], ground: Ground) -> None:
    """Makes all steps and the final checks. Raises AssertionError if an invariant does not hold."""
    machine = Machine(ground)
    for step in steps:
        machine.do(step)
    machine.finish()
