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


_NAMED = re.compile(r"\$([A-Za-z_]\w*)")  # an expansion by name
# the inside of `${...}`: a name, an operator of the shell, a word
_BRACED = re.compile(r"([A-Za-z_]\w*)(?:(:?[-=?+])(.*))?", re.DOTALL)
_SPECIAL = re.compile(r"\$[0-9@*#?$!-]")  # parameters that only a running shell knows
_ENDS = ";&|\n()"
_REDIRECT = re.compile(r"(?:&>>?|>[>|]?&?|<(?=[ \t]))[ \t]*")
_ASSIGNED = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=")  # `NAME=value` before a command
# Windows' shells continue a line that ends with `^` or "`". Some pasted lines have a comment after the backslash. A shell
# would end the command there, but the author meant the line to continue.
_CONTINUED = re.compile(r"[ \t](?:\\[ \t]+#[^\n]*|(?:\\|\^|`)[ \t]*)\n|\\\n")
_UNSEEN = {0xFEFF: None, 0x200B: None, 0xA0: " "}  # web pages and editors put these between words
_DOUBLE, _SINGLE = '"\u201c\u201d\u201e', "'\u2018\u2019"  # with the typographic quotes of web pages
_PROMPT = re.compile(r"[ \t]*>[ \t]")  # a shell shows it before a continuation line
_PAIRS = {"{": "}", "(": ")"}
_STRUCTURE = re.compile(r"\\.|[(){}'\"]", re.DOTALL)
_EXPANSION_LIMIT = 256  # characters of a `${...}` or `$(...)`
_WHOLE = ("PWD", "HOME")  # folders: not split into words, even if they contain spaces


@dataclass(frozen=True, slots=True)
class Word:
    """One word. `unresolved`: the part that only a shell could replace, as written. `redirect`: a redirection (`>file`)."""

    text: str
    unresolved: str = ""
    redirect: bool = False


