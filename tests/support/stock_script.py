# SPDX-License-Identifier: GPL-2.0-or-later
"""A stand-in for OpenWrt's /etc/init.d/dockerd with its relevant behaviour: which file dockerd gets, and procd's part.

`start` and `reload` decide each time which daemon.json to use, and link it; `start` does not restart a running
service; `stop` sends SIGTERM. Without a file of its own the script creates one from UCI's options.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon_lab import DaemonLab
from tests.support.real_uci import COMMAND

_SCRIPT = """#!/bin/sh
get() {{ {uci} -q -c {config} -t {root}/uci-t get "dockerd.globals.$1"; }}
process_config() {{
	CONF=
	[ -f {config}/dockerd ] || return 0
	CONF={root}/tmp-dockerd.json
	rm -f "$CONF"
	alt="$(get alt_config_file)"
	[ -n "$alt" ] && [ -f "$alt" ] && {{ ln -s "$alt" "$CONF"; return 0; }}
	printf '{{"data-root": "%s", "hosts": ["unix://{socket}"]}}' "$(get data_root || echo {root}/opt)" >"$CONF"
}}
running() {{ grep -qs '^State:.[RSD]' "/proc/$(cat {pid})/status"; }}
{before}
case "$1" in
running) running; exit ;;
start)
	echo start >>{calls}
	process_config
	running && exit 0
	[ -n "$CONF" ] || CONF={default}
	setsid {program} --config-file="$CONF" --exec-root={root}/exec --pidfile={root}/dockerd.pid \\
		{extra} >>{root}/script.log 2>&1 </dev/null &
	echo $! >{pid}
	;;
reload)
	echo reload >>{calls}
	process_config
	running && kill -HUP "$(cat {pid})"
	;;
stop)
	echo stop >>{calls}
	running && kill "$(cat {pid})"
	;;
esac
exit 0
"""


@dataclass(frozen=True)
class StockScript:
    """`path` is the script."""

    path: Path
    calls: Path

    @classmethod
    def make(cls, lab: DaemonLab, *, before: str = "", default: Path | None = None) -> StockScript:
        path, calls, pid = lab.root / "init.d-dockerd", lab.root / "calls", lab.root / "procd.pid"
        calls.write_text("")
        pid.write_text("none")
        path.write_text(
            _SCRIPT.format(
                uci=COMMAND,
                config=lab.root / "config",
                root=lab.root,
                socket=lab.socket,
                program=lab.program,
                default=default or lab.root / "etc-docker-daemon.json",
                calls=calls,
                pid=pid,
                before=before,
                extra="",
            )
        )
        path.chmod(0o755)
        return cls(path, calls)

    def done(self) -> list[str]:
        """The calls that the script received, except `running`."""
        return self.calls.read_text().split()

    def reload(self) -> None:
        subprocess.run([str(self.path), "reload"], check=True)

    def restart(self) -> None:
        """Restarts like rc.common; waits for the end in between, as procd does."""
        pid = (self.path.parent / "procd.pid").read_text().strip()
        subprocess.run([str(self.path), "stop"], check=True)
        with contextlib.suppress(OSError):  # it has ended already
            while "Z" not in Path("/proc", pid, "stat").read_text().split()[2]:
                pass
        subprocess.run([str(self.path), "start"], check=True)

    def end(self) -> None:
        """Reaps started processes."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
