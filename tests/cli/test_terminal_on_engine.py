# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands as people see them: in a terminal, on a real engine, with and without an agent."""

from __future__ import annotations

import io
import os
import re
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import Agent
from tests.support.box import Box
from tests.support.registry import Registry, Throttle, is_installed
from tests.support.terminal import Shown, Terminal, shown
from tests.test_running_agent import running, wait_for

ESC = "\x1b"
HEAD = "config container 'NAME'\n\toption image 'IMAGE'\n\toption stop_timeout '0'\n\toption gate '0.1'\n"
WEB = (
    "config network 'front'\n\tlist subnet '10.215.7.0/24'\n"
    + HEAD.replace("NAME", "web")
    + "\toption command 'sleep 1000'\n\tlist network 'front'\n\tlist port '18080:80'\n"
)
BAD = (
    HEAD.replace("NAME", "bad")
    + "\toption command \"sh -c 'echo boom-reason; exit 4'\"\n\toption restart 'always'\n"
)
GOOD = HEAD.replace("NAME", "bad") + "\toption command 'sleep 1000'\n\toption restart 'always'\n"
DISK = HEAD.replace("NAME", "disk") + "\tlist wait_for 'mount:/mnt/nothing-here'\n"


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    """Not started."""
    made = Agent(box)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def seen(agent: Agent, *words: str, columns: int = 80, **more: str) -> Shown:
    return shown([*words, *agent.words], columns=columns, **more)


def timeless(lines: list[str]) -> list[str]:
    return [re.sub(r"[0-9.]+ (s|times)\b", r"N \1", line) for line in lines]


def test_a_reconcile_tells_each_object_and_a_sum(agent: Agent, box: Box) -> None:
    agent.commit(WEB + GOOD + DISK)
    done = seen(agent, "reconcile")
    lines = timeless(done.lines)
    assert sorted(lines[:3]) == [
        "container:bad: created and started (N s)",
        "container:web: created and started (N s)",
        "network:front: created (N s)",
    ]
    assert lines[3:] == [
        "no agent is running: what is waiting needs another `ucidockd reconcile`",
        "... container:disk: waiting: nothing is mounted on /mnt/nothing-here",
        "3 created; 1 waiting in N s",
        "",
    ]
    assert done.code == 0
    again = seen(agent, "reconcile", columns=40)
    assert timeless(again.lines)[-3:] == [
        "    mounted on /mnt/nothing-here",
        "nothing changed; 1 waiting in N s",
        "",
    ]
    assert max(map(len, again.lines)) < 80


@pytest.mark.parametrize("alone", [False, True], ids=["agent", "no agent"])
def test_a_failure_comes_with_its_reason_and_the_containers_last_lines(
    agent: Agent, box: Box, alone: bool
) -> None:
    agent.commit(WEB + GOOD)
    assert agent.command("reconcile", "--settle", "0").returncode == 0
    if not alone:
        agent.start()
    agent.commit(WEB.replace("'sleep 1000'", "'sleep 2000'") + BAD)
    done = seen(agent, "reconcile", columns=200)
    lines = timeless(done.lines)
    # the running agent saw the commit as well, and may have tried once before
    assert "container:web: replaced (N s)" in lines
    failed = next(line for line in lines if re.match(r"container:bad: replace failed(?: \(N s\))?: ", line))
    assert failed.endswith(("exited with 4 after N s", "ended and was restarted (1x) within N s"))
    at = lines.index("container:bad printed last:")
    assert lines[at + 1] == "    boom-reason"
    assert lines[-2] == "1 replaced, 1 failed in N s"
    assert done.code == 1


@pytest.mark.parametrize(
    "alone", [False, pytest.param(True, marks=pytest.mark.long)], ids=["agent", "no agent"]
)
def test_a_container_that_ends_at_once_is_not_told_as_started(agent: Agent, box: Box, alone: bool) -> None:
    if not alone:
        agent.start()
    agent.commit(BAD.replace("\toption restart 'always'\n", ""))
    done = seen(agent, "reconcile", columns=200)
    lines = timeless(done.lines)
    why = "exited with 4; it ended again soon after it was started (N times in a row)"
    at = lines.index(f"  ! container:bad: retry in N s: {why}")
    assert lines[at + 1 : at + 3] == ["      it printed last:", "      boom-reason"]
    assert lines[-3].endswith("1 in error in N s")
    assert lines[-2] == "`ucidockd logs bad` shows more; `ucidockd reconcile` tries again at once."
    assert done.code == 1


