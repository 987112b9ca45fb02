# SPDX-License-Identifier: GPL-2.0-or-later
"""Random configurations that are valid on any engine, and other texts with the same meaning."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

# spellings with the same meaning, the most common one first
_Spellings = tuple[str, ...]
_Entry = tuple[str, bool, tuple[_Spellings, ...]]  # option, whether it is a list, its items
# option -> the values to choose from, each with its spellings
SCALARS: dict[str, tuple[_Spellings, ...]] = {
    "memory": (("64m", "65536k", "67108864", "64M"), ("128m", "131072k")),
    "memory_reservation": (("16m", "16384k"),),
    "shm_size": (("32m", "32768k"),),
    "cpus": (("0.5", "0.50", ".5"), ("1", "1.0")),
    "cpu_shares": (("512",), ("256",)),
    "pids_limit": (("60",), ("90",)),
    "restart": (("always",), ("unless-stopped",), ("on-failure:3",), ("no",)),
    "hostname": (("alpha",), ("beta",)),
    "user": (("0", "root"), ("1000:1000",)),
    "workdir": (("/tmp", "/tmp/", "//tmp"), ("/",)),
    "privileged": (("0", "no", "off", "false"),),
    "read_only": (("1", "yes", "on", "true"), ("0", "no")),
    "tty": (("1", "on", "true"),),
    "stdin": (("1", "enabled", "yes"),),
    "stop_signal": (("SIGINT", "INT", "2"), ("SIGQUIT", "QUIT")),
    "health_cmd": (("true",),),
    "health_retries": (("3",), ("5",)),
    "log_driver": (("json-file",),),
    "state": (("running",), ("stopped",)),
    "command": (("sleep 100000", "sleep  100000", "'sleep' 100000"), ("sleep 200000",)),
}
# option -> the entries to choose from, each with its spellings; the order of entries has no meaning
SETS: dict[str, tuple[_Spellings, ...]] = {
    "env": (("A=1",), ("B=two words",), ("C=it's",), ("TOKEN=S3CRET-4711",)),
    "cap_add": (("NET_ADMIN", "net_admin", "CAP_NET_ADMIN"), ("SYS_TIME", "cap_sys_time")),
    "cap_drop": (("MKNOD", "CAP_MKNOD"), ("CHOWN",)),
    "ulimit": (("nofile=1024:2048",), ("nproc=512", "nproc=512:512")),
    "tmpfs": (("/scratch", "/scratch:rw"), ("/other:size=1m", "/other:size=1024k,nosuid")),
    "label": (("a=b",), ("com.example.x=1",)),
    "sysctl": (("net.ipv4.ip_forward=1",), ("net.core.somaxconn=512",)),
    "group_add": (("20",), ("21",)),
    "volume": (("data:/data", "data:/data:rw"), ("cache:/cache:ro",), ("/anonymous",)),
    "log_opt": (("max-size=1m",), ("max-file=2",)),
}
# the default values: stating one changes nothing
DEFAULTS = {
    "privileged": ("0", "off"),
    "read_only": ("0",),
    "tty": ("0", "false"),
    "stdin": ("0",),
    "init": ("0",),
    "publish_all": ("0",),
    "oom_kill_disable": ("0",),
    "memory": ("0",),
    "pids_limit": ("0", "-1"),
    "blkio_weight": ("0",),
    "shm_size": ("64m", "65536k"),
    "stop_signal": ("SIGTERM", "TERM", "15"),
    "log_driver": ("json-file",),
    "ipc": ("private",),
    "user": ("root", "0"),
    "on_drift": ("repair",),
    "rollback": ("1",),
}
NETWORKS = ("lan", "dmz")
NAMES = ("web", "db", "app")
_INTERVALS = (("1s", "1000ms", "0m1s"), ("2s", "2000ms"))
STOPPED = ("state", False, (("stopped",),))
_ALWAYS = {"stop_timeout": ("0",), "gate": ("0.2", "0.20"), "grace": ("0", "0s"), "image": ("app:1",)}


@dataclass(frozen=True)
class Section:
    kind: str
    name: str
    entries: tuple[_Entry, ...]


def random_spec(dice: random.Random) -> list[Section]:
    """A valid configuration. Each port and address belongs to one section name, so none ever moves between sections."""
    sections = [
        Section("network", "lan", (("subnet", True, (("10.219.60.0/24",),)),)),
        Section("network", "dmz", (("internal", False, (("1", "yes"),)),) if dice.random() < 0.3 else ()),
        Section("volume", "data", (("adopt", False, (("1", "on"),)),)),
        Section("volume", "cache", (("adopt", False, (("1", "on"),)),)),
    ]
    running: list[str] = []  # only running sections: a dependency on a stopped section would never be met
    for name in dice.sample(NAMES, dice.randint(1, len(NAMES))):
        sections.append(_container(dice, name, running))
        running += [name] if STOPPED not in sections[-1].entries else []
    return sections


def _container(dice: random.Random, name: str, before: Sequence[str]) -> Section:
    entries: list[_Entry] = [(option, False, (spellings,)) for option, spellings in _ALWAYS.items()]
    command = dice.choice(SCALARS["command"])
    entries.append(("command", False, (command,)))
    for option in sorted(SCALARS.keys() - {"command"}):
        if dice.random() < 0.25:
            entries.append((option, False, (dice.choice(SCALARS[option]),)))
    # with the default interval, the gate would wait for half a minute
    if any(option == "health_cmd" for option, _, _ in entries):
        entries.append(("health_interval", False, (dice.choice(_INTERVALS),)))
    chosen = {option for option, _, _ in entries}
    for option in sorted(SETS):
        needs = {"log_opt": "log_driver"}.get(option)
        if dice.random() < 0.25 and (needs is None or needs in chosen):
            items = dice.sample(SETS[option], dice.randint(1, len(SETS[option])))
            entries.append((option, True, tuple(items)))
    entries += _network(dice, name)
    if before and dice.random() < 0.3:
        entries.append(("depends_on", True, ((before[-1], f"{before[-1]}:started"),)))
    return Section("container", name, tuple(entries))


def _network(dice: random.Random, name: str) -> list[_Entry]:
    number = NAMES.index(name)
    kind = dice.choice(("default", "lan", "fixed", "both"))
    ports = [(f"1{number}080:80", f"1{number}080:80/tcp"), (f"1{number}053:53/udp",)]
    found: list[_Entry] = []
    if dice.random() < 0.5:
        found.append(("port", True, tuple(dice.sample(ports, dice.randint(1, 2)))))
    if kind == "lan":
        found.append(("network", True, ((f"lan,alias={name}-x",),)))
    elif kind == "fixed":
        found.append(("network", True, ((f"lan,ip=10.219.60.{number + 9}",),)))
    elif kind == "both":
        found.append(("network", True, (("lan",), ("dmz",))))
    return found


def text_of(spec: Sequence[Section]) -> str:
    """The configuration in the most common spelling."""
    lines: list[str] = []
    for section in spec:
        lines.append(f"\nconfig {section.kind} '{section.name}'")
        for option, is_list, items in section.entries:
            word = "list" if is_list else "option"
            lines += [f"\t{word} {option} {_single(item[0])}" for item in items]
    return "\n".join([*lines, ""])


def same_otherwise(spec: Sequence[Section], dice: random.Random) -> str:
    """The same configuration with another order, other quotes, comments, and other spellings of values."""
    lines: list[str] = ["# edited"]
    for section in dice.sample(list(spec), len(spec)):
        lines.append(
            f"config {section.kind}  {dice.choice((section.name, _single(section.name)))}  # {section.name}"
        )
        for option, is_list, items in dice.sample(list(section.entries), len(section.entries)):
            # the order of networks has a meaning: the first one differs from the others
            order = list(items) if option == "network" else dice.sample(list(items), len(items))
            word = "list" if is_list and (len(items) > 1 or dice.random() < 0.5) else "option"
            lines += [f"  {word} {option} {_quoted(dice.choice(item), dice)}" for item in order]
        if section.kind == "container":
            lines += _stated(section, dice)
        lines.append(dice.choice(("", "# nothing", "\t")))
    return "\n".join([*lines, ""])


def _stated(section: Section, dice: random.Random) -> list[str]:
    unset = sorted(DEFAULTS.keys() - {option for option, _, _ in section.entries})
    stated = [option for option in unset if dice.random() < 0.2]
    return [f"  option {option} {_quoted(dice.choice(DEFAULTS[option]), dice)}" for option in stated]


def _single(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _quoted(value: str, dice: random.Random) -> str:
    plain = all(letter.isalnum() or letter in "-_./:=," for letter in value)
    ways = [_single(value), '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"']
    return dice.choice([*ways, value] if plain else ways)
