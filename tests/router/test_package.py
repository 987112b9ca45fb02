# SPDX-License-Identifier: GPL-2.0-or-later
"""What the package installs, by running its Makefile's own install recipe: every file in its place, with its mode."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.router.rootfs import FILES, PROJECT
from tests.support import packages

PACKAGES = PROJECT / "package"

SDK = PACKAGES / "build/sdk"


def build(folder: Path, package: str) -> Path:
    """The root directory that the package's files end up in."""
    root = folder / "root"
    words = ["make", "-s", f"TOPDIR={SDK}", f"WORK={folder}", f"DESTINATION={root}", f"install-{package}"]
    subprocess.run(words, cwd=PACKAGES / source_of(package), check=True)
    return root


def source_of(package: str) -> str:
    """The folder whose Makefile builds it."""
    return "luci-i18n-ucidockd" if package.startswith("luci-i18n-") else package


def modes(root: Path) -> dict[str, int]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in files}


def test_every_file_is_in_its_place_with_its_mode(tmp_path: Path) -> None:
    root = build(tmp_path, "ucidockd")
    found = {
        name: mode for name, mode in modes(root).items() if not name.startswith("usr/lib/ucidockd/python/")
    }
    programs = {
        "usr/bin/ucidockd",
        "etc/init.d/ucidockd",
        "usr/lib/ucidockd/dockerd-rescue",
        "usr/lib/ucidockd/leave",
        "etc/uci-defaults/60-ucidockd",
    }
    expected = {target: 0o755 if target in programs else 0o644 for target in {*FILES.values(), *programs}}
    expected |= {"etc/config/containers": 0o600, "usr/lib/ucidockd/release": 0o644}
    assert found == expected


def test_the_python_package_is_whole_and_holds_no_tests(tmp_path: Path) -> None:
    library = build(tmp_path, "ucidockd") / "usr/lib/ucidockd/python"
    found = {str(path.relative_to(library)) for path in library.rglob("*") if path.is_file()}
    modules = {str(path.relative_to(PROJECT)) for path in (PROJECT / "agent").rglob("*.py")}
    schemas = {f"agent/schema/files/{path.name}" for path in (PROJECT / "schemas").glob("*.json")}
    assert found == modules | schemas


def test_the_pages_are_all_installed_packed_with_the_schemas(tmp_path: Path) -> None:
    root = build(tmp_path, "luci-app-ucidockd")
    luci, packed = PROJECT / "luci", tmp_path / "htdocs"
    shutil.copytree(luci / "htdocs", packed)
    subprocess.run([sys.executable, luci / "bundle.py", packed], check=True)
    wanted = {
        **{f"www/{p.relative_to(packed)}": p for p in packed.rglob("*")},
        **{str(p.relative_to(luci / "root")): p for p in (luci / "root").rglob("*")},
        **{f"usr/share/ucode/luci/{p.relative_to(luci / 'ucode')}": p for p in (luci / "ucode").rglob("*")},
    }
    wanted = {target: source for target, source in wanted.items() if source.is_file()}
    assert {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()} == {
        target: source.read_bytes() for target, source in wanted.items()
    }
    assert {mode for mode in modes(root).values() if mode & 0o022} == set()
    assert "www/luci-static/resources/ucidockd/xterm/xterm.js" in wanted


# parts of the standard library that python3-light lacks (the feed's lang/python/python3/files)
_SPLIT = {
    "asyncio": "asyncio",
    "ctypes": "ctypes",
    "curses": "ncurses",
    "dbm": "dbm",
    "decimal": "decimal",
    "email": "urllib",
    "hashlib": "openssl",
    "logging": "logging",
    "lzma": "lzma",
    "multiprocessing": "multiprocessing",
    "readline": "readline",
    "sqlite3": "sqlite3",
    "ssl": "openssl",
    "unittest": "unittest",
    "urllib": "urllib",
    "uuid": "uuid",
    "xml": "xml",
}


