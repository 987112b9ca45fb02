# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses a pasted `docker run` line: splits it into words like a shell, and knows the flags of `docker container run`.

The row of a flag names the `container` option that does the same. The list is that of docker/cli,
`cli/command/container/opts.go` and `run.go`. A row without an option has a reason, which ends the sentence "is left
out: ...". `make manual` writes docs/docker-run-flags.md from the rows.

Words are split as far as such lines need it (POSIX shell, 2.2 and 2.3). Nothing is executed: a `$(...)`, or a
variable without a value, stays in the word and is noted in its `unresolved`. `shlex` would not do, because it does
not distinguish `'$x'` from `"$x"`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag. `switch`: it takes no value, except as `--flag=false`. `remark`: a note for docs/docker-run-flags.md."""

    name: str
    option: str = ""
    reason: str = ""
    remark: str = ""
    short: str = ""
    switch: bool = False


def _flag(name: str, option: str, short: str = "", *, remark: str = "") -> Flag:
    return Flag(name=name, option=option, short=short, remark=remark)


def _switch(name: str, option: str, short: str = "", *, remark: str = "") -> Flag:
    return Flag(name=name, option=option, short=short, switch=True, remark=remark)


def _no(name: str, reason: str, short: str = "", *, switch: bool = False) -> Flag:
    return Flag(name=name, reason=reason, short=short, switch=switch)


_TERMINAL = "it is about the terminal that starts the container"
_WINDOWS = "it is for Windows only"

FLAGS = (
    _flag("add-host", "extra_host"),
    _flag("annotation", "annotation", remark="needs Docker 24.0"),
    _no("attach", _TERMINAL, "a"),
    _flag("blkio-weight", "blkio_weight"),
    _flag("blkio-weight-device", "blkio_weight_device"),
    _flag("cap-add", "cap_add"),
    _flag("cap-drop", "cap_drop"),
    _flag("cgroup-parent", "cgroup_parent"),
    _flag("cgroupns", "cgroupns"),
    _no("cidfile", "the agent keeps the ids of containers itself"),
    _no("cpu-count", _WINDOWS),
    _no("cpu-percent", _WINDOWS),
    _flag("cpu-period", "cpu_period", remark="not together with `cpus`, which is easier to read"),
    _flag("cpu-quota", "cpu_quota", remark="not together with `cpus`, which is easier to read"),
    _flag("cpu-rt-period", "cpu_rt_period", remark="cgroup v1 and a kernel with `RT_GROUP_SCHED`"),
    _flag("cpu-rt-runtime", "cpu_rt_runtime", remark="cgroup v1 and a kernel with `RT_GROUP_SCHED`"),
    _flag("cpu-shares", "cpu_shares", "c"),
    _flag("cpus", "cpus"),
    _flag("cpuset-cpus", "cpuset"),
    _flag("cpuset-mems", "cpuset_mems"),
    _no("detach", "containers of sections always run in the background", "d", switch=True),
    _no("detach-keys", _TERMINAL),
    _flag("device", "device", remark="also CDI names (`vendor.com/class=name`) and `usb:VID:PID`"),
    _flag("device-cgroup-rule", "device_cgroup_rule"),
    _flag("device-read-bps", "device_read_bps"),
    _flag("device-read-iops", "device_read_iops"),
    _flag("device-write-bps", "device_write_bps"),
    _flag("device-write-iops", "device_write_iops"),
    _no("disable-content-trust", "docker has removed it", switch=True),
    _flag("dns", "dns"),
    _flag("dns-opt", "dns_opt"),
    _flag("dns-option", "dns_opt"),
    _flag("dns-search", "dns_search"),
    _flag("domainname", "domainname"),
    _flag("entrypoint", "entrypoint"),
    _flag("env", "env", "e"),
    _flag("env-file", "env_file"),
    _flag("expose", "expose"),
    _flag("gpus", "gpus", remark="`device=0,1` needs no quotes inside; or a CDI name in `list device`"),
    _flag("group-add", "group_add"),
    _flag(
        "health-cmd", "health_cmd", remark="as a `list`, the program and its arguments, run without a shell"
    ),
    _flag("health-interval", "health_interval"),
    _flag("health-retries", "health_retries"),
    _flag("health-start-interval", "health_start_interval", remark="needs Docker 25.0"),
    _flag("health-start-period", "health_start_period"),
    _flag("health-timeout", "health_timeout"),
    _no("help", "it sets nothing", switch=True),
    _flag("hostname", "hostname", "h"),
    _switch("init", "init"),
    _switch("interactive", "stdin", "i", remark="without a terminal that attaches to it"),
    _no("io-maxbandwidth", _WINDOWS),
    _no("io-maxiops", _WINDOWS),
    _flag("ip", "ip"),
    _flag("ip6", "ip6"),
    _flag("ipc", "ipc"),
    _no("isolation", _WINDOWS),
    _no("kernel-memory", "the kernel and docker have removed it"),
    _flag("label", "label", "l"),
    _no("label-file", "write its lines as `list label`"),
    _no("link", "put both containers into one `list network`: their names resolve there"),
    _flag("link-local-ip", "network", remark="`link_local=` in the entry"),
    _flag("log-driver", "log_driver"),
    _flag("log-opt", "log_opt"),
    _flag(
        "mac-address",
        "mac_address",
        remark="of the first network; `mac=` in the entry of any (of others than the first: Docker 25.0)",
    ),
    _flag("memory", "memory", "m"),
    _flag("memory-reservation", "memory_reservation"),
    _flag("memory-swap", "memory_swap"),
    _flag(
        "memory-swappiness",
        "memory_swappiness",
        remark="cgroup v1 only: with cgroup v2 the engine ignores it",
    ),
    _flag("mount", "volume", remark="binds, volumes and, with `list tmpfs`, memory"),
    _flag("name", "name"),
    _flag("net", "network"),
    _flag("net-alias", "network", remark="`alias=` in the entry"),
    _flag(
        "network",
        "network",
        remark="also its settings: `driver_opt=key=value`, `gw_priority=` (Docker 28.0), `link_local=`, `mac=`",
    ),
    _flag("network-alias", "network", remark="`alias=` in the entry"),
    _switch("no-healthcheck", "health_cmd", remark="`option health_cmd 'none'`"),
    _switch("oom-kill-disable", "oom_kill_disable"),
    _flag("oom-score-adj", "oom_score_adj"),
    _flag("pid", "pid"),
    _flag("pids-limit", "pids_limit"),
    _flag("platform", "platform"),
    _switch("privileged", "privileged"),
    _flag("publish", "port", "p", remark="a host port of `0`, as none, leaves it to the engine"),
    _switch("publish-all", "publish_all", "P"),
    _flag("pull", "pull"),
    _no("quiet", _TERMINAL, "q", switch=True),
    _switch("read-only", "read_only"),
    _flag("restart", "restart"),
    _no("rm", "a section keeps its container; remove the section to remove the container", switch=True),
    _flag("runtime", "runtime"),
    _flag("security-opt", "security_opt"),
    _flag("shm-size", "shm_size"),
    _no("sig-proxy", _TERMINAL, switch=True),
    _flag("stop-signal", "stop_signal"),
    _flag("stop-timeout", "stop_timeout"),
    _flag("storage-opt", "storage_opt"),
    _flag("sysctl", "sysctl"),
    _flag("tmpfs", "tmpfs"),
    _switch("tty", "tty", "t"),
    _flag("ulimit", "ulimit"),
    _no(
        "use-api-socket",
        "it hands the engine and your registry logins to the container; if you want that, bind /var/run/docker.sock",
        switch=True,
    ),
    _flag("user", "user", "u"),
    _flag("userns", "userns"),
    _flag("uts", "uts"),
    _flag("volume", "volume", "v"),
    _flag(
        "volume-driver",
        "volume_driver",
        remark="of volumes without a section; others have `option driver` in their `volume` section",
    ),
    _flag(
        "volumes-from",
        "volumes_from",
        remark="a section (or the name of a container that is not declared), with `:ro` where wanted",
    ),
    _flag("workdir", "workdir", "w"),
)

BY_NAME = {flag.name: flag for flag in FLAGS}
BY_LETTER = {flag.short: flag for flag in FLAGS if flag.short}


_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?-([^{}$]*))?\})")
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)|`([^`]*)`")
_ENDS = ";&|\n()"
_ASSIGNED = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=")


@dataclass(frozen=True, slots=True)
class Word:
    """One word. `unresolved`: the part that only a shell could replace, as it was written."""

    text: str
    unresolved: str = ""


class _Splitter:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        # in Windows' shells `^` and "`" at the end of a line continue it
        self.text = re.sub(r"[ \t](?:\\|\^|`)[ \t]*\r?\n", " ", text.replace("\r\n", "\n"))
        self.text = re.sub(r"\\\n", "", self.text)
        self.variables = variables
        self.at = 0
        self.commands: list[list[Word]] = [[]]
        self.word: str | None = None
        self.unresolved = ""

    def run(self) -> list[list[Word]]:
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            # a `#` inside a word does not start a comment, as in `image#1`
            if char == "#" and self.word is None:
                self.at = end if (end := text.find("\n", self.at)) >= 0 else len(text)
            elif char in _ENDS:
                self._end_word()
                self.at += 1
                if self.commands[-1]:
                    self.commands.append([])
            elif char.isspace():
                self._end_word()
                self.at += 1
            else:
                self._piece(char)
        self._end_word()
        return [command for command in self.commands if command]

    def _end_word(self) -> None:
        if self.word is not None:
            self.commands[-1].append(Word(self.word, self.unresolved))
        self.word, self.unresolved = None, ""

    def _add(self, text: str) -> None:
        self.word = (self.word or "") + text

    def _piece(self, char: str) -> None:
        # within single quotes nothing is special, not even a backslash (POSIX shell, 2.2.2)
        if char == "'":
            end = self.text.find("'", self.at + 1)
            if end < 0:
                raise ValueError("a single quote is not closed")
            self._add(self.text[self.at + 1 : end])
            self.at = end + 1
        elif char == '"':
            self._double()
        elif char == "\\":
            self._add(self.text[self.at + 1 : self.at + 2])
            self.at += 2
        elif char in "$`":
            self._expand()
        else:
            self._add(char)
            self.at += 1

    def _double(self) -> None:
        self._add("")
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return
            # in double quotes a backslash before any other character is literal (POSIX shell, 2.2.3)
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`"):
                self._add(self.text[self.at + 1])
                self.at += 2
            elif char in "$`":
                self._expand()
            else:
                self._add(char)
                self.at += 1
        raise ValueError("a double quote is not closed")

    def _expand(self) -> None:
        found = _VARIABLE.match(self.text, self.at)
        if found:
            name, value = found[1] or found[2], None
            value = self.variables.get(name)
            if value is None and found[3] is not None:
                value = found[3]
        else:
            found = _SUBSTITUTION.match(self.text, self.at)
            if not found:
                self._add(self.text[self.at])
                self.at += 1
                return
            # nothing is executed, but `$(pwd)` is the folder, which may be known
            value = self.variables.get("PWD") if (found[1] or found[2] or "").strip() == "pwd" else None
        self.at = found.end()
        self._add(found[0] if value is None else value)
        if value is None:
            self.unresolved = self.unresolved or found[0]


def split_commands(text: str, variables: Mapping[str, str]) -> list[list[Word]]:
    """The commands in `text`. Raises ValueError if a quote is not closed.

    Assignments on lines of their own (`TZ=Europe/Berlin`) apply to all commands.
    """
    known = dict(variables)
    # a variable may refer to another one: repeat until no new one is found
    while True:
        commands = _Splitter(text, known).run()
        new = {
            found[1]: word.text[found.end() :]
            for command in commands
            if len(command) == 1 or command[0].text == "export"
            for word in command[-1:]
            if (found := _ASSIGNED.match(word.text)) and not word.unresolved and found[1] not in known
        }
        if not new:
            return commands
        known |= new
