# SPDX-License-Identifier: GPL-2.0-or-later
"""The running agent sees every way in which a configuration comes to be, at once, and never half of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import docker.errors
import pytest

from tests.support.agent_process import Agent, wait_for
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX, PrivateDockerd
from tests.support.fault_proxy import FaultProxy
from tests.support.real_uci import RealUci, why_not

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option memory '64m'
"""


def text(megabytes: int) -> str:
    """The configuration with that memory limit: a change in place, which takes no time."""
    return WEB.replace("IMAGE", BUSYBOX).replace("64m", f"{megabytes}m")


def limit(box: Box) -> int:
    """The limit that web has, in megabytes; 0 before it is there."""
    try:
        return int(box.client.api.inspect_container("web")["HostConfig"]["Memory"]) >> 20
    except docker.errors.NotFound:
        return 0


@pytest.fixture
def proxy(engine: PrivateDockerd, tmp_path: Path) -> Iterator[FaultProxy]:
    with FaultProxy(tmp_path / "proxy.sock", engine.socket) as made:
        yield made


@pytest.fixture
def idle(box: Box) -> Iterator[Agent]:
    """An agent that has applied 64 MB and has nothing to do; a resync comes once in an hour only."""
    agent = begin(box)
    yield agent
    agent.close()


def begin(box: Box, *, prefix: tuple[str, ...] = ()) -> Agent:
    agent = Agent(box, prefix=prefix)
    (box.config / "containers").write_text(text(64) + "\nconfig agent 'agent'\n\toption resync '3600'\n")
    agent.start()
    try:
        wait_for(lambda: limit(box) == 64)
        wait_for(lambda: agent.status()["agent"].get("generation"))
    except BaseException:
        agent.close()
        raise
    return agent


def rename_over(path: Path, new: str) -> None:
    other = path.with_name(".containers.uci-Xyz")
    other.write_text(new)
    other.rename(path)


def from_elsewhere(path: Path, new: str) -> None:
    other = path.parent.parent / "made-elsewhere"
    other.write_text(new)
    other.rename(path)


def as_vim(path: Path, new: str) -> None:
    swap = path.with_name(".containers.swp")
    swap.write_text("b0VIM")
    path.rename(path.with_name("containers~"))
    with path.open("w") as file:
        file.write(new)
    path.with_name("containers~").unlink()
    swap.unlink()


def in_place(path: Path, new: str) -> None:
    with path.open("w") as file:
        for piece in (new[:30], new[30:]):
            file.write(piece)
            file.flush()


def by_sed(path: Path, new: str) -> None:
    size = new.partition("memory '")[2].partition("'")[0]
    subprocess.run(["sed", "-i", f"s/memory '.*'/memory '{size}'/", path], check=True)


def by_new_link(path: Path, new: str) -> None:
    target = path.parent.parent / "target"
    target.mkdir(exist_ok=True)
    file = target / f"v{len(list(target.iterdir()))}"
    file.write_text(new)
    path.unlink()
    path.symlink_to(file)


def behind_the_link(path: Path, new: str) -> None:
    assert path.is_symlink()
    rename_over(path.resolve(), new)


WAYS = [rename_over, from_elsewhere, as_vim, in_place, by_sed, by_new_link, behind_the_link, by_new_link]


def test_every_way_of_writing_the_file_is_seen(idle: Agent, box: Box) -> None:
    for size, way in enumerate(WAYS, start=70):
        way(box.config / "containers", text(size))
        wait_for(lambda size=size: limit(box) == size)  # type: ignore[misc]


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_commit_of_uci_reaches_the_engine_within_150_ms_and_what_is_only_staged_never(
    box: Box, proxy: FaultProxy, tmp_path: Path
) -> None:
    box.options = replace(box.options, docker_host=proxy.host)
    agent = begin(box)
    try:
        staged = tmp_path / "staged"
        staged.mkdir()
        uci = RealUci(box.config, staged)
        delay, size = 1.0, 70
        # the machine may be busy with other things: once is enough to show that nothing in it takes longer
        while delay > 0.15 and size < 90:
            size += 1
            uci("set", f"containers.web.memory={size}m")
            proxy.reset()
            uci("commit", "containers")
            committed = time.monotonic()
            wait_for(lambda size=size: limit(box) == size)  # type: ignore[misc]
            delay = proxy.calls[0].at - committed
        assert delay < 0.15
        uci("set", "containers.web.memory=99m")
        before = agent.status()["agent"]["last_pass"]
        agent.send(signal.SIGHUP)
        wait_for(lambda: agent.status()["agent"]["last_pass"] > before)
        assert limit(box) == size
    finally:
        agent.close()


