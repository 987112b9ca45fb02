# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent as a process that runs dockerd itself: commits, restarts of either, TLS with a client's bundle, render."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.cli.commands import COMMANDS
from tests.support.daemon_lab import KEY, DaemonLab, wait_for
from tests.support.dockerd import BUSYBOX, busybox_tar
from tests.support.state import state_of

WEB = f"""
config container 'web'
	option image '{BUSYBOX}'
	option command 'sleep 1000'
	option stop_signal 'KILL'
	option gate '0.2'
"""


class Agent:
    """`ucidockd run` on a lab's directories."""

    def __init__(self, lab: DaemonLab) -> None:
        self.lab = lab
        options = lab.options
        self.words = [f"--config-dir={options.config_dir}", f"--override-dir={options.override_dir}"]
        self.words += [f"--state-dir={options.state_dir}", f"--socket={options.socket}"]
        self.words += [f"--docker-host={options.docker_host}"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent", "run", *self.words, *more], stderr=subprocess.DEVNULL
        )
        wait_for(lambda: Path(str(self.lab.options.socket)).exists())

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """With the options that say where everything is, as far as this command takes them."""
        command = next(c for c in COMMANDS if c.name.split() == list(words[: len(c.name.split())]))
        ours = [w for w in self.words if w.removeprefix("--").partition("=")[0] in command.common]
        return subprocess.run(
            [sys.executable, "-m", "agent", *words, *ours], capture_output=True, text=True, check=False
        )

    def commit(self, globals_: str, rest: str = "", containers: str = "") -> None:
        """As `uci commit` does: other files are renamed into place."""
        self.lab.write(globals_, rest)
        path = self.lab.root / "config" / "containers"
        temporary = path.with_name(".containers.uci-x")
        temporary.write_text(path.read_text() + containers)
        temporary.replace(path)

    def conditions(self) -> dict[str, tuple[bool, str]]:
        done = self.command("status", "--json")
        resources = json.loads(done.stdout)["resources"] if done.returncode == 0 else []
        found = next((item for item in resources if item["key"] == KEY), {"conditions": []})
        return {item["type"]: (item["status"], item["reason"]) for item in found["conditions"]}

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def agent(lab: DaemonLab) -> Iterator[Agent]:
    made = Agent(lab)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def import_image(lab: DaemonLab) -> None:
    with contextlib.closing(lab.client()) as client:
        repository, _, tag = BUSYBOX.rpartition(":")
        client.api.import_image_from_data(busybox_tar(), repository=repository, tag=tag)


def running(lab: DaemonLab) -> dict[str, str]:
    items: Any = lab.probe._json("/containers/json")
    return {item["Names"][0]: item["Id"] for item in items or []}


def test_dockerd_and_its_containers_live_through_commits_and_restarts(agent: Agent) -> None:
    lab = agent.lab
    agent.commit("")
    agent.start()
    wait_for(lab.probe.answers)
    import_image(lab)
    agent.commit("option debug '1'\n", containers=WEB)
    wait_for(lambda: "/web" in running(lab))
    pid, before = lab.pid_of(), lab.process
    assert lab.info()["Debug"]

    assert agent.end() == 0
    assert lab.probe.answers(), "dockerd does not end with the agent"
    agent.commit("option debug '1'\noption log_level 'info'\n", containers=WEB)
    agent.start()
    wait_for(lambda: lab.document()["log-level"] == "info" and lab.probe.answers())
    wait_for(lambda: agent.conditions().get("Synced") == (True, "Applied"))
    assert lab.process != before
    assert lab.pid_of() == pid, "the container outlives the restart"
    assert lab.document()["live-restore"] is False

    agent.end(signal.SIGKILL)
    before = lab.process
    agent.start()
    wait_for(lambda: agent.conditions().get("Synced") == (True, "Applied"))
    assert (lab.process, lab.pid_of()) == (before, pid)


