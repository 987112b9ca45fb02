# SPDX-License-Identifier: GPL-2.0-or-later
"""When certificates are made and renewed, and what damage does to them. Made by the real child; no engine."""

from __future__ import annotations

import base64
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.errors import CertificateError, ClockNotSetError, ConfigError
from agent.tls import certificates
from agent.tls import certificates as certificate_child
from agent.tls.certificates import Certificates, ClientBundle, ServerIdentity
from tests.support.certificates import (
    DAY,
    NAMES,
    bad,
    cert_of,
    check_folder,
    check_pair,
    openssl_verifies,
)

NOW = time.time()
IN_1970 = 4000.0


class Tls:
    """A folder of certificates with the settings of a test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificates = Certificates(directory)

    def ensure(
        self, *, now: float = NOW, sans: tuple[str, ...] = NAMES, days: int = 365, renew_days: int = 30
    ) -> tuple[ServerIdentity, bool]:
        return self.certificates.ensure_server(sans=sans, days=days, renew_days=renew_days, now=now)

    def client(self, name: str = "laptop", *, days: int = 30, now: float = NOW) -> ClientBundle:
        return self.certificates.make_client(name, self.directory.parent / name, days=days, now=now)

    def folder(self, kind: str) -> Path:
        index = json.loads((self.directory / "index.json").read_bytes())
        return self.directory / str(index[kind]["folder"])


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path / "tls")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Made once for the tests that begin with certificates; never changed."""
    once = Tls(tmp_path_factory.mktemp("once") / "tls")
    once.ensure()
    return once


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Of another CA."""
    other = Tls(tmp_path_factory.mktemp("other") / "tls")
    other.ensure()
    return other


@pytest.fixture
def made(tls: Tls, once: Tls) -> ServerIdentity:
    shutil.copytree(once.directory, tls.directory)
    identity, changed = tls.ensure()
    assert changed is False
    return identity


def test_what_is_missing_is_made_and_then_left_alone(tls: Tls) -> None:
    identity, changed = tls.ensure()
    check_folder(tls.directory, identity)
    assert (changed, identity.reason) == (True, "there was no CA")
    before = {path: path.stat().st_mtime_ns for path in tls.directory.rglob("*")}
    again, changed = tls.ensure()
    assert (again.cert, changed, again.reason) == (identity.cert, False, "")
    assert {path: path.stat().st_mtime_ns for path in tls.directory.rglob("*")} == before


def test_openssl_accepts_each_certificate_for_its_purpose_only(tls: Tls, made: ServerIdentity) -> None:
    bundle = tls.client()
    check_pair(bundle.ca, bundle.cert, bundle.key)
    assert openssl_verifies(bundle.ca, made.cert, "sslserver", "-verify_hostname", "router.lan") == "OK"
    assert openssl_verifies(bundle.ca, made.cert, "sslserver", "-verify_ip", "::1") == "OK"
    assert openssl_verifies(bundle.ca, bundle.cert, "sslclient") == "OK"
    assert "unsuitable certificate purpose" in openssl_verifies(bundle.ca, made.cert, "sslclient")
    assert "unsuitable certificate purpose" in openssl_verifies(bundle.ca, bundle.cert, "sslserver")
    assert "hostname mismatch" in openssl_verifies(
        bundle.ca, made.cert, "sslserver", "-verify_hostname", "other.lan"
    )


def test_serial_numbers_and_keys_are_never_the_same(tls: Tls, made: ServerIdentity) -> None:
    bundles = [tls.client("one"), tls.client("two")]
    paths = [made.ca, made.cert, bundles[0].cert, bundles[1].cert]
    assert len({cert_of(path).serial_number for path in paths}) == 4
    assert len({path.read_bytes() for path in (made.key, bundles[0].key, bundles[1].key)}) == 3


def test_a_certificate_near_its_end_is_renewed_by_the_same_ca(tls: Tls, made: ServerIdentity) -> None:
    bundle = tls.client(days=3650)
    assert tls.ensure(now=NOW + 334 * DAY)[1] is False
    renewed, changed = tls.ensure(now=NOW + 336 * DAY)
    assert changed is True
    assert renewed.reason.startswith("ends on ")
    assert renewed.expires == pytest.approx(NOW + (336 + 365) * DAY, abs=2)
    assert renewed.ca.read_bytes() == made.ca.read_bytes()
    assert renewed.key.read_bytes() != made.key.read_bytes()
    check_folder(tls.directory, renewed)
    check_pair(renewed.ca, bundle.cert, bundle.key)


def test_the_pair_that_dockerd_or_the_last_known_good_file_uses_stays_for_a_while(
    tls: Tls, made: ServerIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_OLDER_KEPT", 1)
    identities = [made, *(tls.ensure(sans=(f"r{i}.lan",))[0] for i in range(2))]
    assert [identity.cert.exists() for identity in identities] == [False, True, True]
    check_folder(tls.directory, identities[-1])


NAME_CASES = [
    (("127.0.0.1", "LOCALHOST.", "router.lan", "::1"), ""),
    (("router.lan", "localhost", "127.0.0.1"), ""),
    ((*NAMES, "192.168.1.1"), "lacks 192.168.1.1"),
    ((*NAMES, "b.lan", "a.lan"), "lacks a.lan, b.lan"),
    (("localhost", "127.0.0.1"), "still names router.lan"),
    (("localhost", "b.lan"), "lacks b.lan and still names router.lan"),
]


@pytest.mark.parametrize(("sans", "reason"), NAME_CASES)
def test_names_renew_it_and_an_address_that_went_away_does_not(
    tls: Tls, made: ServerIdentity, sans: tuple[str, ...], reason: str
) -> None:
    identity, changed = tls.ensure(sans=sans)
    assert (identity.reason, changed) == (reason, bool(reason))


def test_a_ca_near_its_own_end_is_renewed_with_its_key_and_a_warning(
    tls: Tls, made: ServerIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = tls.client(days=3650)
    later = NOW + (7300 - 394) * DAY
    with caplog.at_level(logging.WARNING):
        renewed, _ = tls.ensure(now=later)
    assert "renewed with its own key" in caplog.text
    assert cert_of(renewed.ca).not_valid_after_utc.timestamp() == pytest.approx(later + 7300 * DAY, abs=2)
    check_folder(tls.directory, renewed)
    check_pair(renewed.ca, bundle.cert, bundle.key)
    at = ("-attime", str(int(later)))
    assert openssl_verifies(bundle.ca, renewed.cert, "sslserver", *at) == "OK"
    assert openssl_verifies(renewed.ca, renewed.cert, "sslserver", *at) == "OK"


def test_a_certificate_made_while_the_clock_was_ahead_is_made_again(tls: Tls) -> None:
    ahead, _ = tls.ensure(now=NOW + 50 * 365 * DAY)
    bundle = tls.client(now=NOW + 50 * 365 * DAY)
    identity, changed = tls.ensure()
    assert (changed, identity.reason[:24]) == (True, "the CA is valid only fro")
    assert cert_of(identity.cert).not_valid_before_utc.timestamp() < NOW
    assert cert_of(identity.ca).public_key() == cert_of(ahead.ca).public_key()
    check_pair(identity.ca, bundle.cert, bundle.key)


def test_nothing_is_made_while_the_clock_is_not_set(tls: Tls, tmp_path: Path) -> None:
    with pytest.raises(ClockNotSetError, match="the clock is not set"):
        tls.ensure(now=IN_1970)
    with pytest.raises(ClockNotSetError):
        tls.client(now=IN_1970)
    assert list(tmp_path.iterdir()) == []


def test_what_there_is_is_used_and_not_renewed_while_the_clock_is_not_set(
    tls: Tls, made: ServerIdentity
) -> None:
    identity, changed = tls.ensure(now=IN_1970, sans=("new.lan",))
    assert (identity, changed) == (made, False)
    with pytest.raises(ClockNotSetError):
        tls.client(now=IN_1970)
    made.key.write_bytes(b"")
    with pytest.raises(ClockNotSetError):
        tls.ensure(now=IN_1970)
    assert tls.ensure()[1] is True


def _paths(identity: ServerIdentity) -> dict[str, Path]:
    return {"ca": identity.ca, "cert": identity.cert, "key": identity.key}


WRONG_SETTINGS: list[tuple[dict[str, object], str]] = [
    ({"sans": ()}, "needs a name"),
    ({"sans": ("a\nb", "localhost", "1.2.3")}, r"'a\\nb' is not a name.*'1\.2\.3' is not a name"),
    ({"days": 0}, "days is 0, expected 1 to 3650"),
    ({"days": 3651}, "expected 1 to 3650"),
    ({"days": 30, "renew_days": 30}, "renew_days is 30, expected 0 to 29"),
    ({"renew_days": -1}, "expected 0 to 364"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG_SETTINGS)
def test_settings_that_cannot_be_are_refused(tls: Tls, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tls.ensure(**settings)  # type: ignore[arg-type]  # a table of different arguments
    assert not tls.directory.exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b", "a\n", "x" * 64, "r\u00f6"])
def test_a_client_name_that_is_no_file_name_is_refused(tls: Tls, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name of a client, expected 1 to 63 letters"):
        tls.certificates.make_client(name, tls.directory.parent / "x", days=30, now=NOW)


def test_a_bundle_needs_a_ca(tls: Tls) -> None:
    with pytest.raises(ConfigError, match=r"no CA in .*/tls: the agent makes it for dockerd\.tls"):
        tls.client()


def test_a_bundle_needs_a_new_folder_and_possible_days(
    tls: Tls, made: ServerIdentity, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="days is 0, expected 1 to 3650"):
        tls.client(days=0)
    bundle = tls.client()
    with pytest.raises(ConfigError, match="laptop exists already"):
        tls.client()
    check_pair(bundle.ca, bundle.cert, bundle.key)
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        tls.certificates.make_client("laptop", tmp_path / "nowhere" / "x", days=30, now=NOW)
    assert bundle.server_names == NAMES


def test_a_bundle_ends_with_the_ca_and_is_refused_after_it(tls: Tls, made: ServerIdentity) -> None:
    end = cert_of(made.ca).not_valid_after_utc.timestamp()
    assert tls.client("late", days=400, now=end - 100 * DAY).expires == end
    with pytest.raises(ConfigError, match="the CA ended on"):
        tls.client("later", now=end + 1)


def _empty(path: Path, other: Tls) -> None:
    path.write_bytes(b"")


def _cut(path: Path, other: Tls) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def _nul(path: Path, other: Tls) -> None:
    path.write_bytes(b"\0" * 512)


def _text(path: Path, other: Tls) -> None:
    path.write_bytes("Zertifikat \u00e4\n{".encode())


def _remove(path: Path, other: Tls) -> None:
    path.unlink()


def _unknown_curve(path: Path, other: Tls) -> None:
    """One byte that the library answers with an error of another kind."""
    head, *lines, foot = path.read_text().splitlines()
    der = base64.b64decode("".join(lines)).replace(b"\x3d\x03\x01\x07", b"\x3d\x03\x01\x6f")
    path.write_text(f"{head}\n{base64.encodebytes(der).decode()}{foot}\n")


def _other_key(path: Path, other: Tls) -> None:
    path.write_bytes((other.folder("server") / "key.pem").read_bytes())


DAMAGE: list[tuple[str, str, Callable[[Path, Tls], None], str]] = [
    ("server", "key.pem", _empty, "key.pem missing or empty"),
    ("server", "key.pem", _other_key, "the key does not match the certificate"),
    ("server", "key.pem", _unknown_curve, "not readable"),
    ("server", "cert.pem", _cut, "not readable"),
    ("server", "ca.pem", _text, "its ca.pem is not the CA's"),
    ("ca", "ca.pem", _remove, "ca.pem missing or empty"),
    ("ca", "ca-key.pem", _empty, "ca-key.pem missing or empty"),
    ("ca", "ca-key.pem", _other_key, "the key does not match the certificate"),
    ("ca", "ca.pem", _nul, "not readable"),
]


@pytest.mark.parametrize(("kind", "name", "damage", "reason"), DAMAGE)
def test_a_damaged_pair_is_set_aside_and_made_again_with_a_reason(
    tls: Tls,
    made: ServerIdentity,
    kind: str,
    name: str,
    damage: Callable[[Path, Tls], None],
    reason: str,
    other: Tls,
) -> None:
    folder, ca = tls.folder(kind), made.ca.read_bytes()
    damage(folder / name, other)
    identity, changed = tls.ensure()
    assert changed is True
    assert reason in identity.reason
    assert bad(tls.directory) == {f"{folder.name}.bad"}
    check_folder(tls.directory, identity)
    assert (identity.ca.read_bytes() == ca) is (kind == "server")
    assert tls.ensure()[1] is False


def test_only_the_last_damaged_pair_of_a_kind_is_kept(tls: Tls, made: ServerIdentity) -> None:
    for _ in range(2):
        last = tls.folder("server")
        (last / "key.pem").write_bytes(b"")
        tls.ensure()
    assert bad(tls.directory) == {f"{last.name}.bad"}


def test_a_folder_that_is_gone_is_made_again(tls: Tls, made: ServerIdentity) -> None:
    shutil.rmtree(made.cert.parent)
    identity, changed = tls.ensure()
    assert (changed, identity.reason) == (True, "there was no server certificate")
    assert identity.ca.read_bytes() == (tls.folder("ca") / "ca.pem").read_bytes()


def test_a_lost_ca_is_an_error_in_the_log_that_says_what_to_do(
    tls: Tls, made: ServerIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(tls.folder("ca"))
    tls.ensure()
    assert [r.levelname for r in caplog.records if "every client needs a new bundle" in r.message] == [
        "ERROR"
    ]


INDEX_DAMAGE = [b"\0" * 100, b'{"version": 2}', b'{"version": 1, "ca": {"folder": "../x"}}', None]


@pytest.mark.parametrize("content", INDEX_DAMAGE, ids=range(len(INDEX_DAMAGE)))
def test_a_damaged_index_is_rebuilt_and_the_certificates_stay(
    tls: Tls, made: ServerIdentity, content: bytes | None
) -> None:
    index = tls.directory / "index.json"
    before = index.read_bytes()
    index.write_bytes(content) if content is not None else index.unlink()
    identity, _ = tls.ensure()
    assert _paths(identity) == _paths(made)
    assert index.read_bytes() == before
    assert bad(tls.directory) == (set() if content is None else {"index.json.bad"})
    check_folder(tls.directory, identity)


def test_a_ca_that_was_put_back_from_elsewhere_signs_anew(tls: Tls, made: ServerIdentity, other: Tls) -> None:
    for name in ("ca.pem", "ca-key.pem"):
        (tls.folder("ca") / name).write_bytes((other.folder("ca") / name).read_bytes())
    identity, changed = tls.ensure()
    assert changed is True
    assert identity.ca.read_bytes() == (other.folder("ca") / "ca.pem").read_bytes()
    check_folder(tls.directory, identity)


def test_a_key_that_others_could_read_is_closed_with_a_warning(
    tls: Tls, made: ServerIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    made.key.chmod(0o644)
    tls.directory.chmod(0o755)
    identity, changed = tls.ensure()
    assert changed is False
    assert "was open to others" in caplog.text
    check_folder(tls.directory, identity)


def test_several_at_once_make_one_ca(tls: Tls) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: Tls(tls.directory).ensure(), range(4)))
    assert len({identity.cert for identity, _ in found}) == 1
    assert sorted(changed for _, changed in found) == [False, False, False, True]


def test_a_child_that_is_killed_leaves_everything_as_it_was(
    tls: Tls, made: ServerIdentity, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(certificate_child, "_MODULE", "tests.support.dying_maker")
    with pytest.raises(CertificateError, match="ended with -9"):
        tls.client()
    for _ in range(2):
        identity, changed = tls.ensure(sans=(*NAMES, "other.lan"))
        assert (_paths(identity), changed) == (_paths(made), False)
        assert (
            "could not be changed (lacks other.lan): the process that makes certificates ended with -9"
            in identity.problem
        )
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    monkeypatch.undo()
    assert tls.ensure() == (made, False)
    check_folder(tls.directory, made)
    assert {path.name for path in tls.directory.parent.iterdir()} == {"tls"}


def test_a_child_that_is_killed_is_an_error_where_no_pair_is_usable(
    tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate_child, "_MODULE", "tests.support.dying_maker")
    with pytest.raises(CertificateError, match="ended with -9"):
        tls.ensure()
    assert list(tls.directory.iterdir()) == []


@pytest.fixture
def small_disk(tls: Tls, once: Tls) -> Iterator[Path]:
    """A file system of its own, 256 KiB, under the folder of certificates."""
    tls.directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", tls.directory], check=True)
    shutil.copytree(once.directory, tls.directory, dirs_exist_ok=True)
    yield tls.directory
    subprocess.run(["umount", tls.directory], check=True)


def test_a_full_disk_takes_no_certificate_away(tls: Tls, small_disk: Path) -> None:
    identity, _ = tls.ensure()
    with pytest.raises(OSError, match="No space left"), (small_disk / "fill").open("wb", buffering=0) as fill:
        while True:
            fill.write(bytes(4096))
    kept, changed = tls.ensure(sans=(*NAMES, "new.lan"))
    assert (_paths(kept), changed) == (_paths(identity), False)
    assert "No space left on device" in kept.problem
    (small_disk / "fill").unlink()
    check_folder(small_disk, tls.ensure()[0])
    renewed, changed = tls.ensure(sans=(*NAMES, "new.lan"))
    assert (changed, renewed.problem) == (True, "")
    check_folder(small_disk, renewed)


def test_a_read_only_disk_takes_no_certificate_away(tls: Tls, small_disk: Path) -> None:
    identity, _ = tls.ensure()
    (small_disk / ".new-server-12345678").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for sans in (NAMES, (*NAMES, "new.lan")):
        kept, changed = tls.ensure(sans=sans)
        assert (_paths(kept), changed) == (_paths(identity), False)
        assert "Read-only file system" in kept.problem
    bundle = tls.client()
    check_pair(bundle.ca, bundle.cert, bundle.key)


def test_without_cryptography_the_error_says_what_to_install(
    tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "python"  # -S: no installed packages
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(ConfigError, match="need the Python package cryptography"):
        tls.ensure()


def test_no_secret_is_on_the_childs_command_line_or_in_an_error(
    tls: Tls, made: ServerIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[object] = []
    real = subprocess.run

    def spy(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append((command, options.get("env")))
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", spy)
    tls.client()
    assert commands == [([sys.executable, "-m", "agent.tls.maker"], None)]
    with pytest.raises(CertificateError) as caught:
        certificate_child.ask_maker(
            "client", {"ca": {"cert": "SECRET", "key": "SECRET"}, "now": 1, "days": 1}
        )
    assert "SECRET" not in str(caught.value)
