# SPDX-License-Identifier: GPL-2.0-or-later
"""`plan` and `reconcile` over a running agent, over HTTP and without one: what they say, and how they end."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pkgutil
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from docker.errors import APIError

import agent as package
from agent.cli import plan as plan_view
from agent.cli.main import main
from agent.model.issues import GivenConfig
from agent.runtime.reconciler import Reconciler
from agent.runtime.requests.foresight import foresee, foresee_change, load_change
from tests.support.box import Box
from tests.support.dockerd import BUSYBOX
from tests.support.real_uci import RealUci, why_not
from tests.support.unprivileged import said_unprivileged
from tests.test_running_agent import Agent, running, wait_for

WEB = """
config container 'web'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	option gate '0.1'
"""
SLOW = WEB.replace("'0.1'", "'6'").replace("1000", "2000")
DB = """
config container 'db'
	option image 'IMAGE'
	option command "sh -c 'sleep 2; touch /ok; sleep 1000'"
	option health_cmd 'test -e /ok'
	option health_interval '1s'
	option stop_timeout '0'
	option gate '0.1'

config container 'app'
	option image 'IMAGE'
	option command 'sleep 1000'
	option stop_timeout '0'
	list depends_on 'db:healthy'
"""
NOTHING = plan_view.NOTHING + "\n"
MOUNT = WEB + "\tlist wait_for 'mount:/mnt/nothing-here'\n"


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box)
    made.words.append(f"--save-dir={box.config.parent / 'save'}")
    made.commit(WEB)
    made.start()
    wait_for(lambda: running(box, "web"))
    wait_for(lambda: made.command("plan").stdout == NOTHING)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def post(agent: Agent, route: str, body: dict[str, Any]) -> dict[str, Any]:
    transport = httpx.HTTPTransport(uds=str(agent.box.options.socket))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=20) as client:
        return dict(client.post(route, json=body).json())


def test_reconcile_waits_for_what_is_under_way_and_plan_shows_it(agent: Agent, box: Box) -> None:
    before = box.get("web").id
    agent.commit(SLOW)
    wait_for(lambda: "in progress" in agent.command("plan").stdout)
    plan = agent.command("plan", "--exit-code")
    assert (plan.returncode, plan.stdout.split()[:3]) == (4, ["...", "container:web:", "in"])
    done = agent.command("reconcile", "--settle", "0")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"container:web: replaced \([0-9.]+ s\)\n1 replaced in [0-9.]+ s\n\Z", done.stdout), (
        done.stdout
    )
    assert box.get("web").id != before
    assert box.names() == ["web"]
    assert agent.command("plan", "--exit-code").returncode == 0
    assert agent.command("reconcile", "--settle", "0").stdout == NOTHING


def test_a_work_that_ends_while_a_plan_is_made_hides_nothing(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.apply(WEB)
    box.write(SLOW.replace("'6'", "'1'"))
    box.reconciler.read_config()
    works = threading.Thread(target=box.reconciler.run_pass, kwargs={"deep": None})
    works.start()
    wait_for(box.reconciler.under_way.is_busy)
    look = Reconciler.plan_input

    def slow_look(of: Reconciler, *words: Any, **more: Any) -> Any:
        found = look(of, *words, **more)
        works.join()
        return found

    monkeypatch.setattr(Reconciler, "plan_input", slow_look)
    other = WEB.replace("1000", "3000").replace("IMAGE", BUSYBOX)
    change = load_change(box.reconciler, GivenConfig(texts={"containers": other}))
    assert [operation.verb for operation in foresee_change(box.reconciler, change).plan.operations] == [
        "replace"
    ]
    assert foresee(box.reconciler).entries == ()


def test_reconcile_right_after_a_commit_does_it(agent: Agent, box: Box) -> None:
    for number in range(2):
        agent.commit(WEB.replace("1000", f"30{number}").replace("'0.1'", "'2'"))
        done = agent.command("reconcile", "--settle", "0")
        assert (done.returncode, done.stdout.split()[:2]) == (0, ["container:web:", "replaced"])
        assert box.get("web").attrs["Config"]["Cmd"] == ["sleep", f"30{number}"]


def planned(agent: Agent, line: str, code: int) -> str:
    """What `plan` prints once it has `line` and ends with `code`: a retry may be in progress when it is asked."""
    deadline = time.monotonic() + 30
    while True:
        plan = agent.command("plan", "--exit-code")
        if plan.returncode == code and line in plan.stdout:
            return plan.stdout
        assert time.monotonic() < deadline, plan
        time.sleep(0.2)


@pytest.mark.parametrize("alone", [False, True], ids=["agent", "no agent"])
def test_what_is_not_done_is_told(agent: Agent, box: Box, alone: bool) -> None:
    if alone:
        agent.end()
    other = box.client.containers.run(BUSYBOX, "sleep 1000", name="dns", detach=True)
    cases = [
        (MOUNT, "container:web: waiting: nothing is mounted on /mnt/nothing-here", 0, 4),
        (
            WEB + WEB.replace("'web'", "'dns'"),
            "container:dns: conflict: a container named dns",
            1,
            1,
        ),
        (WEB.replace("'IMAGE'", "'IMAGE"), "configuration: invalid: it cannot be read", 1, 1),
        (
            WEB + WEB.replace("'web'", "'bad'").replace("IMAGE", "127.0.0.1:1/no:1"),
            "" if alone else "retry in ",
            1,
            4 if alone else 1,
        ),
    ]
    try:
        for text, line, code, plan_code in cases:
            agent.commit(text)
            done = agent.command("reconcile", "--settle", "0")
            assert done.returncode == code, done
            assert "Nothing to do" not in done.stdout
            assert line.startswith("retry") or line in done.stdout
            plan = planned(agent, line, plan_code)
            assert "Nothing to do" not in plan
    finally:
        other.remove(force=True)


def test_later_waves_are_told_and_come(agent: Agent, box: Box) -> None:
    agent.commit(DB)
    done = agent.command("reconcile", "--settle", "0")
    assert done.returncode == 0
    # the agent saw the commit as well, and may have created it, or be done with it, when the command asks
    assert re.search("^container:db: (created|started)", done.stdout, re.MULTILINE) or running(box, "db")
    assert running(box, "app") or "container:app: then create: once db is healthy\n" in done.stdout
    wait_for(lambda: running(box, "app"))


def test_a_change_is_seen_before_it_happens(agent: Agent, box: Box, tmp_path: Path) -> None:
    before = box.get("web").id
    new = tmp_path / "new"
    new.write_text(SLOW.replace("IMAGE", BUSYBOX))
    want = "replace        container:web            command"
    block = "-/+ container:web: replace\n      command         sleep 1000 -> sleep 2000\n"
    for words in ([str(new)], ["--no-agent", str(new)]):
        plan = agent.command("plan", "--exit-code", *words)
        assert (plan.returncode, plan.stdout[: len(block)]) == (4, block), plan
    assert post(agent, "/v1/plan", {"packages": {"containers": new.read_text()}})["text"].startswith(want)
    assert agent.command("plan").stdout == NOTHING
    wrong = tmp_path / "wrong"
    wrong.write_text(WEB.replace("'IMAGE'", "'IMAGE"))
    plan = agent.command("plan", str(wrong))
    assert plan.returncode == 1
    assert str(wrong) in plan.stderr
    assert "Nothing to do" not in plan.stdout
    assert post(agent, "/v1/plan", {"packages": {"network": ""}})["error"]["code"] == "config"
    assert post(agent, "/v1/plan", {"packges": {}})["error"]["message"].startswith(
        "unknown name 'packges'; use `packages`"
    )
    assert agent.command("plan", str(tmp_path / "nothing")).returncode == 1
    assert box.get("web").id == before


def test_the_plan_of_single_sections_tells_what_follows_from_them(agent: Agent, box: Box) -> None:
    """What LuCI's form asks before it saves; another section that is not in order is not part of it."""
    agent.commit(WEB + MOUNT.replace("'web'", "'waits'"))
    web = {".type": "container", ".anonymous": False, "image": BUSYBOX, "stop_timeout": "0", "gate": "0.1"}
    web["command"] = "sleep 1000"

    def preview(**sections: Any) -> dict[str, Any]:
        return post(agent, "/v1/plan", {"sections": {"containers": sections}})

    assert preview(web=web)["operations"] == preview(web=web)["pending"] == []
    found = preview(web={**web, "env": ["PW=S3CRET"], "memory": "64m"})
    (operation,) = found["operations"]
    assert [(f["field"], f["before"], f["after"]) for f in operation["fields"]] == [
        ("env", None, ["PW=***"]),
        ("memory", None, "64m"),
    ]
    assert operation["effect"] == "replaces the container, about 2 s down; its volumes stay"
    assert (operation["level"], found["pending"], found["ok"]) == ("replace", [], True)
    assert "S3CRET" not in json.dumps(found)
    assert [o["op"] for o in preview(new=web)["operations"]] == ["create", "start"]
    assert [o["op"] for o in preview(web=None)["operations"]] == ["retire"]
    wrong = preview(web={**web, "memory": "much"})
    assert not wrong["ok"]
    assert {(i["section"], i["option"]) for i in wrong["issues"] if i["severity"] == "error"} == {
        ("web", "memory")
    }
    assert preview(**{"a-b": web})["error"]["code"] == "uci-edit"
    assert "a-b" not in (box.config / "containers").read_text()


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_staged_changes_are_planned_and_stay_staged(agent: Agent, box: Box) -> None:
    save = box.config.parent / "save"
    save.mkdir()
    uci = RealUci(box.config, save)
    assert agent.command("plan", "--staged").stdout == NOTHING
    uci("set", "containers.web.command=sleep 4000")
    uci("set", "containers.two=container")
    uci("set", f"containers.two.image={BUSYBOX}")
    uci("set", "containers.two.command=sleep 1000")
    changes = uci("changes", "containers")
    for words in ([], ["--no-agent"]):
        plan = agent.command("plan", "--staged", *words)
        assert plan.returncode == 0
        assert "-/+ container:web: replace\n" in plan.stdout
        assert "  + container:two: create and start" in plan.stdout
        assert "Plan: 1 to create, 1 to replace\n`uci commit`" in plan.stdout
    assert agent.command("plan").stdout == NOTHING
    assert uci("changes", "containers") == changes
    uci("delete", "containers.web")
    assert "  - container:web: remove (" in agent.command("plan", "--staged").stdout
    # what was planned is what then happens
    planned = [(o["op"], o["key"]) for o in post(agent, "/v1/plan", {"staged": True})["operations"]]
    assert planned == [("create", "container:two"), ("start", "container:two"), ("retire", "container:web")]
    uci("commit", "containers")
    left = json.loads(agent.command("reconcile", "--json", "--settle", "0").stdout)["pending"]
    assert [(entry["key"], entry["state"]) for entry in left] == [("container:web", "removal")]
    assert (running(box, "two"), running(box, "web")) == (True, False)