def test_dockerd_is_stopped_and_started_through_the_agent_and_the_status_says_so(agent: Agent) -> None:
    lab = agent.lab
    agent.commit("")
    agent.start()
    wait_for(lambda: agent.conditions().get("Synced") == (True, "Applied"))
    transport = httpx.HTTPTransport(uds=str(lab.options.socket))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=20) as client:
        assert client.post("/v1/dockerd/start").json()["error"]["message"] == "dockerd runs already"
        assert client.post("/v1/dockerd/stop").json() == {"started": True}
        wait_for(lambda: agent.conditions().get("Synced") == (False, "Held"))
        wait_for(lambda: client.get("/v1/status").json()["agent"]["engine"]["reachable"] is False)
        assert not lab.probe.answers()
        assert client.post("/v1/dockerd/start").json() == {"started": True}
        wait_for(lambda: client.get("/v1/status").json()["agent"]["engine"]["reachable"] is True)
        assert agent.conditions()["Running"] == (True, "Running")


@pytest.mark.long
def test_a_dockerd_that_was_killed_comes_back_with_its_containers(agent: Agent) -> None:
    lab = agent.lab
    agent.commit("option live_restore '1'\n", containers=WEB)
    agent.start()
    wait_for(lab.probe.answers)
    import_image(lab)
    wait_for(lambda: "/web" in running(lab))
    pid = lab.pid_of()
    before = lab.process
    os.kill(before.pid, signal.SIGTERM)
    wait_for(lambda: lab.probe.answers() and lab.process != before)
    wait_for(lambda: "/web" in running(lab))
    assert lab.pid_of() == pid


@pytest.mark.long
def test_another_data_root_waits_for_a_reconcile(agent: Agent) -> None:
    lab = agent.lab
    agent.commit("", containers=WEB)
    agent.start()
    wait_for(lab.probe.answers)
    import_image(lab)
    wait_for(lambda: "/web" in running(lab))
    agent.commit(f"option data_root '{lab.root}/data2'\n", containers=WEB)
    wait_for(lambda: agent.conditions().get("EngineChanged") == (True, "DataRoot"))
    import_image(lab)
    assert running(lab) == {}
    for words in (
        ("update", "web"),
        ("rollback", "web"),
        ("move-data", f"{lab.root}/data3", "--yes"),
        ("prune",),
    ):
        refused = agent.command(*words)
        assert refused.returncode == 1, words
        assert "`ucidockd reconcile`" in refused.stderr, (words, refused.stderr)
    assert not Path(f"{lab.root}/data3").exists()
    done = agent.command("reconcile")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: "/web" in running(lab))


ALL = (
    "\nconfig network 'lan'\n\nconfig volume 'store'\n"
    + WEB
    + "\tlist network 'lan'\n\tlist volume 'store:/data'\n"
)
SECTIONS = ("container:web", "network:lan", "volume:store")


def resources(agent: Agent) -> dict[str, Any]:
    done = agent.command("status", "--json")
    items = json.loads(done.stdout)["resources"] if done.returncode == 0 else []
    return {r["key"]: {**{c["type"]: c for c in r["conditions"]}, "id": r["object_id"]} for r in items}


def are(agent: Agent, status: bool, reason: str) -> bool:
    """Whether each section says so of its being in sync."""
    found = resources(agent)
    said = {
        (found[key]["Synced"]["status"], found[key]["Synced"]["reason"]) for key in SECTIONS if key in found
    }
    return found.keys() >= set(SECTIONS) and said <= {(status, reason), (status, "Applied")}


@pytest.mark.variants(1)
@pytest.mark.parametrize("adopts", [False, True])
def test_another_data_root_and_back_finds_what_is_ours(agent: Agent, *, adopts: bool) -> None:
    lab = agent.lab
    agent.commit("", containers=ALL)
    agent.start()
    wait_for(lab.probe.answers)
    import_image(lab)
    wait_for(lambda: "/web" in running(lab) and are(agent, True, "InSync"))
    first = running(lab)["/web"]

    agent.commit(f"option data_root '{lab.root}/data2'\n", containers=ALL)
    wait_for(lambda: agent.conditions().get("EngineChanged") == (True, "DataRoot"))
    wait_for(lambda: are(agent, False, "EngineChanged"))
    held = resources(agent)
    assert (held["container:web"]["Running"]["status"], held["container:web"]["id"]) == (False, "")
    assert "until `ucidockd reconcile`" in held["network:lan"]["Synced"]["message"]
    import_image(lab)
    if adopts:
        with contextlib.closing(lab.client()) as client:
            foreign = client.containers.run(
                BUSYBOX, ["sleep", "9"], name="web", network_mode="none", detach=True
            )
            assert foreign.id
    agent.commit(
        f"option data_root '{lab.root}/data2'\n", containers=ALL + ("\toption adopt '1'\n" if adopts else "")
    )
    assert agent.command("reconcile").returncode == 0
    wait_for(lambda: "/web" in running(lab) and are(agent, True, "InSync"))
    second = running(lab)["/web"]
    assert second not in {first, ""}
    assert resources(agent)["container:web"]["id"] == second

    agent.commit("", containers=ALL)
    wait_for(lambda: running(lab).get("/web") == first)
    wait_for(lambda: are(agent, True, "InSync") and resources(agent)["container:web"]["id"] == first)
    assert "EngineChanged" not in agent.conditions()
    of_web = [r for r in state_of(lab.options.state_dir)["records"] if r["section"] == "web"]
    assert len({r["engine"] for r in of_web}) == len(of_web) == 2
    agent.commit("", containers=ALL.replace("1000", "2000"))
    wait_for(lambda: running(lab).get("/web") not in {first, None})
    wait_for(lambda: are(agent, True, "InSync"))


