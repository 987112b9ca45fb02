# SPDX-License-Identifier: GPL-2.0-or-later
"""`make packages` in tests, and what opkg and apk do with a package, in their order."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.whole_router import PROJECT, WholeRouter

BUILD = PROJECT / "package/build/build.py"


def load() -> ModuleType:
    """build.py as a module."""
    spec = importlib.util.spec_from_file_location("package_build", BUILD)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def make(output: Path, *words: str) -> None:
    """Builds all packages and indexes; the libraries are a single stand-in."""
    build, wheels = load(), output.parent / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    wheel = wheels / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(zipfile.ZipInfo("thing/__init__.py"), "")
    line = f"thing==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "wheel_lines", lambda: [line])
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        patch.setattr(sys, "argv", [str(BUILD), "--output", str(output), "--wheels", str(wheels), *words])
        assert build.main() == 0


def members(data: bytes) -> dict[str, tuple[int, bytes]]:
    """The files of a tar, compressed or not: path -> mode and content."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            entry.name.removeprefix("./"): (entry.mode & 0o777, file.read())
            for entry in tar.getmembers()
            if (file := tar.extractfile(entry)) is not None
        }


def ar_members(data: bytes) -> dict[str, bytes]:
    """The members of an ar archive (deb(5)): each has a header of 60 bytes, then its content, padded to an even length."""
    assert data[:8] == b"!<arch>\n"
    found, at = {}, 8
    while at < len(data):
        head = data[at : at + 60]
        size = int(head[48:58])
        found[head[:16].decode().rstrip(" /")] = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


class Opkg:
    """opkg's order: an upgrade runs the old prerm and the new postinst with PKG_UPGRADE=1."""

    suffix = ".ipk"

    def __init__(self, router: WholeRouter) -> None:
        self.router = router

    def read(self, package: Path) -> tuple[dict[str, tuple[int, bytes]], dict[str, str]]:
        """The files, and the scripts by name."""
        outer = members(package.read_bytes())
        control, data = members(outer["control.tar.gz"][1]), members(outer["data.tar.gz"][1])
        return data, {
            name: control[name][1].decode() for name in ("preinst", "postinst", "prerm") if name in control
        }

    def install(self, package: Path) -> str:
        """Installs a package, or upgrades an older one; returns the output of the scripts."""
        files, scripts = self.read(package)
        name = package.name.partition("_")[0]
        upgrade = (self.router.path(f"usr/lib/opkg/info/{name}.list")).exists()
        word, environment = ("upgrade", {"PKG_UPGRADE": "1"}) if upgrade else ("install", {})
        said = self._run(name, "preinst", scripts.get("preinst"), word, environment)
        if upgrade:
            old = self.router.path(f"usr/lib/opkg/info/{name}.prerm").read_text()
            said += self._run(name, "prerm", old, "upgrade", environment)
        self._unpack(files)
        self._note(name, files, {key: text for key, text in scripts.items() if key != "preinst"})
        return said + self._run(name, "postinst", scripts.get("postinst"), "configure", environment)

    def remove(self, name: str) -> str:
        """Removes a package; returns the output of the scripts."""
        prerm = self.router.path(f"usr/lib/opkg/info/{name}.prerm").read_text()
        said = self._run(name, "prerm", prerm, "remove", {})
        self._delete(name, self.router.path(f"usr/lib/opkg/info/{name}.list").read_text().split())
        for left in self.router.path("usr/lib/opkg/info").glob(f"{name}.*"):
            left.unlink()
        return said

    def _run(self, name: str, kind: str, text: str | None, word: str, environment: dict[str, str]) -> str:
        if text is None:
            return ""
        # default_postinst derives the package's name from the path of the script
        place = f"usr/lib/opkg/info/{name}.{kind}"
        self.router.write(place, text, mode=0o755)
        try:
            return self.router.run(f"/{place}", word, **environment)  # type: ignore[arg-type]  # variables only
        finally:
            if kind == "preinst":
                self.router.path(place).unlink()

    def _unpack(self, files: dict[str, tuple[int, bytes]]) -> None:
        for path, (mode, data) in files.items():
            target = self.router.path(path)
            if path.startswith("etc/config/") and target.exists():
                continue  # the user changed this conffile
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f"{target.name}.new")
            fresh.write_bytes(data)
            fresh.chmod(mode)
            fresh.replace(target)

    def _note(self, name: str, files: dict[str, tuple[int, bytes]], scripts: dict[str, str]) -> None:
        self.router.write(f"usr/lib/opkg/info/{name}.list", "".join(f"/{path}\n" for path in sorted(files)))
        for kind, text in scripts.items():
            self.router.write(f"usr/lib/opkg/info/{name}.{kind}", text, mode=0o755)

    def _delete(self, name: str, paths: list[str]) -> None:
        del name
        for path in paths:
            if not path.startswith("/etc/config/"):
                self.router.path(path[1:]).unlink(missing_ok=True)


class Apk(Opkg):
    """apk's order: an upgrade runs no script of the old package, and post-upgrade of the new one."""

    suffix = ".apk"

    def read(self, package: Path) -> tuple[dict[str, tuple[int, bytes]], dict[str, str]]:
        parts = [gzip.decompress(part) for part in load().streams(package.read_bytes())]
        scripts = members(parts[-2] + bytes(1024))
        return members(parts[-1]), {
            name[1:]: text.decode()
            for name, (_, text) in scripts.items()
            if name.startswith((".pre-", ".post-"))
        }

    def install(self, package: Path) -> str:
        files, scripts = self.read(package)
        name = package.name.rpartition("-0.")[0]
        upgrade = self.router.path(f"lib/apk/packages/{name}.list").exists()
        before, after = ("pre-upgrade", "post-upgrade") if upgrade else ("pre-install", "post-install")
        said = self._run(name, "preinst", scripts.get(before), "", {})
        self._unpack(files)
        self.router.write(f"lib/apk/scripts/{name}.pre-deinstall", scripts["pre-deinstall"], mode=0o755)
        return said + self._run(name, "postinst", scripts.get(after), "", {})

    def remove(self, name: str) -> str:
        prerm = self.router.path(f"lib/apk/scripts/{name}.pre-deinstall").read_text()
        said = self._run(name, "prerm", prerm, "", {})
        listed = self.router.path(f"lib/apk/packages/{name}.list")
        self._delete(name, [*listed.read_text().split(), f"/lib/apk/packages/{name}.list"])
        return said
