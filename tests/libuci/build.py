# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the real libuci and its `uci` command in `.libuci/`, and installs pyuci, linked to it, into this Python.

cargo fetches the crate `libuci-sys`, which carries the C sources of libuci and libubox, in the version and with the
checksum that Cargo.lock names; cmake builds them. The crate's own build script does the same, but then also needs
libclang of a certain age and sixty Rust crates for bindings that nobody here uses.

Does nothing when all is there already. When something is missing that cannot be installed, `.libuci/why-not` says
what: tests that need libuci are skipped with that reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / ".libuci"
SETUP = HERE.parent / "setup" / "packages.sh"
WHY_NOT = OUT / "why-not"
PYUCI = "pyuci==0.10.3"
LIMIT_S = 300  # for one step; cargo older than 1.70 clones the whole index


class CannotBuildError(Exception):
    """Says why in one line."""


def main() -> int:
    """Builds what is missing. Exit code 1, and a reason in WHY_NOT, when it cannot be built."""
    OUT.mkdir(exist_ok=True)
    try:
        key = hashlib.sha256((HERE / "Cargo.lock").read_bytes() + Path(__file__).read_bytes()).hexdigest()
        _once(OUT / ".done", key, _build)
        _once(Path(sys.prefix) / ".pyuci", f"{key} {OUT}", _install_pyuci)
    except (CannotBuildError, OSError) as exc:
        WHY_NOT.write_text(f"{exc}\n")
        print(f"libuci: {exc}", file=sys.stderr)
        return 1
    WHY_NOT.unlink(missing_ok=True)
    return 0


def _once(stamp: Path, key: str, step: Callable[[], None]) -> None:
    if not stamp.exists() or stamp.read_text() != key:
        step()
        stamp.write_text(key)


def _build() -> None:
    cargo = _cargo()
    _need({"cmake": "cmake", "cc": "gcc libc6-dev", "make": "make"})
    crate = _crate(cargo)
    build = OUT / "build"
    shutil.rmtree(build, ignore_errors=True)
    # a copy: libuci's CMakeLists.txt writes into its source directory, and cargo's cache is to stay as it is
    for part in ("libubox", "uci"):
        shutil.copytree(crate / part, build / part)
    _cmake(build / "libubox", {"BUILD_EXAMPLES": "OFF"}, target="ubox")
    _copy(build / "libubox", "include/libubox", "*.h")
    _copy(build / "libubox/out", "lib", "libubox.so")
    _cmake(build / "uci", {"ubox_include_dir": OUT / "include", "ubox": OUT / "lib/libubox.so"}, target="cli")
    _copy(build / "uci", "include", "uci*.h")
    _copy(build / "uci/out", "lib", "libuci.so")
    _copy(build / "uci/out", "bin", "uci")
    _run([str(OUT / "bin/uci"), "-c", str(OUT), "export"])  # of no files at all: does it start?
    shutil.rmtree(build)


def _cargo() -> str:
    found = shutil.which("cargo") or shutil.which("cargo", path=Path("~/.cargo/bin").expanduser())
    if found:
        return found
    _need({"cargo": "cargo"})
    return "cargo"


def _need(packages: Mapping[str, str]) -> None:
    """Installs the Debian packages (the values) whose commands (the keys) are missing."""
    missing = [package for command, package in packages.items() if not shutil.which(command)]
    if missing:
        _install(" ".join(missing).split())


def _install(packages: list[str]) -> None:
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise CannotBuildError(f"{' '.join(packages)}: missing, and only root on Debian can install them")
    print(_run(["sh", str(SETUP), "install", *packages]), end="")


def _crate(cargo: str) -> Path:
    command = [cargo, "metadata", "--locked", "--format-version", "1"]
    platform = f"{os.uname().machine}-unknown-linux-gnu"  # else it fetches what only other systems need
    text = _run([*command, "--filter-platform", platform, "--manifest-path", str(HERE / "Cargo.toml")])
    packages = {package["name"]: package for package in json.loads(text)["packages"]}
    return Path(packages["libuci-sys"]["manifest_path"]).parent


def _cmake(source: Path, settings: Mapping[str, object], *, target: str) -> None:
    options = {
        "BUILD_LUA": "OFF",
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": "$ORIGIN/../lib",
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",  # cmake 4 refuses files as old as these without it
        "CMAKE_C_FLAGS": "-Wno-error",
        **settings,
    }
    out = source / "out"
    _run(
        ["cmake", "-S", str(source), "-B", str(out), *(f"-D{key}={value}" for key, value in options.items())]
    )
    _run(["cmake", "--build", str(out), "--target", target])


def _copy(source: Path, folder: str, pattern: str) -> None:
    (OUT / folder).mkdir(parents=True, exist_ok=True)
    found = [path for path in source.glob(pattern) if path.is_file()]
    if not found:
        raise CannotBuildError(f"no {pattern} was built in {source}")
    for path in found:
        shutil.copy2(path, OUT / folder)


def _install_pyuci() -> None:
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        _install(["python3-dev"])
    flags = {
        "CFLAGS": f"-I{OUT}/include",
        # DT_RPATH, not DT_RUNPATH: it also holds for libubox, which libuci needs
        "LDFLAGS": f"-L{OUT}/lib -Wl,--disable-new-dtags,-rpath,{OUT}/lib",
    }
    # not from pip's cache: a wheel there may be linked to the libuci of another clone
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--no-deps", "--force-reinstall"]
    _run([*pip, "--no-binary", "pyuci", PYUCI], flags)
    _run([sys.executable, "-c", "import uci; uci.Uci()"])


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise CannotBuildError(f"{' '.join(command)}: not done after {LIMIT_S} s") from exc
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise CannotBuildError(f"{' '.join(command)}: exit code {done.returncode}: {' | '.join(lines[-6:])}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