def test_data_that_was_moved_is_not_held(agent: Agent) -> None:
    lab = agent.lab
    agent.commit("", containers=ALL)
    agent.start()
    wait_for(lab.probe.answers)
    import_image(lab)
    wait_for(lambda: "/web" in running(lab) and are(agent, True, "InSync"))
    first = running(lab)["/web"]
    agent.end()
    lab.stop()
    subprocess.run(["cp", "-a", f"{lab.root}/data", f"{lab.root}/data2"], check=True)
    agent.commit(f"option data_root '{lab.root}/data2'\n", containers=ALL)
    agent.start()
    wait_for(lambda: running(lab).get("/web") == first)
    wait_for(lambda: are(agent, True, "InSync"))
    assert lab.info()["DockerRootDir"] == f"{lab.root}/data2"
    assert "EngineChanged" not in agent.conditions()
    assert resources(agent)["container:web"]["id"] == first


@pytest.mark.long
def test_another_storage_driver_is_another_engine(agent: Agent) -> None:
    """Containers of one are not seen with another; networks and volumes are."""
    lab = agent.lab
    agent.commit("option storage_driver 'vfs'\n", containers=ALL)
    agent.start()
    wait_for(lab.probe.answers)
    import_image(lab)
    wait_for(lambda: "/web" in running(lab) and are(agent, True, "InSync"))
    first = running(lab)["/web"]
    agent.commit("option storage_driver 'overlay2'\n", containers=ALL)
    wait_for(lambda: agent.conditions().get("EngineChanged") == (True, "Store"))
    wait_for(lambda: are(agent, False, "EngineChanged"))
    import_image(lab)
    assert agent.command("reconcile").returncode == 0
    wait_for(lambda: "/web" in running(lab) and are(agent, True, "InSync"))
    agent.commit("option storage_driver 'vfs'\n", containers=ALL)
    wait_for(lambda: running(lab).get("/web") == first)
    wait_for(lambda: are(agent, True, "InSync"))


def test_tls_made_by_the_agent_lets_a_bundle_in_and_nobody_else(agent: Agent, tmp_path: Path) -> None:
    lab = agent.lab
    agent.commit("list hosts 'tcp://127.0.0.1:2376'\n", "config tls 'tls'\n\tlist san 'router.lan'\n")
    agent.start()
    wait_for(lambda: agent.conditions().get("Synced") == (True, "Applied"))
    bundle = tmp_path / "laptop"
    done = agent.command("tls", "client", "laptop", f"--out={bundle}")
    assert done.returncode == 0, done.stderr
    code = (
        "import sys, docker\n"
        "tls = docker.tls.TLSConfig(ca_cert=sys.argv[1] + '/ca.pem', verify=True,"
        " client_cert=(sys.argv[1] + '/cert.pem', sys.argv[1] + '/key.pem') if len(sys.argv) > 2 else None)\n"
        "client = docker.APIClient('tcp://127.0.0.1:2376', tls=tls, version='1.41')\n"
        "client.trust_env = False\n"  # REQUESTS_CA_BUNDLE would take the place of the bundle's CA
        "print(client.ping())\n"
    )
    words = [sys.executable, "-c", code, str(bundle)]
    let_in = lab.network.run(*words, "with-certificate", check=False)
    assert let_in.stdout == "True\n", let_in.stderr
    assert lab.network.run(*words, check=False).returncode != 0
    assert agent.conditions()["InsecureAPI"] == (False, "Secure")


