# SPDX-License-Identifier: GPL-2.0-or-later
"""Containers made with `docker run`, adopted: what runs afterwards has the same settings, option for option."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest

from agent.runtime.requests.adopt import AdoptRequest, adopt_container
from agent.schema.validate import properties
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.policies import policies

Inspect = dict[str, Any]

# a shell that goes when it is told to: the engine would wait 10 s for a sleep
STAY = "trap exit TERM; sleep 1000 & wait"
MAC = "02:42:0a:00:00:07"
RICH = "rich:test"
RICH_CHANGES = [
    "ENV FROM_IMAGE=1",
    "ENV BOTH=image",
    'ENTRYPOINT ["sh", "-c"]',
    f'CMD ["{STAY}"]',
    "USER nobody",
    "WORKDIR /tmp",
    "EXPOSE 8080",
    "VOLUME /data",
    "LABEL of.image=1",
    "HEALTHCHECK --interval=1s CMD true",
]


@dataclass(frozen=True)
class Row:
    """`words`: what follows `docker run -d --name NAME`. `options`: those that the section must have, no others."""

    words: list[str]
    options: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    create: bool = False  # made, not started: the kernel of a test machine may not allow it
    connect: str = ""


def a_run(*words: str, options: set[str] | None = None, **more: Any) -> Row:
    return Row([*words, BUSYBOX, "sh", "-c", STAY], {"command", *(options or ())}, **more)


# without it in the kernel the engine drops the value with a warning
BLKIO = {"blkio_weight"} if Path("/sys/fs/cgroup/blkio/blkio.weight").exists() else set()
HEALTH = ["--health-cmd", "true", "--health-interval", "1s", "--health-timeout", "500ms"]
HEALTH += ["--health-retries", "4", "--health-start-period", "2s"]
ROWS: dict[str, Row] = {
    "plain": a_run(),
    "identity": a_run(
        *["--hostname", "box", "--domainname", "lan.example", "-u", "nobody", "-w", "/tmp"],
        *["-e", "A=1", "-e", "B=x 'y'", "-e", "EMPTY=", "-l", "a=b", "-l", "empty=", "-t", "-i", "--init"],
        *["--stop-signal", "SIGINT", "--stop-timeout", "1", "--read-only", "--restart", "on-failure:3"],
        options={"hostname", "domainname", "user", "workdir", "env", "label", "tty", "stdin", "init"}
        | {"stop_signal", "stop_timeout", "read_only", "restart"},
    ),
    "limits": a_run(
        *["-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpus", "1.5"],
        *["--cpu-shares", "512", "--cpuset-cpus", "0", "--pids-limit", "50", "--shm-size", "16m"],
        *["--ulimit", "nofile=1024:2048", "--ulimit", "core=0"],
        options={"memory", "memory_swap", "memory_reservation", "cpus", "cpu_shares", "cpuset", "pids_limit"}
        | {"shm_size", "ulimit"},
    ),
    "networks": a_run(
        *["--network", "front", "--ip", "10.219.6.9", "--ip6", "fd00:6::9", "--network-alias", "al"],
        *["--mac-address", MAC, "--dns", "9.9.9.9", "--dns-search", "lan"],
        *["--dns-option", "ndots:2", "--add-host", "nas:10.0.0.9", "--sysctl", "net.ipv4.ip_forward=1"],
        options={"network", "mac_address", "dns", "dns_search", "dns_opt", "extra_host", "sysctl"},
        connect="back",
    ),
    "host-net.1": a_run("--network", "host", options={"network_mode", "name"}),
    "no_net": a_run(
        *["--network", "none", "--log-driver", "local", "-m", "64m"],
        options={"network_mode", "log_driver", "memory"},
    ),
    "guest": a_run("--network", "container:plain", options={"network_mode"}),
    "ports": a_run(
        *["-p", "127.0.0.1:18571:80/udp", "-p", "18572-18573:82-83", "-p", "85"], options={"port"}
    ),
    "mounts": a_run(
        *["-v", "FOLDER:/data:ro", "-v", "FOLDER:/more:private", "-v", "store.1:/n:nocopy", "-v", "/anon"],
        *["--tmpfs", "/t:size=1m", "--mount", "type=tmpfs,target=/tt,tmpfs-size=65536,tmpfs-mode=1777"],
        *["--mount", "type=bind,source=FOLDER,target=/mm,readonly"],
        options={"volume", "tmpfs"},
    ),
    "rights": a_run(
        *["--cap-add", "net_admin", "--cap-drop", "MKNOD", "--device", "/dev/null:/dev/mine:rw"],
        *["--device", "/dev/zero", "--device-cgroup-rule", "c 188:* rmw", "--group-add", "5"],
        *["--security-opt", "no-new-privileges", "--log-driver", "json-file", "--log-opt", "max-size=1m"],
        *["--pid", "host", "--ipc", "host", "--security-opt", "systempaths=unconfined"],
        options={"cap_add", "cap_drop", "device", "device_cgroup_rule", "group_add", "security_opt"}
        | {"log_driver", "log_opt", "pid", "ipc"},
    ),
    "healthy": a_run(
        *HEALTH,
        options={"health_cmd", "health_interval", "health_timeout", "health_retries", "health_start_period"},
    ),
    "no_health": Row(["-P", "--no-healthcheck", RICH], {"publish_all", "health_cmd"}),
    "privileged": a_run("--privileged", options={"privileged", "state"}, create=True),
    "unlikely": a_run(
        *["-m", "64m", "--oom-kill-disable", "--userns", "host", "--blkio-weight", "300"],
        *["--runtime", "io.containerd.runc.v2"],
        options={"memory", "oom_kill_disable", "userns", "state", "runtime", *BLKIO},
        create=True,
    ),
    "from_image": Row([RICH]),
    "over_image": Row(
        [
            "-e",
            "BOTH=mine",
            "-u",
            "root",
            "-w",
            "/",
            "--health-interval",
            "7s",
            "--entrypoint",
            "ash",
            RICH,
            "-c",
            STAY,
        ],
        {"env", "user", "workdir", "health_interval", "entrypoint", "command"},
    ),
    "other_command": Row([RICH, STAY + "; true"], {"command"}),
    "no_entrypoint": Row(["--entrypoint", "", RICH, "sh", "-c", STAY], {"entrypoint", "command"}),
    "lender": a_run("-v", "FOLDER:/lent", "-v", "/lent/anon", options={"volume"}),
    "strange": a_run(
        *["--expose", "99", "--oom-score-adj", "500", "--cpu-quota", "50000", "--cpu-period", "90000"],
        *["--uts", "host", "--volumes-from", "lender:ro", "--cgroupns", "private", "--cpuset-mems", "0"],
        *["--network", "front", "--link-local-ip", "169.254.7.9"],
        options={"expose", "oom_score_adj", "cpu_quota", "cpu_period", "uts", "volumes_from", "cgroupns"}
        | {"cpuset_mems", "network"},
    ),
    "refused": a_run(
        *[
            "--gpus",
            "all",
            "--memory-swappiness",
            "20",
            "--cpu-rt-period",
            "900000",
            "--cgroup-parent",
            "/slow",
        ],
        *["--device-read-bps", "/dev/null:1mb", "--device-write-iops", "/dev/null:9"],
        options={"gpus", "memory_swappiness", "cpu_rt_period", "cgroup_parent", "device_read_bps"}
        | {"device_write_iops", "state"},
        create=True,
    ),
}
POLICY = policies() - {"state"} | {"image"}
# asked for by kernels, engines or storage that a test machine may not have: tests/plan/test_completeness.py
POLICY |= {
    "annotation",
    "storage_opt",
    "health_start_interval",
    "platform",
    "cpu_rt_runtime",
    "blkio_weight_device",
}
POLICY |= {"device_read_iops", "device_write_bps", "volume_driver", "stdin_once"}
ELSEWHERE = {"env_file", "ip", "ip6"}  # env_file becomes env; addresses are written into the network entry


class DockerCommand:
    """The command of Debian's docker.io: other versions speak to its engine in other words."""

    def __init__(self, host: str) -> None:
        self._host = host

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            ["/usr/bin/docker", "-H", self._host, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def inspect(self, name: str) -> Inspect:
        found: Inspect = json.loads(self("inspect", "--type", "container", name))[0]
        return found


@dataclass
class Adopted:
    """What was and what is, by name."""

    before: dict[str, Inspect]
    after: dict[str, Inspect]
    answers: dict[str, dict[str, Any]]
    errors: list[str]
    text: str
    second_plan: str


def make(command: DockerCommand, name: str, folder: str) -> None:
    row = ROWS[name]
    words = [word.replace("FOLDER", folder) for word in row.words]
    command(*(["create"] if row.create else ["run", "-d"]), "--name", name, *words)
    if row.connect:
        command("network", "connect", "--alias", "two", row.connect, name)


@pytest.fixture(scope="module")
def adopted(engine: PrivateDockerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adopted]:
    folder = tmp_path_factory.mktemp("adopted")
    client = docker.DockerClient(base_url=engine.host, version="auto")
    box = Box.make(folder, engine, client)
    command = DockerCommand(engine.host)
    engine.import_busybox(RICH, RICH_CHANGES)
    command("network", "create", "--ipv6", "--subnet", "10.219.6.0/24", "--subnet", "fd00:6::/64", "front")
    command("network", "create", "back")
    lenders = ("plain", "lender")  # the network of one and the volumes of the other are shared by others
    for name in lenders:
        make(command, name, str(folder))
    others = [name for name in ROWS if name not in lenders]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: make(command, name, str(folder)), others))
    before = {name: command.inspect(name) for name in ROWS}
    box.write("\n")
    answers = {
        name: adopt_container(box.reconciler, AdoptRequest(container=name, commit=True)) for name in ROWS
    }
    path = box.config / "containers"
    text = path.read_text()
    path.write_text(text.replace("\toption adopt '1'\n", "\toption adopt '1'\n\toption gate '0.3'\n"))
    _, outcomes = box.apply()
    errors = [f"{outcome.operation.key}: {outcome.error}" for outcome in outcomes if outcome.error]
    after = {name: command.inspect(name) for name in ROWS}
    box.reconciler.backoff.clear()
    yield Adopted(before, after, answers, errors, text, str(box.apply()[0]))
    box.clean()
    client.close()


