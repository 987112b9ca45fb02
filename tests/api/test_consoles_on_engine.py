# SPDX-License-Identifier: GPL-2.0-or-later
"""Consoles through the control socket, over a real engine: both transports, with what people do in a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from websockets.exceptions import InvalidStatus

from tests.api.conftest import Containers
from tests.api.console_client import Events, Screen, screen, web_socket
from tests.support.controller import Controller, serving, sse_events
from tests.support.dockerd import PrivateDockerd
from tests.support.scripted_engine import ScriptedEngine
from tests.support.tcp import WRITE, TcpController
from tests.test_running_agent import wait_for

PROMPT = "$ "
SHELL = {"command": ["sh"], "env": ["PS1=$ "]}
TALK = ["sh", "-c", "echo hello; read a; echo got $a; exit 7"]


@pytest.fixture
def box(containers: Containers) -> str:
    """A container that stays."""
    return containers.run("sleep 1000", stop_signal="KILL")


def test_a_command_gives_its_streams_and_its_exit_code(controller: Controller, box: str) -> None:
    script = "echo out; echo err >&2; printf '\\377\\000\\n'; exit 3"
    console = Events(controller, box, command=["sh", "-c", script], tty=False)
    with controller.client.stream("GET", f"/v1/exec/{console.id}/stream") as response:
        text = "".join(response.iter_text())
    assert '"stream": "stderr", "data": "ZXJyCg=="' in text
    out, ended = console.everything()
    assert sorted(out.split(b"\n")) == [b"", b"err", b"out", b"\xff\x00"]
    assert ended == {"code": 3, "reason": ""}


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"user": "nobody", "command": ["id", "-un"]}, "nobody"),
        ({"workdir": "/data", "command": ["sh", "-c", "pwd"]}, "/data"),
        ({"env": ["GREETING=hi there"], "command": ["sh", "-c", 'echo "$GREETING"']}, "hi there"),
        ({"command": ["stty", "size"], "rows": 33, "columns": 123, "tty": True}, "33 123"),
        ({"command": ["sh", "-c", "test -t 0 && echo yes"], "tty": True}, "yes"),
    ],
)
def test_options_of_a_console_reach_its_process(
    controller: Controller, box: str, options: dict[str, object], shown: str
) -> None:
    if "rows" in options:  # the size comes after the start: wait for it as a shell's user would
        options = {**options, "command": ["sh", "-c", "sleep 0.5; stty size"]}
    out, ended = Events(controller, box, **{"tty": False, **options}).everything()
    assert out.decode().strip() == shown
    assert ended["code"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"command": []}, "at least one word"),
        ({"command": "sh"}, "list of texts"),
        ({"command": ["a\0b"]}, "without NUL"),
        ({"env": ["NOVALUE"]}, "NAME=value"),
        ({"tty": "yes"}, "true or false"),
        ({"rows": -1}, "whole number"),
        ({"comand": ["sh"]}, "use `command`, `tty"),
    ],
)
def test_a_wrong_request_is_told_what_is_expected(
    controller: Controller, options: dict[str, object], message: str
) -> None:
    answer = controller.client.post("/v1/containers/x/exec", json=options)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_the_engines_refusal_is_the_answer(controller: Controller, containers: Containers) -> None:
    gone = controller.client.post("/v1/containers/nosuch/exec", json={})
    assert (gone.status_code, gone.json()["error"]["message"]) == (404, "No such container: nosuch")
    stopped = controller.client.post(f"/v1/containers/{containers.finished('true')}/exec", json={})
    assert stopped.status_code == 409 and "is not running" in stopped.json()["error"]["message"]


def test_a_command_that_does_not_exist_says_so(controller: Controller, box: str) -> None:
    out, ended = Events(controller, box, command=["nosuch"]).everything()
    assert b"nosuch" in out and ended["code"] in (126, 127)


def test_events_resume_after_the_last_one_seen(controller: Controller, box: str) -> None:
    console = Events(controller, box, command=TALK)
    with console.events() as events:
        assert next(events) == ("output", b"hello\r\n")
    console.type("you\n")
    with console.events(resume=True) as events:
        got = list(events)
    assert b"".join(data for name, data in got if name == "output") == b"you\r\ngot you\r\n"
    assert got[-2:] == [("exit", {"code": 7, "reason": ""}), ("end", {})]
    headers = {"last-event-id": console.last}
    assert controller.client.get(f"/v1/exec/{console.id}/stream", headers=headers).status_code == 204
    with console.events() as events:
        assert next(events) == ("output", b"hello\r\n")
    assert console.type("more").status_code == 409


def test_input_ends_where_the_client_says_so(controller: Controller, box: str) -> None:
    console = Events(controller, box, command=["cat"], tty=False)
    data = bytes(range(256)) * 4000
    assert console.type(data, eof=1).status_code == 204
    out, ended = console.everything()
    assert out == data and ended["code"] == 0


def test_a_process_that_does_not_read_all_of_its_input_ends_as_it_does(
    controller: Controller, box: str
) -> None:
    console = Events(controller, box, command=["sh", "-c", "read a; echo got $a; exit 7"], tty=False)
    answer = console.type(b"first\n" + b"x" * 4_000_000)
    assert answer.status_code in (204, 409, 503)
    out, ended = console.everything()
    assert (out, ended) == (b"got first\n", {"code": 7, "reason": ""})


def test_a_megabyte_at_once_is_whole_on_both_transports(controller: Controller, box: str) -> None:
    script = "i=0; while [ $i -lt 8192 ]; do echo $i; i=$((i+1)); done > /tmp/n; "
    script += "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27; do cat /tmp/n; done"
    wanted = "".join(f"{i}\r\n" for i in range(8192)).encode() * 27
    assert len(wanted) > 2**20
    out, ended = Events(controller, box, command=["sh", "-c", script], tty=True).everything()
    assert out == wanted and ended["code"] == 0
    with screen(controller, box, command=["sh", "-c", script], tty=True) as terminal:
        assert terminal.end()["code"] == 0
        assert terminal.out == wanted


def test_control_c_interrupts(controller: Controller, box: str) -> None:
    with screen(controller, box, **SHELL) as terminal:
        terminal.until(PROMPT)
        terminal.type("sh -c 'echo begun; exec sleep 1000'\n")
        terminal.until("\r\nbegun")  # said by the process that is to be interrupted
        terminal.type("\x03")
        terminal.until("^C")
        terminal.until(PROMPT)
        terminal.type("exit 5\n")
        assert terminal.end()["code"] == 5


def test_utf8_passes_both_ways(controller: Controller, box: str) -> None:
    word = "Grüße, 世界 🐋"
    with screen(controller, box, command=["cat"]) as terminal:
        for byte in f"{word}\n".encode():  # a character may be cut anywhere
            terminal.type(bytes([byte]))
        terminal.until(f"{word}\r\n")
        terminal.until(f"{word}\r\n")
        terminal.type("\x04")
        assert terminal.end()["code"] == 0


def test_a_window_may_change_its_size(controller: Controller, box: str) -> None:
    with screen(controller, box, **SHELL) as terminal:
        terminal.until(PROMPT)
        terminal.type("trap 'stty size' WINCH; echo ready\n")
        terminal.until("\r\nready")
        terminal.control(type="resize", rows=44, columns=132)
        terminal.type("stty size\n")
        terminal.until("44 132")
        terminal.control(type="resize", rows=0, columns=132)
        terminal.control(type="nonsense")
        terminal.type("exit\n")
        terminal.end()
        assert [t["message"][:16] for t in terminal.texts if t["type"] == "error"] == [
            "rows and columns",
            'expected {"type"',
        ]


def test_vi_works(controller: Controller, box: str) -> None:
    with screen(controller, box, **SHELL, rows=24, columns=80) as terminal:
        terminal.until(PROMPT)
        terminal.type("vi /tmp/note\n")
        terminal.until("/tmp/note")  # its status line
        terminal.type("ifirst line\nsecond ünïcode")
        terminal.until("I /tmp/note [Modified]")
        terminal.type("\x1b")  # alone: with more behind it, it would begin a key's sequence
        terminal.until("- /tmp/note [Modified]")
        terminal.type("1Gyyp:wq\n")
        terminal.until(PROMPT)
        terminal.type("cat /tmp/note\n")
        terminal.until("first line\r\nfirst line\r\nsecond ünïcode\r\n")


def test_a_reader_that_does_not_read_stops_the_process_and_not_the_memory(
    controller: Controller, box: str
) -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i > /tmp/n; mv /tmp/n /tmp/count; cat /bin/busybox; done"
    console = Events(controller, box, command=["sh", "-c", script], tty=False)
    with console.events() as events:
        next(events)
        before, last, seen = _resident_kib(), -1, _count(controller, box)
        deadline = time.monotonic() + 20
        while seen != last:
            assert time.monotonic() < deadline, "it still writes although nobody reads"
            time.sleep(1)
            last, seen = seen, _count(controller, box)
        assert _resident_kib() - before < 8 * 1024
    controller.client.delete(f"/v1/exec/{console.id}")


def _count(controller: Controller, container: str) -> int:
    out, _ = Events(controller, container, command=["cat", "/tmp/count"], tty=False).everything()
    return int(out)


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def test_a_console_ended_by_its_client_has_no_process_left(
    controller: Controller, box: str, docker_client: docker.DockerClient
) -> None:
    console = Events(controller, box, command=["sleep", "4711"])
    wait_for(lambda: _runs(docker_client, box, "sleep 4711"))
    assert controller.client.delete(f"/v1/exec/{console.id}").status_code == 204
    assert not _runs(docker_client, box, "sleep 4711")
    assert controller.client.get(f"/v1/exec/{console.id}/stream").status_code == 404


def _runs(docker_client: docker.DockerClient, container: str, command: str) -> bool:
    processes = docker_client.containers.get(container).top()["Processes"]
    return any(row[-1] == command for row in processes)


@pytest.fixture
def impatient(engine: PrivateDockerd, tmp_path: Path) -> Iterator[Controller]:
    """A controller that gives a client that is away one second."""
    with serving(tmp_path, engine.host, away_s=1) as made:
        yield made


def test_a_console_whose_client_stays_away_is_killed(
    impatient: Controller, box: str, docker_client: docker.DockerClient
) -> None:
    stubborn = ["sh", "-c", "trap '' HUP; echo ready; sleep 4712; sleep 4713"]
    console = Events(impatient, box, command=stubborn)
    with console.events() as events:
        assert next(events) == ("output", b"ready\r\n")
        time.sleep(1.6)  # longer than it may be away: it reads
        assert _runs(docker_client, box, "sleep 4712")
    wait_for(lambda: not _runs(docker_client, box, "sleep 4712"))
    assert not _runs(docker_client, box, "sleep 4713")
    with console.events(resume=True) as events:
        name, data = next(events)
    assert (name, data["code"]) == ("exit", 137)
    assert data["reason"] == "no client read it for 1 s; its process was killed"


def test_a_new_reader_takes_a_console_over(controller: Controller, box: str) -> None:
    console = Events(controller, box, command=TALK)
    with console.events() as old:
        assert next(old) == ("output", b"hello\r\n")
        with web_socket(controller, f"/v1/exec/{console.id}/ws") as socket:
            assert socket.recv(timeout=5) == b"hello\r\n"
            assert next(old) == (
                "error",
                {"code": "conflict", "message": "another reader took this console over"},
            )
            socket.send(b"you\n")
            assert Screen(socket).end()["code"] == 7


def test_a_socket_to_no_console_is_refused_before_it_opens(controller: Controller) -> None:
    with pytest.raises(InvalidStatus) as caught, web_socket(controller, f"/v1/exec/{'0' * 32}/ws"):
        pass
    assert caught.value.response.status_code == 404


def test_a_container_that_goes_ends_its_consoles(
    controller: Controller, containers: Containers, docker_client: docker.DockerClient
) -> None:
    made = containers.run("sleep 1000")
    console = Events(controller, made, command=["sh", "-c", "echo ready; sleep 1000"])
    with console.events() as events:
        assert next(events) == ("output", b"ready\r\n")
        docker_client.containers.get(made).kill()
        assert next(events) == ("exit", {"code": 137, "reason": ""})


def test_a_console_given_up_at_once_leaves_no_process(
    controller: Controller, box: str, docker_client: docker.DockerClient
) -> None:
    console = Events(controller, box, command=["sleep", "4714"])  # the engine may not have started it yet
    assert controller.client.delete(f"/v1/exec/{console.id}").status_code == 204
    assert not _runs(docker_client, box, "sleep 4714")


def test_the_agents_end_ends_its_consoles(
    engine: PrivateDockerd, tmp_path: Path, box: str, docker_client: docker.DockerClient
) -> None:
    served = serving(tmp_path, engine.host)
    console = Events(served.__enter__(), box, command=["sh", "-c", "echo ready; sleep 4715"])
    with console.events() as events:
        assert next(events) == ("output", b"ready\r\n")
        end = threading.Thread(target=served.__exit__, args=(None, None, None))
        end.start()
        name, data = next(events)
        assert (name, data["reason"]) == ("exit", "the agent stops; its process was killed")
    end.join()
    assert not _runs(docker_client, box, "sleep 4715")


class RealEngine(ScriptedEngine):
    """Where `TcpController` expects an engine that it can ask what it was asked."""

    def __init__(self, engine: PrivateDockerd) -> None:
        self.url = engine.host
        self.heads = []


def test_a_session_that_ends_takes_its_consoles_with_it(
    engine: PrivateDockerd, tmp_path: Path, box: str, docker_client: docker.DockerClient
) -> None:
    tcp = TcpController(RealEngine(engine), tmp_path)
    try:
        tcp.want("127.0.0.1:0")
        with tcp.client(WRITE) as client:
            made = client.post(f"/v1/containers/{box}/exec", json={"command": ["sleep", "4716"]})
            with client.stream("GET", f"/v1/exec/{made.json()['id']}/stream") as response:
                del tcp.sessions.rights[WRITE]
                name, data, _ = next(sse_events(response.iter_lines()))
        assert (name, data["reason"]) == ("exit", "its session has ended; its process was killed")
        assert not _runs(docker_client, box, "sleep 4716")
    finally:
        tcp.close()
