# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the tests that need no engine on several sets of versions of the libraries.

`python -m tests.setup.dependencies [SET ...] [-- PYTEST_ARGUMENT ...]`; `make test-versions` runs all sets. A set is a
file of `versions/`, which pip takes as constraints; `newest` has none. Its first line names the Python that belongs to it:
where that is not on PATH, this one is taken, and said. The virtual environments are kept in `.versions/`.

`--lowest-libraries` only installs the lowest versions of what the agent answers clients with into `LOWEST`, for one test of
`make test`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
NEWEST = "newest"
SETS = (*sorted(path.stem for path in (HERE / "versions").glob("*.txt")), NEWEST)
LOWEST = PROJECT / ".versions/lowest-libraries"
_LIMIT_S = 1800  # for one set


def constraints(name: str) -> Path | None:
    """The versions of a set; None for the newest."""
    return None if name == NEWEST else HERE / "versions" / f"{name}.txt"


def pins(name: str) -> dict[str, str]:
    """Library -> version."""
    path = constraints(name)
    lines = path.read_text().splitlines() if path else []
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def _python(name: str) -> str:
    """The interpreter of a set, or the one that runs this."""
    path = constraints(name)
    if path is None:
        return sys.executable
    wanted = path.read_text().partition("\n")[0].removeprefix("# python ")
    found = shutil.which(f"python{wanted}")
    # a version manager's stand-in may name a Python that is not there
    if (
        found
        and subprocess.run([found, "-c", "import ensurepip"], capture_output=True, check=False).returncode
        == 0
    ):
        return found
    print(f"{name}: no Python {wanted} here, taking {sys.version.split()[0]}", flush=True)
    return sys.executable


def _environment(name: str) -> Path:
    """The set's Python, with the project and what its tests need."""
    folder = PROJECT / ".versions" / name
    subprocess.run([_python(name), "-m", "venv", str(folder)], check=True, timeout=300)
    path = constraints(name)
    chosen = ["-c", str(path)] if path else ["--upgrade", "--upgrade-strategy", "eager"]
    pip = [str(folder / "bin" / "pip"), "install", "-q", *chosen, "-e", f"{PROJECT}[dev]"]
    subprocess.run(pip, check=True, timeout=_LIMIT_S)
    return folder / "bin" / "python"


def main(words: list[str]) -> int:
    """The number of sets that failed."""
    if words == ["--lowest-libraries"]:
        return _install_lowest()
    at = words.index("--") if "--" in words else len(words)
    names, arguments = words[:at], words[at + 1 :]
    unknown = set(names) - set(SETS)
    if unknown:
        print(f"no set of versions is called {', '.join(sorted(unknown))}: there are {', '.join(SETS)}")
        return 2
    results = {name: _run(name, arguments) for name in names or SETS}
    for name, outcome in results.items():
        print(f"{name}: {outcome}")
    return sum(outcome != "passed" for outcome in results.values())


def _install_lowest() -> int:
    """pip's exit code. The folder is put in place whole."""
    new = LOWEST.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
    named = [
        "-c",
        str(constraints("lowest")),
        "docker",
        "requests",
        "starlette",
        "uvicorn",
        "h11",
        "websockets",
    ]
    code = subprocess.run([*pip, "--target", str(new), *named], check=False, timeout=_LIMIT_S).returncode
    if code == 0:
        shutil.rmtree(LOWEST, ignore_errors=True)
        new.rename(LOWEST)
    return code


def _run(name: str, arguments: list[str]) -> str:
    print(f"== {name}", flush=True)
    try:
        python = _environment(name)
    except (subprocess.SubprocessError, OSError) as exc:
        return f"cannot be installed: {exc}"
    command = [
        str(python),
        "-m",
        "pytest",
        "--without-engine",
        *(arguments or ["-n", "3", "--dist", "worksteal"]),
    ]
    code = subprocess.run(command, cwd=PROJECT, check=False).returncode
    return "passed" if code == 0 else f"failed ({code})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
