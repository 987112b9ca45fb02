# SPDX-License-Identifier: GPL-2.0-or-later
"""`ucidockd tls client NAME`, and that no process of ours but the maker loads `cryptography`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from agent.cli.main import main
from agent.tls.certificates import Certificates
from tests.support.agent_process import wait_for
from tests.support.certificates import DAY, NAMES, check_pair

NOW = time.time()
LIBRARY = "cryptography/hazmat"  # its compiled part, as /proc/PID/maps names it


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with certificates."""
    state = tmp_path_factory.mktemp("state")
    Certificates(state / "tls").ensure_server(sans=NAMES, days=365, renew_days=30, now=NOW)
    return state


def test_it_writes_a_bundle_and_says_how_to_use_it(state: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent", "tls", "client", "laptop", f"--state-dir={state}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    folder = tmp_path / "laptop"
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{folder}: certificate of client laptop, valid until 20" in done.stdout
    for line in (
        "DOCKER_HOST=tcp://router.lan:2376",
        "DOCKER_TLS_VERIFY=1",
        "DOCKER_CERT_PATH=/path/to/laptop",
    ):
        assert f"  export {line}\n" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    check_pair(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    assert "PRIVATE KEY" not in done.stdout


@pytest.mark.parametrize(
    ("hosts", "port"),
    [
        ("list hosts 'unix:///var/run/docker.sock'", 2376),
        ("list hosts 'tcp://127.0.0.1:2399'\nlist hosts 'tcp://0.0.0.0:2398'", 2398),
        ("list hosts 'tcp://[::1]:2399'", 2399),
        ("list hosts 'nonsense'", 2376),
    ],
)
def test_it_names_the_port_where_dockerd_listens(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], hosts: str, port: int
) -> None:
    (tmp_path / "containers").touch()
    (tmp_path / "dockerd").write_text(f"config globals 'globals'\n{hosts}\n")
    places = [f"--config-dir={tmp_path}", f"--override-dir={tmp_path / 'none'}", f"--out={tmp_path / 'keys'}"]
    assert main(["tls", "client", "laptop", *places, f"--state-dir={state}"]) == 0
    assert f"DOCKER_HOST=tcp://router.lan:{port}\n" in capsys.readouterr().out


def test_json_names_the_files_the_end_and_the_servers_names(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"--out={tmp_path / 'keys'}"
    assert main(["tls", "client", "laptop", "--json", "--days=10", out, f"--state-dir={state}"]) == 0
    bundle = json.loads(capsys.readouterr().out)
    folder = tmp_path / "keys"
    assert bundle.pop("expires") == pytest.approx(time.time() + 10 * DAY, abs=60)
    assert bundle == {
        "name": "laptop",
        "directory": str(folder),
        "ca": str(folder / "ca.pem"),
        "cert": str(folder / "cert.pem"),
        "key": str(folder / "key.pem"),
        "server_names": list(NAMES),
    }


MISTAKES = [
    (["a/b"], 1, "'a/b' is not a name of a client, expected"),
    (["x", "--days=0"], 1, "days is 0, expected 1 to 3650"),
    (["x", "--days=many"], 2, "--days: `many` is not a whole number"),
    (["x", "--out=nowhere/x"], 1, "nowhere is not a folder"),
    (["x", "--out=."], 1, "exists already"),
    (["x", "--out=/proc/x"], 1, "/proc/.x.new-"),
    ([], 2, "NAME is missing: letters, digits"),
]


@pytest.mark.parametrize(("words", "code", "message"), MISTAKES)
def test_a_mistake_is_told_with_what_is_expected(
    state: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = main(["tls", "client", *words, f"--state-dir={state}"])
    told = capsys.readouterr()
    assert (ended, told.out) == (code, "")
    assert message in told.err
    assert list(tmp_path.iterdir()) == []


def test_without_a_ca_it_says_what_makes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--out={tmp_path / 'x'}", f"--state-dir={tmp_path / 'state'}"]
    assert main(["tls", "client", "laptop", *words]) == 1
    assert "there is no CA" in (told := capsys.readouterr().err)
    assert "dockerd.tls" in told


WITHOUT_THE_MAKER = """
import importlib, pkgutil, sys, time
from pathlib import Path
import agent

for module in pkgutil.walk_packages(agent.__path__, "agent."):
    if module.name not in {"agent.__main__", "agent.tls.maker"}:
        importlib.import_module(module.name)
from agent.tls.certificates import Certificates

certificates = Certificates(Path(sys.argv[1]) / "tls")
certificates.ensure_server(sans=("localhost",), days=365, renew_days=30, now=time.time())
certificates.make_client("laptop", Path(sys.argv[1]) / "laptop", days=30, now=time.time())
print([name for name in sys.modules if name.startswith("cryptography")], Path("/proc/self/maps").read_text())
"""


def test_no_module_of_the_agent_loads_cryptography_not_even_to_make_certificates(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_THE_MAKER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
    assert LIBRARY not in done.stdout
    assert (tmp_path / "laptop" / "key.pem").exists()


def test_the_maker_does_load_it_so_that_the_test_above_means_something() -> None:
    code = "import agent.tls.maker; print(open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert LIBRARY in done.stdout


@contextmanager
def running_agent(folder: Path, state: Path) -> Iterator[tuple[httpx.Client, int, Path]]:
    """`ucidockd run` without an engine: a client of its control socket, its number, its log at level debug."""
    for name in ("config", "override"):
        (folder / name).mkdir()
    (folder / "config" / "containers").write_text("")
    log, socket = folder / "log", folder / "agent.sock"
    words = [f"--config-dir={folder / 'config'}", f"--override-dir={folder / 'override'}"]
    words += [f"--state-dir={state}", f"--socket={socket}", f"--docker-host=unix://{folder}/none"]
    words += [f"--ubus-socket={folder}/no-ubus/ubus.sock", "--log-level=debug"]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "agent", "run", *words], stdout=errors, stderr=errors
        ) as agent,
    ):
        wait_for(lambda: "ready on" in log.read_text())
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://localhost", timeout=20
        ) as client:
            yield client, agent.pid, log
        agent.send_signal(signal.SIGTERM)
        agent.wait(20)


def test_the_running_agent_gives_bundles_without_loading_or_logging_or_keeping_them(
    state: Path, tmp_path: Path
) -> None:
    before = sorted(state.rglob("*"))
    with running_agent(tmp_path, state) as (client, pid, log):
        answer = client.post("/v1/tls/clients", json={"name": "laptop", "days": 10})
        wrong = client.post("/v1/tls/clients", json={"name": "a/b"})
        maps = Path(f"/proc/{pid}/maps").read_text()
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    bundle = answer.json()
    assert bundle["expires"] == pytest.approx(time.time() + 10 * DAY, abs=60)
    assert (bundle["name"], bundle["server_names"]) == ("laptop", list(NAMES))
    for name, text in bundle["files"].items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    check_pair(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    assert wrong.status_code == 422
    assert "is not a name of a client" in wrong.json()["error"]["message"]
    assert "python" in maps
    assert LIBRARY not in maps
    assert "PRIVATE KEY" not in log.read_text()
    key = bundle["files"]["key.pem"].splitlines()[1]
    assert key not in log.read_text()
    made = [path for path in state.rglob("*") if path not in before and path.is_file()]
    assert [path for path in made if key in path.read_text()] == []
