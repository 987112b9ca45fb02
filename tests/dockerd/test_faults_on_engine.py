# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of dockerd that go wrong, each on a real dockerd of its own.

After each of them dockerd answers on its unix socket, a container that was running kept its process, and the condition
says what happened.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.dockerd.change import Limits
from agent.dockerd.files import DaemonFiles
from agent.dockerd.unmanaged import version_of
from agent.engine import process as daemon_process
from agent.model.dockerd.settings import ChangeStep, DaemonRecord
from tests.support.daemon_lab import DaemonLab, wait_for
from tests.support.hanging import HangingMount


def started(lab: DaemonLab) -> int:
    """A good configuration that has proved itself, and a container; the container's pid."""
    assert lab.apply("option debug '1'\n")
    lab.settle()
    return lab.run_container()


def assert_rolled_back(lab: DaemonLab, pid: int) -> None:
    assert lab.probe.answers()
    assert lab.pid_of() == pid
    assert lab.conditions()["RolledBack"][0]
    assert lab.conditions()["Degraded"] == (True, "RolledBack")
    assert lab.conditions()["Synced"] == (False, "RolledBack")
    assert lab.info()["Debug"], "not the last good configuration"


def assert_not_tried_again(lab: DaemonLab) -> None:
    before = lab.process
    assert lab.apply()
    assert lab.process == before


def test_settings_that_dockerd_does_not_start_with_are_rolled_back_and_not_tried_again(
    lab: DaemonLab,
) -> None:
    pid = started(lab)
    assert lab.apply("option debug '1'\nlist log_opts 'nosuch=1'\n")
    assert_rolled_back(lab, pid)
    assert "nosuch" in lab.message("RolledBack")
    assert_not_tried_again(lab)
    lab.restart_agent()
    assert_not_tried_again(lab)
    assert lab.conditions()["RolledBack"][0]
    assert lab.apply("option debug '1'\noption log_driver 'local'\n")
    assert "RolledBack" not in lab.conditions()
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert (lab.info()["LoggingDriver"], lab.pid_of()) == ("local", pid)


@pytest.mark.long
def test_an_unsuitable_storage_driver_is_rolled_back(lab: DaemonLab) -> None:
    pid = started(lab)
    assert lab.apply("option debug '1'\noption storage_driver 'zfs'\n")
    assert lab.conditions()["RolledBack"][0]
    assert lab.info()["Debug"]
    assert pid, "another storage driver cannot show the containers, so they were stopped for it"
    assert lab.message("Degraded").startswith("dockerd did not start: ")


@pytest.mark.long
def test_a_bridge_address_that_a_network_has_is_rolled_back(lab: DaemonLab) -> None:
    started(lab)
    with contextlib.closing(lab.client()) as client:
        client.api.create_network(
            "taken", ipam={"Config": [{"Subnet": "10.215.9.0/24"}], "Driver": "default"}
        )
    assert lab.apply("option debug '1'\noption bip '10.215.9.1/24'\n")
    assert lab.conditions()["RolledBack"][0]
    assert lab.info()["Debug"]
    assert "bip" not in lab.document()


def test_dying_after_a_while_counts_as_a_failure_of_the_change(lab: DaemonLab) -> None:
    lab.limits = Limits(start_s=40, watch_s=20)
    pid = started_with_long_watch(lab)
    assert lab.apply("option debug '1'\noption log_level 'info'\n")
    assert lab.conditions()["Synced"] == (True, "Applied")
    lab.kill()
    lab.apply()
    assert_rolled_back(lab, pid)
    assert "killed by signal 9" in lab.message("RolledBack")


def started_with_long_watch(lab: DaemonLab) -> int:
    """As `started`, without waiting for the long watch."""
    limits, lab.limits = lab.limits, Limits(start_s=40, watch_s=0.1)
    lab.restart_agent()
    pid = started(lab)
    lab.limits = limits
    lab.restart_agent()
    return pid


