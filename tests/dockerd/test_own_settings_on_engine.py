# SPDX-License-Identifier: GPL-2.0-or-later
"""A dockerd of procd that follows the user's own daemon.json, or no UCI at all: it is started, and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.dockerd.supervisor import stop_process
from agent.dockerd.unmanaged import user_settings, version_of
from agent.engine import process as daemon_process
from agent.errors import ConflictError
from agent.files.config import load
from agent.model.dockerd.settings import DaemonAction, DaemonSettings, NotOurs, Process
from agent.runtime.requests.foresight import not_here
from tests.support.daemon_lab import DaemonLab, wait_for
from tests.support.real_uci import why_not
from tests.support.stock_script import StockScript


@pytest.fixture
def script(lab: DaemonLab) -> Iterator[StockScript]:
    if reason := why_not():
        pytest.skip(reason)  # the script asks `uci` which file dockerd gets
    made = StockScript.make(lab)
    lab.tools = {"init_script": made.path, "default_file": lab.root / "etc-docker-daemon.json"}
    lab.restart_agent()
    yield made
    made.end()


def own_file(lab: DaemonLab, **options: object) -> Path:
    path = lab.root / "own.json"
    document = {"data-root": f"{lab.root}/own", "hosts": [f"unix://{lab.socket}"], **options}
    path.write_text(json.dumps(document))
    return path


def use_own(lab: DaemonLab, path: Path) -> None:
    lab.write(f"option alt_config_file '{path}'\n", kind="procd")


def use_ours(lab: DaemonLab, more: str = "") -> None:
    lab.write(f"option alt_config_file '{lab.daemon_json}'\n{more}", kind="procd")


def engine(lab: DaemonLab) -> Process:
    found = daemon_process.serving(str(lab.socket), name="dockerd")
    assert found is not None, "no dockerd runs"
    return found


def ask(lab: DaemonLab, wish: DaemonAction) -> None:
    lab.stage.ask(wish, load(lab.options).desired)


def test_it_is_started_with_the_users_file(lab: DaemonLab, script: StockScript) -> None:
    use_own(lab, own_file(lab, debug=True))
    assert lab.apply(), "containers are managed"
    assert lab.info()["DockerRootDir"] == f"{lab.root}/own"
    assert lab.info()["Debug"]
    assert lab.conditions()["DaemonUnmanaged"] == (True, "ConfiguredElsewhere")
    assert f"alt_config_file is {lab.root}/own.json" in lab.message("DaemonUnmanaged")
    assert "ucidockd only starts it" in lab.message("DaemonUnmanaged")
    assert lab.conditions()["Running"] == (True, "Running")
    assert "Synced" not in lab.conditions()
    before = engine(lab)
    lab.restart_agent()
    assert lab.apply()
    assert engine(lab) == before
    assert script.done() == ["start"]
    assert not lab.daemon_json.exists()


def test_a_child_is_started_with_the_users_file(lab: DaemonLab, caplog: pytest.LogCaptureFixture) -> None:
    def use(path: Path, more: str = "") -> None:
        lab.write(f"option alt_config_file '{path}'\n{more}", kind="child")

    use(own_file(lab, debug=True))
    assert lab.apply(), "containers are managed"
    assert (lab.info()["DockerRootDir"], lab.info()["Debug"]) == (f"{lab.root}/own", True)
    assert "ucidockd only starts it" in lab.message("DaemonUnmanaged")
    before = engine(lab)
    lab.restart_agent()
    assert lab.apply()
    assert engine(lab) == before
    stop_process(before, 20)
    wait_for(lab.apply)
    assert engine(lab) != before, "it is started again"
    ask(lab, DaemonAction.STOP)
    assert not lab.apply()
    assert not lab.probe.answers()
    ask(lab, DaemonAction.START)
    broken = own_file(lab)
    broken.write_text("{")
    # the one that was stopped may still be on its way out, and is waited for
    wait_for(lambda: not lab.apply() and "Degraded" in lab.conditions())
    assert "dockerd ended soon after its start" in lab.message("Degraded")
    use(lab.root / "missing.json", "option debug '1'\n")
    lab.stage._watch.forget_backoff()
    assert lab.apply(), "as on the stock package, UCI's options count where there is no such file"
    assert lab.info()["DockerRootDir"] == f"{lab.root}/data"
    assert lab.info()["Debug"]
    assert "missing.json, which does not exist" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "own.json is not JSON (line 1: "),
        ("[]", "own.json is not a JSON object"),
        ('{"log-level": 3}', "dockerd refuses "),
    ],
)
def test_a_file_that_dockerd_will_not_accept_is_named_and_stops_nothing(
    lab: DaemonLab, script: StockScript, text: str, said: str
) -> None:
    file = own_file(lab)
    use_own(lab, file)
    assert lab.apply()
    before = engine(lab)
    good = file.read_text()
    assert not_here(lab.stage, load(lab.options)) == ()
    file.write_text(text)
    if "refuses" in said and version_of("dockerd") < (23, 0):
        pytest.skip("this dockerd cannot validate a file")
    (issue,) = not_here(lab.stage, load(lab.options))
    assert (issue.severity, issue.option) == ("warning", "alt_config_file")
    assert said in issue.message
    with pytest.raises(ConflictError, match="dockerd would not start again"):
        ask(lab, DaemonAction.RESTART)
    assert lab.apply()
    assert engine(lab) == before
    if "refuses" not in said:  # only looked at on request: it takes a process
        assert said in lab.message("DaemonUnmanaged")
    file.write_text(good)
    ask(lab, DaemonAction.RESTART)
    assert lab.apply()
    assert engine(lab) != before


def test_a_child_waits_for_the_disk_of_the_users_file(lab: DaemonLab) -> None:
    disk = lab.root / "disk"
    disk.mkdir()
    (lab.root / "config" / "fstab").write_text(
        f"config mount\n\toption target '{disk}'\n\toption enabled '1'\n"
    )
    lab.write(f"option alt_config_file '{disk}/own.json'\n", kind="child")
    assert not lab.apply()
    assert f"nothing is mounted on {disk}" in lab.stage.holding
    assert not lab.probe.answers()


def test_without_a_configuration_of_dockerd_its_default_file_counts(
    lab: DaemonLab, script: StockScript
) -> None:
    own_file(lab).rename(lab.root / "etc-docker-daemon.json")
    lab.write("", kind="procd")
    (lab.root / "config" / "dockerd").unlink()
    assert lab.apply()
    assert lab.info()["DockerRootDir"] == f"{lab.root}/own"
    assert "no section in /etc/config/dockerd" in lab.message("DaemonUnmanaged")
    ask(lab, DaemonAction.STOP)
    assert not lab.apply()
    assert not lab.probe.answers()


@pytest.mark.parametrize(
    ("given", "said"),
    [("missing.json", "which does not exist"), ("", "set dockerd.globals.alt_config_file to")],
)
def test_without_such_a_file_dockerd_runs_as_the_script_makes_it(
    lab: DaemonLab, script: StockScript, given: str, said: str
) -> None:
    lab.write(f"option alt_config_file '{lab.root}/{given}'\n" if given else "", kind="procd")
    assert lab.apply()
    assert lab.info()["DockerRootDir"] == f"{lab.root}/data", "the script makes a file of UCI's options"
    assert said in lab.message("DaemonUnmanaged")


@pytest.mark.parametrize("where", ["its data", "its file"])
def test_it_waits_for_the_disk(lab: DaemonLab, script: StockScript, where: str) -> None:
    disk = lab.root / "disk"
    disk.mkdir()
    (lab.root / "config" / "fstab").write_text(
        f"config mount\n\toption target '{disk}'\n\toption enabled '1'\n"
    )
    content = own_file(lab, **{"data-root": f"{disk}/docker"}).read_text()
    path = (disk if where == "its file" else lab.root) / "user.json"
    if where == "its data":
        path.write_text(content)
    use_own(lab, path)
    assert not lab.apply()
    assert lab.conditions()["Waiting"] == (True, "Missing")
    assert f"nothing is mounted on {disk}" in lab.message("Waiting")
    assert lab.conditions()["DaemonUnmanaged"] == (True, "ConfiguredElsewhere")
    assert script.done() == []
    assert not (disk / "docker").exists(), "nothing on the flash"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)
    path.write_text(content)
    assert lab.apply()
    assert "Waiting" not in lab.conditions()
    assert lab.info()["DockerRootDir"] == f"{disk}/docker"


def test_stop_start_and_restart_work_and_a_stop_lasts(lab: DaemonLab, script: StockScript) -> None:
    use_own(lab, own_file(lab))
    assert lab.apply()
    before = engine(lab)
    ask(lab, DaemonAction.RESTART)
    assert not lab.apply(busy=True), "operations that are under way end first"
    assert lab.apply()
    assert engine(lab) != before
    with pytest.raises(ConflictError, match="dockerd runs already"):
        ask(lab, DaemonAction.START)
    ask(lab, DaemonAction.STOP)
    assert not lab.apply()
    assert not lab.probe.answers()
    assert lab.conditions()["Synced"] == (False, "Held")
    lab.restart_agent()
    assert not lab.apply()
    assert not lab.probe.answers()
    with pytest.raises(ConflictError, match="dockerd does not run"):
        ask(lab, DaemonAction.STOP)
    ask(lab, DaemonAction.START)
    assert lab.apply()
    assert "Synced" not in lab.conditions()
    ask(lab, DaemonAction.STOP)
    assert not lab.apply()
    subprocess.run([str(script.path), "start"], check=True)
    wait_for(lab.probe.answers)
    assert lab.apply(), "started behind our back: that is wanted"
    assert lab.probe.answers()


def test_one_that_dies_is_started_again(lab: DaemonLab, script: StockScript) -> None:
    use_own(lab, own_file(lab))
    assert lab.apply()
    stop_process(engine(lab), 20)
    wait_for(lab.apply)
    assert lab.probe.answers()
    assert script.done() == ["start", "start"]


def test_a_file_that_dockerd_refuses_is_said_and_tried_again(lab: DaemonLab, script: StockScript) -> None:
    path = own_file(lab)
    path.write_text("{")
    use_own(lab, path)
    assert not lab.apply()
    assert lab.conditions()["Degraded"] == (True, "NotStarted")
    assert "ended soon after" in lab.message("Degraded")
    assert "logread -e dockerd" in lab.message("Degraded")
    assert lab.conditions()["DaemonUnmanaged"] == (True, "ConfiguredElsewhere")
    own_file(lab)
    wait_for(lab.apply)
    assert "Degraded" not in lab.conditions()


def test_one_that_listens_elsewhere_is_not_started_twice(lab: DaemonLab, script: StockScript) -> None:
    use_own(lab, own_file(lab, hosts=[f"unix://{lab.root}/other.sock"]))
    lab.limits = type(lab.limits)(start_s=6, reload_s=5, watch_s=0.5)
    lab.restart_agent()
    assert not lab.apply()
    assert "does not answer on" in lab.message("Degraded")
    lab.stage.accept_engine()
    assert not lab.apply()
    assert lab.conditions()["Running"] == (False, "NotListening")
    assert f"`hosts` in {lab.root}/own.json lacks unix://{lab.socket}" in lab.message("Running")
    assert script.done() == ["start"]


def test_from_ours_to_the_users_and_back(lab: DaemonLab, script: StockScript) -> None:
    use_ours(lab, "option debug '1'\n")
    assert lab.apply()
    lab.settle()
    pid, ours = lab.run_container(), engine(lab)
    path = own_file(lab, **{"data-root": f"{lab.root}/data", "live-restore": True})
    use_own(lab, path)
    script.reload()  # the stock script's reload trigger: it follows alt_config_file
    assert lab.apply()
    assert engine(lab) == ours, "it is the user who restarts it"
    assert "still runs with the settings from before, until it is restarted" in lab.message("DaemonUnmanaged")
    wait_for(lambda: lab.info()["LiveRestoreEnabled"])  # dockerd takes its file in its own time
    ask(lab, DaemonAction.RESTART)
    assert lab.apply()
    theirs = engine(lab)
    assert theirs != ours
    assert not lab.info()["Debug"]
    assert "ucidockd only starts it" in lab.message("DaemonUnmanaged")
    assert lab.whose() == (True, False, NotOurs.OWN_FILE)
    use_ours(lab, "option debug '1'\n")
    script.reload()
    assert lab.apply()
    assert engine(lab) != theirs
    assert lab.info()["Debug"]
    assert lab.pid_of() == pid, "live-restore was on all the time"
    assert "DaemonUnmanaged" not in lab.conditions()
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert lab.whose() == (True, True, "")


@pytest.mark.parametrize("agent", [pytest.param("the same agent", marks=pytest.mark.long), "another one"])
def test_back_to_ours_dockerd_follows_ours_though_the_file_is_the_same(
    lab: DaemonLab, script: StockScript, agent: str
) -> None:
    use_ours(lab, "option debug '1'\n")
    assert lab.apply()
    lab.settle()
    use_own(lab, own_file(lab, **{"data-root": f"{lab.root}/data"}))
    assert lab.apply()
    script.restart()
    wait_for(lab.probe.answers)
    assert lab.apply()
    assert not lab.info()["Debug"]
    if agent == "another one":
        lab.restart_agent()
    use_ours(lab, "option debug '1'\n")
    assert lab.apply()
    assert lab.info()["Debug"]
    assert lab.conditions()["Synced"] == (True, "Applied")


def test_an_engine_elsewhere_is_not_started_here(lab: DaemonLab, script: StockScript) -> None:
    use_own(lab, own_file(lab))
    lab.options = type(lab.options)(
        config_dir=lab.options.config_dir,
        override_dir=lab.options.override_dir,
        state_dir=lab.options.state_dir,
        socket=lab.options.socket,
        docker_host="tcp://192.0.2.1:2376",
    )
    lab.restart_agent()
    assert lab.apply()
    assert script.done() == []
    assert lab.whose() == (False, False, NotOurs.ELSEWHERE)


@pytest.mark.parametrize(
    ("settings", "has_package", "expected"),
    [
        (None, False, "/var/lib/docker"),
        (None, True, "/opt/docker/"),
        (DaemonSettings(), True, "/opt/docker/"),
        (DaemonSettings(values={"data-root": "/mnt/x"}), True, "/mnt/x"),
        (DaemonSettings(alt_config_file="/nowhere", values={"data-root": "/mnt/x"}), True, "/mnt/x"),
    ],
)
def test_the_data_is_where_the_script_puts_it(
    settings: DaemonSettings | None, has_package: bool, expected: str, tmp_path: Path
) -> None:
    found = user_settings(settings, has_package=has_package, default_file=tmp_path / "daemon.json")
    assert found.data_root == expected


@pytest.mark.parametrize("text", ["[1]", "{", '{"data-root": 5, "shutdown-timeout": "x"}', "\0"])
def test_a_file_that_says_nothing_useful_has_dockerds_defaults(text: str, tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(text)
    found = user_settings(DaemonSettings(alt_config_file=str(path)), has_package=True)
    assert (found.data_root, found.shutdown_s) == ("/var/lib/docker", 15)