def test_options_that_a_running_agent_cannot_honour_are_an_error(agent: Agent, tmp_path: Path) -> None:
    where = agent.words[3:4]
    assert where[0].startswith("--socket=")
    env = {**os.environ}
    for command in (["plan"], ["reconcile"], ["diff", "web"], ["status"], ["logs", "web"]):
        for option in ("--config-dir", "--state-dir", "--docker-host"):
            value = f"unix://{tmp_path}/x.sock" if option == "--docker-host" else str(tmp_path)
            words = [sys.executable, "-m", "agent", *command, *where, f"{option}={value}"]
            done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
            assert (done.returncode, done.stdout) == (1, ""), (command, option)
            assert f"{option} " in done.stderr
            assert "--socket" in done.stderr
            assert ("--no-agent" in done.stderr) is (command[0] in {"plan", "reconcile", "diff"})
    assert agent.command("plan").returncode == 0  # the same ones, said again


def test_a_reconcile_is_not_kept_by_what_comes_back_again_and_again(agent: Agent, box: Box) -> None:
    """A container that ends at once, and somebody who stops another each second."""
    agent.commit(WEB + WEB.replace("'web'", "'ends'").replace("sleep 1000", "true").replace("'0.1'", "'0'"))
    stop = threading.Event()

    def meddle() -> None:
        while not stop.wait(0.3):
            with contextlib.suppress(APIError):
                box.get("web").kill()

    meddling = threading.Thread(target=meddle)
    meddling.start()
    try:
        begun = time.monotonic()
        agent.command("reconcile", "--settle", "0")
        assert time.monotonic() - begun < 30
    finally:
        stop.set()
        meddling.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
@pytest.mark.parametrize("command", ["status", "plan", "reconcile", "logs web", "run"])
def test_who_is_not_root_gets_one_sentence(box: Box, command: str) -> None:
    where = Path(str(box.options.socket)).parent
    where.mkdir(exist_ok=True)
    where.chmod(0o700)
    words = [*command.split(), f"--config-dir={box.config}", f"--socket={box.options.socket}"]

    def call() -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = main(words)
        raise RuntimeError(f"{code} {said.getvalue()}")

    # now: a checkout may be where only root reads
    for module in pkgutil.walk_packages(package.__path__, "agent."):
        if module.name != "agent.__main__":
            importlib.import_module(module.name)
    said = said_unprivileged(call)
    assert said.startswith(f"RuntimeError: 1 ucidockd: permission denied on {where}")
    assert said.count("\n") == 1
    assert f"run it as root (sudo ucidockd {command.split()[0]})" in said
