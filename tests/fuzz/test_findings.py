# SPDX-License-Identifier: GPL-2.0-or-later
"""What fuzzing has found, each finding once, small and by name."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from agent.api.streams.engine_streams import json_lines
from agent.dockerd.files import DaemonFiles, EngineData
from agent.files.state import StateFile
from agent.model.addresses import parse_listen
from agent.model.dockerd.settings import DaemonRecord, DaemonTarget, Process
from agent.model.dockerd.values import parse_mirror, parse_proxy
from agent.model.entries import parse_device, parse_extra_host, parse_image
from agent.model.identity import spec_hash
from agent.model.observed import SWAPS, Record
from agent.model.quantities import (
    QuantityError,
    parse_cpus,
    parse_duration,
    parse_seconds,
    parse_size,
)
from agent.model.resources import Desired
from agent.runtime.holds import Holds
from agent.uci.decode import decode
from agent.uci.syntax import format_export, parse
from tests.support.real_uci import RealUci, why_not

ROOT = Path(__file__).parents[2]
DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "url", ["http://[", "http://[::\x11]:1", "http://[::1", "https://a:99999", "http://a:x"]
)
@pytest.mark.parametrize("parser", [parse_mirror, parse_proxy])
def test_an_address_that_cannot_be_split_is_a_mistake_in_our_words(parser: object, url: str) -> None:
    with pytest.raises(QuantityError, match=r"URL|https?://"):
        parser(url)  # type: ignore[operator]


@pytest.mark.parametrize("parser", [parse_size, parse_duration, parse_seconds, parse_cpus])
@pytest.mark.parametrize("unit", ["", "g", "h", "x"])
def test_a_number_of_a_million_digits_is_refused_at_once(parser: object, unit: str) -> None:
    began = time.process_time()
    with pytest.raises(QuantityError):
        parser("9" * 1_000_000 + unit)  # type: ignore[operator]
    assert time.process_time() - began < 2


def test_a_port_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(QuantityError, match="is not a port"):
        parse_listen("192.168.1.1:" + "1" * 5000)


@pytest.mark.parametrize("text", ["9" * 400, "9999999999", "2562047h"])
def test_a_time_that_no_thread_can_wait_for_is_refused(text: str) -> None:
    with pytest.raises(QuantityError, match="too long"):
        parse_seconds(text)


@pytest.mark.parametrize(
    "text",
    ["--privileged", "a$(reboot)", "UPPER", "a:", "a@sha256:1", "../x", "a//b", "http://a/b", "a\n", ""],
)
def test_what_the_engine_would_not_even_look_for_is_no_image(text: str) -> None:
    with pytest.raises(QuantityError, match="is not an image reference"):
        parse_image(text)


@pytest.mark.parametrize("text", ["/dev/b:", "/dev/b::rwm"])
def test_a_device_without_a_place_in_the_container_has_the_one_of_the_host(text: str) -> None:
    assert parse_device(text) == parse_device("/dev/b")


def test_a_colon_in_the_name_of_an_extra_host_is_a_mistake_since_the_engine_splits_there() -> None:
    with pytest.raises(QuantityError, match="not an extra host"):
        parse_extra_host("a:b=fd00::1")


CONFIG = """
config container 'good'
    option image 'busybox'
config container 'bad'
    option image 'busybox'
    list env 'A=1'
    list env 'B=\udcff\udcfe'
config auth
    option username 'a'
    option password 'p\udce4ss'
