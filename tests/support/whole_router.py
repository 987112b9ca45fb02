# SPDX-License-Identifier: GPL-2.0-or-later
"""A router that boots: a root directory over this machine's, in its own namespaces, with a real dockerd.

Real are `uci`, the shells, Python, dockerd, the package's files and the agent. OpenWrt's scripts cannot be installed
here: rc.common, procd, functions.sh and the dockerd package's init script are stand-ins that behave like them.
Written files survive a reboot, except those in /tmp and /run; /opt/docker is a separate disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from tests.router.rootfs import _JSONFILTER, _NOTE
from tests.support.real_uci import COMMAND

PROJECT = Path(__file__).parents[2]

# process 1 of the router: reaps orphans
_INIT = """
import os, signal, time
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.05)
"""

_BOOT = """set -e
mount --make-rprivate /
mkdir -p {folder}/root
mount -t overlay overlay -o lowerdir=/,upperdir={folder}/flash,workdir={folder}/work {folder}/root
cd {folder}/root
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs run
for place in {visible}; do mkdir -p ".$place"; mount --rbind "$place" ".$place"; done
mkdir -p opt/docker router
mount --bind {folder}/disk opt/docker
mount --bind {folder} router
pivot_root . mnt
umount -l /mnt
ip link set lo up
ip link add br-lan type bridge
ip addr add 192.168.1.1/24 dev br-lan
ip link set br-lan up
: >/router/booted
exec {python} -c '{init}'
"""

# procd: an instance is a pid and its start parameters; `start` restarts an instance only if they have changed
_RC_COMMON = """#!/bin/sh
initscript="$1" action="$2"
shift 2
name="${initscript##*/}" work=/tmp/procd
mkdir -p "$work" /etc/rc.d
start_service() { :; }
stop_service() { :; }
alive() { [ -s "$work/$name.$1.pid" ] && kill -0 "$(cat "$work/$name.$1.pid")" 2>/dev/null; }
procd_open_instance() { instance="${1:-instance1}" command='' stamp=''; }
procd_set_param() {
	local kind="$1" file
	shift
	case "$kind" in
	command) command="$*" ;;
	file) for file; do stamp="$stamp $(md5sum "$file" 2>/dev/null)"; done ;;
	esac
}
procd_close_instance() {
	local state="$command $stamp"
	if alive "$instance"; then
		[ "$state" != "$(cat "$work/$name.$instance.state")" ] || return 0
		end "$instance"
	fi
	printf '%s' "$state" >"$work/$name.$instance.state"
	setsid $command >>"/router/$name.$instance.log" 2>&1 </dev/null &
	echo $! >"$work/$name.$instance.pid"
}
end() {
	local pid
	pid="$(cat "$work/$name.$1.pid" 2>/dev/null)" || return 0
	kill "$pid" 2>/dev/null
	while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
	rm -f "$work/$name.$1.pid"
}
procd_send_signal() { # SERVICE [INSTANCE [SIGNAL]]
	local file
	for file in "$work/$1.${2:-}"*.pid; do kill -"${3:-HUP}" "$(cat "$file" 2>/dev/null)" 2>/dev/null; done
	return 0
}
procd_add_reload_trigger() { :; }
procd_add_raw_trigger() { :; }
instances() { ls "$work" | sed -n "s/^$name\\.\\(.*\\)\\.pid\\$/\\1/p"; }
start() { start_service "$@"; }
boot() { start "$@"; }
stop() { stop_service; for each in $(instances); do end "$each"; done; }
restart() { stop; start; }
reload() { reload_service; }
running() { for each in $(instances); do alive "$each" && return 0; done; return 1; }
enabled() { [ -e "/etc/rc.d/S$START$name" ]; }
enable() { : >"/etc/rc.d/S$START$name"; }
disable() { rm -f "/etc/rc.d/S"??"$name"; }
. "$initscript"
$action "$@"
"""

# what the dockerd package's script does with UCI: uses a file of the user's unchanged, otherwise sets hosts and the
# rest, and never TLS
_DOCKERD_INIT = """#!/bin/sh /etc/rc.common
START=99
uciadd() {
	local section found=''
	for section in $(uci -q show network | sed -n 's/^network\\.\\([^.=]*\\)=device$/\\1/p'); do
		[ "$(uci -q get "network.$section.name")" != docker0 ] || found=1
	done
	uci -q get network.docker >/dev/null || uci batch <<-EOF
		set network.docker=interface
		set network.docker.device=docker0
		set network.docker.proto=none
	EOF
	[ -n "$found" ] || uci batch <<-EOF
		add network device
		set network.@device[-1].type=bridge
		set network.@device[-1].name=docker0
	EOF
	uci commit network
	uci -q get firewall.docker >/dev/null || uci batch <<-EOF
		set firewall.docker=zone
		set firewall.docker.name=docker
		add_list firewall.docker.network=docker
	EOF
	uci commit firewall
}
process_config() {
	local alt host hosts=''
	rm -rf /tmp/dockerd
	mkdir -p /tmp/dockerd
	alt="$(uci -q get dockerd.globals.alt_config_file)"
	[ -n "$alt" ] && [ -f "$alt" ] && { ln -s "$alt" /tmp/dockerd/daemon.json; return 0; }
	for host in $(uci -q get dockerd.globals.hosts); do hosts="$hosts${hosts:+, }\\"$host\\""; done
	printf '{"data-root": "%s"%s}' "$(uci -q get dockerd.globals.data_root || echo /opt/docker/)" \
		"${hosts:+, \\"hosts\\": [$hosts]}" >/tmp/dockerd/daemon.json
}
boot() { uciadd; start; }
start_service() {
	process_config
	procd_open_instance
	procd_set_param command dockerd --config-file=/tmp/dockerd/daemon.json
	procd_close_instance
}
reload_service() { process_config; procd_send_signal dockerd; }
"""

# functions that a package manager's scripts call
_FUNCTIONS = """
listed() {
	cat "/lib/apk/packages/$pkgname.list" 2>/dev/null || cat "/usr/lib/opkg/info/$pkgname.list"
}
named() { [ -n "$pkgname" ] || { pkgname="${1##*/}"; pkgname="${pkgname%.*}"; }; }
default_postinst() {
	local file
	named "$1"
	for file in $(listed | grep '^/etc/uci-defaults/'); do
		[ ! -f "$file" ] || { ( . "$file" ) && rm -f "$file"; }
	done
	for file in $(listed | grep '^/etc/init.d/'); do
		[ "$PKG_UPGRADE" = 1 ] || "$file" enable
		"$file" start
	done
}
default_prerm() {
	local file
	named "$1"
	for file in $(listed | grep '^/etc/init.d/'); do
		[ "$PKG_UPGRADE" = 1 ] || "$file" disable
		"$file" stop
	done
}
"""

# logs each version of dockerd's file that was committed, and whether the file that it names existed
_UCI = """#!/bin/sh
{uci} "$@"
code=$?
[ ! -e /etc/config/dockerd ] || cmp -s /etc/config/dockerd /router/last || {
	cp /etc/config/dockerd /router/last
	count=$(($(cat /router/count 2>/dev/null || echo 100) + 1))
	echo $count >/router/count
	named="$({uci} -q -t /nowhere get dockerd.globals.alt_config_file)"
	{ cat /etc/config/dockerd; [ -z "$named" ] || [ -f "$named" ] || echo "# $named is missing"; } >"/router/seen/$count"
}
exit $code
"""

# keeps connecting without TLS, and logs what answers like an engine
_PROBE = """
import socket, time
while True:
    for address in ("127.0.0.1", "192.168.1.1"):
        try:
            with socket.create_connection((address, 2376), timeout=2) as link:
                link.sendall(b"GET /_ping HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n")
                line = link.recv(200).partition(b"\\r\\n")[0]
                if b" 200 " in line:
                    with open("/router/open", "ab") as log:
                        log.write(address.encode() + b" " + line + b"\\n")
        except OSError:
            pass
    time.sleep(0.02)
