# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the man pages, the shell completions and the reference: `make manual`. A test fails when they are out of date.

The commands come from the table in `agent.cli.commands`, the options of sections from the schemas.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.cli import parser
from agent.cli.commands import COMMANDS, GROUPS
from agent.cli.commands.row import COMMON, Argument, Command
from agent.convert.command_line import FLAGS
from tests.support import reference

PROJECT = Path(__file__).resolve().parents[2]
# section types of /etc/config/containers
SECTIONS = ("agent", "container", "network", "volume", "stack", "backup", "auth")
WIDTHS = (40, 80, 200)  # widths of the terminals whose help text is stored in tests/data
_LICENCE = "SPDX-License-Identifier: GPL-2.0-or-later"
_NAME = "ucidockd"
_PLACES = {"FILE", "DIR", "SOCKET"}  # values that are completed as files


def documents() -> dict[Path, str]:
    """Every file that this module writes, with its text."""
    return {
        PROJECT / "docs/reference/commands.md": _reference(),
        **{PROJECT / f"tests/data/terminal/help-{columns}.txt": _help(columns) for columns in WIDTHS},
        PROJECT / "docs/man/ucidockd.8": _commands_page(),
        PROJECT / "docs/man/ucidockd.containers.5": _sections_page(),
        PROJECT / "package/completion/ucidockd.bash": _bash(),
        PROJECT / "package/completion/_ucidockd": _zsh(),
        PROJECT / "package/completion/ucidockd.fish": _fish(),
        PROJECT / "docs/docker-run-flags.md": _flags(),
        **reference.documents(),
    }


def options_of(command: Command) -> list[Argument]:
    """The command's own options and the common ones that it accepts, without `--help`, which is everywhere."""
    return [option for option in command.all_options() if "--help" not in option.flags]


# docs/docker-run-flags.md


_FLAGS = """\
<!-- made by `make manual`: do not edit -->
# Flags of `docker container run`

Each flag of the Docker command line (its `master` of August 2026), with the option of a `container` section that does the
same, or why there is none. An option that the engine is too old for is named in status and in `ucidockd plan`
(`Synced` false, reason `EngineTooOld`) with the version that it needs; what runs stays as it is.

`StdinOnce`, which `docker run -i` sets by itself, is `option stdin_once`.

| Flag | Option | Remarks |
| --- | --- | --- |
"""


def _flags() -> str:
    rows = []
    for flag in FLAGS:
        option = f"`{flag.option}`" if flag.option else ""
        rows.append(f"| `--{flag.name}` | {option} | {flag.remark or flag.reason} |\n".replace("|  |", "| |"))
    return _FLAGS + "".join(rows)


# docs/reference/commands.md


_INTRO = """\
<!-- made by `make manual`: do not edit -->
# Commands

`ucidockd --help` lists them, `ucidockd COMMAND --help` shows one. Common options stand before or after it.
Completions for bash, zsh and fish are in `package/completion`, names of sections included. busybox's ash completes no
words of a command: there `ucidockd` alone lists them.
"""


def _help(columns: int) -> str:
    with _columns(columns):
        return parser.overview() + parser.help_of(next(c for c in COMMANDS if c.name == "logs"))


@contextlib.contextmanager
def _columns(columns: int) -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _reference() -> str:
    with _columns(100):
        return _reference_here()


def _reference_here() -> str:
    out = [_INTRO]
    for title in GROUPS:
        out.append(f"\n**{title}**: ")
        named = [c for c in COMMANDS if c.group == title]
        out.append(", ".join(f"[{c.name}](#ucidockd-{c.name.replace(' ', '-')})" for c in named) + "\n")
    for command in COMMANDS:
        out.append(f"\n## ucidockd {command.name}\n{_sentence(command.summary)}\n\n```text\n")
        out.append(parser.help_of(command) + "```\n")
    return "".join(out)


# man pages: roff, see man(7)


