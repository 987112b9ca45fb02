# SPDX-License-Identifier: GPL-2.0-or-later
"""`make packages`, by a reader of each format; the libraries are stand-ins."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.router.rootfs import PROJECT
from tests.support import packages
from tests.support.packages import members


@pytest.fixture(scope="module")
def build() -> ModuleType:
    return packages.load()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    secret = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = secret.public_key().public_bytes_raw()
    usign = b"EdBK" + bytes(4) + bytes(16) + bytes(8) + b"12345678" + bytes(range(32)) + public
    (folder / "usign").write_text(f"untrusted comment: test\n{base64.b64encode(usign).decode()}\n")
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (folder / "rsa").write_bytes(pem)
    return {"usign": folder / "usign", "rsa": folder / "rsa"}


@pytest.fixture(scope="module")
def made(keys: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("packages")
    for name in ("one", "two"):
        signed = ("--usign-key", str(keys["usign"]), "--apk-key", str(keys["rsa"]))
        packages.make(folder / name, *signed, "--maintainer", "A B <a@example.org>")
    return folder / "one", folder / "two"


def test_without_git_the_time_is_that_of_a_file(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tarball of a release has no history."""
    monkeypatch.setenv("PATH", "/nothing")
    assert build.committed_at() == str(int((PROJECT / "pyproject.toml").stat().st_mtime))


def test_the_same_checkout_gives_the_same_bytes(made: tuple[Path, Path]) -> None:
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in made)
    assert one == two and len(one) > 10


def test_opkgs_package_holds_what_openwrts_build_adds(made: tuple[Path, Path]) -> None:
    outer = members((made[0] / "ucidockd_0.1.0-r1_all.ipk").read_bytes())
    control, data = members(outer["control.tar.gz"][1]), members(outer["data.tar.gz"][1])
    assert control["conffiles"][1].split() == [b"/etc/config/containers"]
    assert b"default_postinst" in control["postinst"][1] and b"default_prerm" in control["prerm"][1]
    assert b"Architecture: all" in control["control"][1]
    assert b"\nMaintainer: A B <a@example.org>\n" in control["control"][1]
    assert data["usr/bin/ucidockd"][0] == data["usr/lib/ucidockd/leave"][0] == 0o755
    assert data["lib/upgrade/keep.d/ucidockd"][1] == b"/etc/ucidockd/\n"
    assert not any("__pycache__" in name or "site-packages" in name for name in data)


def test_the_scripts_of_each_makefile_are_in_its_packages(made: tuple[Path, Path]) -> None:
    """A script within a Makefile would be in none, and a `$` in one stays what it is."""
    for makefile in sorted((PROJECT / "package").glob("*ucidockd/Makefile")):
        assert (
            re.findall(r"^define Package/.*/(?:pre|post)(?:inst|rm)$", makefile.read_text(), re.MULTILINE)
            == []
        )
        name = makefile.parent.name.replace("i18n-ucidockd", "i18n-ucidockd-de")
        outer = members((made[0] / f"{name}_0.1.0-r1_all.ipk").read_bytes())
        control = members(outer["control.tar.gz"][1])
        for script in (makefile.parent / "files").glob("p*"):
            body = script.read_text().partition("\n")[2].encode()
            assert body in control[script.name][1], (name, script.name)
    assert (
        b"rpcd reload"
        in members(
            members((made[0] / "luci-app-ucidockd_0.1.0-r1_all.ipk").read_bytes())["control.tar.gz"][1]
        )["postinst"][1]
    )


def test_apks_package_names_its_files_and_what_it_excludes(
    build: ModuleType, made: tuple[Path, Path]
) -> None:
    info, _ = build.apk_info(made[0] / "ucidockd-0.1.0-r1.apk")
    assert "!luci-app-dockerman" in info["depend"] and info["arch"] == ["noarch"]
    streams = [
        gzip.decompress(part) for part in build.streams((made[0] / "ucidockd-0.1.0-r1.apk").read_bytes())
    ]
    files, scripts = members(streams[-1]), members(streams[-2] + bytes(1024))
    assert b"/usr/bin/ucidockd\n" in files["lib/apk/packages/ucidockd.list"][1]
    assert files["lib/apk/packages/ucidockd.conffiles_static"][1].startswith(b"/etc/config/containers ")
    assert (
        b"PKG_UPGRADE=1" in scripts[".post-upgrade"][1] and b"default_prerm" in scripts[".pre-deinstall"][1]
    )


def test_debians_package_starts_the_agent_and_takes_it_away(made: tuple[Path, Path]) -> None:
    parts = packages.ar_members((made[0] / "ucidockd_0.1.0-1_all.deb").read_bytes())
    control, data = members(parts["control.tar.gz"]), members(parts["data.tar.gz"])
    for script in (PROJECT / "package/debian").glob("p*"):
        assert control[script.name] == (0o755, script.read_bytes())
    assert b"Recommends: docker.io | docker-ce" in control["control"][1]
    assert control["conffiles"][1].split() == [b"/etc/config/containers"]
    assert b"Type=notify" in data["usr/lib/systemd/system/ucidockd.service"][1]
    # OpenWrt's own
    assert not {name.split("/")[1] for name in data if name.startswith("etc/")} - {"config"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_knows_each_line_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "ucidockd.service"
    text = (PROJECT / "package/debian/ucidockd.service").read_text()
    unit.write_text(text.replace("/usr/bin/ucidockd", "/bin/true"))  # it is not installed here
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_indexes_are_signed(build: ModuleType, keys: dict[str, Path], made: tuple[Path, Path]) -> None:
    data = (made[0] / "Packages").read_bytes()
    assert gzip.decompress((made[0] / "Packages.gz").read_bytes()) == data
    signature = base64.b64decode((made[0] / "Packages.sig").read_text().splitlines()[1])
    Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().verify(signature[10:], data)
    for path in made[0].glob("*.ipk"):
        assert f"SHA256sum: {hashlib.sha256(path.read_bytes()).hexdigest()}".encode() in data
    first, second = build.streams((made[0] / "APKINDEX.tar.gz").read_bytes())
    (named,) = members(gzip.decompress(first) + bytes(1024)).values()
    secret = serialization.load_pem_private_key(keys["rsa"].read_bytes(), password=None)
    assert isinstance(secret, rsa.RSAPrivateKey)
    secret.public_key().verify(named[1], second, padding.PKCS1v15(), hashes.SHA256())


def test_the_version_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--version"],
        cwd=PROJECT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "ucidockd 0.1.0\n"
