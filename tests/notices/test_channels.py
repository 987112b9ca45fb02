# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices to a real web server, real commands and real scripts, good ones and bad ones."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import NoticeError
from agent.model.notices import Event, News, NotifySection
from agent.notices.channels import hotplug, post, run, send
from tests.support.hanging import HangingMount
from tests.support.receiver import Receiver, answering, self_signed

NEWS = News(
    event=Event.CRASHLOOP,
    key="container:web",
    kind="container",
    section="web",
    name="web",
    level="error",
    condition="Running",
    reason="CrashLoop",
    label="Keeps crashing",
    message='it said "no"\nand ünicode',
    time=1_800_000_000.4,
    host="router",
)
SECRET = "S3CRET-path"
MOVED = b"308 x\r\nContent-Length: 0\r\nLocation: "


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


def section(url: str, **more: object) -> NotifySection:
    return replace(NotifySection(section="s", type="webhook", url=url, timeout_s=2.0), **more)


def refused(where: NotifySection) -> NoticeError:
    with pytest.raises(NoticeError) as caught:
        send(where, NEWS)
    assert SECRET not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    return caught.value


def test_json_as_it_is(receiver: Receiver) -> None:
    post(section(receiver.url("/hook")), NEWS)
    ((path, headers, body),) = receiver.got
    assert (path, headers["Content-Type"]) == ("/hook", "application/json")
    found = json.loads(body)
    assert (found["event"], found["title"], found["message"]) == (
        "crashloop",
        "web: Keeps crashing",
        NEWS.message,
    )


def test_a_template_in_json_and_one_of_text(receiver: Receiver) -> None:
    """As Slack and ntfy take them; a text cannot break out of its place, nor out of a header."""
    post(section(receiver.url(), template='{"text": "{title}: {message}", "n": {"a": 1}}'), NEWS)
    assert json.loads(receiver.got[0][2]) == {"text": f"web: Keeps crashing: {NEWS.message}", "n": {"a": 1}}
    headers = (("Title", "{name} ü {message}"), ("Authorization", "Bearer x"))
    post(section(receiver.url(), format="text", template="{name} on {host} {time}", headers=headers), NEWS)
    _, found, body = receiver.got[1]
    assert body == "web on router 1800000000"
    assert found["Content-Type"].startswith("text/plain")
    assert found["Title"].encode("latin-1").decode() == 'web ü it said "no" and ünicode'
    assert found["Authorization"] == "Bearer x"
    post(section(receiver.url(), format="text"), NEWS)
    assert receiver.got[2][2] == f"web: Keeps crashing\n{NEWS.message}"


@pytest.mark.parametrize(
    ("status", "retryable"), [(400, False), (404, False), (429, True), (500, True), (503, True)]
)
def test_an_error_of_the_receiver_is_told_with_its_words(
    receiver: Receiver, status: int, retryable: bool
) -> None:
    receiver.answers = [status]
    error = refused(section(receiver.url(f"/{SECRET}"), headers=(("Authorization", f"Bearer x-{SECRET}"),)))
    assert f"127.0.0.1 answered with status {status}" in str(error)
    assert "said" in str(error)
    assert error.retryable is retryable


def test_one_that_asks_for_patience_gets_it(receiver: Receiver) -> None:
    receiver.answers = ["later"]
    assert refused(section(receiver.url())).after_s == 7.0


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_one_that_hangs_costs_the_time_out_and_no_more(receiver: Receiver, how: str) -> None:
    receiver.answers = [how]
    began = time.monotonic()
    error = refused(section(receiver.url(f"/{SECRET}"), timeout_s=0.5))
    assert error.retryable
    assert "0.5 s" in str(error)
    assert time.monotonic() - began < 5


def test_a_huge_answer_is_not_read(receiver: Receiver) -> None:
    receiver.answers = ["huge"]
    assert len(str(refused(section(receiver.url())))) < 500


def test_what_is_not_http_is_told(receiver: Receiver) -> None:
    receiver.answers = ["rubbish"]
    assert refused(section(receiver.url(f"/{SECRET}"))).retryable


def test_nobody_there_and_no_such_name() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "refused" in str(refused(section(f"http://127.0.0.1:{port}/{SECRET}")))
    assert refused(section(f"http://no-such-host.invalid/{SECRET}")).retryable


def test_a_redirect_on_the_same_host_is_followed_and_to_another_one_never(receiver: Receiver) -> None:
    receiver.answers = ["/moved", 200]
    post(section(receiver.url("/first"), headers=(("Authorization", "x"),)), NEWS)
    assert [path for path, _, _ in receiver.got] == ["/first", "/moved"]
    assert receiver.got[0][2] == receiver.got[1][2]
    with Receiver() as other:
        receiver.answers = [other.url(f"/{SECRET}", host="localhost")]
        error = refused(section(receiver.url(), headers=(("Authorization", "x"),)))
        assert "localhost" in str(error)
        assert not error.retryable
        assert other.got == []
    receiver.answers = ["/a"] * 10
    assert "again and again" in str(refused(section(receiver.url())))


def test_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    with Receiver(certificate, key) as receiver:
        error = refused(
            section(receiver.url(f"/{SECRET}"), headers=(("Authorization", f"Bearer x-{SECRET}"),))
        )
        assert "certificate verify failed" in str(error)
        post(section(receiver.url("/ok"), cacert=str(certificate)), NEWS)
        assert [path for path, _, _ in receiver.got] == ["/ok"]
        receiver.answers = ["drip"]
        assert "0.5 s" in str(refused(section(receiver.url(), cacert=str(certificate), timeout_s=0.5)))
    with Receiver() as plain:
        assert "TLS" in str(refused(section(plain.url(f"/{SECRET}").replace("http:", "https:"))))
    assert "none" in str(refused(section("https://127.0.0.1:1/", cacert=str(tmp_path / "none"))))


