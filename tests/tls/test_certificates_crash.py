# SPDX-License-Identifier: GPL-2.0-or-later
"""Killed before, or refused at, each step on the disk: what is in force is whole, and the next pass mends the rest.

The steps are the fsyncs and renames of a forked process. The real maker's answers are recorded, so that a hundred
crashes cost no hundred processes.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.errors import CertificateError
from agent.tls import certificates
from agent.tls.certificates import Certificates, ServerIdentity, ask_maker
from agent.tls.store import CertificateStore
from tests.support.certificates import DAY, NAMES, bad, cert_of, check_folder, check_pair

NOW = time.time()
_NO_SUCH_STEP, _REFUSED, _KILLED = 0, 8, 9


def kill() -> None:
    os._exit(_KILLED)


def refuse() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass
class RecordingMaker:
    """The real one. What it made once it gives again, and so it is asked only once about each certificate."""

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, operation: str, request: Mapping[str, object]) -> dict[str, Any]:
        key = operation if operation == "make" else json.dumps(request)
        if key not in self.answers:
            self.answers[key] = ask_maker(operation, request)
        return self.answers[key]


class NoSpaceError(Exception):
    """What `refuse` led to."""

    def __init__(self, told: str) -> None:
        assert "No space left on device" in told
        super().__init__(told)


def ensure(directory: Path, now: float = NOW) -> ServerIdentity:
    """Raises NoSpaceError when the disk was full, whether or not there is an identity to go on with."""
    try:
        identity, _ = Certificates(directory).ensure_server(sans=NAMES, days=365, renew_days=30, now=now)
    except CertificateError as exc:
        raise NoSpaceError(str(exc)) from exc
    if identity.problem:
        raise NoSpaceError(identity.problem)
    return identity


def interrupted(step: int, act: Callable[[], None], work: Callable[[], object]) -> int:
    """Does `work` in a forked process that calls `act` before its step `step` (from 1); how that ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _call_before_step(step, act)
            work()
            code = _NO_SUCH_STEP
        except NoSpaceError:
            code = _REFUSED
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _call_before_step(step: int, act: Callable[[], None]) -> None:
    count = itertools.count(1)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if next(count) == step:
                act()
            return real(*args)

        return call

    for name in ("fsync", "replace", "rename"):
        setattr(os, name, counted(getattr(os, name)))


def check_in_force(directory: Path) -> bool:
    """What the index names is whole, as a router finds it after the crash. False when there is no index."""
    server = CertificateStore(directory).read_index().server
    if server is None:
        return False
    check_pair(*(directory / server.folder / name for name in ("ca.pem", "cert.pem", "key.pem")))
    return True


def no_litter(directory: Path) -> bool:
    return not [path for path in directory.rglob("*") if path.name.startswith(".")]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: hundreds of fsyncs on a disk take their time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="ucidockd-crash-") as path:
        yield Path(path)


@pytest.mark.parametrize(
    ("act", "code"), [(kill, _KILLED), pytest.param(refuse, _REFUSED, marks=pytest.mark.long)]
)
def test_the_first_creation_is_interrupted_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], code: int
) -> None:
    monkeypatch.setattr(certificates, "ask_maker", RecordingMaker())
    ensure(tmp_path / "recorded")
    for step in itertools.count(1):
        directory = tmp_path / str(step)
        ended = interrupted(step, act, lambda: ensure(tmp_path / str(step)))  # noqa: B023 - called at once
        if ended == _NO_SUCH_STEP:
            break
        assert ended == code
        assert act is kill or no_litter(directory)
        check_in_force(directory)
        check_folder(directory, ensure(directory))
        assert bad(directory) == set()
    assert step == 23  # 6 files of fsync, rename, fsync; 2 folders of rename, fsync


@pytest.mark.parametrize(("act", "code"), [(kill, _KILLED), (refuse, _REFUSED)])
def test_the_renewal_of_ca_and_server_is_interrupted_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], code: int
) -> None:
    before, later = tmp_path / "before", NOW + 10 * DAY
    with monkeypatch.context() as context:
        context.setattr(certificates, "_CA_DAYS", 400)
        ca = cert_of(ensure(before).ca)
    monkeypatch.setattr(certificates, "ask_maker", RecordingMaker())
    for step in itertools.count(1):
        directory = tmp_path / str(step)
        shutil.copytree(before, directory)
        ended = interrupted(step, act, lambda: ensure(tmp_path / str(step), later))  # noqa: B023 - called at once
        if ended == _NO_SUCH_STEP:
            break
        assert ended == code
        assert act is kill or no_litter(directory)
        assert check_in_force(directory) is True
        renewed = ensure(directory, later)
        check_folder(directory, renewed)
        assert cert_of(renewed.ca).public_key() == ca.public_key()
        assert cert_of(renewed.ca) != ca
        assert bad(directory) == set()
    assert step == 23


@pytest.mark.parametrize("act", [kill, refuse])
def test_a_bundle_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]
) -> None:
    directory = tmp_path / "tls"
    ensure(directory)
    made = ask_maker("client", _request(directory))
    monkeypatch.setattr(certificates, "ask_maker", lambda *_: made)
    for step in itertools.count(1):
        target = tmp_path / str(step)
        if interrupted(step, act, lambda: bundle(directory, tmp_path / str(step))) == _NO_SUCH_STEP:  # noqa: B023
            break
        if target.exists():
            check_pair(target / "ca.pem", target / "cert.pem", target / "key.pem")
        else:
            bundle(directory, target)
    assert step == 12


def bundle(directory: Path, target: Path) -> None:
    try:
        Certificates(directory).make_client("laptop", target, days=30, now=NOW)
    except CertificateError as exc:
        raise NoSpaceError(str(exc)) from exc


def _request(directory: Path) -> dict[str, object]:
    store = CertificateStore(directory)
    part = store.read_index().ca
    assert part is not None
    content = store.read(part.folder)
    ca = {"cert": content["ca.pem"].decode(), "key": content["ca-key.pem"].decode()}
    return {"ca": ca, "name": "laptop", "days": 30, "now": NOW}
