# SPDX-License-Identifier: GPL-2.0-or-later
"""dockerd comes up without an agent, and never with an open port."""

from __future__ import annotations

import fcntl
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.router.rootfs import Router

OPEN = "config globals 'globals'\n\toption data_root '/opt/docker/'\n\tlist hosts 'tcp://0.0.0.0:2375'\n"
GOOD = {"data-root": "/opt/docker/", "hosts": ["unix:///var/run/docker.sock"], "log-level": "info"}
NOT_RUNNING = '#!/bin/ash\n[ "$1" != running ] || exit 1\necho "dockerd\t$1" >>/calls\n'


@pytest.fixture
def rescue(router: Router) -> Router:
    router.write("etc/config/dockerd", OPEN)
    router.script("etc/init.d/dockerd", NOT_RUNNING)
    router.write("proc/mounts", "")
    return router


def run(router: Router, patience_s: int = 1) -> list[list[str]]:
    router.run(
        "/usr/lib/ucidockd/dockerd-rescue",
        UCIDOCKD_RESCUE_PATIENCE_S=str(patience_s),
        UCIDOCKD_RESCUE_STEP_S="1",
    )
    return [call for call in router.calls() if call[0] == "dockerd"]


def rendered(router: Router) -> dict[str, object]:
    found: dict[str, object] = json.loads((router.root / "etc/ucidockd/daemon.json").read_text())
    return found