def test_the_socket_is_never_lost_by_other_hosts(lab: DaemonLab) -> None:
    pid = started(lab)
    other = lab.root / "other.sock"
    assert lab.apply(f"option debug '1'\nlist hosts 'unix://{other}'\n")
    assert lab.probe.answers()
    assert other.is_socket()
    assert lab.pid_of() == pid


@pytest.mark.long
def test_arguments_that_move_the_socket_or_are_unknown_are_not_in_force(lab: DaemonLab) -> None:
    """Engines from 23.0 on refuse them before anything is stopped."""
    pid = started(lab)
    for argument in ("--host=unix:///run/elsewhere.sock", "--no-such-flag"):
        config = lab.options.config_dir / "containers"
        config.write_text(f"{lab.agent_section()}\tlist dockerd_args '{argument}'\n")
        assert lab.apply()
        if version_of(str(lab.program)) >= (23, 0):
            assert (lab.probe.answers(), lab.pid_of()) == (True, pid)
            assert lab.conditions()["Degraded"] == (True, "Refused")
            assert lab.conditions()["Synced"] == (False, "Refused")
        else:
            assert_rolled_back(lab, pid)
        assert_not_tried_again(lab)


@pytest.mark.long
def test_a_port_that_is_taken_when_dockerd_comes_to_it_is_rolled_back(lab: DaemonLab) -> None:
    pid = started(lab)
    words = lab.network.words("nc", "-l", "-p", "2399")
    listener = subprocess.Popen(
        [*words[:2], "/bin/busybox", *words[2:]], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: ":2399" in lab.network.run("ss", "-ltn").stdout)
        assert lab.apply("option debug '1'\nlist hosts 'tcp://127.0.0.1:2399'\n")
        assert_rolled_back(lab, pid)
        assert "address already in use" in lab.message("RolledBack")
    finally:
        listener.kill()
        listener.communicate()


def test_a_host_whose_port_is_in_use_is_left_out_until_it_is_free(lab: DaemonLab) -> None:
    pid = started(lab)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f"option debug '1'\nlist hosts 'tcp://127.0.0.1:{port}'\nlist labels 'a=b'\n"
        assert lab.apply(text + f"list hosts 'unix://{lab.root}/no/such.sock'\n")
        assert f"there is no folder {lab.root}/no" in lab.message("Degraded")
        assert lab.apply(text)
        assert lab.info()["Labels"] == ["a=b"]
        assert lab.conditions()["Degraded"] == (True, "HostUnavailable")
        assert lab.document()["hosts"] == [f"unix://{lab.socket}"]
    assert lab.apply()
    assert lab.document()["hosts"] == [f"unix://{lab.socket}", f"tcp://127.0.0.1:{port}"]
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert lab.pid_of() == pid


