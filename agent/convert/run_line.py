# SPDX-License-Identifier: GPL-2.0-or-later
"""`docker run` lines as sections; also `docker create`, `docker network create`, `docker volume create`, and podman's.

The flags are in `command_line`. Their values follow docker/cli, `opts/` and `cli/command/container/opts.go`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from posixpath import basename, join, normpath

from agent.convert.command_line import BY_LETTER, BY_NAME, Flag, Word, split_commands
from agent.convert.conversion import Conversion, Line, SectionDraft, Verdict
from agent.errors import ConfigError

_ENGINES = ("docker", "podman", "nerdctl")  # programs with the same `run`
_COMPOSE = ("docker-compose", "podman-compose")
_BEFORE = ("sudo", "doas", "exec", "nohup", "time", "env")  # programs that run another one
_BEFORE_VALUED = ("-u", "-g", "-C", "--user", "--group")  # options of sudo and doas that take a value
# a prompt in front of the command has at most so many words: `$`, `root@OpenWrt:~#`, `[me@nas ~]$`, `PS C:\\Users\\me>`
_PROMPT_WORDS = 3
_COMMENTED = re.compile(
    r"^[ \t]*#[ \t]*(?=(?:(?:sudo|doas)[ \t]+)?(?:docker|podman|nerdctl)[ \t])", re.MULTILINE
)
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"  # web pages write these instead of `-` and `--`
# docker's global flags that take a value; they stand before the command
_GLOBAL = (
    "-H",
    "--host",
    "-c",
    "--context",
    "--config",
    "-l",
    "--log-level",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
)
_FALSE = ("0", "f", "F", "false", "FALSE", "False")  # what Go's ParseBool takes as false
_MODES = ("bridge", "host", "none")
# docker's name for a setting of one network -> ours
_SETTINGS = {
    "alias": "alias",
    "network-alias": "alias",
    "net-alias": "alias",
    "ip": "ip",
    "ip6": "ip6",
    "mac-address": "mac",
    "gw-priority": "gw_priority",
    "driver-opt": "driver_opt",
    "link-local-ip": "link_local",
}
_NETWORK_FLAGS = {
    "driver": "driver",
    "d": "driver",
    "subnet": "subnet",
    "gateway": "gateway",
    "ip-range": "ip_range",
    "aux-address": "aux_address",
    "opt": "opt",
    "o": "opt",
    "label": "label",
    "internal": "internal",
    "attachable": "attachable",
    "ipv6": "ipv6",
}
_VOLUME_FLAGS = {
    "driver": "driver",
    "d": "driver",
    "opt": "opt",
    "o": "opt",
    "label": "label",
    "name": "name",
}
_LINES = "its lines are read as one, although no backslash ends them"
_VOLUME_SETTINGS = {"volume-driver": "driver", "volume-opt": "opt", "volume-label": "label"}
_SWITCHES = ("internal", "attachable", "ipv6", "ingress", "config-only")


def import_run(
    text: str | Sequence[str],
    conversion: Conversion,
    *,
    folder: str = "",
    variables: Mapping[str, str] | None = None,
) -> None:
    """Adds the sections for `text`: shell text with any number of commands, or the words of one command.

    `folder`: the absolute path that relative paths start from, also the value of `$PWD`; "" if it is not known.
    Raises ConfigError if there is no `docker run`, or a quote is not closed.
    """
    known = {"HOME": "/root", **({"PWD": folder} if folder else {}), **(variables or {})}
    found = _commands(text, known)
    if not any(verb in ("run", "create") for verb, _, _ in found) and isinstance(text, str):
        # wikis write `# docker run ...`, where `#` is root's prompt and not a comment
        found = _commands(_COMMENTED.sub("", text), known)
    if not any(verb in ("run", "create") for verb, _, _ in found):
        is_compose = any(verb in ("compose", "docker-compose") for verb, _, _ in found)
        wish = (
            "`ucidockd import compose FILE` takes a compose file"
            if is_compose
            else "expected a line such as docker run -d nginx"
        )
        raise ConfigError(f"there is no `docker run` in it; {wish}")
    # networks and volumes first, because containers refer to them
    order = {"network create": 0, "volume create": 0}
    networks = dict(conversion.networks_there)
    for verb, words, command in sorted(_whole(conversion, found), key=lambda each: order.get(each[0], 1)):
        if verb in ("run", "create"):
            _Container(conversion, networks, folder).read(words)
        elif verb in order:
            _object(conversion, verb.split()[0], words, networks)
        else:
            _other(conversion, verb, command)


_Found = tuple[str, Sequence[Word], Sequence[Word]]  # the verb, the words after it, all words of the command


def _commands(text: str | Sequence[str], known: Mapping[str, str]) -> list[_Found]:
    try:
        commands = split_commands(text, known) if isinstance(text, str) else [[Word(word) for word in text]]
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
    return [(*_command(command), command) for command in commands]


def _whole(conversion: Conversion, found: Sequence[_Found]) -> list[_Found]:
    """Removes redirections. Appends the following lines to a `docker run` that has no image yet, because copying from a
    web page may lose the backslashes.
    """
    made: list[_Found] = []
    for verb, words, command in found:
        for word in command:
            if word.redirect:
                conversion.left_out(word.text, "`ucidockd logs` shows what a container prints")
        words, command = ([w for w in each if not w.redirect] for each in (words, command))
        last = made[-1] if made else ("", (), ())
        may_go_on = verb in ("", "assignment") and last[0] in ("run", "create")
        if may_go_on and _Container(Conversion(), {}, "").flags(last[1])[0] is None:
            line = Line(where="docker run", verdict=Verdict.CHANGED, text=_LINES)
            if line not in conversion.report:
                conversion.report.append(line)
            made[-1] = (last[0], [*last[1], *command], last[2])
        elif command:
            made.append((verb, words, command))
    return made


def _command(words: Sequence[Word]) -> tuple[str, Sequence[Word]]:
    """What a command does (`run`, `network create`), and the words after that; "" if it is not a docker command."""
    at = _program(words, 0)
    # people paste lines with a prompt in front
    for number, word in enumerate(words[:_PROMPT_WORDS]):
        if at is None and word.text[-1:] in ("#", "$", "%", ">"):
            at = _program(words, number + 1)
    if at is None:
        assigned = all(re.match(r"[A-Za-z_]\w*=", word.text) for word in words)
        return ("assignment" if assigned else "", words)
    if basename(words[at].text) in _COMPOSE:
        return "docker-compose", words[at + 1 :]
    at += 1
    while at < len(words) and words[at].text.startswith("-"):
        at += 2 if words[at].text in _GLOBAL else 1
    verb = words[at].text if at < len(words) else ""
    rest = words[at + 1 :]
    if verb == "container":
        return _second(rest)
    if verb in ("network", "volume"):
        inner, rest = _second(rest)
        return f"{verb} {inner}", rest
    return verb, rest


def _program(words: Sequence[Word], at: int) -> int | None:
    """The index of the word `docker`, after `sudo -E`, `VAR=value` and similar; None if another program is called."""
    before = ""
    while at < len(words):
        text = words[at].text
        if basename(text) in (*_ENGINES, *_COMPOSE):
            return at
        if text in _BEFORE:
            before = text
        elif before and text.startswith("-"):
            # an option that takes a value: that is passed over too
            at += text in _BEFORE_VALUED
        elif not re.match(r"[A-Za-z_]\w*=", text):
            return None
        at += 1
    return None


def _second(words: Sequence[Word]) -> tuple[str, Sequence[Word]]:
    return (words[0].text, words[1:]) if words else ("", words)


def _other(conversion: Conversion, verb: str, words: Sequence[Word]) -> None:
    shown = " ".join(word.text for word in words[:4]) + (" ..." if len(words) > 4 else "")
    name = basename(words[0].text)
    # a variable is reported where it is used
    if verb == "assignment":
        return
    if verb in ("pull", "image"):
        conversion.left_out(shown, "the agent pulls images by itself")
    elif verb in ("stop", "rm", "start", "restart", "kill"):
        conversion.left_out(shown, "it changes what runs now; sections declare what should run")
    elif name in ("cd", "echo", "export", "set"):
        conversion.left_out(shown, "it starts no container")
    elif name in ("mkdir", "chown", "chmod", "touch", "cp", "curl", "wget"):
        conversion.left_out(shown, "run it yourself before the container starts")
    else:
        conversion.unknown(
            shown, "only docker run, docker create, docker network create and docker volume create are read"
        )


class _Container:
    """One `docker run`."""

    def __init__(self, conversion: Conversion, networks: dict[str, str], folder: str) -> None:
        self.conversion = conversion
        self.networks = networks  # Docker name -> section
        self.folder = folder
        self.draft = SectionDraft("container", "")
        self.networks_of: dict[str, list[tuple[str, str]]] = {}  # by Docker name: alias, ip, ...
        # volumes for which `--mount` sets a driver, options or labels: section, name, settings
        self.volumes_of: list[tuple[str, str, list[tuple[str, str]]]] = []
        # settings of the first network that were given as separate flags: key, value, the flag as written
        self.loose: list[tuple[str, str, str]] = []

    def read(self, words: Sequence[Word]) -> None:
        image, command = self.flags(words)
        draft = self.draft
        if image is None:
            self.conversion.unknown("docker run", "it names no image")
            return
        if image.unresolved:
            self.conversion.unknown(image.text, f"write the image instead of {image.unresolved}")
            return
        name = str(draft.options.pop("name", ""))
        base = basename(image.text).partition("@")[0].partition(":")[0]
        # only now, so that a line without an image leaves no section behind
        made = self.conversion.draft("container", name or base)
        if name and made.name != name:
            made.put("name", name, "--name")
        if not name:
            self.conversion.changed(
                "--name", f"docker would make up a name; the container is called {made.name}"
            )
        made.put("image", image.text, "image")
        if "restart" not in draft.options:
            made.put("restart", "no", "--restart")
            self.conversion.changed(
                "--restart", "without it nothing restarts the container: `option restart no`"
            )
        for (option, index), where in draft.sources.items():
            value = draft.options.get(option)
            if value is not None:
                made.put(option, value if isinstance(value, str) else value[index or 0], where)
        self._volumes(made)
        self._networks(made)
        for word in command:
            if word.unresolved:
                self.conversion.unknown("command", f"write the value instead of {word.unresolved}")
            made.put("command", word.text, "command")
        self.conversion.taken(f"image {image.text}")
        if command:
            self.conversion.taken("command")

    # flags

    def flags(self, words: Sequence[Word]) -> tuple[Word | None, Sequence[Word]]:
        """Reads the flags; returns the image and the words after it."""
        at = 0
        while at < len(words):
            word = words[at]
            text = self._plain(word.text)
            if text == "--":
                at += 1
                break
            # docker stops parsing flags at the image: what follows is the container's command
            if not text.startswith("-") or text == "-":
                break
            at += 1
            if text.startswith("--"):
                name, equals, value = text[2:].partition("=")
                at += self._long(name, Word(value, word.unresolved) if equals else None, words[at : at + 1])
            else:
                at += self._letters(text[1:], word.unresolved, words[at : at + 1])
        return (words[at], words[at + 1 :]) if at < len(words) else (None, ())

    def _plain(self, text: str) -> str:
        """The flag with the dashes that docker expects. Web pages turn `--name` into `–name`; people write `-name` and
        `--e`.
        """
        name = text.lstrip(_DASHES + "-").partition("=")[0]
        dashes = text[: len(text) - len(text.lstrip(_DASHES + "-"))]
        plain = text
        if set(dashes) & set(_DASHES):
            plain = f"{'--' if name in BY_NAME else '-'}{text[len(dashes) :]}"
        # not `-ip`, which may mean `-i -p`
        elif (dashes == "-" and name in BY_NAME and name != "ip") or (dashes == "--" and name in BY_LETTER):
            plain = f"{'--' if dashes == '-' else '-'}{text[len(dashes) :]}"
        if plain != text:
            written, read = (each.partition("=")[0] for each in (text, plain))
            self.conversion.changed(written, f"it is read as {read}")
        return plain

    def _long(self, name: str, value: Word | None, following: Sequence[Word]) -> int:
        """Reads a long flag; returns how many further words it took."""
        flag = BY_NAME.get(name)
        if flag is None:
            # an unknown flag takes no value: the next word is read by itself, and may be the image
            wish = _near(name)
            if value is None and following and not following[0].text.startswith("-"):
                wish += f"; if the word after it is its value and not the image, write --{name}=..."
            self.conversion.unknown(f"--{name}", f"docker run has no such flag{wish}")
            return 0
        if flag.switch or value is not None:
            self._flag(flag, value or Word("true"))
            return 0
        if not following:
            self.conversion.unknown(f"--{name}", "its value is missing")
            return 0
        self._flag(flag, following[0])
        return 1

    def _letters(self, letters: str, unresolved: str, following: Sequence[Word]) -> int:
        """Reads short flags: `-itd`, `-p80:80`, `-p=80:80`, `-p 80:80` (spf13/pflag)."""
        for at, letter in enumerate(letters):
            flag = BY_LETTER.get(letter)
            rest = letters[at + 1 :]
            if flag is None:
                self.conversion.unknown(f"-{letter}", "docker run has no such flag")
                return 0
            if not flag.switch:
                # like the docker CLI: the first letter that takes a value takes all the rest
                if rest:
                    self._flag(flag, Word(rest.removeprefix("="), unresolved))
                    return 0
                return self._long(flag.name, None, following)
            if rest.startswith("="):
                self._flag(flag, Word(rest[1:], unresolved))
                return 0
            self._flag(flag, Word("true"))
        return 0

    def _flag(self, flag: Flag, word: Word) -> None:
        where = f"--{flag.name}"
        if word.unresolved:
            place = f"{where} {_shown(flag.option, word.text)}".strip()
            self.conversion.unknown(
                place, f"write the value instead of {word.unresolved}, which only a shell knows"
            )
            return
        if flag.reason:
            where += "" if flag.switch else f" {word.text}"
            if flag.switch and word.text in _FALSE:
                self.conversion.taken(where)
            else:
                self.conversion.left_out(where, flag.reason)
            return
        # most flags need only their row in the table; the others have a function
        special = _SPECIAL.get(flag.name)
        if special is not None:
            special(self, where, word.text)
            return
        value = word.text
        if flag.switch:
            value = "0" if value in _FALSE else "1"
        self._put(flag.option, value, where)

    def _put(self, option: str, value: str, where: str, *, changed: str = "") -> None:
        place = f"{where} {_shown(option, value)}".strip()
        self.draft.put(option, value, place)
        if changed:
            self.conversion.changed(place, changed)
        else:
            self.conversion.taken(place)

    # flags whose value has another form in a section

    def name(self, where: str, value: str) -> None:
        self._put("name", value.lstrip("/"), where)

    def env(self, where: str, value: str) -> None:
        if "=" not in value:
            self.conversion.left_out(
                f"{where} {value}", "docker takes its value from your shell; write NAME=value"
            )
            return
        self._put("env", value, where)

    def entrypoint(self, where: str, value: str) -> None:
        self.draft.put("entrypoint", value, where)
        self.conversion.taken(where)

    def no_healthcheck(self, where: str, value: str) -> None:
        if value not in _FALSE:
            self._put("health_cmd", "none", where)

    def health_cmd(self, where: str, value: str) -> None:
        """A string; a list in a section would be docker's exec form, which the flag cannot express."""
        self.draft.options.pop("health_cmd", None)
        self._put("health_cmd", value, where)

    def path(self, path: str) -> str:
        """The absolute path; "" if that needs a folder that is not known."""
        if path.startswith("~/") or path == "~":
            return normpath(join("/root", path[2:]))
        if path.startswith("/"):
            return path
        return normpath(join(self.folder, path)) if self.folder else ""

    def env_file(self, where: str, value: str) -> None:
        path = self.path(value)
        if not path:
            self.conversion.left_out(
                f"{where} {value}", "give the folder that it starts from, or an absolute path"
            )
            return
        self._put("env_file", path, where, changed="" if path == value else f"its absolute path is {path}")

    def volume(self, where: str, value: str) -> None:
        source, colon, rest = value.partition(":")
        # docker resolves `./data` from the shell's folder; a word without a slash is the name of a volume
        if colon and (source.startswith((".", "~")) or ("/" in source and not source.startswith("/"))):
            path = self.path(source)
            if not path:
                self.conversion.left_out(
                    f"{where} {value}", "give the folder that it starts from, or an absolute path"
                )
                return
            self._put("volume", f"{path}:{rest}", where, changed=f"its absolute path is {path}")
            return
        self._put("volume", value, where)

    def mount(self, where: str, value: str) -> None:
        fields, shown = _fields(value), f"{where} {value}"
        source = next((text for key, text in fields if key in ("source", "src")), "")
        settings = [(_VOLUME_SETTINGS[key], text) for key, text in fields if key in _VOLUME_SETTINGS]
        # an entry of `volume` cannot hold options of the volume: it gets a section of its own
        if settings and source:
            section = self.conversion.free_name(source, prefix="vol")
            self.conversion.taken_names.add(section)
            self.volumes_of.append((section, source, settings))
            fields = [(key, section if text == source else text) for key, text in fields]
            fields = [pair for pair in fields if pair[0] not in _VOLUME_SETTINGS]
        entry = mount_entry(fields, self.path)
        if isinstance(entry, str):
            self.conversion.left_out(shown, entry)
            return
        option, text, lost = entry
        self.draft.put(option, text, shown)
        self.conversion.changed(shown, f"`list {option} '{text}'`" + (f"; {lost}" if lost else ""))

    def security_opt(self, where: str, value: str) -> None:
        self._put("security_opt", security_option(value, self.path), where)

    def network(self, where: str, value: str) -> None:
        """A network's name, or docker's long form `name=...,alias=...,ip=...`."""
        name, settings = value, []
        if "=" in value:
            name = ""
            for key, text in _fields(value):
                if key == "name":
                    name = text
                elif key in _SETTINGS:
                    settings.append((_SETTINGS[key], text))
                else:
                    self.conversion.left_out(f"{where} {key}", "a section cannot express it")
        shown = f"{where} {value}"
        # a section without `list network` is on the default bridge
        if name in ("default", ""):
            self.conversion.taken(shown)
        # compose writes `service:` where docker writes `container:`
        elif name.startswith(("container:", "service:")):
            self._put("network_mode", name, where)
        else:
            self.networks_of.setdefault(name, []).extend(settings)
            self.conversion.taken(shown)

    def setting(self, where: str, value: str) -> None:
        """An address or a name in the first network."""
        self.loose.append((_SETTINGS[where.lstrip("-")], value, f"{where} {value}"))

    def _networks(self, made: SectionDraft) -> None:
        """Networks need sections: one that has none gets a section, which takes over an existing network."""
        modes = [name for name in self.networks_of if name in _MODES]
        if len(self.networks_of) == len(modes) <= 1:
            mode = modes[0] if modes else ""
            for key, value, where in self.loose:
                if key == "mac" and mode in ("", "bridge"):
                    made.put("mac_address", value, where)
                    self.conversion.taken(where)
                    mode = ""  # the address was for the default bridge
                    continue
                self.conversion.left_out(where, "it needs a --network with a name")
            if mode:
                made.put("network_mode", mode, "--network")
            return
        for position, (name, settings) in enumerate(self.networks_of.items()):
            long = [(key, text, f"--network {name} {key}={text}") for key, text in settings]
            loose = self.loose if position == 0 else []
            section = name if name in _MODES else self.networks.get(name)
            parts = []
            is_new = section is None
            if section is None:
                section = self._new_network(name, made)
            for key, text, where in [*long, *loose]:
                # an address must be in the subnet of the network's section, and the line does not state that subnet
                if is_new and key in ("ip", "ip6"):
                    wish = f"give network {section} its `list subnet`, then add it"
                    self.conversion.left_out(where, wish)
                    continue
                parts.append(f"{key}={text}")
                if (key, text, where) in loose:
                    self.conversion.taken(where)
            made.put("network", ",".join([section, *parts]), f"--network {name}")

    def _volumes(self, made: SectionDraft) -> None:
        for section, name, settings in self.volumes_of:
            draft = SectionDraft("volume", section)
            if section != name:
                draft.put("name", name)
            # a volume of that name may exist, with the data that the line expects
            draft.put("adopt", "1")
            for option, text in settings:
                draft.put(option, text, f"--mount {name}")
            self.conversion.drafts.insert(self.conversion.drafts.index(made), draft)
            self.conversion.changed(f"--mount {name}", f"a section `volume {section}` has its options")

    def _new_network(self, name: str, made: SectionDraft) -> str:
        draft = self.conversion.draft("network", name, prefix="net")
        if draft.name != name:
            draft.put("name", name)
        draft.put("adopt", "1")
        # before the container, so that the preview reads from top to bottom
        self.conversion.drafts.remove(draft)
        self.conversion.drafts.insert(self.conversion.drafts.index(made), draft)
        self.networks[name] = draft.name
        self.conversion.changed(
            f"--network {name}",
            f"a section `network {draft.name}` is added; it takes over a network that exists already",
        )
        return draft.name