def context() -> io.BytesIO:
    """Of an image of 4 MB that nothing packs any smaller."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in (("Dockerfile", b"FROM busybox:test\nCOPY x /x\n"), ("x", os.urandom(4 << 20))):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    packed.seek(0)
    return packed


@pytest.fixture
def slow(box: Box, tmp_path: Path) -> Iterator[str]:
    """An image of 4 MB that takes half a minute to pull."""
    if not is_installed():
        pytest.skip("docker-registry is not installed")
    registry = Registry(tmp_path / "registry")
    throttle = Throttle(registry.port, bytes_per_s=128 << 10)
    try:
        box.client.images.build(
            fileobj=context(), custom_context=True, tag=f"{registry.address}/big:1", rm=True
        )
        box.client.images.push(f"{registry.address}/big:1")
        box.client.images.remove(f"{registry.address}/big:1", force=True)
        yield f"{throttle.address}/big:1"
    finally:
        throttle.close()
        registry.close()


def big(image: str) -> str:
    return WEB + HEAD.replace("NAME", "big").replace("IMAGE", image) + "\toption command 'sleep 1000'\n"


def test_ctrl_c_without_an_agent_cancels_the_pull_and_says_so(agent: Agent, box: Box, slow: str) -> None:
    agent.commit(big(slow))
    terminal = Terminal(["reconcile", *agent.words], columns=80)
    terminal.wait_for("container:web: created and started")
    terminal.wait_for("% pulling")
    terminal.interrupt()
    begun = time.monotonic()
    terminal.wait_for("interrupted; pulls are cancelled")
    assert time.monotonic() - begun < 2
    done = terminal.end()
    assert time.monotonic() - begun < 10
    assert done.code == 130
    lines = timeless(done.lines)
    assert "container:big: skipped: the pull was cancelled: ucidockd stops" in " ".join(lines) or any(
        line.startswith("container:big: create failed") for line in lines
    )
    assert "2 created, 1 skipped in N s" in lines
    assert box.names() == ["web"]


@pytest.mark.long
def test_ctrl_c_beside_an_agent_says_what_continues(agent: Agent, box: Box, slow: str) -> None:
    agent.start()
    agent.commit(big(slow))
    terminal = Terminal(["reconcile", *agent.words], columns=80)
    terminal.wait_for("% pulling")
    terminal.interrupt()
    done = terminal.end()
    assert done.code == 130
    text = " ".join(done.lines)
    assert "interrupted; the agent continues with container:big (pulling" in text
    assert "ucidockd status --watch" in text
    plan = " ".join(seen(agent, "plan", columns=40).lines)
    assert "... container:big: in progress:" in plan
    wait_for(lambda: running(box, "web"))


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_plan_fits_the_terminal(agent: Agent, columns: int) -> None:
    agent.commit(WEB + DISK)
    done = seen(agent, "plan", "--exit-code", columns=columns)
    assert done.code == 4
    assert f"{ESC}[32m  +{ESC}[0m network:front" in done.raw
    assert max(map(len, done.lines)) < columns
    assert "Plan: 2 to create; 1 waiting" in done.lines
    plain = seen(agent, "plan", columns=columns, NO_COLOR="1")
    assert ESC not in plain.raw
    assert plain.lines == done.lines


@pytest.mark.parametrize("columns", [40, *(pytest.param(wide, marks=pytest.mark.long) for wide in (80, 200))])
def test_a_status_shows_what_is_there(agent: Agent, box: Box, columns: int) -> None:
    agent.commit(WEB + DISK)
    agent.start()
    wait_for(lambda: agent.status()["agent"].get("generation") is not None and running(box, "web"))
    wait_for(lambda: "running" in " ".join(seen(agent, "status", "web").lines))
    done = seen(agent, "status", columns=columns)
    assert done.code == 0
    assert "2 in sync, 1 waiting" in done.lines
    assert max(map(len, done.lines)) < columns
    text = " ".join(" ".join(done.lines).split())
    assert "waiting: nothing is mounted on" in text
    if columns >= 80:
        (line,) = (line for line in done.lines if line.startswith("web "))
        assert line.split()[:4] == ["web", "busybox:test", "running", "18080:80"]
    assert "web" not in " ".join(seen(agent, "status", "--state", "waiting").lines)
    loaded = seen(agent, "status", "web", "--load")
    assert re.search(r"running +18080:80 +[0-9.]+ % +[0-9.]+ MiB", "\n".join(loaded.lines)), loaded.lines


def test_a_watched_status_follows_and_ends_with_a_key(agent: Agent, box: Box) -> None:
    agent.commit(WEB)
    agent.start()
    wait_for(lambda: running(box, "web"))
    terminal = Terminal(["status", "--watch", *agent.words], columns=80)
    terminal.wait_for("q: end")
    agent.commit(WEB + DISK)
    terminal.wait_for("waiting: nothing is")
    terminal.press("q")
    done = terminal.end()
    assert done.code == 0
    assert done.lines[0] == "2 in sync, 1 waiting"


@pytest.mark.parametrize(
    "alone", [False, pytest.param(True, marks=pytest.mark.long)], ids=["agent", "no agent"]
)
def test_describe_tells_everything_about_a_section(agent: Agent, box: Box, alone: bool) -> None:
    agent.commit(WEB + "\tlist env 'PW=S3CRET'\n\tlist volume 'data:/data:ro'\nconfig volume 'data'\n")
    assert agent.command("reconcile", "--settle", "0").returncode == 0
    if not alone:
        agent.start()
        wait_for(lambda: "as declared" in agent.command("describe", "web").stdout)
    for columns in (40, 80, 200):
        done = seen(agent, "describe", "web", columns=columns)
        assert done.code == 0
        assert max(map(len, done.lines)) < columns
        assert "S3CRET" not in done.raw
        text = " ".join(" ".join(done.lines).split())
        assert "The container is as declared." in text
        assert "The container is running." in text
        assert "running since 20" in text
        assert "10.215.7." in text
    told = [line.split() for line in done.lines]
    assert ["0.0.0.0:18080", "80/tcp", "wherever", "the", "firewall", "lets", "in"] in told
    assert ["/data", "data", "volume,", "read-only"] in told
    assert ["env", "PW=***", "section"] in told
    assert ["log_driver", "json-file", "default"] in told
    if not alone:
        agent.commit(WEB.replace("sleep 1000", "sleep 2000"))
        wait_for(lambda: ": replace (" in agent.command("describe", "web").stdout.replace("ago: ", ": "))
    agent.commit(
        WEB + "\toption memory 'many'\n\tlist env 'PW=S3CRET'\n"
    )  # what runs is left alone, and told
    wait_for(lambda: "many" in agent.command("describe", "web").stdout)
    broken = seen(agent, "describe", "web")
    assert (broken.code, "S3CRET" in broken.raw) == (0, False)
    assert ["0.0.0.0:18080", "80/tcp", "wherever", "the", "firewall", "lets", "in"] in [
        line.split() for line in broken.lines
    ]
    assert "last applied" in broken.raw
    wrong = seen(agent, "describe", "wbe")
    assert (wrong.code, "no container section has it" in " ".join(wrong.lines)) == (1, True)


def test_a_diff_of_an_edited_section_is_no_drift(agent: Agent, box: Box) -> None:
    agent.commit(WEB)
    assert agent.command("reconcile", "--settle", "0").returncode == 0
    agent.commit(WEB.replace("sleep 1000", "sleep 2000"))
    for columns in (40, 80, 200):
        done = seen(agent, "diff", "web", columns=columns)
        assert max(map(len, done.lines)) < columns
        assert "edited" in " ".join(done.lines)
        assert "drift" not in " ".join(done.lines)
    assert ["command", "sleep,", "2000", "sleep,", "1000", "edited"] in [line.split() for line in done.lines]