def _roff(text: str) -> str:
    """Escapes text so that roff shows it literally; `code` becomes bold."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    lines = (rf"\&{line}" if line.startswith((".", "'")) else line for line in text.split("\n"))
    return "\n".join(lines)


def _title(name: str, section: int, what: str) -> str:
    return (
        f'.\\" {_LICENCE}\n.\\" made by `make manual`: do not edit\n'
        f'.TH {name.upper()} {section} "" "{_NAME}" "{what}"\n'
    )


def _commands_page() -> str:
    out = [
        _title(_NAME, 8, "System administration"),
        ".SH NAME\n",
        _roff("ucidockd - keeps Docker the way UCI says"),
    ]
    out.append("\n.SH SYNOPSIS\n")
    for command in COMMANDS:
        words = parser.synopsis(command).removeprefix(command.name).strip()
        out.append(
            f".B {_roff(f'{_NAME} {command.name}')}\n{_roff(words)}\n.br\n"
            if words
            else f".B {_NAME} {command.name}\n.br\n"
        )
    out.append(".SH DESCRIPTION\n")
    out.append(
        _roff(
            "ucidockd reads `/etc/config/containers` and `/etc/config/dockerd`, and creates, changes and removes"
            " containers, networks and volumes of the Docker Engine until they match. `ucidockd run` is the agent:"
            " it does so after every `uci commit`. The other commands ask it, and most of them work without it."
            " What is not declared is never touched."
        )
    )
    out.append("\n")
    for title in GROUPS:
        out.append(f".SH {title.upper()}\n")
        out += [_command(command) for command in COMMANDS if command.group == title]
    out.append(".SH COMMON OPTIONS\nThey stand before or after the command.\n")
    out += [_entry(option) for option in COMMON.values()]
    out.append(".SH ENVIRONMENT\n")
    for name, what in (
        ("DOCKER_HOST", "the engine, as for `docker`"),
        ("DOCKER_CERT_PATH", "the folder with ca.pem, cert.pem and key.pem for a tcp engine"),
        ("NO_COLOR", "no colours where it is not empty"),
    ):
        out.append(f".TP\n.B {_roff(name)}\n{_roff(_sentence(what))}\n")
    out.append(".SH FILES\n")
    for path, what in (
        ("/etc/config/containers", "the sections that are declared: `ucidockd.containers`(5)"),
        ("/etc/config/dockerd", "dockerd's settings"),
        ("/etc/ucidockd/state.json", "which objects of the engine belong to which section"),
        ("/var/run/ucidockd/agent.sock", "the agent's control socket"),
    ):
        out.append(f".TP\n.I {_roff(path)}\n{_roff(_sentence(what))}\n")
    out.append(".SH SEE ALSO\n.BR ucidockd.containers (5),\n.BR dockerd (8)\n")
    return "".join(out)


def _command(command: Command) -> str:
    out = [f".SS {_roff(f'{_NAME} {command.name}')}\n{_roff(command.description)}\n"]
    out += [_entry(argument) for argument in (*command.arguments, *command.options)]
    if command.common:
        flags = ", ".join(rf"\fB{_roff(COMMON[name].flags[-1])}\fR" for name in command.common)
        out.append(f".TP\nCommon options:\n{flags}.\n")
    for text, what in command.examples:
        out.append(f".TP\nExample: \\fB{_roff(text)}\\fR\n{_roff(_sentence(what)) or '.br'}\n")
    for code, what in command.exit_codes:
        out.append(f".TP\nExit code {code}\n{_roff(_sentence(what))}\n")
    return "".join(out)


def _entry(argument: Argument) -> str:
    if argument.flags[0].startswith("-"):
        head = ", ".join(rf"\fB{_roff(name)}\fR" for name in argument.flags)
        head += rf" \fI{_roff(argument.metavar)}\fR" if argument.takes_value else ""
    else:
        head = rf"\fI{_roff(argument.metavar)}\fR"
    return f".TP\n{head}\n{_roff(_sentence(argument.help))}\n"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def _sections_page() -> str:
    out = [_title("ucidockd.containers", 5, "File formats"), ".SH NAME\n"]
    out.append(_roff("ucidockd.containers - the containers, networks and volumes that ucidockd keeps"))
    out.append("\n.SH SYNOPSIS\n.I /etc/config/containers\n.SH DESCRIPTION\n")
    out.append(
        _roff(
            "A file in OpenWrt's UCI syntax. A section begins with `config TYPE 'NAME'`; names hold letters, digits and `_`,"
            " and are unique in the file. `option KEY 'VALUE'` sets one value, each `list KEY 'VALUE'` adds one to a list. A"
            " value in single quotes is taken literally. `ucidockd check` lists every mistake with its line."
        )
    )
    out.append("\n.PP\n.nf\n.RS 4\n" + _roff(_EXAMPLE) + "\n.RE\n.fi\n")
    for kind in SECTIONS:
        schema = json.loads((PROJECT / "schemas" / f"{kind}.schema.json").read_text())
        out.append(f".SH THE SECTION {kind.upper()}\n{_roff(_sentence(schema.get('description', '')))}\n")
        required = set(schema.get("required", ()))
        for name, entry in schema["properties"].items():
            out.append(_option(name, entry, is_required=name in required))
    out.append(".SH SEE ALSO\n.BR ucidockd (8)\n")
    return "".join(out)


_EXAMPLE = """\
config container 'web'
        option image 'nginx:1.27'
        option memory '64m'
        list port '8080:80'"""


def _option(name: str, entry: dict[str, Any], *, is_required: bool) -> str:
    is_list = entry["type"] == "array"  # if both are possible, show it as an option, its first form
    word = "list" if is_list else "option"
    text = _sentence(entry.get("description", ""))
    if is_required:
        text += " Required."
    default = entry.get("default")
    if isinstance(default, str) and default:
        text += f" Default: `{default}`."
    said = [_one_example(word, name, example) for example in entry.get("examples", [])[:2]]
    if said:
        text += f" Example: {', '.join(said)}."
    return f".TP\n.B {word} {_roff(name)}\n{_roff(text)}\n"


def _one_example(word: str, name: str, example: object) -> str:
    value = example[0] if isinstance(example, list) and example else example
    return f"`{word} {name} '{value}'`"


# completions: words from the table, and the names of container sections from the file itself


def _first_words() -> dict[str, list[str]]:
    """First word -> its second words, if there are any."""
    found: dict[str, list[str]] = {}
    for command in COMMANDS:
        first, *rest = command.name.split()
        found.setdefault(first, []).extend(rest)
    return found


def _kind(argument: Argument) -> str:
    """How a value or argument is completed: `words a b`, files, names, commands or nothing."""
    if "choices" in argument.settings:
        return "words " + " ".join(argument.settings["choices"])
    if argument.metavar in _PLACES:
        return "files"
    if argument.metavar == "COMMAND" and argument.flags[0] == "topic":
        return "words " + " ".join(_first_words())
    return "names" if argument.metavar == "NAME" and "Docker name" in argument.help else "nothing"


def _argument_kind(command: Command) -> str:
    return _kind(command.arguments[0]) if command.arguments else "nothing"


# names of container sections in the file (`config container 'web'`), their Docker names (`option name 'x'`), and the
# engine's containers
_AWK = (
    """awk '$1 == "config" { c = $2 ~ /container/; if (c && NF > 2) print $3 }"""
    """ c && $1 == "option" && $2 == "name" { print $3 }'"""
)
_REST = r"""| tr -d "'\""; docker ps -a --format '{{.Names}}'"""
_LIST_NAMES = f'{{ {_AWK} "${{UCI_CONFIG_DIR:-/etc/config}}/containers" {_REST}; }} 2>/dev/null | sort -u'


