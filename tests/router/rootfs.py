# SPDX-License-Identifier: GPL-2.0-or-later
"""A router's root directory as far as our scripts see it: busybox, the real `uci`, our files where the package puts them.

OpenWrt's own pieces (rc.common, procd.sh, jshn, ubus, jsonfilter, logger) cannot be installed here. Small stand-ins
take their place, which write down what they were called with.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.real_uci import COMMAND

PROJECT = Path(__file__).parents[2]
FILES = {
    "init.d/ucidockd": "etc/init.d/ucidockd",
    "init.d/leave": "usr/lib/ucidockd/leave",
    "init.d/dockerd-rescue": "usr/lib/ucidockd/dockerd-rescue",
    "hotplug.d/notify.sh": "usr/lib/ucidockd/notify.sh",
    "uci-defaults/60-ucidockd": "etc/uci-defaults/60-ucidockd",
    **{
        f"hotplug.d/{name}/90-ucidockd": f"etc/hotplug.d/{name}/90-ucidockd"
        for name in ("iface", "block", "mount", "usb", "tty", "ntp", "net")
    },
}

_APPLETS = "sh ash cat chmod cp echo env false grep ln ls mkdir mv printf rm sed sleep sort touch tr true wc"

# every stand-in appends its words to /calls, one line each, separated by tabs
_NOTE = """#!/bin/ash
{ printf '%s' "${0##*/}"; for word; do printf '\\t%s' "$word"; done; echo; } >>/calls
"""

_JSHN = """
_json() { printf '%s' "$1" | sed 's/[\\\\"]/\\\\&/g'; }
json_init() { JSON=''; }
json_add_string() { JSON="$JSON${JSON:+, }\\"$1\\": \\"$(_json "$2")\\""; JSON="${JSON//\\{, /{}"; }
json_add_object() { JSON="$JSON${JSON:+, }\\"$1\\": {"; }
json_close_object() { JSON="$JSON}"; }
json_dump() { printf '{%s}\\n' "$JSON"; }
"""

_RC_COMMON = """#!/bin/ash
# the order of the real one: defaults, the script, then the command
initscript="$1"; action="$2"; shift 2
start() { start_service "$@"; }
stop() { note stop; }
reload() { reload_service; }
enabled() { false; }
note() { { printf '%s' "$1"; shift; for word; do printf '\\t%s' "$word"; done; echo; } >>/calls; }
for name in open_instance close_instance set_param send_signal add_reload_trigger add_raw_trigger; do
	eval "procd_$name() { note procd_$name \\"\\$@\\"; }"
done
. "$initscript"
$action "$@"
"""

_JSONFILTER = """#!/bin/ash
# -i FILE -e @.KEY (one string), or @.document (as it stands between its braces), or -s TEXT with the pid in ubus' answer
for word; do last="$word"; done
case "$last" in
'@["'*) # a number or a string
	key="${last#???}"
	sed -n "s/^.*\\"${key%??}\\": *\\"*\\([^\\",}]*\\).*$/\\1/p" "$2"
	;;
@.document) sed -n 's/^.*"document": \\({[^}]*}\\).*$/\\1/p' "$2" ;;
@.dockerd*) printf '%s' "$2" | sed -n 's/^.*"pid": *\\([0-9]*\\).*$/\\1/p' ;;
*) sed -n "s/^.*\\"${last#@.}\\": *\\"\\([^\\"]*\\)\\".*$/\\1/p" "$2" ;;
esac
"""


@dataclass(frozen=True)
class Router:
    """One root directory; commands run in it by chroot."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Router:
        made = cls(root)
        for folder in (
            "bin",
            "sbin",
            "dev",
            "proc",
            "tmp",
            "etc/config",
            "etc/init.d",
            "usr/bin",
            "lib/functions",
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "var/run").mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "bin/busybox")
        for applet in _APPLETS.split():
            (root / "bin" / applet).symlink_to("busybox")
        made._copy_program(COMMAND, "sbin/uci")
        made._copy_program(Path("/usr/bin/flock"), "bin/flock")  # Debian's busybox has none, OpenWrt's has
        for source, target in FILES.items():
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / source, root / target)
        made.script("usr/share/libubox/jshn.sh", _JSHN)
        made.script("etc/rc.common", _RC_COMMON)
        made.script("bin/jsonfilter", _JSONFILTER)
        for name in ("logger", "ubus"):
            made.script(f"bin/{name}", _NOTE)
        for node in ("null", "zero"):
            subprocess.run(["cp", "-a", f"/dev/{node}", root / "dev"], check=True)
        return made

    def _copy_program(self, program: Path, target: str) -> None:
        """With the libraries that it is linked to."""
        (self.root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(program, self.root / target)
        linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for word in linked.split():
            if word.startswith("/"):
                folder = Path(word).parent if "ld-linux" in word else Path("/lib")
                (self.root / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)
                shutil.copy(word, self.root / folder.relative_to("/"))

    def script(self, path: str, text: str) -> None:
        """A program in the root directory."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(0o755)

    def write(self, path: str, text: str) -> None:
        """A file in the root directory."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def run(self, *words: str, limit_s: float = 20, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in it; it must not write to stderr."""
        done = subprocess.run(
            ["chroot", self.root, *words],
            env={"PATH": "/sbin:/bin:/usr/bin", **env},
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert done.stderr == ""
        return done

    def hotplug(self, subsystem: str, **env: str) -> list[dict[str, object]]:
        """Sources the script as hotplug-call does; the notifications that were sent."""
        self.run("ash", "-c", f"( . /etc/hotplug.d/{subsystem}/90-ucidockd )", **env)  # type: ignore[arg-type]  # variables only
        return [json.loads(call[-1]) for call in self.calls() if call[0] == "ubus"]

    def init(self, action: str) -> subprocess.CompletedProcess[str]:
        """`/etc/init.d/ucidockd ACTION`."""
        return self.run("/etc/init.d/ucidockd", action)

    def calls(self) -> list[list[str]]:
        """What the stand-ins were called with since the last look."""
        path = self.root / "calls"
        if not path.exists():
            return []
        lines = path.read_text().splitlines()
        path.unlink()
        return [line.split("\t") for line in lines]

    def uci(self, *words: str) -> str:
        """The real `uci`."""
        return self.run("/sbin/uci", "-q", *words).stdout.strip()