_SPECIAL: dict[str, Callable[[_Container, str, str], None]] = {
    "name": _Container.name,
    "env": _Container.env,
    "entrypoint": _Container.entrypoint,
    "no-healthcheck": _Container.no_healthcheck,
    "health-cmd": _Container.health_cmd,
    "env-file": _Container.env_file,
    "volume": _Container.volume,
    "mount": _Container.mount,
    "security-opt": _Container.security_opt,
    "network": _Container.network,
    "net": _Container.network,
    "network-alias": _Container.setting,
    "net-alias": _Container.setting,
    "ip": _Container.setting,
    "ip6": _Container.setting,
    "link-local-ip": _Container.setting,
    "mac-address": _Container.setting,
}


def _shown(option: str, value: str) -> str:
    """A value in the report: only the name of a variable, and nothing of a command."""
    if option in ("env", "label", "log_opt", "annotation", "storage_opt"):
        return value.partition("=")[0]
    return "" if option in ("health_cmd", "command", "entrypoint") else value


def _near(name: str) -> str:
    from agent.model.kernel_names import near

    return near(name, BY_NAME)


def _fields(value: str) -> list[tuple[str, str]]:
    """`a=b,c` as docker parses it: CSV with quotes."""
    try:
        row = next(csv.reader([value]), [])
    except csv.Error:
        row = value.split(",")
    return [(key.strip().lower(), text) for key, _, text in (item.partition("=") for item in row)]