def test_a_missing_certificate_disturbs_nothing_and_is_used_once_it_is_there(
    lab: DaemonLab, certificates: Path
) -> None:
    pid = started(lab)
    before = lab.process
    files = "".join(
        f"\toption {name} '{certificates / file}'\n"
        for name, file in (("cacert", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem"))
    )
    key = (certificates / "key.pem").rename(certificates / "away.pem")
    tls = f"config tls 'tls'\n\toption mode 'files'\n{files}"
    assert lab.apply("option debug '1'\nlist hosts 'tcp://127.0.0.1:2376'\n", tls)
    assert lab.process == before
    assert lab.conditions()["Degraded"] == (True, "Certificate")
    assert f"{certificates / 'key.pem'} cannot be read" in lab.message("Degraded")
    assert lab.document()["debug"] is True, "the other settings apply"
    key.rename(certificates / "key.pem")
    assert lab.apply()
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert lab.pid_of() == pid


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    words += ["-subj", "/CN=x", "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(words, check=True, capture_output=True)
    (tmp_path / "ca.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
    return tmp_path


def test_a_dockerd_that_is_killed_during_the_change_ends_up_running(lab: DaemonLab) -> None:
    pid = started(lab)
    old = lab.process

    def kill_the_new_one() -> None:
        def fresh() -> bool:
            found = daemon_process.find_with_config(lab.daemon_json)
            if found is None or found == old:
                return False
            daemon_process.send_signal(found, signal.SIGKILL)
            return True

        wait_for(fresh)

    killer = threading.Thread(target=kill_the_new_one)
    killer.start()
    assert lab.apply("option debug '1'\noption log_level 'info'\n")
    killer.join()
    assert_rolled_back(lab, pid)
    assert "killed by signal 9" in lab.message("RolledBack")


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        pytest.param(ChangeStep.RELOAD, "option debug '0'\n", marks=pytest.mark.long),
        (ChangeStep.STOP, "option debug '0'\noption log_level 'info'\n"),
        pytest.param(ChangeStep.START, "option debug '0'\noption log_level 'info'\n", marks=pytest.mark.long),
        pytest.param(ChangeStep.WATCH, "option debug '0'\noption log_level 'info'\n", marks=pytest.mark.long),
    ],
)
def test_an_agent_that_is_killed_in_a_change_is_followed_by_one_that_ends_it(
    lab: DaemonLab, step: ChangeStep, settings: str
) -> None:
    pid = started(lab)
    lab.write(settings)
    killed_at(lab, step)
    assert DaemonFiles(run_dir=lab.root / "run", state_dir=lab.root / "state").load().step == step
    lab.restart_agent()
    assert lab.apply()
    assert lab.probe.answers()
    assert not lab.info()["Debug"]
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert lab.pid_of() == pid
    before = lab.process
    lab.settle()
    assert lab.process == before
    last_good = DaemonFiles(run_dir=lab.root / "run", state_dir=lab.root / "state").last_good()
    assert last_good is not None
    assert last_good.document == lab.document()


@pytest.mark.long
@pytest.mark.parametrize("step", [ChangeStep.STOP, ChangeStep.START])
def test_an_agent_that_is_killed_on_the_way_back_is_followed_by_one_that_ends_it(
    lab: DaemonLab, step: ChangeStep
) -> None:
    pid = started(lab)
    lab.write("option debug '1'\nlist log_opts 'nosuch=1'\n")
    killed_at(lab, step, way_back=True)
    lab.restart_agent()
    assert lab.apply()
    assert_rolled_back(lab, pid)
    assert_not_tried_again(lab)


def killed_at(lab: DaemonLab, step: ChangeStep, *, way_back: bool = False) -> None:
    """An agent that is killed as soon as it has written down that step (of the way back after a failure)."""
    child = os.fork()
    if child == 0:
        save = DaemonFiles.save

        def save_and_die(self: DaemonFiles, record: DaemonRecord) -> None:
            save(self, record)
            if record.step == step and record.fallback is way_back:
                os.kill(os.getpid(), signal.SIGKILL)

        DaemonFiles.save = save_and_die  # type: ignore[method-assign] # in this short-lived child only
        try:
            lab.restart_agent()
            lab.apply()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.fixture
def small_run_dir(lab: DaemonLab) -> Iterator[Path]:
    folder = lab.root / "run"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=True)
    yield folder
    lab.stop()
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_dockerd_and_its_file_alone(lab: DaemonLab, small_run_dir: Path) -> None:
    pid = started(lab)
    before, text = lab.process, lab.daemon_json.read_bytes()
    filler = small_run_dir / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)
    assert lab.apply("option debug '0'\noption log_level 'info'\n")
    assert (lab.process, lab.daemon_json.read_bytes()) == (before, text)
    assert lab.conditions()["Degraded"] == (True, "StorageFull")
    assert list(small_run_dir.glob(".daemon*")) == [], "nothing of an attempt is left over"
    filler.unlink()
    assert lab.apply()
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert "Degraded" not in lab.conditions()
    assert lab.pid_of() == pid