@contextmanager
def an_agent(router: Router, place: str = "var/run/ucidockd") -> Iterator[None]:
    """What the script looks for: the lock held, and the socket."""
    folder = router.root / place
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "agent.sock"))
        with (folder / "agent.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def test_without_an_agent_dockerd_starts_with_the_last_good_configuration(rescue: Router) -> None:
    rescue.write("etc/ucidockd/daemon-last-good.json", json.dumps({"document": GOOD}))
    assert run(rescue) == [["dockerd", "start"]]
    assert rendered(rescue) == GOOD
    assert rescue.uci("get", "dockerd.globals.alt_config_file") == "/etc/ucidockd/daemon.json"


def test_without_one_it_starts_with_its_unix_socket_only(rescue: Router) -> None:
    assert run(rescue) == [["dockerd", "start"]]
    found = rendered(rescue)
    assert (found["hosts"], found["tls"]) == (["unix:///var/run/docker.sock"], False)


def test_a_last_good_configuration_without_its_keys_is_not_used(rescue: Router) -> None:
    document = {**GOOD, "hosts": ["tcp://0.0.0.0:2376"], "tlscert": "/etc/ucidockd/tls/gone.pem"}
    rescue.write("etc/ucidockd/daemon-last-good.json", json.dumps({"document": document}))
    run(rescue)
    assert rendered(rescue)["hosts"] == ["unix:///var/run/docker.sock"]


def test_one_that_dockerd_refuses_is_not_used(rescue: Router) -> None:
    rescue.write("etc/ucidockd/daemon-last-good.json", json.dumps({"document": GOOD}))
    rescue.script(
        "usr/bin/dockerd",
        '#!/bin/ash\n[ "$1" != --help ] || { echo "      --validate   Validate"; exit 0; }\n'
        "! grep -q log-level /etc/ucidockd/daemon.json\n",
    )
    run(rescue)
    assert "log-level" not in rendered(rescue)


def test_what_the_agent_rendered_since_boot_is_used_as_it_is(rescue: Router) -> None:
    rescue.write("etc/ucidockd/daemon-last-good.json", json.dumps({"document": GOOD}))
    rescue.write("etc/ucidockd/daemon.json", json.dumps({**GOOD, "debug": True}))
    rescue.write("var/run/ucidockd/daemon-record.json", "{}")
    run(rescue)
    assert rendered(rescue)["debug"] is True


def test_what_was_rendered_before_the_boot_may_never_have_worked(rescue: Router) -> None:
    rescue.write("etc/ucidockd/daemon-last-good.json", json.dumps({"document": GOOD}))
    rescue.write("etc/ucidockd/daemon.json", json.dumps({**GOOD, "debug": True}))
    run(rescue)
    assert rendered(rescue) == GOOD


def test_with_an_agent_it_does_nothing(rescue: Router) -> None:
    with an_agent(rescue):
        assert run(rescue, patience_s=20) == []


def test_the_agent_is_looked_for_where_its_section_says(rescue: Router) -> None:
    rescue.write("etc/config/containers", "config agent 'other'\n\toption socket '/tmp/ours/agent.sock'\n")
    with an_agent(rescue, "tmp/ours"):
        assert run(rescue, patience_s=20) == []


MOUNTED = {
    "/mnt/sda1": ("/mnt/sda1", True),
    "/mnt/my disk": (r"/mnt/my\040disk", True),
    r"/mnt/a\b": (r"/mnt/a\134b", True),
    "/mnt/.": ("/mnt/x", False),
    "/mnt/a[1]": ("/mnt/a1", False),
    "/mnt/a*": ("/mnt/a*", True),
    "/mnt/sda": ("/mnt/sda1", False),
}


@pytest.mark.variants(3)
@pytest.mark.parametrize("point", MOUNTED)
def test_a_mount_point_is_compared_as_it_is_written(rescue: Router, point: str) -> None:
    shown, mounted = MOUNTED[point]
    rescue.write("etc/config/dockerd", OPEN.replace("/opt/docker/", f"{point}/docker"))
    rescue.write("etc/config/fstab", f"config mount\n\toption target '{point}'\n\toption enabled '1'\n")
    rescue.write("proc/mounts", f"/dev/sda1 {shown} ext4 rw 0 0\n")
    words = ["chroot", rescue.root, "/usr/lib/ucidockd/dockerd-rescue"]
    times = {"UCIDOCKD_RESCUE_PATIENCE_S": "1", "UCIDOCKD_RESCUE_STEP_S": "1"}
    with subprocess.Popen(words, env={"PATH": "/sbin:/bin", **times}) as process:
        try:
            assert process.wait(4) == 0 and mounted
        except subprocess.TimeoutExpired:
            assert not mounted
            process.kill()


def test_a_dockerd_that_runs_is_left_alone(rescue: Router) -> None:
    rescue.script("etc/init.d/dockerd", '#!/bin/ash\n[ "$1" = running ] || echo "dockerd\t$1" >>/calls\n')
    assert run(rescue) == []


def test_a_disk_that_is_not_mounted_is_waited_for(rescue: Router) -> None:
    rescue.write("etc/config/dockerd", OPEN.replace("/opt/docker/", "/mnt/sda1/docker"))
    rescue.write("etc/config/fstab", "config mount\n\toption target '/mnt/sda1'\n\toption enabled '1'\n")
    words = ["chroot", rescue.root, "/usr/lib/ucidockd/dockerd-rescue"]
    with subprocess.Popen(
        words, env={"PATH": "/sbin:/bin", "UCIDOCKD_RESCUE_PATIENCE_S": "1", "UCIDOCKD_RESCUE_STEP_S": "1"}
    ) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        assert [call for call in rescue.calls() if call[0] == "dockerd"] == []
        rescue.write("proc/mounts", "/dev/sda1 /mnt/sda1 ext4 rw 0 0\n")
        assert process.wait(10) == 0
    assert [call for call in rescue.calls() if call[0] == "dockerd"] == [["dockerd", "start"]]


def test_another_supervisor_than_procd_has_no_use_for_it(rescue: Router) -> None:
    rescue.write("etc/config/containers", "config agent 'agent'\n\toption daemon 'external'\n")
    assert run(rescue) == []


OWN = {"data-root": "/mnt/sda1/docker", "hosts": ["unix:///var/run/docker.sock"]}
OWN_FILES = {
    "alt_config_file": "/etc/docker/mine.json",
    "no configuration of dockerd": "/etc/docker/daemon.json",
    "on the disk itself": "/mnt/sda1/daemon.json",
}


@pytest.mark.parametrize("path", OWN_FILES.values(), ids=OWN_FILES)
def test_a_file_of_the_users_is_used_as_it_is_once_its_disk_is_there(rescue: Router, path: str) -> None:
    (rescue.root / "etc/config/dockerd").unlink()
    if path != "/etc/docker/daemon.json":
        rescue.write("etc/config/dockerd", f"config globals 'globals'\n\toption alt_config_file '{path}'\n")
    if not path.startswith("/mnt"):
        rescue.write(path.lstrip("/"), json.dumps(OWN))
    rescue.write("etc/config/fstab", "config mount\n\toption target '/mnt/sda1'\n\toption enabled '1'\n")
    words = ["chroot", rescue.root, "/usr/lib/ucidockd/dockerd-rescue"]
    with subprocess.Popen(
        words, env={"PATH": "/sbin:/bin", "UCIDOCKD_RESCUE_PATIENCE_S": "1", "UCIDOCKD_RESCUE_STEP_S": "1"}
    ) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        assert [call for call in rescue.calls() if call[0] == "dockerd"] == []
        rescue.write(path.lstrip("/"), json.dumps(OWN))
        rescue.write("proc/mounts", "/dev/sda1 /mnt/sda1 ext4 rw 0 0\n")
        assert process.wait(10) == 0
    assert [call for call in rescue.calls() if call[0] == "dockerd"] == [["dockerd", "start"]]
    assert not (rescue.root / "etc/ucidockd/daemon.json").exists()
    assert json.loads((rescue.root / path.lstrip("/")).read_text()) == OWN
    if path != "/etc/docker/daemon.json":
        assert rescue.uci("get", "dockerd.globals.alt_config_file") == path


@pytest.mark.parametrize(
    "option", ["enabled '0'", "docker_host 'tcp://192.168.1.5:2376'", "daemon 'external'"]
)
@pytest.mark.parametrize("name", ["agent 'agent'", "agent"])
def test_where_the_agent_would_not_start_it_nothing_does(rescue: Router, option: str, name: str) -> None:
    rescue.write("etc/config/containers", f"config {name}\n\toption {option}\n")
    assert run(rescue) == []