def security_option(value: str, absolute: Callable[[str], str]) -> str:
    """An entry of `security_opt`; the path of a seccomp profile is made absolute, if `absolute` can do that."""
    kind, sign, path = value.partition("=")
    is_file = kind == "seccomp" and path not in ("unconfined", "builtin") and not path.startswith(("/", "{"))
    return f"{kind}{sign}{absolute(path) or path}" if path and is_file else value


_MOUNT_NAMES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "bind-nonrecursive": "",
}


def mount_entry(
    fields: Sequence[tuple[str, str]], absolute: Callable[[str], str]
) -> tuple[str, str, str] | str:
    """The entry for a `--mount`, or for a long entry in compose's `volumes:`: (option, entry, what was lost); or the
    reason why there is none.

    `absolute` makes a path absolute; it returns "" if it cannot.
    """
    values: dict[str, str] = {}
    lost: list[str] = []
    # the command line and compose use different names for some fields
    for key, text in fields:
        key = _MOUNT_NAMES.get(key, key)
        if key in (
            "type",
            "source",
            "target",
            "readonly",
            "bind-propagation",
            "volume-nocopy",
            "tmpfs-size",
            "tmpfs-mode",
        ):
            values[key] = text
        elif key not in ("consistency", ""):
            lost.append(f"{key} is left out: a section cannot express it")
    kind, target = values.get("type", "volume"), values.get("target", "")
    if not target:
        return "it names no target"
    if kind == "tmpfs":
        options = [f"size={values['tmpfs-size']}"] if "tmpfs-size" in values else []
        options += [f"mode={values['tmpfs-mode']}"] if "tmpfs-mode" in values else []
        return "tmpfs", ":".join([target, *([",".join(options)] if options else [])]), "; ".join(lost)
    if kind not in ("bind", "volume"):
        return f"a mount of the type {kind} cannot be expressed in a section"
    source = values.get("source", "")
    if kind == "bind":
        source = absolute(source)
        if not source:
            return "give the folder that it starts from, or an absolute path"
    flags = ["ro"] if values.get("readonly", "false") not in _FALSE else []
    flags += [values["bind-propagation"]] if values.get("bind-propagation") else []
    flags += ["nocopy"] if kind == "volume" and values.get("volume-nocopy", "false") not in _FALSE else []
    return "volume", ":".join(part for part in (source, target, ",".join(flags)) if part), "; ".join(lost)


