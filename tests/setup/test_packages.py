# SPDX-License-Identifier: GPL-2.0-or-later
"""What the set-up does to the machine: said first, nothing recommended, no service started, all put back."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "packages.sh"
APT = """\
#!/bin/sh
case " $* " in
*" -s "*) echo 'Inst libnew (1.0 Debian:13 [amd64])'; echo 'Inst old [0.9] (1.0 Debian:13 [amd64])'
          echo 'Inst daemon (1.0 Debian:13 [amd64])'; echo 'Conf daemon (1.0)' ;;
*" install "*) echo "$*" >"$RECORD.words"; "$UCIDOCKD_POLICY"; echo $? >"$RECORD"; exit "$APT_CODE" ;;
esac
"""


def run(folder: Path, *words: str, apt_code: int = 0) -> subprocess.CompletedProcess[str]:
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    for name, text in (("apt-get", APT), ("dpkg", "#!/bin/sh\n"), ("id", "#!/bin/sh\necho 0\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    variables = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "UCIDOCKD_POLICY": str(folder / "policy-rc.d"),
        "RECORD": str(folder / "record"),
        "APT_CODE": str(apt_code),
    }
    return subprocess.run(
        ["sh", str(SCRIPT), *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("apt_code", [0, 100])
def test_no_service_is_allowed_while_packages_are_installed_and_all_are_afterwards(
    tmp_path: Path, apt_code: int
) -> None:
    done = run(tmp_path, "install", "daemon", apt_code=apt_code)
    assert done.returncode == apt_code, done.stderr
    assert (tmp_path / "record").read_text().strip() == "101"
    assert "--no-install-recommends" in (tmp_path / "record.words").read_text()
    assert not (tmp_path / "policy-rc.d").exists()
    assert "3 Debian packages for daemon:\n  daemon libnew old\n" in done.stdout


def test_a_policy_of_the_users_stays_as_it_is(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 77\n")
    policy.chmod(0o755)
    assert run(tmp_path, "install", "daemon").returncode == 0
    assert (tmp_path / "record").read_text().strip() == "77"
    assert policy.read_text() == "#!/bin/sh\nexit 77\n"


def test_a_policy_that_outlives_its_process_forbids_nothing(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    text = SCRIPT.read_text()
    begin = text.index("forbid_services() {")
    function = text[begin : text.index("\n}\n", begin) + 3]
    subprocess.run(
        ["sh", "-c", f"MARK=x POLICY={policy}\n{function}\nforbid_services"], check=True, timeout=30
    )
    assert subprocess.run([str(policy)], check=False).returncode == 0


INSTALLS_PYTHON = """\
cat >bin/python3 <<'END'
#!/bin/sh
echo "$@" >>called
[ "$1" = -m ] || exit 0
mkdir -p .venv/bin
echo >.venv/bin/pip
chmod +x .venv/bin/pip
END
chmod +x bin/python3
"""


def test_the_python_of_a_machine_that_had_none_is_found_once_it_is_installed(tmp_path: Path) -> None:
    project = SCRIPT.parents[2]
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(project / name, tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "make", "cat", "mkdir", "chmod", "touch"):
        (tools / name).symlink_to(str(shutil.which(name)))
    (tmp_path / "tests/setup").mkdir(parents=True)
    (tmp_path / "tests/setup/packages.sh").write_text(INSTALLS_PYTHON)
    done = subprocess.run(
        [str(shutil.which("make")), "venv"],
        cwd=tmp_path,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "called").read_text().splitlines()[-1] == "-m venv .venv"
    assert (tmp_path / ".venv/.done").exists()
