# SPDX-License-Identifier: GPL-2.0-or-later
"""Who runs dockerd: procd through an init script (a fake one that keeps procd's habits), or somebody else."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.dockerd.supervisor import ChildSupervisor, ProcdSupervisor, engine_version, stop_process
from agent.engine import process as daemon_process
from agent.errors import DaemonError
from agent.files.config import load, remember_agent
from agent.model.dockerd.settings import NotOurs, Process
from agent.model.dockerd.table import DaemonOption
from agent.plan import daemon as plan_daemon
from tests.support.daemon_lab import DaemonLab, wait_for
from tests.support.stock_script import StockScript


class Procd:
    """An init script as OpenWrt's: dockerd gets /tmp's link to the file, `stop` is SIGTERM and SIGKILL 5 s later."""

    def __init__(self, lab: DaemonLab) -> None:
        self.lab = lab
        self.script = lab.root / "init.d-dockerd"
        self.calls = lab.root / "calls"
        self.calls.write_text("")
        self.link = lab.root / "tmp-dockerd.json"
        pid = lab.root / "procd.pid"
        pid.write_text("none")
        self.script.write_text(
            f"""#!/bin/sh
echo "$1" >>{self.calls}
case "$1" in
start)
	[ -e {lab.daemon_json} ] || exit 1
	ln -sf {lab.daemon_json} {self.link}
	grep -qs '^State:.[RSD]' "/proc/$(cat {pid})/status" && exit 0
	setsid {lab.program} --config-file={self.link} --exec-root={lab.root}/exec \\
		--pidfile={lab.root}/dockerd.pid >/dev/null 2>&1 </dev/null &
	echo $! >{pid}
	;;
stop)
	kill "$(cat {pid})" 2>/dev/null
	;;