def test_render_prints_the_file_and_what_a_change_would_take(agent: Agent) -> None:
    lab = agent.lab
    assert lab.apply("")
    lab.run_container("web")
    done = agent.command("render")
    assert json.loads(done.stdout) == lab.document()
    assert agent.command("render", "--diff").stdout == "nothing to do\n"
    lab.write("option debug '1'\n")
    done = agent.command("render", "--diff")
    assert '+ "debug": true,' in done.stdout
    assert done.stdout.endswith("reload (SIGHUP), no container stops: debug changed\n")
    lab.write("option log_level 'info'\n")
    assert agent.command("render", "--diff").stdout.endswith(
        "restart, no container stops: log-level changed\n"
    )
    lab.write("option bip '10.216.1.1/24'\n")
    assert agent.command("render", "--diff").stdout.endswith("restart, containers stop: web: bip set\n")
    # a driver that knows the secret option: of another one it would be left out
    splunk = "option log_driver 'splunk'\nlist log_opts 'splunk-url=https://log.lan'\n"
    lab.write(f"list hosts 'tcp://0.0.0.0:2375'\n{splunk}list log_opts 'splunk-token=S3CRET'\n")
    done = agent.command("render", "--diff", "--json")
    assert json.loads(done.stdout)["effect"] == "restart"
    assert "tcp://0.0.0.0:2375 not opened" in done.stderr
    assert "S3CRET" not in done.stdout + done.stderr + agent.command("render").stdout
    lab.write("option bip 'x'\n")
    done = agent.command("render")
    assert done.returncode == 0
    assert "bip" not in json.loads(done.stdout)
    assert "dockerd.globals.bip" in done.stderr


def planned(agent: Agent, globals_: str, rest: str = "") -> list[tuple[str, str, str]]:
    """What a running agent would do, were that `/etc/config/dockerd`."""
    path = agent.lab.root / "config" / "dockerd"
    before = path.read_bytes()
    agent.lab.write(globals_, rest)
    text = path.read_text()
    path.write_bytes(before)
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(agent.lab.options.socket)), base_url="http://x", timeout=20
    ) as client:
        found = client.post("/v1/plan", json={"packages": {"dockerd": text}}).json()
    return [(o["op"], o["key"], o["cause"]) for o in found["operations"]]


def test_a_plan_shows_what_it_takes_of_dockerd(agent: Agent) -> None:
    lab = agent.lab
    agent.commit("")
    assert lab.apply()
    lab.run_container("web")
    assert agent.command("plan", "--no-agent").stdout == "Nothing to do: everything is as declared.\n"
    agent.commit("option log_level 'info'\n")
    plan = agent.command("plan", "--no-agent").stdout
    assert plan.startswith("  > daemon:dockerd: restart (log-level changed; no container stops)\n")
    agent.commit("")
    agent.start()
    wait_for(lambda: agent.command("plan").stdout == "Nothing to do: everything is as declared.\n")
    document, process = lab.document(), lab.process
    assert planned(agent, "option debug '1'\n") == [("reload", KEY, "debug changed")]
    assert planned(agent, "option bip '10.216.1.1/24'\n") == [
        ("restart", KEY, "bip set; containers stop: web")
    ]
    tls = planned(agent, "list hosts 'tcp://127.0.0.1:2399'\n", "config tls 'tls'\n\toption auto '1'\n")
    assert [(op, key) for op, key, _ in tls] == [("restart", KEY)]
    assert "tlscert set" in tls[0][2]
    assert not list((lab.root / "state").glob("tls*/*")), "a plan makes no certificates"
    assert (lab.document(), lab.process) == (document, process)


@pytest.mark.long
def test_status_tells_a_person_what_is_the_matter_with_dockerd(agent: Agent) -> None:
    agent.commit("list hosts 'tcp://0.0.0.0:2375'\n")
    agent.start()
    wait_for(lambda: agent.conditions().get("Synced") == (True, "Applied"))
    (line,) = (line for line in agent.command("status").stdout.splitlines() if line.startswith("daemon"))
    assert "tcp://0.0.0.0:2375 not opened" in line