"""


def test_a_value_that_is_not_utf8_is_a_mistake_at_its_place_and_the_others_go_on() -> None:
    package = parse(CONFIG, package="containers")
    result = decode({"containers": package}, paths={"containers": "/etc/config/containers"})
    errors = [issue.text() for issue in result.issues if issue.severity == "error"]
    assert errors[0] == (
        "containers.bad.env[1]: is not UTF-8, expected text in UTF-8 (/etc/config/containers:7)"
    )
    assert errors[1].endswith("is not UTF-8, expected text in UTF-8 (/etc/config/containers:10)")
    assert [container.section for container in result.desired.containers] == ["good"]


def test_of_two_limits_of_one_name_the_last_counts() -> None:
    text = (
        "config globals 'globals'\n\tlist default_ulimits 'nofile=1:2'\n\tlist default_ulimits 'nofile=3:4'\n"
    )
    daemon = decode({"dockerd": parse(text, package="dockerd")}, paths={}).desired.daemon
    assert daemon is not None
    assert daemon.values["default-ulimits"] == {"nofile": {"Name": "nofile", "Soft": 3, "Hard": 4}}


def test_a_mistake_quotes_a_long_value_by_its_ends() -> None:
    text = f"config container 'web'\n\toption image 'x'\n\toption memory '{'9' * 9000}'\n"
    issues = decode({"containers": parse(text, package="containers")}, paths={}).issues
    assert [len(issue.message) for issue in issues if issue.option == "memory"] == [485]


def test_ranges_of_ports_cannot_take_all_the_memory() -> None:
    entries = "\tlist port '1-60000:1-60000'\n" * 5000
    text = (
        f"config container 'web'\n\toption image 'x'\n{entries}config container 'app'\n\toption image 'x'\n"
    )
    result = decode({"containers": parse(text, package="containers")}, paths={})
    assert [issue.place for issue in result.issues] == ["containers.web.port[0]"]
    assert [container.section for container in result.desired.containers] == ["app"]


# what libuci makes of a zero byte depends on how much of the line it has read at once
ZERO_BYTES = {
    "in a short line": b"config c 'a'\n\toption x 'y'\0 junk\n\toption z '1'\n",
    "behind more than libuci reads at once": b"config c 'a'\n\toption x '"
    + b"y" * 40
    + b"\0' junk\n\toption z '1'\n",
    "at the beginning of a line": b"config c 'a'\n\0\toption x 'y'\n\toption z '1'\n",
    "in the last line": b"config c 'a'\n\toption x 'y\0'",
    "at the beginning of the file": b"\0config c 'a'\n\toption x 'y'\n",
}


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
@pytest.mark.parametrize("name", ZERO_BYTES)
def test_a_zero_byte_costs_as_much_of_the_file_as_with_libuci(tmp_path: Path, name: str) -> None:
    uci = RealUci(tmp_path, tmp_path / "save")
    (tmp_path / "test").write_bytes(ZERO_BYTES[name])
    theirs = uci.run("export", "test")
    try:
        ours = format_export(parse(ZERO_BYTES[name].decode(), package="test")).encode()
    except Exception as exc:
        assert theirs.stderr.endswith(f"uci: {exc}\n".encode())
    else:
        assert ours == theirs.stdout


SPEC = {"image": "busybox"}
GOOD = Record(
    kind="container",
    section="web",
    nonce="n",
    name="web",
    object_id="1",
    spec=SPEC,
    spec_hash=spec_hash(SPEC),
)
DAMAGE = {
    "a section that is a number": {"section": 5},
    "an unknown kind": {"kind": "netwopk"},
    "an unknown step of a swap": {"swap": "newer"},
    "a list for a name": {"name": ["web"]},
    "a text for a time": {"removed_at": "now"},
    "a hash of no version": {"spec_hash": "1zabc"},
    "a spec that is another than was hashed": {"spec": {"image": "busybox", "env": [[]]}},
    "a spec without a hash": {"spec_hash": ""},
    "a spec that is a list": {"spec": ["image"]},
    "half of a surrogate pair": {"name": "\ud800"},
    "no number": {"grace_s": float("nan")},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_state_that_no_agent_wrote_is_set_aside_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / "state.json"
    data = json.dumps({"version": 1, "instance": "i", "records": [asdict(GOOD) | DAMAGE[name]]}).encode()
    path.write_bytes(data)
    assert StateFile(path).records() == ()
    assert (tmp_path / "state.json.bad").read_bytes() == data


@pytest.mark.parametrize("swap", SWAPS)
def test_each_step_of_a_swap_is_read_back(tmp_path: Path, swap: str) -> None:
    record = replace(GOOD, swap=swap)
    StateFile(tmp_path / "state.json").put(record)
    assert StateFile(tmp_path / "state.json").records() == (record,)


def test_every_step_that_the_code_writes_is_listed() -> None:
    words = {
        word
        for path in (ROOT / "agent").rglob("*.py")
        for word in re.findall(r'swap="(\w*)"', path.read_text())
    }
    assert words == set(SWAPS)


def test_a_field_of_a_later_version_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    item = asdict(GOOD) | {"colour": "red"}
    path.write_text(json.dumps({"version": 1, "instance": "i", "records": [item]}))
    assert StateFile(path).records() == (GOOD,)


@pytest.mark.parametrize("junk", [DEEP, b'{"a": ' * 50_000, b"\xff", b"[]", b'{"data_root": NaN}'])
def test_files_of_ours_that_are_no_json_object_are_no_more_than_missing(tmp_path: Path, junk: bytes) -> None:
    for name in (
        "daemon.json",
        "daemon-record.json",
        "daemon-last-good.json",
        "daemon-engine.json",
        "holds.json",
    ):
        (tmp_path / name).write_bytes(junk)
    files = DaemonFiles(run_dir=tmp_path, state_dir=tmp_path)
    assert files.current_document() is None
    assert files.load() == DaemonRecord()
    assert files.last_good() is None
    assert files.engine() == EngineData()
    assert (tmp_path / "daemon-last-good.json.bad").read_bytes() == junk
    assert Holds(tmp_path / "holds.json").current(Desired()) == {}


@pytest.mark.parametrize(
    "damage",
    [
        {"watch_until": 10**400},
        {"process": {"pid": 1e999, "started": 1}},
        {"running": {"document": {}, "material": "", "arguments": [1]}},
        {"running": {"document": {}, "material": "", "arguments": "--debug"}},
    ],
    ids=str,
)
def test_a_record_of_the_daemon_that_no_agent_wrote_is_set_aside(tmp_path: Path, damage: object) -> None:
    record = asdict(DaemonRecord(process=Process(pid=1, started=1), running=DaemonTarget(document={})))
    (tmp_path / "daemon-record.json").write_text(json.dumps(record | damage))  # type: ignore[operator]
    files = DaemonFiles(run_dir=tmp_path, state_dir=tmp_path)
    assert files.load() == DaemonRecord()
    assert (tmp_path / "daemon-record.json.bad").exists()


async def test_a_line_that_comes_byte_by_byte_costs_no_more_than_one_that_comes_at_once() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(400_000):
            yield b" "
        yield b'{"a": 1}\n'

    began = time.process_time()
    assert [line async for line in json_lines(slowly())] == [{"a": 1}]
    assert time.process_time() - began < 5