@pytest.mark.parametrize(
    ("head", "said", "retryable"),
    [
        (b"502 x\r\nContent-Length: 900\r\n\r\nhalf", "answered with status 502", True),
        (b"401 x\r\nContent-Length: 900\r\n\r\nhalf", "answered with status 401", False),
        (b"500 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "answered with status 500", True),
        (b"200 x\r\nA: " + b"x" * 70000, "its answer is not HTTP", True),
        (MOVED + b"http://[::1\r\n\r\n", "redirects to, is not valid", False),
        (MOVED + b"https://127.0.0.1/x\r\n\r\n", "redirects to https://127.0.0.1, which", False),
        (MOVED + b"http://evil:81/S3CRET-path\r\n\r\n", "redirects to http://evil:81, which", False),
    ],
)
def test_what_is_wrong_with_an_answer_is_told(head: bytes, said: str, retryable: bool) -> None:
    with answering(b"HTTP/1.1 " + head) as port:
        error = refused(section(f"http://127.0.0.1:{port}/{SECRET}", timeout_s=0.5))
    assert said in str(error)
    assert error.retryable is retryable


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [
        (b"30", 30.0),
        (b"Wed, 21 Oct 2026 07:28:40 GMT", 40.0),
        (b"Wed, 21 Oct 2026 09:28:00 GMT", 600.0),
        (b"Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (b"Wed, 21 Oct 2026 07:28:40", 0.0),
        (b"soon", 0.0),
    ],
)
def test_a_receiver_may_say_when_by_its_own_clock(wish: bytes, seconds: float) -> None:
    head = b"HTTP/1.1 429 x\r\nContent-Length: 0\r\nDate: Wed, 21 Oct 2026 07:28:00 GMT\r\nRetry-After: "
    with answering(head + wish + b"\r\n\r\n") as port:
        assert refused(section(f"http://127.0.0.1:{port}/")).after_s == seconds


def test_the_name_is_what_is_wrong() -> None:
    assert str(refused(section("http://no-such-host.invalid/"))) == (
        "no-such-host.invalid: the name cannot be resolved"
    )


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_command_gets_the_event_on_its_input_and_in_its_environment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = script(tmp_path / "program", f'cat > "$1"; echo "$ACTION $SECTION $REASON $HOST" >> {out}.env')
    run((str(program), str(out)), NEWS, 10)
    assert json.loads(out.read_text()) == NEWS.as_json()
    assert Path(f"{out}.env").read_text() == "crashloop web CrashLoop router\n"


def test_bad_commands(tmp_path: Path) -> None:
    with pytest.raises(NoticeError, match="cannot be run: No such file"):
        run(("/no/such",), NEWS, 1)
    with pytest.raises(NoticeError, match="ended with 3: the reason"):
        run((str(script(tmp_path / "fails", "echo first >&2; echo the reason >&2; exit 3")),), NEWS, 5)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for bad in (tmp_path, tmp_path / "fifo", tmp_path / "loop", "/dev/zero", "/dev/null/x", "/" + "a" * 5000):
        with pytest.raises(NoticeError):
            run((str(bad),), NEWS, 5)
    began, pid = time.monotonic(), tmp_path / "pid"
    with pytest.raises(NoticeError, match=r"did not end within 0\.5 s"):
        run((str(script(tmp_path / "hangs", f"sleep 100 & echo $! > {pid}; wait")),), NEWS, 0.5)
    assert time.monotonic() - began < 5
    state = Path(f"/proc/{pid.read_text().strip()}/stat")
    end = time.monotonic() + 5
    while state.exists() and state.read_text().split()[2] != "Z":  # where process 1 reaps, it is gone
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_a_command_leaves_running_holds_nothing_up(tmp_path: Path) -> None:
    began = time.monotonic()
    run((str(script(tmp_path / "leaves", "sleep 3 &")),), NEWS, 10)
    assert time.monotonic() - began < 2


def test_hotplug_scripts_run_in_their_order(tmp_path: Path) -> None:
    for name in ("20-b", "10-a"):
        (tmp_path / name).write_text(
            f'echo "{name} $ACTION $SECTION" >> {tmp_path}.out\n'
        )  # sourced: no #! and no mode
    hotplug(tmp_path, NEWS)
    assert Path(f"{tmp_path}.out").read_text() == "10-a crashloop web\n20-b crashloop web\n"
    hotplug(tmp_path / "none", NEWS)


@pytest.mark.long
def test_scripts_and_commands_that_touch_what_hangs_cost_themselves(tmp_path: Path) -> None:
    folder, hanging = tmp_path / "scripts", tmp_path / "nas"
    folder.mkdir()
    with HangingMount(hanging):
        (folder / "10-away").symlink_to(hanging / "script")
        os.mkfifo(folder / "20-fifo")
        (folder / "30-folder").mkdir()
        (folder / "40-good").write_text(f"echo $ACTION >{tmp_path}/said")
        hotplug(folder, NEWS)
        assert (tmp_path / "said").read_text() == "crashloop\n"
        began = time.monotonic()
        with pytest.raises(NoticeError, match=r"did not end within 0\.2 s"):
            run(("/bin/cat", str(hanging / "x")), NEWS, 0.2)  # it cannot even be killed
        assert time.monotonic() - began < 5


def test_no_section_shows_its_secrets() -> None:
    shown = repr(section(f"https://host/{SECRET}", headers=(("Authorization", SECRET),), password=SECRET))
    assert SECRET not in shown
    assert os.linesep not in shown