def _bash() -> str:
    cases, values = [], {}
    for command in COMMANDS:
        flags = " ".join(name for option in options_of(command) for name in option.flags)
        kind = _argument_kind(command)
        more = {"names": " $(_ucidockd_names)", "files": "", "nothing": ""}.get(kind, f" {kind[6:]}")
        files = " files=-f" if kind == "files" else ""
        cases.append(f'\t\t{_pattern(command)}) words="{flags} --help{more}"{files} ;;')
        for option in options_of(command):
            if option.takes_value:
                values["|".join(option.flags)] = _kind(option)
    options = [f"\t{names}) {_bash_value(kind)}; return ;;" for names, kind in sorted(values.items())]
    seconds = [
        f'\t"{first} 2") words="{" ".join(rest)}" ;;' for first, rest in _first_words().items() if rest
    ]
    return f"""\
# {_LICENCE}
# made by `make manual`: do not edit
_ucidockd_names() {{
	{_LIST_NAMES}
}}

_ucidockd() {{
	local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" first="${{COMP_WORDS[1]-}}"
	local words='' files=''
	case "$before" in
{chr(10).join(options)}
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "{" ".join(_first_words())} --help --version" -- "$word")
		return
	fi
	case "$first $COMP_CWORD" in
{chr(10).join(seconds)}
	*)
		case "$first ${{COMP_WORDS[2]-}}" in
{chr(10).join(cases)}
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen $files -W "$words" -- "$word")
}}
complete -F _ucidockd ucidockd
"""


def _pattern(command: Command) -> str:
    """A shell pattern for the first two words of a command line."""
    first, *rest = command.name.split()
    return rf"{first}\ {rest[0]}" if rest else rf"{first}\ *"


