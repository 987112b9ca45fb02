# SPDX-License-Identifier: GPL-2.0-or-later
"""What the package installs, by running its Makefile's own install recipe: every file in its place, with its mode."""

from __future__ import annotations

import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.router.rootfs import FILES, PROJECT

PACKAGES = PROJECT / "package"

# as much of OpenWrt's build system as an install recipe needs
_RULES = """
INCLUDE_DIR:=$(TOPDIR)/include
PKG_BUILD_DIR:=$(TOPDIR)/build
PKG_INSTALL_DIR:=$(TOPDIR)/python
CP:=cp -fpR
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INSTALL_DATA:=install -m0644
INSTALL_CONF:=install -m0600
"""
_PACKAGE = """
define BuildPackage
.PHONY: install-$(1)
install-$(1):
	$$(call Build/Prepare)
	$$(call Py3Package/$(1)/install,$$(DESTINATION))
endef
"""


def build(folder: Path, package: str) -> Path:
    """The root directory that the package's files end up in."""
    for name, text in {
        "rules.mk": _RULES,
        "include/package.mk": _PACKAGE,
        "feeds/packages/lang/python/python3-package.mk": "Py3Package=\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    program = folder / "python/usr/bin/ucidockd"  # what the Python build leaves
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    root = folder / "root"
    words = ["make", "-s", f"TOPDIR={folder}", f"DESTINATION={root}", f"install-{package}"]
    subprocess.run(words, cwd=PACKAGES / package, check=True)
    return root


def modes(root: Path) -> dict[str, int]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in files}


def test_every_file_is_in_its_place_with_its_mode(tmp_path: Path) -> None:
    found = modes(build(tmp_path, "ucidockd"))
    programs = {
        "usr/bin/ucidockd",
        "etc/init.d/ucidockd",
        "usr/lib/ucidockd/dockerd-rescue",
        "etc/uci-defaults/60-ucidockd",
    }
    expected = {target: 0o755 if target in programs else 0o644 for target in {*FILES.values(), *programs}}
    expected |= {"etc/config/containers": 0o600, "lib/upgrade/keep.d/ucidockd": 0o644}
    assert found == expected


def test_our_state_is_kept_over_a_sysupgrade(tmp_path: Path) -> None:
    root = build(tmp_path, "ucidockd")
    assert (root / "lib/upgrade/keep.d/ucidockd").read_text() == "/etc/ucidockd/\n"


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
    least = re.search(rf'"{name}>=(\d+)"', (PROJECT / "pyproject.toml").read_text())
    assert version and least
    assert int(version[1]) >= int(least[1])
    assert re.search(r"^PKG_HASH:=[0-9a-f]{64}$", text, re.MULTILINE)