@pytest.mark.parametrize(
    "content",
    [
        None,
        *(
            pytest.param(junk, marks=pytest.mark.long)
            for junk in (b"\0\0junk", b'{"document": {"debug": true}}')
        ),
    ],
)
def test_without_a_last_good_configuration_the_minimal_one_keeps_dockerd_up(
    lab: DaemonLab, content: bytes | None
) -> None:
    pid = started(lab)
    last_good = lab.root / "state" / "daemon-last-good.json"
    last_good.unlink()
    if content is not None:
        last_good.write_bytes(content)
    assert lab.apply("option debug '1'\nlist log_opts 'nosuch=1'\n")
    assert lab.probe.answers()
    assert (lab.document()["hosts"], lab.document()["tls"]) == ([f"unix://{lab.socket}"], False)
    assert lab.document()["data-root"] == str(lab.root / "data")
    assert lab.conditions()["Degraded"] == (True, "RolledBack")
    assert lab.pid_of() == pid
    assert_not_tried_again(lab)


@pytest.mark.long
def test_a_last_good_configuration_that_is_bad_itself_is_passed_over(lab: DaemonLab) -> None:
    pid = started(lab)
    last_good = lab.root / "state" / "daemon-last-good.json"
    last_good.write_text(last_good.read_text().replace('"ip6tables"', '"nosuch"'))
    assert lab.apply("option debug '1'\nlist log_opts 'nosuch=1'\n")
    assert lab.document()["hosts"] == [f"unix://{lab.socket}"]
    assert lab.conditions()["Degraded"] == (True, "RolledBack")
    assert lab.pid_of() == pid


@pytest.mark.parametrize(
    "edit",
    ["", *(pytest.param(text, marks=pytest.mark.long) for text in ("{}", '{"debug": false, "hosts": []}'))],
)
def test_a_file_edited_by_hand_is_drift_and_repaired_without_a_restart(lab: DaemonLab, edit: str) -> None:
    started(lab)
    before, text = lab.process, lab.daemon_json.read_text()
    lab.daemon_json.write_text(edit)
    assert lab.apply()
    assert (lab.process, lab.daemon_json.read_text()) == (before, text)
    operations = lab.board.snapshot()["resources"][0]["operations"]
    assert (operations[-1]["op"], operations[-1]["cause"]) == (
        "reload",
        "daemon.json was edited outside of ucidockd",
    )


def test_a_reload_that_is_not_confirmed_leaves_the_old_settings(lab: DaemonLab) -> None:
    lab.limits = Limits(start_s=40, reload_s=0.4, watch_s=0.1)
    lab.restart_agent()
    pid = started(lab)
    before, text = lab.process, lab.daemon_json.read_text()
    os.kill(before.pid, signal.SIGSTOP)
    lab.apply("option debug '0'\n")
    assert lab.daemon_json.read_text() == text
    os.kill(before.pid, signal.SIGCONT)
    wait_for(lab.probe.answers)
    assert_not_tried_again(lab)
    assert_rolled_back(lab, pid)
    assert "did not confirm the reload" in lab.message("RolledBack")
    assert lab.process == before


def test_a_dockerd_that_dies_by_itself_is_started_again(lab: DaemonLab) -> None:
    lab.apply("option live_restore '1'\n")
    lab.settle()
    pid = lab.run_container()
    for _ in range(2):
        before = lab.process
        lab.kill()
        wait_for(lambda: lab.apply() and lab.probe.answers())
        assert lab.process != before
    assert lab.pid_of() == pid
    assert "RolledBack" not in lab.conditions()


def test_a_start_that_keeps_failing_is_tried_again_more_slowly(lab: DaemonLab) -> None:
    woken: list[float] = []
    lab.before = ["exit 3"]
    lab.write_wrapper()
    lab.stage = lab.new_stage(wake=woken.append)
    assert not lab.apply("")
    assert lab.conditions()["Degraded"] == (True, "DaemonDown")
    assert "exit code 3" in lab.message("Degraded")
    assert not lab.apply(), "not at once"
    assert woken
    assert 0.5 < woken[-1] <= 1.2
    lab.before = []
    lab.write_wrapper()
    lab.stage.accept_engine()
    assert lab.apply()
    assert lab.conditions()["Running"] == (True, "Running")


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        pytest.param("option live_restore '0'\n", "option log_level 'info'\n", marks=pytest.mark.long),
        ("", "option bip '10.216.5.1/24'\n"),
    ],
)
def test_containers_stop_with_dockerd_where_the_user_or_the_change_wants_it(
    lab: DaemonLab, settings: str, change: str
) -> None:
    assert lab.apply(settings)
    pid = lab.run_container(restart_policy={"Name": "always"})
    assert lab.apply(settings + change)
    assert lab.conditions()["Synced"] == (True, "Applied")
    wait_for(lambda: lab.pid_of() not in {0, pid})