# docker network create, docker volume create


def _object(conversion: Conversion, kind: str, words: Sequence[Word], networks: dict[str, str]) -> None:
    known = _NETWORK_FLAGS if kind == "network" else _VOLUME_FLAGS
    values: list[tuple[str, str, str]] = []
    name = ""
    for flag, word in _pairs(words):
        where = f"docker {kind} create {flag}".strip()
        if word.unresolved:
            conversion.unknown(where, f"write the value instead of {word.unresolved}")
        elif not flag:
            name = word.text
        elif flag.lstrip("-") in known:
            values.append((known[flag.lstrip("-")], word.text, where))
        else:
            conversion.left_out(where, "a section has no such option")
    name = next((text for option, text, _ in values if option == "name"), name)
    if not name:
        conversion.unknown(f"docker {kind} create", "it gives no name")
        return
    if kind == "network" and name in networks:
        conversion.left_out(f"docker network create {name}", f"it is section {networks[name]} already")
        return
    draft = conversion.draft(kind, name, prefix="net" if kind == "network" else "vol")
    draft.is_for_containers = False
    if draft.name != name:
        draft.put("name", name)
    # the line may have been run before: take over what it created, with its data
    draft.put("adopt", "1")
    if kind == "network":
        networks[name] = draft.name
    for option, text, where in values:
        if option == "name":
            continue
        if option in _SWITCHES:
            text = "0" if text in _FALSE else "1"
        draft.put(option, text, where)
        conversion.taken(where)


def _pairs(words: Sequence[Word]) -> Iterator[tuple[str, Word]]:
    """Flags with their values; "" with the word for an argument without a flag."""
    at = 0
    # not argparse, which would stop at unknown flags of other docker versions
    while at < len(words):
        text = words[at].text
        flag, equals, value = text.partition("=")
        at += 1
        if not text.startswith("-"):
            yield "", words[at - 1]
        elif equals:
            yield flag, Word(value, words[at - 1].unresolved)
        # a word after a switch is not its value: `--rm nginx`
        elif flag.lstrip("-") in _SWITCHES or at == len(words):
            yield flag, Word("true")
        else:
            yield flag, words[at]
            at += 1
