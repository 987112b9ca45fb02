# SPDX-License-Identifier: GPL-2.0-or-later
"""Our own files, damaged or edited by hand: state.json, daemon.json and what lies beside it, holds.json.

Whatever they hold, the agent starts and plans; a file that is no good is kept as `*.bad`; what is written is read back.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from agent.dockerd.change import disagreements
from agent.dockerd.files import DaemonFiles, EngineData, material_of
from agent.files.state import StateFile
from agent.model.dockerd.settings import ChangeStep, DaemonRecord, DaemonTarget, Process
from agent.model.observed import Record
from agent.model.resources import Desired
from agent.plan.daemon import classify, masked, minimal
from agent.runtime.holds import Holds
from agent.wire.record_lines import change_line, document
from tests.fuzz.target import Target
from tests.support.plans import World, a_world

_NEW = Record(kind="container", section="new", nonce="n-new", name="new")
_CONFIG = """
config network 'lan'
    list subnet '10.1.0.0/24'
config volume 'data'
config container 'web'
    option image 'busybox'
    option memory '64m'
    list port '8080:80'
    list env 'A=b'
    list volume 'data:/d'
    list network 'lan,ip=10.1.0.9'
    list label 'a=b'
config container 'gone'
    option image 'busybox'
"""
_CHANGED = _CONFIG.replace("64m", "65m").replace("config container 'gone'", "config container 'other'")
_TARGET = DaemonTarget(
    document={
        "data-root": "/opt/docker",
        "hosts": ["unix:///var/run/docker.sock"],
        "log-opts": {"max-size": "10m"},
        "proxies": {"http-proxy": "http://a:b@p"},
        "tls": True,
        "tlscert": "/none",
        "mtu": 1400,
    },
    material="0123456789abcdef",
    arguments=("--debug",),
)
_DAEMON_RECORD = DaemonRecord(
    running=_TARGET,
    process=Process(pid=4000, started=12345),
    step=ChangeStep.WATCH,
    target=_TARGET,
    failed="0123456789abcdef",
    why="it died",
    watch_until=1234.5,
)


@cache
def _folder() -> Path:
    """In memory where there is one: every input is a file."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="ucidockd-fuzz-", dir=memory if memory.is_dir() else None))


@contextmanager
def _one(name: str, data: bytes) -> Iterator[Path]:
    """An empty folder with that file; the agent's complaints about it are not printed."""
    folder = _folder()
    path = folder / name
    path.write_bytes(data)
    logging.disable(logging.ERROR)
    try:
        yield path
    finally:
        logging.disable(logging.NOTSET)
        for file in folder.iterdir():
            file.unlink()


@cache
def _world() -> World:
    return a_world(_CONFIG, _CHANGED)


def check_state(data: bytes) -> None:
    with _one("state.json", data) as path:
        state = StateFile(path)
        if not path.exists():
            assert path.with_name("state.json.bad").read_bytes() == data
        world = World(
            _world().desired,
            dict(_world().containers),
            dict(_world().networks),
            dict(_world().volumes),
            {record.nonce: record for record in state.records()},
        )
        str(world.plan()).encode()
        state.put(_NEW)
        again = StateFile(path)
        assert again.instance == state.instance
        assert again.records() == state.records()
        assert _NEW in again.records()


def check_daemon(data: bytes) -> None:
    """The first byte chooses the file."""
    name = _DAEMON_FILES[data[0] % len(_DAEMON_FILES)] if data else _DAEMON_FILES[0]
    with _one(name, data[1:]) as path:
        files = DaemonFiles(run_dir=path.parent, state_dir=path.parent)
        found = [
            target for target in (files.last_good(), files.load().running, files.load().target) if target
        ]
        document = files.current_document()
        if document is not None:
            found.append(DaemonTarget(document=document, material=material_of(document)))
        for target in found:
            _check_target(target, files)
        record = files.load()
        files.save(record)
        assert files.load() == record or record.watch_until != record.watch_until
        engine = EngineData(data_root="/opt/docker", mark="0123")
        files.write_engine(engine)
        assert files.engine() == engine


def _check_target(target: DaemonTarget, files: DaemonFiles) -> None:
    """What is done with one that was read."""
    classify(target, _TARGET)
    classify(_TARGET, target)
    masked(target.document)
    disagreements(target.document, {"mtu": "1400", "hosts": "[]", "log-opts": "{}"})
    json.loads(DaemonTarget(document=minimal(target.document, socket="/run/docker.sock")).text)
    assert json.loads(target.text) == target.document or "NaN" in target.text.decode()
    files.write_last_good(target)


def check_holds(data: bytes) -> None:
    with _one("holds.json", data) as path:
        holds = Holds(path)
        holds.current(Desired())
        holds.clear()
        assert Holds(path).current(Desired()) == {}


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


def _state() -> bytes:
    records = [asdict(record) for record in _world().records.values()]
    return _json({"version": 1, "instance": "0123456789ab", "records": records})


def _changed_state() -> bytes:
    """With changes behind the document."""
    records = dict(_world().records)
    data, changed = document("0123456789ab", records.values()), dict(records)
    for nonce, record in records.items():
        before = dict(changed)
        changed[nonce] = replace(record, object_id="0123", swap="new", partner="n-new", joined=("a",))
        data += change_line(before, changed)
    return data + change_line(changed, {"n-new": _NEW})


_DAEMON_FILES = ("daemon.json", "daemon-record.json", "daemon-last-good.json", "daemon-engine.json")
_DAEMON_SEEDS = (
    b"\0" + _TARGET.text,
    b"\1" + _json(asdict(_DAEMON_RECORD)),
    b"\1" + _json(asdict(DaemonRecord())),
    b"\2" + _json(asdict(_TARGET)),
    b"\3" + _json({"data_root": "/opt/docker"}),
)
_WORDS = (
    b"null", b"true", b"[]", b"{}", b'""', b"-1", b"0", b"1e999", b"NaN", b"Infinity", b'"\\ud800"', b"[" * 3000,
    b'{"a":' * 800, b'"nonce"', b'"spec"', b'"kind"', b'"v2:0"', b'"v:"', b'"container"', b'["a"]', b'{"a": "b"}', b"\xff",
)  # fmt: skip

STATE = Target(name="state", check=check_state, seeds=(_state(), _changed_state()), words=_WORDS, size=8192)
DAEMON = Target(name="daemon", check=check_daemon, seeds=_DAEMON_SEEDS, words=_WORDS)
HOLDS = Target(
    name="holds",
    check=check_holds,
    seeds=(_json({"container:web": {"action": "stop", "section": "v1:0123"}}),),
    words=_WORDS,
)
TARGETS = (STATE, DAEMON, HOLDS)