@pytest.mark.long
def test_on_a_swarm_no_restart_uses_live_restore(lab: DaemonLab) -> None:
    assert lab.apply("option debug '1'\n")
    lab.settle()
    with contextlib.closing(lab.client()) as client:
        client.swarm.init(advertise_addr="127.0.0.1", listen_addr="127.0.0.1:2391")
    lab.run_container(restart_policy={"Name": "always"})
    assert lab.apply("option debug '1'\noption log_level 'info'\n")
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert lab.apply("option debug '1'\nlist log_opts 'nosuch=1'\n")
    assert lab.conditions()["RolledBack"][0]
    assert lab.document()["debug"] is True, "the last good configuration"


def test_another_agent_finds_the_dockerd_that_runs(lab: DaemonLab) -> None:
    pid = started(lab)
    before = lab.process
    lab.restart_agent()
    assert lab.apply()
    assert lab.process == before
    (lab.root / "run" / "daemon-record.json").write_bytes(b"\0junk")
    lab.restart_agent()
    assert lab.apply()
    assert lab.conditions()["Synced"] == (True, "Applied")
    assert lab.pid_of() == pid


def test_another_data_root_is_another_engine_until_a_reconcile_is_asked_for(lab: DaemonLab) -> None:
    started(lab)
    assert not lab.apply(f"option data_root '{lab.root}/data2'\n"), "containers must not be created there"
    assert lab.conditions()["EngineChanged"] == (True, "DataRoot")
    assert lab.info()["DockerRootDir"] == f"{lab.root}/data2"
    lab.restart_agent()
    assert not lab.apply()
    lab.stage.accept_engine()
    assert lab.apply()
    assert "EngineChanged" not in lab.conditions()
    assert lab.apply()


def test_a_restart_waits_for_operations_that_are_under_way(lab: DaemonLab) -> None:
    started(lab)
    before = lab.process
    assert not lab.apply("option debug '1'\noption log_level 'info'\n", busy=True)
    assert lab.process == before
    assert lab.conditions()["Synced"] == (False, "Pending")
    assert lab.apply(busy=False)
    assert lab.process != before


@pytest.mark.long
def test_data_on_a_mount_that_does_not_answer_is_waited_for(lab: DaemonLab) -> None:
    nas = lab.root / "nas"
    setting = f"option data_root '{nas}/docker'\n"
    with HangingMount(nas):
        begun = time.monotonic()
        assert not lab.apply(setting)
        assert not lab.apply()
        assert time.monotonic() - begun < 20
        assert "Waiting" in lab.conditions(), lab.conditions()
        assert not lab.probe.answers()
    wait_for(lambda: lab.apply(setting))
    assert lab.document()["data-root"] == f"{nas}/docker"
    assert lab.probe.answers()


@pytest.mark.long
def test_a_running_dockerd_outlives_its_data_not_answering(lab: DaemonLab) -> None:
    pid = started(lab)
    process = lab.process
    with HangingMount(lab.root / "data"):
        begun = time.monotonic()
        assert not lab.apply("option debug '1'\noption log_level 'info'\n"), "nothing is changed meanwhile"
        assert time.monotonic() - begun < 20
        assert "does not answer" in lab.message("EngineStorageLost")
    wait_for(lambda: lab.apply("option debug '1'\n"))
    assert (lab.process, lab.pid_of()) == (process, pid)