class _Splitter:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        text = _joined(text.replace("\r\n", "\n").translate(_UNSEEN))
        # cmd.exe writes `$PWD` as `%cd%`
        self.text = re.sub("%cd%", lambda _: variables.get("PWD", "%cd%"), text, flags=re.IGNORECASE)
        self.variables = variables
        self.at = 0  # position in the text
        self.commands: list[list[Word]] = [[]]
        self.word: str | None = None  # None between two words
        self.unresolved = ""  # a variable in the word that only a shell can know
        self.redirect = ""  # the redirection that the word belongs to

    def run(self) -> list[list[Word]]:
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            # a `#` inside a word does not start a comment, as in `image#1`
            if char == "#" and self.word is None:
                self.at = end if (end := text.find("\n", self.at)) >= 0 else len(text)
            elif redirect := self._redirect_here():
                self.redirect = (self.word or "") + redirect.strip()
                self.word, self.at = "", self.at + len(redirect)
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

    def _redirect_here(self) -> str:
        """The redirection that starts here, "" if none does. At the start of a command `>` is a prompt; inside a word it
        belongs to a placeholder (`<path>`).
        """
        found = _REDIRECT.match(self.text, self.at)
        if found is None or not self.commands[-1] or not (self.word is None or self.word.isdigit()):
            return ""
        return found[0]

    def _end_word(self) -> None:
        if self.word is not None:
            text = f"{self.redirect} {self.word}".replace("& ", "&").strip() if self.redirect else self.word
            self.commands[-1].append(Word(text, self.unresolved, bool(self.redirect)))
        self.word, self.unresolved, self.redirect = None, "", ""

    def _add(self, text: str) -> None:
        self.word = (self.word or "") + text

    def _piece(self, char: str) -> None:
        # within single quotes nothing is special, not even a backslash (POSIX shell, 2.2.2)
        if char == "'" or (char in _SINGLE and not (self.word or "")[-1:].isalnum()):
            closing = "'" if char == "'" else _SINGLE
            ends = [end for each in closing if (end := self.text.find(each, self.at + 1)) >= 0]
            if not ends:
                raise ValueError("a single quote is not closed")
            self._add(self.text[self.at + 1 : min(ends)])
            self.at = min(ends) + 1
        elif char in _DOUBLE:
            self._double('"' if char == '"' else _DOUBLE)
        elif char == "\\":
            self._add(self.text[self.at + 1 : self.at + 2])
            self.at += 2
        elif char in "$`":
            self._expand(quoted=False)
        else:
            self._add(char)
            self.at += 1

    def _double(self, closing: str) -> None:
        self._add("")
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in closing:
                self.at += 1
                return
            # in double quotes a backslash before any other character is literal (POSIX shell, 2.2.3)
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`"):
                self._add(self.text[self.at + 1])
                self.at += 2
            elif char in "$`":
                self._expand(quoted=True)
            else:
                self._add(char)
                self.at += 1
        raise ValueError("a double quote is not closed")

    def _expand(self, *, quoted: bool) -> None:
        end = _end_of_expansion(self.text, self.at)
        written = self.text[self.at : end]
        self.at = end
        if len(written) == 1:  # a literal character, unless the end of an expansion is missing
            self._add(written)
            if self.text[end : end + 1] in ("{", "("):
                self.unresolved = self.unresolved or written
            return
        value = self._value(written)
        if value is None:
            self._add(written)
            self.unresolved = self.unresolved or written
        elif quoted or any(name in written for name in _WHOLE) or "pwd" in written:
            self._add(value)
        else:
            # like a shell: the value of an unquoted variable is split into words; an empty value makes no word
            for number, part in enumerate(value.split()):
                if number:
                    self._end_word()
                self._add(part)

    def _value(self, written: str) -> str | None:
        """The value that a shell would insert for `$...`; None if only a shell can know it."""
        if written[0] == "`" or (written.startswith("$(") and not written.startswith("$((")):
            command = written[1:-1].removeprefix("(").strip()
            # no command is executed: `$(pwd)` is the folder, if known, and `$(# comment)` is empty
            return "" if command.startswith("#") else self.variables.get("PWD") if command == "pwd" else None
        if written.startswith("${"):
            found = _BRACED.fullmatch(written[2:-1])
            return self._braced(found[1], found[2] or "", found[3] or "") if found else None
        return self.variables.get(written[1:])

    def _braced(self, name: str, operator: str, argument: str) -> str | None:
        value = self.variables.get(name)
        # with a colon an empty value counts as unset
        if value == "" and operator.startswith(":"):
            value = None
        if operator[-1:] in ("-", "="):
            return self._text(argument) if value is None else value
        if operator.endswith("+"):
            return None if value is None else self._text(argument)
        return value

    def _text(self, text: str) -> str | None:
        """A default value, with the variables in it replaced; None if only a shell can know one of them."""
        text = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
        made, at = "", 0
        while at < len(text):
            end = _end_of_expansion(text, at) if text[at] in "$`" else at + 1
            value = text[at:end] if end == at + 1 else self._value(text[at:end])
            if value is None:
                return None
            made, at = made + value, end
        return made


def _joined(text: str) -> str:
    """Joins continued lines. Removes the prompt (`> `) that a shell shows before each continuation line."""
    prompts = [_PROMPT.match(text, found.end()) for found in _CONTINUED.finditer(text)]
    if prompts and all(prompts) and (len(prompts) > 1 or re.match(r"\s*\S*[#$%][ \t]", text)):
        text = re.sub(rf"({_CONTINUED.pattern}){_PROMPT.pattern}", r"\1", text)
    return _CONTINUED.sub(lambda found: "" if found[0] == "\\\n" else " ", text)


def _end_of_expansion(text: str, start: int) -> int:
    """The index after the `$NAME`, `${...}`, `$(...)` or "`...`" at `start`; `start + 1` if none begins there."""
    if text[start] == "`":
        end = text.find("`", start + 1)
        return end + 1 if end > 0 else start + 1
    if found := _NAMED.match(text, start) or _SPECIAL.match(text, start):
        return found.end()
    opening = text[start + 1 : start + 2]
    if opening not in _PAIRS:
        return start + 1
    # The limit keeps the time of a text with thousands of them, none of them closed, from growing with its square.
    depth, limit = 0, start + _EXPANSION_LIMIT
    at = start + 1
    while found := _STRUCTURE.search(text, at, limit):
        at = found.end()
        if found[0] == opening:
            depth += 1
        elif found[0] == _PAIRS[opening]:
            depth -= 1
        elif found[0] in "'\"" and (end := text.find(found[0], at, limit)) >= 0:
            at = end + 1
        if not depth:
            return at
    return start + 1


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