def _bash_value(kind: str) -> str:
    if kind == "files":
        return 'mapfile -t COMPREPLY < <(compgen -f -- "$word")'
    if kind == "nothing":
        return "COMPREPLY=()"
    words = "$(_ucidockd_names)" if kind == "names" else kind[6:]
    return f'mapfile -t COMPREPLY < <(compgen -W "{words}" -- "$word")'


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def _zsh() -> str:
    lines = [f"#compdef {_NAME}", f"# {_LICENCE}", "# made by `make manual`: do not edit", ""]
    lines += ["_ucidockd_names() {", f'\tcompadd -- ${{(f)"$({_LIST_NAMES})"}}', "}", "", "_ucidockd() {"]
    lines += ["\tlocal -a commands", "\tcommands=("]
    for first, rest in _first_words().items():
        found = next(c for c in COMMANDS if c.name.split()[0] == first)
        text = f"{first} {' or '.join(rest)}" if len(rest) > 1 else found.summary
        lines.append(f"\t\t'{first}:{_quoted(text).replace(':', '')}'")
    lines += ["\t)", "\tif (( CURRENT == 2 )); then", "\t\t_describe command commands", "\t\treturn", "\tfi"]
    lines += ["\tlocal command=$words[2]", "\tshift words", "\t(( CURRENT-- ))"]
    lines += ["\tif (( CURRENT == 2 )); then", "\t\tcase $command in"]
    lines += [
        f"\t\t{first}) compadd {' '.join(rest)}; return ;;" for first, rest in _first_words().items() if rest
    ]
    lines += ["\t\tesac", "\tfi", '\tcase "$command $words[2]" in']
    for command in COMMANDS:
        specs = []
        for option in options_of(command):
            text = re.sub(r"[\[\]:]", "", option.help)
            value = f":value:{_zsh_value(_kind(option))}" if option.takes_value else ""
            specs += [f"'{name}[{_quoted(text)}]{value}'" for name in option.flags]
        specs += ["':subcommand: '"] if " " in command.name else []
        specs += [f"'*:argument:{_zsh_value(_argument_kind(command))}'"]
        lines += [
            f"\t{_pattern(command)})",
            "\t\t_arguments \\",
            " \\\n".join(f"\t\t\t{spec}" for spec in specs),
            "\t\t;;",
        ]
    lines += ["\tesac", "}", "", '_ucidockd "$@"', ""]
    return "\n".join(lines)


def _zsh_value(kind: str) -> str:
    if kind.startswith("words"):
        return f"({kind[6:]})"
    return {"files": "_files", "names": "_ucidockd_names"}.get(kind, "")


def _fish() -> str:
    lines = [
        f"# {_LICENCE}",
        "# made by `make manual`: do not edit",
        "function __ucidockd_names",
        "\tset -l dir /etc/config",
        "\tset -q UCI_CONFIG_DIR; and set dir $UCI_CONFIG_DIR",
        f"\tbegin; {_AWK} $dir/containers {_REST}; end 2>/dev/null | sort -u",
        "end",
    ]
    lines += [f"complete -c {_NAME} -f"]
    for command in COMMANDS:
        first, *rest = command.name.split()
        text = _quoted_fish(command.summary)
        seen = f"-n '__fish_seen_subcommand_from {first}'"
        if rest:
            lines.append(f"complete -c {_NAME} -n __fish_use_subcommand -a {first}")
            lines.append(f"complete -c {_NAME} {seen} -a {rest[0]} -d '{text}'")
            seen = f"-n '__fish_seen_subcommand_from {first}; and __fish_seen_subcommand_from {rest[0]}'"
        else:
            lines.append(f"complete -c {_NAME} -n __fish_use_subcommand -a {first} -d '{text}'")
        for option in options_of(command):
            flags = [f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.flags]
            value = _fish_value(_kind(option)) if option.takes_value else ""
            lines.append(
                f"complete -c {_NAME} {seen} {' '.join(flags)}{value} -d '{_quoted_fish(option.help)}'"
            )
        kind = _argument_kind(command)
        if kind == "files":
            lines.append(f"complete -c {_NAME} {seen} -F")
        elif kind == "names":
            lines.append(f"complete -c {_NAME} {seen} -a '(__ucidockd_names)'")
        elif kind != "nothing":
            lines.append(f"complete -c {_NAME} {seen} -a '{kind[6:]}'")
    return "\n".join(lines) + "\n"


def _fish_value(kind: str) -> str:
    if kind.startswith("words"):
        return f" -x -a '{kind[6:]}'"
    return {"files": " -r -F", "names": " -x -a '(__ucidockd_names)'"}.get(kind, " -x")


def _quoted_fish(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


if __name__ == "__main__":
    for path, text in documents().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