def imported(folder: Path) -> set[str]:
    """Top-level names of what its modules import, at once or later."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize(
    ("package", "module"),
    [("ucidockd", "agent"), ("python-docker", "docker"), ("python-watchdog", "watchdog")],
)
def test_each_part_of_the_standard_library_is_depended_on(package: str, module: str) -> None:
    """OpenWrt installs python3-light and what is named beside it."""
    spec = importlib.util.find_spec(module)
    assert spec and spec.submodule_search_locations
    wanted = {_SPLIT[name] for name in imported(Path(spec.submodule_search_locations[0])) & _SPLIT.keys()}
    text = (PACKAGES / package / "Makefile").read_text()
    # python3-requests needs them and brings them
    brought = {"urllib"} if "+python3-requests" in text else set()
    named = set(re.findall(r"\+python3-([a-z0-9]+)", text))
    assert wanted - named - brought == set()


@pytest.mark.parametrize("package", ["ucidockd", "luci-app-ucidockd", "luci-i18n-ucidockd-ru"])
def test_the_feeds_makefiles_build_the_same_from_the_release(package: str, tmp_path: Path) -> None:
    """What `make dist` writes for a feed: OpenWrt unpacks the tarball into PKG_BUILD_DIR."""
    source = PACKAGES / source_of(package)
    makefile = packages.load().for_feed(
        (source / "Makefile").read_text(), "https://example.org", "0" * 64, "A B <a@example.org>"
    )
    assert "UCIDOCKD_SOURCE" not in makefile and "checkout" not in makefile
    assert "PKG_HASH:=" + "0" * 64 in makefile
    assert "PKG_MAINTAINER:=A B <a@example.org>\n" in makefile
    copied = tmp_path / "feed" / package
    shutil.copytree(source, copied)
    (copied / "Makefile").write_text(makefile)
    unpacked = tmp_path / "work" / source.name / "ucidockd-0.1.0"
    unpacked.mkdir(parents=True)
    for name in ("agent", "schemas", "init.d", "hotplug.d", "uci-defaults", "luci", "LICENSE"):
        subprocess.run(["cp", "-a", PROJECT / name, unpacked], check=True)
    words = [
        "make",
        "-s",
        f"TOPDIR={SDK}",
        f"WORK={tmp_path / 'work'}",
        f"BUILD_DIR={tmp_path / 'work'}",
        f"DESTINATION={tmp_path / 'root'}",
    ]
    subprocess.run([*words, f"install-{package}"], cwd=copied, check=True)
    assert modes(tmp_path / "root") == modes(build(tmp_path / "checkout", package))


def test_every_dependency_of_the_agent_is_one_of_the_package() -> None:
    """By the names of the feed: python3-NAME."""
    text = (PACKAGES / "ucidockd/Makefile").read_text()
    wanted = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[ ]", line)[0] for line in wanted["dependencies"]} | {"uci"}
    assert {name for name in names if f"+python3-{name}" not in text} == set()
    assert f"PKG_VERSION:={wanted['version']}\n" in text


@pytest.mark.parametrize("name", ["docker", "watchdog"])
def test_what_the_feed_lacks_is_brought_along_in_a_version_that_the_agent_takes(name: str) -> None:
    text = (PACKAGES / f"python-{name}/Makefile").read_text()
    version = re.search(r"^PKG_VERSION:=(\d+)", text, re.MULTILINE)
    least = re.search(rf'"{name}>=(\d+)[\d.]*"', (PROJECT / "pyproject.toml").read_text())
    assert version and least
    assert int(version[1]) >= int(least[1])
    assert re.search(r"^PKG_HASH:=[0-9a-f]{64}$", text, re.MULTILINE)


def test_all_packages_have_the_author_of_the_project_as_their_maintainer() -> None:
    author = packages.load().author()
    makefiles = list(PACKAGES.glob("*/Makefile"))
    assert {re.findall(r"(?m)^PKG_MAINTAINER:=(.*)", path.read_text())[0] for path in makefiles} == {author}
    assert "localhost" not in author and len(makefiles) == 5


def test_each_language_has_a_package_that_luci_finds(tmp_path: Path) -> None:
    text = (PACKAGES / "luci-i18n-ucidockd/Makefile").read_text()
    folders = dict(re.findall(r"call Translation,([a-z-]+),(\w+),", text))
    assert set(folders.values()) == {path.parent.name for path in (PROJECT / "luci/po").glob("*/*.po")}
    root = build(tmp_path, "luci-i18n-ucidockd-zh-cn")
    assert set(modes(root)) == {
        "usr/lib/lua/luci/i18n/ucidockd.zh-cn.lmo",
        "etc/uci-defaults/luci-i18n-ucidockd-zh-cn",
    }
    said = (root / "etc/uci-defaults/luci-i18n-ucidockd-zh-cn").read_text()
    assert said == "uci set luci.languages.zh_cn='简体中文 (Simplified Chinese)'; uci commit luci\n"