esac
exit 0
"""
        )
        self.script.chmod(0o755)

    def done(self) -> list[str]:
        return self.calls.read_text().split()


@pytest.fixture
def procd(lab: DaemonLab) -> Iterator[Procd]:
    made = Procd(lab)
    lab.tools = {"init_script": made.script}
    lab.restart_agent()
    yield made
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def write(lab: DaemonLab, globals_: str) -> None:
    lab.write(f"option alt_config_file '{lab.daemon_json}'\n{globals_}", kind="procd")


def test_procds_dockerd_is_started_reloaded_and_restarted_through_its_script(
    lab: DaemonLab, procd: Procd
) -> None:
    write(lab, "")
    assert lab.apply()
    assert procd.done() == ["start"]
    pid = lab.run_container()
    before = lab.process
    write(lab, "option debug '1'\n")
    assert lab.apply()
    assert lab.process == before
    assert lab.info()["Debug"]
    write(lab, "option debug '1'\noption log_level 'info'\n")
    assert lab.apply()
    assert procd.done() == ["start", "stop", "start"]
    assert lab.process != before
    assert lab.pid_of() == pid
    assert lab.conditions()["Synced"] == (True, "Applied")


@pytest.mark.long
def test_a_dockerd_that_somebody_restarted_through_the_script_is_recognized(
    lab: DaemonLab, procd: Procd
) -> None:
    write(lab, "option debug '1'\n")
    assert lab.apply()
    stop_process(lab.process, 20)
    subprocess.run([str(procd.script), "start"], check=True)
    wait_for(lab.probe.answers)
    before = lab.process
    assert lab.apply()
    assert lab.process == before
    assert lab.conditions()["Synced"] == (True, "Applied")


def test_a_dockerd_that_began_with_the_scripts_own_file_is_restarted_with_ours(
    lab: DaemonLab, procd: Procd
) -> None:
    write(lab, "option debug '1'\n")
    assert lab.apply()
    stop_process(lab.process, 20)
    for name in ("daemon.json", "daemon-record.json"):
        (lab.root / "run" / name).unlink()
    procd.link.unlink()
    procd.link.write_text(f'{{"hosts": ["unix://{lab.socket}"], "data-root": "{lab.root}/data"}}')
    own = procd.script.read_text()
    procd.script.write_text(
        own.replace(f"ln -sf {lab.daemon_json} {procd.link}", ":").replace("|| exit 1", "")
    )
    subprocess.run([str(procd.script), "start"], check=True)
    wait_for(lab.probe.answers)
    assert not lab.info()["Debug"]
    procd.script.write_text(own)
    lab.restart_agent()
    assert lab.apply()
    assert lab.info()["Debug"]


def test_a_configuration_that_cannot_be_read_does_not_keep_dockerd_down(
    lab: DaemonLab, procd: Procd, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(lab, "option debug '1'\n")
    assert lab.apply()
    lab.settle()
    stop_process(lab.process, 20)
    (lab.root / "config" / "containers").write_text("config agent 'unclosed\n")
    lab.restart_agent()
    monkeypatch.setattr("agent.dockerd.unmanaged.on_openwrt", lambda: True)
    lab.stage.keep_running(load(lab.options).readable)
    assert lab.probe.answers()
    assert lab.info()["Debug"]
    assert lab.conditions()["Accepted"] == (False, "Invalid")


@pytest.mark.variants(3)
@pytest.mark.parametrize("broken", ["containers", "dockerd", "both", "containers missing", "dockerd too big"])
@pytest.mark.parametrize("kind", ["child", "procd"])
def test_a_first_boot_on_a_configuration_that_cannot_be_read_has_a_dockerd(
    lab: DaemonLab, monkeypatch: pytest.MonkeyPatch, broken: str, kind: str
) -> None:
    """As the stock package would have one: with the options that can be read, else without any. A `child` dockerd is
    remembered, should an earlier start have read that."""
    script = StockScript.make(lab)
    lab.tools = {"init_script": script.path, "default_file": lab.root / "etc-docker-daemon.json"}
    lab.restart_agent()
    lab.write(f"option alt_config_file '{lab.daemon_json}'\noption debug '1'\n", kind=kind)
    remember_agent(lab.options, load(lab.options).agent)
    for name in ("containers", "dockerd") if broken == "both" else (broken.partition(" ")[0],):
        file = lab.root / "config" / name
        if broken.endswith("missing"):
            file.unlink()
        elif broken.endswith("too big"):  # as an I/O error, nothing of it can be read
            os.truncate(file, 9 << 20)
        else:
            file.write_text(f"{file.read_text()}\toption x 'unclosed\n")
    monkeypatch.setattr("agent.dockerd.unmanaged.on_openwrt", lambda: kind == "procd")
    loaded = load(lab.options)
    if loaded.desired is None:
        assert "dockerd" not in broken
        lab.stage.keep_running(loaded.readable)
    else:
        lab.stage.reconcile(lab.stage.with_last_good_settings(loaded.desired), busy=False)
    assert lab.probe.answers()
    assert lab.info()["Debug"] is (broken.startswith("containers"))
    script.end()


def test_a_script_that_fails_or_starts_nothing_is_reported(lab: DaemonLab, procd: Procd) -> None:
    write(lab, "")
    procd.script.write_text("#!/bin/sh\necho 'no such service' >&2\nexit 1\n")
    assert not lab.apply()
    assert "start failed: no such service" in lab.message("Degraded")


def test_dockerd_waits_for_the_disk_of_its_data(lab: DaemonLab) -> None:
    disk = lab.root / "disk"
    disk.mkdir()
    fstab = lab.root / "config" / "fstab"
    fstab.write_text(f"config mount 'data'\n\toption target '{disk}'\n\toption enabled '1'\n")
    assert not lab.apply(f"option data_root '{disk}/docker'\n")
    assert lab.conditions()["Waiting"] == (True, "Missing")
    assert not (disk / "docker").exists(), "nothing on the flash"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)
    lab.stage.accept_engine()
    assert lab.apply()
    assert "Waiting" not in lab.conditions()
    assert lab.info()["DockerRootDir"] == f"{disk}/docker"


def started_by_somebody(lab: DaemonLab) -> subprocess.Popen[bytes]:
    words = [str(lab.program), f"--config-file={lab.daemon_json}", f"--exec-root={lab.root}/exec"]
    process = subprocess.Popen([*words, f"--pidfile={lab.root}/dockerd.pid"], stderr=subprocess.DEVNULL)
    wait_for(lab.probe.answers)
    return process


def test_an_external_dockerd_is_never_touched_and_a_needed_restart_is_reported(lab: DaemonLab) -> None:
    lab.write("", kind="external")
    assert lab.apply()
    assert lab.conditions()["DaemonUnmanaged"] == (True, "ConfiguredElsewhere")
    assert lab.whose() == (False, False, NotOurs.EXTERNAL)
    process = started_by_somebody(lab)
    try:
        assert lab.apply()
        assert "DaemonUnmanaged" not in lab.conditions()
        assert lab.whose() == (False, True, NotOurs.EXTERNAL)
        assert lab.conditions()["Synced"] == (True, "Applied")
        lab.write("option log_level 'info'\noption debug '1'\n", kind="external")
        assert lab.apply()
        assert lab.conditions()["RestartNeeded"] == (True, "Restart")
        assert "debug changed; log-level changed" in lab.message("RestartNeeded")
        lab.restart_agent()
        assert lab.apply()
        assert lab.conditions()["RestartNeeded"] == (True, "Restart")
        lab.write("option debug '1'\n", kind="external")
        assert lab.apply()
        assert lab.conditions()["RestartNeeded"] == (True, "Reload")
        assert not lab.info()["Debug"]
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(20)
    process = started_by_somebody(lab)
    try:
        assert lab.apply()
        assert "RestartNeeded" not in lab.conditions()
        assert lab.conditions()["Synced"] == (True, "Applied")
    finally:
        process.terminate()
        process.wait(20)


def test_an_engine_elsewhere_is_somebody_elses(lab: DaemonLab) -> None:
    lab.program.unlink()
    lab.write("", kind="external")
    assert lab.apply(), "containers go on"
    assert lab.conditions()["DaemonUnmanaged"] == (True, "ConfiguredElsewhere")
    assert "Degraded" not in lab.conditions()


def test_without_the_package_dockerd_nothing_is_said_about_the_daemon(lab: DaemonLab) -> None:
    lab.write("", kind="child")
    (lab.root / "config" / "dockerd").unlink()
    assert lab.apply()
    assert lab.conditions() == {}
    assert not lab.daemon_json.exists()


@pytest.mark.long
def test_a_child_without_its_configuration_is_left_alone(lab: DaemonLab) -> None:
    assert lab.apply("option debug '1'\n")
    before = lab.process
    (lab.root / "config" / "dockerd").unlink()
    for _ in range(2):
        assert lab.apply()
        assert (lab.conditions(), lab.process, lab.info()["Debug"]) == ({}, before, True)
        lab.restart_agent()
    stop_process(before, 20)
    for _ in range(3):
        assert lab.apply() and not lab.probe.answers()
    assert lab.apply(""), "with the file it is looked after again"
    assert not lab.info()["Debug"]


def test_a_wrong_option_costs_that_option_and_the_rest_is_applied(lab: DaemonLab) -> None:
    """What dockerd runs with goes on there: a mistake must not take docker0 from containers."""
    assert lab.apply("option bip '10.216.7.1/24'\n")
    lab.settle()
    pid = lab.run_container()
    assert lab.apply("option debug '1'\noption bip 'x'\nlist dns '1.2.3'\n")
    assert (lab.info()["Debug"], lab.document()["bip"]) == (True, "10.216.7.1/24")
    assert lab.pid_of() == pid
    assert lab.conditions()["Accepted"] == (False, "Invalid")
    assert lab.conditions()["Synced"] == (False, "LeftOut")
    assert "dockerd.globals.bip: 'x' is not valid here, expected an IPv4" in lab.message("Synced")
    assert "/config/dockerd:4)" in lab.message("Synced"), "file and line"
    lab.settle()
    before = lab.process
    os.kill(before.pid, signal.SIGTERM)
    daemon_process.wait_end(before, 20)
    wait_for(lab.apply)
    assert (lab.info()["Debug"], lab.document()["bip"]) == (True, "10.216.7.1/24")
    assert lab.apply("option debug '1'\noption bip '10.216.8.1/24'\n")
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert lab.document()["bip"] == "10.216.8.1/24"


@pytest.mark.parametrize(
    "wrong",
    [
        "list registry_mirrors 'docker.1ms.run'",
        "list hosts 'bogus'",
        "option bip '172.18.0.0/24'",
        "option max_concurrent_downloads '-1'",
        "list log_opts 'x'",
    ],
)
def test_a_first_boot_with_a_wrong_option_has_a_dockerd(lab: DaemonLab, wrong: str) -> None:
    assert lab.apply(f"{wrong}\noption debug '1'\n")
    assert lab.info()["Debug"]
    assert lab.conditions()["Running"] == (True, "Running")
    assert lab.conditions()["Synced"] == (False, "LeftOut")
    assert wrong.split()[1] in lab.message("Synced")


def test_a_first_boot_with_a_wrong_data_root_has_a_dockerd_where_nothing_is_created(lab: DaemonLab) -> None:
    default = replace(row_of("data_root"), default=f"{lab.root}/data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            plan_daemon,
            "TABLE",
            tuple(default if row.uci == "data_root" else row for row in plan_daemon.TABLE),
        )
        assert not lab.apply("option data_root '/'\n")
        assert lab.conditions()["Running"] == (True, "Running")
        assert lab.conditions()["EngineChanged"] == (True, "Fallback")
    assert lab.apply("")
    assert "EngineChanged" not in lab.conditions()


def row_of(uci: str) -> DaemonOption:
    return next(row for row in plan_daemon.TABLE if row.uci == uci)


def test_a_program_that_is_no_dockerd_is_reported(lab: DaemonLab, tmp_path: Path) -> None:
    lab.program.unlink()
    assert not lab.apply("")
    assert lab.conditions()["Degraded"] == (True, "NoProgram")
    lab.program.write_text("#!/bin/sh\necho hello\n")
    lab.program.chmod(0o755)
    with pytest.raises(DaemonError, match="does not report its version"):
        engine_version(str(lab.program))
    with pytest.raises(DaemonError, match="cannot be started: No such file"):
        ChildSupervisor(program=str(tmp_path / "none"), config_file=tmp_path / "daemon.json").start(())


def test_procds_dockerd_is_quoted_from_the_systems_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for OpenWrt's logread: `-e` is a basic regular expression."""
    log = tmp_path / "log"
    log.write_text(
        "Sun Nov 29 12:00:00 2026 daemon.err dockerd[41]: failed to start daemon: an older one\n"
        "Sun Nov 29 12:00:01 2026 daemon.err dockerd[42]: failed to start daemon: unknown log opt 'x'\n"
        "Sun Nov 29 12:00:02 2026 daemon.err dnsmasq[42]: something else\n"
    )
    logread = tmp_path / "logread"
    logread.write_text(f'#!/bin/sh\n[ "$1 $2 $3" = "-l 200 -e" ] && exec grep -e "$4" {log}\n')
    logread.chmod(0o755)
    procd = ProcdSupervisor(script=tmp_path / "none", config_file=tmp_path / "daemon.json")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert procd.exit_reason(Process(pid=42, started=1)) == "failed to start daemon: unknown log opt 'x'"
    logread.unlink()
    assert procd.exit_reason(Process(pid=42, started=1)) == "see logread -e dockerd"