"""


class WholeRouter:
    """`folder` is empty, not on an overlay, and its path is short."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
        for name in ("flash", "work", "disk", "seen"):
            (folder / name).mkdir()
        self._process: subprocess.Popen[bytes] | None = None
        self._furnish()

    # its content

    def _furnish(self) -> None:
        # below /usr, because /bin, /sbin and /lib are links into it
        self.write("etc/rc.common", _RC_COMMON, mode=0o755)
        self.write("usr/lib/functions.sh", _FUNCTIONS)
        self.write("usr/bin/jsonfilter", _JSONFILTER.replace("/bin/ash", "/bin/sh"), mode=0o755)
        self.write(
            "usr/bin/logger",
            _NOTE.replace("/bin/ash", "/bin/sh").replace("/calls", "/router/log"),
            mode=0o755,
        )
        self.write("usr/bin/ubus", "#!/bin/sh\nexit 4\n", mode=0o755)
        self.write("usr/sbin/procd", "#!/bin/sh\n", mode=0o755)
        self.write("usr/sbin/uci", _UCI.replace("{uci}", str(COMMAND)), mode=0o755)
        shutil.copy("/bin/busybox", self.path("usr/bin/sh"))
        # the machine's Python with the tests' libraries, instead of those in the feed
        program, libraries = os.path.realpath(sys.executable), sysconfig.get_path("purelib")
        self.write("usr/bin/python3", f'#!/bin/sh\nPYTHONPATH={libraries} exec {program} "$@"\n', mode=0o755)

    def install_dockerd(self, globals_: str = "") -> None:
        """Installs OpenWrt's package, as in its image."""
        self.write("etc/init.d/dockerd", _DOCKERD_INIT, mode=0o755)
        if not self.path("etc/config/dockerd").exists():
            self.write(
                "etc/config/dockerd",
                f"config globals 'globals'\n\toption data_root '/opt/docker/'\n{globals_}",
            )
        for name, text in (
            ("network", "config interface 'lan'\n\toption device 'br-lan'\n"),
            ("firewall", "config zone\n\toption name 'lan'\n\tlist network 'lan'\n"),
        ):
            if not self.path(f"etc/config/{name}").exists():
                self.write(f"etc/config/{name}", text)
        self.write("etc/rc.d/S99dockerd", "")

    def path(self, path: str) -> Path:
        """A file of the router: on its flash and, while it runs, in its whole root."""
        pid = self._process and self._init()
        if pid:
            return Path(f"/proc/{pid}/root", path)
        return self.folder / "flash" / path

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text(text)
        target.chmod(mode)

    # running

    def _visible(self) -> list[str]:
        """Directories that may be on other file systems than the root directory."""
        libraries = sysconfig.get_path("purelib")
        wanted = [str(PROJECT), os.path.realpath(sys.base_prefix), libraries, *os.environ["PATH"].split(":")]
        own = ("/usr", "/bin", "/sbin")  # directories that packages write to
        return [name for name in dict.fromkeys(wanted) if Path(name).is_dir() and not name.startswith(own)]

    def boot(self) -> None:
        """Boots it, with all enabled services."""
        (self.folder / "booted").unlink(missing_ok=True)
        script = _BOOT.format(
            folder=self.folder,
            visible=" ".join(self._visible()),
            python=os.path.realpath(sys.executable),
            init=_INIT.replace("'", '"'),
        )
        with (self.folder / "boot.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script],
                stdout=log,
                stderr=log,
            )
        self.wait(lambda: (self.folder / "booted").exists())
        self._spawn("python3", "-c", _PROBE)
        self.run("sh", "-c", "for f in /etc/uci-defaults/*; do [ ! -f $f ] || { ( . $f ) && rm $f; }; done")
        self.run("sh", "-c", "for f in /etc/rc.d/S*; do [ ! -e $f ] || /etc/init.d/${f##*/S??} boot; done")

    def _init(self) -> int:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _words(self, *words: str) -> list[str]:
        return ["nsenter", f"--target={self._init()}", "--mount", "--net", "--pid", "--root", "--wd", *words]

    def _spawn(self, *words: str) -> None:
        subprocess.Popen(self._words(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def run(self, *words: str, limit_s: float = 120, check: bool = True, **environment: str) -> str:
        """Runs a command in it; returns the output."""
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        done = subprocess.run(
            self._words(*words),
            env={"PATH": path, "HOME": "/root", **environment},
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def commit(self, package: str, text: str) -> None:
        """Like LuCI's Save & Apply: the file changes, and procd reloads the services that depend on it."""
        self.write(f"etc/config/{package}.new", text)
        self.path(f"etc/config/{package}.new").replace(self.path(f"etc/config/{package}"))
        self.run("uci", "commit")  # logged like all commits
        for name in ("dockerd", "ucidockd"):
            self.run("sh", "-c", f"[ ! -x /etc/init.d/{name} ] || /etc/init.d/{name} reload")

    def off(self) -> None:
        """Pulls the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def sysupgrade(self) -> None:
        """Installs another image without our package: of the flash only files marked to be kept survive; the disk stays
        as it is."""
        kept = ["/etc/config", "/etc/sysupgrade.conf", *self._kept()]
        self.off()
        before, after = self.folder / "flash", self.folder / "flash.new"
        after.mkdir()
        for name in kept:
            source, target = before / name.strip("/"), after / name.strip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy2(source, target)
        shutil.rmtree(before)
        after.rename(before)
        shutil.rmtree(self.folder / "work")
        (self.folder / "work").mkdir()
        self._furnish()
        self.install_dockerd()

    def _kept(self) -> list[str]:
        """The files that packages of this image and the user want to keep."""
        files = [*self.path("usr/lib/upgrade/keep.d").glob("*"), self.path("etc/sysupgrade.conf")]
        return [
            line
            for file in files
            if file.exists()
            for line in file.read_text().split("\n")
            if line.startswith("/")
        ]

    def close(self) -> None:
        self.off()
        for _ in range(50):
            if subprocess.run(["umount", self.folder], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "-l", self.folder], check=False)

    # observations

    def wait(self, check: Callable[[], object], limit_s: float = 60) -> None:
        deadline = time.monotonic() + limit_s
        while not check():
            assert time.monotonic() < deadline, f"not seen in time\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log"))
        )

    def docker(self, *words: str) -> str:
        """Runs the docker command; "" while there is no engine."""
        return self.run("docker", *words, check=False).strip()

    def opened(self) -> str:
        """Answers that port 2376 gave without TLS."""
        log = self.folder / "open"
        return log.read_text() if log.exists() else ""

    def speaks_tls(self) -> bool:
        """Whether the port answers a handshake."""
        said = self.run("sh", "-c", "openssl s_client -connect 192.168.1.1:2376 </dev/null 2>&1", check=False)
        return "BEGIN CERTIFICATE" in said

    def is_closed(self) -> bool:
        said = self.run("sh", "-c", "openssl s_client -connect 192.168.1.1:2376 </dev/null 2>&1", check=False)
        return "refused" in said

    def seen(self) -> list[str]:
        """Each version of /etc/config/dockerd that was committed, oldest first."""
        return [path.read_text() for path in sorted((self.folder / "seen").iterdir())]