def test_a_file_that_is_being_written_is_never_applied(idle: Agent, box: Box) -> None:
    """Byte by byte, with requests to look at it all the while."""
    web = box.get("web")
    new = (
        text(70) + "\nconfig container 'two'\n\toption image 'busybox:test'\n\toption command 'sleep 1000'\n"
    )
    with (box.config / "containers").open("w") as file:
        for count, char in enumerate(new):
            file.write(char)
            file.flush()
            if count % 20 == 0:
                idle.send(signal.SIGHUP)
                time.sleep(0.05)
            assert limit(box) == 64 if count % 20 == 0 else True
    wait_for(lambda: limit(box) == 70)
    wait_for(lambda: "two" in box.names())
    after = box.get("web")
    assert (after.id, after.attrs["State"]["StartedAt"]) == (web.id, web.attrs["State"]["StartedAt"])
    assert after.attrs["RestartCount"] == 0


def test_the_directory_may_be_removed_and_made_again(idle: Agent, box: Box) -> None:
    shutil.rmtree(box.config)
    wait_for(lambda: idle.status()["agent"]["config"] == "Invalid")
    assert limit(box) == 64
    box.config.mkdir()
    rename_over(box.config / "containers", text(70))
    wait_for(lambda: limit(box) == 70)
    moved = box.config.with_name("moved")
    box.config.rename(moved)
    box.config.mkdir()
    rename_over(box.config / "containers", text(71))
    wait_for(lambda: limit(box) == 71)
    shutil.rmtree(box.config)
    box.config.symlink_to(moved)
    wait_for(lambda: limit(box) == 70)
    rename_over(moved / "containers", text(72))
    wait_for(lambda: limit(box) == 72)
    box.config.unlink()
    moved.rename(box.config)


def test_an_override_directory_may_come_and_go(idle: Agent, box: Box) -> None:
    override = box.options.override_dir
    assert not override.exists()
    override.mkdir()
    rename_over(override / "containers", text(70))
    wait_for(lambda: limit(box) == 70)
    shutil.rmtree(override)
    wait_for(lambda: limit(box) == 64)


def test_a_storm_of_signals_and_commits_is_coalesced(box: Box, proxy: FaultProxy) -> None:
    box.options = replace(box.options, docker_host=proxy.host)
    agent = begin(box)
    try:
        proxy.reset()
        begun = time.monotonic()
        for count in range(1000):
            agent.send(signal.SIGHUP)
            if count % 10 == 0:
                rename_over(box.config / "containers", text(70 + count // 10))
        took = time.monotonic() - begun
        wait_for(lambda: limit(box) == 169, 5)
        lists = [call for call in proxy.calls if "/containers/json" in call.path]
        assert len(lists) <= 10 * (took + 1)
    finally:
        agent.close()


def without_inotify() -> tuple[str, ...]:
    """A prefix that runs a command where the kernel grants no inotify instance."""
    script = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    return ("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")


def has_user_namespaces() -> bool:
    done = subprocess.run([*without_inotify(), "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not has_user_namespaces(), reason="no user namespaces: cannot take inotify away")
def test_without_inotify_it_looks_every_few_seconds_and_says_so(box: Box) -> None:
    agent = begin(box, prefix=without_inotify())
    try:
        assert agent.status()["agent"]["watch"] == "WatchDegraded"
        rename_over(box.config / "containers", text(70))
        wait_for(lambda: limit(box) == 70, 10)
    finally:
        agent.close()


def touch(path: Path) -> None:
    path.touch()


def chmod(path: Path) -> None:
    path.chmod(0o600)


def read(path: Path) -> None:
    path.read_text()


def neighbour(path: Path) -> None:
    rename_over(path.with_name("network"), "config interface 'lan'\n")


@pytest.mark.parametrize("quiet", [[touch, chmod, read, neighbour]])
def test_what_changes_nothing_makes_it_do_nothing(
    box: Box, proxy: FaultProxy, quiet: list[Callable[[Path], None]]
) -> None:
    box.options = replace(box.options, docker_host=proxy.host)
    agent = begin(box)
    try:
        for act in quiet:
            proxy.reset()
            act(box.config / "containers")
            os.sync()
        rename_over(box.config / "containers", text(70))
        wait_for(lambda: limit(box) == 70, 5)
        changes = [call.path.rpartition("/")[2] for call in proxy.calls if call.changes]
        assert changes == ["update"]
    finally:
        agent.close()