def dropped_options(inspected: dict[str, Any]) -> set[str]:
    """Limits that the engine leaves out where the kernel has no throttling of block devices."""
    limits = {"device_read_bps": "BlkioDeviceReadBps", "device_write_iops": "BlkioDeviceWriteIOps"}
    return {option for option, key in limits.items() if not inspected["HostConfig"][key]}


def test_every_option_of_the_schema_is_adopted_somewhere() -> None:
    covered = set().union(*(row.options for row in ROWS.values()))
    assert set(properties("container")) - POLICY - ELSEWHERE == covered | {"blkio_weight"}


def test_adopted_containers_have_the_settings_they_had(adopted: Adopted) -> None:
    """One test, as it takes seconds to make and adopt them all: each assertion shows what is wrong by name."""
    assert adopted.errors == []
    assert adopted.second_plan == "nothing to do"
    assert [name for name, a in adopted.after.items() if a["Id"] == adopted.before[name]["Id"]] == []
    before = {name: settings(body, adopted.before) for name, body in adopted.before.items()}
    after = {name: settings(body, adopted.after) for name, body in adopted.after.items()}
    assert differing(before, after) == {}
    states = {name: body["State"]["Status"] for name, body in adopted.after.items()}
    assert states == {name: "created" if row.create else "running" for name, row in ROWS.items()}
    said = {name: said_options(answer) for name, answer in adopted.answers.items()}
    # the section says what differs from image and engine, and no more
    dropped = {name: dropped_options(body) for name, body in adopted.before.items()}
    assert said == {n: (row.options | {"image", "adopt", "restart"}) - dropped[n] for n, row in ROWS.items()}
    # engines from 28 on make random MAC addresses, and say only of a container's first network that it was chosen
    notes = {
        name: sorted(note for note in answer["notes"] if not note.startswith("network back: the MAC address"))
        for name, answer in adopted.answers.items()
    }
    assert notes == {name: row.notes for name, row in ROWS.items()}
    assert sections_of(adopted, "networks") == ["network front", "network back", "container networks"]
    assert sections_of(adopted, "mounts") == ["volume store_1", "container mounts"]
    assert sections_of(adopted, "host-net.1") == ["container host_net_1"]
    assert "list env 'A=***'" in adopted.answers["identity"]["text"]
    assert "list env 'A=1'" in adopted.text


def differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Name -> part -> (before, after), where they are not the same."""
    found = {
        name: {part: (was[part], after[name][part]) for part in was if was[part] != after[name][part]}
        for name, was in before.items()
    }
    return {name: parts for name, parts in found.items() if parts}


def said_options(answer: dict[str, Any]) -> set[str]:
    section = answer["text"].rpartition("\nconfig container")[2]
    return {line.split()[1] for line in section.splitlines() if line.startswith("\t")}


def sections_of(adopted: Adopted, name: str) -> list[str]:
    return [f"{section['type']} {section['name']}" for section in adopted.answers[name]["sections"]]


# the image is compared by its id; the others are of the session that made the container, or seen in the mounts
SESSION = {"Image", "Volumes", "AttachStdin", "AttachStdout", "AttachStderr"}


def settings(body: Inspect, all_bodies: dict[str, Inspect]) -> dict[str, Any]:
    """What a person set, in one form: without ids, and with what is empty left out."""
    names = {other["Id"]: name for name, other in all_bodies.items()}
    config = {key: value for key, value in body["Config"].items() if key not in SESSION}
    if config["Hostname"] in {other[:12] for other in names}:
        del config["Hostname"]
    config.pop("MacAddress", None)  # engines from API 1.44 on say it of the endpoint only
    config["Env"] = sorted(config["Env"] or ())
    config["ExposedPorts"] = sorted(set(config.get("ExposedPorts") or ()))
    config["Labels"] = {k: v for k, v in config["Labels"].items() if not k.startswith("ucidockd.")}
    host = {
        key: value for key, value in body["HostConfig"].items() if key not in {"Binds", "Mounts", "Tmpfs"}
    }
    for key in ("NetworkMode", "IpcMode", "PidMode"):
        kind, _, other = host[key].partition(":")
        host[key] = f"{kind}:{names.get(other, other)}" if other else kind
    host["NetworkMode"] = host["NetworkMode"].replace("default", "bridge")
    host["CapAdd"] = ["CAP_" + c.upper().removeprefix("CAP_") for c in host["CapAdd"] or ()]
    host["CapDrop"] = ["CAP_" + c.upper().removeprefix("CAP_") for c in host["CapDrop"] or ()]
    host["Ulimits"] = sorted(host["Ulimits"] or (), key=lambda u: str(u["Name"]))
    host["Devices"] = sorted(host["Devices"] or (), key=lambda d: str(d["PathInContainer"]))
    host["RestartPolicy"] = {**host["RestartPolicy"], "Name": host["RestartPolicy"]["Name"] or "no"}
    host.pop("ConsoleSize", None)  # of the session
    mounts = sorted(
        (
            m["Destination"],
            m["Type"],
            m["Source"],
            m["RW"],
            m["Propagation"],
            "nocopy" in (m["Mode"] or "") or no_copy(body, m),
        )
        for m in body["Mounts"]
        if m["Type"] != "tmpfs"
    )
    networks = {
        name: (
            sorted(set(item["Aliases"] or ()) - {body["Id"][:12]}),
            item["IPAMConfig"] or {},
            item["MacAddress"] == MAC,
        )
        for name, item in body["NetworkSettings"]["Networks"].items()
    }
    return {
        "image": body["Image"],
        "config": {key: value for key, value in config.items() if value},
        "host": {key: value for key, value in host.items() if value},
        "mounts": mounts,
        "tmpfs": sorted(tmpfs(body["HostConfig"])),
        "networks": networks,
    }


def no_copy(body: Inspect, mount: Inspect) -> bool:
    given = {m["Target"]: m for m in body["HostConfig"].get("Mounts") or ()}.get(mount["Destination"], {})
    return bool((given.get("VolumeOptions") or {}).get("NoCopy"))


def tmpfs(host: Inspect) -> list[str]:
    found = [f"{target}:{options}" for target, options in (host.get("Tmpfs") or {}).items()]
    for item in host.get("Mounts") or ():
        if item["Type"] == "tmpfs":
            given = item["TmpfsOptions"]
            found.append(f"{item['Target']}:size={given['SizeBytes']},mode={given['Mode']:o}")
    return found
